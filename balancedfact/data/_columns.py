"""The columns of a table: what their cells are, before anything is decided about what they mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "<na>", "nat"})
_NUMBER = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf|infinity)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"([+-]?(?:0|[1-9][0-9]*))(?:\.0*)?")
_EXACT_INTEGERS = 2.0**53  # integers up to here are exact in float64


def is_missing(cell: str) -> bool:
    """Tell whether the cell says that there is nothing in it."""
    return cell.lower() in _MISSING


def is_text(cell: str, *, comma: bool = False) -> bool:
    """Tell whether the cell is neither missing nor a number; `comma` allows a decimal comma."""
    return not (is_missing(cell) or _NUMBER.fullmatch(cell) or (comma and _DECIMAL_COMMA.fullmatch(cell)))


def whole(cell: str) -> int | None:
    """The integer that the cell is, ``4.0`` and ``4e8`` included; ``None`` for anything else and for leading zeros."""
    plain = _WHOLE.fullmatch(cell)
    if plain:
        return int(plain[1])
    if "e" in cell.lower() and _NUMBER.fullmatch(cell):
        value = float(cell)
        if value.is_integer() and abs(value) < _EXACT_INTEGERS:
            return int(value)
    return None


def counts(values: Sequence[int] | np.ndarray | None) -> bool:
    """Tell whether integers rise by one."""
    return values is not None and len(values) > 1 and all(b - a == 1 for a, b in pairwise(values))


class Column:
    """One column without its header: texts as they stand in a file, or numbers that a library has parsed."""

    def __init__(self, cells: list[str] | np.ndarray, *, comma: bool = False) -> None:
        self.cells, self.comma = cells, comma

    def __len__(self) -> int:
        return len(self.cells)

    @cached_property
    def missing(self) -> np.ndarray:
        """Tell which cells are missing."""
        if isinstance(self.cells, np.ndarray):
            return np.isnan(self.cells) if self.cells.dtype.kind == "f" else np.zeros(len(self.cells), bool)
        return np.fromiter(map(is_missing, self.cells), bool, len(self.cells))

    @cached_property
    def first_text(self) -> int | None:
        """The first cell that is neither a number nor missing."""
        if isinstance(self.cells, np.ndarray):
            return None
        return next((k for k, cell in enumerate(self.cells) if is_text(cell, comma=self.comma)), None)

    @property
    def is_text(self) -> bool:
        """Tell whether there is text in the column."""
        return self.first_text is not None

    @cached_property
    def integers(self) -> np.ndarray | None:
        """The integers that the cells are, as an array (of Python integers where they are large); ``None`` if one is not."""
        if isinstance(self.cells, np.ndarray):
            if self.cells.dtype.kind in "iu":
                return self.cells
            exact = np.all(np.abs(self.cells) < _EXACT_INTEGERS)  # false for nan
            if not exact or np.any(self.cells != np.floor(self.cells)):
                return None
            return self.cells.astype(np.int64)
        found = []
        for cell in self.cells:
            value = whole(cell)
            if value is None:
                return None
            found.append(value)
        try:
            return np.array(found, dtype=np.int64)
        except OverflowError:
            return np.array(found, dtype=object)

    @cached_property
    def names(self) -> list[str]:
        """The cells as labels: integers in one way of writing, other cells as they stand."""
        if self.integers is not None:
            return list(map(str, self.integers.tolist()))
        return list(map(str, self.cells.tolist())) if isinstance(self.cells, np.ndarray) else self.cells

    @property
    def can_name(self) -> bool:
        """Tell whether the column can name rows or columns: nothing missing, and all integers or some of it text."""
        return not self.missing.any() and (self.integers is not None or self.is_text)

    def number(self, k: int) -> float:
        """Cell `k` as a number, ``nan`` where it is missing; text is a ``ValueError``."""
        cell = self.cells[k]
        if not isinstance(cell, str):
            return float(cell)
        if is_missing(cell):
            return np.nan
        if is_text(cell, comma=self.comma):
            raise ValueError("expected a number, or nan, NA or nothing where it is missing")
        return float(cell.replace(",", ".") if self.comma else cell)

    @cached_property
    def numbers(self) -> np.ndarray:
        """The column as float64, ``nan`` where a cell is missing; there must be no text in it."""
        if isinstance(self.cells, np.ndarray):
            return self.cells.astype(np.float64)
        return np.fromiter(map(self.number, range(len(self.cells))), float, len(self.cells))
