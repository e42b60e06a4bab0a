"""Text files as tables: encoding, compression, separators, header; every refusal names the line."""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from balancedfact.data._columns import Column, counts, is_missing, is_text, whole
from balancedfact.data._roles import role

SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".data")
_SAMPLE = 200  # lines from which the separator is found
_LARGEST_TEXT = 16 << 30  # bytes of an unpacked .gz: what is larger is a bomb or needs another tool


class Line(NamedTuple):
    """The cells of one line and its number in the file."""

    number: int
    cells: list[str]


@dataclass
class TextTable:
    """A rectangular table: the names above its columns, where there are any, and the line of the file of each of its rows."""

    header: list[str] | None
    columns: list[Column]
    line_of: Callable[[int], int]

    @property
    def height(self) -> int:
        return len(self.columns[0])

    def title(self, k: int) -> str:
        """The name of column `k` in messages and options."""
        return self.header[k] if self.header is not None and self.header[k] else str(k + 1)


def read_text(path: Path, header: bool | None = None) -> TextTable:
    """Read a text file; `header` says whether its first line is one, ``None`` finds out."""
    with _open(path) as file:
        sample = list(islice(_meaningful(file), _SAMPLE))
    if not sample:
        raise ValueError("the file holds no data")
    separator = _separator(_suffix(path), [text for _, text in sample])
    fast = _numeric(path, sample, separator, header)
    return fast if fast is not None else _general(path, separator, header)


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


class _Bounded(io.RawIOBase):
    """A stream that refuses to unpack without end."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream, self._left = stream, _LARGEST_TEXT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        got = self._stream.readinto(buffer)
        self._left -= got
        if self._left < 0:
            raise ValueError(f"the file unpacks to more than {_LARGEST_TEXT >> 30} GiB of text; expected less")
        return got

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    try:
        with _stream(path) as file:
            yield file
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"the file is not a whole .gz archive ({error})") from None
    except csv.Error as error:
        raise ValueError(f"the file is not a text table ({error})") from None


def _stream(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return io.TextIOWrapper(io.BufferedReader(_Bounded(gzip.open(path, "rb"))), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _meaningful(file: TextIO) -> Iterator[tuple[int, str]]:
    """The lines that are neither blank nor comments, with their numbers."""
    for number, text in enumerate(file, start=1):
        if "\0" in text[:1024]:
            raise ValueError("the file is not UTF-8 text, it holds zero bytes")
        if text.strip() and not text.lstrip().startswith("#"):
            yield number, text.rstrip("\r\n")


def _separator(suffix: str, sample: list[str]) -> str | None:
    """The separator of the fields, ``None`` for white space.

    A separator must cut all sampled lines into equally many fields. Where several do, that one is right whose fields hold the
    fewest of the other separators without being numbers, and then the most numbers: ``ann;Ran;4,5`` against ``a;b,1,5``.
    """
    candidates = {".csv": ",;\t|", ".tsv": "\t"}.get(suffix, "\t,;|")
    scores: list[tuple[int, float, int, str]] = []
    for separator in ([] if suffix == ".tsv" else ["::"]) + list(candidates):
        rows = _cut(sample, separator)
        width = len(rows[0])
        if width < 2 or any(len(row) != width for row in rows):
            continue
        cells = [cell for row in (rows[1:] or rows) for cell in row]
        comma = separator in ";\t"
        texts = [cell for cell in cells if is_text(cell, comma=comma)]
        others = [other for other in candidates if other != separator]
        torn = sum(any(other in cell for other in others) for cell in texts)
        scores.append((torn, len(texts) / len(cells), len(scores), separator))
    if scores:
        return min(scores)[-1]
    if suffix in (".csv", ".tsv"):
        present = [s for s in candidates if any(s in text for text in sample)]
        return candidates[0] if candidates[0] in present or not present else present[0]
    if any(len(text.split()) > 1 for text in sample) and not any("," in text or "\t" in text for text in sample):
        return None
    return next((separator for separator in "\t,;|" if separator in sample[0]), None)


def _cut(texts: list[str], separator: str | None) -> list[list[str]]:
    if separator is None:
        return [text.split() for text in texts]
    if len(separator) > 1:
        return [[cell.strip() for cell in text.split(separator)] for text in texts]
    return [[cell.strip() for cell in row] for row in csv.reader(texts, delimiter=separator, skipinitialspace=True)]


def _numeric(path: Path, sample: list[tuple[int, str]], separator: str | None, header: bool | None) -> TextTable | None:
    """A table of plain numbers through NumPy's compiled reader, or ``None`` for any file that is not plainly that."""
    if separator is not None and len(separator) > 1:
        return None
    rows = [
        Line(number, cells) for (number, _), cells in zip(sample, _cut([text for _, text in sample], separator), strict=True)
    ]
    width = len(rows[0].cells)
    if len(rows) < 2 or any(len(row.cells) != width or row.number != k for k, row in enumerate(rows, start=1)):
        return None
    named = find_header(rows, comma=False) if header is None else header
    body = rows[1:] if named else rows
    kinds = []
    for k in range(width):
        cells = [row.cells[k] for row in body]
        if any(is_missing(cell) or is_text(cell) for cell in cells):
            return None
        digits = [cell for cell in cells if cell.lstrip("+-").isdigit()]
        if any((value := whole(cell)) is None or abs(value) >= 2**63 for cell in digits):
            return None  # leading zeros, which make a text of the column, or more digits than the compiled reader keeps
        kinds.append((f"f{k}", np.int64 if len(digits) == len(cells) else np.float64))
    with _open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            table = np.loadtxt(
                file, dtype=np.dtype(kinds), delimiter=separator, comments=None, skiprows=int(named), ndmin=1, quotechar='"'
            )
        except (ValueError, Warning):  # the general reader finds out what the file is, or what is wrong with it
            return None
    columns = [np.ascontiguousarray(table[name]) for name, _ in kinds]
    if not all(np.isfinite(column).all() for column in columns):
        return None
    return TextTable(rows[0].cells if named else None, [Column(column) for column in columns], lambda k: k + 1 + int(named))


def _general(path: Path, separator: str | None, header: bool | None) -> TextTable:
    lines = _split(path, separator)
    width = len(lines[0].cells)
    for line in lines:
        if len(line.cells) != width:
            raise ValueError(
                f"line {line.number} has {len(line.cells)} fields; expected {width}, as line {lines[0].number} has"
            )
    comma = separator is not None and separator in ";\t"
    named = find_header(lines, comma=comma) if header is None else header
    body = lines[1:] if named else lines
    numbers = [line.number for line in body]
    cells = zip(*(line.cells for line in body), strict=True) if body else [()] * width
    columns = [Column(list(column), comma=comma) for column in cells]
    return TextTable(lines[0].cells if named else None, columns, numbers.__getitem__)


def _split(path: Path, separator: str | None) -> list[Line]:
    with _open(path) as file:
        if separator is None or len(separator) > 1:
            return [Line(number, *_cut([text], separator)) for number, text in _meaningful(file)]
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
        lines = [Line(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    return [line for line in lines if line.cells not in ([], [""]) and not line.cells[0].startswith("#")]


# From so many columns on, a first line that counts is more likely a header than data.
_COUNTED = 5


def _numbers_columns(lines: list[Line]) -> bool:
    """Tell whether the first line may number the columns, 0, 1, 2, ... or 1, 2, ..., as data-frame libraries do."""
    first, body = lines[0].cells, lines[1:]
    numbers = [whole(cell) for cell in first]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or not body or known[0] not in (0, 1) or not counts(known):
        return False
    if len(first) >= _COUNTED:
        return True
    # Fewer may be a row that happens to count, unless there is something else below every number.
    return all(any(whole(cell) is None for cell in column) for column in zip(*(line.cells for line in body), strict=False))


def find_header(lines: list[Line], *, comma: bool) -> bool:
    """Tell whether the first line names the columns: it starts with text or nothing, and is text where numbers follow."""
    first, body = lines[0].cells, lines[1:]
    corner, rest = first[0], first[1:]
    if not is_text(corner, comma=comma) and corner != "":
        if _numbers_columns(lines):
            raise ValueError(
                f"line {lines[0].number} counts from {corner}: it numbers the columns or is a row of data, and both are "
                "possible; say which with --header yes or --header no"
            )
        return False
    known = [role(cell) for cell in first if cell]
    pairs = len(first) == 2 and set(known) == {"row", "column"}
    if pairs or {"row", "column", "value"} <= set(known) or (not body and all(known)):
        return True
    if not body:
        return all(is_text(cell, comma=comma) for cell in first)
    labels = [line.cells[0] for line in body]
    labelled = any(is_text(cell, comma=comma) for cell in labels)
    numeric = [k for k in range(1, len(first)) if not any(is_text(line.cells[k], comma=comma) for line in body)]
    above = [first[k] for k in numeric]
    texts = [cell for cell in above if is_text(cell, comma=comma)]
    if texts and (len(texts) == len(above) or len(rest) > len(numeric) or corner == "" or role(corner) is not None):
        return True
    if texts:
        return 2 * len(texts) >= len(above)
    if corner and not labelled:  # text above a column of numbers
        return True
    # Numbered columns and years: data-frame libraries write them as bare integers after an empty or named corner.
    numbers = [whole(cell) for cell in rest]
    if not rest or any(number is None for number in numbers) or not counts([n for n in numbers if n is not None]):
        return False
    if not labelled:
        return corner == "" and numbers[0] == 0 and [whole(cell) for cell in labels] == list(range(len(labels)))
    years = numbers[0] is not None and 1000 <= numbers[0] <= 2999
    if corner == "" or role(corner) is not None or years:
        return True
    raise ValueError(
        f"line {lines[0].number} is a header of numbered columns or a row of data called {corner!r}: both are possible; "
        "say which with --header yes or --header no"
    )
