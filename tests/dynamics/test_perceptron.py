import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import scipy.special
from autograd.scipy.special import erf
from hypothesis import given, settings
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.dynamics._gelu import gelu
from tests import oracles

descend = bf.dynamics.perceptron_descent


def test_activation_and_its_slope():
    z = np.concatenate([np.linspace(-12, 12, 4001), [0.0, -0.0, 1e-300, -1e-300, 40.0, -40.0, 1e6, -1e6]])
    value, slope = np.empty_like(z), np.empty_like(z)
    gelu(z, value, slope)
    np.testing.assert_allclose(value, z * scipy.special.ndtr(z), rtol=4e-15, atol=4e-15)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(slope, scipy.special.ndtr(z) + z * density, rtol=4e-15, atol=8e-15)


def naive_loss(shapes, X, y):
    def loss(theta):
        h = X.T
        arrays = oracles.unpacked(theta, shapes)
        for layer in arrays[:-1]:
            z = anp.dot(layer, h)
            h = 0.5 * z * (1 + erf(z / np.sqrt(2)))
        return anp.mean((anp.dot(arrays[-1], h)[0] - y) ** 2)

    return loss


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 11))
def test_agrees_with_automatic_differentiation(seed, widths, n):
    rng = np.random.default_rng(seed)
    widths = [*widths, 1]
    X, y = rng.standard_normal((n, widths[0])), rng.standard_normal(n)
    start = bf.dynamics.gaussian_layers(widths, [0.7, 0.9], rng)
    loss = naive_loss([layer.shape[1:] for layer in start], X, y)
    found = descend(start, X, y, step=[0.01, 0.02], iterations=20, record=[10], observe=("sharpness", "norms"))
    for r, step in enumerate((0.01, 0.02)):
        theta = np.concatenate([layer[r].ravel() for layer in start])
        values = np.linalg.eigvalsh(autograd.hessian(loss)(theta))
        assert found["sharpness"][r, 0] == pytest.approx(values[-1], rel=1e-10, abs=1e-12 * np.abs(values).max())
        assert found.loss[r, 0] == pytest.approx(loss(theta), rel=1e-12)
        for _ in range(20):
            theta = theta - step * autograd.grad(loss)(theta)
        np.testing.assert_allclose(np.concatenate([layer[r].ravel() for layer in found.layers]), theta, atol=1e-10)
        assert found.loss[r, -1] == pytest.approx(loss(theta), rel=1e-8)


def test_data_of_each_run(rng):
    X, y = rng.standard_normal((3, 7, 2)), rng.standard_normal((3, 7))
    start = bf.dynamics.gaussian_layers([2, 3, 1], 0.5, rng)
    found = descend(start, X, y, step=0.1, iterations=30, observe=("sharpness",))
    sharpness = bf.dynamics.perceptron_sharpness(found.layers, X, y)
    assert found.loss.shape == (3, 31)
    for r in range(3):
        one = descend(start, X[r], y[r], step=0.1, iterations=30, observe=("sharpness",))
        for a, b in zip(one.layers, found.layers, strict=True):
            np.testing.assert_array_equal(a, b[r])
        assert one["sharpness"][-1] == found["sharpness"][r, -1] == sharpness[r]
        residual = bf.dynamics.perceptron(one.layers, X[r]) - y[r]
        assert one.loss[-1] == pytest.approx(np.mean(residual**2))


def test_divergence_is_recorded(rng):
    X = rng.standard_normal((9, 2))
    start = bf.dynamics.gaussian_layers([2, 4, 4, 1], [0.5, 0.9], rng)
    found = descend(start, X, X[:, 0], step=[0.01, 1e6], iterations=50, record=1)
    assert found.diverged[0] == -1
    assert 0 < found.diverged[1] < 50
    assert np.isinf(found.loss[1, -1])
    assert np.isnan(found["norms"][1, -1]).all()
    assert np.isfinite(found.loss[0]).all()


def test_bad_input(rng):
    layers, X, y = [np.eye(2), np.ones((1, 2))], np.ones((3, 2)), np.ones(3)
    for call in (bf.dynamics.perceptron_sharpness, lambda *a: descend(*a, step=0.1, iterations=1)):
        with pytest.raises(ValueError, match="layers end with 2"):
            call(layers[:1], X, y)
        with pytest.raises(ValueError, match="inputs has shape"):
            call(layers, np.ones((3, 3)), y)
        with pytest.raises(ValueError, match="targets has shape"):
            call(layers, X, np.ones(4))
        with pytest.raises(ValueError, match="leading axes"):
            call([np.ones((4, 1, 2))], np.ones((5, 3, 2)), y)
    with pytest.raises(ValueError, match="observe"):
        descend(layers, X, y, step=0.1, iterations=1, observe=("trace",))
