"""Least sharpness of regressions with several outputs, against minimisation over the weights of the full Hessian."""

from itertools import pairwise

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.solvers.deep._smooth_sharpness import SharpPoint, descend_smoothly
from tests.oracles import hessian

minimal, flattest = bf.closed_forms.minimal_sharpness, bf.closed_forms.flattest_regression_layers


def problem(seed, outputs=2, inputs=3, rank=None, singular=False):
    """A covariance and a matrix; data with that covariance, as many as inputs."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((inputs, inputs)) * np.exp(rng.uniform(-1, 1, inputs))[:, None]
    if singular:
        X[:, -1] = X[:, 0]
    rank = rank or min(outputs, inputs)
    M = rng.standard_normal((outputs, rank)) @ rng.standard_normal((rank, inputs))
    return X @ X.T / inputs, M, X


def full_sharpness(layers, X):
    """The top of the dense Hessian of (1/n) |Y - W_L ... W_1 X|^2 at a fit."""
    outputs = layers[-1].shape[0]
    matrices = [np.outer(e, x) for x in X.T for e in np.eye(outputs)]
    E = np.linalg.multi_dot(layers[::-1])
    return outputs * np.linalg.eigvalsh(hessian(layers, matrices, np.array([np.sum(A * E) for A in matrices])))[-1]


def brute_force(sigma, M, L, width, seed):
    """The least top eigenvalue found over all layers that multiply to `M`, and descents that end there."""
    rng = np.random.default_rng(seed)
    outputs, inputs = M.shape
    values, vectors = np.linalg.eigh(sigma)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    U, s, Vt = np.linalg.svd(M)
    r = np.count_nonzero(s > 1e-12 * s[0])
    hi, lo = U[:, :r] * np.sqrt(s[:r]), np.sqrt(s[:r, None]) * Vt[:r]

    def top(theta):  # layers G_1 lo, G_j G_{j-1}^-1, hi G_{L-1}^-1 of the width of the rank
        G = [anp.eye(r) + anp.reshape(part, (r, r)) for part in anp.split(theta, L - 1)]
        B, C = [anp.eye(inputs), *[anp.dot(g, lo) for g in G]], [*[anp.dot(hi, anp.linalg.inv(g)) for g in G], anp.eye(outputs)]
        total = 0.0
        for b, c in zip(B, C, strict=True):
            half = anp.dot(root, b.T)
            total = total + anp.kron(anp.dot(c, c.T), anp.dot(half, half.T))
        return total

    def smooth(theta, sharpness):  # eigenvalues may meet at the minimum: a smooth maximum of them
        w = anp.linalg.eigh(top(theta))[0]
        return w[-1] + anp.log(anp.sum(anp.exp(sharpness * (w - w[-1])))) / sharpness

    theta = 0.2 * rng.standard_normal((L - 1) * r * r)
    for sharpness in 10.0 ** np.arange(1, 9) / np.linalg.norm(top(theta), 2):
        gradient = autograd.value_and_grad(smooth)
        theta = scipy.optimize.minimize(gradient, theta, args=(sharpness,), jac=True, method="BFGS", options={"gtol": 1e-10}).x
    return 2 * np.linalg.eigvalsh(top(theta))[-1]


CASES = [(L, 2, 2, None, False) for L in (2, 3, 5)] + [(3, 3, 2, 1, False), (2, 2, 3, 2, True), (4, 2, 3, None, False)]


@pytest.mark.few(1)
@pytest.mark.parametrize(("L", "outputs", "inputs", "rank", "singular"), CASES)
def test_agrees_with_minimisation_over_the_weights(L, outputs, inputs, rank, singular):
    sigma, M, _ = problem(L, outputs, inputs, rank, singular)
    assert minimal(sigma, M, L) == pytest.approx(brute_force(sigma, M, L, 2, 0), rel=1e-7)


def enclosed(M, X, L, seed):
    """The least top eigenvalue of the Hessian over the weights, enclosed, by Newton's method on them from random layers.

    The smooth maximum with weights w is least where the weighted mean of the eigenvalues is: that mean is below the least top.
    """
    rng, outputs = np.random.default_rng(seed), len(M)
    r = np.linalg.matrix_rank(M)
    U, s, Vt = np.linalg.svd(M)
    G = [np.eye(r) + 0.3 * rng.standard_normal((r, r)) for _ in range(L - 1)]
    middle = [after @ np.linalg.inv(before) for before, after in pairwise(G)]
    layers = [G[0] @ Vt[:r], *middle, (U[:, :r] * s[:r]) @ np.linalg.inv(G[-1])]
    matrices = np.array([np.outer(e, x) for x in X.T for e in np.eye(outputs)])
    point = SharpPoint(matrices, np.tensordot(matrices, M, 2), layers, 1.0)
    for sharpness in 10.0 ** np.arange(1, 11) / point.largest:
        point = descend_smoothly(point.smoothed(sharpness), lambda each: None)[0]
    return 2 / X.shape[1] * float(point.weights @ point.values), 2 / X.shape[1] * point.largest


@pytest.mark.slow
@pytest.mark.parametrize("case", range(32))
def test_agrees_to_nine_digits_with_a_search_over_the_weights(case):
    L, singular, rng = 2 + case % 4, case % 8 >= 4, np.random.default_rng(case)
    sigma, M, X = problem(case, *(int(size) for size in rng.integers([1, 2], [4, 4])), singular=singular)
    low, high = enclosed(M, X, L, case)
    assert low <= minimal(sigma, M, L) * (1 + 2e-10)
    assert high >= minimal(sigma, M, L) * (1 - 2e-10)
    assert high - low <= 5e-10 * high


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 3), (2, 3), (3, 2), (4, 3)])
def test_layers_attain_it_and_the_dual_vector_proves_it(L, outputs, inputs, singular):
    for seed in range(3):
        sigma, M, X = problem(seed, outputs, inputs, singular=singular)
        value = minimal(sigma, M, L)
        layers = flattest(sigma, M, [inputs, *[min(outputs, inputs)] * (L - 1), outputs])
        np.testing.assert_allclose(np.linalg.multi_dot(layers[::-1]), M, atol=1e-12)
        assert full_sharpness(layers, X) == pytest.approx(value, rel=1e-9)
        y = bf.closed_forms.sharpest_data_direction(sigma, M, L)
        values, vectors = np.linalg.eigh(sigma)
        image = M @ (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T @ y
        assert np.linalg.norm(y) == pytest.approx(1, rel=1e-12)
        bound = 2 * L * (y @ sigma @ y) ** (1 / L) * np.linalg.norm(image) ** (2 - 2 / L)
        assert bound == pytest.approx(value, rel=1e-8 if singular else 1e-11)


@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 3), st.integers(1, 4))
def test_no_network_is_flatter(seed, L, outputs, inputs):
    sigma, M, X = problem(seed, outputs, inputs)
    rng, width = np.random.default_rng(seed), min(outputs, inputs) + 1
    layers = bf.closed_forms.schatten_layers(M, [inputs, *[width] * (L - 1), outputs])
    for j in range(L - 1):
        G = np.eye(width) + 0.3 * rng.standard_normal((width, width))
        layers[j], layers[j + 1] = G @ layers[j], layers[j + 1] @ np.linalg.inv(G)
    assert full_sharpness(layers, X) >= minimal(sigma, M, L) * (1 - 1e-9)


@pytest.mark.parametrize("L", [2, 3, 7])
def test_white_data_see_the_spectral_norm(L):
    M = problem(0)[1]
    assert minimal(3 * np.eye(3), M, L) == pytest.approx(6 * L * np.linalg.norm(M, 2) ** (2 - 2 / L), rel=1e-14)


@pytest.mark.parametrize("L", [2, 3, 5])
def test_balanced_sharpness_is_that_of_balanced_layers(L):
    for seed, (outputs, inputs) in enumerate([(1, 3), (2, 3), (3, 2)]):
        sigma, M, X = problem(seed, outputs, inputs)
        layers = bf.closed_forms.schatten_layers(M, [inputs, *[3] * (L - 1), outputs])
        found = bf.closed_forms.balanced_sharpness(sigma, M, L)
        assert found == pytest.approx(full_sharpness(layers, X), rel=1e-9)
        ratio = found / minimal(sigma, M, L)
        assert 1 - 1e-12 <= ratio <= np.linalg.cond(sigma)


def test_bound_on_the_ratio_needs_the_least_norm():
    ratio = [f(np.diag([1.0, 0.0]), [1.0, 3.0], 2) for f in (bf.closed_forms.balanced_sharpness, minimal)]
    assert ratio[0] / ratio[1] > 1.5  # a condition number of 1 over the positive eigenvalues


def test_width_below_the_rank_is_refused_and_why():
    X, Y = np.diag([1.0, 3.0]), np.diag([2.0, 1.0])
    sigma, M = X @ X.T / 2, Y @ np.linalg.inv(X)
    with pytest.raises(ValueError, match=r"widths is \[2, 1, 2\].*at least 2"):
        flattest(sigma, M, [2, 1, 2])
    # The best product of rank one fits the first output alone, and the formula at it is 6.36; the truth is 9, for what is not
    # fitted bends the loss as well.
    E = np.diag([2.0, 0.0])
    assert minimal(sigma, E, 2) == pytest.approx(6.364, abs=1e-3)
    matrices = [np.outer(e, x) for x in X.T for e in np.eye(2)]
    targets = np.array([e @ y for y in Y.T for e in np.eye(2)])
    found = [
        2 * np.linalg.eigvalsh(hessian([np.array([[2 / t, 0.0]]), np.array([[t], [0.0]])], matrices, targets))[-1]
        for t in np.geomspace(0.5, 4, 200)
    ]
    assert min(found) == pytest.approx(9.0, rel=1e-3)


def test_width_between_the_two_ranks_predicts_the_same():
    sigma, M = np.diag([2.0, 0.0, 0.0]), problem(1)[1]
    layers = flattest(sigma, M, [3, 1, 2])
    np.testing.assert_allclose(layers[1] @ layers[0] @ sigma, M @ sigma, rtol=1e-12)


def test_zero_on_the_data():
    sigma, M = np.diag([1.0, 0.0]), np.array([[0.0, 1.0], [0.0, 2.0]])
    assert minimal(sigma, M, 3) == 0.0
    assert all(not layer.any() for layer in flattest(sigma, M, [2, 1, 1, 2]))
    assert np.linalg.norm(bf.closed_forms.sharpest_data_direction(sigma, M, 3)) == 1


@pytest.mark.parametrize("L", [2, 5])
@pytest.mark.parametrize("power", [-100, -80, 80])
def test_extreme_scales(L, power):
    sigma, M, _ = problem(2)
    for factor in (10.0**power, 1.0):
        scaled = minimal(sigma * 10.0**power, M * factor, L) / 10.0**power / factor ** (2 - 2 / L)
        assert scaled == pytest.approx(minimal(sigma, M, L), rel=1e-12)


def test_one_output_as_a_matrix_or_by_name():
    sigma, M, _ = problem(3, outputs=1)
    assert minimal(sigma, M, 3) == minimal(sigma, M[0], 3) == minimal(sigma, w=M[0], depth=3)
    with pytest.raises(ValueError, match="M and w"):
        minimal(sigma, M, 3, w=M[0])
