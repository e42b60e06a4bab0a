"""The balanced pair whose product is nearest to a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import svds

from balancedfact._linalg import frobenius, magnitude
from balancedfact._pymanopt_draws import pymanopt_draws
from balancedfact._validate import as_array, as_choice, as_count, as_pair, as_rng, check_room
from balancedfact.certification._spectral_norm import norm_bound
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback, Log
from balancedfact.solvers.riemannian._search import CLOSED, Search
from balancedfact.solvers.riemannian._triple_distance import TripleDistance

# Relative gradients at which the search stops: first, and where the gap is still open. The metric of a merged factor makes the
# gradient of a small singular value smaller still.
_TOLERANCES = {"pairs": (1e-9, 1e-15), "triples": (1e-9, 1e-15), "merged": (1e-9, 1e-18)}
_PAIR_POINTS = 2000  # points per search
# A residual below this, relative to the matrix, is rounding error of the product of the factors.
_ROUNDING_RESIDUAL = 1e-12
# A singular value below this fraction of the largest, and of a tenth of the one before, may be zero at the minimum.
_VANISHING_VALUE = 1e-2
# Size of the product of a random starting pair, relative to the matrix.
_START_SIZE = 0.3
# Numbers of entries above which a few singular vectors are found by an iterative method, and of entries of a block of rows.
_LARGE, _ROWS_AT_ONCE = 500_000, 2_000_000


def balanced_approximation(
    M: ArrayLike,
    rank: int,
    *,
    method: str = "svd",
    geometry: str = "pairs",
    rng: int | np.random.Generator | None = None,
    initial: tuple[ArrayLike, ArrayLike] | None = None,
    limits: Limits | None = None,
    callback: Callback | None = None,
    progress: bool | None = None,
) -> Solution:
    r"""Find the balanced pair whose product is nearest to a matrix, and prove it.

    .. math:: \min_{L^\top L = R^\top R} \|LR^\top - M\|_F^2 = \sum_{i>k}\sigma_i(M)^2,

    with `k` columns: balance costs nothing, and the value is that of the truncated singular value decomposition.

    Parameters
    ----------
    M : array_like, shape (d1, d2)
        The matrix.
    rank : int
        Number `k` of columns of `L` and `R`, which may exceed the rank and the sizes of `M`.
    method : {"svd", "riemannian"}
        The first takes singular vectors. The second, which is here to be compared and to be built upon, minimises over a
        manifold by trust regions from a random point, and leaves saddles along their negative curvature.
    geometry : {"pairs", "triples", "merged"}
        The manifold of "riemannian": `BalancedPairs`, or `StiefelTriples` with the factor between the orthonormal ones free or
        merged into a positive definite one.
    rng : int or numpy.random.Generator, optional
        The random point, and the start of iterative linear algebra.
    initial : tuple of array_like, optional
        A pair ``(L, R)`` for "riemannian" to start from, replaced by the balanced pair nearest to it.
    limits : Limits, optional
        Time and iterations after which to stop, with the best point and ``Status.LIMIT``.
    callback : callable, optional
        Called with the newest record of `Solution.history`, for "riemannian"; returning ``True`` or raising ``StopIteration``
        stops the search as a limit does.
    progress : bool, optional
        Show value and gradient. By default on a terminal only.

    Returns
    -------
    Solution
        With ``layers = [R.T, L]`` and `value` the squared error. ``Status.OPTIMAL`` if the gap is at most 1e-9, else
        ``Status.GAP_OPEN``: a saddle cannot pass, whatever its gradient. ``KeyboardInterrupt`` ends the search with the best
        point so far and ``Status.INTERRUPTED``.

    Raises
    ------
    ValueError
        If an argument is malformed.

    See Also
    --------
    balancedfact.manifolds.BalancedPairs, balancedfact.manifolds.StiefelTriples : The set over which it minimises.
    balancedfact.closed_forms.balanced_pair : The balanced factors of a given matrix.

    Notes
    -----
    **Certificate.** By Eckart and Young (1936) no matrix of rank `k` is nearer than :math:`\|M\|^2` less the sum `s` of the
    `k` largest eigenvalues of :math:`M^\top M`. For an orthonormal basis `Z` of the columns of `R` and
    :math:`N = M(I - ZZ^\top)`, every :math:`\varepsilon>0` gives
    :math:`M^\top M \preceq (A + DD^\top\!/\varepsilon)\oplus(N^\top N + \varepsilon I)` with :math:`A = Z^\top M^\top MZ` and
    :math:`D = Z^\top M^\top N`, and therefore, with :math:`t = \|N\|_{op}^2 + \varepsilon` and the eigenvalues :math:`a_i` of
    `A` (zeros for columns missing from `Z`),

    .. math:: \|M\|^2 - s \ge \|N\|_F^2 - \|D\|_F^2/\varepsilon - \sum_{i\le k}\max(t - a_i, 0).

    That is the reported `lower_bound`, for the best of a few `ε`. At the optimum `D` vanishes and it is tight, ties among
    singular values included; it needs no singular value decomposition, only a bound on the norm of `N`. Errors below ``1e-13
    * norm(M)`` are rounding errors of the product, and count as zero in the gap.

    **Search.** A random pair is scaled to a third of the size of `M`. Where `M` has lower rank than the pair, the minimum
    lies where the pair loses rank, at the edge of the manifold, and convergence is slow: the search then continues with fewer
    columns, and the result is examined again at full width. Triples are preconditioned by the closed-form inverse of the
    Hessian at zero distance, and leave the local minima that their parametrisation adds by turning a column round.

    References
    ----------
    Eckart, Young 1936; Liu, Shen, Zhou (CS282 report), problem (3).

    Guide :doc:`/guide/riemannian`, chapter :doc:`/theory/balanced_geometry`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> M = np.random.default_rng(0).standard_normal((8, 6))
    >>> one, other = (bf.balanced_approximation(M, 2, method=name, rng=0) for name in ("svd", "riemannian"))
    >>> bool(np.isclose(one.value, other.value, rtol=1e-12)), one.status.ok, other.status.ok
    (True, True, True)
    >>> L, R = other.pair
    >>> bool(np.allclose(L.T @ L, R.T @ R))
    True
    """
    M, k = as_array(M, "M", ndim=2), as_count(rank, "rank")
    check_room("rank", sum(M.shape), k)
    as_choice(method, "method", ("svd", "riemannian"))
    as_choice(geometry, "geometry", tuple(_TOLERANCES))
    generator, log = as_rng(rng), Log(callback, progress, limits)
    start = None if initial is None else _checked_pair(initial, M.shape, k)
    if start is not None and method == "svd":
        raise ValueError("initial is given; expected none with method 'svd', which does not start anywhere")
    if geometry != "pairs" and method == "svd":
        raise ValueError(f"geometry is {geometry!r}; expected 'pairs' with method 'svd', which searches nowhere")
    target = log.insist(_Target, M, k, generator)
    q = min(k, *M.shape)
    if not np.any(M):
        return target.solution(np.zeros((M.shape[0], q)), np.zeros((M.shape[1], q)), "closed form")
    L, R = np.zeros((M.shape[0], q)), np.zeros((M.shape[1], q))
    if method == "svd":
        with log:
            L, R = _truncated(target.M, q, generator)
        return log.insist(target.solution, L, R, method, None, log)
    if start is not None:
        left, right = (part / np.sqrt(target.size) for part in start)
        Vt = np.linalg.svd(np.concatenate([left, right]), full_matrices=False)[2]
        start = (left, right) if k == q else (left @ Vt[:q].T, right @ Vt[:q].T)
    searches: list[Search] = []
    with log:
        _search(target, geometry, q, start, generator, log, searches)
    search = searches[-1] if searches and searches[-1].point is not None else None
    if search is not None:  # else stopped before the first point
        L, R = _pair_at(search)
    return log.insist(target.solution, L, R, method, search, log)


def _checked_pair(initial: Any, shape: tuple[int, ...], k: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        L, R = initial
    except (TypeError, ValueError):
        raise ValueError(f"initial is {type(initial).__name__}; expected a pair (L, R)") from None
    L, R = as_pair(L, R, (shape[0], shape[1]), names=("initial[0]", "initial[1]"))
    if L.shape[1] != k:
        raise ValueError(f"initial has {L.shape[1]} columns; expected {k}, the rank")
    return L, R


class _Target:
    """A matrix scaled to Frobenius norm one (or zero), the squared distance from it, and the bound on that distance."""

    def __init__(self, M: np.ndarray, k: int, rng: np.random.Generator) -> None:
        self.k, self.rng = k, rng
        self.size = magnitude(M)
        self.size *= float(np.linalg.norm(M / self.size)) or 1.0
        self.M = M / self.size
        self.square = float(np.vdot(self.M, self.M))
        self.rows = max(1, _ROWS_AT_ONCE // M.shape[1])
        self._at: tuple[np.ndarray, ...] = ()
        self._bounded: tuple[np.ndarray, float] | None = None

    # The cost. What a pair determines is kept for the Hessian, which is asked for many directions.

    def _parts(self, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, ...]:
        if not self._at or self._at[0] is not L or self._at[1] is not R:
            self._at = L, R, self.M @ R, L.T @ L, R.T @ R
        return self._at

    def value(self, L: np.ndarray, R: np.ndarray) -> float:
        _, _, MR, G, H = self._parts(L, R)
        found = self.square - 2 * float(np.vdot(MR, L)) + float(np.vdot(G, H))
        return found if found > 1e-2 * self.square else self.distance(L, R)

    def distance(self, L: np.ndarray, R: np.ndarray) -> float:
        """The squared distance from the residual itself, in blocks of rows: no cancellation."""
        blocks = range(0, len(L), self.rows)
        return sum(float(np.sum((L[i : i + self.rows] @ R.T - self.M[i : i + self.rows]) ** 2)) for i in blocks)

    def gradient(self, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, _, MR, G, H = self._parts(L, R)
        return 2 * (L @ H - MR), 2 * (R @ G - self.M.T @ L)

    def hessian(self, L: np.ndarray, R: np.ndarray, U: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, _, _, G, H = self._parts(L, R)
        left, right = L.T @ U, R.T @ V
        return 2 * (U @ H + L @ (right + right.T) - self.M @ V), 2 * (V @ G + R @ (left + left.T) - self.M.T @ U)

    def problem(self, geometry: str, q: int) -> Any:
        """The problem on balanced pairs with `q` columns, or on triples that stand for them, for pymanopt."""
        from pymanopt import Problem
        from pymanopt.function import numpy as function

        from balancedfact.manifolds import BalancedPairs, StiefelTriples

        d1, d2 = self.M.shape
        manifold: Any
        source: _Target | TripleDistance
        if geometry == "pairs":
            manifold, source, precondition = BalancedPairs(d1, d2, q), self, None
        else:
            manifold = StiefelTriples(d1, d2, q, merged=geometry == "merged")
            source = TripleDistance(self.M, manifold.merged, self.distance)
            precondition = manifold.preconditioner
        cost, gradient, hessian = (function(manifold)(one) for one in (source.value, source.gradient, source.hessian))
        return Problem(manifold, cost, euclidean_gradient=gradient, euclidean_hessian=hessian, preconditioner=precondition)

    # The certificate.

    def lower_bound(self, R: np.ndarray) -> float:
        """A lower bound on the squared distance of every matrix of rank `k`, from the columns of `R`."""
        if self._bounded is None or self._bounded[0] is not R:
            self._bounded = R, self._lower_bound(R)
        return self._bounded[1]

    def _lower_bound(self, R: np.ndarray) -> float:
        M = self.M
        if self.k >= min(M.shape):
            return 0.0
        Z, s, _ = np.linalg.svd(R, full_matrices=False)
        Z = Z[:, s > np.finfo(float).eps * s[0]]
        W = M @ Z
        a = np.zeros(self.k)
        a[: Z.shape[1]] = np.linalg.eigvalsh(W.T @ W)
        D = M.T @ W
        D -= Z @ (Z.T @ D)
        off, rest = float(np.sum(D**2)), self.distance(W, Z)
        # Only how the norm compares with the smallest of the leading singular values matters: it is bounded in that unit.
        unit = float(np.sqrt(max(a.min(), 0.0))) or 1.0
        none = np.zeros((M.shape[0], 0)), np.zeros((M.shape[1], 0))
        top = (unit * norm_bound(_Deflated(M, Z, unit), *none, self.rng)[0]) ** 2
        losses = [off / e + float(np.maximum(top + e - a, 0).sum()) for e in [*np.logspace(-24, 0, 97), a.min() - top] if e > 0]
        return max(0.0, rest - min(losses))

    def gap(self, L: np.ndarray, R: np.ndarray) -> float:
        """The relative gap between distance and bound, with rounding errors left out."""
        value = self.distance(L, R)
        return max(value - self.lower_bound(R) - _ROUNDING_RESIDUAL**2, 0.0) / value if value > 0 else 0.0

    def solution(
        self, L: np.ndarray, R: np.ndarray, method: str, search: Search | None = None, log: Log | None = None
    ) -> Solution:
        """The pair in the user's units, `size` times the matrix here, with its certificate."""
        gap, units = self.gap(L, R), self.size**2
        curvature = np.nan
        if search is not None and search.curvature is not None and not search.log.ended:
            curvature = search.curvature.ratio
        norm = float(np.hypot(np.linalg.norm(L), np.linalg.norm(R))) or 1.0
        balance = float(np.linalg.norm(L.T @ L - R.T @ R)) / norm**2
        # The largest eigenvalue of the Hessian at the truncated singular value decomposition is 4 sigma_1.
        scale = 4 * (float(np.linalg.norm(L.T @ L, 2)) or 1.0) * norm
        stationarity = frobenius(np.concatenate(self.gradient(L, R))) / scale
        status = Status.OPTIMAL if gap <= CLOSED else Status.GAP_OPEN
        message = f"No pair of {self.k} columns is nearer by more than a relative {gap:.1e}."
        if log is not None and log.ended is not None and (status is not Status.OPTIMAL or log.ended[0] is Status.INTERRUPTED):
            status, message = log.ended
        proof = "Eckart and Young, with the leading eigenvalues of M.T @ M bounded from above by block elimination"
        lower = self.lower_bound(R) * units
        certificate = Certificate(
            balance, lower, gap, stationarity=stationarity, balance=balance, curvature=curvature, proof=proof
        )
        pad, root = ((0, 0), (0, self.k - L.shape[1])), np.sqrt(self.size)
        layers = [np.pad(root * R, pad).T.copy(), np.pad(root * L, pad)]
        history = {} if log is None else log.history
        return Solution(layers, self.distance(L, R) * units, status, message, certificate, history, method)


class _Deflated:
    """``M (I - Z Z.T) / unit``, as far as `norm_bound` looks at it."""

    def __init__(self, M: np.ndarray, Z: np.ndarray, unit: float, transposed: bool = False) -> None:
        self.M, self.Z, self.unit, self.transposed = M, Z, unit, transposed
        self.shape = M.shape[::-1] if transposed else M.shape

    @property
    def T(self) -> _Deflated:
        return _Deflated(self.M, self.Z, self.unit, not self.transposed)

    def __matmul__(self, X: np.ndarray) -> np.ndarray:
        if self.transposed:
            Y = self.M.T @ (X / self.unit)
            return Y - self.Z @ (self.Z.T @ Y)
        return self.M @ ((X - self.Z @ (self.Z.T @ X)) / self.unit)


def _truncated(M: np.ndarray, q: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The balanced pair of the `q` leading singular vectors."""
    if M.size > _LARGE and q <= min(M.shape) // 20:
        U, s, Vt = svds(M, k=q, v0=rng.standard_normal(min(M.shape)))
    else:
        U, s, Vt = np.linalg.svd(M, full_matrices=False)
        U, s, Vt = U[:, :q], s[:q], Vt[:q]
    root = np.sqrt(s)
    return U * root, Vt.T * root


def _pair_at(search: Search) -> tuple[np.ndarray, np.ndarray]:
    """The pair that the point of a search stands for."""
    from balancedfact.manifolds import StiefelTriples

    L, R = search.manifold.pair(search.point) if isinstance(search.manifold, StiefelTriples) else search.point
    return L, R


def _search(
    target: _Target,
    geometry: str,
    q: int,
    start: tuple[np.ndarray, np.ndarray] | None,
    rng: np.random.Generator,
    log: Log,
    searches: list[Search],
) -> None:
    """Search with `q` columns until the certificate closes, with a detour by fewer columns where some of them vanish.

    The last of `searches` is the one whose point counts, also where the log ends them.
    """
    units, (coarse, fine) = target.size**2, _TOLERANCES[geometry]

    def run(width: int, tol: float, L: np.ndarray, R: np.ndarray) -> Search:
        search = Search(target.problem(geometry, width), tol, _PAIR_POINTS, log, units)
        if searches:
            search.resume(searches[-1])
        searches.append(search)
        with pymanopt_draws(rng):
            search.run(search.manifold.nearest(L, R))
        return search

    def closed(search: Search) -> bool:
        return target.gap(*_pair_at(search)) <= CLOSED

    if start is None:
        draw = (rng.standard_normal((d, q)) for d in target.M.shape)
        L, R = target.problem("pairs", q).manifold.nearest(*draw)
        root = np.sqrt(_START_SIZE / np.linalg.norm(L @ R.T))
        start = root * L, root * R
    L, R = start
    found = run(q, coarse, L, R)
    if closed(found):
        return
    L, R = _pair_at(found)
    _, s, Vt = np.linalg.svd(L, full_matrices=False)
    small = np.flatnonzero((s[1:] < _VANISHING_VALUE * s[0]) & (s[1:] < 0.1 * s[:-1]))
    if small.size:
        kept = Vt[: small[0] + 1].T
        narrow = run(kept.shape[1], fine, L @ kept, R @ kept)
        if geometry == "merged" and closed(narrow):  # whose square factor is invertible, and cannot be padded
            return
        L, R = _pair_at(narrow)
        # At full width the columns that were left out are an edge from which any lower value is seen.
        pad = ((0, 0), (0, q - L.shape[1]))
        wider = run(q, coarse, np.pad(L, pad), np.pad(R, pad))
        if wider.value <= found.value:
            found = wider
        else:
            searches.append(found)
        if closed(found):
            return
    L, R = _pair_at(found)
    run(q, fine, L, R)
