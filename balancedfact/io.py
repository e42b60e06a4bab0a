"""Problems in files: the measurements, the data and, where it is known, the hidden truth."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp

from balancedfact._files import write_arrays
from balancedfact._tables import Triplets, read_table
from balancedfact._validate import as_array, as_path, as_shape
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
    """

    A: MeasurementMap
    b: np.ndarray
    kind: str
    truth: np.ndarray | None = None
    row_labels: list[str] | None = None
    col_labels: list[str] | None = None


def read_problem(path: str | os.PathLike[str]) -> Problem:
    """Read a problem from a file. Nothing in a file can execute code.

    Parameters
    ----------
    path : path
        The extension names the format:

        ``.npz``
            Arrays by name, without pickles: `b` with `matrices` (`Dense`), with `left` and `right` (`RankOne`), or with `rows`,
            `cols`, `shape` and optionally `weights` (`Entries`); or alone, a `matrix` with ``nan`` where an entry is missing.
            An array `truth` may accompany each. `write_problem` writes this format.
        ``.npy``
            A matrix with ``nan`` where an entry is missing.
        ``.mtx``
            Matrix Market: the entries of a coordinate file are the observed ones; an array file is a matrix with ``nan``
            where an entry is missing. Real or integer, of any symmetry.
        ``.csv``
            Observed entries, one ``row,column,value`` to a line, or a matrix (see the notes).
        ``.tsv``, ``.txt``
            A matrix; fields are separated by tabs in ``.tsv``, and by commas, tabs or white space in ``.txt``.

    Returns
    -------
    Problem
        The measurements and the data.

    Raises
    ------
    ValueError
        If the file cannot be read as a problem; the message names the file, what was found and what was expected.

    Notes
    -----
    In text files a missing cell is empty, ``nan``, ``NA``, ``N/A`` or ``null``, in either case; lines that start with ``#``
    and blank lines are skipped.

    *Triplets or matrix.* A first line ``row,column,value``, ``row,col,value`` or ``i,j,value`` always means triplets. Without
    it a ``.csv`` holds triplets if every line has exactly three fields and each of the first two columns, no cell of it
    missing, is made of non-negative integers or contains text. Every other text file is a matrix.

    *Triplets.* A first line whose third field is text is a header. A column of integers holds zero-based indices; a column
    with text holds labels, numbered in order of first appearance. The matrix is as large as the largest index requires. An
    entry may occur more than once.

    *Matrix.* A first line that starts with text or an empty cell is a header if another cell of it is text; or if its first
    cell is text above a column of numbers; or if it counts up by ones, as years do, over rows that have text labels; or if
    it is ``,0,1,2,...`` over rows numbered ``0, 1, 2, ...``. The first column holds labels if a cell below the header is
    text, or if the header's first cell is empty.

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
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise ValueError(f"{file}: the extension is {file.suffix!r}; expected one of {', '.join(_READERS)}")
    if not file.is_file():
        raise ValueError(f"{file}: {'this is a folder' if file.is_dir() else 'no such file'}; expected a file to read")
    try:
        return reader(file)
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
    arrays = _load(file)
    if not isinstance(arrays, dict):
        raise ValueError("the content is one .npy array; expected an .npz archive")
    names = frozenset(arrays)
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


def _measurements(kind: str, arrays: dict[str, np.ndarray]) -> MeasurementMap:
    if kind == "dense":
        return Dense(arrays["matrices"])
    if kind == "rank-one":
        return RankOne(arrays["left"], arrays["right"])
    return Entries(arrays["rows"], arrays["cols"], as_shape(arrays["shape"].tolist()), arrays.get("weights"))


def _load(file: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            return {name: content[name] for name in content.files}
    except OSError:
        raise
    except Exception as error:  # damaged archives raise a dozen unrelated kinds
        pickled = "allow_pickle" in str(error)
        reason = "or it holds Python objects, which are never loaded" if pickled else f"{type(error).__name__}: {error}"
        raise ValueError(f"not a NumPy file of plain arrays ({reason})") from error


def _read_npy(file: Path) -> Problem:
    array = _load(file)
    if isinstance(array, dict):
        raise ValueError("the content is an .npz archive; expected one .npy array")
    return _matrix_problem(array)


def _read_mtx(file: Path) -> Problem:
    try:
        field = scipy.io.mminfo(file)[4]
        content = None if field in ("complex", "pattern") else scipy.io.mmread(file)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"not a Matrix Market file ({error})") from error
    if content is None:
        raise ValueError(f"the entries are of the field {field!r}; expected real or integer")
    if not sp.issparse(content):
        return _matrix_problem(content)
    if content.nnz == 0:
        raise ValueError("no entry is observed; expected at least one")
    values = as_array(content.data, "the data")
    return Problem(Entries(content.row, content.col, as_shape(content.shape)), values, "entries")


def _read_text(file: Path) -> Problem:
    table = read_table(file)
    if not isinstance(table, Triplets):
        return _matrix_problem(table.matrix, table.row_labels, table.col_labels)
    shape = (int(table.rows.max()) + 1, int(table.cols.max()) + 1)
    A = Entries(table.rows, table.cols, shape)
    return Problem(A, as_array(table.values, "the value column"), "entries", None, table.row_labels, table.col_labels)


def _matrix_problem(matrix: np.ndarray, row_labels: list[str] | None = None, col_labels: list[str] | None = None) -> Problem:
    """The problem of completing a matrix with ``nan`` where an entry is missing."""
    if matrix.ndim != 2:
        raise ValueError(f"the matrix has shape {matrix.shape}; expected 2 dimensions")
    rows, cols = np.nonzero(matrix == matrix)
    if rows.size == 0:
        raise ValueError(f"no entry of the {matrix.shape[0]} x {matrix.shape[1]} matrix is observed; expected at least one")
    values = as_array(matrix[rows, cols], "the matrix")
    return Problem(Entries(rows, cols, as_shape(matrix.shape)), values, "entries", None, row_labels, col_labels)


_READERS: dict[str, Callable[[Path], Problem]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".mtx": _read_mtx,
    ".csv": _read_text,
    ".tsv": _read_text,
    ".txt": _read_text,
}
