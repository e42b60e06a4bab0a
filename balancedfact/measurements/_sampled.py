"""The entries of a factored matrix, without the matrix: the one loop of matrix completion that NumPy cannot vectorise."""

from __future__ import annotations

import numba
import numpy as np

# Below this many multiplications one core is done before a second could be woken, which competes with the BLAS for it.
_WORTH_TWO_CORES = 30_000_000


def _loop(L, R, rows, cols, out):  # type: ignore[no-untyped-def]
    for i in numba.prange(rows.size):
        r, c = rows[i], cols[i]
        total = 0.0
        for j in range(L.shape[1]):
            total += L[r, j] * R[c, j]
        out[i] = total


_one_core = numba.njit(fastmath=True, cache=True)(_loop)
_all_cores = numba.njit(parallel=True, fastmath=True, cache=True)(_loop)


def sampled_product(L: np.ndarray, R: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Return ``(L @ R.T)[rows, cols]`` in ``O(len(rows) * k)`` operations for factors of ``k`` columns."""
    if L.ndim != 2 or R.ndim != 2 or L.shape[1] != R.shape[1]:
        raise ValueError(f"L and R have shapes {L.shape} and {R.shape}; expected matrices with as many columns as each other")
    out = np.empty(rows.size)
    loop = _all_cores if rows.size * L.shape[1] > _WORTH_TWO_CORES else _one_core
    loop(np.ascontiguousarray(L), np.ascontiguousarray(R), rows, cols, out)
    return out
