"""Every layout ends in the reading that was meant or in a refusal that names the option; the page of the docs shows them."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from balancedfact.io import read_problem
from tests.data_layouts import LAYOUTS, Layout

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "tables.md"
START, END = "<!-- layouts: begin -->", "<!-- layouts: end -->"


def written(layout: Layout, folder: Path) -> Path:
    path = folder / layout.file
    content = layout.text if isinstance(layout.text, bytes) else layout.text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def entries(problem) -> dict[tuple[str, str], float]:
    rows = problem.row_labels or list(map(str, range(problem.A.matrix_shape[0])))
    cols = problem.col_labels or list(map(str, range(problem.A.matrix_shape[1])))
    return {(rows[r], cols[c]): v for r, c, v in zip(problem.A.rows, problem.A.cols, problem.b, strict=True)}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_layout(tmp_path, layout):
    path = written(layout, tmp_path)
    if isinstance(layout.means, str):
        with pytest.raises(ValueError, match=re.escape(layout.means)) as caught:
            read_problem(path)
        assert "\n" not in str(caught.value)
    else:
        problem = read_problem(path)
        assert entries(problem) == layout.means
        assert problem.reading


def test_there_are_forty_and_their_names_differ():
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS) >= 40


def table(folder: Path) -> str:
    lines = ["| layout | first lines | read as |", "|---|---|---|"]
    for k, layout in enumerate(LAYOUTS):
        place = folder / str(k)
        place.mkdir()
        path = written(layout, place)
        try:
            answer = read_problem(path).reading
        except ValueError as error:
            answer = f"refused: {error}".replace(f"{path}: ", "")
        text = layout.text.decode(errors="replace") if isinstance(layout.text, bytes) else layout.text
        shown = "<br>".join(f"`{line}`" for line in text.lstrip("\ufeff").replace("\t", "⇥").replace("|", "¦").splitlines()[:2])
        lines.append(f"| {layout.name} (`{layout.file}`) | {shown} | {answer.replace('|', '¦')} |")
    return "\n".join(lines)


def test_the_page_shows_what_happens(tmp_path):
    """Regenerate with ``python -m tests.data.test_layouts``."""
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(START)[2].partition(END)[0].strip() == table(tmp_path)


# What the user says decides


FORMS = [
    ("1,2,3\n4,5,6\n", {"columns": "1,2,3"}, {("1", "2"): 3, ("4", "5"): 6}),
    ("1,2,3\n4,5,6\n", {"columns": [3, 1, 2]}, {("3", "1"): 2, ("6", "4"): 5}),
    ("1,2,3\n4,5,6\n", {"format": "triplets"}, {("1", "2"): 3, ("4", "5"): 6}),
    ("1,2,3\n", {"format": "matrix"}, {("0", "0"): 1, ("0", "1"): 2, ("0", "2"): 3}),
    ("a,b,c\n1,2,3\n4,5,6\n", {"columns": "c,a,b"}, {("3", "1"): 2, ("6", "4"): 5}),
    ("stars,userId,movieId\n5,1,2\n4,1,3\n", {"columns": "user,item,value"}, {("1", "2"): 5, ("1", "3"): 4}),
    ("userId,movieId,rating\n1,2,3\n", {"format": "matrix"}, {("1", "movieId"): 2, ("1", "rating"): 3}),
    ("user,item,rating,score\n1,2,3,7\n", {"columns": ["user", "item", "score"]}, {("1", "2"): 7}),
    ("a,b\n0,5\n1,6\n2,7\n", {"columns": "a"}, {("0", "b"): 5, ("1", "b"): 6, ("2", "b"): 7}),
    ("a,b\n1,5\n2,\n3,\n", {"columns": "none"}, {("0", "a"): 1, ("0", "b"): 5, ("1", "a"): 2, ("2", "a"): 3}),
    ("0,1\n4.5,\n,1.5\n", {"header": True}, {("0", "0"): 4.5, ("1", "1"): 1.5}),
    ("0,1,2,3,4\n", {"header": False}, {("0", str(k)): k for k in range(5)}),
    ("0,1,2\n0,5,3\n0,6,4\n", {"columns": "1,2,3"}, {("0", "1"): 2, ("0", "5"): 3, ("0", "6"): 4}),
    ("land,1,2\nFR,4,\n", {"header": True}, {("FR", "1"): 4}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "options", "means"), FORMS, ids=lambda value: str(value)[:40])
def test_options_decide(tmp_path, text, options, means):
    (tmp_path / "a.csv").write_text(text)
    found = entries(read_problem(tmp_path / "a.csv", **options))
    assert {key: float(value) for key, value in means.items()}.items() <= found.items()
    assert len(found) == len(means)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"columns": "user,item,sum"},
            "the header has 'userId', 'movieId', 'rating'; expected its names, or numbers from 1 to 3",
        ),
        ({"columns": "1,2,4"}, "--columns names column 4; expected 1 to 3"),
        ({"columns": "1,2,2"}, "names a column twice"),
        ({"columns": "1,2"}, "names 2 columns; expected three"),
        ({"format": "table"}, "format is 'table'; expected 'triplets' or 'matrix'"),
    ],
)
def test_bad_options(tmp_path, options, match):
    (tmp_path / "a.csv").write_text("userId,movieId,rating\n1,2,3\n1,3,4\n")
    with pytest.raises(ValueError, match=match):
        read_problem(tmp_path / "a.csv", **options)


def test_parquet_pictures_and_sparse_files(tmp_path):
    import scipy.sparse as sp
    from PIL import Image

    sp.save_npz(tmp_path / "a.npz", sp.csr_array(np.array([[0.0, 2.0], [3.0, 0.0]])))
    problem = read_problem(tmp_path / "a.npz")
    assert entries(problem) == {("0", "1"): 2.0, ("1", "0"): 3.0}

    pixels = np.zeros((3, 4, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[0, 0] = (255, 255, 255, 255)
    pixels[2, 3] = 0
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    problem = read_problem(tmp_path / "a.png")
    assert problem.A.m == 11
    assert problem.b[0] == pytest.approx(1.0)
    assert problem.b[1:].max() == 0.0

    polars = pytest.importorskip("polars")
    polars.DataFrame({"rating": [4.0, 3.5], "userId": [1, 2], "title": ["Ran", "Alien"]}).write_parquet(tmp_path / "a.parquet")
    assert entries(read_problem(tmp_path / "a.parquet")) == {("1", "Ran"): 4.0, ("2", "Alien"): 3.5}


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
        PAGE.write_text(f"{before}{START}\n\n{table(Path(name))}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
