"""Solutions of zero layers: of a search that was stopped before it had a point, and of two layers as of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from balancedfact.solution import Certificate, Solution
from balancedfact.solvers.iteration._log import Log


def nothing(widths: Sequence[int], log: Log, method: str) -> Solution:
    """Zero layers of these widths, which attain nothing: their value is infinite and the relative residual one."""
    assert log.ended is not None
    layers = [np.zeros((rows, columns)) for rows, columns in zip(widths[1:], widths[:-1], strict=True)]
    return Solution(layers, np.inf, *log.ended, Certificate(1.0, proof="nothing was found"), log.history, method)


def as_deep(solution: Solution, depth: int) -> Solution:
    """A solution by two zero layers as one by `depth` of them."""
    first, last = solution.layers
    return replace(solution, layers=[first, *(np.zeros((1, 1)) for _ in range(depth - 2)), last])
