r"""The penalty for noisy data, chosen by the error on measurements that were held out.

Along :math:`\min_X \tfrac12\|\mathcal A(X) - b\|^2 + \lambda \|D_1 X D_2\|_*` the solution is zero exactly for
:math:`\lambda \ge \lambda_{\max} = \|D_1^{-1} \mathcal A^*(b) D_2^{-1}\|`, by the optimality condition at zero. The path falls
geometrically from there, each solve starting at the last (Friedman, Hastie and Tibshirani 2010, section 2.5).

The fit is a sum over measurements while `D1` and `D2` are built from averages, so that the penalty of the same strength is
proportional to the number of measurements: what is best for the `m_train` that were kept is ``m / m_train`` times as large for
all `m`.

Below the *noise edge*, the norm of ``D1^-1 A*(noise) D2^-1``, the solution takes up noise, of nearly full rank. The edge is
estimated by the residual with random signs, which destroys what structure is left in it and keeps its size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from balancedfact._validate import as_array, as_callback, as_count, as_flag, as_number, as_progress, as_rng
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.solution import Solution, Status
from balancedfact.solvers._flat_minimum import flat_minimum
from balancedfact.solvers.iteration._limits import Budget, Limits, as_limits
from balancedfact.solvers.nuclear._noise_edge import largest_penalty
from balancedfact.solvers.nuclear._splitting import Splitting

# Beyond this many matrix entries only the factored algorithm serves.
MODERATE = Splitting.most_entries
# The grid ends at this fraction of the largest useful penalty. While the error still falls by more than this much a step, the
# path goes on, to so many times as many penalties at most.
_END, _FALLING, _EXTENSION = 1e-4, 0.99, 3
# The error has risen clearly once so many penalties in a row are worse than the best by this factor and the last is no better
# than the one before. Where zero is the best so far, the first singular vectors may have cost more than they brought: only a
# rise by the second factor is clear then.
_PATIENCE, _CLEARLY, _SURELY = 3, 1.01, 1.2
# The best is looked for between what was tried in so many rounds, each towards both neighbours; one whose error is within this
# factor is too near for anything to be gained.
_REFINEMENTS, _LEVEL = 2, 1.001
# Data that are predicted this well, relative to their size, are free of noise.
_NOISELESS = 1e-4
# How near counts as at the noise edge, and by which power of the usual ratio the path goes on below it, where the rank grows.
_AT_EDGE, _BELOW_EDGE = 1.05, 0.25


@dataclass(frozen=True, eq=False)
class PenaltyPath:
    """The penalties that `select_penalty` tried, from the largest down.

    Attributes
    ----------
    penalty : float
        The penalty chosen, for all measurements together.
    penalties : numpy.ndarray
        Every penalty tried, in the same units, descending. At the first the solution is zero, apart from offsets.
    errors : numpy.ndarray
        The root of the mean squared error on the measurements held out.
    standard_errors : numpy.ndarray
        The standard errors of `errors`: over the folds, or over the measurements held out where there is one split.
    ranks : numpy.ndarray
        The ranks of the solutions, the largest over the folds.
    message : str
        A sentence on the choice, also on whether the best is at an end of what was tried.

    See Also
    --------
    select_penalty : Computes it.

    References
    ----------
    Guide :doc:`/guide/tables`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> rng = np.random.default_rng(0)
    >>> A = bf.measurements.bernoulli_mask((20, 15), 0.7, rng)
    >>> b = A(np.ones((20, 15))) + 0.1 * rng.standard_normal(A.m)
    >>> path = bf.solvers.select_penalty(A, b, rng=0)
    >>> path.penalty in path.penalties, bool(path.errors.min() < 0.2)
    (True, True)
    """

    penalty: float
    penalties: np.ndarray
    errors: np.ndarray
    standard_errors: np.ndarray
    ranks: np.ndarray
    message: str

    def to_pandas(self) -> Any:
        """All penalties tried, one to a line, as a data frame; needs pandas."""
        import pandas

        columns = {"error": self.errors, "standard_error": self.standard_errors, "rank": self.ranks}
        return pandas.DataFrame(columns, index=pandas.Index(self.penalties, name="penalty"))


class _Fold:
    """One split of the measurements and the warm start of its path."""

    def __init__(self, A: MeasurementMap, data: np.ndarray, test: np.ndarray, train: np.ndarray) -> None:
        self.train, self.test = A.select(np.sort(train)), A.select(np.sort(test))
        self.seen, self.hidden = data[np.sort(train)], data[np.sort(test)]
        self.share = self.train.m / A.m  # of a penalty for all measurements
        self.pair: tuple[np.ndarray, np.ndarray] | None = None
        self.best: tuple[np.ndarray, np.ndarray] | None = None  # that of the best penalty so far

    def squares(self, solution: Solution | None) -> np.ndarray:
        """The squared errors on what is held out; ``None`` is the zero matrix."""
        return (self.hidden if solution is None else _fitted(self.test, solution) - self.hidden) ** 2


def select_penalty(
    A: MeasurementMap,
    b: ArrayLike,
    *,
    fraction: float = 0.1,
    count: int = 12,
    folds: int = 1,
    one_standard_error: bool = False,
    offset_penalty: float | None = None,
    tol: float = 1e-3,
    rng: int | np.random.Generator | None = None,
    limits: Limits | None = None,
    callback: Callable[[dict[str, float]], None] | None = None,
    progress: bool | None = None,
) -> PenaltyPath:
    r"""Choose the penalty of `flat_minimum` for noisy data by holding out some of the measurements.

    Parameters
    ----------
    A : MeasurementMap
        The measurements.
    b : array_like, shape (m,)
        The data.
    fraction : float
        The part of the measurements to hold out where there is one split.
    count : int
        The number of penalties over four decades. The path ends early once the error has clearly risen, and goes on beyond
        them while it still falls. Then a few are tried between the best and its neighbours.
    folds : int
        With `k` at least 2 the measurements are divided into `k` parts, each is held out in turn, and the errors are pooled.
    one_standard_error : bool
        Choose the largest penalty whose error is within one standard error of the least, in place of the best itself.
    offset_penalty : float, optional
        Row and column offsets for all of the path, as in `flat_minimum`.
    tol : float
        The relative gap to which each point of the path is solved.
    rng : int or numpy.random.Generator, optional
        Randomness of the choice of measurements and of the solves.
    limits : Limits, optional
        When its time is spent, or as many penalties have been tried as it allows iterations, the choice is made among those
        whose solves came to their end; the first penalty counts in any case.
    callback : callable, optional
        Called after every penalty with ``{"iteration", "penalty", "error", "rank"}``.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal.

    Returns
    -------
    PenaltyPath
        The penalty, ready for `flat_minimum` with all measurements, and the errors along the path.

    Raises
    ------
    ValueError
        If an argument is not of the form above, if there are fewer than two measurements, or if all data are zero.
    KeyboardInterrupt
        If the user stops it: a path that was not walked to its end chooses nothing.

    See Also
    --------
    PenaltyPath : What is returned.
    balancedfact.complete : Chooses and solves in one call.
    balancedfact.flat_minimum : The solver that takes the penalty.

    Notes
    -----
    A rise of the error alone does not end the path: where rows and columns are seen unevenly, the first singular vectors may
    add more error than they remove. While the zero matrix is the best, only a rise by a fifth ends the path.

    Where the matrix is so large that only the factored algorithm serves (more than four million entries), the path goes on in
    smaller steps below the noise edge, the penalty below which the solution takes up noise and its rank may explode; there it
    ends as soon as the error rises.

    A matrix entry whose row or column lost all its measurements is predicted as zero at every penalty. That adds the same
    amount to all errors and leaves the choice as it is.

    References
    ----------
    Guide :doc:`/guide/tables`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> from balancedfact.solvers import select_penalty
    >>> rng = np.random.default_rng(0)
    >>> A = bf.measurements.bernoulli_mask((30, 20), 0.6, rng)
    >>> truth = np.outer(rng.standard_normal(30), rng.standard_normal(20))
    >>> path = select_penalty(A, A(truth) + 0.1 * rng.standard_normal(A.m), rng=rng)
    >>> bool(path.errors.min() < 0.5 * path.errors[0])
    True
    >>> bool(path.penalty == path.penalties[path.errors.argmin()])
    True
    """
    data = as_array(b, "b", shape=(as_map(A).m,))
    as_number(fraction, "fraction", above=0.0, most=0.9)
    as_count(count, "count", least=2)
    as_number(tol, "tol", above=0.0)
    if offset_penalty is not None:
        as_number(offset_penalty, "offset_penalty", above=0.0)
    as_flag(one_standard_error, "one_standard_error")
    generator, bounds, shown, call = as_rng(rng), as_limits(limits), as_progress(progress), as_callback(callback)
    if A.m < 2:
        raise ValueError("A has 1 measurement; expected at least 2, so that some can be held out")
    as_count(folds, "folds", most=A.m)
    order = generator.permutation(A.m)
    cuts = [max(1, round(fraction * A.m))] if folds == 1 else [len(part) for part in np.array_split(order, folds)][:-1]
    parts = np.split(order, np.cumsum(cuts))
    held = parts[:1] if folds == 1 else parts
    splits = [_Fold(A, data, part, np.setdiff1d(order, part, assume_unique=True)) for part in held]
    largest = 0.0
    for fold in splits:
        centred = fold.seen if offset_penalty is None else fold.seen - fold.seen.mean()
        largest = max(largest, largest_penalty(fold.train, centred, generator) / fold.share)
    if largest == 0:
        raise ValueError("b is zero, or A is: every penalty gives the zero matrix; expected data that are not all zero")

    walk, budget = _Walk(largest, count), Budget(bounds.seconds)
    console = Console(stderr=True, quiet=not shown)  # older versions of rich end a bar that is not shown with a line
    # Where the path ends shows only once it is there: the time spent is known, that left is not.
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task("penalty by hold-out", total=None)
        while not walk.ended or walk.refined():
            edge, rank, squares = 0.0, 0, []
            for fold in splits:
                solution = None
                if walk.errors or offset_penalty is not None:  # else the solution is zero
                    solution = flat_minimum(
                        *(fold.train, fold.seen),
                        penalty=walk.penalty * fold.share,
                        offset_penalty=offset_penalty,
                        tol=tol,
                        rng=generator,
                        initial=fold.best if walk.ended else fold.pair,
                        limits=budget.rest(),
                        progress=False,
                    )
                    if solution.status is Status.INTERRUPTED:
                        raise KeyboardInterrupt
                    fold.pair = solution.pair if solution.pair[0].any() else None
                    rank = max(rank, 0 if fold.pair is None else fold.pair[0].shape[1])
                    if fold.train.shape[1] > MODERATE:
                        signs = generator.choice([-1.0, 1.0], size=fold.train.m)
                        noise = signs * (fold.seen - _fitted(fold.train, solution))
                        edge = max(edge, largest_penalty(fold.train, noise, generator) / fold.share)
                squares.append(fold.squares(solution))
            cut = budget.spent
            if not cut or not walk.errors:
                walk.record(squares, rank, edge)
            if cut or len(walk.errors) == bounds.iterations:
                walk.stop()
            if walk.errors[-1] == min(walk.errors):
                for fold in splits:
                    fold.best = fold.pair
            bar.update(task, advance=1, description=f"penalty by hold-out  error {walk.errors[-1]:.4g}  rank {rank}")
            if call is not None:
                record = {"iteration": len(walk.errors) - 1, "penalty": walk.penalties[-1]}
                call(record | {"error": walk.errors[-1], "rank": float(rank)})
    return walk.chosen(one_standard_error)


class _Walk:
    """The walk down the path of penalties: the next one, what was found at each, and when it is enough."""

    def __init__(self, largest: float, count: int) -> None:
        self.count, self.ratio, self.end = count, _END ** (1 / (count - 1)), 1.001 * largest * _END
        self.penalty, self.ended, self.stopped, self.edge = largest, False, False, 0.0
        self.penalties: list[float] = []
        self.errors: list[float] = []
        self.deviations: list[float] = []
        self.ranks: list[int] = []
        self.between: list[float] = []
        self.rounds = 0

    def record(self, squares: list[np.ndarray], rank: int, edge: float) -> None:
        """Take the squared errors of every fold at the present penalty, and move on or end."""
        pooled = np.concatenate(squares)
        sample = pooled if len(squares) == 1 else np.array([each.mean() for each in squares])
        error = float(np.sqrt(pooled.mean()))
        spread = float(np.std(sample, ddof=1) / np.sqrt(sample.size)) if sample.size > 1 else 0.0
        self.penalties.append(self.penalty)
        self.errors.append(error)
        self.deviations.append(spread / (2 * error) if error > 0 else 0.0)
        self.ranks.append(rank)
        self.edge = edge
        if self.ended:
            return
        self.ended = self._enough()
        step = self.ratio * self.penalty
        if step < edge:  # to the edge first, and on from there in smaller steps
            step = edge if self.penalty > _AT_EDGE * edge else self.ratio**_BELOW_EDGE * self.penalty
        self.penalty = step

    def stop(self) -> None:
        """End before the path is walked to its end."""
        self.ended = self.stopped = True

    def refined(self) -> bool:
        """Move to a penalty between the best and a neighbour; false where none is left that may be better."""
        penalties, errors, _, _ = self._sorted()
        best = int(np.argmin(errors))
        if self.stopped or errors[best] <= _NOISELESS * errors[0]:
            return False
        if not self.between and self.rounds < _REFINEMENTS and best < errors.size - 1:
            self.rounds += 1
            beside = [k for k in (best - 1, best + 1) if k >= 0 and errors[k] > _LEVEL * errors[best]]
            self.between = [float(np.sqrt(penalties[best] * penalties[k])) for k in beside]
        if not self.between:
            return False
        self.penalty = self.between.pop(0)
        return True

    def _sorted(self) -> list[np.ndarray]:
        """Penalties from the largest down, with errors, deviations and ranks."""
        order = np.argsort(-np.array(self.penalties), kind="stable")
        return [np.array(each)[order] for each in (self.penalties, self.errors, self.deviations, self.ranks)]

    def _enough(self) -> bool:
        errors, best = self.errors, min(self.errors)
        if errors[-1] <= _NOISELESS * errors[0] or len(errors) >= _EXTENSION * self.count:
            return True
        if len(errors) > 1 and errors[-1] < errors[-2]:  # it still falls, and ends only with the grid, where it hardly does
            return self.penalty <= self.end and errors[-1] > min(_FALLING * errors[-2], best)
        zero = self.ranks[int(np.argmin(errors))] == 0
        if self.penalty <= _AT_EDGE * self.edge and errors[-1] > best and not zero:
            return True
        clear = min(errors[-_PATIENCE:]) > (_SURELY if zero else _CLEARLY) * best
        return self.penalty <= self.end or (len(errors) > _PATIENCE and clear)

    def chosen(self, one_standard_error: bool) -> PenaltyPath:
        """The choice among what was tried."""
        penalties, errors, deviations, ranks = self._sorted()
        best = pick = int(np.argmin(errors))
        message = f"The error on data held out is least, {errors[best]:.4g}, at penalty {penalties[best]:.4g}."
        if best == 0:
            message += " It is the largest useful one: no matrix but zero, offsets apart, predicts what was held out."
        elif errors[best] <= _NOISELESS * errors[0]:
            message += " The data look free of noise: penalty 0, an exact fit, may do better."
        elif best == errors.size - 1:
            more = "more time" if self.stopped else "a larger count"
            message += f" It is the last one tried: a smaller one may do better, {more} tries more."
        if one_standard_error:
            pick = int(np.argmax(errors <= errors[best] + deviations[best]))
            message += f" Within one standard error, {deviations[best]:.2g}, the largest is {penalties[pick]:.4g}."
        return PenaltyPath(float(penalties[pick]), penalties, errors, deviations, ranks, message)


def _fitted(A: MeasurementMap, solution: Solution) -> np.ndarray:
    """The measurements of a solution, its offsets included."""
    L, R = solution.pair
    if solution.offsets is not None:
        mean, rows, cols = solution.offsets
        L, R = np.column_stack([L, rows + mean, np.ones(len(L))]), np.column_stack([R, np.ones(len(R)), cols])
    return A.forward_factored(L, R)
