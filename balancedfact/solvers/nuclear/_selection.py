"""The algorithms that suit a problem, in the order in which they are tried."""

from __future__ import annotations

from balancedfact.solvers.nuclear._algorithm import Algorithm
from balancedfact.solvers.nuclear._dual_newton import DualNewton
from balancedfact.solvers.nuclear._factored import Factored
from balancedfact.solvers.nuclear._interior_point import InteriorPoint
from balancedfact.solvers.nuclear._problem import NuclearProblem
from balancedfact.solvers.nuclear._splitting import Splitting

# Up to this many matrix entries a decomposition takes a tenth of a second, and the methods that need many of them follow an
# interior-point method that rounding errors stopped; beyond it the factored method is tried before.
_SMALL = 300_000
# The rank, as a fraction of the smaller size, beyond which a factored path leaves the field to splitting, if that can follow.
_GIVE_UP = 0.2
# More exact entries than these of a small matrix are faster by Newton's method on the dual than by an interior-point method.
# The factored method before it leaves as soon as pairs of its rank have as many parameters as this fraction of the entries.
_MANY_ENTRIES, _PARAMETERS = 1000, 0.5


def suitable(problem: NuclearProblem) -> list[Algorithm]:
    """The algorithms to try in turn until the gap closes: fast and exact ones first, those that always serve last."""
    A = problem.map
    d1, d2 = A.matrix_shape
    found: list[Algorithm] = [each for each in (InteriorPoint(), Splitting()) if each.suits(problem) is None]
    newton = DualNewton(most_entries=_SMALL)
    if problem.q == 0 and A.m > _MANY_ENTRIES and newton.suits(problem) is None:
        half = (d1 + d2) / 2
        rank = half - max(half**2 - _PARAMETERS * A.m, 0.0) ** 0.5  # the root of k (d1 + d2 - k) = _PARAMETERS * m
        return [Factored(give_up=max(rank, 1.0) / min(d1, d2), same_fit=True, complete=True), newton, *found]
    if d1 * d2 > _SMALL or not found or not isinstance(found[0], InteriorPoint):
        place = 1 if found and isinstance(found[0], InteriorPoint) else 0
        followed = len(found) > place
        complete = problem.q == 0 and DualNewton().suits(problem) is None
        found.insert(place, Factored(give_up=_GIVE_UP if followed else None, complete=complete))
    return found
