import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

import balancedfact as bf
from tests import bad_input

flattest, minimal = bf.closed_forms.flattest_regression_layers, bf.closed_forms.minimal_sharpness


def covariance(kind, d, rng):
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    values = {
        "white": np.ones(d),
        "sample": rng.uniform(0.3, 3.0, d),
        "ill-conditioned": np.geomspace(1e-6, 2.0, d),
        "singular": np.r_[0.0, rng.uniform(0.3, 3.0, d - 1)],
        "repeated top": np.r_[0.5, 2.0 * np.ones(d - 1)],
    }[kind]
    matrix = (Q * values) @ Q.T
    return (matrix + matrix.T) / 2


def brute_force(sigma, w, L, width, rng):
    """Minimise the largest eigenvalue of the Hessian over all weights of least risk, from several starts."""
    d = w.size
    values, vectors = np.linalg.eigh(sigma)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    unseen = vectors[:, values < 1e-12]
    shapes = [(width, d)] + [(width, width)] * (L - 2) + [(1, width), (1, unseen.shape[1])]

    def sharpness(theta):
        arrays, start = [], 0
        for rows, cols in shapes:
            arrays.append(anp.reshape(theta[start : start + rows * cols], (rows, cols)))
            start += rows * cols
        after = [anp.eye(1)]
        for layer in arrays[-2:0:-1]:
            after.insert(0, anp.dot(after[0], layer))
        a = after[0]  # the first layer is what makes the product w, up to a part that no datum sees
        first = arrays[0] - anp.dot(a.T, anp.dot(a, arrays[0]) - w - anp.dot(arrays[-1], unseen.T)) / anp.sum(a**2)
        total, before = 0.0, anp.eye(d)
        for C, layer in zip(after, [first, *arrays[1:-1]], strict=True):
            total = total + anp.sum(C**2) * anp.dot(before.T, before)
            before = anp.dot(layer, before)
        return 2 * anp.linalg.eigh(anp.dot(root, anp.dot(total, root)))[0][-1]

    gradient, best = autograd.value_and_grad(sharpness), np.inf
    for _ in range(2):
        start = rng.standard_normal(sum(rows * cols for rows, cols in shapes))
        for _ in range(3):
            found = scipy.optimize.minimize(gradient, start, jac=True, method="BFGS", options={"gtol": 1e-11, "maxiter": 3000})
            start = found.x
        best = min(best, found.fun)
    return best


@pytest.mark.few(1)
@pytest.mark.parametrize("L", [2, 3, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["white", "sample", "ill-conditioned", "singular"])
def test_agrees_with_brute_force(kind, L, rng):
    sigma = covariance(kind, 2 if L == 5 else 3, rng)
    w = rng.standard_normal(len(sigma))
    assert minimal(sigma, w, L) == pytest.approx(brute_force(sigma, w, L, 2 if L < 5 else 1, rng), rel=1e-9)


KINDS = ["white", "sample", "singular", "repeated top"]


def one_dimensional_problem(sigma, w, L):
    """The problem of the docstring, in log s, by golden section."""
    values, vectors = np.linalg.eigh(sigma)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T @ w

    def value(t):
        return 2 * np.linalg.eigvalsh(np.exp(t) * sigma + (L - 1) * np.exp(-t / (L - 1)) * np.outer(root, root))[-1]

    return scipy.optimize.minimize_scalar(value, bracket=(-1.0, 1.0), method="golden", tol=1e-12).fun


@given(
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(2, 8),
    st.sampled_from(["white", "sample", "singular", "repeated top"]),
)
def test_solves_the_one_dimensional_problem(seed, d, L, kind):
    rng = np.random.default_rng(seed)
    sigma = covariance(kind, d, rng) if d > 1 else np.array([[2.5]])
    w = rng.standard_normal(d)
    assert minimal(sigma, w, L) == pytest.approx(one_dimensional_problem(sigma, w, L), rel=1e-9)


@pytest.mark.few(5)
@pytest.mark.parametrize("L", [2, 3, 10, 100])
@pytest.mark.parametrize("kind", ["white", "sample", "ill-conditioned", "singular", "repeated top"])
@pytest.mark.parametrize("hidden", [1, 3])
def test_layers_attain_it(kind, L, hidden, rng):
    sigma, w = covariance(kind, 4, rng), rng.standard_normal(4)
    layers = flattest(sigma, w, [4] + [hidden] * (L - 1) + [1])
    product = np.linalg.multi_dot(layers[::-1]) if L > 1 else layers[0]
    np.testing.assert_allclose(product[0], w, rtol=1e-12)
    assert [layer.shape for layer in layers] == [(hidden, 4)] + [(hidden, hidden)] * (L - 2) + [(1, hidden)]
    assert bf.closed_forms.regression_sharpness(layers, sigma) == pytest.approx(minimal(sigma, w, L), rel=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_minimiser_outside_or_inside_the_top_eigenspace(axis):
    sigma = np.diag([1.0, 1e-4, 0.25])
    for L in (2, 3, 7):
        value = minimal(sigma, 3 * np.eye(3)[axis], L)
        assert value == pytest.approx(one_dimensional_problem(sigma, 3 * np.eye(3)[axis], L), rel=1e-9)
        layers = flattest(sigma, 3 * np.eye(3)[axis], [3] + [2] * (L - 1) + [1])
        assert bf.closed_forms.regression_sharpness(layers, sigma) == pytest.approx(value, rel=1e-12)


@pytest.mark.slow
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(2, 8), st.sampled_from([*KINDS, "ill-conditioned"]))
def test_dual_form(seed, d, L, kind):
    """No unit vector gives more than the minimum, and the best one gives as much."""
    rng = np.random.default_rng(seed)
    sigma = covariance(kind, d, rng)
    values, vectors = np.linalg.eigh(sigma)
    root, w = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T, rng.standard_normal(d)

    def bound(y):
        y = y / np.linalg.norm(y)
        return 2 * L * (y @ sigma @ y) ** (1 / L) * abs(y @ root @ w) ** (2 - 2 / L)

    value = minimal(sigma, w, L)
    starts = [rng.standard_normal(d), sigma @ w, vectors[:, -1] + 0.1 * root @ w]
    found = [scipy.optimize.minimize(lambda y: -bound(y), start, method="BFGS", options={"gtol": 1e-10}) for start in starts]
    best = max(-result.fun for result in found)
    assert best <= value * (1 + 1e-12)
    assert best >= value * (1 - 1e-8)


def test_tiny_part_on_the_top_eigenspace():
    sigma = np.diag([1.0, 0.5])
    values = [minimal(sigma, [eps, 1.0], 3) for eps in (0.0, 1e-300, 1e-100, 1e-30, 1e-12, 1e-8)]
    np.testing.assert_allclose(values, values[0], rtol=1e-7)


def test_white_data_has_a_formula(rng):
    w = rng.standard_normal(3)
    for L in (2, 3, 10):
        assert minimal(np.eye(3), w, L) == pytest.approx(2 * L * np.linalg.norm(w) ** (2 - 2 / L), rel=1e-13)


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e140])
def test_scales(scale, rng):
    sigma, w = covariance("sample", 3, rng), rng.standard_normal(3)
    assert minimal(scale * sigma, w, 4) == pytest.approx(scale * minimal(sigma, w, 4), rel=1e-12)
    assert minimal(sigma, scale * w, 4) == pytest.approx(scale**1.5 * minimal(sigma, w, 4), rel=1e-12)
    product = np.linalg.multi_dot(flattest(sigma, scale * w, [3, 2, 2, 2, 1])[::-1])
    np.testing.assert_allclose(product[0], scale * w, rtol=1e-12)


def test_unseen_part_of_the_minimiser_does_not_matter(rng):
    sigma, w = np.diag([0.0, 1.0, 2.0]), rng.standard_normal(3)
    assert minimal(sigma, w, 3) == pytest.approx(minimal(sigma, w * [0, 1, 1], 3), rel=1e-12)


@pytest.mark.parametrize(
    ("sigma", "w"), [(np.eye(2), [0.0, 0.0]), (np.diag([1.0, 0.0]), [0.0, 3.0]), (np.zeros((2, 2)), [1.0, 1.0])]
)
def test_nothing_to_fit(sigma, w):
    assert minimal(sigma, w, 3) == 0
    layers = flattest(sigma, w, [2, 2, 4, 1])
    assert [layer.shape for layer in layers] == [(2, 2), (4, 2), (1, 4)]
    assert not any(layer.any() for layer in layers)
    assert bf.closed_forms.regression_sharpness(layers, sigma, w) == 0


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 12))
def test_published_bounds_hold(seed, d, L):
    rng = np.random.default_rng(seed)
    sigma = covariance("sample", d, rng)
    w = rng.standard_normal(d)
    lower, upper = bf.closed_forms.sharpness_bounds(sigma, w, L)
    value = minimal(sigma, w, L)
    assert lower <= value * (1 + 1e-12)
    assert value <= upper * (1 + 1e-12)


def test_bounds_from_their_formula():
    sigma, w = np.diag([3.0, 1.0]), np.array([1.2, -1.6])
    a, size = w @ sigma @ w / 4.0, 2.0 ** (2 - 2 / 5)
    lower, upper = bf.closed_forms.sharpness_bounds(sigma, w, 5)
    assert lower == pytest.approx(10 * size * a)
    assert upper == pytest.approx(2 * size * np.sqrt(9 * 9.0 + 16 * a**2))
    assert bf.closed_forms.sharpness_bounds(sigma, [0.0, 0.0], 5) == (0, 0)


FUNCTIONS = [
    lambda sigma, w: minimal(sigma, w, 3),
    lambda sigma, w: flattest(sigma, w, [2, 2, 1]),
    lambda sigma, w: bf.closed_forms.sharpness_bounds(sigma, w, 3),
    lambda sigma, w: bf.closed_forms.rank_one_limit_sharpness(sigma, w, 3),
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("value", bad_input.bad((2, 2)))
def test_bad_covariance(function, value):
    with pytest.raises(ValueError, match=r"covariance|(M|w) has"):
        function(value, [1.0, 2.0])


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("value", [[[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, -1.0]], np.ones((2, 3))])
def test_covariance_must_be_semidefinite(function, value):
    with pytest.raises(ValueError, match="covariance"):
        function(value, [1.0, 2.0])


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("value", [each for each in bad_input.bad((2,)) if each.id != "one dimension more"])
def test_bad_minimiser(function, value):
    with pytest.raises(ValueError, match=r"^(M|w) "):
        function(np.eye(2), value)


@pytest.mark.parametrize("depth", [*bad_input.BAD_COUNT, 1])
def test_bad_depth(depth):
    for function in (minimal, bf.closed_forms.sharpness_bounds, bf.closed_forms.rank_one_limit_sharpness):
        with pytest.raises(ValueError, match="depth"):
            function(np.eye(2), [1.0, 2.0], depth)


@pytest.mark.parametrize("widths", [None, 3, [2, 1], [2, 0, 1], [3, 2, 1], [2, 2, 2], [2, 2.5, 1]])
def test_bad_widths(widths):
    with pytest.raises(ValueError, match="widths"):
        flattest(np.eye(2), [1.0, 2.0], widths)
    with pytest.raises(ValueError, match="widths"):
        bf.closed_forms.rank_one_limit([1.0, 2.0], widths)
