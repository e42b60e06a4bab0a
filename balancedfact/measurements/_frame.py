"""Columns of data frames, of any library that gives them by name, and the identifiers in them."""

from __future__ import annotations

from typing import Any

import numpy as np

from balancedfact._labels import numbered


def column_of(frame: Any, argument: str, name: str) -> np.ndarray:
    """A column of a data frame of any library, by its name."""
    try:
        return np.asarray(frame[name])
    except Exception as error:  # each library has its own for a name that is not there
        raise ValueError(f"{argument} is {name!r}; expected the name of a column of the frame") from error


def identified(column: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    """Positions and labels of the identifiers in a column of a data frame."""
    missing = sum(cell is None or cell != cell or type(cell).__name__ in ("NAType", "NaTType") for cell in column.tolist())
    if missing:
        raise ValueError(f"{name} has {missing} missing cells; expected an identifier in each")
    if column.dtype.kind == "f" and np.all(np.floor(column) == column) and np.all(np.abs(column) < 2**53):
        column = column.astype(np.int64)
    return numbered(column if column.dtype.kind in "iu" else [str(cell) for cell in column.tolist()])
