import contextlib
import io
import pickle
import string
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from balancedfact.io import Problem, read_problem, write_problem
from balancedfact.measurements import Dense, Entries, RankOne, gaussian

finite = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.integers(1, 5)


def read_text(tmp_path: Path, name: str, text: str | bytes) -> Problem:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_problem(path)


def filled(problem: Problem) -> np.ndarray:
    """The observed entries in place, nan elsewhere."""
    assert isinstance(problem.A, Entries)
    matrix = np.full(problem.A.matrix_shape, np.nan)
    matrix[problem.A.rows, problem.A.cols] = problem.b
    return matrix


def refused(tmp_path: Path, name: str, text: str | bytes, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        read_text(tmp_path, name, text)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / name))
    assert "\n" not in message


def npz(**content: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **content)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


# Round trips


@st.composite
def problems(draw):
    d1, d2, m = draw(sizes), draw(sizes), draw(sizes)
    kind = draw(st.sampled_from(["dense", "rank-one", "entries"]))
    if kind == "dense":
        A = Dense(draw(arrays(float, (m, d1, d2), elements=finite)))
    elif kind == "rank-one":
        A = RankOne(draw(arrays(float, (m, d1), elements=finite)), draw(arrays(float, (m, d2), elements=finite)))
    else:
        rows = draw(arrays(int, m, elements=st.integers(0, d1 - 1)))
        cols = draw(arrays(int, m, elements=st.integers(0, d2 - 1)))
        A = Entries(rows, cols, (d1, d2), draw(st.none() | arrays(float, m, elements=finite)))
    truth = draw(st.none() | arrays(float, (d1, d2), elements=finite))
    return kind, A, draw(arrays(float, m, elements=finite)), truth


@given(problems())
@settings(max_examples=60, deadline=None)
def test_npz_round_trip_is_exact(tmp_path_factory, drawn):
    kind, A, b, truth = drawn
    path = tmp_path_factory.mktemp("round") / "problem.npz"
    write_problem(path, A, b, truth)
    back = read_problem(path)
    assert type(back.A) is type(A)
    assert (back.kind, back.A.matrix_shape) == (kind, A.matrix_shape)
    for name in {"dense": ["matrices"], "rank-one": ["left", "right"], "entries": ["rows", "cols", "weights"]}[kind]:
        np.testing.assert_array_equal(getattr(back.A, name), getattr(A, name))
    np.testing.assert_array_equal(back.b, b)
    assert (back.truth is None) == (truth is None)
    if truth is not None:
        np.testing.assert_array_equal(back.truth, truth)
    assert [entry.name for entry in path.parent.iterdir()] == ["problem.npz"]


@pytest.mark.slow
@given(st.data(), sizes, st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_matrix_formats_agree_to_the_last_bit(tmp_path_factory, data, d1, d2):
    matrix = data.draw(arrays(float, (d1, d2), elements=finite.map(lambda x: x + 0.25 if x == round(x) else x)))
    hidden = data.draw(arrays(bool, (d1, d2)))
    if hidden.all():
        hidden[0, 0] = False
    matrix[hidden] = np.nan
    folder = tmp_path_factory.mktemp("formats")
    np.save(folder / "a.npy", matrix)
    np.savez(folder / "a.npz", matrix=matrix)
    for name, separator in (("a.csv", ","), ("a.tsv", "\t"), ("a.txt", " ")):
        cells = [["nan" if np.isnan(x) else repr(float(x)) for x in row] for row in matrix]
        (folder / name).write_text("\n".join(separator.join(row) for row in cells))
    scipy.io.mmwrite(folder / "a.mtx", matrix, precision=17, symmetry="general")
    for path in folder.iterdir():
        np.testing.assert_array_equal(filled(read_problem(path)), matrix, err_msg=path.name)


labels = (
    st.text(string.ascii_letters + ' ,"é', min_size=1, max_size=6)
    .map(str.strip)
    .filter(lambda text: text and text.lower() not in {"nan", "na", "null", "inf", "infinity"})
)


@given(st.lists(st.tuples(labels, st.integers(0, 30), finite), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_triplet_round_trip_with_labels(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("triplets") / "a.csv"
    quoted = [f'"{label.replace(chr(34), 2 * chr(34))}",{col},{value!r}' for label, col, value in lines]
    path.write_text("\n".join(["row,column,value", *quoted]), encoding="utf-8")
    problem = read_problem(path)
    assert [problem.row_labels[row] for row in problem.A.rows] == [label for label, _, _ in lines]
    assert problem.row_labels == list(dict.fromkeys(label for label, _, _ in lines))
    ids = sorted({col for _, col, _ in lines})
    assert problem.col_labels == (None if ids == list(range(len(ids))) else list(map(str, ids)))
    np.testing.assert_array_equal(np.array(ids)[problem.A.cols], [col for _, col, _ in lines])
    np.testing.assert_array_equal(problem.b, [value for _, _, value in lines])
    assert problem.A.matrix_shape == (len(problem.row_labels), len(ids))


# Triplets


@pytest.mark.parametrize(
    "text",
    [
        "0,0,1.5\n1,2,3\n",
        "row,column,value\n0,0,1.5\n1,2,3\n",
        "Row,Col,Value\r\n0,0,1.5\r\n1,2,3\r\n",
        "i,j,value\n0,0,1.5\n\n1,2,3",
        "user,film,rating\n0,0,1.5\n1,2,3\n",
        "\ufeff0, 0, 1.5\n1, 2, 3\n",
        '# ratings\n"0","0","1.5"\n1,2,3\n',
    ],
)
def test_integer_triplets(tmp_path, text):
    problem = read_text(tmp_path, "a.csv", text)
    np.testing.assert_array_equal(problem.A.rows, [0, 1])
    np.testing.assert_array_equal(problem.A.cols, [0, 1])
    np.testing.assert_array_equal(problem.b, [1.5, 3.0])
    assert problem.A.matrix_shape == (2, 2)
    assert (problem.row_labels, problem.col_labels) == (None, ["0", "2"])


def test_repeated_triplets_are_all_kept(tmp_path):
    problem = read_text(tmp_path, "a.csv", "row,col,value\n0,0,1\n0,0,2\n")
    np.testing.assert_array_equal(problem.b, [1.0, 2.0])
    assert problem.A.matrix_shape == (1, 1)


def test_labels_are_numbered_in_order_of_first_appearance(tmp_path):
    problem = read_text(tmp_path, "a.csv", "ann,2020-02,1\nbob,2020-01,2\nann,2020-01,3\n")
    assert problem.row_labels == ["ann", "bob"]
    assert problem.col_labels == ["2020-02", "2020-01"]
    np.testing.assert_array_equal(filled(problem), [[1.0, 3.0], [np.nan, 2.0]])


def test_a_triplet_header_also_counts_outside_csv(tmp_path):
    problem = read_text(tmp_path, "a.tsv", "i\tj\tvalue\n3\t4\t5")
    assert (problem.A.matrix_shape, problem.row_labels, problem.col_labels) == ((1, 1), ["3"], ["4"])


@pytest.mark.parametrize("huge", [400_000_000, 2**63 - 1, 10**30])
def test_large_identifiers_cost_nothing(tmp_path, huge):
    problem = read_text(tmp_path, "a.csv", f"user,item,rating\n{huge},0,1\n7,1,2\n")
    assert (problem.A.matrix_shape, problem.row_labels) == ((2, 2), ["7", str(huge)])
    np.testing.assert_array_equal(filled(problem), [[np.nan, 2.0], [1.0, np.nan]])


@pytest.mark.parametrize("ids", [("1.0", "2.0", "3.0"), ("-1", "4", "9"), ("1e3", "2e3", "3e3"), ("+1", "2", "3")])
def test_integers_in_other_ways_of_writing(tmp_path, ids):
    problem = read_text(tmp_path, "a.csv", "user,item,rating\n" + "".join(f"{name},{k},{k}.5\n" for k, name in enumerate(ids)))
    assert problem.row_labels == [str(int(float(name))) for name in ids]


def test_leading_zeros_make_a_text(tmp_path):
    assert read_text(tmp_path, "a.csv", "user,item,rating\n007,0,1\n7,1,2\n").row_labels == ["007", "7"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("row,column,value\n", "no entries"),
        ("i,j,value\n0,0,1.5\n1,2,nan\n", r"line 3 has the value 'nan'"),
        ("i,j,value\n0,0,1.5\n1,2,\n", r"line 3 has the value ''"),
        ("i,j,value\n0,0,1_000\n1,2,5\n", r"line 2 has '1_000' in field 3"),
        ("0,0,1.5\n1,2,inf\n", "infinite"),
        ("0,0,1.5\n1,2,x\n", "line 2 has 'x' in field 3"),
        ("i,j,value\n0,,1.5\n1,2,3\n", "line 2 has no column"),
        ("i,j,value\n0,0\n", "line 2 has 2 fields; expected 3"),
    ],
)
def test_bad_triplets(tmp_path, text, match):
    refused(tmp_path, "a.csv", text, match)


# Matrices in text


@pytest.mark.parametrize(
    ("name", "text", "rows", "cols"),
    [
        ("a.csv", "1,,3,4\n5,NA,n/a,8", None, None),
        ("a.csv", "a,b,c,d\n1,nan,3,4\n5,NULL,,8", None, list("abcd")),
        ("a.csv", "date,a,b,c,d\n2020-01,1,,3,4\n2020-02,5,,,8", ["2020-01", "2020-02"], list("abcd")),
        ("a.csv", ",a,b,c,d\n2019,1,,3,4\n2020,5,,,8", ["2019", "2020"], list("abcd")),
        ("a.csv", ",0,1,2,3\n0,1,,3,4\n1,5,,,8", ["0", "1"], list("0123")),
        ("a.csv", "land,1990,1991,1992,1993\nFR,1,,3,4\nGB,5,,,8", ["FR", "GB"], ["1990", "1991", "1992", "1993"]),
        ("a.csv", "FR,1,,3,4\nGB,5,,,8", ["FR", "GB"], None),
        ("a.tsv", "1\t\t3\t4\n5\t\t\t8", None, None),
        ("a.txt", "# made by hand\n1 nan 3 4\n5 nan NA 8\n", None, None),
        ("a.txt", "1, nan, 3, 4\n5, , , 8\n", None, None),
        ("a.txt", "1\t\t3\t4\n5\t\t\t8", None, None),
    ],
)
def test_text_matrix(tmp_path, name, text, rows, cols):
    problem = read_text(tmp_path, name, text)
    np.testing.assert_array_equal(filled(problem), [[1, np.nan, 3, 4], [5, np.nan, np.nan, 8]])
    assert (problem.kind, problem.row_labels, problem.col_labels) == ("entries", rows, cols)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "0.5,0,1\n1,2,3\n"),  # the value may come first
        ("a.csv", "0,-1,1\n1,2,3\n"),
        ("a.csv", ",0,1\n1,2,3\n"),
        ("a.tsv", "0\t0\t1\n1\t2\t3\n"),
        ("a.txt", "0 0 1\n1 2 3\n"),
    ],
)
def test_three_columns_of_integers_are_refused_and_the_format_decides(tmp_path, name, text):
    refused(tmp_path, name, text, "--columns .* or --format matrix")
    assert read_problem(tmp_path / name, format="matrix").A.matrix_shape == (2, 3)
    if text[0] == "0":
        assert read_problem(tmp_path / name, columns="1,2,3").A.m == 2


@pytest.mark.parametrize("text", ["0.5,0.1,1\n1,2,3\n", "0.5,,1.5\n1,2,3\n"])
def test_three_columns_that_are_a_matrix(tmp_path, text):
    assert read_text(tmp_path, "a.csv", text).A.matrix_shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.csv", "", "holds no data"),
        ("a.csv", "\n\n# nothing\n", "holds no data"),
        ("a.csv", "a,b\n", "no rows of numbers"),
        ("a.csv", "1,2\n3\n", "line 2 has 1 fields; expected 2, as line 1 has"),
        ("a.csv", "1,x\n3,4\n", "line 1 has 'x' in field 2; expected a number"),
        ("a.csv", "1,2\n3,4x\n", "line 2 has '4x' in field 2"),
        ("a.csv", "1,inf\n3,4\n", "infinite"),
        ("a.csv", "1,1e999\n3,4\n", "infinite"),
        ("a.csv", "nan,\n,NA\n", "no entry of the 2 x 2 matrix is observed"),
        ("a.csv", "1:2\n3:4\n", "line 1 has '1:2' in field 1|expected fields with numbers"),
        ("a.csv", b"\xff\xfe1,2\n", "not UTF-8"),
        ("a.txt", "1,2\n3,4\n".encode("utf-16-le"), "not UTF-8"),
        ("a.tsv", "1\t2\nx\n", "line 2 has 1 fields"),
    ],
)
def test_bad_text(tmp_path, name, text, match):
    refused(tmp_path, name, text, match)


# Matrix Market


def test_coordinate_file_keeps_observed_zeros_and_repeats(tmp_path):
    text = "%%MatrixMarket matrix coordinate real general\n2 3 3\n1 1 5\n2 3 0\n2 3 1\n"
    problem = read_text(tmp_path, "a.mtx", text)
    assert problem.A.matrix_shape == (2, 3)
    assert sorted(zip(problem.A.rows, problem.A.cols, problem.b, strict=True)) == [(0, 0, 5.0), (1, 2, 0.0), (1, 2, 1.0)]


def test_symmetric_coordinate_file_is_unfolded(tmp_path):
    problem = read_text(tmp_path, "a.mtx", "%%MatrixMarket matrix coordinate integer symmetric\n2 2 2\n1 1 5\n2 1 7\n")
    np.testing.assert_array_equal(filled(problem), [[5, 7], [7, np.nan]])


def test_coordinate_file_of_scipy(tmp_path):
    matrix = sp.random_array((8, 5), density=0.4, random_state=np.random.default_rng(0), format="coo")
    scipy.io.mmwrite(tmp_path / "a.mtx", matrix, precision=17)
    np.testing.assert_array_equal(np.nan_to_num(filled(read_problem(tmp_path / "a.mtx"))), matrix.toarray())


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("coordinate complex general\n2 2 1\n1 1 2 3\n", "field 'complex'; expected real or integer"),
        ("coordinate pattern general\n2 2 1\n1 1\n", "field 'pattern'"),
        ("array complex general\n1 1\n1 2\n", "field 'complex'"),
        ("coordinate real general\n2 2 1\n1 1 nan\n", "the data has 1 NaN"),
        ("coordinate real general\n2 2 0\n", "no entry is observed"),
        ("array real general\n1 2\nnan\nnan\n", "no entry of the 1 x 2 matrix"),
        ("coordinate real general\n2 2 1\n5 5 1\n", "not a Matrix Market file"),
        ("coordinate real general\n2 2 9\n1 1 1\n", "not a Matrix Market file"),
    ],
)
def test_bad_matrix_market(tmp_path, text, match):
    refused(tmp_path, "a.mtx", f"%%MatrixMarket matrix {text}", match)


@pytest.mark.parametrize("text", ["", "hello\n", b"\xff\x00\x93"])
def test_not_matrix_market(tmp_path, text):
    refused(tmp_path, "a.mtx", text, "not a Matrix Market file")


# NumPy files


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"b": np.ones(2), "thing": np.ones(2)}, "the arrays are b, thing; expected b with matrices"),
        ({"matrices": np.ones((2, 2, 2))}, "the arrays are matrices"),
        ({"b": np.ones(2), "matrices": np.ones((2, 2, 2)), "left": np.ones((2, 2))}, "the arrays are"),
        ({"b": np.ones(2), "rows": [0, 1], "cols": [0, 1], "shape": [2, 2], "weight": [1.0, 1.0]}, "weight"),
        ({"b": np.ones(3), "matrices": np.ones((2, 2, 2))}, r"b has shape \(3,\); expected \(2,\)"),
        ({"b": np.array([1.0, np.nan]), "matrices": np.ones((2, 2, 2))}, "b has 1 NaN"),
        ({"b": np.ones(2) * 1j, "matrices": np.ones((2, 2, 2))}, "b has dtype complex128"),
        ({"b": np.ones(2), "matrices": np.ones((2, 2))}, "matrices has shape"),
        ({"b": np.ones(2), "left": np.ones((2, 3)), "right": np.ones((3, 3))}, "right has 3 rows"),
        ({"b": np.ones(2), "rows": [0, 2], "cols": [0, 1], "shape": [2, 2]}, "rows has values from 0 to 2"),
        ({"b": np.ones(2), "rows": [0.0, 1.0], "cols": [0, 1], "shape": [2, 2]}, "rows has dtype float64"),
        ({"b": np.ones(2), "rows": [0, 1], "cols": [0, 1], "shape": [2.0, 2.0]}, r"shape\[0\] is 2.0"),
        ({"b": np.ones(2), "rows": [0, 1], "cols": [0, 1], "shape": 2}, "shape is 2; expected a pair"),
        ({"matrix": np.ones(3)}, "the matrix has shape"),
        ({"matrix": np.array([["a"]])}, "the matrix has dtype"),
        ({"matrix": np.full((2, 2), np.nan)}, "no entry of the 2 x 2 matrix"),
        ({"matrix": np.ones((2, 2)), "truth": np.ones((2, 3))}, "truth has shape"),
        ({"b": np.array([{}], dtype=object), "matrices": np.ones((1, 2, 2))}, "Python objects"),
        ({}, "the arrays are none"),
    ],
)
def test_bad_npz(tmp_path, content, match):
    refused(tmp_path, "a.npz", npz(**content), match)


class _Trap:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_nothing_in_a_file_is_executed(tmp_path, name):
    trap = _Trap(tmp_path / "sprung")
    for content in (pickle.dumps(trap), npy(np.array([trap], dtype=object)), npz(matrix=np.array([trap], dtype=object))):
        refused(tmp_path, name, content, "NumPy|archive")
    assert not trap.path.exists()


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.npz", npz(matrix=np.ones((9, 9)))[:-10], "not a NumPy file"),
        ("a.npy", npy(np.ones((9, 9)))[:-10], "not a NumPy file"),
        ("a.npz", b"", "not a NumPy file"),
        ("a.npy", b"1,2,3", "not a NumPy file"),
        ("a.npz", npy(np.ones((2, 2))), "one .npy array"),
        ("a.npy", npz(matrix=np.ones((2, 2))), "an .npz archive"),
        ("a.npy", npy(np.ones((2, 2)) * 1j), "complex128"),
        ("a.npy", npy(np.ones((2, 2, 2))), "expected 2 dimensions"),
        ("a.npy", npy(np.array([[1.0, np.inf]])), "infinite"),
        ("a.npy", npy(np.empty((0, 3))), "no entry"),
    ],
)
def test_bad_numpy_files(tmp_path, name, content, match):
    refused(tmp_path, name, content, match)


def test_flipped_bytes_are_noticed_or_harmless(tmp_path):
    rng = np.random.default_rng(0)
    whole = npz(b=rng.standard_normal(3), matrices=rng.standard_normal((3, 2, 2)))
    for place in rng.choice(len(whole), 80, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        with contextlib.suppress(ValueError):  # any other exception fails the test
            read_text(tmp_path, "a.npz", bytes(damaged))


# Paths


@pytest.mark.parametrize(("name", "match"), [("a.xlsx", "the extension is '.xlsx'"), ("a", "the extension is ''")])
def test_unknown_extension(tmp_path, name, match):
    refused(tmp_path, name, "1,2\n3,4", match)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_problem(tmp_path / "a.csv")


def test_folder(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(ValueError, match="this is a folder"):
        read_problem(tmp_path / "a.csv")


def test_extension_in_capitals(tmp_path):
    assert read_text(tmp_path, "A.CSV", "1,2,3,4").A.m == 4


def test_write_refuses_what_it_cannot_write(tmp_path):
    A = gaussian(3, (2, 2), rng=0)
    with pytest.raises(ValueError, match=r"expected the extension \.npz"):
        write_problem(tmp_path / "a.csv", A, np.ones(3))
    with pytest.raises(ValueError, match="b has shape"):
        write_problem(tmp_path / "a.npz", A, np.ones(2))
    with pytest.raises(ValueError, match="truth has shape"):
        write_problem(tmp_path / "a.npz", A, np.ones(3), np.ones((2, 3)))
    with pytest.raises(ValueError, match="expected Dense, RankOne or Entries"):
        write_problem(tmp_path / "a.npz", "A", np.ones(3))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    A, path = gaussian(3, (2, 2), rng=0), tmp_path / "a.npz"
    write_problem(path, A, np.ones(3))
    before = path.read_bytes()

    def full_disk(stream, **_):
        stream.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_problem(path, A, np.zeros(3))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def test_array_files_that_python_2_wrote(tmp_path):
    """NumPy warns of them; they are read, and those that only look like it are refused, without a word on the terminal."""
    path = tmp_path / "old.npy"
    np.save(path, np.array([[1.0, np.nan], [2.0, 3.0]]))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(2, 2), }  ", b"(2L, 2L), }"))
    assert read_problem(path).b.tolist() == [1.0, 2.0, 3.0]
    path.write_bytes(
        content.replace(
            b"<f8', 'fortran_order': False, 'shape': (2, 2), }    ", b"<f1e999', 'fortran_order': False, 'shape': (2, 2), }"
        )
    )
    with pytest.raises(ValueError, match="not a NumPy file of plain arrays"):
        read_problem(path)
