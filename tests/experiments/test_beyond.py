"""The experiments beyond the published figures at a tiny scale, against plain loops and the definitions."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import matplotlib.image
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import balancedfact as bf
from balancedfact.experiments._runner import reproduce
from balancedfact.experiments._table import Table
from balancedfact.experiments.figures import FIGURES, _critical_step, _flow_ratio, _label_noise_limit
from tests.oracles import hessian

TINY = {
    "beyond-1": {
        "inputs": 3,
        "cases": {"white": [1.0, True, 1500], "weak": [9.0, False, 3000]},
        "depths": [2, 3],
        "deepest_small": 2,
        "repetitions": 2,
        "grid": 7,
        "rounds": 2,
    },
    "beyond-2": {
        "samples": 30,
        "depths": [2, 3],
        "conditions": [1.5, 20.0],
        "ascents": 2,
        "trials": 120,
        "flows": [[2, 20.0], [3, 20.0]],
    },
    "beyond-3": {
        "size": 5,
        "rank": 1,
        "measurements": [20],
        "stages": 4,
        "first": 1500,
        "repetitions": 2,
        "decays": [0.0, 0.5],
        "quiet": 1000,
    },
}


def tiny(name, **more):
    figure = FIGURES[name]
    return replace(figure, scales={"quick": dict(figure.scales["quick"]) | TINY[name] | more})


@cache
def table(name):
    return plainly(tiny(name))


def plainly(figure):
    """The rows of all units, one after the other."""
    settings = figure.scales["quick"]
    units = figure.units(settings)
    rows = [row for index, unit in enumerate(units) for row in figure.run(settings, unit, figure.generator(settings, index))]
    return Table(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_every_experiment_leaves_a_table_and_a_legible_picture(name, tmp_path):
    brief = {"stages": 2, "repetitions": 1, "first": 20, "quiet": 50, "tols": [1e-6], "depths": [2]}
    figure = tiny(name, **brief if name == "beyond-3" else {})
    with ThreadPoolExecutor(1) as executor:
        found = reproduce(figure, "quick", tmp_path, executor, progress=False)
    for row, other in zip(found.rows, plainly(figure).rows, strict=True):
        assert list(row) == list(other)
        for key, value in row.items():
            assert value == other[key] or key == "seconds" or (np.isnan(value) and np.isnan(other[key]))
    picture = matplotlib.image.imread(tmp_path / f"{name}.png")
    assert min(picture.shape[:2]) > 300
    assert picture[..., :3].std() > 0.02


@pytest.mark.parametrize("name", TINY)
def test_paper_and_quick_scale_have_the_same_settings(name):
    scales = FIGURES[name].scales
    assert set(scales["paper"]) == set(scales["quick"])
    for settings in scales.values():
        assert FIGURES[name].units(settings)


# beyond-1


def plain_descent(layers, readout, sigma, w, step, iterations):
    """Excess risks before and after gradient descent, with the gradient of each layer by the product rule."""

    def vector(layers):
        return np.linalg.multi_dot([readout[None], *layers[::-1]])[0]

    def risk(layers):
        return (vector(layers) - w) @ sigma @ (vector(layers) - w)

    layers = [layer.copy() for layer in layers]
    first = risk(layers)
    with np.errstate(all="ignore"):
        for _ in range(iterations):
            outer = 2 * sigma @ (vector(layers) - w)
            gradients = []
            for k in range(len(layers)):
                above, below = readout, outer
                for layer in layers[:k:-1]:
                    above = layer.T @ above
                for layer in layers[:k]:
                    below = layer @ below
                gradients.append(np.outer(above, below))
            layers = [layer - step * gradient for layer, gradient in zip(layers, gradients, strict=True)]
            if not np.isfinite(risk(layers)):
                return first, np.inf
        return first, risk(layers)


@pytest.mark.parametrize(("case", "kind"), list(itertools.product(["white", "weak"], ["flattest", "residual", "small"])))
def test_bisection_finds_what_a_scan_with_a_plain_loop_finds(case, kind):
    figure = tiny("beyond-1", cases={"white": [1.0, True, 250], "weak": [9.0, False, 250]}, repetitions=1, rounds=1, fall=0.05)
    settings = figure.scales["quick"]
    unit = {"kind": "run", "case": case, "depth": 2, "start": kind}
    layers, readout = _critical_step.start(settings, unit, np.random.default_rng(4))
    sigma, w = _critical_step.problem(settings, case)
    scan = np.geomspace(0.05, 2.0, 7)
    learned = []
    for step in scan:
        p = np.ones(1) if readout is None else readout
        before, after = plain_descent([layer[0] for layer in layers], p, sigma, w, step, 250)
        learned.append(after <= 0.05 * before)
    expected = max(step for step, good in zip(scan, learned, strict=True) if good) if any(learned) else np.nan
    found = _critical_step.bisect(settings, case, layers, readout, 0.05, 2.0)
    assert found == pytest.approx([expected], rel=1e-12, nan_ok=True)
    # The second round lies between that point and the next, and is one of the points of a scan of that gap.
    finer = _critical_step.bisect(settings | {"rounds": 2}, case, layers, readout, 0.05, 2.0)
    if np.isfinite(expected) and expected < 2.0:
        gap = np.geomspace(expected, scan[list(scan).index(expected) + 1], 7)
        good = [step for step in gap if np.subtract(*_scaled(layers, readout, sigma, w, step)) >= 0]
        assert finer == pytest.approx([max(good)], rel=1e-12)


def _scaled(layers, readout, sigma, w, step):
    p = np.ones(1) if readout is None else readout
    before, after = plain_descent([layer[0] for layer in layers], p, sigma, w, step, 250)
    return 0.05 * before, after


def test_no_step_that_learns_is_nan_and_all_steps_are_the_highest():
    settings = tiny("beyond-1").scales["quick"] | {"rounds": 3}
    unit = {"kind": "run", "case": "white", "depth": 2, "start": "flattest"}
    layers, readout = _critical_step.start(settings, unit, np.random.default_rng(0))
    assert np.isnan(_critical_step.bisect(settings, "white", layers, readout, 3.0, 9.0)).all()
    assert _critical_step.bisect(settings, "white", layers, readout, 0.05, 0.2) == pytest.approx([0.2, 0.2], rel=1e-12)


@pytest.mark.parametrize("case", ["white", "weak"])
@pytest.mark.parametrize("depth", [2, 3])
def test_predictions_against_dense_hessians(case, depth):
    settings = tiny("beyond-1").scales["quick"]
    sigma, w = _critical_step.problem(settings, case)
    values = _critical_step.predictions(settings, case, depth)
    matrices = np.sqrt(3 * sigma)[:, None, :]
    b = matrices[:, 0] @ w

    def sharpest(layers):
        return np.linalg.eigvalsh(hessian(layers, matrices, b))[-1]

    widths = [3] * depth + [1]
    flattest = bf.closed_forms.flattest_regression_layers(sigma, w, widths)
    limit = bf.closed_forms.rank_one_limit(w, widths)
    assert values["2 / exact minimal sharpness"] == pytest.approx(2 / sharpest(flattest), rel=1e-9)
    assert values["2 / sharpness of the rank-one limit"] == pytest.approx(2 / sharpest(limit), rel=1e-9)
    assert values["2 / published bound"] == pytest.approx(1 / (depth * (w @ sigma @ w)), rel=1e-12)


def test_beside_the_flattest_minimiser_the_critical_step_is_that_of_the_exact_sharpness():
    runs = table("beyond-1").where(kind="run", start="flattest")
    assert len(runs) == 8
    assert runs["over 2 / exact minimal sharpness"] == pytest.approx(np.ones(8), abs=0.15)  # the grid has this much
    assert np.all(runs["over 2 / exact minimal sharpness"] < 1.01)
    for row in runs.rows:
        reference = table("beyond-1").where(kind="reference", case=row["case"], depth=row["depth"])
        for other in reference.rows:
            assert row[f"over {other['name']}"] == pytest.approx(row["critical"] / other["value"], rel=1e-12)


# beyond-2


def definition(values, w, depth):
    """The ratio, by minimising the largest eigenvalue over the one scale that is free."""
    root = np.sqrt(values) * w / np.linalg.norm(w)

    def top(log_s):
        s = np.exp(log_s)
        return np.linalg.eigvalsh(s * np.diag(values) + (depth - 1) * s ** (-1 / (depth - 1)) * np.outer(root, root))[-1]

    least = minimize_scalar(top, bounds=(-25, 5), method="bounded", options={"xatol": 1e-10}).fun
    return top(0.0) / least


@pytest.mark.parametrize("depth", [2, 3, 7])
@pytest.mark.parametrize("condition", [1.0, 3.0, 50.0, 4000.0])
def test_the_weakest_direction_has_the_stated_ratio_and_none_exceeds_the_bound(depth, condition):
    values = np.array([1.0, 1 / condition])
    expected = definition(values, np.array([0.0, 1.0]), depth)
    assert _flow_ratio.weakest_direction(condition, depth) == pytest.approx(expected, rel=1e-6)
    bound = _flow_ratio.upper_bound(condition, depth)
    assert expected <= bound <= 4 * condition
    rng = np.random.default_rng(7)
    for _ in range(30):
        spectrum = np.concatenate([values, condition ** -rng.random(2)])
        w = rng.standard_normal(4) * spectrum ** -rng.random()
        found = _flow_ratio.ratio(spectrum, w, depth)
        assert found == pytest.approx(definition(spectrum, w, depth), rel=1e-6)
        assert 1 - 1e-12 <= found <= bound


def test_the_bound_is_asymptotically_attained_and_has_its_stated_form():
    assert _flow_ratio.upper_bound(8.0, 5) == pytest.approx(1.5 * 0.5**-0.8, rel=1e-14)
    for depth in (2, 3, 10):
        assert _flow_ratio.weakest_direction(1e7, depth) == pytest.approx(_flow_ratio.upper_bound(1e7, depth), rel=1e-5)


@pytest.mark.slow
def test_search_finds_the_weakest_direction_and_flows_reach_it():
    for row in table("beyond-2").where(kind="search", condition=20.0).rows:
        assert row["ratio"] == pytest.approx(_flow_ratio.weakest_direction(20.0, row["depth"]), rel=1e-3)
    for row in table("beyond-2").where(kind="search", condition=1.5).rows:
        assert 1 < row["ratio"] < 1.01  # the worst is a mixture of directions here, and worse than the weakest one
    for row in table("beyond-2").where(kind="flow").rows:
        assert row["ratio"] == pytest.approx(row["predicted"], rel=1e-4)
        assert row["predicted"] == pytest.approx(_flow_ratio.weakest_direction(20.0, row["depth"]), rel=1e-9)
        assert row["distance"] < 1e-8
    sample = table("beyond-2").where(kind="random")
    assert len(sample) == 60
    assert sample["condition"].max() > 100 * sample["condition"].min()


# beyond-3


@pytest.mark.slow
def test_fitted_weights_fit_and_are_no_flatter_than_the_solution():
    ours = table("beyond-3")
    runs = ours.where(kind="run")
    assert len(runs) == 2 * 2 * 2 * 4
    assert runs["rest"].max() < 1e-20
    for depth in (2, 3):
        solver = ours.where(kind="solver", depth=depth)
        assert set(solver["status"]) <= {"optimal", "stationary"}
        assert np.ptp(solver["trace"]) < 1e-6 * solver["trace"][-1]
        assert runs.where(depth=depth)["trace"].min() > solver["trace"][-1] * (1 - 1e-9)


@pytest.mark.slow
def test_label_noise_approaches_the_trace_of_the_solution():
    settings = tiny("beyond-3").scales["quick"]
    for depth in (2, 3):
        steps, seconds, values = _label_noise_limit.excess(settings, table("beyond-3"), depth, 20, 0.5)
        assert steps.tolist() == [1500, 4500, 10500, 22500]
        assert np.all(np.diff(seconds) > 0)
        assert values.shape == (2, 4)
        assert values.mean(axis=0)[-1] < 0.3 * values.mean(axis=0)[0]
        chosen = table("beyond-3").where(kind="run", depth=depth, decay=0.5)
        assert chosen.where(repetition=0)["step"] == pytest.approx(0.02 / np.sqrt([1, 2, 4, 8]))
        traces = np.array([chosen.where(repetition=repetition)["trace"] for repetition in (0, 1)])
        least = table("beyond-3").where(kind="solver", depth=depth, tol=1e-10)["trace"][0]
        np.testing.assert_allclose(values, traces / least - 1, rtol=1e-9)


def test_a_stage_is_sgd_with_its_step_and_one_stream_of_randomness():
    settings = tiny("beyond-3").scales["quick"] | {"stages": 2, "first": 10, "quiet": 20}
    A, b = _label_noise_limit.problem(settings, 20)
    unit = {"kind": "run", "depth": 2, "measurements": 20, "decay": 0.5, "repetition": 0}
    rows = _label_noise_limit.run(settings, unit, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    first, second = (0.7 / np.sqrt(5) * rng.standard_normal((5, 5)) for _ in range(2))
    for stage, length in enumerate((10, 20)):
        for _ in range(length):
            index = rng.integers(0, 20, 10)
            residual = A(second @ first)[index] - (b[index] - rng.standard_normal(10))
            gradient = 2 / 10 * np.tensordot(residual, A.matrices[index], axes=1)
            change = 0.02 * 2 ** (-stage / 2) * gradient
            first, second = first - second.T @ change, second - change @ first.T
        assert rows[stage]["train"] == pytest.approx(np.mean((A(second @ first) - b) ** 2), rel=1e-9)
        assert rows[stage]["raw_trace"] == pytest.approx(np.trace(hessian([first, second], A.matrices, b)), rel=1e-9)
