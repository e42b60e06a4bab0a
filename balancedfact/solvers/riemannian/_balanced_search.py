"""Searches for the nearest balanced pair on the manifolds that represent it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from balancedfact._pymanopt_draws import pymanopt_draws
from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.riemannian._matrix_target import MatrixTarget
from balancedfact.solvers.riemannian._search import CLOSED, Search
from balancedfact.solvers.riemannian._triple_distance import TripleDistance

_PAIR_POINTS = 2000  # points per search
# A singular value below this fraction of the largest, and of a tenth of the one before, may be zero at the minimum.
_VANISHING_VALUE = 1e-2
# Size of the product of a random starting pair, relative to the matrix.
_START_SIZE = 0.3


class PairGeometry(NamedTuple):
    """A manifold of balanced pairs: the problem with a number of columns, and the relative gradients at which a search stops.

    The gradient of `fine` is for where the gap is still open. ``loses_rank`` tells whether pairs of lower rank are among its
    points.
    """

    problem: Callable[[MatrixTarget, int], Any]
    coarse: float
    fine: float
    loses_rank: bool


def _on_pairs(target: MatrixTarget, q: int) -> Any:
    from balancedfact.manifolds import BalancedPairs

    d1, d2 = target.M.shape
    return _for_pymanopt(BalancedPairs(d1, d2, q), target, None)


def _on_triples(target: MatrixTarget, q: int, *, merged: bool) -> Any:
    from balancedfact.manifolds import StiefelTriples

    d1, d2 = target.M.shape
    manifold = StiefelTriples(d1, d2, q, merged=merged)
    return _for_pymanopt(manifold, TripleDistance(target.M, merged, target.distance), manifold.preconditioner)


def _for_pymanopt(manifold: Any, source: Any, precondition: Any) -> Any:
    from pymanopt import Problem
    from pymanopt.function import numpy as function

    cost, gradient, hessian = (function(manifold)(one) for one in (source.value, source.gradient, source.hessian))
    return Problem(manifold, cost, euclidean_gradient=gradient, euclidean_hessian=hessian, preconditioner=precondition)


# The metric of a merged factor makes the gradient of a small singular value smaller still; its square factor is invertible.
GEOMETRIES = {
    "pairs": PairGeometry(_on_pairs, 1e-9, 1e-15, True),
    "triples": PairGeometry(partial(_on_triples, merged=False), 1e-9, 1e-15, True),
    "merged": PairGeometry(partial(_on_triples, merged=True), 1e-9, 1e-18, False),
}


def pair_at(search: Search) -> tuple[np.ndarray, np.ndarray]:
    """The pair that the point of a search stands for."""
    from balancedfact.manifolds import StiefelTriples

    L, R = search.manifold.pair(search.point) if isinstance(search.manifold, StiefelTriples) else search.point
    return L, R


def search_pairs(
    target: MatrixTarget,
    geometry: PairGeometry,
    q: int,
    start: tuple[np.ndarray, np.ndarray] | None,
    rng: np.random.Generator,
    log: Log,
    searches: list[Search],
) -> None:
    """Search with `q` columns until the certificate closes, with a detour by fewer columns where some of them vanish.

    The last of `searches` is the one whose point counts, also where the log ends them.
    """
    units, coarse, fine = target.size**2, geometry.coarse, geometry.fine

    def run(width: int, tol: float, L: np.ndarray, R: np.ndarray) -> Search:
        search = Search(geometry.problem(target, width), tol, _PAIR_POINTS, log, units)
        if searches:
            search.resume(searches[-1])
        searches.append(search)
        with pymanopt_draws(rng):
            search.run(search.manifold.nearest(L, R))
        return search

    def closed(search: Search) -> bool:
        return target.gap(*pair_at(search)) <= CLOSED

    if start is None:
        draw = (rng.standard_normal((d, q)) for d in target.M.shape)
        L, R = _on_pairs(target, q).manifold.nearest(*draw)
        root = np.sqrt(_START_SIZE / np.linalg.norm(L @ R.T))
        start = root * L, root * R
    L, R = start
    found = run(q, coarse, L, R)
    if closed(found):
        return
    L, R = pair_at(found)
    _, s, Vt = np.linalg.svd(L, full_matrices=False)
    small = np.flatnonzero((s[1:] < _VANISHING_VALUE * s[0]) & (s[1:] < 0.1 * s[:-1]))
    if small.size:
        kept = Vt[: small[0] + 1].T
        narrow = run(kept.shape[1], fine, L @ kept, R @ kept)
        if not geometry.loses_rank and closed(narrow):  # and cannot be padded
            return
        L, R = pair_at(narrow)
        # At full width the columns that were left out are an edge from which any lower value is seen.
        pad = ((0, 0), (0, q - L.shape[1]))
        wider = run(q, coarse, np.pad(L, pad), np.pad(R, pad))
        if wider.value <= found.value:
            found = wider
        else:
            searches.append(found)
        if closed(found):
            return
    L, R = pair_at(found)
    run(q, fine, L, R)
