"""The sparse matrix of given entries as an operator."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator

if TYPE_CHECKING:
    from balancedfact.measurements._sampled import Layout


class SparseOperator(LinearOperator):
    """The matrix of given `Entries` as an operator that is fast on both sides, on all cores."""

    def __init__(self, entries: Any, data: np.ndarray, *, transposed: bool = False) -> None:
        super().__init__(np.dtype(float), entries.matrix_shape[::-1] if transposed else entries.matrix_shape)
        self._entries, self._data, self._is_transposed = entries, data, transposed

    @cached_property
    def _own(self) -> tuple[Layout, np.ndarray]:
        if not self._is_transposed:
            return self._entries._layout, self._data
        return self._entries._transposed_layout, self._entries._by_columns(self._data)

    @cached_property
    def _other(self) -> SparseOperator:
        return SparseOperator(self._entries, self._data, transposed=not self._is_transposed)

    def column_counts(self) -> np.ndarray:
        """The number of stored entries of each column."""
        of_entries = self._entries
        layout = of_entries._layout if self._is_transposed else of_entries._transposed_layout
        return np.diff(layout.pointers).astype(float)

    def to_sparse(self) -> sp.csr_array:
        """The matrix itself, with what is measured several times stored several times."""
        layout, data = self._own
        return sp.csr_array((data, layout.indices, layout.pointers), shape=self.shape)

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        layout, data = self._own
        return layout.times(data, X)

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(np.ravel(x))

    def _rmatmat(self, X: np.ndarray) -> np.ndarray:
        return self._other._matmat(X)

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._other._matvec(x)

    def _transpose(self) -> SparseOperator:
        return self._other

    _adjoint = _transpose
