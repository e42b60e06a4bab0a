import json

import matplotlib.image
import numpy as np
import pytest

import balancedfact as bf
from balancedfact.experiments import EXAMPLES
from balancedfact.experiments._elevation import elevation_problem, mean_filling
from balancedfact.experiments._example import Example, print_errors, solution_report, write_report
from balancedfact.experiments._scan import scan_problem
from balancedfact.measurements import Entries
from balancedfact.solution import Solution, Status


def test_the_elevation_problem():
    truth, A, rare = elevation_problem()
    assert truth.shape == A.matrix_shape == (344, 403)
    assert truth.dtype == np.float64
    assert 200 < truth.min() < truth.max() < 2000  # metres, in Tennessee
    seen = np.zeros(truth.shape)
    seen[A.rows, A.cols] += 1
    assert A.m == seen.sum()  # each entry once
    assert rare.sum() == 4 * 30
    np.testing.assert_allclose(seen[~rare].mean(), 0.35, atol=0.01)
    np.testing.assert_allclose(seen[rare].mean(), 0.05, atol=0.005)
    assert seen.sum(axis=1).min() > 0
    assert seen.sum(axis=0).min() > 0
    np.testing.assert_array_equal(A(truth), truth[A.rows, A.cols])


def test_the_elevation_problem_is_always_the_same():
    (truth, A, _), (again, B, _) = elevation_problem(), elevation_problem()
    np.testing.assert_array_equal(truth, again)
    np.testing.assert_array_equal(A.rows, B.rows)
    np.testing.assert_array_equal(A.cols, B.cols)


def test_mean_filling_adds_row_and_column_means():
    A = Entries([0, 0, 1, 3], [0, 1, 0, 2], (4, 4))
    b = np.array([1.0, 3.0, 5.0, 7.0])  # of mean 4; rows 2, 5, -, 7; columns 3, 3, 7, -
    rows, cols = np.array([-2.0, 1.0, 0.0, 3.0]), np.array([-1.0, -1.0, 3.0, 0.0])
    np.testing.assert_allclose(mean_filling(A, b), 4 + rows[:, None] + cols)
    np.testing.assert_allclose(mean_filling(A, np.full(4, 2.5)), 2.5)


def test_the_scan_problem():
    truth, A, b = scan_problem()
    assert truth.shape == A.matrix_shape == (64, 64)
    assert (truth.min(), truth.max()) == (0.0, 1.0)
    # A head on a dark background: neighbours are alike.
    assert truth[[0, -1]].mean() < 0.1 * truth.mean()
    assert np.abs(np.diff(truth, axis=0)).mean() < 0.25 * truth.std()
    assert A.m == b.size == 2000
    noise = b - A(truth)
    np.testing.assert_allclose(noise.std(), 0.1 * A(truth).std(), rtol=0.05)
    again = scan_problem()
    np.testing.assert_array_equal(again[2], b)


def test_examples_have_names_and_summaries():
    assert set(EXAMPLES) == {"elevation", "scan"}
    for example in EXAMPLES.values():
        assert example.summary
        assert "\n" not in example.summary


def test_an_example_returns_its_exit_status(tmp_path):
    seen = []
    example = Example("a summary", lambda out: seen.append(out) or 3)
    assert example(tmp_path) == 3
    assert seen == [tmp_path]


def test_the_report_of_a_solution(tmp_path):
    A = Entries([0, 0, 1], [0, 1, 0], (2, 2))
    solution = bf.flat_minimum(A, [1.0, 2.0, 3.0], rng=0)
    report = solution_report(solution)
    assert report["status"] == "optimal"
    assert report["rank"] == solution.pair[0].shape[1]
    assert report["iterations"] == solution.history["iteration"].size
    assert report["value"] == solution.value
    assert report["gap"] == solution.certificate.gap
    write_report(tmp_path, {"flat": report, "numbers": [1, 2]})
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["flat"] == {name: None if number != number else number for name, number in report.items()}
    assert content["versions"]["numpy"] == np.__version__
    assert content["versions"]["balancedfact"] == bf.__version__
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_errors_are_printed_one_method_a_line(capsys):
    print_errors("a title", ["here", "there"], {"first": [1.23456, 2.0], "second": [1e-9, 1e9]})
    lines = capsys.readouterr().out.splitlines()
    for words in (("a title",), ("here", "there"), ("first", "1.235", "2"), ("second", "1e-09", "1e+09")):
        assert any(all(word in line for word in words) for line in lines)


def assert_picture(path):
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 400
    assert pixels[..., :3].std() > 0.05


def western_half():
    """The elevation problem without the columns from 200 on, which takes a quarter of the time."""
    truth, A, rare = elevation_problem()
    west = A.cols < 200
    return truth[:, :200], Entries(A.rows[west], A.cols[west], (truth.shape[0], 200)), rare


@pytest.mark.slow
def test_the_elevation_is_recovered_best_by_the_flattest_factorization(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("balancedfact.experiments._elevation.elevation_problem", western_half)
    out = tmp_path / "deep" / "elevation"
    assert EXAMPLES["elevation"](out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["elevation.png", "report.json", "solution.npz"]
    assert_picture(out / "elevation.png")
    report, solution = json.loads((out / "report.json").read_text()), Solution.load(out / "solution.npz")
    truth, A, rare = western_half()
    assert report["observed"] == A.m
    assert (report["flat"]["status"], report["nuclear_norm"]["status"]) == ("optimal", "optimal")
    assert report["flat"]["gap"] <= 1e-6
    assert solution.status is Status.OPTIMAL
    b = A(truth)
    np.testing.assert_allclose(solution.matrix[A.rows, A.cols], b - b.mean(), atol=1e-6)
    # The errors of the report, from the solution that was saved.
    hidden = np.ones(truth.shape, dtype=bool)
    hidden[A.rows, A.cols] = False
    error = solution.matrix + b.mean() - truth
    flat, nuclear, means = report["errors_m"].values()
    for name, part in (("all hidden", hidden), ("common rows", hidden & ~rare[:, None]), ("rare rows", hidden & rare[:, None])):
        np.testing.assert_allclose(flat[name], np.sqrt(np.mean(error[part] ** 2)), rtol=1e-9)
    assert flat["all hidden"] < nuclear["all hidden"] < 0.7 * means["all hidden"]
    assert flat["rare rows"] < 0.99 * nuclear["rare rows"]
    assert "root mean squared error" in capsys.readouterr().out


@pytest.mark.slow
def test_the_scan_is_recovered_best_with_the_penalty_that_was_held_out_for(tmp_path, capsys):
    assert EXAMPLES["scan"](tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "scan.png", "solution.npz"]
    assert_picture(tmp_path / "scan.png")
    report, solution = json.loads((tmp_path / "report.json").read_text()), Solution.load(tmp_path / "solution.npz")
    truth, A, b = scan_problem()
    penalised, exact, norm = report["relative_error"].values()
    np.testing.assert_allclose(penalised, np.linalg.norm(solution.matrix - truth) / np.linalg.norm(truth), rtol=1e-9)
    assert penalised < 0.97 * min(exact, norm)
    assert all(entry["status"] == "optimal" for entry in report["solutions"].values())
    # The penalised value from the definition.
    weighted = np.linalg.norm(A.D1 @ solution.matrix @ A.D2, "nuc")
    value = np.sum((A(solution.matrix) - b) ** 2) / 2 + report["penalty"] * weighted
    np.testing.assert_allclose(solution.value, value, rtol=1e-9)
    assert "distance to the true image" in capsys.readouterr().out
