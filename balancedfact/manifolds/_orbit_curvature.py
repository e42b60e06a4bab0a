r"""The inverse Hessian of the isotropic trace along an orbit of factorizations, in closed form.

With :math:`B_k = W_k\cdots W_1`, :math:`C_k = W_L\cdots W_{k+1}` the terms of :math:`R(W) = \sum_j\tau_j` are
:math:`\tau_j = \|C_j\|^2\|B_{j-1}\|^2`. Along ``G_k = expm(t X_k)`` with symmetric `X_k` the second derivative of `R` is

.. math:: \langle X, HX\rangle = \sum_k4\operatorname{tr}\big(X_k^2(\alpha_k + \beta_k)\big)
          - 8\sum_{j=2}^{L-1}\langle\beta_j, X_j\rangle\langle\alpha_{j-1}, X_{j-1}\rangle/\tau_j,
          \qquad \alpha_k = \|C_{k+1}\|^2B_kB_k^\top, \quad \beta_k = \|B_{k-1}\|^2C_k^\top C_k:

blocks that are diagonal in the eigenvectors of :math:`\alpha_k + \beta_k`, and two directions for each inner term, which the
identity of Woodbury takes in.
"""

from __future__ import annotations

import numpy as np

from balancedfact.manifolds._layers import Layers, products

_ORBIT_FLOOR = 1e-13  # of the largest eigenvalue of a block: directions that the trace does not see


class OrbitCurvature:
    """The inverse of `H` at one point, for matrices ``X_k``, symmetric or not."""

    def __init__(self, layers: Layers) -> None:
        before, after = products(layers)
        depth = len(layers)
        b, c = ([float(np.vdot(X, X)) for X in each] for each in (before, after))
        ahead = [c[k + 1] * before[k] @ before[k].T for k in range(1, depth)]
        behind = [b[k - 1] * after[k].T @ after[k] for k in range(1, depth)]
        self.blocks = []
        for one, other in zip(ahead, behind, strict=True):
            values, vectors = np.linalg.eigh(one + other)
            values = np.maximum(values, _ORBIT_FLOOR * values[-1])
            self.blocks.append((vectors, 2 * np.add.outer(values, values)))
        # The directions, as the number of a hidden layer and a matrix; two neighbours stand for the term between them.
        self.places = [(k + side, (ahead[k], behind[k + 1])[side]) for k in range(depth - 2) for side in (0, 1)]
        solved = [self._block(place, X) for place, X in self.places]
        middle = np.zeros((len(solved),) * 2)
        for i, (place, X) in enumerate(self.places):
            for j, (other, _) in enumerate(self.places):
                middle[i, j] = float(np.vdot(X, solved[j])) if place == other else 0.0
        for j in range(depth - 2):
            term = c[j + 2] * b[j + 1]
            middle[2 * j, 2 * j + 1] -= term / 4
            middle[2 * j + 1, 2 * j] -= term / 4
        self.solved, self.middle = solved, middle

    def inverse(self, Z: Layers) -> list[np.ndarray]:
        """The matrices `X_k` that `H` takes to given ones."""
        X = [self._block(k, z) for k, z in enumerate(Z)]
        if self.places:
            weights = np.linalg.solve(self.middle, [float(np.vdot(one, X[k])) for k, one in self.places])
            for (k, _), weight, image in zip(self.places, weights, self.solved, strict=True):
                X[k] = X[k] - weight * image
        return X

    def _block(self, k: int, Z: np.ndarray) -> np.ndarray:
        vectors, eigenvalues = self.blocks[k]
        return np.asarray(vectors @ ((vectors.T @ Z @ vectors) / eigenvalues) @ vectors.T)
