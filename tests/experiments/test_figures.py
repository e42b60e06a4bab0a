"""Every published figure at a tiny scale, against plain loops and closed forms written from the definitions."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, reduce
from math import erf

import autograd
import autograd.numpy as anp
import matplotlib.image
import numpy as np
import pytest
import scipy.special
from autograd.scipy.stats import norm
from scipy.optimize import minimize_scalar

import balancedfact as bf
from balancedfact.experiments._runner import reproduce
from balancedfact.experiments._table import Table
from balancedfact.experiments.figures import FIGURES, _label_noise, _sweep
from balancedfact.experiments.figures._depth import critical_step
from balancedfact.experiments.figures._legend import share
from balancedfact.experiments.figures._regression import chunks, interval, problem
from balancedfact.plots import style
from tests.oracles import hessian, trace_terms

SWEEP = {
    "samples": 7,
    "inputs": 3,
    "depth": 3,
    "steps": [[0.02, 30, 3], [0.4, 25, 2]],
    "scales": [0.3, 2.0],
    "chunk": 2,
    "history_iterations": 12,
    "history_every": 5,
}
PROBABILITY = SWEEP | {"history_steps": []}
NOISE = {
    "size": 5,
    "measurements": 12,
    "rank": 1,
    "batch": 4,
    "depths": [[2, 1.0], [3, 0.75]],
    "stage": 40,
    "stages": 2,
    "decay_stages": 2,
    "plain_iterations": 50,
    "every": 20,
    "repetitions": 2,
}
OVERRIDES = {
    "mc-1": SWEEP,
    "mc-2": {
        "samples": 7,
        "inputs": 3,
        "depths": [2, 3],
        "steps": [0.05, 0.1, 2.0],
        "iterations": 400,
        "repetitions": 3,
        "chunk": 2,
    },
    "mc-3": PROBABILITY,
    "mc-4": SWEEP,
    "mc-5": PROBABILITY,
    "mc-6": {"samples": 2, "inputs": 3, "depth": 2, "steps": [[0.05, 500, 3], [0.02, 20, 2]], "scales": [0.3, 0.5], "chunk": 2},
    "mc-7": {"samples": 7, "inputs": 3, "depth": 3, "steps": [[0.1, 20, 2]], "scales": [0.5, 0.8], "chunk": 2},
    "glcrmj-1": NOISE,
    "glcrmj-2": NOISE,
}
_RUN, _REFERENCE, _CHANGE = "kind step scale repetition diverged", "name value", "sharpness_before sharpness_after"
COLUMNS = {
    "mc-1": f"{_RUN} distance {_CHANGE} iteration loss sharpness magnitude {_REFERENCE}",
    "mc-2": f"kind depth step repetition diverged risk distance {_REFERENCE}",
    "mc-3": f"{_RUN} distance {_CHANGE} {_REFERENCE}",
    "mc-6": f"{_RUN} risk gap {_CHANGE} {_REFERENCE}",
    "mc-7": f"{_RUN} risk {_CHANGE} {_REFERENCE}",
    "glcrmj-1": "kind depth name train test trace nuclear_norm algorithm repetition iteration step flattest_trace",
}
COLUMNS |= {"mc-4": COLUMNS["mc-1"], "mc-5": COLUMNS["mc-3"], "glcrmj-2": COLUMNS["glcrmj-1"]}


def tiny(name, **more):
    figure = FIGURES[name]
    return replace(figure, scales={"quick": dict(figure.scales["quick"]) | OVERRIDES[name] | more})


@cache
def rows(name):
    """The rows of all units, and the settings."""
    figure = tiny(name)
    settings = figure.scales["quick"]
    found = [
        row
        for index, unit in enumerate(figure.units(settings))
        for row in figure.run(settings, unit, figure.generator(settings, index))
    ]
    return found, settings


def table(name):
    return Table(rows(name)[0])


def matching(figure, **values):
    return table(figure).where(**values).rows


def unit(figure, settings, **values):
    """The first unit with these values, and its generator."""
    found = figure.units(settings)
    index = next(i for i, each in enumerate(found) if values.items() <= each.items())
    return found[index], figure.generator(settings, index)


# All figures


def test_names_are_the_published_ones():
    assert list(FIGURES)[:9] == [*(f"mc-{number}" for number in range(1, 8)), "glcrmj-1", "glcrmj-2"] == list(OVERRIDES)
    for name, figure in FIGURES.items():
        assert figure.name == name
        assert figure.caption.endswith(".")
        assert set(figure.scales) == {"paper", "quick"}
    for name in OVERRIDES:
        assert FIGURES[name].source.endswith(f"Figure {name[-1]}")


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERRIDES)
def test_figure_leaves_its_table_and_picture(tmp_path, name):
    with ThreadPoolExecutor(1) as executor:
        found = reproduce(tiny(name), "quick", tmp_path, executor, progress=False)
    assert (tmp_path / f"{name}.csv").read_text(encoding="utf-8").splitlines()[0].replace(",", " ") == COLUMNS[name]
    picture = matplotlib.image.imread(tmp_path / f"{name}.png")
    assert picture.std() > 0.05
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{kind}" for kind in ("csv", "png", "json")}
    np.testing.assert_equal(found.rows, rows(name)[0])


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("scale", ["quick", "paper"])
def test_settings_and_units_are_plain_data(name, scale):
    settings = dict(FIGURES[name].scales[scale])
    units = FIGURES[name].units(settings)
    assert json.loads(json.dumps([settings, units])) == [settings, units]
    assert len({json.dumps(each, sort_keys=True) for each in units}) == len(units)


@pytest.mark.parametrize(("one", "other"), [("mc-1", "mc-3"), ("mc-4", "mc-5")])
def test_probabilities_are_of_the_runs_of_the_figure_before(one, other):
    np.testing.assert_equal(matching(one, kind="run"), matching(other, kind="run"))


@pytest.mark.slow
def test_both_figures_of_label_noise_show_the_same_runs():
    assert FIGURES["glcrmj-1"].scales == FIGURES["glcrmj-2"].scales
    np.testing.assert_equal(rows("glcrmj-1")[0], rows("glcrmj-2")[0])


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("mc-1", [[0.005, 40000, 20], [0.02, 10000, 20], [0.07, 4000, 20], [0.1, 4000, 20], [0.2, 2000, 80]]),
        ("mc-4", [[0.005, 4000, 20], [0.02, 4000, 20], [0.07, 4000, 20], [0.1, 4000, 20], [0.2, 4000, 20]]),
        ("mc-6", [[0.001, 40000, 100], [0.004, 10000, 20], [0.01, 4000, 20]]),
        ("mc-7", [[0.005, 160000, 20], [0.02, 40000, 20], [0.07, 16000, 20]]),
    ],
)
def test_published_numbers_of_steps_and_repetitions(name, steps):
    settings = FIGURES[name].scales["paper"]
    assert settings["steps"] == steps
    units = FIGURES[name].units(settings)
    for step, iterations, repetitions in steps:
        ours = [each for each in units if each.get("step") == step and each["kind"] == "run"]
        assert [number for each in ours for number in each["repetitions"]] == list(range(repetitions))
        assert {each["iterations"] for each in ours} == {iterations}


def test_published_problems():
    shapes = {name: [FIGURES[name].scales["paper"].get(key) for key in ("samples", "inputs", "depth")] for name in FIGURES}
    assert shapes["mc-1"] == shapes["mc-4"] == shapes["mc-7"] == [50, 5, 10]
    assert shapes["mc-6"] == [15, 20, 5]
    ends = {
        name: (each["scales"][0], each["scales"][-1], len(each["scales"]))
        for name, each in paper("mc-1", "mc-4", "mc-6", "mc-7")
    }
    assert ends == {"mc-1": (0.25, 0.6, 10), "mc-4": (0.0, 1.7, 10), "mc-6": (0.1, 0.36, 9), "mc-7": (0.428, 0.7, 8)}
    depth = FIGURES["mc-2"].scales["paper"]
    assert (depth["scale"], depth["depths"], depth["iterations"], depth["repetitions"]) == (0.25, [5, 10, 20, 40], 1000, 50)
    np.testing.assert_allclose(depth["steps"], np.logspace(-2, -0.3, 25), atol=1e-6)
    noise = FIGURES["glcrmj-1"].scales["paper"]
    assert [noise[key] for key in ("size", "measurements", "rank", "batch", "step", "noise")] == [60, 600, 3, 50, 0.01, 1.0]
    assert [depth for depth, _ in noise["depths"]] == [2, 3, 5, 10]


def paper(*names):
    return [(name, FIGURES[name].scales["paper"]) for name in names]


@pytest.mark.parametrize(("repetitions", "largest"), [(1, 5), (5, 5), (6, 5), (80, 10), (11, 3)])
def test_chunks_hold_every_repetition_once(repetitions, largest):
    found = chunks(repetitions, largest)
    assert [number for each in found for number in each] == list(range(repetitions))
    assert max(map(len, found)) <= largest


# Regression


def test_there_is_noise_by_default():
    plain, noisy = ({"seed": 3, "samples": 9, "inputs": 4} | more for more in ({}, {"noise": 1.0}))
    np.testing.assert_equal(problem(plain), problem(noisy))


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("samples", [3, 9])
def test_regression_problem(samples, noise):
    data = problem({"seed": 3, "samples": samples, "inputs": 4, "noise": noise})
    X, y = data.inputs, data.targets
    np.testing.assert_allclose(data.covariance, X.T @ X / samples)
    np.testing.assert_allclose(data.w, np.linalg.pinv(X) @ y, atol=1e-12)
    assert np.isclose(np.linalg.norm(data.w), 1)
    assert np.isclose(np.linalg.norm(data.readout), 1)
    rng = np.random.default_rng([3, samples, 4])
    np.testing.assert_array_equal(X, rng.standard_normal((samples, 4)))
    truth = rng.standard_normal(4)
    size = truth[0] / data.truth[0]
    np.testing.assert_allclose(data.truth * size, truth)
    np.testing.assert_allclose((y * size - X @ truth), noise * rng.standard_normal(samples), atol=1e-12)
    assert np.isclose(data.noise, (noise / size) ** 2)


def multiplied(layers):
    with np.errstate(over="ignore", invalid="ignore"):
        return reduce(lambda product, layer: layer @ product, layers)


def root_measurements(data, readout):
    """Matrices and data whose loss is the excess risk."""
    values, vectors = np.linalg.eigh(data.covariance)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T * np.sqrt(values.size)
    return [np.outer(readout, row) for row in root], root @ data.w


def plain_descent(layers, data, readout, step, iterations):
    """Excess risk, squared distance, end-to-end vector and sharpness at the start and the end; None if the risk overflows."""

    def record():
        w = readout @ multiplied(layers)
        risk = (w - data.w) @ data.covariance @ (w - data.w)
        return risk, np.sum((w - data.w) ** 2), w, np.linalg.eigvalsh(hessian(layers, *root_measurements(data, readout)))[-1]

    layers, first = [layer.copy() for layer in layers], None
    for _ in range(iterations):
        first = record() if first is None else first
        w = readout @ multiplied(layers)
        with np.errstate(all="ignore"):
            outer = np.outer(readout, 2 * data.covariance @ (w - data.w))
        if not np.all(np.isfinite(outer)) or np.abs(outer).max() > 1e100:
            return first, None
        gradients = []
        for k in range(len(layers)):
            above = multiplied([np.eye(layers[k].shape[0]), *layers[k + 1 :]])
            below = multiplied([np.eye(layers[0].shape[1]), *layers[:k]])
            gradients.append(above.T @ outer @ below.T)
        layers = [layer - step * gradient for layer, gradient in zip(layers, gradients, strict=True)]
    return first, record()


@pytest.mark.parametrize("name", ["mc-1", "mc-4"])
def test_runs_are_those_of_plain_gradient_descent(name):
    figure, (_, settings) = tiny(name), rows(name)
    data, d, depth = problem(settings), settings["inputs"], settings["depth"]
    residual = settings["start"] == "residual"
    for step, iterations, _ in settings["steps"]:
        chunk, rng = unit(figure, settings, kind="run", step=step)
        scales = np.repeat(settings["scales"], len(chunk["repetitions"]))
        shapes = [(d, d)] * (depth if residual else depth - 1) + ([] if residual else [(1, d)])
        noise = [rng.standard_normal((scales.size, *shape)) for shape in shapes]
        for run, scale in enumerate(scales):
            if residual:
                start = [np.eye(d) + scale / np.sqrt(depth * d) * layer[run] for layer in noise]
            else:
                start = [scale * layer[run] for layer in noise]
            first, last = plain_descent(start, data, data.readout if residual else np.ones(1), step, iterations)
            repetition = chunk["repetitions"][run % len(chunk["repetitions"])]
            (row,) = matching(name, kind="run", step=step, scale=scale, repetition=repetition)
            assert np.isclose(row["sharpness_before"], first[3], rtol=1e-8)
            if last is None:
                assert row["diverged"] > 0
                assert np.isnan(row["distance"])
            else:
                assert row["diverged"] == -1
                assert np.isclose(row["distance"], last[1], rtol=1e-6)
                assert np.isclose(row["sharpness_after"], last[3], rtol=1e-6)
    assert {row["diverged"] >= 0 for row in matching(name, kind="run")} == {True, False}


@pytest.mark.parametrize("name", ["mc-1", "mc-4"])
def test_histories_are_those_of_plain_gradient_descent(name):
    figure, (_, settings) = tiny(name), rows(name)
    data, d, depth = problem(settings), settings["inputs"], settings["depth"]
    residual, scale = settings["start"] == "residual", settings["history_scale"]
    step = settings["history_steps"][1]
    _, rng = unit(figure, settings, kind="history", step=step)
    shapes = [(1, d, d)] * (depth if residual else depth - 1) + ([] if residual else [(1, 1, d)])
    start = [scale * rng.standard_normal(shape)[0] for shape in shapes]
    if residual:
        start = [np.eye(d) + layer / np.sqrt(depth * d) for layer in start]
    readout = data.readout if residual else np.ones(1)
    found = matching(name, kind="history", step=step)
    assert [row["iteration"] for row in found] == [0, 5, 10, 12]
    for row in found:
        first, last = plain_descent(start, data, readout, step, row["iteration"]) if row["iteration"] else (None, None)
        if last is None:
            first, _ = plain_descent(start, data, readout, step, 1)
        risk, _, _, sharpness = last or first
        assert np.isclose(row["loss"], risk)
        assert np.isclose(row["sharpness"], sharpness)
        assert row["magnitude"] >= row["sharpness"] * (1 - 1e-9)
    curvatures = np.linalg.eigvalsh(hessian(start, *root_measurements(data, readout)))
    assert np.isclose(found[0]["magnitude"], np.abs(curvatures).max())


def test_the_eigenvalue_of_largest_magnitude_may_be_negative():
    layers = [np.full((1, 1), 0.5)] * 3
    eigenvalues = np.linalg.eigvalsh(hessian(layers, [np.ones((1, 1))], np.array([5.0])))
    found = _sweep._largest_magnitude(layers, bf.measurements.Dense(np.ones((1, 1, 1))), np.array([5.0]))
    assert np.isclose(found, -eigenvalues[0])
    assert found > eigenvalues[-1]


def test_the_generalisation_gap_is_that_of_new_inputs():
    figure, (_, settings) = tiny("mc-6"), rows("mc-6")
    data, d = problem(settings), settings["inputs"]
    step, iterations, _ = settings["steps"][0]
    chunk, rng = unit(figure, settings, kind="run", step=step)
    scales = np.repeat(settings["scales"], len(chunk["repetitions"]))
    start = [scales[:, None, None] * rng.standard_normal((scales.size, *shape)) for shape in [(d, d), (1, d)]]
    first, last = plain_descent([layer[1] for layer in start], data, np.ones(1), step, iterations)
    (row,) = matching("mc-6", kind="run", step=step, scale=scales[1], repetition=chunk["repetitions"][1])
    X = np.random.default_rng(0).standard_normal((400_000, d))
    errors = (X @ (last[2] - data.truth) + np.sqrt(data.noise) * np.random.default_rng(1).standard_normal(len(X))) ** 2
    assert abs(row["gap"] + row["risk"] - errors.mean()) < 5 * errors.std() / np.sqrt(len(X))
    assert np.isclose(row["risk"], last[0], atol=1e-15)  # what lies in the kernel of the covariance rounds
    assert np.isclose(row["sharpness_before"], first[3])
    assert np.isclose(row["sharpness_after"], last[3])


def plain_perceptron(layers, X, y):
    h = X.T
    for layer in layers[:-1]:
        z = anp.dot(layer, h)
        h = z * norm.cdf(z)
    return anp.mean((anp.dot(layers[-1], h)[0] - y) ** 2)


def test_perceptrons_are_those_of_plain_gradient_descent():
    figure, (_, settings) = tiny("mc-7"), rows("mc-7")
    data, d = problem(settings), settings["inputs"]
    assert settings["noise"] == 0
    assert np.allclose(data.targets, data.inputs @ data.truth)
    step, iterations, _ = settings["steps"][0]
    chunk, rng = unit(figure, settings, kind="run", step=step)
    scales = np.repeat(settings["scales"], len(chunk["repetitions"]))
    start = [scales[:, None, None] * rng.standard_normal((scales.size, *shape)) for shape in [(d, d), (d, d), (1, d)]]
    gradient = autograd.grad(lambda layers: plain_perceptron(layers, data.inputs, data.targets))
    for run in (0, scales.size - 1):
        layers = [layer[run] for layer in start]
        for _ in range(iterations):
            layers = [layer - step * slope for layer, slope in zip(layers, gradient(layers), strict=True)]
        repetition = chunk["repetitions"][run % len(chunk["repetitions"])]
        (row,) = matching("mc-7", kind="run", step=step, scale=scales[run], repetition=repetition)
        assert np.isclose(row["risk"], plain_perceptron(layers, data.inputs, data.targets))
        assert np.isclose(row["sharpness_after"], dense_sharpness(layers, data))
        assert np.isclose(row["sharpness_before"], dense_sharpness([layer[run] for layer in start], data))


def dense_sharpness(layers, data):
    shapes, ends = [layer.shape for layer in layers], np.cumsum([layer.size for layer in layers])

    def loss(numbers):
        parts = [anp.reshape(numbers[end - r * c : end], (r, c)) for end, (r, c) in zip(ends, shapes, strict=True)]
        return plain_perceptron(parts, data.inputs, data.targets)

    return np.linalg.eigvalsh(autograd.hessian(loss)(np.concatenate([layer.ravel() for layer in layers])))[-1]


def test_the_activation_of_the_loop_is_gelu():
    assert np.isclose(norm.cdf(0.7), (1 + erf(0.7 / np.sqrt(2))) / 2)
    assert np.isclose(norm.cdf(0.7), scipy.special.ndtr(0.7))


def minimal_sharpness(data, depth):
    """By search over one scale, and the root of the covariance with which it is computed."""
    root = np.linalg.cholesky(data.covariance + 1e-15 * np.eye(data.w.size)).T
    v = root @ data.w

    def largest(log_s):
        s = np.exp(log_s)
        return np.linalg.eigvalsh(s * root @ root.T + (depth - 1) * s ** (-1 / (depth - 1)) * np.outer(v, v))[-1]

    return 2 * minimize_scalar(largest, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9}).fun, root


@pytest.mark.parametrize("name", ["mc-1", "mc-3", "mc-4", "mc-6", "mc-7"])
def test_reference_values_are_the_closed_forms(name):
    settings = rows(name)[1]
    data, depth = problem(settings), settings["depth"]
    values = {row["name"]: row["value"] for row in matching(name, kind="reference")}
    least, root = minimal_sharpness(data, depth)
    v = root @ data.w
    assert np.isclose(values["minimal sharpness"], least, rtol=1e-6)
    limit = np.linalg.eigvalsh(root @ root.T + (depth - 1) * np.outer(v, v))[-1]
    assert np.isclose(values["rank-one limit"], 2 * limit, rtol=1e-6)
    a, top = v @ v, np.linalg.eigvalsh(data.covariance)[-1]
    assert np.isclose(values["published lower bound"], 2 * depth * a)
    upper = 2 * np.sqrt((2 * depth - 1) * top**2 + (depth - 1) ** 2 * a**2)
    assert np.isclose(values["published upper bound"], upper)


def test_runs_at_every_depth_start_from_the_same_weights_for_all_steps():
    figure, (_, settings) = tiny("mc-2"), rows("mc-2")
    data, d = problem(settings), settings["inputs"]
    for depth in settings["depths"]:
        chunk, rng = unit(figure, settings, kind="run", depth=depth)
        noise = [rng.standard_normal((len(chunk["repetitions"]), d, d)) for _ in range(depth)]
        for step in settings["steps"]:
            start = [np.eye(d) + settings["scale"] / np.sqrt(depth * d) * layer[1] for layer in noise]
            _, last = plain_descent(start, data, data.readout, step, settings["iterations"])
            (row,) = matching("mc-2", kind="run", depth=depth, step=step, repetition=chunk["repetitions"][1])
            assert (row["diverged"] >= 0) == (last is None)
            if last is not None:
                assert np.isclose(row["risk"], last[0], rtol=1e-6, atol=1e-25)
                assert np.isclose(row["distance"], last[1], rtol=1e-6, atol=1e-25)


def test_predicted_steps_are_two_over_the_sharpness():
    settings = rows("mc-2")[1]
    data = problem(settings)
    for depth in settings["depths"]:
        values = {row["name"]: row["value"] for row in matching("mc-2", kind="reference", depth=depth)}
        least, root = minimal_sharpness(data, depth)
        assert np.isclose(values["2 / minimal sharpness"], 2 / least, rtol=1e-6)
        assert np.isclose(values["2 / published bound"], 1 / (depth * np.sum((root @ data.w) ** 2)))


def test_the_critical_step_is_the_largest_that_most_runs_learn():
    learned = {0.1: [0.0, 0.0, 1.0], 0.2: [0.0, 1e-9, 1.0], 0.4: [0.0, 1.0, np.inf]}
    found = [{"kind": "run", "depth": 7, "step": step, "risk": risk} for step, risks in learned.items() for risk in risks]
    assert critical_step({"steps": list(learned)}, Table(found), 7) == 0.2
    assert np.isnan(critical_step({"steps": [0.4]}, Table(found), 7))


def test_confidence_interval():
    values = np.array([1.0, 2.0, 6.0])
    middle, half = interval(values)
    assert middle == 3
    assert np.isclose(half, 1.96 * np.sqrt(7) / np.sqrt(3))
    assert interval(values[:1]) == (1.0, 0.0)


# Label noise


def noise_rows(algorithm, depth, repetition):
    return matching("glcrmj-1", kind="run", algorithm=algorithm, depth=depth, repetition=repetition)


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("algorithm", ["label noise", "mini-batch"])
def test_label_noise_is_that_of_a_plain_loop(algorithm, depth):
    figure, (_, settings) = tiny("glcrmj-1"), rows("glcrmj-1")
    matrices, b, truth = plain_sensing(settings)
    d, m, batch = settings["size"], settings["measurements"], settings["batch"]
    _, rng = unit(figure, settings, algorithm=algorithm, depth=depth, repetition=1)
    first = np.random.default_rng([settings["seed"], depth, 1])
    layers = [dict(settings["depths"])[depth] / np.sqrt(d) * first.standard_normal((d, d)) for _ in range(depth)]
    steps = [0.01] * (80 if algorithm == "label noise" else 50)
    steps += [0.001] * 40 + [0.0001] * 40 if algorithm == "label noise" else []
    found = {row["iteration"]: row for row in noise_rows(algorithm, depth, 1)}
    assert {0, 5, 10, 20, 40, *range(20, len(steps), 20), len(steps)} <= set(found)
    for taken in range(len(steps) + 1):
        if taken in found:
            E, row = multiplied(layers), found[taken]
            assert np.isclose(row["train"], np.mean([(np.sum(A * E) - y) ** 2 for A, y in zip(matrices, b, strict=True)]))
            assert np.isclose(row["test"], np.linalg.norm(E - truth) ** 2)
            assert np.isclose(row["nuclear_norm"], np.linalg.svd(E)[1].sum())
            assert np.isclose(row["trace"], np.sum(trace_terms(layers, matrices)))
            assert np.isclose(row["step"], steps[max(taken - 1, 0)])
        if taken == len(steps):
            return
        index = rng.integers(0, m, batch)
        noise = rng.standard_normal(batch) if algorithm == "label noise" else np.zeros(batch)
        E = multiplied(layers)
        outer = sum(2 / batch * (np.sum(matrices[i] * E) - b[i] + xi) * matrices[i] for i, xi in zip(index, noise, strict=True))
        gradients = []
        for k in range(depth):
            above, below = multiplied([np.eye(d), *layers[k + 1 :]]), multiplied([np.eye(d), *layers[:k]])
            gradients.append(above.T @ outer @ below.T)
        layers = [layer - steps[taken] * gradient for layer, gradient in zip(layers, gradients, strict=True)]


def plain_sensing(settings):
    d, m, rank = settings["size"], settings["measurements"], settings["rank"]
    rng = np.random.default_rng([settings["seed"], m, d])
    matrices = rng.standard_normal((d, m, d)).transpose(1, 0, 2)
    truth = rng.standard_normal((d, rank)) @ rng.standard_normal((rank, d)) / d
    return matrices, np.array([np.sum(A * truth) for A in matrices]), truth


def test_both_algorithms_start_from_the_same_weights():
    for depth in (2, 3):
        for repetition in (0, 1):
            noisy, plain = (noise_rows(algorithm, depth, repetition)[0] for algorithm in ("label noise", "mini-batch"))
            assert {key: noisy[key] for key in ("train", "test", "trace")} == {
                key: plain[key] for key in ("train", "test", "trace")
            }
        assert noise_rows("label noise", depth, 0)[0]["train"] != noise_rows("label noise", depth, 1)[0]["train"]


def test_no_trace_is_below_the_flattest_with_the_same_product():
    seen = [row for row in matching("glcrmj-1", kind="run", repetition=0) if "flattest_trace" in row]
    assert [row["iteration"] for row in seen] == 2 * [40, 80, 120, 160, 50]
    for row in seen:
        assert 0 < row["flattest_trace"] <= row["trace"]
    d, (matrices, _, _) = 5, plain_sensing(rows("glcrmj-1")[1])
    roots = [root_of(sum(A @ A.T for A in matrices) / 12), root_of(sum(A.T @ A for A in matrices) / 12)]
    for row in [row for row in seen if row["depth"] == 2]:  # the trace of two layers bounds the nuclear norm and conversely
        least, largest = (4 * value * row["nuclear_norm"] for value in scales_of(roots))
        assert least <= row["flattest_trace"] <= largest
    assert d == len(roots[0])


def root_of(square):
    values, vectors = np.linalg.eigh(square)
    return vectors * np.sqrt(values) @ vectors.T


def scales_of(roots):
    values = [np.linalg.eigvalsh(root) for root in roots]
    return values[0][0] * values[1][0], values[0][-1] * values[1][-1]


def test_reference_networks():
    settings = rows("glcrmj-1")[1]
    for depth in (2, 3):
        found = {row["name"]: row for row in matching("glcrmj-1", kind="reference", depth=depth)}
        small, flat = found["least nuclear norm"], found["flattest"]
        assert max(small["train"], flat["train"]) < 1e-12
        assert small["nuclear_norm"] <= flat["nuclear_norm"] * (1 + 1e-6)
        assert flat["trace"] <= small["trace"] * (1 + 1e-6)
        truth = plain_sensing(settings)[2]
        assert small["nuclear_norm"] <= np.linalg.norm(truth, "nuc") * (1 + 1e-6)
        assert ("penalized" in found) == (depth == 2)


def test_where_label_noise_settles_at_depth_two():
    """Where the sum of loss and weighted trace is stationary, with a weight that counts the loss as noise."""
    settings = rows("glcrmj-1")[1]
    matrices, b, _ = plain_sensing(settings)
    roots = [root_of(sum(A @ A.T for A in matrices) / 12), root_of(sum(A.T @ A for A in matrices) / 12)]
    E = _label_noise._penalized(settings | {"tol": 1e-11}, _label_noise.sensing(settings))

    def parts(E):
        loss = np.mean([(np.sum(A * E) - y) ** 2 for A, y in zip(matrices, b, strict=True)])
        return loss, 4 * np.linalg.norm(roots[0] @ E @ roots[1], "nuc")

    loss, trace = parts(E)
    weight = 0.01 / (2 * 4)
    total = loss + weight * trace
    for _ in range(30):
        total = loss + weight * (1 + total) * trace
    (row,) = matching("glcrmj-1", kind="reference", name="penalized")
    assert np.isclose(row["train"], loss, rtol=1e-2)
    assert np.isclose(row["trace"], trace, rtol=1e-4)
    seen = np.array([np.sum(A * E) for A in matrices])
    assert np.isclose(2 * np.mean((seen - b) * seen), -weight * (1 + total) * trace, rtol=1e-4)  # stationary in the size of E

    def objective(E):
        loss, trace = parts(E)
        return loss + weight * (1 + total) * trace

    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-1, 1.0):
        for _ in range(20):
            assert objective(E + size * rng.standard_normal(E.shape)) > objective(E)
            u, s, vt = np.linalg.svd(E)
            assert objective(u * (s * (1 + size * rng.standard_normal(s.size))) @ vt) > objective(E) * (1 - 1e-6)


@pytest.mark.slow
def test_the_loss_predicted_from_the_trace_is_the_loss_under_label_noise():
    """The constant: half of it or twice would be seen at once."""
    figure = tiny("glcrmj-1", stage=4000, stages=3, decay_stages=0, every=5, step=0.005, depths=[[2, 0.5], [3, 0.6]])
    settings = figure.scales["quick"]
    for depth in (2, 3):
        noisy, rng = unit(figure, settings, algorithm="label noise", depth=depth, repetition=1)
        settled = [row for row in figure.run(settings, noisy, rng) if row["iteration"] >= 6000]
        measured = np.mean([row["train"] for row in settled])
        predicted = np.mean([_label_noise.predicted_loss(settings, row["step"], row["trace"]) for row in settled])
        assert abs(measured / predicted - 1) < 0.1


def test_the_predicted_loss_is_noise_too():
    settings = {"noise": 1.5, "batch": 4}
    loss = _label_noise.predicted_loss(settings, 0.02, np.array([3.0, 40.0]))
    np.testing.assert_allclose(loss, 0.02 / 8 * (1.5**2 + loss) * np.array([3.0, 40.0]))


@pytest.mark.slow
def test_a_run_that_diverges_ends_there_and_is_drawn(tmp_path):
    figure = tiny("glcrmj-2", step=0.5, repetitions=1, depths=[[3, 0.75]])
    with ThreadPoolExecutor(1) as executor:
        found = reproduce(figure, "quick", tmp_path, executor, progress=False)
    lost = found.where(kind="run", depth=3, algorithm="label noise")
    assert lost["train"][-1] == np.inf
    assert lost["iteration"][-1] == 40
    with style():
        assert FIGURES["glcrmj-1"].draw(figure.scales["quick"], found).axes


def test_a_share_has_the_wilson_interval():
    mean, down, up = share(np.array([True] * 3 + [False] * 7))
    # The p for which the share is within z = 1.96 standard deviations: at the ends (mean - p)^2 = z^2 p (1 - p) / n.
    for p in (mean - down, mean + up):
        assert (0.3 - p) ** 2 == pytest.approx(1.96**2 * p * (1 - p) / 10, rel=1e-12)
    assert share(np.zeros(20, bool)) == pytest.approx((0, 0, 1.96**2 / (20 + 1.96**2)))
    assert share(np.ones(20, bool)) == pytest.approx((1, 1.96**2 / (20 + 1.96**2), 0))
