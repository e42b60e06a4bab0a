"""Tidy tables: one row per observation, one column per quantity, in a text file that keeps every digit."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from balancedfact._files import write_text

Row = dict[str, Any]


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows; columns in order of first appearance, an empty cell where a row has no such quantity."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: repr(value) if isinstance(value, float) else value for name, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def read_table(path: Path) -> list[Row]:
    """The rows that `write_table` wrote, with truth values, whole numbers, numbers and texts as they were."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: _value(text) for name, text in row.items() if text} for row in csv.DictReader(file)]


def _value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


class Table:
    """The rows of an experiment, with columns as arrays and selection by value.

    ``table["loss"]`` is the column of that name, with ``nan`` (in a column of texts an empty one) where a row has no value;
    ``len(table)`` is the number of rows.

    Parameters
    ----------
    rows : sequence of dict
        One dictionary of quantities for each row.

    Attributes
    ----------
    rows : list of dict
        The rows.

    See Also
    --------
    Experiment : The declaration of a figure.
    reproduce : Runs an experiment and returns its table.

    References
    ----------
    Guide :doc:`/guide/own_figure`.

    Examples
    --------
    >>> from balancedfact.experiments import Table
    >>> table = Table([{"depth": 2, "loss": 0.5}, {"depth": 3, "loss": 0.25}, {"depth": 3, "loss": 0.75}])
    >>> table.where(depth=3)["loss"]
    array([0.25, 0.75])
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> np.ndarray:
        if not any(name in row for row in self.rows):
            raise KeyError(name)
        missing = "" if any(isinstance(row.get(name), str) for row in self.rows) else np.nan
        return np.array([row.get(name, missing) for row in self.rows])

    def where(self, **values: Any) -> Table:
        """The rows in which every named column has the given value."""
        return Table([row for row in self.rows if all(row.get(name) == value for name, value in values.items())])

    def values(self, name: str) -> list[Any]:
        """The distinct values of a column, in order of first appearance."""
        return list(dict.fromkeys(row[name] for row in self.rows if name in row))
