import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancedfact as bf
from tests import bad_input, oracles

sharpness = bf.closed_forms.regression_sharpness


@given(
    st.integers(0, 10**6), st.lists(st.integers(1, 4), min_size=2, max_size=5), st.booleans(), st.sampled_from([0.05, 1.0, 3.0])
)
def test_agrees_with_dense_hessian(seed, widths, at_minimiser, scale):
    rng = np.random.default_rng(seed)
    layers = [scale * rng.standard_normal(shape) for shape in zip(widths[1:], widths, strict=False)]
    X, p, w = rng.standard_normal((5, widths[0])), rng.standard_normal(widths[-1]), rng.standard_normal(widths[0])
    if at_minimiser:
        product = p
        for layer in layers[::-1]:
            product = product @ layer
        w = product
    values = np.linalg.eigvalsh(oracles.hessian(layers, [np.outer(p, x) for x in X], X @ w))
    size = np.abs(values).max()
    found = sharpness(layers, X.T @ X / 5, None if at_minimiser else w, p)
    assert abs(found - values[-1]) <= 1e-12 * size
    if at_minimiser:
        assert abs(sharpness(layers, X.T @ X / 5, w, p) - values[-1]) <= 1e-12 * size


def test_largest_eigenvalue_by_hand():
    """Hessian [[2, -4], [-4, 2]], eigenvalues 6 and -2."""
    assert sharpness([np.ones((1, 1))] * 2, [[1.0]], [4.0]) == pytest.approx(2 + 4)
    assert sharpness([np.zeros((1, 2)), np.ones((1, 1))], np.eye(2), [1.0, 0.0]) == pytest.approx(1 + np.sqrt(5))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_networks(rng):
    layers = [rng.standard_normal((400, 5, 5)) / 3 for _ in range(20)] + [rng.standard_normal((400, 1, 5))]
    tracemalloc.start()
    values = sharpness(layers, np.eye(5), np.ones(5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e7  # all Hessians would take 108 MB, twice
    one = sharpness([layer[-1] for layer in layers], np.eye(5), np.ones(5))
    assert values[-1] == pytest.approx(one, rel=1e-10)


def test_zero_layers():
    layers = [np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((1, 2))]
    assert sharpness(layers, np.eye(2), [1.0, 1.0]) == 0
    assert sharpness(layers[1:], np.eye(2), [3.0, 4.0]) == pytest.approx(10.0)


def test_many_networks_at_once(rng):
    layers = [rng.standard_normal((2, 4, 3, 2)), rng.standard_normal((2, 4, 1, 3))]
    roots = rng.standard_normal((4, 2, 2))
    sigma, w = roots @ roots.transpose(0, 2, 1), rng.standard_normal((2, 4, 2))
    for target in (None, w):
        values = sharpness(layers, sigma, target)
        assert values.shape == (2, 4)
        for i, j in np.ndindex(2, 4):
            one = sharpness([layer[i, j] for layer in layers], sigma[j], None if target is None else w[i, j])
            assert values[i, j] == pytest.approx(one, rel=1e-12)
    shared = sharpness([layers[0][0, 0], layers[1][0, 0]], sigma, w)
    assert shared.shape == (2, 4)


@pytest.mark.parametrize(
    "layers", [[], None, 3, [np.ones(2)], [np.ones((2, 2)), np.ones((1, 3))], [np.ones((3, 2, 2)), np.ones((1, 2))]]
)
def test_bad_layers(layers):
    with pytest.raises(ValueError, match="layers"):
        sharpness(layers, np.eye(2))


@pytest.mark.parametrize("value", [*bad_input.not_numbers((2, 2)), np.eye(3), "no", np.ones(2)])
def test_bad_covariance(value):
    with pytest.raises(ValueError, match="covariance"):
        sharpness([np.ones((1, 2))], value)


def test_bad_vectors():
    layers = [np.ones((2, 2)), np.ones((2, 2))]
    with pytest.raises(ValueError, match="readout is None"):
        sharpness(layers, np.eye(2))
    with pytest.raises(ValueError, match="readout has shape"):
        sharpness(layers, np.eye(2), None, [1.0])
    with pytest.raises(ValueError, match="w has shape"):
        sharpness(layers, np.eye(2), [1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="leading axes"):
        sharpness([np.ones((3, 1, 2))], np.ones((2, 2, 2)))
