"""The set of balanced layers, on which gradient flow from a balanced start stays."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from balancedfact._validate import as_widths
from balancedfact.manifolds._layers import Latest, LayerManifold, Layers
from balancedfact.manifolds._product import ProductPoint, TangentVector
from balancedfact.manifolds._product_curvature import ProductCurvature


class _SharedBases(NamedTuple):
    """Balanced layers in their shared singular vectors, ``W_k = bases[k] diag(sigma) bases[k-1].T``, rank columns each."""

    bases: list[np.ndarray]
    sigma: np.ndarray
    full: bool  # whether the rank is the largest possible


class _Parts(NamedTuple):
    """Blocks of a vector with respect to the shared singular vectors, one of each per layer."""

    core: np.ndarray  # (L, r, r)
    below: list[np.ndarray]  # (d_k, r), off the range of W_k
    right: list[np.ndarray]  # (r, d_{k-1}), off the row space
    rest: list[np.ndarray]  # off both


class BalancedLayers(LayerManifold):
    r"""The manifold :math:`\{W : W_{k+1}^\top W_{k+1} = W_kW_k^\top,\ k = 1, \dots, L-1\}` of balanced layers.

    Points are lists ``[W_1, ..., W_L]``, `W_k` of shape ``(d_k, d_{k-1})``; a cost for it is a function
    ``cost(*layers)``. Two layers are a balanced pair ``(W_2, W_1.T)``, and this is then `BalancedPairs`. The geometry is
    the one inherited from the Euclidean space of layers.

    All layers have the same non-zero singular values, and the right singular vectors of each are the left ones of the layer
    before: :math:`W_k = Q_k\Sigma Q_{k-1}^\top` with orthonormal columns in :math:`Q_0, \dots, Q_L`. When no hidden layer is
    wider than :math:`q`, the normal vectors are :math:`S_kW_k - W_kS_{k-1}` with symmetric :math:`S_k`, and
    :math:`S_0 = S_L = 0`. In the shared singular vectors their equations decouple into one tridiagonal system along the layers
    for every entry ``(i, j)``, with the constant coefficients :math:`\sigma_i^2 + \sigma_j^2` and :math:`-\sigma_i\sigma_j`.
    Discrete sine transforms solve them all, so that a projection costs :math:`O(\sum_k d_kd_{k-1}q + L^2q^2)`.

    Parameters
    ----------
    widths : list of int
        :math:`d_0, \dots, d_L`, at least three.
    rng : int or numpy.random.Generator, optional
        Randomness of `random_point` and `random_tangent_vector`. Without it every draw is seeded from NumPy's
        global state, as for pymanopt's own manifolds.

    Attributes
    ----------
    rank : int
        :math:`q = \min_k d_k`, the largest rank of balanced layers.
    dim : int
        :math:`q\sum_k d_k - \tfrac12(L+1)q(q+1) + q`.
    second_order_retraction : bool
        True: the retraction agrees with geodesics to second order.

    Raises
    ------
    ValueError
        If `widths` is no list of at least three positive integers, or `rng` is no seed or generator.

    See Also
    --------
    BalancedPairs : The same for two factors.
    check_manifold : A check of any manifold.
    balancedfact.dynamics.balanced_layers : Balanced layers with a given product.

    Notes
    -----
    **Where it is a manifold.** The layers of rank :math:`q` are an embedded manifold, open and dense in the set; repeated
    singular values do no harm. A hidden layer wider than :math:`q` restricts the tangent space beyond the linearised
    constraint, to vectors that vanish off both the range and the row space of a layer, as in `BalancedPairs`.

    **Where the rank drops** below :math:`q` the set is a cone over balanced layers of smaller sizes. Nothing fails there:
    `projection` is the projection on the null space of the linearised constraint, which contains every direction that leads
    along the set, and the retraction still returns balanced layers. `dim` is the dimension at rank :math:`q`.

    The retraction makes one pass of polar decompositions from the narrowest layer outwards, which gives balanced
    layers near ``W + V``, followed by one step towards the nearest ones: it agrees with the metric projection to third order.

    References
    ----------
    Marion, Chizat 2024, Lemma 1 (gradient flow keeps :math:`W_{k+1}^\top W_{k+1} - W_kW_k^\top`); Absil, Malick 2012,
    Projection-like retractions on matrix manifolds.

    Chapter :doc:`/theory/deep_manifolds`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> manifold = bf.manifolds.BalancedLayers([4, 2, 3, 5], rng=0)
    >>> W1, W2, W3 = manifold.random_point()
    >>> manifold.dim, bool(np.allclose(W2.T @ W2, W1 @ W1.T) and np.allclose(W3.T @ W3, W2 @ W2.T))
    (18, True)
    """

    def __init__(self, widths: Iterable[int], *, rng: int | np.random.Generator | None = None) -> None:
        sizes = as_widths(widths)
        self.rank = q = min(sizes)
        dimension = q * sum(sizes) - len(sizes) * q * (q + 1) // 2 + q
        super().__init__(f"Balanced layers of widths {sizes}", sizes, dimension, rng)
        self._narrowest = sizes.index(q)
        self._frame, self._curvature = Latest(self._frame_of), Latest(self._curvature_of)
        steps = np.arange(1, self.depth)
        self._sines = np.sqrt(2 / self.depth) * np.sin(np.pi / self.depth * np.outer(steps, steps))
        self._stiffness = 4 * np.sin(np.pi / self.depth * steps / 2) ** 2

    def residual(self, point: Layers) -> float:
        r"""Distance of layers from balance: the largest of
        :math:`\|W_{k+1}^\top W_{k+1} - W_kW_k^\top\|_F / (\|W_{k+1}\|_F^2 + \|W_k\|_F^2)`."""
        worst = 0.0
        for one, other in pairwise(point):
            size = np.vdot(one, one) + np.vdot(other, other)
            worst = max(worst, float(np.linalg.norm(other.T @ other - one @ one.T) / size) if size else 0.0)
        return worst

    def random_point(self) -> ProductPoint:
        """Random balanced layers of singular values about one, near to independent normal ones."""
        draw = self.normal_layers()
        return self._balanced([layer / np.sqrt(max(layer.shape)) for layer in draw])

    def projection(self, point: Layers, vector: Layers) -> TangentVector:
        """The orthogonal projection of layers on the tangent space."""
        frame = self._frame(point)
        parts = _split(frame, vector)
        below, right = list(parts.below), list(parts.right)
        for k, apart in enumerate(_apart(parts)):
            below[k], right[k + 1] = below[k] - apart, right[k + 1] + apart.T
        return _joined(frame, parts._replace(core=self._tangent_core(frame, parts.core), below=below, right=right))

    def retraction(self, point: Layers, tangent_vector: Layers) -> ProductPoint:
        """Balanced layers near ``W + V``, equal to the nearest ones to third order."""
        goal = [layer + change for layer, change in zip(point, tangent_vector, strict=True)]
        near = self._balanced(goal)
        change = self.projection(near, [one - other for one, other in zip(goal, near, strict=True)])
        return self._balanced([layer + part for layer, part in zip(near, change, strict=True)])

    def euclidean_to_riemannian_hessian(
        self, point: Layers, euclidean_gradient: Layers, euclidean_hessian: Layers, tangent_vector: Layers
    ) -> TangentVector:
        """The Riemannian Hessian along a tangent vector: projected Euclidean Hessian plus the curvature of the manifold."""
        frame = self._frame(point)
        Q, parts, V = frame.bases, _split(frame, euclidean_gradient), tangent_vector
        core = self._core_multiplier(frame, parts.core)
        hessian = [np.array(part) for part in euclidean_hessian]
        for k, apart in enumerate(_apart(parts)):
            # The multiplier S_{k+1}, which belongs to the columns of layer k + 1 (counted from zero) and the rows of layer k.
            S = Q[k + 1] @ (core[k] @ Q[k + 1].T + (apart / frame.sigma).T) + (apart / frame.sigma) @ Q[k + 1].T
            hessian[k] -= S @ V[k]
            hessian[k + 1] += V[k + 1] @ S
        if frame.full:
            turns = _turns(frame, V)
            for k, rest in enumerate(parts.rest):
                hessian[k] += Q[k + 1] @ (turns[k + 1].T @ rest) + (rest @ turns[k]) @ Q[k].T
        return self.projection(point, hessian)

    def preconditioner(self, point: Layers, vector: Layers) -> TangentVector:
        r"""Apply the inverse of the Hessian of :math:`\|W_L\cdots W_1 - M\|^2` where the product is `M`.

        For ``pymanopt.Problem(manifold, cost, preconditioner=manifold.preconditioner)`` and costs of the product
        :math:`X = W_L\cdots W_1`. What leaves the product as it is, such as rotations of hidden spaces, is divided by the
        largest curvature. Exact in closed form, in :math:`O(\sum_kd_kd_{k-1}q + L^2q^2)` operations as a projection is.
        """
        frame, curvature = self._frame(point), self._curvature(point)
        if not curvature.largest > 0:
            return TangentVector(np.array(part) for part in vector)
        parts = _split(frame, vector)
        below, right, rest = ([curvature.unseen * part for part in each] for each in parts[1:])
        below[-1], right[0] = parts.below[-1] * curvature.ends, curvature.ends[:, None] * parts.right[0]
        return _joined(frame, _Parts(curvature.core(parts.core), below, right, rest))

    # The inside.

    def _chain(self, layers: Layers) -> tuple[list[np.ndarray], np.ndarray]:
        """Orthonormal bases and symmetric cores of polar decompositions, from the narrowest width outwards."""
        start, cores = self._narrowest, []
        bases = [np.eye(self.rank)] * (self.depth + 1)
        for k in [*range(start, self.depth), *range(start - 1, -1, -1)]:
            here, there, along = (k, k + 1, layers[k]) if k >= start else (k + 1, k, layers[k].T)
            U, s, Vt = np.linalg.svd(along @ bases[here], full_matrices=False)
            bases[there] = U @ Vt
            cores.append((Vt.T * s) @ Vt)
        return bases, np.mean(cores, axis=0)

    def _balanced(self, layers: Layers) -> ProductPoint:
        """Balanced layers near to any layers; balanced layers stay as they are."""
        bases, core = self._chain(layers)
        return ProductPoint(bases[k + 1] @ core @ bases[k].T for k in range(self.depth))

    def _frame_of(self, point: Layers) -> _SharedBases:
        bases, core = self._chain(point)
        sigma, rotation = np.linalg.eigh((core + core.T) / 2)
        sigma, rotation = sigma[::-1], rotation[:, ::-1]
        rank = int(np.count_nonzero(sigma > sum(self.widths) * np.finfo(float).eps * sigma[0]))
        return _SharedBases([basis @ rotation[:, :rank] for basis in bases], sigma[:rank], rank == self.rank)

    def _curvature_of(self, point: Layers) -> ProductCurvature:
        frame = self._frame(point)
        return ProductCurvature(frame.sigma, self.depth, lambda core: self._tangent_core(frame, core))

    def _tangent_core(self, frame: _SharedBases, core: np.ndarray) -> np.ndarray:
        return core - self._normal_core(frame, self._core_multiplier(frame, core))

    def _core_multiplier(self, frame: _SharedBases, core: np.ndarray) -> np.ndarray:
        """The blocks ``(L-1, r, r)`` of the symmetric multipliers in the singular vectors, times the largest singular value."""
        if not frame.sigma.size:
            return np.zeros((self.depth - 1, 0, 0))
        s = frame.sigma / frame.sigma[0]
        cross = core[:-1] * s - s[:, None] * core[1:]
        cross = (cross + cross.transpose(0, 2, 1)) / 2
        weights = np.subtract.outer(s, s) ** 2 + self._stiffness[:, None, None] * np.multiply.outer(s, s)
        spectrum = np.tensordot(self._sines, cross, 1) / weights
        return np.tensordot(self._sines, spectrum, 1) / frame.sigma[0]

    def _normal_core(self, frame: _SharedBases, multiplier: np.ndarray) -> np.ndarray:
        core = np.zeros((self.depth, *multiplier.shape[1:]))
        core[:-1] += multiplier * frame.sigma
        core[1:] -= frame.sigma[:, None] * multiplier
        return core


def _split(frame: _SharedBases, vector: Layers) -> _Parts:
    core, below, right, rest = [], [], [], []
    for part, into, out in zip(vector, frame.bases[1:], frame.bases[:-1], strict=True):
        columns, rows = part @ out, into.T @ part
        core.append(into.T @ columns)
        below.append(columns - into @ core[-1])
        right.append(rows - core[-1] @ out.T)
        rest.append(part - into @ rows - below[-1] @ out.T)
    return _Parts(np.array(core), below, right, rest)


def _joined(frame: _SharedBases, parts: _Parts) -> TangentVector:
    """The tangent vector of parts; what is off both range and row space has a place where the rank may grow."""
    Q = frame.bases
    blocks = zip(parts.core, parts.below, parts.right, Q[1:], Q[:-1], strict=True)
    joined = [into @ (core @ out.T + right) + below @ out.T for core, below, right, into, out in blocks]
    return TangentVector(joined if frame.full else [one + rest for one, rest in zip(joined, parts.rest, strict=True)])


def _apart(parts: _Parts) -> list[np.ndarray]:
    """Half the mismatch of the rotation of space j implied by layers j and j + 1."""
    return [(below - above.T) / 2 for below, above in zip(parts.below[:-1], parts.right[1:], strict=True)]


def _turns(frame: _SharedBases, vector: Layers) -> list[np.ndarray]:
    """The velocities of the spans of the bases along a tangent vector, orthogonal to the bases."""
    Q = frame.bases
    velocities = [vector[0].T @ Q[1], *(part @ basis for part, basis in zip(vector, Q[:-1], strict=True))]
    return [(v - basis @ (basis.T @ v)) / frame.sigma for v, basis in zip(velocities, Q, strict=True)]
