r"""The inverse Hessian of the distance of the product of balanced layers from what it is, in closed form.

In their shared singular vectors, :math:`W_k = Q_k\Sigma Q_{k-1}^\top`, a change of the product has the coefficients

.. math:: (Q_L^\top\dot XQ_0)_{ij} = \sum_k\sigma_i^{L-k}\,(Q_k^\top V_kQ_{k-1})_{ij}\,\sigma_j^{k-1},

and off the ranges :math:`\sigma^{L-1}` times what the first and the last layer have there. With `J` for this map and `P` for
the projection on the tangent space, whose multipliers couple only the entries ``(i, j)`` and ``(j, i)`` of all layers,
:math:`JPJ^\top` consists of blocks of order two, and :math:`PJ^\top(JPJ^\top)^{-2}JP` is the inverse of :math:`PJ^\top JP`
where the product changes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_FREE_SHARE = 1e-10  # of the largest curvature: directions with less count as having as much


class ProductCurvature:
    """The inverse of ``2 J.T J`` at singular values `sigma`; what `J` does not see is divided by the largest curvature.

    `project` is the projection of cores, of shape ``(L, r, r)``, on the tangent space.
    """

    def __init__(self, sigma: np.ndarray, depth: int, project: Callable[[np.ndarray], np.ndarray]) -> None:
        self.project = project
        powers = np.arange(depth)[:, None]
        self.after, self.before = sigma ** powers[::-1], sigma**powers
        above = np.triu(np.ones((sigma.size,) * 2), 1)
        upper, lower, on = (project(self._adjoint(mask)) for mask in (above, above.T, np.eye(sigma.size)))
        # What `J P J.T` has for the entry (i, j), and between it and (j, i).
        own = above * _paired(upper, upper) + above.T * _paired(lower, lower) + np.diag(np.einsum("kii,kii->i", on, on))
        ends = sigma ** (2 * (depth - 1))
        self.largest = float(max(own.max(initial=0.0), ends.max(initial=0.0)))
        if not self.largest > 0:  # nothing moves the product to first order
            return
        least = _FREE_SHARE * self.largest
        self.own, self.across = own + least, _paired(upper, lower)
        self.ends, self.unseen = 1 / (2 * (ends + least)), 1 / (2 * self.largest)

    def core(self, core: np.ndarray) -> np.ndarray:
        """The image of the core of a tangent vector."""
        w = self._solved(np.einsum("ki,kij,kj->ij", self.after, core, self.before))
        return self.unseen * core + self.project(self._adjoint(0.5 * self._solved(w) - self.unseen * w))

    def _adjoint(self, Z: np.ndarray) -> np.ndarray:
        return self.after[:, :, None] * Z * self.before[:, None, :]

    def _solved(self, y: np.ndarray) -> np.ndarray:
        return np.asarray((self.own.T * y - self.across * y.T) / (self.own * self.own.T - self.across**2))


def _paired(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The inner products of the entries ``(i, j)`` and ``(j, i)`` of all layers, for every pair; zero on the diagonal."""
    products = np.sum(one * other, axis=0)
    total = products + products.T
    np.fill_diagonal(total, 0.0)
    return np.asarray(total)
