"""Every training rule against a loop written from its definition, compiled and in NumPy, for every kind of measurement."""

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.dynamics import _training
from tests import bad_input
from tests.dynamics import naive

KINDS = ["dense", "entries", "rank one", "regression", "readout", "several outputs", "wide", "tall"]
RULES = {
    "plain": {},
    "momentum": {"momentum": 0.8},
    "weight decay": {"weight_decay": 0.3},
    "normalised": {"normalised": True},
    "all three": {"momentum": 0.5, "weight_decay": 0.1, "normalised": True},
    "ascent": {"radius": 0.2},
    "worst": {"radius": 0.2, "direction": "worst", "inner": 4},
    "average": {"radius": 0.3, "direction": "average", "samples": 3},
    "ascent, momentum": {"radius": 0.2, "momentum": 0.7, "weight_decay": 0.05},
}
BATCHES = {
    "all": {},
    "batch": {"batch": 3},
    "noisy batch": {"batch": 4, "label_noise": 0.3},
    "noise of each": {"batch": 3, "label_noise": "each"},
    "covariance": {"batch": "all", "label_noise": "covariance"},
    "covariance, batch": {"batch": 3, "label_noise": "covariance"},
}


def problem(kind, rng):
    """A map, its matrices, data, and widths."""
    if kind == "dense":
        A, hidden = bf.measurements.gaussian(5, (3, 3), rng), [2, 4]
    elif kind == "wide":
        A, hidden = bf.measurements.gaussian(20, (2, 4), rng), [3]
    elif kind == "tall":
        A, hidden = bf.measurements.gaussian(7, (4, 2), rng), [3, 2]
    elif kind == "entries":
        A, hidden = bf.measurements.Entries([0, 1, 2, 0], [0, 1, 0, 1], (3, 2), [1.0, 2.0, 0.5, 1.0]), [3]
    elif kind == "rank one":
        A, hidden = bf.measurements.bilinear(6, (3, 2), rng), [2, 2]
    elif kind == "regression":
        A, hidden = bf.measurements.regression(rng.standard_normal((6, 3))), [3, 2]
    elif kind == "readout":
        A, hidden = bf.measurements.regression(rng.standard_normal((6, 3)), rng.standard_normal(3)), [3, 3]
    else:  # |Y - X M'|^2 of two outputs
        X = rng.standard_normal((4, 3))
        A, hidden = bf.measurements.RankOne(np.tile(np.eye(2), (4, 1)), np.repeat(X, 2, axis=0)), [2]
    matrices = [A.adjoint(unit) for unit in np.eye(A.m)]
    return A, matrices, rng.standard_normal(A.m), [A.matrix_shape[1], *hidden, A.matrix_shape[0]]


def norm(vectors):
    return np.sqrt(sum(np.sum(v**2) for v in vectors))


def moved(layers, way, size):
    return [w + size * e for w, e in zip(layers, way, strict=True)]


def reference(layers, matrices, b, step, iterations, rng, *, batch="all", label_noise=0.0, radius=None, direction="ascent",
              inner=10, samples=1, momentum=0.0, weight_decay=0.0, normalised=False):  # fmt: skip
    """The rule from its definition."""
    m, noise = len(b), np.asarray(label_noise)
    velocity, shift = [np.zeros_like(w) for w in layers], [np.zeros_like(w) for w in layers]
    for _ in range(iterations):
        index = np.arange(m) if batch == "all" else rng.integers(0, m, batch)
        if noise.ndim == 2:
            values, vectors = np.linalg.eigh(noise)
            xi = (vectors @ (np.sqrt(np.maximum(values, 0)) * rng.standard_normal(m)))[index]
        elif noise.any():
            xi = (noise[index] if noise.ndim else noise) * rng.standard_normal(len(index))
        else:
            xi = np.zeros(len(index))

        def slope(at, index=index, xi=xi):
            return naive.gradients(at, matrices, b, index, xi)

        if radius is None:
            g = slope(layers)
        elif direction == "average":
            g = [np.zeros_like(w) for w in layers]
            for z in rng.standard_normal((samples, sum(w.size for w in layers))):
                parts = np.split(z, np.cumsum([w.size for w in layers])[:-1])
                way = [part.reshape(w.shape) for part, w in zip(parts, layers, strict=True)]
                g = moved(g, slope(moved(layers, way, radius / norm(way))), 1 / samples)
        else:
            if direction == "ascent":
                shift = [np.zeros_like(w) for w in layers]
            for _ in range(1 if direction == "ascent" else inner):
                up = slope(moved(layers, shift, 1))
                if norm(up) > 0:
                    shift = [radius * u / norm(up) for u in up]
            g = slope(moved(layers, shift, 1))
        g = moved(g, layers, weight_decay)
        if normalised and norm(g) > 0:
            g = [part / norm(g) for part in g]
        velocity = [momentum * v + part for v, part in zip(velocity, g, strict=True)]
        layers = moved(layers, velocity, -step)
    return layers


def run(start, A, b, step, iterations, rng, options):
    if "radius" in options:
        return bf.dynamics.sharpness_aware(start, A, b, step=step, iterations=iterations, rng=rng, **options)
    if "batch" in options:
        return bf.dynamics.sgd(start, A, b, step=step, iterations=iterations, rng=rng, **options)
    return bf.dynamics.gradient_descent(start, A, b, step=step, iterations=iterations, **options)


def check(kind, options, rng, runs=5):
    A, matrices, b, widths = problem(kind, rng)
    options = dict(options)
    if options.get("label_noise") == "each":
        options["label_noise"] = rng.uniform(0, 0.5, A.m)
    elif options.get("label_noise") == "covariance":
        F = rng.standard_normal((A.m, 2))
        options["label_noise"] = 0.1 * F @ F.T
    start = bf.dynamics.gaussian_layers(widths, np.linspace(0.4, 0.8, runs), rng)
    steps = np.linspace(0.002, 0.006, runs)
    found = run(start, A, b, steps, 12, 11, options)
    for r, generator in enumerate(np.random.default_rng(11).spawn(runs)):
        expected = reference(naive.run(start, r), matrices, b, steps[r], 12, generator, **options)
        assert naive.deviation(naive.run(found.layers, r), expected) <= 1e-10
        assert naive.deviation(naive.run(found.layers, r), naive.run(start, r)) > 1e-4


@pytest.mark.few(16)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_rules_agree_with_their_definition(kind, rule, rng):
    check(kind, RULES[rule], rng)


@pytest.mark.parametrize("batch", list(BATCHES)[1:])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_noise_agree_with_their_definition(kind, batch, rng):
    check(kind, BATCHES[batch], rng)


@pytest.mark.parametrize("rule", ["all three", "worst", "average"])
@pytest.mark.parametrize("batch", list(BATCHES)[1:])
@pytest.mark.parametrize("kind", ["dense", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
def test_batches_and_noise_under_every_rule(kind, batch, rule, rng):
    check(kind, BATCHES[batch] | RULES[rule], rng)


@pytest.mark.few(3)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["dense", "entries", "several outputs"])
def test_large_networks_follow_the_same_definition(kind, rule, rng, monkeypatch):
    monkeypatch.setattr(_training, "_KERNEL_WEIGHTS", 0)
    check(kind, RULES[rule], rng)
    if "radius" not in RULES[rule]:
        check(kind, RULES[rule] | BATCHES["noisy batch"], rng)
        check(kind, RULES[rule] | BATCHES["covariance, batch"], rng)


@pytest.mark.parametrize("options", [RULES["plain"], RULES["worst"], RULES["average"], BATCHES["noisy batch"]])
def test_runs_are_the_same_bits_in_any_company(options, rng):
    A, _, b, widths = problem("dense", rng)
    start = bf.dynamics.gaussian_layers(widths, np.full(131, 0.5), rng)
    together = run(start, A, b, 0.01, 40, 3, options)
    few = run([w[:6] for w in start], A, b, 0.01, 40, 3, options)
    one = run([w[:1] for w in start], A, b, 0.01, 40, 3, options)
    for all_of, some, single in zip(together.layers, few.layers, one.layers, strict=True):
        np.testing.assert_array_equal(all_of[:6], some)
        np.testing.assert_array_equal(all_of[:1], single)


@pytest.mark.parametrize("rule", ["momentum", "weight decay", "normalised", "worst", "average"])
@pytest.mark.parametrize("large", [False, True])
def test_divergence_is_data_under_every_rule(rule, large, rng, monkeypatch):
    if large:
        monkeypatch.setattr(_training, "_KERNEL_WEIGHTS", 0)
    A, _, b, widths = problem("dense", rng)
    start = bf.dynamics.gaussian_layers(widths, [0.5, 1e120, 0.5], rng)
    steps = [0.001, 1e200, 0.001]
    with np.errstate(all="raise", under="ignore"):
        found = run(start, A, b, steps, 20, 3, RULES[rule])
    np.testing.assert_array_equal(found.diverged >= 0, [False, True, False])
    assert all(np.all(np.isfinite(w)) for w in found.layers)
    kept = run([w[[0, 2]] for w in start], A, b, 0.001, 20, 3, RULES[rule] if rule != "average" else {})
    if rule != "average":  # whose directions depend on the place among the runs
        assert naive.deviation([w[[0, 2]] for w in found.layers], kept.layers) <= 1e-13


@pytest.mark.parametrize("scale", [1e-150, 1e-60, 1e60, 1e150])
def test_normalised_steps_do_not_depend_on_the_scale_of_the_loss(scale, rng):
    A, _, b, widths = problem("dense", rng)
    start = bf.dynamics.gaussian_layers(widths, [0.5, 0.7], rng)
    root = np.sqrt(scale) if scale < 1 else scale**0.4
    scaled = bf.measurements.Dense(root * A.matrices)
    found, expected = (run(start, kind, data, 0.01, 30, 0, {"normalised": True}) for kind, data in ((scaled, root * b), (A, b)))
    assert naive.deviation(found.layers, expected.layers) <= 1e-9


def test_regression_with_data_of_each_run_knows_the_rules(rng):
    start = bf.dynamics.gaussian_layers([3, 2, 1], [0.5, 0.6], rng)
    X, w = rng.standard_normal((2, 7, 3)), rng.standard_normal((2, 3))
    sigma = np.swapaxes(X, 1, 2) @ X / 7
    found = bf.dynamics.regression_descent(start, sigma, w, step=0.01, iterations=40, momentum=0.6, weight_decay=0.1)
    for r in range(2):
        data = X[r] @ w[r]
        expected = reference(naive.run(start, r), [x[None] for x in X[r]], data, 0.01, 40, None, momentum=0.6, weight_decay=0.1)
        assert naive.deviation(naive.run(found.layers, r), expected) <= 1e-10


def test_worst_direction_is_the_gradient_of_the_worst_loss(rng):
    """By Danskin's theorem: a step is minus the step size times the derivative of the largest loss on the ball."""
    A, matrices, b, widths = problem("regression", rng)
    start = bf.dynamics.gaussian_layers(widths, 0.8, rng)
    radius = 0.3

    def worst(layers):
        values = []
        for seed in range(4):
            shift = [np.random.default_rng([seed, k]).standard_normal(w.shape) for k, w in enumerate(layers)]
            shift = [radius * e / norm(shift) for e in shift]
            for _ in range(400):
                up = naive.gradients(moved(layers, shift, 1), matrices, b)
                shift = [radius * u / norm(up) for u in up]
            values.append(naive.loss(moved(layers, shift, 1), matrices, b))
        return max(values)

    found = bf.dynamics.sharpness_aware(start, A, b, step=1e-3, iterations=1, radius=radius, direction="worst", inner=2000)
    step = [(a - w) / -1e-3 for a, w in zip(found.layers, start, strict=True)]
    way = [rng.standard_normal(w.shape) for w in start]
    difference = (worst(moved(start, way, 1e-4)) - worst(moved(start, way, -1e-4))) / 2e-4
    assert sum(np.sum(g * e) for g, e in zip(step, way, strict=True)) == pytest.approx(difference, rel=1e-4)


def good():
    A = bf.measurements.gaussian(4, (2, 2), rng=0)
    return {"layers": [np.eye(2)] * 2, "A": A, "b": np.ones(4), "step": 0.1, "iterations": 3, "radius": 0.1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("radius", 0.0),
        ("radius", np.nan),
        ("direction", "up"),
        ("direction", None),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1.0),
        ("normalised", "yes"),
        ("label_noise", np.ones(3)),
        ("label_noise", -np.ones(4)),
        ("label_noise", -np.eye(4)),
        ("label_noise", np.triu(np.ones((4, 4)))),
        ("label_noise", np.full((4, 4), np.nan)),
        ("batch", "some"),
        ("layers", [np.zeros((0, 2, 2))] * 2),
    ]
    + [(name, value) for name in ("inner", "samples", "batch") for value in bad_input.BAD_COUNT[:3]],
)
def test_bad_input(name, value):
    with pytest.raises(ValueError, match=name):
        bf.dynamics.sharpness_aware(**(good() | {name: value}))
