"""Continuous models against the rules that they model, as the step tends to zero; their parts against naive versions."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.dynamics._central_flow import _complementary
from balancedfact.dynamics._jets import Jets
from balancedfact.dynamics._model import MapModel
from tests import maps
from tests.dynamics import naive

BUILDERS = [*maps.BUILT_IN.values(), *maps.DERIVED.values()]


def distance(one, other):
    return np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(one, other, strict=True)))


@settings(max_examples=20)
@given(maps.cases(*BUILDERS, largest=4), st.lists(st.integers(1, 3), max_size=3))
def test_series_are_the_derivatives(case, hidden):
    A, matrices, rng = case
    b, widths = rng.standard_normal(A.m), [A.matrix_shape[1], *hidden, A.matrix_shape[0]]
    W = bf.dynamics.gaussian_layers(widths, 0.7, rng)
    jets = Jets(MapModel(A, b), [w.shape for w in W])
    y, v = jets.flat(W), rng.standard_normal((3, jets.size))
    assert naive.deviation(jets.layers(jets.gradient(y)), naive.gradients(W, matrices, b)) <= 1e-11
    for one, product, third in zip(v, jets.product(y, v), jets.third(y, v), strict=True):
        exact = bf.curvature.hessian_vector_product(W, jets.layers(one), A, b)
        np.testing.assert_allclose(product, jets.flat(exact), atol=1e-11 * (1 + np.abs(product).max()))
        h = 1e-4
        difference = (jets.product(y + h * one, one) - jets.product(y - h * one, one)) / (2 * h)
        np.testing.assert_allclose(third, difference, atol=1e-5 * (1 + np.abs(third).max()))
    J = np.array([[np.sum(M * E) for M in matrices] for E in _ends(jets, y)]).T
    np.testing.assert_allclose(jets.jacobian(y), J, atol=1e-7 * (1 + np.abs(J).max()))


def _ends(jets, y, h=1e-6):
    """Differences of the end-to-end matrix in every coordinate."""
    ends = []
    for unit in np.eye(y.size):
        ahead, behind = (naive.products(jets.layers(y + s * unit))[0][-1] for s in (h, -h))
        ends.append((ahead - behind) / (2 * h))
    return ends


def fitted(kind, rng):
    if kind == "few":
        A = bf.measurements.gaussian(4, (3, 2), rng)
    else:  # more measurements than parameters of the matrix
        X = rng.standard_normal((5, 2))
        A = bf.measurements.regression(X)
    widths = [2, 3, A.matrix_shape[0]]
    W = bf.dynamics.gaussian_layers(widths, 0.8, rng)
    return A, A(W[1] @ W[0]), W


@pytest.mark.parametrize("kind", ["few", "many"])
@pytest.mark.parametrize(("batch", "replacement"), [(1, True), (3, True), (2, False), (1, False), (4, False)])
def test_threshold_is_where_the_covariance_begins_to_grow(kind, batch, replacement, rng):
    A, b, W = fitted(kind, rng)
    eta = bf.dynamics.stability_threshold(W, A, b, batch=batch, replacement=replacement)
    jets = Jets(MapModel(A, b), [w.shape for w in W])
    J = jets.jacobian(jets.flat(W))
    seen = np.linalg.svd(J)[2][: np.linalg.matrix_rank(J)]
    hessians = [2 * np.outer(seen @ g, seen @ g) for g in J]
    drawn = itertools.product(hessians, repeat=batch) if replacement else itertools.combinations(hessians, batch)
    sets = [sum(some) / batch for some in drawn]
    identity = np.eye(seen.shape[0])

    def growth(step):
        """The spectral radius of the map of covariances, from all batches."""
        moves = [identity - step * H for H in sets]
        return np.abs(np.linalg.eigvals(sum(np.kron(M, M) for M in moves) / len(moves))).max()

    assert growth(eta * (1 - 1e-5)) < 1 < growth(eta * (1 + 1e-5))
    scaled = bf.measurements.Dense(1e-60 * np.stack([A.adjoint(unit) for unit in np.eye(A.m)]))
    again = bf.dynamics.stability_threshold(W, scaled, 1e-60 * b, batch=batch, replacement=replacement)
    assert again * 1e-120 == pytest.approx(eta, rel=1e-9)


def test_threshold_of_many_directions_is_that_of_the_whole_matrix(rng, monkeypatch):
    A = bf.measurements.gaussian(8, (3, 3), rng)
    W = bf.dynamics.gaussian_layers([3, 3, 3], 0.8, rng)
    b = A(W[1] @ W[0])
    dense = bf.dynamics.stability_threshold(W, A, b, batch=2)
    monkeypatch.setattr("balancedfact.dynamics._stability._DECOMPOSED_DIRECTIONS", 0)
    assert bf.dynamics.stability_threshold(W, A, b, batch=2) == pytest.approx(dense, rel=1e-9)


def test_sgd_grows_above_the_threshold_and_shrinks_below(rng):
    A, b, W = fitted("few", rng)
    eta = bf.dynamics.stability_threshold(W, A, b, batch=1)
    shift = [1e-7 * rng.standard_normal(w.shape) for w in W]
    start = [np.repeat((w + e)[None], 400, axis=0) for w, e in zip(W, shift, strict=True)]
    options = {"iterations": 60, "batch": 1, "rng": 0, "record": [60], "observe": ()}
    ends = [bf.dynamics.sgd(start, A, b, step=factor * eta, **options).loss.mean(axis=0) for factor in (0.6, 2.0)]
    assert ends[0][1] < 1e-2 * ends[0][0]
    assert ends[1][1] > 10 * ends[1][0]


SQUARE = bf.measurements.regression(np.array([[1.0, 0.3], [-0.2, 0.8]]))
TARGET = SQUARE(np.array([[1.0, 0.5]]))


def on_manifold(rng, **options):
    start = bf.dynamics.gaussian_layers([2, 2, 1], 1.2, rng)
    return bf.dynamics.label_noise_flow(start, SQUARE, TARGET, step=0.1, t_final=0.0, **options).layers


def test_label_noise_flow_of_equal_noise_is_the_descent_of_the_trace():
    rng = np.random.default_rng(0)
    start = on_manifold(rng)
    options = {"step": 0.1, "t_final": 60.0, "rtol": 1e-7}
    equal = bf.dynamics.label_noise_flow(start, SQUARE, TARGET, label_noise=0.5, **options)
    each = bf.dynamics.label_noise_flow(start, SQUARE, TARGET, label_noise=[0.5, 0.5], **options)
    matrix = bf.dynamics.label_noise_flow(start, SQUARE, TARGET, label_noise=0.25 * np.eye(2), **options)
    batch = bf.dynamics.label_noise_flow(start, SQUARE, TARGET, label_noise=0.5, batch=1, **(options | {"t_final": 30.0}))
    for other in (each, matrix, batch):  # a batch of one of two measurements drifts twice as fast
        assert distance(other.layers, equal.layers) <= 1e-6
    assert np.all(np.diff(equal["trace"]) < 0)
    assert equal.loss.max() < 1e-24
    long = bf.dynamics.label_noise_flow(start, SQUARE, TARGET, step=1.0, t_final=300.0)
    # Least of 2 (a^2 tr S + w'Sw / a^2) over the norm a of the upper layer, with the covariance S.
    total, along = np.mean(np.sum(SQUARE.right**2, axis=1)), np.mean(TARGET**2)
    assert long["trace"][-1] == pytest.approx(4 * np.sqrt(total * along), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["all", 2])
@pytest.mark.parametrize("covariance", [0.25 * np.eye(2), np.array([[0.45, 0.1], [0.1, 0.05]])], ids=["equal", "anisotropic"])
def test_label_noise_flow_is_the_limit_of_label_noise(covariance, batch):
    """The mean of many runs comes closer in proportion to the step, up to its standard error."""
    start, runs = on_manifold(np.random.default_rng(0)), 1024
    many = [np.repeat(w[None], runs, axis=0) for w in start]
    gaps, errors, moved = [], [], []
    for step in (0.16, 0.02):
        end = 2.0 / step  # equal drift
        steps = round(end / step)
        options = {"step": step, "label_noise": covariance, "batch": batch}
        model = bf.dynamics.label_noise_flow(start, SQUARE, TARGET, t_final=end, **options)
        rule = bf.dynamics.sgd(many, SQUARE, TARGET, iterations=steps, rng=1, record=[steps], observe=(), **options)
        gaps.append(distance([w.mean(axis=0) for w in rule.layers], model.layers))
        errors.append(np.sqrt(sum(np.sum(w.var(axis=0)) / runs for w in rule.layers)))
        moved.append(distance(model.layers, start))
    assert gaps[1] <= gaps[0] / 8 + 3 * errors[1]
    assert 4 * gaps[1] < moved[1]


VALLEY = np.random.default_rng(1).standard_normal((10, 3))
RULE = bf.measurements.regression(VALLEY)
DATA = VALLEY @ np.array([1.0, 0.5, -0.3])


def valley():
    noise = np.random.default_rng(2)
    return [1.2 * np.eye(3) + 0.1 * noise.standard_normal((3, 3)), np.array([[0.2, 0.1, 0.1]])]


@pytest.mark.few(1)
@pytest.mark.parametrize("model", ["edge_flow", "central_flow"])
def test_models_of_descent_are_of_order_one_below_the_edge(model):
    errors = []
    for step in (0.02, 0.01, 0.005):
        rule = bf.dynamics.gradient_descent(valley(), RULE, DATA, step=step, iterations=round(1 / step), record=[0])
        run = getattr(bf.dynamics, model)(valley(), RULE, DATA, step=step, t_final=1.0, record=1)
        assert run.times[-1] == pytest.approx(1.0)
        errors.append(distance(rule.layers, run.layers))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((orders > 0.8) & (orders < 1.3))


@pytest.mark.slow
def test_edge_flow_follows_descent_beyond_the_edge_to_second_order():
    """Steps above the edge of a minimum by a factor of 1 + eps: descent ends below the edge by as much as it began above."""
    bottom = bf.dynamics.gradient_flow(valley(), RULE, DATA, stationarity=1e-14).layers
    sharpness = bf.curvature.sharpness(bottom, RULE, DATA)
    way = bf.curvature.sharpest_direction(bottom, RULE, DATA)[1]
    gaps, ends = [], []
    for eps in (0.02, 0.01):
        step, steps = 2 * (1 + eps) / sharpness, int(12 / eps)
        start = [w + 0.3 * eps * e for w, e in zip(bottom, way, strict=True)]
        rule = bf.dynamics.gradient_descent(start, RULE, DATA, step=step, iterations=steps, record=[0])
        options = {"step": step, "t_final": step * steps, "record": 1}
        run = bf.dynamics.edge_flow(bottom, RULE, DATA, amplitude=0.3 * eps, **options)
        gaps.append(distance(rule.layers, run.layers))
        ends.append((bf.curvature.sharpness(rule.layers, RULE, DATA) * step / 2 - 1) / eps)
        assert run["amplitude"][-1] < 1e-3 * run["amplitude"][0]
    assert abs(ends[1] + 1) < 0.6 * abs(ends[0] + 1)
    assert gaps[0] / gaps[1] > 3.0  # four in the limit


@pytest.mark.slow
def test_central_flow_ends_at_the_edge_itself():
    bottom = bf.dynamics.gradient_flow(valley(), RULE, DATA, stationarity=1e-14).layers
    eps, sharpness = 0.04, bf.curvature.sharpness(bottom, RULE, DATA)
    step, steps = 2 * (1 + eps) / sharpness, int(16 / eps)
    run = bf.dynamics.central_flow(bottom, RULE, DATA, step=step, t_final=step * steps, substeps=1, record=1)
    assert bf.curvature.sharpness(run.layers, RULE, DATA) * step / 2 == pytest.approx(1.0, abs=1e-6 * eps)


@pytest.mark.parametrize("decomposed", [200, 0], ids=["eigenvectors", "iteration"])
def test_central_flow_that_diverges_ends_before(decomposed, monkeypatch):
    monkeypatch.setattr("balancedfact.dynamics._edge_flow._DECOMPOSED_WEIGHTS", decomposed)
    A, start = bf.measurements.regression(np.eye(3)), bf.dynamics.gaussian_layers([3, 3, 1], 5.0, rng=0)
    run = bf.dynamics.central_flow(start, A, np.ones(3), step=5.0, t_final=500.0)
    assert run.message.startswith("Diverged at time ")
    assert run.status is None
    assert run.times[-1] < float(run.message.split()[-1]) < 500.0
    assert run.diverged * 5.0 / 4 == pytest.approx(float(run.message.split()[-1]), rel=1e-3)
    assert run.times.size == run.loss.size == run["top"].size == run["variance"].size == run["norms"].shape[0] >= 2
    assert np.all(np.isfinite(run.loss))
    assert np.all(np.isfinite(run["top"]))
    assert run.loss[-1] == pytest.approx(np.mean((A(run.matrix) - 1) ** 2), rel=1e-12)
    assert run.loss[-1] > 1e10 * run.loss[0]
    again = bf.dynamics.central_flow(start, A, np.ones(3), step=5.0, t_final=run.times[-1])
    assert again.message == "Reached t_final"
    assert again.diverged == -1
    np.testing.assert_allclose(again.matrix, run.matrix, rtol=1e-6)


def started(flow, scale):
    A, b, start = bf.measurements.regression(np.eye(3)), np.ones(3), bf.dynamics.gaussian_layers([3, 3, 1], scale, rng=0)
    return {
        "edge": lambda: bf.dynamics.edge_flow(start, A, b, step=0.1, t_final=1.0, max_steps=100),
        "central": lambda: bf.dynamics.central_flow(start, A, b, step=0.1, t_final=1.0),
        "label noise": lambda: bf.dynamics.label_noise_flow(start, A, b, step=0.1, t_final=1.0),
        "gradient": lambda: bf.dynamics.gradient_flow(start, A, b, max_steps=100),
        "balanced": lambda: bf.dynamics.balanced_flow(scale * np.ones((1, 3)), A, b, 3, t_final=1.0, max_steps=100),
    }[flow]()


FLOWS = ["edge", "central", "label noise", "gradient", "balanced"]


@pytest.mark.parametrize("flow", FLOWS)
def test_starts_that_overflow_are_refused(flow):
    for scale in (1e120, 1e160):
        with pytest.raises(ValueError, match=r"make the flow run at|derivatives overflow|layers miss the data"):
            started(flow, scale)


@pytest.mark.parametrize("flow", [flow for flow in FLOWS if flow != "label noise"])  # which has nothing that fits nearby
@pytest.mark.parametrize("scale", [1e-150, 1e-60, 1e30])
def test_starts_near_the_ends_of_the_range_run(flow, scale):
    run = started(flow, scale)
    assert all(np.all(np.isfinite(w)) for w in run.layers)
    assert np.all(np.isfinite(run.loss))


def test_small_complementarity_problems_are_solved(rng):
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]

    def matrix(x):
        X = np.zeros((3, 3))
        for value, (i, j) in zip(x, pairs, strict=True):
            X[i, j] = X[j, i] = value if i == j else value / np.sqrt(2)
        return X

    for _ in range(10):
        root, q = rng.standard_normal((6, 8)), rng.standard_normal(6)
        Q = root @ root.T
        x = _complementary(Q, q, pairs, 3)
        X, rest = matrix(x), matrix(Q @ x - q)
        assert np.linalg.eigvalsh(X)[0] >= -1e-9
        assert np.linalg.eigvalsh(rest)[0] >= -1e-6
        assert abs(np.sum(X * rest)) <= 1e-6


def test_degenerate_starts():
    zero = [np.zeros((3, 3)), np.zeros((1, 3))]
    for model in (bf.dynamics.edge_flow, bf.dynamics.central_flow):
        run = model(zero, RULE, DATA, step=0.1, t_final=1.0, record=2)
        assert not any(w.any() for w in run.layers)
        assert model(valley(), RULE, DATA, step=0.1, t_final=0.0).loss.size == 1
    assert bf.dynamics.stability_threshold(zero, RULE, np.zeros(10), batch=1) == np.inf
    with pytest.raises(ValueError, match="layers miss the data"):
        bf.dynamics.stability_threshold(zero, RULE, DATA, batch=1)
    with pytest.raises(ValueError, match="layers miss the data"):
        bf.dynamics.label_noise_flow(zero, RULE, DATA, step=0.1, t_final=1.0)


def good():
    return {"layers": valley(), "A": RULE, "b": DATA, "step": 0.1, "t_final": 1.0}


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [(model, *case) for model in ("edge_flow", "central_flow", "label_noise_flow") for case in
     [("step", 0.0), ("t_final", -1.0), ("A", None), ("b", [1.0]), ("layers", [np.eye(2)]), ("observe", ("nothing",))]]
    + [("edge_flow", "amplitude", -1.0), ("edge_flow", "record", 0), ("edge_flow", "rtol", 1.0), ("edge_flow", "max_steps", 0)]
    + [("central_flow", "directions", 0), ("central_flow", "substeps", 0), ("central_flow", "record", 1.5)]
    + [("label_noise_flow", "label_noise", -1.0), ("label_noise_flow", "batch", 0), ("label_noise_flow", "max_steps", 0)],
)  # fmt: skip
def test_bad_input(model, name, value):
    with pytest.raises(ValueError, match=name):
        getattr(bf.dynamics, model)(**(good() | {name: value}))


@pytest.mark.parametrize(
    ("name", "value"), [("batch", 0), ("batch", "all"), ("replacement", 1), ("tol", 0.0), ("A", 3), ("layers", [np.eye(2)])]
)
def test_bad_input_of_the_threshold(name, value):
    options = {"layers": valley(), "A": RULE, "b": DATA, "batch": 2}
    with pytest.raises(ValueError, match=name):
        bf.dynamics.stability_threshold(**(options | {name: value}))
