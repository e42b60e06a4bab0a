"""A saved solution is checked against its data, by the command line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.cli import main


@pytest.fixture(autouse=True)
def _solved(tmp_path, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    M = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, -1.0, 2.0])
    lines = [f"{r},{c},{M[r, c]}" for r in range(4) for c in range(3) if (r, c) != (3, 2)]
    Path("data.csv").write_text("row,column,value\n" + "\n".join(lines) + "\n")
    assert main(["solve", "data.csv", "--out", "out", "--quiet"]) == 0


@pytest.mark.parametrize("options", [[], ["--rigorous"]])
def test_a_true_solution_is_proved_anew(options, capsys):
    assert main(["check", "out", "data.csv", *options]) == 0
    out = capsys.readouterr().out
    assert out.startswith("optimal: Checked: Optimal: no factorization of any width is better by more than")
    assert "objective: flat, 2 layers, penalty 0, no offsets\n" in out
    assert "lower_bound" in out
    assert ("in exact arithmetic" in out) == bool(options)


def test_a_forged_solution_is_found_out(capsys):
    found = bf.Solution.load("out/solution.npz")
    replace(found, layers=[2 * found.layers[0], found.layers[1]]).save("forged.npz")
    assert main(["check", "forged.npz", "data.csv"]) == 1
    assert "not reached" in capsys.readouterr().out
    X = found.matrix.copy()
    X[3, 2] += 1.0  # fits as well, but is not flattest
    U, s, Vt = np.linalg.svd(X)
    replace(found, layers=[np.sqrt(s)[:, None] * Vt, U[:, :3] * np.sqrt(s)]).save("other.npz")
    assert main(["check", "other.npz", "data.csv"]) == 1
    assert "may still be better" in capsys.readouterr().out


def test_a_looser_tolerance_is_met(capsys):
    assert main(["solve", "data.csv", "--out", "loose", "--tol", "1e-3", "--quiet"]) == 0
    assert main(["check", "loose", "data.csv", "--tol", "1e-3"]) == 0
    with pytest.raises(ValueError, match=r"^tol is -1\.0"):
        bf.Solution.load("loose/solution.npz", bf.measurements.Entries([0], [0], (4, 3)), [1.0], tol=-1.0)


def test_other_files_are_refused(capsys):
    assert main(["check", "nowhere.npz", "data.csv"]) == 2
    assert "SOLUTION is 'nowhere.npz'" in capsys.readouterr().err
    Path("small.csv").write_text("row,column,value\n0,0,1\n1,1,1\n")
    assert main(["check", "out", "small.csv"]) == 2
    assert main(["check", "out", "data.csv", "--tol", "0"]) == 2
