"""Gradients of the loss of a few measurements, drawn with replacement, without building a map for each batch."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import DTypeLike

from balancedfact.measurements import MeasurementMap

# batch_gradient(E, index, shift, weight, out): with the residuals r = A_index(E) - shift, write weight * A_index^*(r) into
# `out` and return the sum of the squares of r.
BatchGradient = Callable[[np.ndarray, np.ndarray, np.ndarray, float, np.ndarray], float]


def batch_gradient(A: MeasurementMap, dtype: DTypeLike) -> BatchGradient:
    """The cheapest form of the gradient of a batch for the structure of `A`."""
    if A.stored_stack is not None:
        rows = np.ascontiguousarray(A.stored_stack.reshape(A.m, -1), dtype=dtype)
        return lambda E, index, shift, weight, out: _dense(rows, E.ravel(), index, shift, rows.dtype.type(weight), out.ravel())
    if A.vectors is not None:
        left, right = A.vectors
        return _rank_one(left.astype(dtype), right.astype(dtype))
    if A.of_entries:
        entries = A.as_entries()
        return _entries(entries.rows, entries.cols, entries.weights.astype(dtype))
    return _any(A)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _dense(rows, E, index, shift, weight, out):  # type: ignore[no-untyped-def]
    """Each row is read from memory once: its part of the gradient is added while it is still at hand."""
    out[:] = 0
    total = 0.0
    for q in range(index.size):
        row = rows[index[q]]
        inner = -shift[q]
        for j in range(E.size):
            inner += row[j] * E[j]
        total += inner * inner
        inner *= weight
        for j in range(E.size):
            out[j] += inner * row[j]
    return total


def _rank_one(left: np.ndarray, right: np.ndarray) -> BatchGradient:
    def gradient(E: np.ndarray, index: np.ndarray, shift: np.ndarray, weight: float, out: np.ndarray) -> float:
        u, v = left[index], right[index]
        residual = np.einsum("ij,ij->i", u @ E, v) - shift
        np.matmul(u.T * (weight * residual), v, out=out)
        return float(residual @ residual)

    return gradient


def _entries(rows: np.ndarray, cols: np.ndarray, weights: np.ndarray) -> BatchGradient:
    def gradient(E: np.ndarray, index: np.ndarray, shift: np.ndarray, weight: float, out: np.ndarray) -> float:
        i, j, scale = rows[index], cols[index], weights[index]
        residual = scale * E[i, j] - shift
        out[:] = 0
        np.add.at(out, (i, j), weight * scale * residual)
        return float(residual @ residual)

    return gradient


def _any(A: MeasurementMap) -> BatchGradient:
    def gradient(E: np.ndarray, index: np.ndarray, shift: np.ndarray, weight: float, out: np.ndarray) -> float:
        batch = A.select(index)
        residual = batch.forward(E) - shift
        out[:] = batch.adjoint_matrix(weight * residual)
        return float(residual @ residual)

    return gradient
