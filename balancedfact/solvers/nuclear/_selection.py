"""The algorithms that suit a problem, in the order in which they are tried."""

from __future__ import annotations

from balancedfact.solvers.nuclear._algorithm import Algorithm
from balancedfact.solvers.nuclear._factored import Factored
from balancedfact.solvers.nuclear._interior_point import InteriorPoint
from balancedfact.solvers.nuclear._problem import NuclearProblem
from balancedfact.solvers.nuclear._splitting import Splitting

# Up to this many matrix entries a decomposition takes a tenth of a second, and splitting follows an interior-point method that
# rounding errors stopped; beyond it the factored method is tried before.
_SMALL = 300_000
# The rank, as a fraction of the smaller size, beyond which a factored path leaves the field to splitting, if that can follow.
_GIVE_UP = 0.2


def suitable(problem: NuclearProblem) -> list[Algorithm]:
    """The algorithms to try in turn until the gap closes: fast and exact ones first, those that always serve last."""
    A = problem.map
    d1, d2 = A.matrix_shape
    found: list[Algorithm] = [each for each in (InteriorPoint(), Splitting()) if each.suits(problem) is None]
    if d1 * d2 > _SMALL or not found or not isinstance(found[0], InteriorPoint):
        place = 1 if found and isinstance(found[0], InteriorPoint) else 0
        follows = len(found) > place
        found.insert(place, Factored(give_up=_GIVE_UP if follows else None))
    return found
