"""The layers that fit the data exactly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike

from balancedfact._linalg import FITTED, frobenius, product
from balancedfact._validate import as_array, as_widths
from balancedfact.manifolds._layers import Latest, LayerManifold, Layers, products
from balancedfact.manifolds._product import ProductPoint, TangentVector
from balancedfact.manifolds._trace_blocks import Block, trace_blocks
from balancedfact.measurements import MeasurementMap

_DRAWS = 50


class _Linearised(NamedTuple):
    """A point with its products and a factor of the inverse of its Gram matrix."""

    layers: Layers
    before: list[np.ndarray]
    after: list[np.ndarray]
    inverse: np.ndarray  # X with X @ X.T the (pseudo-)inverse of the Gram matrix


class ZeroLoss(LayerManifold):
    r"""The manifold :math:`\{W : \mathcal A(W_L\cdots W_1) = b\}` of the layers that fit the data exactly.

    Points are lists ``[W_1, ..., W_L]``; a cost for it is a function ``cost(*layers)``. The geometry is the one inherited from
    the Euclidean space of layers. With :math:`B_j = W_j\cdots W_1`, :math:`C_j = W_L\cdots W_{j+1}` and the Jacobian

    .. math:: JV = \mathcal A\Big(\sum_j C_jV_jB_{j-1}\Big), \qquad (J^\top y)_j = C_j^\top\mathcal A^*(y)B_{j-1}^\top,

    the projection is :math:`V - J^\top(JJ^\top)^{-1}JV`. The Gram matrix :math:`JJ^\top = \mathcal AK\mathcal A^*` with
    :math:`K(Y) = \sum_jC_jC_j^\top YB_{j-1}^\top B_{j-1}` is formed as a matrix, ``m x m``, in
    :math:`O(m^2d^2L)` operations (:math:`O(m^2dL)` for rank-one measurements, :math:`O(m^2L)` for entries). The
    Riemannian Hessian is the projection of
    :math:`\nabla^2f[V] - D(J^\top)[V]\lambda` with the multipliers :math:`\lambda = (JJ^\top)^{-1}J\nabla f`.

    The retraction takes Gauss-Newton steps of least norm from ``W + V`` back to the data, a relative residual of rounding
    size in three to five steps as a rule. It is of second order, because the steps are normal to the manifold.
    A step from which there is no way back is halved until there is.

    Parameters
    ----------
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.
    widths : list of int
        :math:`d_0, \dots, d_L`, at least three.
    rng : int or numpy.random.Generator, optional
        Randomness of `random_point` and `random_tangent_vector`. Without it every draw is seeded from NumPy's
        global state, as for pymanopt's own manifolds.

    Attributes
    ----------
    A, b : MeasurementMap, numpy.ndarray
        The constraints that are used: a largest independent set of the measurements, scaled to norm one.
    dim : int
        :math:`\sum_kd_kd_{k-1} - \min(m, p(d_0 + d_L - p))`, `m` counting independent measurements, with
        :math:`p = \min_kd_k`.
    second_order_retraction : bool
        True: the retraction agrees with geodesics to second order.

    Raises
    ------
    ValueError
        If `A` is no measurement map, `b` or `widths` does not fit it, the data contradict one another, no measurement is
        other than zero, or `rng` is no seed or generator. Also from `random_point`, if no layers are found that fit.

    See Also
    --------
    Factorizations : The manifold of layers with one given product.
    balancedfact.flat_network : The flattest layers that fit.

    Notes
    -----
    **Where it is a manifold.** At the points where `J` has its largest rank :math:`\min(m, p(d_0 + d_L - p))`. At weights
    whose layers all have rank `r` the range of `K` has dimension :math:`r(d_0 + d_L - r)`. Where this is below `m`, the Gram
    matrix is singular, and so is the point. That is the rule at the flattest layers when a matrix of low rank is recovered
    exactly.

    **What is done there.** Eigenvalues of the Gram matrix below rounding count as zero. `projection` is then the projection
    on the null space of `J`, which contains every direction that leads along the set, and the retraction uses the
    pseudo-inverse. On the way to such a point the smallest eigenvalue of the Gram matrix falls in proportion to the distance
    of the end-to-end matrix from the set of matrices of rank `r`; `gram` shows it. First- and second-order optimizers of the
    trace of the Hessian were still seen to converge linearly, to an error of about 1e-11 of the end-to-end matrix and
    a feasibility of about 1e-12, where the least eigenvalue drowns in rounding. With hidden layers of width `r` the point
    is regular.

    References
    ----------
    Absil, Malick 2012, Projection-like retractions on matrix manifolds; Gatmiry et al. 2023 (label noise minimises the trace
    of the Hessian on this set).

    Chapter :doc:`/theory/deep_manifolds`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(6, (3, 4), rng=0)
    >>> manifold = bf.manifolds.ZeroLoss(A, np.ones(6), [4, 3, 3, 3], rng=0)
    >>> W1, W2, W3 = manifold.random_point()
    >>> manifold.dim, bool(np.allclose(A(W3 @ W2 @ W1), 1))
    (24, True)
    """

    def __init__(
        self, A: MeasurementMap, b: ArrayLike, widths: Iterable[int], *, rng: int | np.random.Generator | None = None
    ) -> None:
        if not isinstance(A, MeasurementMap):
            raise ValueError(f"A is {A!r}; expected a measurement map, such as balancedfact.measurements.Dense(matrices)")
        rows, columns = A.matrix_shape
        data, sizes = as_array(b, "b", shape=(A.m,)), as_widths(widths, (rows, columns))
        self.A, self.b, self._solution = _independent(A, data)
        narrow = min(sizes)
        self._rank = min(self.A.m, narrow * (rows + columns - narrow))
        entries = sum(one * other for one, other in zip(sizes[1:], sizes[:-1], strict=True))
        name = f"Layers of widths {sizes} that fit {self.A.m} independent measurements"
        super().__init__(name, sizes, entries - self._rank, rng)
        self._size = frobenius(self.b) or 1.0
        self._frame, self._curvature = Latest(self._frame_of), Latest(self._curvature_of)

    def residual(self, point: Layers) -> float:
        r"""The relative residual :math:`\|\mathcal A(W_L\cdots W_1) - b\|/\|b\|` (absolute if the data are zero)."""
        return frobenius(self._misfit(point)) / self._size

    def gram(self, point: Layers) -> np.ndarray:
        r"""The Gram matrix :math:`JJ^\top = \mathcal AK\mathcal A^*` of the constraints at a point.

        Parameters
        ----------
        point : list of numpy.ndarray
            Layers, whether they fit the data or not.

        Returns
        -------
        numpy.ndarray
            Square, with as many rows as there are independent measurements. Apart from eigenvalues that are zero everywhere on
            the set, the smallest tells how far the point is from a singular one.
        """
        return self._gram(*products(point))

    # Points and vectors.

    def random_point(self) -> ProductPoint:
        """Random normal layers, scaled to the size of the least solution and brought to zero loss by Gauss-Newton steps.

        Raises
        ------
        ValueError
            If none of several draws can be brought to zero loss.
        """
        goal = frobenius(self._solution) * np.sqrt(self._solution.size / self.A.m) or 1.0
        for _ in range(_DRAWS):
            draw = [layer / np.sqrt(max(layer.shape)) for layer in self.normal_layers()]
            factor = (goal / (frobenius(products(draw)[0][-1]) or 1.0)) ** (1 / self.depth)
            found = self._restored([factor * layer for layer in draw])
            if found is not None:
                return found
        raise ValueError(
            f"b was not fitted by layers of widths {self.widths} from any of {_DRAWS} random starts; expected data of a matrix "
            f"of rank at most {min(self.widths)}"
        )

    def projection(self, point: Layers, vector: Layers) -> TangentVector:
        """The orthogonal projection of layers on the null space of the Jacobian."""
        return self._split(self._frame(point), vector)[0]

    def retraction(self, point: Layers, tangent_vector: Layers) -> ProductPoint:
        """Layers that fit, reached from ``W + V`` by Gauss-Newton steps of least norm; `V` is halved where these fail."""
        length = 1.0
        for _ in range(60):
            goal = [layer + length * change for layer, change in zip(point, tangent_vector, strict=True)]
            found = self._restored(goal)
            if found is not None:
                return found
            length /= 2
        return ProductPoint(np.array(layer) for layer in point)

    # Derivatives.

    def euclidean_to_riemannian_hessian(
        self, point: Layers, euclidean_gradient: Layers, euclidean_hessian: Layers, tangent_vector: Layers
    ) -> TangentVector:
        """The Riemannian Hessian along a tangent vector: projected Euclidean Hessian plus the curvature of the manifold."""
        frame, V = self._frame(point), tangent_vector
        force = self.A.adjoint_matrix(self._split(frame, euclidean_gradient)[1])
        before, after = _derivatives(frame, V)
        bent = [
            hessian - after[j + 1].T @ force @ frame.before[j].T - frame.after[j + 1].T @ force @ before[j].T
            for j, hessian in enumerate(euclidean_hessian)
        ]
        return self.projection(point, bent)

    def preconditioner(self, point: Layers, vector: Layers) -> TangentVector:
        r"""Apply the inverse, on the tangent space, of the blocks of the Hessian of :math:`R(W)` that belong to single layers.

        For ``pymanopt.Problem(manifold, cost, preconditioner=manifold.preconditioner)`` and costs like the trace of the Hessian
        or its isotropic surrogate. With the blocks `D`, :math:`D^{-1}V - D^{-1}J^\top(JD^{-1}J^\top)^{-1}JD^{-1}V` is formed
        exactly, at the cost of one more Gram matrix of the constraints a point.
        """
        blocks, inverse = self._curvature(point)
        frame = self._frame(point)

        def divided(V: Layers) -> TangentVector:
            return TangentVector(block.inverse(part) for block, part in zip(blocks, V, strict=True))

        found = divided(vector)
        found = found - divided(self._normal(frame, inverse @ (inverse.T @ self._jacobian(frame, found))))
        return self.projection(point, found)  # for the rounding error

    # The inside.

    def _misfit(self, layers: Layers) -> np.ndarray:
        return self.b - self.A.forward(product(layers))

    def _gram(self, before: list[np.ndarray], after: list[np.ndarray]) -> np.ndarray:
        total = np.zeros((self.A.m, self.A.m))
        for B, C in zip(before[:-1], after[1:], strict=True):
            if self.A.forms_stack:
                features = self.A.rotated(C, B.T).reshape(self.A.m, -1)
                total += features @ features.T
            else:
                total += self.A.scaled_gram(C @ C.T, np.zeros(self.A.matrix_shape), B.T @ B)
        return total

    def _frame_of(self, layers: Layers) -> _Linearised:
        before, after = products(layers)
        return _Linearised(layers, before, after, self._inverse_root(self._gram(before, after)))

    def _curvature_of(self, layers: Layers) -> tuple[list[Block], np.ndarray]:
        """The blocks of the Hessian, and the factor of the inverse of the Gram matrix in their metric."""
        before, after = products(layers)
        blocks, total = trace_blocks(layers), np.zeros((self.A.m, self.A.m))
        for B, C, block in zip(before[:-1], after[1:], blocks, strict=True):
            features = self.A.rotated(C @ block.left, B.T @ block.right) / np.sqrt(block.curvature)
            features = features.reshape(self.A.m, -1)
            total += features @ features.T
        return blocks, self._inverse_root(total)

    def _inverse_root(self, gram: np.ndarray) -> np.ndarray:
        """A matrix `X` with ``X @ X.T`` the (pseudo-)inverse of a Gram matrix of the constraints."""
        if self._rank == self.A.m:
            try:
                factor = np.linalg.cholesky(gram)
            except np.linalg.LinAlgError:
                pass  # singular to rounding
            else:
                if np.diag(factor).min() > 1e-5 * np.diag(factor).max():
                    return np.asarray(np.linalg.inv(factor).T)
        values, vectors = np.linalg.eigh(gram)
        keep = values > self.A.m * np.finfo(float).eps * values[-1]
        return np.asarray(vectors[:, keep] / np.sqrt(values[keep]))

    def _jacobian(self, frame: _Linearised, vector: Layers) -> np.ndarray:
        change = sum(C @ V @ B for C, V, B in zip(frame.after[1:], vector, frame.before[:-1], strict=True))
        return self.A.forward(np.asarray(change))

    def _normal(self, frame: _Linearised, y: np.ndarray) -> list[np.ndarray]:
        force = self.A.adjoint_matrix(y)
        return [C.T @ force @ B.T for C, B in zip(frame.after[1:], frame.before[:-1], strict=True)]

    def _split(self, frame: _Linearised, vector: Layers) -> tuple[TangentVector, np.ndarray]:
        """The tangent part of layers, and the multipliers of the normal part."""
        rest, total = TangentVector(vector), np.zeros(self.A.m)
        for _ in range(2):  # the second time for the rounding error of the first
            y = frame.inverse @ (frame.inverse.T @ self._jacobian(frame, rest))
            rest, total = rest - TangentVector(self._normal(frame, y)), total + y
        return rest, total

    def _restored(self, layers: Layers) -> ProductPoint | None:
        """Layers that fit, by Gauss-Newton steps of least norm; None where these do not lead to any."""
        best = [np.array(layer) for layer in layers]
        with np.errstate(over="ignore", invalid="ignore"):  # steps that are too long
            misfit = self._misfit(best)
            for _ in range(50):
                if not np.isfinite(misfit).all():
                    return None
                size = frobenius(misfit)
                if size <= np.finfo(float).eps * self._size:
                    break
                frame = self._frame_of(best)
                change = self._normal(frame, frame.inverse @ (frame.inverse.T @ misfit))
                length = 1.0
                while length > 1e-3:
                    trial = [layer + length * step for layer, step in zip(best, change, strict=True)]
                    left = self._misfit(trial)
                    if frobenius(left) <= (1 - length / 2) * size:
                        break
                    length /= 2
                else:  # no progress: rounding error has been reached, or a point from which there is none
                    break
                best, misfit = trial, left
        return ProductPoint(best) if frobenius(misfit) <= FITTED * self._size else None


def _independent(A: MeasurementMap, b: np.ndarray) -> tuple[MeasurementMap, np.ndarray, np.ndarray]:
    """A largest independent set of the measurements, scaled to norm one, with its data and the least matrix that fits."""
    norms = A.row_norms
    live = np.flatnonzero(norms > 0)
    if live.size == 0:
        raise ValueError("A has no measurement other than zero; expected at least one")
    if np.any(b[norms == 0] != 0):
        raise ValueError("b is not zero for a measurement that is; expected data that some matrix fits")
    scaled, data = A.select(live, 1 / norms[live]), b[live] / norms[live]
    rows = scaled.rotated(np.eye(A.matrix_shape[0]), np.eye(A.matrix_shape[1])).reshape(live.size, -1)
    Q, T, order = scipy.linalg.qr(rows.T, mode="economic", pivoting=True)
    rank = int(np.count_nonzero(np.abs(np.diag(T)) > max(rows.shape) * np.finfo(float).eps))
    chosen = np.sort(order[:rank])
    solution = Q[:, :rank] @ scipy.linalg.solve_triangular(T[:rank, :rank], data[order[:rank]], trans=1)
    misfit = np.abs(rows @ solution - data).max()
    if misfit > 1e-8 * np.abs(data).max():
        raise ValueError(
            f"b contradicts itself: measurements that depend on one another disagree by {misfit:.1e} (each scaled to norm "
            "one); expected data that some matrix fits"
        )
    return scaled.select(chosen), data[chosen], solution.reshape(A.matrix_shape)


def _derivatives(frame: _Linearised, vector: Layers) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The derivatives of the products along a vector."""
    before, after = [np.zeros_like(frame.before[0])], [np.zeros_like(frame.after[-1])]
    for W, V, B in zip(frame.layers, vector, frame.before[:-1], strict=True):
        before.append(V @ B + W @ before[-1])
    for W, V, C in zip(reversed(frame.layers), reversed(vector), frame.after[:0:-1], strict=True):
        after.append(after[-1] @ W + C @ V)
    return before, after[::-1]
