import itertools

import numpy as np
import pytest

import balancedfact as bf
from tests import bad_input


def test_gaussian_layers():
    layers = bf.dynamics.gaussian_layers([40, 60, 50], 0.3, rng=0)
    assert [layer.shape for layer in layers] == [(60, 40), (50, 60)]
    for layer in layers:
        assert layer.std() == pytest.approx(0.3, rel=0.05)
        assert abs(layer.mean()) < 0.02
    again = bf.dynamics.gaussian_layers([40, 60, 50], 0.3, rng=0)
    assert all(np.array_equal(a, b) for a, b in zip(layers, again, strict=True))
    many = bf.dynamics.gaussian_layers([4, 3, 2], [[0.0, 1.0, 2.0]], rng=0)
    assert [layer.shape for layer in many] == [(1, 3, 3, 4), (1, 3, 2, 3)]
    assert not many[0][0, 0].any()


def test_residual_layers():
    layers = bf.dynamics.residual_layers(50, 4, 2.0, rng=0)
    assert len(layers) == 4
    for layer in layers:
        assert (layer - np.eye(50)).std() == pytest.approx(2.0 / np.sqrt(4 * 50), rel=0.05)
        assert np.trace(layer) / 50 == pytest.approx(1.0, abs=0.1)
    assert not np.array_equal(layers[0], layers[1])
    many = bf.dynamics.residual_layers(3, 2, [0.0, 1.0], rng=0)
    np.testing.assert_array_equal(many[1][0], np.eye(3))


@pytest.mark.parametrize("rng", [None, 3])
@pytest.mark.parametrize("scale", [1.0, 1e-150, 1e140])
@pytest.mark.parametrize("widths", [[4, 3], [4, 2, 3], [4, 5, 6, 2, 3], [4, 7, 3]])
def test_balanced_layers(widths, rng, scale):
    generator = np.random.default_rng(1)
    M = scale * generator.standard_normal((3, 2)) @ generator.standard_normal((2, 4))
    layers = bf.dynamics.balanced_layers(M, widths, rng)
    assert [layer.shape for layer in layers] == list(zip(widths[1:], widths, strict=False))
    product = layers[0]
    for layer in layers[1:]:
        product = layer @ product
    np.testing.assert_allclose(product / scale, M / scale, atol=1e-12)
    size = np.linalg.norm(layers[0], 2) ** 2
    for below, above in itertools.pairwise(layers):
        assert np.abs(above.T @ above - below @ below.T).max() <= 1e-13 * size


def test_balanced_layers_of_a_zero_matrix():
    layers = bf.dynamics.balanced_layers(np.zeros((3, 2)), [2, 1, 3])
    assert [layer.shape for layer in layers] == [(1, 2), (3, 1)]
    assert not any(layer.any() for layer in layers)


@pytest.mark.parametrize("widths", [None, 3, [2], [2, 0], [2, 2.5]])
def test_bad_widths(widths):
    with pytest.raises(ValueError, match="widths"):
        bf.dynamics.gaussian_layers(widths, 1.0)
    with pytest.raises(ValueError, match="widths"):
        bf.dynamics.balanced_layers(np.eye(2), widths)


def test_bad_input():
    for scale in (-1.0, np.nan, [0.1, np.inf], "big", []):
        with pytest.raises(ValueError, match="scale"):
            bf.dynamics.gaussian_layers([2, 1], scale)
        with pytest.raises(ValueError, match="scale"):
            bf.dynamics.residual_layers(2, 2, scale)
    with pytest.raises(ValueError, match="rank of M"):
        bf.dynamics.balanced_layers(np.eye(3), [3, 2, 3])
    with pytest.raises(ValueError, match="expected 3 to 2"):
        bf.dynamics.balanced_layers(np.ones((2, 3)), [2, 2, 3])
    for rng in bad_input.BAD_RNG:
        with pytest.raises(ValueError, match="rng"):
            bf.dynamics.gaussian_layers([2, 1], 1.0, rng)
    for count in bad_input.BAD_COUNT:
        with pytest.raises(ValueError, match="width"):
            bf.dynamics.residual_layers(count, 2, 1.0)
        with pytest.raises(ValueError, match="depth"):
            bf.dynamics.residual_layers(2, count, 1.0)
