"""Tidy tables keep every digit and say what is missing."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.experiments._table import Table, write_table


def test_columns_selection_and_missing_cells():
    table = Table([{"kind": "run", "loss": 0.5}, {"kind": "line", "value": 2}, {"kind": "run", "loss": 0.25}])
    np.testing.assert_array_equal(table["loss"], [0.5, np.nan, 0.25])
    assert table.where(kind="run")["loss"].tolist() == [0.5, 0.25]
    assert table.where(kind="run", loss=0.25).rows == [{"kind": "run", "loss": 0.25}]
    assert table.values("kind") == ["run", "line"]
    assert table["kind"].tolist() == ["run", "line", "run"]
    assert len(table) == 3
    with pytest.raises(KeyError):
        table["nothing"]


@given(st.lists(st.floats(), min_size=1, max_size=5))
def test_numbers_are_written_with_every_digit(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    write_table(path, [{"number": number, "name": "a, b"} for number in numbers])
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_array_equal([float(row["number"]) for row in rows], numbers)
    assert {row["name"] for row in rows} == {"a, b"}


def test_rows_with_different_columns(tmp_path):
    write_table(tmp_path / "table.csv", [{"a": 1}, {"b": True}])
    assert (tmp_path / "table.csv").read_bytes() == b"a,b\n1,\n,True\n"
