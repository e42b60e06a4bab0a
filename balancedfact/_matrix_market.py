"""Matrix Market files, read line by line: the format of matrices in text of Boisvert, Pozo and Remington (NIST, 1996)."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from balancedfact._memory import available_memory

_FIELDS = ("real", "integer", "double")
_SYMMETRIES = ("general", "symmetric", "skew-symmetric")
_VALUE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE | re.ASCII)
_INTEGER = re.compile(r"\d{1,18}", re.ASCII)
_LINES_AT_ONCE = 100_000  # lines


class Coordinates(NamedTuple):
    """The stored entries of a matrix, mirrored where the file is symmetric."""

    rows: np.ndarray
    cols: np.ndarray
    values: np.ndarray
    shape: tuple[int, int]


def read_matrix_market(path: Path) -> Coordinates | np.ndarray:
    """A coordinate file as its entries, an array file as a matrix.

    Every refusal is a ``ValueError`` that says what is wrong and in which line.
    """
    try:
        with path.open(encoding="ascii", errors="strict") as file:
            return _read(file, path.stat().st_size)
    except UnicodeDecodeError:
        raise ValueError("not a Matrix Market file (it is not text in ASCII)") from None
    except ValueError as error:
        raise ValueError(f"not a Matrix Market file ({error})") from None


def _read(file: TextIO, size: int) -> Coordinates | np.ndarray:
    banner = file.readline(1024).lower().split()
    if len(banner) != 5 or banner[0] not in ("%%matrixmarket", "%matrixmarket") or banner[1] != "matrix":
        raise ValueError("the first line is not '%%MatrixMarket matrix FORMAT FIELD SYMMETRY'")
    layout, field, symmetry = banner[2:]
    if layout not in ("coordinate", "array"):
        raise ValueError(f"the format is {layout!r}; expected coordinate or array")
    if field not in _FIELDS:
        raise ValueError(f"the entries are of the field {field!r}; expected real or integer")
    if symmetry not in _SYMMETRIES:
        raise ValueError(f"the symmetry is {symmetry!r}; expected general, symmetric or skew-symmetric")
    lines = _Lines(file)
    number, sizes = next(lines, (0, []))
    wanted = 3 if layout == "coordinate" else 2
    if len(sizes) != wanted or not all(map(_INTEGER.fullmatch, sizes)):
        raise ValueError(f"line {number} is {' '.join(sizes)[:60]!r}; expected {wanted} sizes")
    d1, d2, *rest = map(int, sizes)
    if symmetry != "general" and d1 != d2:
        raise ValueError(f"a {symmetry} matrix of {d1} x {d2}; expected a square one")
    count = rest[0] if rest else _stored(d1, d2, symmetry)
    # An entry takes two characters at least, a coordinate six.
    if count * (6 if rest else 2) > size + 2:
        raise ValueError(f"{count} entries are announced, more than a file of {size} bytes can hold")
    if rest:
        return _coordinates(lines, (d1, d2), count, symmetry)
    if 8.0 * d1 * d2 > available_memory() / 2:
        raise MemoryError(f"a matrix of {d1} x {d2}, and {available_memory() / 1e9:.3g} GB are free")
    return _array(lines, (d1, d2), count, symmetry)


class _Lines:
    """The numbered lines, split, without comments and blank ones."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.number = file, 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        for text in self.file:
            self.number += 1
            if text.strip() and not text.lstrip().startswith("%"):
                return self.number, text.split()
        raise StopIteration


def _stored(d1: int, d2: int, symmetry: str) -> int:
    if symmetry == "general":
        return d1 * d2
    return d1 * (d1 + 1) // 2 if symmetry == "symmetric" else d1 * (d1 - 1) // 2


def _number(text: str, line: int) -> float:
    if not _VALUE.fullmatch(text):
        raise ValueError(f"line {line} has the value {text[:40]!r}; expected a number")
    return float(text.replace("d", "e").replace("D", "e"))


def _coordinates(lines: _Lines, shape: tuple[int, int], count: int, symmetry: str) -> Coordinates:
    rows, cols, values = np.empty(count, np.intp), np.empty(count, np.intp), np.empty(count)
    at = 0
    while chunk := list(islice(lines, _LINES_AT_ONCE)):
        if at + len(chunk) > count:
            raise ValueError(f"line {chunk[count - at][0]} is entry number {count + 1}; {count} are announced")
        for line, cells in chunk:
            if len(cells) != 3:
                raise ValueError(f"line {line} has {len(cells)} fields; expected row, column and value")
            for cell, bound, name in ((cells[0], shape[0], "row"), (cells[1], shape[1], "column")):
                if not _INTEGER.fullmatch(cell) or not 1 <= int(cell) <= bound:
                    raise ValueError(f"line {line} has the {name} {cell[:40]!r}; expected 1 to {bound}")
            rows[at], cols[at], values[at] = int(cells[0]) - 1, int(cells[1]) - 1, _number(cells[2], line)
            at += 1
    if at < count:
        raise ValueError(f"the file has {at} entries; {count} are announced")
    if symmetry != "general":
        sign = 1.0 if symmetry == "symmetric" else -1.0
        off = rows != cols
        if sign < 0 and not off.all():
            raise ValueError("a skew-symmetric matrix with an entry on the diagonal; expected none")
        rows, cols = np.concatenate([rows, cols[off]]), np.concatenate([cols, rows[off]])
        values = np.concatenate([values, sign * values[off]])
    return Coordinates(rows, cols, values, shape)


def _array(lines: _Lines, shape: tuple[int, int], count: int, symmetry: str) -> np.ndarray:
    """Column by column; of a symmetric matrix the lower triangle."""
    values = np.empty(count)
    at = 0
    for line, cells in lines:
        for cell in cells:
            if at == count:
                raise ValueError(f"line {line} is value number {count + 1}; {count} are expected")
            values[at] = _number(cell, line)
            at += 1
    if at < count:
        raise ValueError(f"the file has {at} values; {count} are expected")
    if symmetry == "general":
        return values.reshape(shape, order="F")
    matrix = np.zeros(shape)
    columns, rows = np.triu_indices(shape[0], 0 if symmetry == "symmetric" else 1)
    matrix[rows, columns] = values
    matrix[columns, rows] = values if symmetry == "symmetric" else -values
    return matrix
