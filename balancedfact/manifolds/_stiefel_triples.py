"""Balanced pairs as triples of two orthonormal factors and a square one between them, modulo rotations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from pymanopt.manifolds.manifold import Manifold

from balancedfact._pymanopt_draws import new_generator
from balancedfact._validate import as_count, as_flag, as_rng
from balancedfact.manifolds._balanced_pairs import BalancedPairs
from balancedfact.manifolds._product import ProductPoint, TangentVector
from balancedfact.manifolds._stiefel_product import factors_of
from balancedfact.manifolds._triple_cores import Core, FreeCore, MergedCore, Spectrum

TripleLike = Sequence[np.ndarray]

# Eigenvalues of S that the preconditioner takes for larger, relative to the largest: from there on directions are free.
_FREE = 1e-3
# How much larger than a lost singular value of C the root of an eigenvalue of S may be that is on its way to zero.
_NEVER_ZERO = 100.0
# Singular values that are tried in place of lost ones, in their unit.
_SIZES = 1000.0, 100.0, 10.0, 1.0
# Power steps towards the direction in which the cost falls most from a pair of lower rank.
_TURNS = 12
# Eigenvalues of S that `nearest` gives a pair that has lost rank, relative to the largest.
_POSITIVE = 1e-8


class StiefelTriples(Manifold):
    r"""The manifold of triples ``(B, C, D)`` modulo rotations, which stand for the balanced pairs ``(B C, D C)``.

    .. math:: \{(B, C, D) : B^\top B = D^\top D = I\} / O(q), \qquad (B, C, D) \sim (BQ, Q^\top C, DQ),

    with :math:`B\in\mathbb R^{d_1\times q}`, :math:`C\in\mathbb R^{q\times k}`, :math:`D\in\mathbb R^{d_2\times q}` and
    :math:`q = \min(d_1, d_2, k)`; or, `merged`, with the positive definite :math:`S = CC^\top` in place of `C` and
    :math:`(B, S, D)\sim(BQ, Q^\top SQ, DQ)`. Points are lists of the three arrays and represent their class; a cost for it is a
    function ``cost(B, C, D)`` that is the same for all of a class, such as one of the pair or of its product.

    The metric is that of the product, Euclidean, for a merged core :math:`\operatorname{tr}(S^{-1}aS^{-1}b)` in the middle.
    Tangent vectors are horizontal: orthogonal to :math:`(B\Omega, -\Omega C, D\Omega)`, :math:`\Omega` skew, which in the
    coordinates of the eigenvectors of :math:`CC^\top` takes one division per entry of :math:`\Omega`. The retraction takes the
    orthonormal factors nearest to ``B + U`` and ``D + W``, and is of second order.

    Parameters
    ----------
    d1, d2 : int
        Numbers of rows of `L` and `R`.
    k : int
        Number of columns of the pair, which may exceed `d1` and `d2`.
    merged : bool
        Whether the middle factor is the positive definite :math:`S = CC^\top` in place of `C`.
    rng : int or numpy.random.Generator, optional
        Randomness of `random_point`, `random_tangent_vector` and `turned`. Without it every draw is seeded from NumPy's global
        state, so that ``numpy.random.seed`` decides, as for pymanopt's own manifolds.

    Attributes
    ----------
    rank : int
        :math:`q`, the number of columns of `B` and `D`.
    dim : int
        The dimension of `BalancedPairs` of the same sizes; if `merged`, less :math:`qk - \tfrac12q(q+1)`, the number of
        dimensions in which pairs with one product differ.
    second_order_retraction : bool
        True: the retraction agrees with geodesics to second order.

    Raises
    ------
    ValueError
        If a size is not a positive integer, `merged` is no flag, or `rng` is no seed or generator.

    See Also
    --------
    BalancedPairs : The set of balanced pairs itself, without a parametrisation.
    stiefel_product : The triples themselves, not modulo rotations.
    balancedfact.balanced_approximation : A search over it with ``geometry="triples"`` or ``"merged"``.

    Notes
    -----
    **It has local minima that balanced pairs do not have.** Where `C` loses rank, the columns of `B` and `D` that belong to
    its null space, `b` and `d`, do not show in the pair. Since only :math:`CC^\top` enters the product, a search can lower the
    cost along :math:`bd^\top` only if :math:`b^\top(-\nabla f)d>0`. With the opposite sign the triple can be a local minimum
    (Proposition 5 of the chapter); with a `merged` core the search then runs without end towards a singular `S`. `turned` has
    the triples from which to go on: those with `d` replaced by its negative, or with both turned to where the cost falls.
    `balancedfact.riemannian_minimum` tries them.

    **Preconditioning.** `preconditioner` inverts the Hessian of :math:`\|BCC^\top D^\top - M\|^2` where the product is `M`,
    in closed form. Columns of `B` that count for little in the pair then turn by larger angles.

    References
    ----------
    Liu, Shen, Zhou (CS282 report), section 5; Mishra, Meyer, Bonnabel, Sepulchre 2014, Fixed-rank matrix factorizations and
    Riemannian low-rank optimization, for the merged one.

    Chapter :doc:`/theory/balanced_geometry`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> manifold = bf.manifolds.StiefelTriples(5, 4, 2, rng=0)
    >>> B, C, D = point = manifold.random_point()
    >>> L, R = manifold.pair(point)
    >>> manifold.dim == bf.manifolds.BalancedPairs(5, 4, 2).dim, bool(np.allclose(L.T @ L, R.T @ R))
    (True, True)
    """

    second_order_retraction = True

    def __init__(self, d1: int, d2: int, k: int, *, merged: bool = False, rng: int | np.random.Generator | None = None) -> None:
        self.d1, self.d2, self.k = as_count(d1, "d1"), as_count(d2, "d2"), as_count(k, "k")
        self.merged = as_flag(merged, "merged")
        self._rng = None if rng is None else as_rng(rng)
        self.rank = q = min(self.d1, self.d2, self.k)
        self._core: Core = MergedCore() if self.merged else FreeCore()
        self.columns = q if self.merged else self.k
        middle = q * (q + 1) // 2 if self.merged else q * self.k
        dimension = (self.d1 + self.d2) * q - q * (q + 1) + middle - q * (q - 1) // 2
        shapes = f"{self.d1} x {q}, {q} x {self.columns} and {self.d2} x {q}"
        super().__init__(f"Triples of shapes {shapes} modulo rotations", dimension, point_layout=(1, 1, 1))
        self._cached: tuple[np.ndarray, Spectrum] | None = None

    # Triples and pairs.

    def pair(self, point: TripleLike) -> tuple[np.ndarray, np.ndarray]:
        """The balanced pair ``(B C, D C)``, with the square root of `S` for a merged `C`."""
        B, C, D = point
        if self.merged:
            at = self._spectrum(C)
            C = at.P * np.sqrt(at.s) @ at.P.T
        return B @ C, D @ C

    def nearest(self, A: np.ndarray, B: np.ndarray) -> ProductPoint:
        """A triple of the balanced pair that `BalancedPairs.nearest` has for ``(A, B)``.

        For a merged core a pair that has lost rank is moved by about 1e-4 of its size, to where `S` is positive definite.
        """
        left, C, right = factors_of(*BalancedPairs(self.d1, self.d2, self.k).nearest(A, B))
        if self.merged:
            s = np.sum(C**2, axis=1)  # the rows of C are orthogonal
            C = np.diag(np.maximum(s, _POSITIVE * (s[0] or 1.0)))
        return ProductPoint([left, C, right])

    def residual(self, point: TripleLike) -> float:
        """Distance of the columns of `B` and `D` from orthonormal, and of `S` from positive definite: 0 on the manifold."""
        B, C, D = point
        eye = np.eye(self.rank)
        worst = max(float(np.abs(X.T @ X - eye).max()) for X in (B, D))
        if self.merged:
            s = np.linalg.eigvalsh((C + C.T) / 2)
            size = float(np.abs(C).max()) or 1.0
            worst = max(worst, float(np.abs(C - C.T).max()) / size, -float(s[0]) / size)
        return worst

    def turned(self, point: TripleLike, small: float, gradient: Callable[[TripleLike], TripleLike]) -> Iterator[ProductPoint]:
        r"""Triples that may be lower than one that has lost rank, where `C` has singular values up to `small`.

        The columns of `D` that belong to them are turned round; then those of `B` and `D` are turned to where the cost falls
        most, by power iteration on its gradient: :math:`\nabla f(X)DS` for `B` and :math:`\nabla f(X)^\top BS` for `D`. The
        singular values become a thousand times `small`, and less by factors of ten down to `small`. A merged `S` only comes
        near to singular: for it they count up to a hundred times `small`.
        """
        B, C, D = point
        at = self._spectrum(C)
        among = at.s <= (_NEVER_ZERO * small if self.merged else small) ** 2
        lost, right = at.P[:, among], at.Vt[among]
        if lost.shape[1] == 0:
            return
        kept = C - lost @ (lost.T @ C)
        if self.merged:
            kept = _sym(kept - (kept @ lost) @ lost.T)

        def core(size: float) -> np.ndarray:
            return kept + (size**2 * lost @ lost.T if self.merged else size * lost @ right)

        def sizes(B: np.ndarray, D: np.ndarray) -> Iterator[ProductPoint]:
            return (ProductPoint([B.copy(), core(factor * small), D.copy()]) for factor in _SIZES)

        yield from sizes(B, D - 2 * (D @ lost) @ lost.T)
        left = [X - (X @ lost) @ lost.T for X in (B, D)]
        B, D = (X + _outside(X, self._generator().standard_normal((len(X), lost.shape[1]))) @ lost.T for X in left)
        for _ in range(_TURNS):
            B = left[0] + _outside(left[0], -gradient(ProductPoint([B, core(small), D]))[0] @ lost) @ lost.T
            D = left[1] + _outside(left[1], -gradient(ProductPoint([B, core(small), D]))[2] @ lost) @ lost.T
        yield from sizes(B, D)

    # The metric.

    def inner_product(self, point: TripleLike, tangent_vector_a: TripleLike, tangent_vector_b: TripleLike) -> float:
        """The inner product of the product, with that of the core in the middle."""
        (U, V, W), (X, Y, Z) = tangent_vector_a, tangent_vector_b
        return float(np.vdot(U, X) + np.vdot(W, Z)) + self._core.inner(self._spectrum(point[1]), V, Y)

    def norm(self, point: TripleLike, tangent_vector: TripleLike) -> float:
        """The norm of the metric."""
        return float(np.sqrt(max(self.inner_product(point, tangent_vector, tangent_vector), 0.0)))

    def embedding(self, point: TripleLike, tangent_vector: TripleLike) -> TripleLike:
        """The tangent vector as the three matrices that it is."""
        return tangent_vector

    @property
    def typical_dist(self) -> float:
        """A length for trust regions: of a triple with unit columns."""
        return float(np.sqrt(3 * self.rank))

    # Points and vectors.

    def random_point(self) -> ProductPoint:
        """Orthonormal factors of standard normal matrices and a standard normal `C`, or `S` of one twice as wide."""
        generator = self._generator()
        B, D = (np.linalg.qr(generator.standard_normal((d, self.rank)))[0] for d in (self.d1, self.d2))
        C = generator.standard_normal((self.rank, 2 * self.rank if self.merged else self.k))
        return ProductPoint([B, C @ C.T if self.merged else C, D])

    def random_tangent_vector(self, point: TripleLike) -> TangentVector:
        """A random direction in the horizontal space, of norm one: a projected standard normal triple."""
        generator = self._generator()
        vector = self.projection(point, [generator.standard_normal(part.shape) for part in point])
        size = self.norm(point, vector) or 1.0
        return TangentVector(part / size for part in vector)

    def zero_vector(self, point: TripleLike) -> TangentVector:
        """The zero of the horizontal space."""
        return TangentVector(np.zeros(np.shape(part)) for part in point)

    # Projections and what is built on them.

    def projection(self, point: TripleLike, vector: TripleLike) -> TangentVector:
        """The projection of three matrices on the tangent space of the triples, and on its horizontal part."""
        (B, C, D), (U, V, W) = point, vector
        at, V = self._spectrum(C), self._core.tangent(V)
        U, W = U - B @ _sym(B.T @ U), W - D @ _sym(D.T @ W)
        omega = at.P @ self._core.rotation(at, B.T @ U + D.T @ W, V) @ at.P.T
        return TangentVector([U - B @ omega, V - self._core.rotated(C, omega), W - D @ omega])

    def to_tangent_space(self, point: TripleLike, vector: TripleLike) -> TangentVector:
        """The same as `projection`."""
        return self.projection(point, vector)

    def transport(self, point_a: TripleLike, point_b: TripleLike, tangent_vector_a: TripleLike) -> TangentVector:
        """Vector transport by projection on the horizontal space at `point_b`."""
        return self.projection(point_b, tangent_vector_a)

    def retraction(self, point: TripleLike, tangent_vector: TripleLike) -> ProductPoint:
        """The orthonormal factors nearest to ``B + U`` and ``D + W``, and `C` or `S` moved along its geodesic."""
        (B, C, D), (U, V, W) = point, tangent_vector
        return ProductPoint([_polar(B + U), self._core.retraction(C, self._spectrum(C), V), _polar(D + W)])

    def euclidean_to_riemannian_gradient(self, point: TripleLike, euclidean_gradient: TripleLike) -> TangentVector:
        """The horizontal lift of the gradient."""
        U, V, W = euclidean_gradient
        return self.projection(point, [U, self._core.gradient(point[1], V), W])

    def euclidean_to_riemannian_hessian(
        self, point: TripleLike, euclidean_gradient: TripleLike, euclidean_hessian: TripleLike, tangent_vector: TripleLike
    ) -> TangentVector:
        """The horizontal lift of the Riemannian Hessian along a horizontal vector."""
        B, C, D = point
        gU, gV, gW = euclidean_gradient
        hU, hV, hW = euclidean_hessian
        U, V, W = tangent_vector
        core = self._core.hessian(C, gV, hV, V)
        return self.projection(point, [hU - U @ _sym(B.T @ gU), core, hW - W @ _sym(D.T @ gW)])

    def preconditioner(self, point: TripleLike, vector: TripleLike) -> TangentVector:
        r"""Apply the inverse of the Hessian :math:`2\|\dot X\|^2` of :math:`\|X - M\|^2` where the product `X` is `M`.

        For ``pymanopt.Problem(manifold, cost, preconditioner=manifold.preconditioner)``. A change of the product,
        :math:`\dot X = \dot BSD^\top + B\dot SD^\top + BS\dot D^\top`, consists of the parts of :math:`\dot BS` and
        :math:`\dot DS` outside of the factors, of the difference of the rotations of `B` and `D`, and of
        :math:`\dot S` less their mean; each is divided by its own curvature. What leaves the product as it is, rotations of `C`
        from the right, is divided by the largest of these curvatures.
        """
        (B, C, D), (U, V, W) = point, vector
        at = self._spectrum(C)
        largest = float(at.s.max())
        if not largest > 0:
            return TangentVector([U, V, W])
        least = _FREE * largest
        B, D, U, W = B @ at.P, D @ at.P, U @ at.P, W @ at.P
        left, right = B.T @ U, D.T @ W
        apart = (left - right) / (at.sums**2 + least**2)
        stiffness = self._core.stiffness(at)
        unseen = 1 / (4 * float(stiffness.max()))
        stiffness = stiffness + _FREE**2 * float(stiffness.max())
        strain = self._core.strain(at, V) + at.steps * (left + right) / 2
        Y = strain * (1 / (4 * stiffness**2) - unseen / stiffness)
        mean = Y * at.steps / 4 + unseen * (left + right) / 2
        outside = 1 / (2 * (at.s**2 + least**2))
        U = (U - B @ left) * outside + B @ (apart / 2 + mean)
        W = (W - D @ right) * outside + D @ (mean - apart / 2)
        return TangentVector([U @ at.P.T, self._core.unstrain(at, Y) + unseen * V, W @ at.P.T])

    # The inside.

    def _generator(self) -> np.random.Generator:
        return new_generator() if self._rng is None else self._rng

    def _spectrum(self, C: np.ndarray) -> Spectrum:
        if self._cached is None or not np.array_equal(self._cached[0], C):
            self._cached = np.array(C), self._core.spectrum(C)
        return self._cached[1]


def _sym(A: np.ndarray) -> np.ndarray:
    return (A + A.T) / 2


def _polar(A: np.ndarray) -> np.ndarray:
    """The nearest matrix with orthonormal columns."""
    U, _, Vt = np.linalg.svd(A, full_matrices=False)
    return U @ Vt


def _outside(kept: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """The orthonormal matrix nearest to `draw` among those orthogonal to the columns of `kept`, which are so or zero."""
    for _ in range(2):
        draw = draw - kept @ (kept.T @ draw)
        draw = _polar(draw)
    return draw
