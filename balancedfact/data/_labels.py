"""Names of rows and columns: from any kind of identifier to positions without gaps, and back."""

from __future__ import annotations

import numpy as np

from balancedfact.data._columns import Column


def compact(column: Column) -> tuple[np.ndarray, list[str] | None, str]:
    """Positions ``0, 1, ...`` of identifiers of any size, their labels, and what was found, in words.

    Integers are numbered as they rise, texts in order of first appearance. There are no labels where the identifiers are
    positions already: ``0, 1, ...`` without a gap.
    """
    integers = column.integers
    if integers is None:
        places: dict[str, int] = {}
        at = np.fromiter((places.setdefault(name, len(places)) for name in column.names), np.intp, len(column))
        labels = list(places)
        return at, labels, f"{len(labels)}: {labels[0]} ... {labels[-1]}" if len(labels) > 1 else f"1: {labels[0]}"
    distinct, at = np.unique(integers, return_inverse=True)
    least, most, size = int(distinct[0]), int(distinct[-1]), distinct.size
    at = at.astype(np.intp, copy=False).ravel()
    dense = most - least == size - 1
    if dense and least == 0:
        return at, None, f"{size}, counted from 0"
    return (
        at,
        list(map(str, distinct.tolist())),
        f"{size}, counted from 1" if dense and least == 1 else f"{size}: {least} to {most}",
    )
