"""Which minimum training chooses: the experiments run, their numbers are those of the definitions, their pictures draw."""

from functools import cache

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.experiments._table import Table
from balancedfact.experiments.figures import FIGURES, _edge, _noise_chooses
from tests import oracles

TINY = {
    "beyond-4": {"depths": [2], "factors": [0.3, 0.6, 1.2], "repetitions": 1, "iterations": 3000},
    "beyond-5": {"sensing_ratios": [1, 10], "runs": 4, "time": 0.01, "regression_time": 0.05},
    "beyond-6": {"batches": [1, 16], "steps": [0.3], "runs": 4, "iterations": 3000},
    "beyond-7": {"radii": [0.1], "repetitions": 1, "iterations": 3000},
    "beyond-8": {"depths": [2], "scales": [1e-2], "repetitions": 2},
    "beyond-9": {"depths": [3], "stages": 2, "first": 20, "quiet": 50, "flow": [1e4, 1e8], "tols": [1e-8]},
}


@cache
def table(name):
    figure = FIGURES[name]
    settings = dict(figure.scales["quick"]) | TINY[name]
    rows = []
    for index, unit in enumerate(figure.units(settings)):
        rows += figure.run(settings, unit, figure.generator(settings, index))
    return figure, settings, Table(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_runs_draw_and_repeat(name):
    figure, settings, found = table(name)
    assert figure.draw(settings, found).axes
    unit = figure.units(settings)[-1]
    again = figure.run(settings, unit, figure.generator(settings, len(figure.units(settings)) - 1))
    timeless = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in rows] for rows in (again, found.rows)
    ]
    np.testing.assert_equal(timeless[0], timeless[1][-len(again) :])


def test_no_end_of_descent_is_sharper_than_its_step_allows():
    _, _, found = table("beyond-4")
    fitted = [row for row in found.rows if row["diverged"] < 0 and row["loss"] < 1e-10]
    assert fitted
    for row in fitted:
        assert 1 - 1e-9 <= row["sharpness"] <= 1 / row["factor"] * (1 + 1e-6)


def test_ends_of_sgd_are_stable():
    _, _, found = table("beyond-6")
    rooms = [row["room"] for row in found.rows if "room" in row]
    assert rooms
    assert min(rooms) > 0.99


def test_curvatures_are_never_below_the_least():
    _, _, found = table("beyond-7")
    for row in found.rows:
        assert row["trace"] >= 1 - 1e-6
        assert row["sharpness"] >= 1 - 1e-6


def test_diagonal_data_end_at_the_least_nuclear_norm():
    _, _, found = table("beyond-8")
    for row in found.where(pattern="diagonal 1, 1").rows:
        assert row["nuclear"] == pytest.approx(2.0, abs=1e-2)


@pytest.mark.parametrize("depth", [2, 3])
def test_least_sharpness_of_several_outputs_is_attained_and_not_beaten(depth, rng):
    X, M = rng.standard_normal((9, 3)), rng.standard_normal((2, 3))
    least, A = _edge.least_sharpness(X, M, depth), _edge.several_outputs(X, 2)
    U, s, Vt = np.linalg.svd(M, full_matrices=False)
    values = []
    for scale in np.geomspace(0.05, 20, 400):
        lower, other = scale**-0.5, scale ** (1 / (2 * depth - 2))
        layers = [lower * s[:, None] * Vt, *[other * np.eye(2)] * (depth - 2), other * U]
        values.append(bf.curvature.sharpness(layers, A, A(M)))
    assert min(values) == pytest.approx(least, rel=1e-3)
    assert min(values) >= least * (1 - 1e-9)
    direct = np.mean(np.sum((X @ M.T) ** 2, axis=1))
    assert np.mean(A(M) ** 2) == pytest.approx(direct)


def test_least_trace_is_that_of_the_best_scaling_of_the_certified_pair(rng):
    A = bf.measurements.gaussian(5, (3, 2), rng)
    b = A(np.outer(np.ones(3), np.ones(2)))
    least = _noise_chooses.least_trace(A, b)
    layers = bf.flat_minimum(A, b, rng=0).layers
    traces = [np.trace(oracles.hessian([c * layers[0], layers[1] / c], A.matrices, b)) for c in np.geomspace(0.5, 2, 80)]
    assert min(traces) == pytest.approx(least, rel=1e-3)
    assert min(traces) >= least * (1 - 1e-9)


def test_the_flow_of_label_noise_ends_at_the_flattest_network():
    _, settings, found = table("beyond-9")
    flow, solved = (found.where(kind=kind, depth=3) for kind in ("flow", "solver"))
    assert list(flow["iteration"]) == settings["flow"]
    np.testing.assert_allclose(flow["trace"][-1], solved["trace"][-1], rtol=1e-5)
    assert flow["trace"][0] > 1.01 * flow["trace"][-1]


def test_two_steps_are_extrapolated_to_none():
    unit = {"task": "regression", "problem": 0, "ratio": 3}
    steps = {"runs": (0.2, 0.04), "half": (0.1, 0.01)}
    rows = [unit | {"kind": kind, "excess": 0.5 + 0.3 * step, "error": error} for kind, (step, error) in steps.items()]
    np.testing.assert_allclose(_noise_chooses.small_steps(Table(rows), 0, 3), (0.5, np.hypot(0.04, 0.02)))


def test_equal_noise_of_the_outputs_stays_at_the_flattest_weights_and_unequal_noise_leaves_them():
    figure, settings, _ = table("beyond-5")
    unit = {"task": "regression", "problem": 0, "ratio": 1, "kind": "flow"}
    for ratio in (1, 10):
        row = figure.run(settings | {"regression_time": 2.0}, unit | {"ratio": ratio}, np.random.default_rng(0))[0]
        assert (abs(row["excess"]) < 1e-12) == (ratio == 1)
        assert (abs(row["least_noise"]) < 1e-12) == (ratio == 1)
