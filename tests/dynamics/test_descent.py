import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import balancedfact as bf
from tests import bad_input, maps
from tests.dynamics import naive

descend, descend_regression = bf.dynamics.gradient_descent, bf.dynamics.regression_descent
BUILDERS = [*maps.BUILT_IN.values(), *maps.DERIVED.values()]


@settings(max_examples=25)
@given(maps.cases(*BUILDERS, largest=4), st.lists(st.integers(1, 4), min_size=0, max_size=3), st.integers(1, 3))
def test_any_map_agrees_with_naive_loop(case, hidden, runs):
    A, matrices, rng = case
    b, widths = rng.standard_normal(A.m), [A.matrix_shape[1], *hidden, A.matrix_shape[0]]
    start = bf.dynamics.gaussian_layers(widths, np.full(runs, 0.5), rng)
    found = descend(start, A, b, step=0.01, iterations=15, record=5)
    assert found.loss.shape == (runs, 4)
    assert found["norms"].shape == (runs, 4, len(start))
    np.testing.assert_allclose(found.times, 0.01 * np.array([0, 5, 10, 15]))
    for r in range(runs):
        expected = naive.descend(naive.run(start, r), matrices, b, 0.01, 15)
        assert naive.deviation(naive.run(found.layers, r), expected) <= 1e-12
        assert found.loss[r, 0] == pytest.approx(naive.loss(naive.run(start, r), matrices, b), rel=1e-10, abs=1e-12)
        assert found.loss[r, -1] == pytest.approx(naive.loss(expected, matrices, b), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("runs", [1, 3, 70])
@pytest.mark.parametrize("residual", [False, True])
def test_regression_agrees_with_naive_loop(runs, residual, rng):
    X, y = rng.standard_normal((12, 3)), rng.standard_normal(12)
    p = rng.standard_normal(3) if residual else None
    A = bf.measurements.regression(X, p)
    if residual:
        start = bf.dynamics.residual_layers(3, 4, np.linspace(0.1, 1.0, runs), rng)
    else:
        start = bf.dynamics.gaussian_layers([3, 4, 2, 1], np.linspace(0.2, 0.6, runs), rng)
    steps = np.linspace(0.01, 0.03, runs)
    found = descend(start, A, y, step=steps, iterations=200)
    matrices = [np.outer(np.ones(1) if p is None else p, x) for x in X]
    for r in {0, runs // 2, runs - 1}:
        expected = naive.descend(naive.run(start, r), matrices, y, steps[r], 200)
        assert naive.deviation(naive.run(found.layers, r), expected) <= 1e-8
        assert found.loss[r, -1] == pytest.approx(naive.loss(expected, matrices, y), rel=1e-9)


def test_one_run_has_no_leading_axis(rng):
    X = rng.standard_normal((8, 2))
    for A in (bf.measurements.regression(X), bf.measurements.gaussian(8, (2, 2), rng)):
        start = bf.dynamics.gaussian_layers([2, 3, A.matrix_shape[0]], 0.5, rng)
        found = descend(start, A, np.ones(8), step=0.01, iterations=20, observe=("norms", "alignment", "nuclear_norm"))
        assert [layer.shape for layer in found.layers] == [layer.shape for layer in start]
        assert (found.loss.shape, found["norms"].shape, found["alignment"].shape) == ((21,), (21, 2), (21, 1))
        assert found.diverged.shape == ()
        assert found.diverged == -1
        np.testing.assert_allclose(found["nuclear_norm"][-1], np.linalg.norm(found.matrix, "nuc"))
        assert "1 run" in repr(found)


def test_runs_are_independent_of_their_company(rng):
    start = bf.dynamics.gaussian_layers([3, 4, 3, 1], np.full(100, 0.5), rng)
    roots = rng.standard_normal((100, 6, 3))
    sigma, w, steps = roots.transpose(0, 2, 1) @ roots / 6, rng.standard_normal((100, 3)), rng.uniform(0.01, 0.1, 100)
    together = descend_regression(start, sigma, w, step=steps, iterations=300, record=[7])
    for r in (0, 63, 64, 99):
        alone = descend_regression(naive.run(start, r), sigma[r], w[r], step=steps[r], iterations=300)
        for a, b in zip(alone.layers, naive.run(together.layers, r), strict=True):
            np.testing.assert_array_equal(a, b)
    part = descend_regression([layer[20:60] for layer in start], sigma[20:60], w[20:60], step=steps[20:60], iterations=300)
    for a, b in zip(part.layers, together.layers, strict=True):
        np.testing.assert_array_equal(a, b[20:60])


def test_regression_broadcasts_over_scales_seeds_and_steps(rng):
    start = bf.dynamics.residual_layers(2, 3, np.linspace(0.1, 1.0, 4)[:, None, None] * np.ones((5, 1)), rng)
    p = rng.standard_normal((5, 1, 2))
    steps = np.array([0.01, 0.02, 0.03])
    start = [np.broadcast_to(layer, (4, 5, 3, 2, 2)) for layer in start]
    found = descend_regression(
        start, np.eye(2), [1.0, 0.0], readout=p, step=steps, iterations=50, observe=("distance", "trace")
    )
    assert found.loss.shape == (4, 5, 3, 51)
    assert found.times.shape == (4, 5, 3, 51)
    assert found.diverged.shape == (4, 5, 3)
    one = descend_regression(
        [layer[3, 2, 1] for layer in start], np.eye(2), [1.0, 0.0], readout=p[2, 0], step=0.02, iterations=50
    )
    for many, single in zip(found.layers, one.layers, strict=True):  # the steps are the same, whatever runs beside them
        np.testing.assert_array_equal(many[3, 2, 1], single)
    # The loss is a sum that NumPy may add up in another order, from errors that have become small beside the weights.
    np.testing.assert_allclose(found.loss[3, 2, 1], one.loss, rtol=1e-9)
    np.testing.assert_allclose(found.times[3, 2, 1], one.times)
    A = bf.measurements.regression(np.sqrt(2) * np.eye(2), p[2, 0])
    assert found["trace"][3, 2, 1, -1] == pytest.approx(bf.curvature.trace(one.layers, A))
    product = p[2, 0] @ np.linalg.multi_dot(one.layers[::-1])
    assert found["distance"][3, 2, 1, -1] == pytest.approx(np.sum((product - [1, 0]) ** 2))


def test_sharpness_is_recorded_along_the_way(rng):
    X, y = rng.standard_normal((9, 2)), rng.standard_normal(9)
    start = bf.dynamics.gaussian_layers([2, 2, 1], [0.3, 0.5], rng)
    found = descend(start, bf.measurements.regression(X), y, step=0.05, iterations=20, record=[10], observe=("sharpness",))
    w = np.linalg.lstsq(X, y, rcond=None)[0]
    for k, iterations in enumerate((0, 10, 20)):
        layers = naive.descend(naive.run(start, 1), [x[None] for x in X], y, 0.05, iterations)
        expected = bf.closed_forms.regression_sharpness(layers, X.T @ X / 9, w)
        assert found["sharpness"][1, k] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["regression", "dense"])
def test_divergence_is_recorded(kind, rng):
    if kind == "regression":
        A, widths = bf.measurements.regression(np.eye(2) * np.sqrt(2)), [2, 2, 2, 1]
    else:
        A, widths = bf.measurements.Dense(rng.standard_normal((4, 2, 2))), [2, 2, 2, 2]
    start = bf.dynamics.gaussian_layers(widths, [0.5, 0.5, 5.0, 0.5], rng)
    watch = ("norms", "sharpness", "trace")
    found = descend(start, A, np.ones(A.m), step=[0.02, 30.0, 0.5, 0.02], iterations=60, record=1, observe=watch)
    np.testing.assert_array_equal(found.diverged >= 0, [False, True, True, False])
    for r in (1, 2):
        when = found.diverged[r]
        assert 0 < when < 60
        assert np.all(np.isfinite(found.loss[r, :when]))
        assert np.all(np.isinf(found.loss[r, when + 1 :]))
        assert all(np.all(np.isnan(found[name][r, when + 1 :])) for name in watch)
        cut = descend(naive.run(start, r), A, np.ones(A.m), step=[0.0, 30.0, 0.5][r], iterations=int(when))
        for kept, last in zip(naive.run(found.layers, r), cut.layers, strict=True):
            np.testing.assert_allclose(kept, last, rtol=1e-10)
    for r in (0, 3):
        alone = descend(naive.run(start, r), A, np.ones(A.m), step=0.02, iterations=60)
        assert naive.deviation(naive.run(found.layers, r), alone.layers) <= 1e-14
        assert np.all(np.isfinite(found.loss[r]))
    assert "2 of 4 diverged" in found.message
    everything = descend(naive.run(start, 1), A, np.ones(A.m), step=30.0, iterations=60)
    assert everything.diverged == found.diverged[1]
    assert everything.loss[-1] == np.inf


def test_functions_of_one_run_can_be_watched(rng):
    start = bf.dynamics.gaussian_layers([2, 2, 2], [0.3, 0.5], rng)
    A = bf.measurements.gaussian(5, (2, 2), rng)
    watch = {"first": lambda layers: layers[0], "corner": lambda layers: (layers[1] @ layers[0])[0, 0]}
    found = descend(start, A, np.ones(5), step=0.01, iterations=6, record=[3], observe=watch)
    assert list(found) == ["first", "corner"]
    assert found["first"].shape == (2, 3, 2, 2)
    np.testing.assert_array_equal(found["first"][:, 0], start[0])
    np.testing.assert_allclose(found["corner"][:, -1], found.matrix[:, 0, 0])


def test_balance_is_watched(rng):
    start = bf.dynamics.gaussian_layers([2, 3, 2], [0.3, 0.5], rng)
    A = bf.measurements.gaussian(5, (2, 2), rng)
    found = descend(start, A, np.ones(5), step=0.01, iterations=2, observe=("imbalance", "spectral_norms"))
    gap = start[1][1].T @ start[1][1] - start[0][1] @ start[0][1].T
    assert found["imbalance"][1, 0] == pytest.approx(np.linalg.norm(gap))
    assert found["spectral_norms"][1, 0, 1] == pytest.approx(np.linalg.norm(start[1][1], 2))


def test_no_steps(rng):
    start = bf.dynamics.gaussian_layers([2, 1], 0.3, rng)
    found = descend(start, bf.measurements.regression(np.eye(2)), [1.0, 1.0], step=0.1, iterations=0)
    np.testing.assert_array_equal(found.layers[0], start[0])
    assert found.loss.shape == (1,)


def good():
    A = bf.measurements.gaussian(4, (2, 2), rng=0)
    return {"layers": [np.eye(2), np.eye(2)], "A": A, "b": np.ones(4), "step": 0.1, "iterations": 3}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", []),
        ("layers", [np.ones((2, 2)), np.ones((3, 2))]),
        ("layers", [np.ones((2, 2, 2)), np.ones((3, 2, 2))]),
        ("layers", [np.full((2, 2), np.nan)]),
        ("A", None),
        ("b", np.ones(3)),
        ("step", 0.0),
        ("step", [0.1, 0.2]),
        ("step", np.inf),
        ("iterations", -1),
        ("iterations", 2.5),
        ("record", 0),
        ("record", [5]),
        ("record", [-1]),
        ("record", [0.5]),
        ("observe", ("unknown",)),
        ("observe", ("distance",)),
    ],
)
def test_bad_input(name, value):
    with pytest.raises(ValueError, match=name):
        descend(**(good() | {name: value}))


@pytest.mark.parametrize("value", bad_input.not_numbers((2, 2)))
def test_bad_covariance(value):
    with pytest.raises(ValueError, match="covariance"):
        descend_regression([np.ones((1, 2))], value, [1.0, 1.0], step=0.1, iterations=1)
