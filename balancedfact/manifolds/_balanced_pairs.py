"""The set of balanced pairs as an embedded Riemannian submanifold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pymanopt.manifolds.manifold import Manifold

from balancedfact._pymanopt_draws import new_generator
from balancedfact._validate import as_array, as_count, as_rng
from balancedfact.manifolds._product import ProductPoint, TangentVector

PairLike = Sequence[np.ndarray]


class _DiagonalPair(NamedTuple):
    """A balanced pair in the coordinates where its Gram matrix is diagonal."""

    rotation: np.ndarray  # (k, k), the eigenvectors of L.T @ L == R.T @ R, descending
    left: np.ndarray  # L @ rotation
    right: np.ndarray  # R @ rotation
    reciprocal: np.ndarray  # 1 / (2 (g_i + g_j)), zero where both eigenvalues vanish
    rank: int


class BalancedPairs(Manifold):
    r"""The manifold :math:`\{(L, R) : L^\top L = R^\top R\}` of balanced pairs, for any number of columns.

    Points are pairs ``[L, R]`` of shapes ``(d1, k)`` and ``(d2, k)``; a cost for it is a function ``cost(L, R)``. The geometry
    is the one inherited from the Euclidean space of pairs. With :math:`G = L^\top L`, at full rank :math:`k`,

    .. math:: T = \{(U, V) : U^\top L + L^\top U = V^\top R + R^\top V\}, \qquad
              T^\perp = \{(LS, -RS) : S = S^\top\},

    the projection of :math:`(U, V)` on :math:`T` is :math:`(U - LS, V + RS)` with the solution of the Lyapunov equation
    :math:`SG + GS = \tfrac12(U^\top L + L^\top U - V^\top R - R^\top V)`, and the Riemannian Hessian is the projection of
    :math:`\nabla^2 f[U, V] - (US, -VS)`, where :math:`S` belongs to the Euclidean gradient.

    The retraction is `nearest` at :math:`(L + U, R + V)`: for :math:`k \le \min(d_1, d_2)`, the metric projection on the set.
    For tangent steps from pairs of rank :math:`q` it is of second order. It costs :math:`O((d_1 + d_2)k^2)`, as does a
    projection at a new point; further projections at the same point cost three products with ``k x k`` matrices.

    Parameters
    ----------
    d1, d2 : int
        Numbers of rows of `L` and `R`.
    k : int
        Number of columns, which may exceed `d1` and `d2`.
    rng : int or numpy.random.Generator, optional
        Randomness of `random_point` and `random_tangent_vector`. Without it every draw is seeded from NumPy's
        global state, so that ``numpy.random.seed`` decides, as for pymanopt's own manifolds.

    Attributes
    ----------
    rank : int
        :math:`q = \min(d_1, d_2, k)`, the largest rank of a balanced pair.
    dim : int
        :math:`(d_1 + d_2 + k)q - \tfrac12 q(3q + 1)`, which for :math:`k \le \min(d_1, d_2)` is
        :math:`(d_1 + d_2)k - \tfrac12 k(k + 1)`.
    second_order_retraction : bool
        True: the retraction agrees with geodesics to second order, at pairs of rank :math:`q`.

    Raises
    ------
    ValueError
        If a size is not a positive integer, or `rng` is no seed or generator.

    See Also
    --------
    RescaledBalancedPairs : The manifold of rescaled-balanced pairs, such as flat ones.
    stiefel_product : A parametrisation of the same set.
    balancedfact.balanced_approximation : A search over this manifold.

    Notes
    -----
    **Where it is a manifold.** The pairs of rank :math:`q` are an embedded manifold, open and dense in the set. For
    :math:`k > \min(d_1, d_2)` the constraint alone does not define its tangent space: a balanced `R` then has the null space
    of `L`, so that its rank stays :math:`q`, and the tangent space is further restricted to
    :math:`(I - P_L)UN = 0`, :math:`(I - P_R)VN = 0` with the projectors on the column spaces and a basis :math:`N` of the
    common null space. The Hessian has the curvature of matrices of fixed rank beside that of the constraint.

    **Where** `L` **loses rank** (below :math:`q`) the set is a cone over a smaller set of balanced pairs, not a manifold.
    Nothing fails there: the Lyapunov equation is solved in the least-squares sense (eigenvalue sums that vanish to rounding
    get zero), so that `projection` is the projection on the null space of the linearised constraint. That space contains every
    direction that leads out of the point, and the retraction still returns balanced pairs, there to first order, so an escape
    from a rank-deficient saddle is found and followed. `dim` is the dimension at rank :math:`q`; the null space is larger at
    lower rank. As such a point is approached, the curvature of the manifold grows like the inverse of the smallest singular
    value of `L`.

    There is no closed form of the geodesic distance: `dist`, `exp` and `log` raise ``NotImplementedError``.

    The word is used differently elsewhere: the "balanced quotient geometry" of fixed-rank matrices (Meyer, Bonnabel,
    Sepulchre 2011) is a quotient by the general linear group with a balanced *metric*; its points need not be balanced.

    References
    ----------
    Absil, Malick 2012, Projection-like retractions on matrix manifolds (metric projections are second order); Absil, Mahony,
    Trumpf 2013, An extrinsic look at the Riemannian Hessian.

    Chapter :doc:`/theory/balanced_geometry`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> manifold = bf.manifolds.BalancedPairs(5, 4, 2, rng=0)
    >>> L, R = manifold.random_point()
    >>> manifold.dim, bool(np.allclose(L.T @ L, R.T @ R))
    (15, True)
    """

    second_order_retraction = True

    def __init__(self, d1: int, d2: int, k: int, *, rng: int | np.random.Generator | None = None) -> None:
        self.d1, self.d2, self.k = as_count(d1, "d1"), as_count(d2, "d2"), as_count(k, "k")
        self._rng = None if rng is None else as_rng(rng)
        self.rank = q = min(self.d1, self.d2, self.k)
        dimension = (self.d1 + self.d2 + self.k) * q - q * (3 * q + 1) // 2
        name = f"Balanced pairs of shapes {self.d1} x {self.k} and {self.d2} x {self.k}"
        super().__init__(name, dimension, point_layout=(1, 1))
        self._cached: tuple[np.ndarray, np.ndarray, _DiagonalPair] | None = None

    # The metric.

    def inner_product(self, point: PairLike, tangent_vector_a: PairLike, tangent_vector_b: PairLike) -> float:
        r"""The Euclidean inner product :math:`\langle U_a, U_b\rangle + \langle V_a, V_b\rangle`."""
        (Ua, Va), (Ub, Vb) = tangent_vector_a, tangent_vector_b
        return float(np.vdot(Ua, Ub) + np.vdot(Va, Vb))

    def norm(self, point: PairLike, tangent_vector: PairLike) -> float:
        """The Euclidean norm."""
        U, V = tangent_vector
        return float(np.hypot(np.linalg.norm(U), np.linalg.norm(V)))

    def dist(self, point_a: PairLike, point_b: PairLike) -> float:
        """Raise: the geodesic distance has no closed form."""
        raise NotImplementedError("the geodesic distance between balanced pairs has no closed form")

    def residual(self, point: PairLike) -> float:
        r"""Distance of a pair from balance, :math:`\|L^\top L - R^\top R\|_F / (\|L\|_F^2 + \|R\|_F^2)`, at most 1."""
        L, R = point
        size = np.vdot(L, L) + np.vdot(R, R)
        return float(np.linalg.norm(L.T @ L - R.T @ R) / size) if size else 0.0

    # Points and vectors.

    def nearest(self, A: np.ndarray, B: np.ndarray) -> ProductPoint:
        r"""A balanced pair near to a pair ``(A, B)``; the nearest in the Frobenius norm if :math:`k \le \min(d_1, d_2)`.

        .. math:: L = \tfrac12(A + OB), \quad R = \tfrac12(B + O^\top A), \qquad O = PQ^\top
                  \text{ from the singular value decomposition } AB^\top = P\Sigma Q^\top.

        No balanced pair is nearer for :math:`k \le \min(d_1, d_2)` or :math:`d_1 = d_2`. For :math:`k > \min(d_1, d_2)` and
        :math:`d_1 \ne d_2` the taller matrix is first replaced by its nearest matrix of rank :math:`\min(d_1, d_2)`. The result
        is then balanced and, for tangent steps from pairs of rank :math:`q`, agrees with the nearest pair to second order;
        elsewhere it can be much farther away than that.
        """
        left, T = _orthonormal_factor(as_array(A, "A", shape=(self.d1, self.k)), self.rank)
        right, S = _orthonormal_factor(as_array(B, "B", shape=(self.d2, self.k)), self.rank)
        P, _, Qt = np.linalg.svd(T @ S.T)
        core = (P.T @ T + Qt @ S) / 2
        return ProductPoint([left @ (P @ core), right @ (Qt.T @ core)])

    def edge(self, point: PairLike, small: float) -> ProductPoint | None:
        """The pair without its singular values up to `small`, where the set branches; None if there are none."""
        L, R = point
        _, s, Vt = np.linalg.svd(np.concatenate([L, R]), full_matrices=False)
        kept = Vt[s > small]
        return None if len(kept) == self.k else ProductPoint([L @ kept.T @ kept, R @ kept.T @ kept])

    def random_point(self) -> ProductPoint:
        """The nearest balanced pair to a pair of independent standard normal matrices."""
        generator = self._generator()
        return self.nearest(generator.standard_normal((self.d1, self.k)), generator.standard_normal((self.d2, self.k)))

    def random_tangent_vector(self, point: PairLike) -> TangentVector:
        """A random direction in the tangent space, of norm one: a projected standard normal pair."""
        generator = self._generator()
        draw = [generator.standard_normal((self.d1, self.k)), generator.standard_normal((self.d2, self.k))]
        vector = self.projection(point, draw)
        return TangentVector(part / (self.norm(point, vector) or 1.0) for part in vector)

    def zero_vector(self, point: PairLike) -> TangentVector:
        """The zero of the tangent space."""
        return TangentVector([np.zeros((self.d1, self.k)), np.zeros((self.d2, self.k))])

    # Projections and what is built on them.

    def projection(self, point: PairLike, vector: PairLike) -> TangentVector:
        """The orthogonal projection of a pair of matrices on the tangent space."""
        frame = self._frame(point)
        U, V = vector
        return self._project_rotated(frame, U @ frame.rotation, V @ frame.rotation)

    def to_tangent_space(self, point: PairLike, vector: PairLike) -> TangentVector:
        """The same as `projection`."""
        return self.projection(point, vector)

    def transport(self, point_a: PairLike, point_b: PairLike, tangent_vector_a: PairLike) -> TangentVector:
        """Vector transport by projection on the tangent space at `point_b`."""
        return self.projection(point_b, tangent_vector_a)

    def retraction(self, point: PairLike, tangent_vector: PairLike) -> ProductPoint:
        """The balanced pair that `nearest` returns for ``(L + U, R + V)``."""
        (L, R), (U, V) = point, tangent_vector
        return self.nearest(L + U, R + V)

    def euclidean_to_riemannian_gradient(self, point: PairLike, euclidean_gradient: PairLike) -> TangentVector:
        """The projection of the Euclidean gradient."""
        return self.projection(point, euclidean_gradient)

    def euclidean_to_riemannian_hessian(
        self, point: PairLike, euclidean_gradient: PairLike, euclidean_hessian: PairLike, tangent_vector: PairLike
    ) -> TangentVector:
        """The Riemannian Hessian along a tangent vector: projected Euclidean Hessian plus the curvature of the manifold."""
        frame = self._frame(point)
        W = frame.rotation
        gU, gV = (part @ W for part in euclidean_gradient)
        hU, hV = (part @ W for part in euclidean_hessian)
        U, V = (part @ W for part in tangent_vector)
        S = _multiplier(frame, gU, gV)
        hU -= U @ S
        hV += V @ S
        if self._restricted(frame):
            if self.d1 > self.rank:
                hU += _fixed_rank_curvature(frame.left, gU, U, self.rank)
            if self.d2 > self.rank:
                hV += _fixed_rank_curvature(frame.right, gV, V, self.rank)
        return self._project_rotated(frame, hU, hV)

    # The inside.

    def _generator(self) -> np.random.Generator:
        if self._rng is None:
            return new_generator()
        return self._rng

    def _frame(self, point: PairLike) -> _DiagonalPair:
        L, R = point
        if self._cached is not None and np.array_equal(self._cached[0], L) and np.array_equal(self._cached[1], R):
            return self._cached[2]
        # Of the stacked factor, not of its Gram matrix: small singular values then keep their digits.
        stacked = np.linalg.qr(np.concatenate([L, R]), mode="r")
        _, s, Wt = np.linalg.svd(stacked)
        sigma = np.zeros(self.k)
        sigma[: s.size] = s / np.sqrt(2)
        sigma[sigma <= (self.d1 + self.d2) * np.finfo(float).eps * sigma[0]] = 0.0
        sigma[self.rank :] = 0.0
        largest = sigma[0] or 1.0
        sums = np.add.outer((sigma / largest) ** 2, (sigma / largest) ** 2) * 2
        reciprocal = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0) / largest / largest
        frame = _DiagonalPair(Wt.T, L @ Wt.T, R @ Wt.T, reciprocal, int(np.count_nonzero(sigma)))
        self._cached = np.array(L), np.array(R), frame
        return frame

    def _restricted(self, frame: _DiagonalPair) -> bool:
        """Tell whether the tangent space is smaller than the null space of the linearised constraint."""
        return self.k > self.rank == frame.rank

    def _project_rotated(self, frame: _DiagonalPair, U: np.ndarray, V: np.ndarray) -> TangentVector:
        S = _multiplier(frame, U, V)
        U, V = U - frame.left @ S, V + frame.right @ S
        if self._restricted(frame):
            q = self.rank
            if self.d1 > q:
                U[:, q:] -= _off_range(frame.left[:, :q], U[:, q:])
            if self.d2 > q:
                V[:, q:] -= _off_range(frame.right[:, :q], V[:, q:])
        return TangentVector([U @ frame.rotation.T, V @ frame.rotation.T])


def _multiplier(frame: _DiagonalPair, U: np.ndarray, V: np.ndarray) -> np.ndarray:
    """The symmetric `S` for which ``(L S, -R S)`` is the normal part of ``(U, V)``, in rotated coordinates."""
    cross = frame.left.T @ U - frame.right.T @ V
    return (cross + cross.T) * frame.reciprocal


def _off_range(basis: np.ndarray, block: np.ndarray) -> np.ndarray:
    """The part of the columns of `block` that is orthogonal to the columns of `basis`."""
    Q = np.linalg.qr(basis)[0]
    return block - Q @ (Q.T @ block)


def _fixed_rank_curvature(factor: np.ndarray, gradient: np.ndarray, direction: np.ndarray, q: int) -> np.ndarray:
    """The Weingarten map of matrices of rank `q` at ``factor = [X, 0]``, for the normal part of a gradient."""
    inverse = np.linalg.pinv(factor[:, :q]).T
    normal = _off_range(factor[:, :q], gradient[:, q:])
    return np.hstack([normal @ (direction[:, q:].T @ inverse), inverse @ (direction[:, :q].T @ normal)])


def _orthonormal_factor(A: np.ndarray, q: int) -> tuple[np.ndarray, np.ndarray]:
    """`Q` with `q` orthonormal columns and `T` with ``Q @ T`` the matrix of rank at most `q` nearest to `A`."""
    if min(A.shape) == q:
        Q, T = np.linalg.qr(A)
        return Q, T
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    return U[:, :q], s[:q, None] * Vt[:q]
