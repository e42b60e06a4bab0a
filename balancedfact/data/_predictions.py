"""Predictions as tables: pairs in, values out, with what is known of them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from balancedfact._validate import as_count
from balancedfact.data._roles import role
from balancedfact.data._text import TextTable, read_text
from balancedfact.solution import Solution


class Pairs(NamedTuple):
    """Rows and columns that a file asks for, and how it calls them."""

    rows: list[str]
    cols: list[str]
    titles: tuple[str, str]


def read_pairs(path: Path) -> Pairs:
    """Read the rows and columns of the entries to be predicted: by the header, or the first two columns."""
    if not path.is_file():
        raise ValueError(f"{path}: {'this is a folder' if path.is_dir() else 'no such file'}; expected a file of pairs")
    try:
        return _pairs(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _pairs(table: TextTable) -> Pairs:
    if not table.height:
        raise ValueError("the file has a header and no pairs; expected lines row,column")
    if len(table.columns) < 2:
        raise ValueError("the file has one column; expected two, of rows and of columns")
    row, col = 0, 1
    if table.header is not None:
        rows, cols = ([k for k, name in enumerate(table.header) if role(name) == what] for what in ("row", "column"))
        if len(rows) == len(cols) == 1:
            row, col = rows[0], cols[0]
    for what, k in (("row", row), ("column", col)):
        missing = table.columns[k].missing
        if missing.any():
            raise ValueError(f"line {table.line_of(int(np.argmax(missing)))} has no {what}; expected a label in each")
    titles = ("row", "column") if table.header is None else (table.header[row] or "row", table.header[col] or "column")
    return Pairs(table.columns[row].names, table.columns[col].names, titles)


def labelled(solution: Solution) -> Solution:
    """The solution with labels on both sides: positions as texts where there are no others."""
    d1, d2 = solution.layers[-1].shape[0], solution.layers[0].shape[1]
    return solution.with_labels(
        solution.row_labels or list(map(str, range(d1))), solution.col_labels or list(map(str, range(d2)))
    )


def predictions(solution: Solution, pairs: Pairs) -> str:
    """The table ``row,column,value,known`` for pairs, in their order, as CSV."""
    values, known = labelled(solution).predict(pairs.rows, pairs.cols, return_known=True)
    lines = zip(pairs.rows, pairs.cols, map(repr, values.tolist()), known.astype(int).tolist(), strict=True)
    return as_csv((*pairs.titles, "value", "known"), lines)


def top(solution: Solution, rows: np.ndarray, cols: np.ndarray, count: int) -> str:
    """The `count` largest entries of every row that were not among the data at `rows` and `cols`, as CSV."""
    count = as_count(count, "--top")
    named = labelled(solution)
    assert named.row_labels is not None
    assert named.col_labels is not None
    left, right = solution.sides
    d2 = len(right)
    order = np.argsort(rows, kind="stable")
    bounds = np.searchsorted(rows[order], np.arange(len(left) + 1))
    lines = []
    for k, factor in enumerate(left):
        values = right @ factor
        if solution.offsets is not None:
            values = values + solution.offsets.mean + solution.offsets.rows[k] + solution.offsets.cols
        free = np.ones(d2, bool)
        free[cols[order[bounds[k] : bounds[k + 1]]]] = False
        unseen = np.flatnonzero(free)
        best = unseen[np.argsort(-values[unseen], kind="stable")[:count]]
        lines += [(named.row_labels[k], named.col_labels[j], repr(float(values[j]))) for j in best]
    return as_csv(("row", "column", "value"), lines)


def as_csv(header: tuple[str, ...], lines: object) -> str:
    """A table as CSV text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)  # type: ignore[arg-type]
    return stream.getvalue()
