"""Data frames of pandas and polars, without either being required."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from balancedfact.data._columns import Column
from balancedfact.data._text import TextTable


def library(frame: Any) -> str | None:
    """``"pandas"`` or ``"polars"`` for their data frames, ``None`` for anything else; neither is imported."""
    for name in ("pandas", "polars"):
        module = sys.modules.get(name)
        if module is not None and isinstance(frame, module.DataFrame):
            return name
    return None


def column_of(series: Any) -> Column:
    """A column of a data frame: numbers as they are, everything else as text."""
    values = series.to_numpy()
    if values.dtype.kind in "iuf":
        return Column(values)
    if values.dtype.kind == "b":
        return Column(values.astype(np.int64))
    return Column(["" if _is_none(value) else str(value) for value in values.tolist()])


def _is_none(value: Any) -> bool:
    return value is None or value != value or type(value).__name__ in ("NAType", "NaTType")


def as_table(frame: Any) -> TextTable:
    """A data frame as a table with a header; its index, which is no column, is left out."""
    names = [str(name) for name in frame.columns]
    columns = [column_of(frame.iloc[:, k] if library(frame) == "pandas" else frame[:, k]) for k in range(len(names))]
    if not columns or not len(columns[0]):
        raise ValueError("the data frame holds no data")
    return TextTable(names, columns, lambda k: k + 1)


def read_parquet(path: Path) -> TextTable:
    """The table in a Parquet file."""
    try:
        import polars

        read = polars.read_parquet
    except ImportError:
        try:
            import pandas

            read = pandas.read_parquet
        except ImportError:
            raise ValueError("reading .parquet takes polars or pandas with pyarrow; install one: pip install polars") from None
    try:
        frame = read(path)
    except Exception as error:  # each library and engine has its own kinds
        raise ValueError(f"not a Parquet file that can be read ({type(error).__name__}: {error})") from error
    return as_table(frame)
