"""The balanced pair whose product is nearest to a matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import svds

from balancedfact._validate import as_array, as_choice, as_count, as_pair, as_rng, check_room
from balancedfact.solution import Solution
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback, Log
from balancedfact.solvers.riemannian._balanced_search import GEOMETRIES, pair_at, search_pairs
from balancedfact.solvers.riemannian._matrix_target import MatrixTarget
from balancedfact.solvers.riemannian._search import Search

_LARGE = 500_000  # entries above which a few singular vectors are found by an iterative method

_StartingPair = tuple[np.ndarray, np.ndarray]
_Way = Callable[[MatrixTarget, int, Log, list[Search]], tuple[np.ndarray, np.ndarray]]


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
        "svd" takes singular vectors. "riemannian", which is here for comparison and to be built upon, minimises over a
        manifold by trust regions from a random point, and leaves saddles along their negative curvature.
    geometry : {"pairs", "triples", "merged"}
        The manifold of "riemannian": `BalancedPairs`; `StiefelTriples`, with any matrix between the orthonormal factors; or the
        same with a positive-definite matrix between them.
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
    **Certificate.** By Eckart and Young (1936) the squared distance to a matrix of rank `k` is at least :math:`\|M\|_F^2 - s`,
    with `s` the sum of the `k` largest eigenvalues of :math:`M^\top M`. For an orthonormal basis `Z` of the columns of `R` and
    :math:`N = M(I - ZZ^\top)`, every :math:`\varepsilon>0` gives
    :math:`M^\top M \preceq (A + DD^\top\!/\varepsilon)\oplus(N^\top N + \varepsilon I)` with :math:`A = Z^\top M^\top MZ` and
    :math:`D = Z^\top M^\top N`, and therefore, with :math:`t = \|N\|_{op}^2 + \varepsilon` and the eigenvalues :math:`a_i` of
    `A` (zeros for columns missing from `Z`),

    .. math:: \|M\|_F^2 - s \ge \|N\|_F^2 - \|D\|_F^2/\varepsilon - \sum_{i\le k}\max(t - a_i, 0).

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
    as_choice(method, "method", tuple(_WAYS_TO_NEAREST))
    as_choice(geometry, "geometry", tuple(GEOMETRIES))
    generator, log = as_rng(rng), Log(callback, progress, limits)
    start = None if initial is None else _checked_pair(initial, M.shape, k)
    way = _WAYS_TO_NEAREST[method](start, geometry, generator)
    target = log.insist(MatrixTarget, M, k, generator)
    q = min(k, *M.shape)
    L, R = np.zeros((M.shape[0], q)), np.zeros((M.shape[1], q))
    if not np.any(M):
        return target.solution(L, R, "closed form")
    searches: list[Search] = []
    with log:
        L, R = way(target, q, log, searches)
    # None: stopped before the first point, or nothing was searched.
    search = searches[-1] if searches and searches[-1].point is not None else None
    if search is not None:
        L, R = log.insist(pair_at, search)
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


def _by_singular_vectors(start: _StartingPair | None, geometry: str, rng: np.random.Generator) -> _Way:
    """The way of the truncated singular value decomposition."""
    if start is not None:
        raise ValueError("initial is given; expected none with method 'svd', which does not start anywhere")
    if geometry != next(iter(GEOMETRIES)):
        raise ValueError(f"geometry is {geometry!r}; expected 'pairs' with method 'svd', which searches nowhere")

    return lambda target, q, log, searches: _truncated(target.M, q, rng)


def _by_trust_regions(start: _StartingPair | None, geometry: str, rng: np.random.Generator) -> _Way:
    """The way of a search over a manifold, which leaves its searches in a list."""

    def found(target: MatrixTarget, q: int, log: Log, searches: list[Search]) -> tuple[np.ndarray, np.ndarray]:
        begin = None if start is None else _of_width(start, q, target.size)
        search_pairs(target, GEOMETRIES[geometry], q, begin, rng, log, searches)
        return pair_at(searches[-1])

    return found


_WAYS_TO_NEAREST = {"svd": _by_singular_vectors, "riemannian": _by_trust_regions}


def _of_width(pair: _StartingPair, q: int, size: float) -> _StartingPair:
    """A pair for a matrix of size one in `q` columns, which its leading ones become where it has more."""
    L, R = (part / np.sqrt(size) for part in pair)
    if L.shape[1] == q:
        return L, R
    Vt = np.linalg.svd(np.concatenate([L, R]), full_matrices=False)[2]
    return L @ Vt[:q].T, R @ Vt[:q].T


def _truncated(M: np.ndarray, q: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The balanced pair of the `q` leading singular vectors."""
    if M.size > _LARGE and q <= min(M.shape) // 20:
        U, s, Vt = svds(M, k=q, v0=rng.standard_normal(min(M.shape)))
    else:
        U, s, Vt = np.linalg.svd(M, full_matrices=False)
        U, s, Vt = U[:, :q], s[:q], Vt[:q]
    root = np.sqrt(s)
    return U * root, Vt.T * root
