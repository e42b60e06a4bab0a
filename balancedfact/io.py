"""Problems in files: the measurements, the data and, where it is known, the hidden truth."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from balancedfact._arrays import read_array, read_arrays
from balancedfact._files import write_arrays
from balancedfact._matrix_market import Coordinates, read_matrix_market
from balancedfact._validate import as_array, as_choice, as_flag, as_index, as_path, as_shape
from balancedfact.data._frames import read_parquet
from balancedfact.data._pictures import PICTURE_SUFFIXES, read_picture
from balancedfact.data._reading import Columns, Triplets, interpret, parse_columns
from balancedfact.data._text import SUFFIXES, TextTable, read_text
from balancedfact.measurements import Dense, Entries, MeasurementMap, RankOne

__all__ = ["Problem", "read_problem", "write_problem"]


@dataclass(frozen=True, eq=False)
class Problem:
    """A recovery problem: find a matrix `X` with ``A(X) = b``.

    Attributes
    ----------
    A : MeasurementMap
        The measurements.
    b : numpy.ndarray, shape (m,)
        The data.
    kind : str
        ``"entries"``, ``"dense"`` or ``"rank-one"``.
    truth : numpy.ndarray, shape (d1, d2), optional
        The hidden matrix, for problems made to be checked.
    row_labels, col_labels : list of str, optional
        The names of rows and columns, where the file gives names and not only positions.
    reading : str
        How the file was read, in words.

    See Also
    --------
    read_problem : Reads one.
    write_problem : Writes one.

    References
    ----------
    Guide :doc:`/guide/command_line`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from balancedfact.io import read_problem
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "ratings.csv")
    ...     _ = path.write_text("user,film,stars\\nAnn,Solaris,5\\nBob,Solaris,4\\nAnn,Stalker,3\\n")
    ...     problem = read_problem(path)
    >>> problem.kind, problem.A.matrix_shape, problem.row_labels, problem.b.tolist()
    ('entries', (2, 2), ['Ann', 'Bob'], [5.0, 4.0, 3.0])
    """

    A: MeasurementMap
    b: np.ndarray
    kind: str
    truth: np.ndarray | None = None
    row_labels: list[str] | None = None
    col_labels: list[str] | None = None
    reading: str = ""


def read_problem(
    path: str | os.PathLike[str],
    *,
    columns: str | Columns | None = None,
    format: str | None = None,
    header: bool | None = None,
) -> Problem:
    """Read a problem from a file. Nothing in a file can execute code.

    Parameters
    ----------
    path : path
        The extension names the format:

        ``.npz``
            Arrays by name, without pickles: `b` with `matrices` (`Dense`), with `left` and `right` (`RankOne`), or with `rows`,
            `cols`, `shape` and optionally `weights` (`Entries`); or alone, a `matrix` with ``nan`` where an entry is missing.
            An array `truth` may accompany each. `write_problem` writes this format. Also a sparse matrix of SciPy
            (`scipy.sparse.save_npz`), whose stored entries are the observed ones.
        ``.npy``
            A matrix with ``nan`` where an entry is missing.
        ``.mtx``
            Matrix Market: the entries of a coordinate file are the observed ones; an array file is a matrix with ``nan``
            where an entry is missing. Real or integer, of any symmetry.
        ``.csv``, ``.tsv``, ``.txt``, ``.dat``, ``.data``, each also with ``.gz``
            A table of entries, one to a line, or a matrix. The fields are separated by commas, semicolons, tabs, ``|``, ``::``
            or, in ``.txt``, ``.dat`` and ``.data``, white space; the file shows by which.
        ``.parquet``
            The same through polars or pandas, whichever is installed.
        ``.png``, ``.jpg``, ``.jpeg``, ``.bmp``, ``.tif``, ``.tiff``
            A picture, as the matrix of its grey levels from 0 to 1; transparent pixels are missing.
    columns : str or sequence, optional
        Which columns of a table hold rows, columns and values of entries: names in the header or positions counted from 1, as
        a list or in one text, ``"user,item,value"`` or ``"2,3,1"``. For a matrix the name of the first column, if that holds
        the names of rows, or ``"none"``.
    format : {None, "triplets", "matrix"}
        What a table is; by default the table says so, or is refused.
    header : bool, optional
        Whether the first line of a text file names its columns; by default the file shows it.

    Returns
    -------
    Problem
        The measurements and the data; `Problem.reading` says how the file was read.

    Raises
    ------
    ValueError
        If the file cannot be read as a problem, or in more than one way; the message names the file, what was found, and
        what was expected or the argument that decides.

    See Also
    --------
    write_problem : The other way.
    Problem : What is returned.
    balancedfact.measurements.Entries.from_frame : From a table in memory.

    Notes
    -----
    In text files a missing cell is empty, ``nan``, ``NA``, ``N/A``, ``null`` or ``none``, in either case; lines that start with
    ``#`` and blank lines are skipped. Where fields are separated by semicolons or tabs, numbers may have decimal commas.

    *Entries.* A header that names columns of rows (user, row, customer, unit, ...), of columns (item, movie, column, product,
    ...) and of values (rating, value, score, count, ...) decides, wherever they stand; other columns, such as timestamps and
    saved indices, are left out, and `Problem.reading` says so. Without such names the content must be clear: for example two
    columns of text, or pairs of integers sorted as a matrix is stored. What could as well be a matrix is refused.

    *Identifiers* may be any text or integers (``4.0`` and ``-3`` are integers, ``007`` is text), of any size. Rows and columns
    are those that occur, integers in rising order, texts in order of first appearance; they have labels unless they are
    numbered ``0, 1, 2, ...`` without a gap. An entry may occur more than once.

    *Matrix.* The first column holds the names of rows if it is text or if the header says so.

    References
    ----------
    Guides :doc:`/guide/command_line` and :doc:`/guide/tables`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from balancedfact.io import read_problem
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ratings.csv"
    ...     _ = path.write_text("user,film,rating\\nann,Ran,5\\nbob,Ran,4\\nbob,Alien,3\\n")
    ...     problem = read_problem(path)
    >>> problem.A
    <Entries: 3 measurements of 2 x 2 matrices>
    >>> problem.row_labels, problem.col_labels
    (['ann', 'bob'], ['Ran', 'Alien'])
    """
    file = as_path(path)
    if format is not None:
        as_choice(format, "format", ("triplets", "matrix"))
    if header is not None:
        as_flag(header, "header")
    chosen = parse_columns(columns)
    suffix = file.suffix.lower()
    kind = Path(file.stem).suffix.lower() if suffix == ".gz" else suffix
    tabular = kind in SUFFIXES or suffix == ".parquet"
    known = (*_READERS, *SUFFIXES, ".parquet", *PICTURE_SUFFIXES)
    if not tabular and (suffix == ".gz" or suffix not in known):
        raise ValueError(f"{file}: the extension is {suffix!r}; expected one of {', '.join(known)}, or .csv.gz and its kin")
    if not tabular and (chosen, format, header) != (None, None, None):
        raise ValueError(
            f"{file}: columns, format and header are for tables; a {suffix} file can be read in one way only; expected none"
        )
    if not file.is_file():
        raise ValueError(f"{file}: {'this is a folder' if file.is_dir() else 'no such file'}; expected a file to read")
    try:
        if tabular:
            table = read_parquet(file) if suffix == ".parquet" else read_text(file, header)
            return _table_problem(table, chosen, format)
        return _READERS[suffix](file) if suffix in _READERS else _matrix_problem(read_picture(file), reading="a picture")
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def write_problem(path: str | os.PathLike[str], A: MeasurementMap, b: np.ndarray, truth: np.ndarray | None = None) -> None:
    """Write a problem to one ``.npz`` file without pickles, whole or not at all; `read_problem` reads it back.

    Parameters
    ----------
    path : path
        Where to write; the extension must be ``.npz``.
    A : Dense, RankOne or Entries
        The measurements.
    b : array_like, shape (m,)
        The data.
    truth : array_like, shape (d1, d2), optional
        The hidden matrix.

    Raises
    ------
    ValueError
        If an argument is not of the form above.

    See Also
    --------
    read_problem : The other way.
    Problem : What is written.

    References
    ----------
    Guide :doc:`/guide/command_line`.

    Examples
    --------
    >>> import tempfile, balancedfact as bf
    >>> from balancedfact.io import read_problem, write_problem
    >>> A = bf.measurements.Entries([0, 1], [1, 0], (2, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_problem(f"{folder}/small.npz", A, [1.0, 2.0])
    ...     print(read_problem(f"{folder}/small.npz").b)
    [1. 2.]
    """
    file = as_path(path)
    if file.suffix.lower() != ".npz":
        raise ValueError(f"path is {os.fspath(path)!r}; expected the extension .npz")
    if isinstance(A, Dense):
        arrays: dict[str, Any] = {"matrices": A.matrices}
    elif isinstance(A, RankOne):
        arrays = {"left": A.left, "right": A.right}
    elif isinstance(A, Entries):
        arrays = {"rows": A.rows, "cols": A.cols, "shape": np.array(A.matrix_shape), "weights": A.weights}
    else:
        raise ValueError(f"A is a {type(A).__name__}; expected Dense, RankOne or Entries")
    arrays["b"] = as_array(b, "b", shape=(A.m,))
    if truth is not None:
        arrays["truth"] = as_array(truth, "truth", shape=A.matrix_shape)
    write_arrays(file, arrays)


# kind of measurements, the arrays that a file must have, and those that it may have
_FORMS = (
    ("dense", frozenset({"b", "matrices"}), frozenset({"truth"})),
    ("rank-one", frozenset({"b", "left", "right"}), frozenset({"truth"})),
    ("entries", frozenset({"b", "rows", "cols", "shape"}), frozenset({"weights", "truth"})),
    ("matrix", frozenset({"matrix"}), frozenset({"truth"})),
)


def _read_npz(file: Path) -> Problem:
    arrays = read_arrays(file)
    names = frozenset(arrays)
    if {"format", "shape", "data"} <= names:
        return _sparse_problem(arrays)
    kind = next((kind for kind, needed, optional in _FORMS if needed <= names <= needed | optional), None)
    if kind is None:
        raise ValueError(
            f"the arrays are {', '.join(sorted(names)) or 'none'}; expected b with matrices, with left and right, or with "
            "rows, cols and shape (and weights), or matrix alone, each with truth or without"
        )
    if kind == "matrix":
        problem = _matrix_problem(arrays["matrix"])
        A, b, kind = problem.A, problem.b, problem.kind
    else:
        A = _measurements(kind, arrays)
        b = as_array(arrays["b"], "b", shape=(A.m,))
    truth = as_array(arrays["truth"], "truth", shape=A.matrix_shape) if "truth" in arrays else None
    return Problem(A, b, kind, truth)


def _sparse_problem(arrays: dict[str, np.ndarray]) -> Problem:
    """A sparse matrix that SciPy saved, in coordinates or compressed by rows or columns."""
    layout = str(np.asarray(arrays["format"]).astype(str))
    needed = {"coo": ("row", "col"), "csr": ("indices", "indptr"), "csc": ("indices", "indptr")}.get(layout)
    if needed is None or not all(name in arrays for name in needed):
        raise ValueError(f"a sparse matrix of the format {layout[:20]!r}; expected coo, csr or csc, with its index arrays")
    shape = as_shape(np.ravel(arrays["shape"]).tolist())
    values = as_array(arrays["data"], "data", ndim=1)
    if layout == "coo":
        rows, cols = arrays["row"], arrays["col"]
    else:
        starts = as_index(arrays["indptr"], "indptr", values.size + 1)
        counts = np.diff(starts)
        lines = shape[layout == "csc"]
        if starts.size != lines + 1 or starts[0] != 0 or starts[-1] != values.size or (counts < 0).any():
            raise ValueError(f"indptr has {starts.size} places; expected {lines + 1} that rise from 0 to {values.size}")
        rows, cols = np.repeat(np.arange(lines), counts), arrays["indices"]
        if layout == "csc":
            rows, cols = cols, rows
    A = Entries(rows, cols, shape)
    if values.size != A.m:
        raise ValueError(f"data has {values.size} values; expected {A.m}, as there are indices")
    return Problem(A, values, "entries", reading=f"a sparse matrix, its {A.m} stored entries observed")


def _measurements(kind: str, arrays: dict[str, np.ndarray]) -> MeasurementMap:
    if kind == "dense":
        return Dense(arrays["matrices"])
    if kind == "rank-one":
        return RankOne(arrays["left"], arrays["right"])
    return Entries(arrays["rows"], arrays["cols"], as_shape(arrays["shape"].tolist()), arrays.get("weights"))


def _read_npy(file: Path) -> Problem:
    return _matrix_problem(read_array(file))


def _read_mtx(file: Path) -> Problem:
    content = read_matrix_market(file)
    if not isinstance(content, Coordinates):
        return _matrix_problem(content)
    if content.values.size == 0:
        raise ValueError("no entry is observed; expected at least one")
    values = as_array(content.values, "the data")
    return Problem(Entries(content.rows, content.cols, as_shape(content.shape)), values, "entries")


def _table_problem(table: TextTable, columns: Columns | None, form: str | None) -> Problem:
    found = interpret(table, columns, form)
    if not isinstance(found, Triplets):
        return _matrix_problem(*found)
    shape = (int(found.rows.max()) + 1, int(found.cols.max()) + 1)
    values = as_array(found.values, "the value column")
    A = Entries(found.rows, found.cols, shape)
    return Problem(A, values, "entries", None, found.row_labels, found.col_labels, found.reading)


def _matrix_problem(
    matrix: np.ndarray, row_labels: list[str] | None = None, col_labels: list[str] | None = None, reading: str = ""
) -> Problem:
    """The problem of completing a matrix with ``nan`` where an entry is missing."""
    if matrix.ndim != 2:
        raise ValueError(f"the matrix has shape {matrix.shape}; expected 2 dimensions")
    rows, cols = np.nonzero(matrix == matrix)
    if rows.size == 0:
        raise ValueError(f"no entry of the {matrix.shape[0]} x {matrix.shape[1]} matrix is observed; expected at least one")
    values = as_array(matrix[rows, cols], "the matrix")
    A = Entries(rows, cols, as_shape(matrix.shape))
    return Problem(A, values, "entries", None, row_labels, col_labels, reading or "a matrix with nan where it is not seen")


_READERS: dict[str, Callable[[Path], Problem]] = {".npz": _read_npz, ".npy": _read_npy, ".mtx": _read_mtx}
