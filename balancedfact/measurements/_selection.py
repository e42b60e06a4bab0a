"""Sparse matrices that keep, drop and weigh coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp


def selection(index: np.ndarray, weights: np.ndarray, size: int) -> sp.csr_array:
    """The sparse ``size x len(index)`` matrix with ``weights[j]`` at ``(index[j], j)``."""
    return sp.csr_array((weights, (index, np.arange(index.size))), shape=(size, index.size))


def single_entries(P: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """The column and the value of the only entry of each row of a sparse matrix, zero for an empty row.

    ``None`` if `P` is not sparse, has no columns, or more than one entry in a row.
    """
    if not sp.issparse(P) or P.shape[1] == 0:
        return None
    P = sp.csr_array(P)
    filled = np.diff(P.indptr)
    if filled.max() > 1:
        return None
    kind = np.int32 if P.shape[1] < 2**31 else np.int64
    columns, values = np.zeros(P.shape[0], dtype=kind), np.zeros(P.shape[0])
    columns[filled > 0], values[filled > 0] = P.indices, P.data
    return columns, values
