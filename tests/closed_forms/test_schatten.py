import itertools

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

import balancedfact as bf
from tests import bad_input

value, layers_of = bf.closed_forms.schatten_value, bf.closed_forms.schatten_layers
shrinkage, threshold = bf.closed_forms.schatten_shrinkage, bf.closed_forms.collapse_threshold


@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
def test_layers_are_balanced_and_attain_the_value(seed, L, d1, d2, rank):
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))
    width = max(min(rank, d1, d2), 1) + seed % 2
    layers = layers_of(M, [d2, *[width] * (L - 1), d1])
    np.testing.assert_allclose(np.linalg.multi_dot(layers[::-1]), M, atol=1e-12)
    for before, after in itertools.pairwise(layers):
        np.testing.assert_allclose(after.T @ after, before @ before.T, atol=1e-12)
    sigma = np.linalg.svd(M, compute_uv=False)
    sigma = sigma[sigma > max(d1, d2) * 2.3e-16 * sigma[0]]
    assert value(M, L) == pytest.approx(L * np.sum(sigma ** (2 / L)), rel=1e-12)
    assert sum(np.sum(W**2) for W in layers) == pytest.approx(value(M, L), rel=1e-12)


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_no_layers_weigh_less(seed, L):
    rng = np.random.default_rng(seed)
    layers = [rng.standard_normal((3, 3)) for _ in range(L)]
    assert sum(np.sum(W**2) for W in layers) >= value(np.linalg.multi_dot(layers[::-1]), L) * (1 - 1e-12)


def test_two_layers_are_the_balanced_pair(rng):
    M = rng.standard_normal((4, 3))
    assert value(M, 2) == pytest.approx(2 * np.linalg.norm(M, "nuc"), rel=1e-14)


@pytest.mark.parametrize("power", [-150, 150])
def test_extreme_scales(power, rng):
    M = rng.standard_normal((3, 2))
    assert value(M * 10.0**power, 4) == pytest.approx(value(M, 4) * 10 ** (power / 2), rel=1e-12)
    layers = layers_of(M * 10.0**power, [2, 2, 2, 2, 3])
    assert sum(np.sum(W**2) for W in layers) == pytest.approx(value(M, 4) * 10 ** (power / 2), rel=1e-12)


@given(st.floats(0.01, 10), st.floats(0.01, 20), st.integers(2, 9))
def test_shrinkage_of_a_number_is_its_global_minimum(weight, y, L):
    def cost(x):
        return (x - y) ** 2 / 2 + weight * L / 2 * x ** (2 / L)

    grid = np.linspace(0, y, 2001)
    around = grid[np.argmin(cost(grid))]
    best = scipy.optimize.minimize_scalar(cost, bounds=(max(around - y / 1000, 0), around + y / 1000), method="bounded").fun
    found = shrinkage([[y]], weight, L)[0, 0]
    assert cost(found) <= min(best, cost(0.0)) * (1 + 1e-9)
    assert found == 0 or found + weight * found ** (2 / L - 1) == pytest.approx(y, rel=1e-12)


@pytest.mark.parametrize("L", [2, 3, 5, 20])
def test_collapse_happens_at_the_threshold(L):
    global_, local = threshold(0.7, L)
    kept = shrinkage([[global_ * (1 + 1e-9)]], 0.7, L)[0, 0]
    assert shrinkage([[global_ * (1 - 1e-9)]], 0.7, L)[0, 0] == 0
    assert kept == pytest.approx(global_ * (L - 2) / (L - 1), rel=1e-6, abs=1e-8)
    if L == 2:
        assert (global_, local) == (0.7, 0.7)
        return
    x = np.geomspace(1e-4, 10, 100_000)
    assert local == pytest.approx(np.min(x + 0.7 * x ** (2 / L - 1)), rel=1e-6)
    assert kept**2 / 2 - kept * global_ + 0.35 * L * kept ** (2 / L) == pytest.approx(0, abs=1e-6)


def test_shrinkage_of_a_matrix_by_descent_over_layers(rng):
    """From near the closed form no descent over the layers finds less."""
    Y, weight, L = rng.standard_normal((3, 3)) * 2, 0.4, 3
    E = shrinkage(Y, weight, L)
    start = layers_of(E, [3, 3, 3, 3])

    def cost(theta):
        W = [part.reshape(3, 3) for part in np.split(theta, 3)]
        return np.sum((W[2] @ W[1] @ W[0] - Y) ** 2) / 2 + weight / 2 * np.sum(theta**2)

    best = cost(np.concatenate([W.ravel() for W in start]))
    assert best == pytest.approx(np.sum((E - Y) ** 2) / 2 + weight / 2 * value(E, L), rel=1e-12)
    for _ in range(4):
        theta = np.concatenate([W.ravel() for W in start]) + 0.3 * rng.standard_normal(27)
        assert scipy.optimize.minimize(cost, theta).fun >= best * (1 - 1e-9)


def test_bad_input():
    for bad in bad_input.bad((2, 3)):
        if bad.id in ("wrong shape", "transposed"):
            continue
        with pytest.raises(ValueError, match=r"^M "):
            value(bad.values[0], 3)
    with pytest.raises(ValueError, match="widths"):
        layers_of(np.eye(3), [3, 2, 3])
    with pytest.raises(ValueError, match="penalty"):
        shrinkage(np.eye(2), -1.0, 3)
    with pytest.raises(ValueError, match="depth"):
        threshold(1.0, 1)
