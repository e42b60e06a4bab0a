"""Names of rows and columns: from any kind of identifier to positions without gaps."""

from __future__ import annotations

import numpy as np

from balancedfact._labels import numbered
from balancedfact.data._columns import Column


def compact(column: Column) -> tuple[np.ndarray, list[str] | None, str]:
    """Positions of identifiers of any size, their labels, and what was found, in words.

    There are no labels where the identifiers are positions already: ``0, 1, ...`` without a gap.
    """
    integers = column.integers
    at, labels = numbered(column.names if integers is None else integers)
    size = len(labels)
    if integers is None:
        return at, labels, f"{size}: {labels[0]} ... {labels[-1]}" if size > 1 else f"1: {labels[0]}"
    least, most = int(labels[0]), int(labels[-1])
    dense = most - least == size - 1
    if dense and least == 0:
        return at, None, f"{size}, counted from 0"
    return at, labels, f"{size}, counted from 1" if dense and least == 1 else f"{size}: {least} to {most}"
