"""The orders in which measured entries are gone through: as they were given, row by row, and column by column."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from balancedfact.measurements._base import SingleEntries

if TYPE_CHECKING:
    from balancedfact.measurements._sampled import Layout


class OrderedEntries(SingleEntries):
    """Entries with their layouts in memory, which are made when they are first used."""

    @cached_property
    def _layout(self) -> Layout:
        from balancedfact.measurements._sampled import Layout  # numba is imported only where it is used

        return Layout.of(self.rows, self.cols, self.matrix_shape)

    @cached_property
    def _transposed_layout(self) -> Layout:
        return self._layout.transposed(self.matrix_shape[1])

    @property
    def best_order(self) -> np.ndarray | slice:
        """Row by row: both the data and one of the factors are then read in the order in which they lie in memory."""
        if "_layout" in vars(self):
            return self._layout.order
        from balancedfact.measurements._sampled import Layout

        return Layout.of(self.rows, self.cols, self.matrix_shape).order  # whoever asks for it hardly needs the rest

    @property
    def codes(self) -> np.ndarray:  # type: ignore[override]
        """The number of the entry of every measurement, row by row."""
        code = np.multiply(self.rows, self.matrix_shape[1], dtype=np.int64)
        code += self.cols
        return code

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[override]
        """The first measurement of every entry that is measured, and for every measurement the number of its entry."""
        code = self.codes
        if np.all(np.diff(code) > 0):
            return np.arange(self.m), np.arange(self.m)
        _, first, group = np.unique(code, return_index=True, return_inverse=True)
        return first, group

    def _sorted(self, y: np.ndarray) -> np.ndarray:
        from balancedfact.measurements._sampled import gathered

        order = self._layout.order
        return y if isinstance(order, slice) else gathered(y, order)

    def _by_columns(self, sorted_by_row: np.ndarray) -> np.ndarray:
        from balancedfact.measurements._sampled import gathered

        order = self._transposed_layout.order
        assert isinstance(order, np.ndarray)
        return gathered(sorted_by_row, order)

    @cached_property
    def _sorted_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """The weights, sorted by row and sorted by column."""
        weights = self._sorted(self.weights if self.weights.flags.writeable else self.weights.copy())
        return weights, self._by_columns(weights)
