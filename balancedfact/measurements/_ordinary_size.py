"""Measurements divided by a power of two, so that constants of a search mean the same at every scale of the map."""

from __future__ import annotations

import numpy as np

from balancedfact._linalg import frobenius
from balancedfact.measurements._base import MeasurementMap


def of_ordinary_size(A: MeasurementMap) -> tuple[MeasurementMap, float]:
    """The map divided by a power of two that brings its entries, or the weights of single entries, to about 1; that power.

    No digit is lost: twice the map is the same map, and another power.
    """
    norms = A.row_norms
    size = float(np.max(norms)) if A.of_entries else frobenius(norms) / float(np.sqrt(A.m * A.shape[1]))
    if not 0 < size < np.inf:
        return A, 1.0
    power = float(np.ldexp(1.0, round(float(np.log2(size)))))
    if power == 1.0 or not np.isfinite(1 / power):
        return A, 1.0
    return A.select(np.arange(A.m), np.full(A.m, 1 / power)), power
