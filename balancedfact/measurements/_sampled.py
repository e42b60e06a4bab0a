"""The entries of a factored matrix, without the matrix: the one loop of matrix completion that NumPy cannot vectorise."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(parallel=True, fastmath=True, cache=True)
def _sampled_product(L, R, rows, cols, out):  # type: ignore[no-untyped-def]
    for i in numba.prange(rows.size):
        r, c = rows[i], cols[i]
        total = 0.0
        for j in range(L.shape[1]):
            total += L[r, j] * R[c, j]
        out[i] = total


def sampled_product(L: np.ndarray, R: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Return ``(L @ R.T)[rows, cols]`` in ``O(len(rows) * k)`` operations for factors of ``k`` columns."""
    if L.ndim != 2 or R.ndim != 2 or L.shape[1] != R.shape[1]:
        raise ValueError(f"L and R have shapes {L.shape} and {R.shape}; expected matrices with as many columns as each other")
    out = np.empty(rows.size)
    _sampled_product(np.ascontiguousarray(L), np.ascontiguousarray(R), rows, cols, out)
    return out
