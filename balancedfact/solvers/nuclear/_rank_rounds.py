"""A stationary pair of the rank that its dual vector asks for: columns come along what exceeds its constraint, and go.

Where singular values of the dual matrix crowd at 1, a descent may end in the rounding of the objective before its gradient is
small, or columns come and go and change nothing else. The pair is then as good as descent makes it, and the dual vector is not
yet right: it is `stuck`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from balancedfact.solvers.nuclear._columns import needed, trimmed, widened
from balancedfact.solvers.nuclear._descent import descend
from balancedfact.solvers.nuclear._problem import NuclearProblem, Pair

_MOST_CHANGES = 30  # of the rank
_LOOSER = 10.0  # by which the norm of the dual matrix may exceed 1, in units of the relative gradient
# Relative decreases of the objective by columns that come and go: rounding, and too little for a descent that rounding ended.
_UNCHANGED, _TOO_LITTLE = 1e-13, 1e-4
_FEWEST_NEW = 8  # columns that may come at once, if the pair has fewer


class Settled(NamedTuple):
    """A pair, its singular values and dual vector, offsets if any, how many columns that asks for, whether stuck."""

    L: np.ndarray
    R: np.ndarray
    s: np.ndarray
    y: np.ndarray
    offsets: Pair | None
    wanted: int
    stuck: bool


def rank_rounds(
    problem: NuclearProblem,
    L: np.ndarray,
    R: np.ndarray,
    accuracy: float,
    limit: int,
    rng: np.random.Generator,
    *,
    offsets: Pair | None = None,
    give_up: int | None = None,
    horizontal: bool = False,
) -> Settled:
    """A pair of relative gradient `accuracy`, of the rank that its dual vector asks for as far as `limit` allows.

    It may ask for more where that is more than `give_up`, and where columns only come and go.
    """
    width, before = -1, np.inf
    for change in range(_MOST_CHANGES + 1):
        L, R, s, y, offsets, short = settled(problem, L, R, accuracy, offsets, horizontal=horizontal)
        value = float(s.sum()) + 0.5 * float((problem.q * y) @ y) + problem.ridge(offsets)
        room = min(limit - s.size, max(_FEWEST_NEW, s.size))
        if give_up is not None:  # whether more than that are needed shows once the first of them is in place
            room = min(room, max(give_up + 1 - s.size, 1))
        wider = widened(problem.map, L, R, y, problem.q, room, _LOOSER * accuracy, rng)
        wanted = wider[0].shape[1]
        gain = _TOO_LITTLE if short else _UNCHANGED
        idle = wanted > s.size and s.size <= width and not value < (1 - gain) * before
        if wanted == s.size or idle or change == _MOST_CHANGES or (give_up is not None and s.size > give_up):
            break
        (L, R), width, before = wider, s.size, value
    return Settled(L, R, s, y, offsets, wanted, short or idle)


def settled(problem, L, R, accuracy, offsets=None, *, horizontal: bool = False):  # type: ignore[no-untyped-def]
    """A stationary pair from the columns of ``L, R``, those that the penalty presses to zero left out.

    With its singular values, its dual vector, offsets, and whether rounding ended the descent before its gradient was small.
    """
    A, b, q, terms, density = problem.map, problem.b, problem.q, problem.offsets, problem.density
    while L.shape[1] > 0 or terms is not None:
        size = np.vdot(L, L) + np.vdot(R, R) if L.shape[1] > 0 else b @ b / q
        tol = accuracy * q * float(np.sqrt(size))
        search = {"density": density, "gradient_tol": tol, "terms": terms, "offsets": offsets, "horizontal": horizontal}
        end = descend(A, b, q, L, R, **search)
        L, R, s = trimmed(end.L, end.R)
        y, offsets, before = end.residual / q, end.offsets, s.size
        L, R, s = needed(A, L, R, s, y, q)
        if s.size == before:
            return L, R, s, y, offsets, end.gradient_norm > tol
    return L, R, np.zeros(0), b / q, None, False
