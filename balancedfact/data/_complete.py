"""Completion in one call: what is given comes back filled in."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import scipy.sparse as sp

from balancedfact._validate import as_flag, as_number, as_rng
from balancedfact.data._frames import library
from balancedfact.measurements import Entries
from balancedfact.solution import Solution
from balancedfact.solvers import flat_minimum, select_penalty
from balancedfact.solvers.iteration._limits import Budget, Limits, as_limits
from balancedfact.solvers.iteration._log import interrupts_pass


def complete(
    M: Any,
    penalty: float | str = "auto",
    *,
    offset_penalty: float | None = None,
    max_rank: int | None = None,
    tol: float = 1e-6,
    rng: int | np.random.Generator | None = None,
    limits: Limits | None = None,
    return_solution: bool = False,
) -> Any:
    r"""Fill in the missing entries of a matrix by the flattest factorization.

    What was seen stays as it is. The rest is taken from the solution of `flat_minimum`: the matrix :math:`X`, with an
    `offset_penalty` :math:`X + \mu + \alpha 1^\top + 1\beta^\top`.

    Parameters
    ----------
    M : array_like, masked array, sparse matrix or data frame, shape (d1, d2)
        ``nan``, masked, not stored or null where nothing was seen. A data frame (pandas or polars) is a matrix with one column
        to a variable, all numbers.
    penalty : float or "auto"
        Weight of flatness against the fit; ``"auto"`` chooses it by hold-out, 0 takes the data to be exact.
    offset_penalty : float, optional
        Weight of the squares of row and column offsets; needs a penalty.
    max_rank : int, optional
        Largest rank allowed.
    tol : float
        Relative gap between value and lower bound at which to stop.
    rng : int or numpy.random.Generator, optional
        Randomness of the hold-out and of starting vectors.
    limits : Limits, optional
        As in `flat_minimum`; its time is shared with the choice of the penalty.
    return_solution : bool
        Return the `Solution` with its certificate too.

    Returns
    -------
    completed
        Of the kind of `M`: an array, a masked array without mask, a sparse matrix of the same format with every entry stored,
        or a data frame with the same names.
    solution : Solution
        With `return_solution`.

    Raises
    ------
    ValueError
        If `M` is none of these, no entry was seen, or another argument is malformed, such as offsets without a penalty.
    KeyboardInterrupt
        If the user stops the solve and did not ask for the `Solution`, whose status would say so.

    See Also
    --------
    flat_minimum : The solver behind it.
    balancedfact.solvers.select_penalty : How ``penalty="auto"`` chooses.
    balancedfact.estimators.FlatImputer : The same for scikit-learn.

    References
    ----------
    Guide :doc:`/guide/tables`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> M = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    >>> M[2, 1] = np.nan
    >>> bf.complete(M, penalty=0.0).round(3)[2]
    array([3., 6., 9.])
    """
    as_flag(return_solution, "return_solution")
    generator, bounds = as_rng(rng), as_limits(limits)
    budget = Budget(bounds.seconds)
    kind = library(M)
    if kind is not None:
        A, b = Entries.from_array(M.to_numpy())
    elif sp.issparse(M):
        A, b = Entries.from_sparse(M)
    else:
        A, b = Entries.from_array(M)
    if isinstance(penalty, str):
        if penalty != "auto":
            raise ValueError(f"penalty is {penalty!r}; expected a number or 'auto'")
        penalty = select_penalty(A, b, offset_penalty=offset_penalty, rng=generator, limits=budget.rest(0.8)).penalty
    with nullcontext() if return_solution else interrupts_pass():
        solution = flat_minimum(
            *(A, b),
            penalty=as_number(penalty, "penalty", least=0.0),
            offset_penalty=offset_penalty,
            max_rank=max_rank,
            tol=tol,
            rng=rng,
            limits=Limits(budget.rest().seconds, bounds.iterations),
        )
    if kind == "pandas":
        solution = solution.with_labels(None, [str(name) for name in M.columns])
    filled = _filled(solution, A, b)
    completed: Any = filled
    if kind == "pandas":
        completed = type(M)(filled, index=M.index, columns=M.columns)
    elif kind == "polars":
        completed = type(M)(filled, schema=M.columns)
    elif sp.issparse(M):
        rows, cols = np.indices(filled.shape).reshape(2, -1)
        completed = sp.coo_array((filled.ravel(), (rows, cols)), shape=filled.shape).asformat(M.format)
    elif isinstance(M, np.ma.MaskedArray):
        completed = np.ma.masked_array(filled)
    return (completed, solution) if return_solution else completed


def _filled(solution: Solution, A: Entries, b: np.ndarray) -> np.ndarray:
    full = solution.matrix
    if solution.offsets is not None:
        mean, rows, cols = solution.offsets
        full = full + (mean + rows[:, None] + cols)
    full[A.rows, A.cols] = b
    return full
