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

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from rich.progress import Progress
from scipy.sparse.linalg import aslinearoperator, svds

from balancedfact._validate import as_array, as_count, as_number, as_rng
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Solution, Status
from balancedfact.solvers._flat_minimum import flat_minimum
from balancedfact.solvers.nuclear._spectral_norm import as_dense, is_small
from balancedfact.solvers.nuclear._splitting import Splitting

# Beyond this many matrix entries only the factored algorithm serves.
MODERATE = Splitting.most_entries
# The path ends at this fraction of the largest useful penalty: beyond it the fit is as good as interpolation.
_END = 1e-4
# The error has risen clearly once this many penalties in a row are worse than the best by this factor.
_PATIENCE, _CLEARLY = 2, 1.01
# How near to the noise edge a path ends: the estimate falls a little with the structure that is left in the residual.
_AT_EDGE = 1.05


@dataclass(frozen=True, eq=False)
class PenaltyPath:
    """What `select_penalty` tried, in the order in which it was tried.

    Attributes
    ----------
    penalty : float
        The penalty of least error, for all measurements together.
    penalties : numpy.ndarray
        Every penalty tried, in the same units, descending. At the first the solution is zero, apart from offsets.
    errors : numpy.ndarray
        The root of the mean squared error on the measurements held out.
    """

    penalty: float
    penalties: np.ndarray
    errors: np.ndarray


def select_penalty(
    A: MeasurementMap,
    b: ArrayLike,
    *,
    fraction: float = 0.1,
    count: int = 12,
    offset_penalty: float | None = None,
    tol: float = 1e-4,
    rng: int | np.random.Generator | None = None,
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
        The part of the measurements to hold out.
    count : int
        The number of penalties on the path, which spans four decades. It ends early once the error has clearly risen.
    offset_penalty : float, optional
        Row and column offsets for all of the path, as in `flat_minimum`.
    tol : float
        The relative gap to which each point of the path is solved.
    rng : int or numpy.random.Generator, optional
        Randomness of the choice of measurements and of the solves.
    callback : callable, optional
        Called after every penalty with ``{"iteration", "penalty", "error"}``.
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

    Notes
    -----
    Where the matrix is so large that only the factored algorithm serves (more than four million entries), the path ends at the
    noise edge: below it the rank explodes, and the error seldom falls.

    A matrix entry whose row or column lost all its measurements is predicted as zero at every penalty. That adds the same
    amount to all errors and leaves the choice as it is.

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
    data = as_array(b, "b", shape=(A.m,))
    as_number(fraction, "fraction", above=0.0, most=0.9)
    as_count(count, "count", least=2)
    as_number(tol, "tol", above=0.0)
    if offset_penalty is not None:
        as_number(offset_penalty, "offset_penalty", above=0.0)
    generator = as_rng(rng)
    if A.m < 2:
        raise ValueError(f"A has {A.m} measurement; expected at least 2, one of them to be held out")
    order = generator.permutation(A.m)
    held = max(1, round(fraction * A.m))
    train, test = A.select(np.sort(order[held:])), A.select(np.sort(order[:held]))
    seen, hidden = data[np.sort(order[held:])], data[np.sort(order[:held])]
    largest = largest_penalty(train, seen if offset_penalty is None else seen - seen.mean(), generator)
    if largest == 0:
        raise ValueError("b is zero, or A is: every penalty gives the zero matrix; expected data that are not all zero")

    path = largest * np.geomspace(1.0, _END, count)
    edge = 0.0
    errors: list[float] = []
    pair: tuple[np.ndarray, np.ndarray] | None = None
    console = Console(stderr=True)
    shown = progress if progress is not None else sys.stderr.isatty()
    with Progress(console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task("penalty by hold-out", total=count)
        for k in range(count):
            path[k] = max(path[k], edge)
            if k == 0 and offset_penalty is None:
                errors.append(float(np.sqrt(np.mean(hidden**2))))  # the solution is zero
            else:
                solution = flat_minimum(
                    *(train, seen),
                    penalty=path[k],
                    offset_penalty=offset_penalty,
                    tol=tol,
                    rng=generator,
                    initial=pair,
                    progress=False,
                )
                if solution.status is Status.INTERRUPTED:
                    raise KeyboardInterrupt
                pair = solution.pair if solution.pair[0].any() else None
                errors.append(float(np.sqrt(np.mean((_fitted(test, solution) - hidden) ** 2))))
                if train.shape[1] > MODERATE:
                    signs = generator.choice([-1.0, 1.0], size=train.m)
                    edge = largest_penalty(train, signs * (seen - _fitted(train, solution)), generator)
            bar.advance(task)
            if callback is not None:
                callback({"iteration": k, "penalty": path[k] * A.m / train.m, "error": errors[-1]})
            if path[k] <= _AT_EDGE * edge or (len(errors) > _PATIENCE and min(errors[-_PATIENCE:]) > _CLEARLY * min(errors)):
                break
    penalties = path[: len(errors)] * A.m / train.m
    return PenaltyPath(float(penalties[np.argmin(errors)]), penalties, np.array(errors))


def _fitted(A: MeasurementMap, solution: Solution) -> np.ndarray:
    """The measurements of a solution, its offsets included."""
    L, R = solution.pair
    if solution.offsets is not None:
        mean, rows, cols = solution.offsets
        L, R = np.column_stack([L, rows + mean, np.ones(len(L))]), np.column_stack([R, np.ones(len(R)), cols])
    return A.forward_factored(L, R)


def largest_penalty(A: MeasurementMap, b: np.ndarray, rng: np.random.Generator) -> float:
    r"""The least penalty at which zero is a solution, :math:`\|D_1^{-1} \mathcal A^*(b) D_2^{-1}\|`."""
    # In whitened coordinates A(X) = scale * map(Z) and D1 X D2 = scale**2 * Z.
    white = A.whitened()
    S = white.map.adjoint_for_many(b)
    if is_small(white.map.matrix_shape):
        norm = float(np.linalg.norm(as_dense(S), 2))
    elif not b.any():
        norm = 0.0
    else:
        start = rng.standard_normal(min(white.map.matrix_shape))
        norm = float(svds(aslinearoperator(S), k=1, v0=start, tol=1e-4, return_singular_vectors=False)[0])
    return norm / white.scale
