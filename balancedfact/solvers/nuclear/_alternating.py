r"""Alternating least squares, for entries that are spread unevenly over rows and columns.

For given `R` the minimiser over `L` of ``|A(L R.T) - b|^2 / 2 + q (|L|^2 + |R|^2) / 2`` falls apart into one ridge regression a
row, and the other way round, so that no row is slowed down by how the others are seen. What makes the method slow is a column
that is small: it grows by a factor a sweep. So between sweeps the *core* `C` of ``U C V.T``, with the singular vectors of the
pair and those of the dual matrix that are near its norm, moves by accelerated proximal steps of its own convex problem
(Beck and Teboulle 2009, restarted as O'Donoghue and Candes 2015), in which columns come, go and mix at once; such an active
subspace is that of Hsieh and Olsen (2014).

Once that changes little, one there and back is a map of the shorter factor to itself, whose fixed points are the stationary
pairs; it is accelerated by Anderson's mixing (Walker and Ni 2011): of the last few values of the map the affine combination is
taken for which the steps cancel best. A mixture is kept only if the objective, least over the longer factor, falls.

With offsets ``a g.T + f c.T`` the unknowns of a row are those of its factor and its offset, whose partner is given.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from balancedfact.solvers.iteration._limits import check_time
from balancedfact.solvers.nuclear._columns import directions, leading, leading_block, needed, probed, trimmed
from balancedfact.solvers.nuclear._core import core_steps
from balancedfact.solvers.nuclear._problem import NuclearProblem, Pair, Point

_VALUES_MIXED = 5  # values of the map that are mixed
_MIXTURE_REGULAR = 1e-10  # of the least squares that find the mixture, relative to their trace
SHRINK, _ROUNDS_ABOVE = 0.25, 3  # from one penalty of the path to the next, and how often columns are added at each
_SWEEPS_MIXED = 3  # between two points, at least
_SWEEPS_BEFORE_CORE = 2  # sweeps between two moves of the core
_RESERVE, _NEAR_NORM = 24, 0.9  # singular vectors that the core has in reserve, at least, and the values that make them of use
_CORE_SETTLED = 1e-8  # the relative change of the objective from which on the core stays as it is
# How far above 1 a singular value of the dual matrix must be to open a column.
_COARSEST_SLACK, _FINEST_SLACK = 1e-2, 1e-12
_IDLE_BLOCKS = 6  # without halving the step, after which the mixing has stalled
_MOST_BLOCKS, _ROUNDING_CHANGE = 100, 1e-15  # of the sweeps between points, and the relative change that is rounding
# How unevenly rows and columns are seen, in standard deviations of their energy over its mean, before this is worth while.
_UNEVEN = 0.15


def is_uneven(problem: NuclearProblem) -> bool:
    """Tell whether rows or columns are seen so unevenly that a step of their own for each pays."""
    A = problem.map
    if problem.q == 0 or A.half_steps(1.0) is None:
        return False
    entries = A.as_entries()
    sides = zip((entries.rows, entries.cols), A.matrix_shape, strict=True)
    energies = [np.bincount(places, entries.weights**2, size) for places, size in sides]
    return max(float(np.std(each) / np.mean(each)) for each in energies) > _UNEVEN


def alternating(
    problem: NuclearProblem, rng: np.random.Generator, *, max_rank: int | None = None, initial: Pair | None = None
) -> Iterator[Point]:
    """Yield points: one for each of a path of larger penalties, then at the penalty of the problem; from `initial` at once.

    It ends where the map has converged as far as rounding lets it, or where the mixing stalls.
    """
    A, d = problem.map, problem.map.matrix_shape
    limit = min(d) if max_rank is None else min(max_rank, *d)
    offsets: Pair | None = None
    if problem.offsets is not None:
        offsets = np.zeros(d[0]), np.zeros(d[1])
    L, R = np.zeros((d[0], 0)), np.zeros((d[1], 0))
    penalty = problem.q
    if initial is not None:
        L, R, _ = (part[..., :limit] for part in trimmed(*initial))
    else:
        sweeps = _Sweeps(problem, penalty)
        residual = problem.b if offsets is None else sweeps.run(L, R, offsets, _SWEEPS_MIXED)[3]
        penalty = max(0.5 * leading(A.adjoint_for_many(residual), 1, L, R, rng, tol=1e-2)[1][0], penalty)
        del residual
    while penalty > problem.q:
        sweeps = _Sweeps(problem, penalty)
        for _ in range(_ROUNDS_ABOVE):
            rank = L.shape[1]
            L, R, s, offsets, residual = sweeps.step(L, R, offsets, limit, rng)
            if s.size == rank:
                break
        residual /= penalty
        yield Point(L, R, s, residual, offsets)
        del residual  # one less to be kept during the next step
        penalty = max(SHRINK * penalty, problem.q)
    yield from _at_penalty(problem, L, R, offsets, limit, rng)


def _at_penalty(
    problem: NuclearProblem, L: np.ndarray, R: np.ndarray, offsets: Pair | None, limit: int, rng: np.random.Generator
) -> Iterator[Point]:
    A, sweeps = problem.map, _Sweeps(problem, problem.q)
    before = np.inf
    for _ in range(_MOST_BLOCKS):
        rank = L.shape[1]
        L, R, s, offsets, y = sweeps.step(L, R, offsets, limit, rng)
        y /= problem.q
        yield Point(L, R, s, y, offsets)
        del y
        change, before = (before - sweeps.value) / sweeps.value, sweeps.value
        if rank == s.size and change <= _CORE_SETTLED:
            break
    sweeps.forget()
    before, smallest, idle = np.inf, np.inf, 0
    for _ in range(_MOST_BLOCKS):
        L, R, offsets, y = sweeps.run(L, R, offsets, _SWEEPS_MIXED)
        y /= problem.q
        change, before = (before - sweeps.value) / sweeps.value, sweeps.value
        narrow_L, narrow_R, s = needed(A, *trimmed(L, R), y, problem.q)
        yield Point(narrow_L, narrow_R, s, y, offsets)
        idle = 0 if sweeps.moved < 0.5 * smallest else idle + 1
        smallest = min(smallest, sweeps.moved)
        if idle >= _IDLE_BLOCKS:
            return
        slack = float(np.clip(change, _FINEST_SLACK, _COARSEST_SLACK))
        wider = sweeps.more(narrow_L, narrow_R, y, limit, slack, rng)
        del y
        if wider[0].shape[1] > s.size:
            L, R = wider
            sweeps.forget()
            smallest = np.inf
        elif abs(change) <= _ROUNDING_CHANGE:
            return


class _Sweeps:
    """There and back between the factors at one penalty, with the memory of the mixing."""

    def __init__(self, problem: NuclearProblem, penalty: float) -> None:
        self.problem, self.penalty = problem, penalty
        steps = problem.map.half_steps(penalty)
        assert steps is not None
        d1, d2 = problem.map.matrix_shape
        self.flipped = d1 > d2  # the shorter factor comes first below
        self.short, self.long = steps[::-1] if self.flipped else steps
        self.ones: Pair | None = None
        if problem.offsets is not None:
            f, g, left, right = problem.offsets
            self.ones, self.weights = self.ordered((f, g)), self.ordered((left, right))
            self.scales = tuple(np.sqrt(penalty / each) for each in self.weights)
        self.probe = np.zeros((min(d1, d2), 0))
        self.forget()

    def forget(self) -> None:
        """Start the mixing anew."""
        self.points: list[np.ndarray] = []
        self.steps: list[np.ndarray] = []
        self.value, self.moved = np.inf, np.inf

    def ordered(self, pair: Pair) -> Pair:
        """A pair with the shorter side first, or back again."""
        return pair[::-1] if self.flipped else pair

    def run(
        self, L: np.ndarray, R: np.ndarray, offsets: Pair | None, count: int
    ) -> tuple[np.ndarray, np.ndarray, Pair | None, np.ndarray]:
        """Sweep so many times from the shorter factor; return the pair, the offsets and the residual that they leave."""
        x = self.ordered((L, R))[0]
        if offsets is not None:
            x = np.column_stack([x, self.ordered(offsets)[0]])
        for _ in range(count):
            check_time()
            x = self._mixed() if self.points else x
            y = self._longer(x)
            value = self._value(x, y, self._residual(x, y))
            if value > self.value and self.points:  # a plain step never makes it larger
                x = self.points[-1]
                self.forget()
                y = self._longer(x)
                value = self._value(x, y, self._residual(x, y))
            self.value = value
            after = self._shorter(y)
            self.points, self.steps = (
                [*self.points, after][-_VALUES_MIXED - 1 :],
                [*self.steps, after - x][-_VALUES_MIXED - 1 :],
            )
            self.moved = float(np.linalg.norm(after - x) / (np.linalg.norm(after) or 1.0))
        residual = self._residual(after, y)
        if self.ones is None:
            return *self.ordered((after, y)), None, residual
        return *self.ordered((after[:, :-1], y[:, :-1])), self.ordered((after[:, -1], y[:, -1])), residual

    def step(
        self, L: np.ndarray, R: np.ndarray, offsets: Pair | None, limit: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Pair | None, np.ndarray]:
        """A few sweeps and the core; the pair, its singular values, the offsets and the residual that they leave."""
        A, residual = self.problem.map, self.problem.b
        if L.shape[1] > 0 or offsets is not None:
            self.forget()
            L, R, offsets, residual = self.run(L, R, offsets, _SWEEPS_BEFORE_CORE)
        L, R, s = trimmed(L, R)
        U, V = directions(L, R)
        room = min(limit - s.size, max(_RESERVE, s.size // 3))
        if room > 0:
            left, right = self._beside(residual, U, V, room, rng)
            U, V = np.hstack([U, left]), np.hstack([V, right])
            s = np.concatenate([s, np.zeros(left.shape[1])])
        target = A.forward_factored(L, R)
        target += residual  # the data without the offsets
        del residual
        L, R, s = core_steps(A, target, self.penalty, (U, np.diag(s), V), rng)
        image = A.forward_factored(L, R)
        return L, R, s, offsets, np.subtract(target, image, out=image)

    def _beside(self, residual: np.ndarray, U: np.ndarray, V: np.ndarray, room: int, rng: np.random.Generator) -> Pair:
        """The singular vectors of the dual matrix outside of `U` and `V` whose values are near its norm or above."""
        S = self.problem.map.adjoint_for_many(residual / self.penalty)
        left, sigma, right, self.probe = leading_block(S, room, U, V, self.probe, rng)
        near = sigma > _NEAR_NORM
        return left[:, near], right[:, near]

    def more(self, L: np.ndarray, R: np.ndarray, y: np.ndarray, limit: int, slack: float, rng: np.random.Generator) -> Pair:
        """The pair with columns along what the dual matrix has above ``1 + slack``, at most as many as there are."""
        A, rank = self.problem.map, L.shape[1]
        room = min(limit - rank, max(8, rank))
        L, R, self.probe = probed(A, L, R, y, self.penalty, room, slack, self.probe, rng)
        return L, R

    def _mixed(self) -> np.ndarray:
        newest, step = self.points[-1], self.steps[-1]
        if len(self.points) == 1:
            return newest
        ahead = np.array([(step - each).ravel() for each in self.steps[:-1]])
        gram = ahead @ ahead.T
        gram[np.diag_indices(len(gram))] += _MIXTURE_REGULAR * np.trace(gram) + np.finfo(float).tiny
        weights = np.linalg.solve(gram, ahead @ step.ravel())
        return newest - sum(w * (newest - each) for w, each in zip(weights, self.points[:-1], strict=True))

    def _longer(self, x: np.ndarray) -> np.ndarray:
        return self._half(self.long, x, 0)

    def _shorter(self, y: np.ndarray) -> np.ndarray:
        return self._half(self.short, y, 1)

    def _half(self, step, given: np.ndarray, side: int) -> np.ndarray:  # type: ignore[no-untyped-def]
        b = self.problem.b
        if self.ones is None:
            return step(b, given)
        partners = given[:, -1:], self.ones[1 - side][:, None]
        rest = self._measured(*(partners if side == 0 else partners[::-1]))
        np.subtract(b, rest, out=rest)
        return step(rest, np.column_stack([given[:, :-1], self.ones[side]]), self.scales[1 - side])

    def _measured(self, short: np.ndarray, long: np.ndarray) -> np.ndarray:
        return self.problem.map.forward_factored(*self.ordered((short, long)))

    def _residual(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if self.ones is not None:
            x, y = np.column_stack([x, self.ones[0]]), np.insert(y, -1, self.ones[1], axis=1)
        return self.problem.less(*self.ordered((x, y)))

    def _value(self, x: np.ndarray, y: np.ndarray, residual: np.ndarray) -> float:
        total = float(residual @ residual)
        if self.ones is not None:
            total += sum(float(weight @ each[:, -1] ** 2) for weight, each in zip(self.weights, (x, y), strict=True))
            x, y = x[:, :-1], y[:, :-1]
        return 0.5 * (total + self.penalty * float(np.vdot(x, x) + np.vdot(y, y)))
