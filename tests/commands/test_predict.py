"""From a ratings file to predictions, by the command line."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.cli import main

RNG = np.random.default_rng(0)
LEVELS = 3 + RNG.standard_normal((12, 1)) + RNG.standard_normal(9) + RNG.standard_normal((12, 1)) * RNG.standard_normal(9)
SEEN = RNG.random(LEVELS.shape) < 0.7


@pytest.fixture(autouse=True)
def _ratings(tmp_path, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    rows = [(100 + r, 10 * c, LEVELS[r, c]) for r, c in np.argwhere(SEEN)]
    Path("ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n" + "".join(f"{r},{c},{float(v)!r},964982703\n" for r, c, v in rows)
    )
    Path("pairs.csv").write_text("movieId,userId\n20,105\n20,999\n777,105\n")


def table(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


@pytest.mark.slow
def test_predictions_and_top_of_a_raw_file(capsys):
    command = ["solve", "ratings.csv", "--penalty", "auto", "--offsets", "--tol", "1e-6"]
    assert main([*command, "--predict", "pairs.csv", "--top", "2", "--complete", "csv", "--out", "out"]) == 0
    out = capsys.readouterr().out
    assert "rows from 'userId' (12: 100 to 111)" in out
    assert "not used: timestamp" in out
    report = json.loads(Path("out/report.json").read_text())
    assert (report["problem"]["rows"], report["problem"]["columns"]) == (12, 9)
    header, *lines = table("out/predictions.csv")
    assert header == ["userId", "movieId", "value", "known"]
    assert [(row, col, known) for row, col, _, known in lines] == [("105", "20", "1"), ("999", "20", "0"), ("105", "777", "0")]
    solution = bf.Solution.load("out/solution.npz")
    assert solution.row_labels == [str(100 + k) for k in range(12)]
    mean, rows, cols = solution.offsets
    expected = [solution.matrix[5, 2] + mean + rows[5] + cols[2], mean + cols[2], mean + rows[5]]
    np.testing.assert_allclose([float(line[2]) for line in lines], expected)

    full = solution.matrix + mean + rows[:, None] + cols
    best = table("out/top.csv")
    assert best[0] == ["row", "column", "value"]
    for k in range(12):
        unseen = np.flatnonzero(~SEEN[k])
        order = unseen[np.argsort(-full[k, unseen])][:2]
        mine = [(col, float(value)) for row, col, value in best[1:] if row == str(100 + k)]
        assert [col for col, _ in mine] == [str(10 * j) for j in order]
        np.testing.assert_allclose([value for _, value in mine], full[k, order])
    completed = table("out/completed.csv")
    assert completed[0] == ["", *(str(10 * k) for k in range(9))]
    np.testing.assert_allclose([[float(cell) for cell in row[1:]] for row in completed[1:]], full)

    assert main(["predict", "out/solution.npz", "pairs.csv"]) == 0
    assert capsys.readouterr().out == Path("out/predictions.csv").read_text()
    assert main(["predict", "out", "pairs.csv", "--out", "again.csv"]) == 0
    assert Path("again.csv").read_text() == Path("out/predictions.csv").read_text()

    for start in ("out/solution.npz", "out"):
        assert main([*command, "--from", start, "--out", "warm", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "none.npz", "pairs.csv"], "SOLUTION is 'none.npz'"),
        (["solve", "ratings.csv", "--predict", "none.csv"], "none.csv: no such file"),
        (["solve", "ratings.csv", "--top", "0"], "--top is 0; expected at least 1"),
        (["solve", "ratings.csv", "--from", "none.npz"], "--from is 'none.npz'"),
        (["solve", "ratings.csv", "--columns", "user,item,sum"], "--columns names 'sum'"),
    ],
)
def test_refusals(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_options_say_how_a_table_is_read(capsys):
    Path("a.csv").write_text("3,4,5\n4,4,2\n3,1,1\n")
    assert main(["solve", "a.csv", "--out", "x"]) == 2
    assert "--format matrix" in capsys.readouterr().err
    assert main(["solve", "a.csv", "--format", "matrix", "--out", "matrix"]) == 0
    assert main(["solve", "a.csv", "--columns", "1,2,3", "--out", "entries"]) == 0
    shapes = [json.loads(Path(f"{name}/report.json").read_text())["problem"]["measurements"] for name in ("matrix", "entries")]
    assert shapes == [9, 3]


def test_evidence_has_a_status_of_its_own():
    Path("small.csv").write_text(
        "user,item,value\n" + "".join(f"{r},{c},{(r + 1) * (c + 1)}\n" for r in range(3) for c in range(3) if r + c)
    )
    assert main(["solve", "small.csv", "--depth", "3", "--quiet"]) in (0, 3)
    status = json.loads(Path("small-flat/report.json").read_text())["status"]
    assert main(["solve", "small.csv", "--depth", "3", "--quiet"]) == {"optimal": 0, "stationary": 3}[status]
