"""Text files of numbers: triplets and matrices with missing values, with or without header and labels."""

from __future__ import annotations

import csv
import re
import warnings
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

_MISSING = frozenset({"", "nan", "na", "n/a", "null"})
_TRIPLET_HEADERS = frozenset({("row", "column", "value"), ("row", "col", "value"), ("i", "j", "value")})
_INTEGER = re.compile(r"[0-9]+")


class Triplets(NamedTuple):
    """Observed entries. Labels are ``None`` where the file has integer indices."""

    rows: np.ndarray
    cols: np.ndarray
    values: np.ndarray
    row_labels: list[str] | None
    col_labels: list[str] | None


class Grid(NamedTuple):
    """A matrix, ``nan`` where a cell is missing. Labels are ``None`` where the file has none."""

    matrix: np.ndarray
    row_labels: list[str] | None
    col_labels: list[str] | None


class _Line(NamedTuple):
    number: int
    cells: list[str]


def read_table(path: Path) -> Triplets | Grid:
    """Read a text table; every refusal is a ``ValueError`` that names the line. `io.read_problem` documents the rules."""
    comma = path.suffix.lower() == ".csv"
    if comma:
        fast = _integer_triplets(path)
        if fast is not None:
            return fast
    lines = _split(path)
    if not lines:
        raise ValueError("the file holds no data")
    width = len(lines[0].cells)
    for line in lines:
        if len(line.cells) != width:
            raise ValueError(
                f"line {line.number} has {len(line.cells)} fields; expected {width}, as line {lines[0].number} has"
            )
    if width == 3 and tuple(cell.lower() for cell in lines[0].cells) in _TRIPLET_HEADERS:
        return _triplets(lines[1:])
    if comma and width == 3:
        body = lines[1:] if _is_text(lines[0].cells[2]) else lines
        if body and all(_names_things([line.cells[k] for line in body]) for k in (0, 1)):
            return _triplets(body)
    return _grid(lines)


def _split(path: Path) -> list[_Line]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if "\0" in file.read(1024):
                raise ValueError("the file is not UTF-8 text, it holds zero bytes")
            file.seek(0)
            delimiter = _delimiter(path.suffix.lower(), file)
            if delimiter is None:
                lines = [_Line(number, text.split()) for number, text in enumerate(file, start=1)]
            else:
                reader = csv.reader(file, delimiter=delimiter)
                lines = [_Line(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"the file is not a text table ({error})") from None
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None
    return [line for line in lines if line.cells not in ([], [""]) and not line.cells[0].startswith("#")]


def _delimiter(suffix: str, file: TextIO) -> str | None:
    """The separator of the fields, ``None`` for white space."""
    if suffix != ".txt":
        return "," if suffix == ".csv" else "\t"
    first = next((text for text in file if text.strip() and not text.lstrip().startswith("#")), "")
    file.seek(0)
    return next((separator for separator in ",\t" if separator in first), None)


def _integer_triplets(path: Path) -> Triplets | None:
    """Triplets of integer indices through NumPy's compiled reader, or ``None`` for any file that is not plainly that."""
    triplet = np.dtype([("row", np.int64), ("col", np.int64), ("value", np.float64)])
    with path.open(encoding="utf-8-sig", newline="") as file, warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            header = _is_text(file.readline().rpartition(",")[2].strip())
            file.seek(0)
            table = np.loadtxt(file, dtype=triplet, delimiter=",", comments=None, skiprows=int(header), ndmin=1)
        except (ValueError, Warning):  # the general reader finds out what the file is, or what is wrong with it
            return None
    if table.size == 0 or table["row"].min() < 0 or table["col"].min() < 0 or not np.isfinite(table["value"]).all():
        return None
    return Triplets(table["row"].copy(), table["col"].copy(), table["value"].copy(), None, None)


def _is_missing(cell: str) -> bool:
    return cell.lower() in _MISSING


def _is_text(cell: str) -> bool:
    """Whether the cell is neither missing nor a number."""
    if _is_missing(cell):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _names_things(column: list[str]) -> bool:
    """Whether a column can name rows or columns: none missing, and all zero-based integers or at least one of them text."""
    if any(_is_missing(cell) for cell in column):
        return False
    return all(_INTEGER.fullmatch(cell) for cell in column) or any(_is_text(cell) for cell in column)


def _triplets(lines: list[_Line]) -> Triplets:
    if not lines:
        raise ValueError("the file has a header and no entries; expected lines row,column,value")
    values = np.array([_number(line, 2) for line in lines])
    missing = np.flatnonzero(np.isnan(values))
    if missing.size:
        line = lines[missing[0]]
        raise ValueError(
            f"line {line.number} has the value {line.cells[2]!r}; expected a number in every row,column,value "
            "(a matrix of three columns can be read from .tsv, .txt or .npy)"
        )
    (rows, row_labels), (cols, col_labels) = _indices(lines, 0), _indices(lines, 1)
    return Triplets(rows, cols, values, row_labels, col_labels)


def _indices(lines: list[_Line], k: int) -> tuple[np.ndarray, list[str] | None]:
    """Column `k` as zero-based indices, and the labels in order of first appearance if it is not made of integers."""
    column, what = [line.cells[k] for line in lines], ("row", "column")[k]
    for line, cell in zip(lines, column, strict=True):
        if _is_missing(cell):
            raise ValueError(f"line {line.number} has no {what}; expected a zero-based index or a label")
    if any(_is_text(cell) for cell in column):
        places: dict[str, int] = {}
        return np.array([places.setdefault(cell, len(places)) for cell in column]), list(places)
    for line, cell in zip(lines, column, strict=True):
        if not _INTEGER.fullmatch(cell) or int(cell) > np.iinfo(np.intp).max:
            raise ValueError(f"line {line.number} has the {what} {cell!r}; expected a zero-based integer index or a label")
    return np.array([int(cell) for cell in column], dtype=np.intp), None


def _number(line: _Line, k: int) -> float:
    cell = line.cells[k]
    if _is_missing(cell):
        return np.nan
    try:
        return float(cell)
    except ValueError:
        raise ValueError(
            f"line {line.number} has {cell!r} in field {k + 1}; expected a number, or nan, NA or nothing where it is missing"
        ) from None


def _grid(lines: list[_Line]) -> Grid:
    header = _has_header(lines)
    body = lines[1:] if header else lines
    if not body:
        raise ValueError("the file has a header and no rows of numbers")
    labelled = any(_is_text(line.cells[0]) for line in body) or (header and lines[0].cells[0] == "")
    first = int(labelled)
    if len(lines[0].cells) == first:
        raise ValueError("the file is one column of text; expected fields with numbers (.csv: separated by commas)")
    matrix = np.array([[_number(line, k) for k in range(first, len(line.cells))] for line in body])
    row_labels = [line.cells[0] for line in body] if labelled else None
    return Grid(matrix, row_labels, lines[0].cells[first:] if header else None)


def _has_header(lines: list[_Line]) -> bool:
    corner, *rest = lines[0].cells
    body = [line.cells[0] for line in lines[1:]]
    if not _is_text(corner) and corner != "":
        return False
    if any(_is_text(cell) for cell in rest):
        return True
    if not body:
        return False
    labelled = any(_is_text(cell) for cell in body)
    if corner and not labelled:
        return True
    # Numbered columns and years: data-frame libraries write them as bare integers after an empty or named corner.
    if labelled:
        return len(rest) > 1 and _counts(rest)
    return all(_counts(cells) and cells[0] == "0" for cells in (rest, body))


def _counts(cells: list[str]) -> bool:
    """Whether the cells are integers that rise by one."""
    return all(_INTEGER.fullmatch(cell) for cell in cells) and all(int(b) == int(a) + 1 for a, b in pairwise(cells))
