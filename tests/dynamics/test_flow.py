import itertools
import warnings

import numpy as np
import pytest
import scipy.integrate
from hypothesis import given, settings
from hypothesis import strategies as st

import balancedfact as bf
from tests import maps
from tests.dynamics import naive

flow = bf.dynamics.gradient_flow


def reference(layers, matrices, b, t_final):
    """The flow by a general integrator at the tightest tolerance."""
    shapes = [layer.shape for layer in layers]
    ends = np.cumsum([rows * cols for rows, cols in shapes])[:-1]

    def unpack(y):
        return [part.reshape(shape) for part, shape in zip(np.split(y, ends), shapes, strict=True)]

    def slope(_, y):
        return -np.concatenate([g.ravel() for g in naive.gradients(unpack(y), matrices, b)])

    start = np.concatenate([layer.ravel() for layer in layers])
    return unpack(scipy.integrate.solve_ivp(slope, (0, t_final), start, method="DOP853", rtol=3e-14, atol=1e-15).y[:, -1])


def regression(condition, rng, d=4, n=10):
    X = np.linalg.qr(rng.standard_normal((n, d)))[0] * np.sqrt(n * np.geomspace(1 / condition, 1, d))
    w = rng.standard_normal(d)
    return X, w / np.linalg.norm(w)


@settings(max_examples=10)
@given(maps.cases(*maps.BUILT_IN.values(), largest=3, most=4), st.lists(st.integers(1, 3), max_size=2))
def test_any_map_agrees_with_reference(case, hidden):
    A, matrices, rng = case
    A.row_norms  # noqa: B018 - every built-in map has them
    size = max(np.abs(matrices).max(), 1e-3)
    b, widths = size * rng.standard_normal(A.m), [A.matrix_shape[1], *hidden, A.matrix_shape[0]]
    start = bf.dynamics.gaussian_layers(widths, 0.5, rng)
    t_final = 0.5 / size**2
    found = flow(start, A, b, t_final=t_final)
    assert naive.deviation(found.layers, reference(start, matrices, b, t_final)) <= 1e-8
    assert found.times[-1] == t_final
    assert found["drift"].max() <= 1e-8
    assert found.loss[-1] == pytest.approx(naive.loss(found.layers, matrices, b), rel=1e-9, abs=1e-14 * size**2)


@pytest.mark.slow
@pytest.mark.parametrize("condition", [1.0, 60.0])
def test_stiff_and_not_agree_with_reference(condition, rng):
    X, w = regression(condition, rng, d=3)
    start = bf.dynamics.gaussian_layers([3, 3, 1], 0.3, rng)
    t_final = 5.0 * condition**0.8
    found = flow(start, bf.measurements.regression(X), X @ w, t_final=t_final)
    expected = reference(start, [x[None] for x in X], X @ w, t_final)
    assert naive.deviation(found.layers, expected) <= 1e-8
    tight = flow(start, bf.measurements.regression(X), X @ w, t_final=t_final, rtol=1e-10)
    assert naive.deviation(tight.layers, expected) <= 1e-10


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("condition", "L"),
    [(1.0, 2), (1.0, 4), (1e2, 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1e3, 4), (1e5, 3)))],
)
def test_runs_until_stationary(condition, L, rng):
    X, w = regression(condition, rng)
    y = X @ w
    start = bf.dynamics.gaussian_layers([4] * L + [1], 0.3, rng)
    found = flow(start, bf.measurements.regression(X), y)
    assert found.message.startswith("Stationary")
    np.testing.assert_allclose(found.matrix[0], w, atol=1e-11 * condition)
    assert found["drift"].max() <= 1e-7
    changes = [
        (above.T @ above - below @ below.T) - (start[k + 1].T @ start[k + 1] - start[k] @ start[k].T)
        for k, (below, above) in enumerate(zip(found.layers[:-1], found.layers[1:], strict=True))
    ]
    size = max(np.sum(layer**2) for layer in found.layers)
    assert max(np.linalg.norm(change) for change in changes) / size == pytest.approx(found["drift"][-1], rel=1e-6)
    assert np.all(np.diff(found.loss) <= 1e-12 * found.loss[0])


def test_data_with_noise_end_at_least_squares(rng):
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    start = bf.dynamics.residual_layers(3, 5, 0.5, rng)
    p = rng.standard_normal(3)
    found = flow(start, bf.measurements.regression(X, p), y)
    assert found.message.startswith("Stationary")
    np.testing.assert_allclose(p @ found.matrix, np.linalg.lstsq(X, y, rcond=None)[0], atol=1e-10)
    assert found.loss[-1] == pytest.approx(np.mean((X @ (p @ found.matrix) - y) ** 2))


def test_narrow_layers_end_at_a_point_that_does_not_fit(rng):
    """A hidden layer of width one leaves a best approximation of rank one; its residual is not small."""
    A = bf.measurements.Entries(*np.divmod(np.arange(9), 3), (3, 3))
    M = np.diag([3.0, 2.0, 1.0]) + 0.1 * rng.standard_normal((3, 3))
    found = flow(bf.dynamics.gaussian_layers([3, 1, 3], 0.3, rng), A, M.ravel())
    assert found.message.startswith("Stationary")
    U, s, Vt = np.linalg.svd(M)
    np.testing.assert_allclose(found.matrix, s[0] * np.outer(U[:, 0], Vt[0]), atol=1e-9)


@pytest.mark.few(1)
@pytest.mark.parametrize("L", [2, 3, 5])
def test_small_start_ends_rank_one_aligned_and_with_equal_norms(L, rng):
    X, w = regression(4.0, rng)
    A, shape = bf.measurements.regression(X), bf.dynamics.gaussian_layers([4] * L + [1], 1.0, rng)
    exact = bf.closed_forms.rank_one_limit_sharpness(X.T @ X / 10, w, L)
    gaps, misalignments = [], []
    for scale in (1e-2, 1e-3):
        start = [scale * layer for layer in shape]
        found = flow(start, A, X @ w, observe=("norms", "spectral_norms", "alignment", "sharpness"))
        # Lemma 2 with its constant, along the whole flow.
        mismatch = sum(np.linalg.norm(below @ below.T - above.T @ above, 2) for below, above in itertools.pairwise(start))
        epsilon = 3 * max(np.sum(layer**2) for layer in start) + 2 * mismatch
        top = found["spectral_norms"] ** 2
        assert np.all(found["norms"] ** 2 - top <= epsilon)
        assert np.all(top.max(axis=1) - top.min(axis=1) <= epsilon)
        assert np.all(found["alignment"] >= 1 - epsilon / top[:, 1:])
        # Corollary 1 at the end.
        assert np.all((found["norms"][-1] >= 0.5 ** (1 / L)) & (found["norms"][-1] <= 2 ** (1 / L)))
        gaps.append(abs(found["sharpness"][-1] / exact - 1))
        misalignments.append(1 - found["alignment"][-1].min())
    assert gaps[1] < 0.03 * gaps[0]  # the square of the scale
    assert gaps[1] < 1e-4
    assert misalignments[1] < 1e-8


def test_drift_sees_inaccuracy(rng):
    X, w = regression(10.0, rng)
    start = bf.dynamics.gaussian_layers([4, 4, 4, 1], 0.5, rng)
    coarse, fine = (flow(start, bf.measurements.regression(X), X @ w, rtol=rtol) for rtol in (1e-3, 1e-9))
    assert coarse["drift"].max() > 100 * fine["drift"].max()


def test_scales(rng):
    """Units of data and time: E -> cE with layers scaled by c^(1/L), b by c, time by c^(2/L - 2)."""
    X, w = regression(4.0, rng)
    A, start = bf.measurements.regression(X), bf.dynamics.gaussian_layers([4, 4, 1], 0.3, rng)
    one = flow(start, A, X @ w)
    for c in (1e-40, 1e40):
        other = flow([np.sqrt(c) * layer for layer in start], A, c * (X @ w))
        assert naive.deviation([layer / np.sqrt(c) for layer in other.layers], one.layers) <= 1e-8


def test_zero_start_is_stationary():
    found = flow([np.zeros((2, 2)), np.zeros((1, 2))], bf.measurements.regression(np.eye(2)), [1.0, 2.0])
    assert found.message == "Stationary after 0 steps"
    assert found.loss[-1] == 2.5
    assert found.times.tolist() == [0.0]


def test_zero_time_and_too_few_steps(rng):
    X, w = regression(4.0, rng)
    A, start = bf.measurements.regression(X), bf.dynamics.gaussian_layers([4, 4, 1], 0.3, rng)
    assert naive.deviation(flow(start, A, X @ w, t_final=0.0).layers, start) == 0
    cut = flow(start, A, X @ w, max_steps=3)
    assert cut.message == "Stopped after 3 steps, before stationarity"
    assert cut.status is bf.Status.LIMIT
    assert flow(start, A, X @ w, max_steps=1, t_final=1e3).message == "Stopped after 1 step, before t_final"
    twice = [np.stack([layer, layer]) for layer in start]
    both = flow(twice, A, X @ w, max_steps=3)
    assert both.message == "Stopped, before stationarity: 2 of 2"
    assert both.status is bf.Status.LIMIT
    assert len(cut.times) <= 4


def test_large_layers_are_not_stationary():
    A, start = bf.measurements.regression(np.eye(3)), bf.dynamics.gaussian_layers([3, 3, 1], 1e100, rng=0)
    with pytest.raises(ValueError, match=r"layers, A and b make the flow run at 9.0e\+299; expected at most 1e\+150"):
        flow(start, A, np.ones(3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", [np.eye(3), np.eye(2)]),
        ("layers", [np.ones((4, 2, 2)), np.ones((3, 2, 2))]),
        ("layers", [np.ones((0, 2, 2)), np.ones((0, 2, 2))]),
        ("b", np.ones(5)),
        ("t_final", -1.0),
        ("t_final", np.nan),
        ("rtol", 0.0),
        ("rtol", 0.5),
        ("stationarity", -1.0),
        ("record", -0.1),
        ("max_steps", 0),
        ("observe", ["distances"]),
    ],
)
def test_bad_input(name, value):
    A = bf.measurements.gaussian(4, (2, 2), rng=0)
    options = {"layers": [np.eye(2), np.eye(2)], "A": A, "b": np.ones(4)}
    with pytest.raises(ValueError, match=name):
        flow(**(options | {name: value}))


@pytest.mark.slow
def test_many_starts_in_one_call_are_the_single_runs_without_warnings(rng):
    A = bf.measurements.gaussian(7, (3, 3), rng)
    start, b = bf.dynamics.gaussian_layers([3, 3, 3], [[0.01, 0.5, 30.0]], rng), rng.standard_normal(7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many = flow(start, A, b, observe=("norms",))
    assert many.layers[0].shape == (1, 3, 3, 3)
    assert many.loss.shape == many.times.shape == many["drift"].shape
    assert many["norms"].shape == (*many.loss.shape, 2)
    assert many.diverged.shape == (1, 3)
    assert "Stationary: 3 of 3" in many.message
    for r in range(3):
        one = flow([layer[0, r] for layer in start], A, b, observe=("norms",))
        for found, expected in zip(many.layers, one.layers, strict=True):
            np.testing.assert_array_equal(found[0, r], expected)
        count = one.loss.size
        np.testing.assert_array_equal(many.times[0, r, :count], one.times)
        np.testing.assert_array_equal(many["norms"][0, r, :count], one["norms"])
        assert np.all(many.loss[0, r, count:] == one.loss[-1])
