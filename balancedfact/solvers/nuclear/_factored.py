r"""Factored method for large problems: no ``d1 x d2`` array, rank increased until the dual certificate closes the gap.

For a penalty `q` a stationary pair of ``|A(L R.T) - b|^2 / 2 + q (|L|^2 + |R|^2) / 2`` is optimal exactly when the largest
singular value of ``A*(b - A(L R.T))`` is `q`; where it is larger, its singular vectors are a direction of descent that one
more column opens (Burer and Monteiro 2003; Haeffele and Vidal 2015). The penalty falls in steps, and the rank follows it.

Data to be interpolated are reached by the same path. At each step the pair is moved onto the data at its rank, and its
optimality is tried by the vector of least norm with ``A*(y) V = U``, ``A*(y).T U = V`` for the singular vectors ``U, V`` of
the pair: when the rest of ``A*(y)`` is at most 1 in norm, the pair is a global minimiser (the dual certificate of Candes
and Recht 2009). Where that fails, the path's own dual vector bounds the optimum, ever closer as the penalty falls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from balancedfact._validate import as_flag, as_number
from balancedfact.solvers.nuclear._active_core import active_core
from balancedfact.solvers.nuclear._algorithm import Algorithm
from balancedfact.solvers.nuclear._alternating import SHRINK, alternating, is_uneven
from balancedfact.solvers.nuclear._columns import leading, trimmed
from balancedfact.solvers.nuclear._completed_certificate import completed_certificates, proved_fits
from balancedfact.solvers.nuclear._descent import descend
from balancedfact.solvers.nuclear._least_norm import least_norm_certificate
from balancedfact.solvers.nuclear._problem import NuclearProblem, Pair, Point
from balancedfact.solvers.nuclear._rank_rounds import rank_rounds

_FLOOR = 1e-8  # the last penalty of an interpolating path, as a fraction of the largest useful one
_FINER = 0.1  # from one accuracy at the last penalty to the next
_FINEST = 1e-11  # relative accuracy of the last descent at a penalty that was asked for
_SAME_FIT = 1e-9  # the relative difference of two nuclear norms that are those of the same matrix
_UNFIT = 4  # the penalty, of those at which no low rank fits, after which it is sought without one


@dataclass(frozen=True)
class Factored(Algorithm):
    """Second-order descent on factors whose rank follows the dual certificate; no ``d1 x d2`` array is formed.

    Memory grows with the number of measurements and with ``(d1 + d2)`` times the rank of the solution, not with ``d1 d2``. It
    serves every problem, and is the only algorithm with offsets.

    Parameters
    ----------
    give_up : float, optional
        The rank, as a fraction of ``min(d1, d2)``, beyond which to stop; by default there is no such limit.
    same_fit : bool
        Whether to stop once two successive penalties lead to the same matrix, which fits the data and is not proved to be best.
    complete : bool
        Whether to try to prove a fit of low rank by Newton's method on the dual, for entries: this forms ``d1 x d2`` arrays.

    Raises
    ------
    ValueError
        If a parameter is malformed.

    See Also
    --------
    InteriorPoint : For few measurements.
    Splitting : For solutions of high rank.
    select_method : The choice between them.

    References
    ----------
    Burer and Monteiro 2003; Haeffele and Vidal 2015.

    Guide :doc:`/guide/large`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.bernoulli_mask((30, 20), 0.6, rng=0)
    >>> solution = bf.flat_minimum(A, A(np.ones((30, 20))), method=bf.solvers.Factored(), rng=0)
    >>> solution.status.name, solution.rank
    ('OPTIMAL', 1)
    """

    name, low_rank = "factored", True
    give_up: float | None = None
    same_fit: bool = False
    complete: bool = False

    def __post_init__(self) -> None:
        if self.give_up is not None:
            as_number(self.give_up, "give_up", above=0.0)
        as_flag(self.same_fit, "same_fit")
        as_flag(self.complete, "complete")

    def points(
        self, problem: NuclearProblem, rng: np.random.Generator, *, max_rank: int | None = None, initial: Pair | None = None
    ) -> Iterator[Point]:
        """Yield points along the path of penalties."""
        give_up = None if self.give_up is None else int(self.give_up * min(problem.map.matrix_shape))
        return factored(
            problem,
            rng,
            max_rank=max_rank,
            give_up=give_up,
            same_fit=self.same_fit,
            complete=self.complete,
            initial=initial,
        )


def factored(
    problem: NuclearProblem,
    rng: np.random.Generator,
    *,
    max_rank: int | None = None,
    give_up: int | None = None,
    same_fit: bool = False,
    complete: bool = False,
    initial: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[Point]:
    """Yield points along the path. With ``q = 0`` each has been moved onto the data as far as its rank allows.

    `max_rank` limits the number of columns, and the path is left once more than `give_up` are needed, or at a `same_fit` as at
    the penalty before: its dual vector of least norm is the same too. With `complete` the first fit that it leaves open is
    tried by `completed_certificates`, and where there is none `proved_fits`. `initial` is a pair to start from, which skips
    the path down to ``q > 0``.
    """
    A, b = problem.map, problem.b
    d1, d2 = A.matrix_shape
    limit = min(d1, d2) if max_rank is None else min(max_rank, d1, d2)
    density = problem.density
    L, R, s = np.zeros((d1, 0)), np.zeros((d2, 0)), np.zeros(0)
    first, offsets = b, None
    if problem.offsets is not None:  # how much a matrix is needed shows once they are in place
        end = descend(A, b, problem.q, L, R, density=density, terms=problem.offsets, gradient_tol=1e-6 * np.linalg.norm(b))
        first, offsets = end.residual, end.offsets
    largest = leading(A.adjoint_for_many(first), 1, L, R, rng, tol=1e-3)[1][0]
    penalty = max(0.5 * largest, problem.q)
    if is_uneven(problem):
        for point in alternating(problem, rng, max_rank=max_rank, initial=initial):
            initial, offsets = (point.L, point.R), point.offsets
            yield point
            del point  # and its dual vector, while the next is sought
    if initial is not None:
        L, R, s = (part[..., :limit] for part in trimmed(*initial))
        penalty = problem.q or penalty
    accuracy, last, unfit = _accuracy(penalty, problem.q, largest), 0.0, 0
    while True:
        at_penalty = replace(problem, q=penalty)
        L, R, s, y, offsets, wanted, stuck = rank_rounds(
            at_penalty, L, R, accuracy, limit, rng, offsets=offsets, give_up=give_up
        )
        rank = s.size
        if give_up is not None and wanted > give_up:
            return
        if problem.q > 0 and (rank > 0 or offsets is not None):
            yield Point(L, R, s, y, offsets)
        if penalty == problem.q:
            if stuck and offsets is None and limit == min(d1, d2):
                yield from active_core(problem, L, R, y, rng)
            if accuracy <= _FINEST:
                return
            accuracy = max(_FINER * accuracy, _FINEST)
            continue
        if problem.q == 0 and rank > 0:
            point = interpolating(problem, L, R, y)
            yield point
            total = float(point.s.sum())
            if complete and point.y is not y:
                complete = False
                yield from (point._replace(y=better) for better in completed_certificates(problem, point))
            unfit += point.y is y
            if complete and unfit == _UNFIT:
                complete = False
                yield from proved_fits(problem, rng)
            if same_fit and point.y is not y and abs(total - last) <= _SAME_FIT * total:
                return
            last = total if point.y is not y else 0.0
        if penalty <= _FLOOR * largest:
            return
        penalty = max(SHRINK * penalty, problem.q)
        accuracy = _accuracy(penalty, problem.q, largest)


def _accuracy(penalty: float, target: float, largest: float) -> float:
    """Relative accuracy for one penalty of the path; coarser the further the penalty is from its target."""
    return 0.01 if penalty == target else 0.02 * penalty / largest


def interpolating(problem: NuclearProblem, L: np.ndarray, R: np.ndarray, y: np.ndarray) -> Point:
    """The pair moved onto the data at its rank, with the dual vector of least norm where there is one, else with `y`."""
    A, b = problem.map, problem.b
    d1, d2 = A.matrix_shape
    size = float(np.linalg.norm(b))
    end = descend(A, b, 0.0, L, R, density=problem.density, residual_tol=1e-14 * size, max_products=300)
    L, R, s = trimmed(end.L, end.R)
    k = s.size
    if np.linalg.norm(end.residual) <= 1e-10 * size and k * (d1 + d2 - k) <= A.m:
        return Point(L, R, s, least_norm_certificate(A, L / np.sqrt(s), R / np.sqrt(s)))
    return Point(L, R, s, y)
