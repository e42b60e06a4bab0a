"""The meaning of a table: observed entries or a matrix, by its header, its content, or what the user says.

A table that can be read in two ways is refused, and the refusal names the option for each: a wrong reading would be solved, and
come with a proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from balancedfact.data._columns import Column, counts, is_text, whole
from balancedfact.data._labels import compact
from balancedfact.data._roles import is_key, normal, role
from balancedfact.data._text import TextTable

_EPOCHS = ((3e8, 4.2e9), (3e11, 4.2e12))  # seconds and milliseconds since 1970 that dates of observations have


class Triplets(NamedTuple):
    """Observed entries. Labels are ``None`` where rows or columns are numbered 0, 1, 2 and so on without a gap."""

    rows: np.ndarray
    cols: np.ndarray
    values: np.ndarray
    row_labels: list[str] | None
    col_labels: list[str] | None
    reading: str


class Grid(NamedTuple):
    """A matrix, ``nan`` where a cell is missing. Labels are ``None`` where the file has none."""

    matrix: np.ndarray
    row_labels: list[str] | None
    col_labels: list[str] | None
    reading: str


Columns = Sequence[str | int]


def interpret(table: TextTable, columns: Columns | None = None, form: str | None = None) -> Triplets | Grid:
    """Read a table as triplets or a matrix; `io.read_problem` documents the rules."""
    if columns is not None and form != "matrix" and (form == "triplets" or len(columns) != 1):
        return _triplets(table, *_chosen(table, columns))
    if form == "matrix" or columns is not None:
        return _grid(table, *_label_column(table, columns))
    names = _by_names(table)
    if names is not None:
        return _triplets(table, *names)
    places = _by_content(table, wanted=form == "triplets")
    return _grid(table, *_label_column(table, None)) if places is None else _triplets(table, *places)


def parse_columns(value: str | Columns | None) -> Columns | None:
    """`columns` as a list of names and of positions counted from one."""
    if value is None:
        return None
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)) or not all(isinstance(each, (str, int)) for each in found):
        raise ValueError(f"columns is {value!r}; expected names or positions of columns, in one text or a list")
    return [each.strip() if isinstance(each, str) else each for each in found]


# By what the user says


def _chosen(table: TextTable, columns: Columns) -> tuple[int, int, int]:
    if len(columns) != 3:
        raise ValueError(f"--columns names {len(columns)} columns; expected three, of rows, columns and values: 1,2,3")
    row, col, value = (_position(table, name, k) for k, name in enumerate(columns))
    if len({row, col, value}) < 3:
        raise ValueError(f"--columns {','.join(map(str, columns))} names a column twice; expected three different ones")
    return row, col, value


def _position(table: TextTable, name: str | int, place: int | None = None) -> int:
    """Find the column `name`; `place` is its place among row, column and value, whose kin may stand for it."""
    width, header = len(table.columns), table.header
    if header is not None and isinstance(name, str):
        if header.count(name) == 1:
            return header.index(name)
        alike = [k for k, title in enumerate(header) if normal(title) == normal(name)]
        if not alike and place is not None and role(name) == ("row", "column", "value")[place]:
            alike = _candidates(table, role(name) or "")
        if len(alike) == 1:
            return alike[0]
    if isinstance(name, int) or name.isdigit():
        if 1 <= int(name) <= width:
            return int(name) - 1
        raise ValueError(f"--columns names column {name}; expected 1 to {width}")
    there = f"the header has {', '.join(map(repr, header))}" if header is not None else "the table has no header"
    raise ValueError(f"--columns names {name!r}, and {there}; expected its names, or numbers from 1 to {width}")


def _label_column(table: TextTable, columns: Columns | None) -> tuple[bool, str]:
    """Tell whether the first column of a matrix holds the names of its rows, and how that is known."""
    if columns is not None:
        if len(columns) == 1 and isinstance(columns[0], str) and columns[0].lower() == "none":
            return False, ""
        if len(columns) != 1 or _position(table, columns[0]) != 0:
            raise ValueError(
                f"--columns is {','.join(map(str, columns))} for a matrix; expected the name of its first column, if that "
                "holds the names of rows, or none"
            )
        return True, table.title(0)
    first = table.columns[0]
    named = None if table.header is None else role(table.header[0])
    if first.is_text or (table.header is not None and named in ("row", "column", "time", "index")):
        return True, table.title(0)
    if len(table.columns) > 1 and first.integers is not None and table.height > 2 and counts(first.integers.tolist()):
        title = table.title(0)
        raise ValueError(
            f"the first column rises by one from {first.integers[0]}: it numbers the rows or is data, and both are possible; "
            f"say which with --columns {title} (it numbers the rows of a matrix) or --columns none (it is data), "
            "or give the columns of triplets, as in --columns 2,3,4"
        )
    return False, ""


# By names


def _candidates(table: TextTable, wanted: str) -> list[int]:
    """Columns of one role; of several, those that are keys (``movieId`` beside ``title``)."""
    found = [k for k, name in enumerate(table.header or ()) if role(name) == wanted]
    keys = [k for k in found if is_key((table.header or ())[k])]
    return keys if len(found) > 1 and keys else found


def _by_names(table: TextTable) -> tuple[int, int, int] | None:
    """The columns of rows, columns and values that the header names; ``None`` if it does not speak of triplets."""
    if table.header is None:
        return None
    places = {name: _candidates(table, name) for name in ("row", "column", "value", "weight", "time", "index")}
    if places["value"] and places["weight"]:
        _undecided(table, f"{table.title(places['weight'][0])!r} weighs the values or is the value")
    rows, cols, values = places["row"], places["column"], places["value"] or places["weight"]
    free = [k for k in range(len(table.columns)) if not any(k in found for found in places.values())]
    skipped = places["index"] if places["index"] == [0] else []
    if len(values) == 1 and not (rows and cols):  # two other columns name the entry
        others = [k for k in range(len(table.columns)) if k not in (*values, *places["time"], *skipped)]
        if len(others) == 1 and len(places["time"]) == 1:
            others = sorted(others + places["time"])
        if len(others) == 2 and all(table.columns[k].can_name for k in others):
            rows, cols = (
                (others[:1], others[1:]) if not (rows == others[1:] or cols == others[:1]) else (others[1:], others[:1])
            )
    if len(rows) == 1 and not cols and len(places["time"]) == 1 and len(values or free) == 1:
        cols = places["time"]
    if not (rows and cols):
        return None
    if len(rows) > 1 or len(cols) > 1 or len(values) > 1:
        _undecided(table, "several columns can be the one of rows, of columns or of values")
    if not values:
        values = [k for k in free if not table.columns[k].is_text]
        if not values and places["time"] and len(places["time"]) == 1 and len(table.columns) == 3:
            values = places["time"]
        if not values:
            raise ValueError(
                f"the header names {table.title(rows[0])!r} and {table.title(cols[0])!r} and no column of values; expected one "
                "(a list of pairs that were seen has nothing to complete), or --format matrix"
            )
        if len(values) > 1:
            _undecided(table, "several columns can be the value")
    return rows[0], cols[0], values[0]


def _undecided(table: TextTable, why: str) -> NoReturn:
    names = ", ".join(table.title(k) for k in range(len(table.columns)))
    raise ValueError(
        f"{why}, and the table can be read in more than one way; its columns are {names}: say which are those of rows, columns "
        "and values with --columns ROW,COLUMN,VALUE, or that it is a matrix with --format matrix"
    )


# By content


def _by_content(table: TextTable, *, wanted: bool) -> tuple[int, int, int] | None:
    """The columns of triplets without names that say so, ``None`` for a matrix; `wanted` if the user asks for triplets."""
    width = len(table.columns)
    if table.header is not None and not wanted and any(whole(title) is not None for title in table.header[1:]):
        return None  # numbers name the columns of a matrix, never what the fields of an entry are
    names = [column.can_name for column in table.columns]
    stamped = width == 4 and all(names[:2]) and not table.columns[2].is_text and _is_time(table.columns[3])
    if width == 3 or stamped:
        if all(names[:2]) and _mixed(table.columns[2]):
            return 0, 1, 2  # to be refused with the line of the text
        if all(names[:2]) and not table.columns[2].is_text:
            how = _evidence(table)
            if how == "triplets" or stamped or (wanted and not _value_first(table)):
                return 0, 1, 2
            if how == "matrix" and not wanted:
                return None
            _two_readings(table, "1,2,3")
        if table.columns[0].integers is None and not table.columns[0].is_text and all(names[1:3]):
            _two_readings(table, "2,3,1")  # the value may come first
        if sum(names) >= 2 and not wanted:
            _two_readings(table, "1,2,3")
    if wanted:
        _undecided(table, "nothing says which columns are those of triplets")
    return None


def _mixed(column: Column) -> bool:
    return column.is_text and any(not is_text(cell, comma=column.comma) for cell in column.cells)


def _is_time(column: Column) -> bool:
    if column.integers is None or not len(column):
        return column.is_text and not column.missing.any()
    least, most = float(column.integers.min()), float(column.integers.max())
    return any(low < least and most < high for low, high in _EPOCHS)


def _value_first(table: TextTable) -> bool:
    first, last = table.columns[0], table.columns[2]
    return not first.is_text and first.integers is None and last.integers is not None


def _evidence(table: TextTable) -> str:
    """Classify three columns whose first two can name things: ``"triplets"``, ``"matrix"``, or ``""`` if it may be both."""
    first, second, third = table.columns[:3]
    if third.missing.any():
        return "matrix" if first.is_text and len(set(first.names)) == len(first) and table.header is not None else ""
    if first.is_text and second.is_text:
        return "triplets"  # a matrix has one column of names at most
    pairs = list(zip(first.names, second.names, strict=True))
    distinct = len(set(pairs)) == len(pairs)
    rows, cols, n = len(set(first.names)), len(set(second.names)), len(pairs)
    if first.is_text:  # labels of a matrix do not occur twice
        return "triplets" if rows < n and third.integers is None else "" if rows < n else "matrix" if table.header else ""
    if second.is_text:
        return "triplets"
    a, b = first.integers, second.integers
    if a is None or b is None or not distinct:
        return ""
    repeated = rows < n and cols < n
    if repeated and (_rises(a, b) or _rises(b, a)):
        return "triplets"
    if third.integers is None:
        return "triplets" if repeated or (a.min() in (0, 1) and b.min() in (0, 1)) else ""
    # All integers: a matrix of few different numbers would repeat pairs, and its columns would be of one range.
    spans = [float(c.max()) - float(c.min()) for c in (a, b, third.integers)]
    if n >= 20 and n >= 1.5 * max(rows, cols) and max(spans[:2]) >= 3 * max(spans[2], 1.0):
        return "triplets"
    return ""


def _rises(major: np.ndarray, minor: np.ndarray) -> bool:
    """Tell whether pairs are sorted as a matrix is stored, row by row."""
    up, level = major[1:] > major[:-1], major[1:] == major[:-1]
    return bool(np.all(up | (level & (minor[1:] > minor[:-1]))))


def _two_readings(table: TextTable, order: str) -> NoReturn:
    height, width = table.height, len(table.columns)
    raise ValueError(
        f"the table can be read as {height} entries row,column,value or as a matrix of {height} rows and {width} columns; "
        f"say which with --columns {order} (which are the rows, columns and values of entries) or --format matrix"
    )


# The readings


def _triplets(table: TextTable, row: int, col: int, value: int) -> Triplets:
    if not table.height:
        raise ValueError("the file has a header and no entries; expected lines row,column,value")
    source = table.columns[value]
    if source.is_text or source.missing.any():
        k = source.first_text if source.first_text is not None else int(np.argmax(source.missing))
        if source.missing[k]:
            raise ValueError(
                f"line {table.line_of(k)} has the value {_shown(source.cells[k])}; expected a number in every row,column,value "
                "(leave out the lines of entries that were not seen; for a matrix of three columns say --format matrix)"
            )
        raise ValueError(f"line {table.line_of(k)} has {source.cells[k]!r} in field {value + 1}; expected a number")
    for what, place in (("row", row), ("column", col)):
        missing = table.columns[place].missing
        if missing.any():
            raise ValueError(f"line {table.line_of(int(np.argmax(missing)))} has no {what}; expected an integer or a label")
    (rows, row_labels, row_words), (cols, col_labels, col_words) = compact(table.columns[row]), compact(table.columns[col])
    ignored = ", ".join(table.title(k) for k in range(len(table.columns)) if k not in (row, col, value))
    reading = (
        f"entries: rows from {table.title(row)!r} ({row_words}), columns from {table.title(col)!r} ({col_words}), "
        f"values from {table.title(value)!r}"
    )
    if ignored:
        reading += f"; not used: {ignored}"
    numbers = source.numbers
    if numbers.size > 1 and np.all(numbers == numbers[0]):
        reading += f"; every value is {numbers[0]:g}, so that the data say nothing of what was not seen"
    return Triplets(rows, cols, numbers, row_labels, col_labels, reading)


def _shown(cell: object) -> str:
    """The cell as a message shows it, without the name of a type of NumPy."""
    return repr(cell) if isinstance(cell, str) else str(cell)


def _grid(table: TextTable, labelled: bool, title: str) -> Grid:
    if not table.height:
        raise ValueError("the file has a header and no rows of numbers")
    first = int(labelled)
    if len(table.columns) == first:
        raise ValueError(
            "the file is one column of text; expected fields with numbers, separated by commas, semicolons or tabs"
        )
    texts = [(column.first_text, k) for k, column in enumerate(table.columns[first:], start=first) if column.is_text]
    if texts:
        row, k = min((line, k) for line, k in texts if line is not None)
        raise ValueError(
            f"line {table.line_of(row)} has {table.columns[k].cells[row]!r} in field {k + 1}; expected a number, or nan, NA or "
            "nothing where it is missing (for entries, name the columns of rows, columns and values with --columns)"
        )
    matrix = np.column_stack([column.numbers for column in table.columns[first:]])
    row_labels = table.columns[0].names if labelled else None
    col_labels = table.header[first:] if table.header is not None else None
    for what, names in (("rows", row_labels), ("columns", col_labels)):
        if names is not None and len(set(names)) < len(names):
            again = next(name for k, name in enumerate(names) if name in names[:k])
            raise ValueError(
                f"the label {again!r} names two {what}; expected different ones (or --columns none if the first column is "
                "data, or --columns ROW,COLUMN,VALUE if the lines are entries)"
            )
    seen = int(np.count_nonzero(~np.isnan(matrix)))
    reading = (
        f"a matrix of {matrix.shape[0]} rows{f' named by {title!r}' if labelled else ''} and {matrix.shape[1]} columns"
        f"{' named by the first line' if col_labels is not None else ''}, {seen} of {matrix.size} cells seen"
    )
    return Grid(matrix, row_labels, col_labels, reading)
