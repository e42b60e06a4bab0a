"""The last touches on a solution: names, how new rows are fitted, and the precision of the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._precision import digits
from balancedfact._validate import as_array
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import RowFit, Solution, Status
from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.nuclear._noise_edge import largest_penalty

_MARGIN = 1.1  # by which a penalty is above what random rounding asks for


def finished(
    solution: Solution, A: MeasurementMap, b: ArrayLike, *, flat: bool, penalty: float, offset_penalty: float | None
) -> Solution:
    """The solution of a checked problem with labels, row fit and precision."""
    log = Log(progress=False)
    touched = log.insist(_touched, solution, A, b, flat, penalty, offset_penalty)
    return touched if log.ended is None else replace(touched, status=log.ended[0], message=log.ended[1])


def _touched(
    solution: Solution, A: MeasurementMap, b: ArrayLike, flat: bool, penalty: float, offset_penalty: float | None
) -> Solution:
    fit = None
    if A.of_entries:
        per_seen = penalty / (A.m * A.matrix_shape[1]) if flat else 0.0
        fit = RowFit(0.0 if flat else penalty, per_seen, np.inf if offset_penalty is None else offset_penalty)
    labels = A.labels
    solution = replace(solution, row_labels=labels[0], col_labels=labels[1], row_fit=fit)
    data = as_array(b, "b")
    found = digits(data)
    if found is None:
        return solution
    solution = replace(solution, precision=10.0**-found)
    if penalty > 0 or solution.status is Status.INFEASIBLE:
        return solution
    rounding = 0.5 * 10.0 ** (np.floor(np.log10(np.abs(data).max())) + 1 - found)
    rng = np.random.default_rng(0)
    edge = _MARGIN * largest_penalty(A, rng.uniform(-rounding, rounding, A.m), rng, flat=flat)
    return replace(
        solution,
        message=f"{solution.message} The precision of the data is about {found} digits: an exact fit takes up their rounding, "
        f"which a penalty of about {edge:.2g} leaves out.",
    )
