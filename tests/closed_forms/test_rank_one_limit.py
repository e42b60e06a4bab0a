import itertools

import numpy as np
import pytest

import balancedfact as bf
from tests import bad_input


@pytest.mark.parametrize("widths", [[3, 1, 1], [3, 5, 2, 1], [3] + [4] * 19 + [1]])
def test_layers_are_rank_one_aligned_and_of_equal_norm(widths, rng):
    w = rng.standard_normal(3)
    layers = bf.closed_forms.rank_one_limit(w, widths)
    assert [layer.shape for layer in layers] == list(zip(widths[1:], widths, strict=False))
    np.testing.assert_allclose(np.linalg.multi_dot(layers[::-1])[0], w, rtol=1e-12)
    for layer in layers:
        s = np.linalg.svd(layer, compute_uv=False)
        assert s[0] == pytest.approx(np.linalg.norm(w) ** (1 / len(layers)), rel=1e-13)
        assert np.all(s[1:] == 0)
    for below, above in itertools.pairwise(layers):
        np.testing.assert_allclose(above.T @ above, below @ below.T, atol=1e-14)


@pytest.mark.parametrize("L", [2, 3, 20])
@pytest.mark.parametrize("smallest", [1.0, 1e-3, 0.0])
def test_sharpness_is_that_of_the_layers(L, smallest, rng):
    Q = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    sigma = (Q * [smallest, 1.0, 2.0]) @ Q.T
    w = sigma @ rng.standard_normal(3)
    layers = bf.closed_forms.rank_one_limit(w, [3] + [2] * (L - 1) + [1])
    value = bf.closed_forms.rank_one_limit_sharpness(sigma, w, L)
    assert value == pytest.approx(bf.closed_forms.regression_sharpness(layers, sigma), rel=1e-12)
    least = bf.closed_forms.minimal_sharpness(sigma, w, L)
    assert least <= value * (1 + 1e-12)
    if smallest > 0:
        assert value <= 4 * 2 / smallest * least


@pytest.mark.parametrize("scale", [1e-150, 1e140])
def test_scales(scale, rng):
    w, sigma = rng.standard_normal(3), np.diag([1.0, 2.0, 3.0])
    layers = bf.closed_forms.rank_one_limit(scale * w, [3, 2, 2, 1])
    np.testing.assert_allclose(np.linalg.multi_dot(layers[::-1])[0], scale * w, rtol=1e-12)
    sharpness = bf.closed_forms.rank_one_limit_sharpness
    assert sharpness(sigma, scale * w, 3) == pytest.approx(scale ** (4 / 3) * sharpness(sigma, w, 3), rel=1e-12)


def test_nothing_to_fit():
    layers = bf.closed_forms.rank_one_limit([0.0, 0.0], [2, 3, 1])
    assert not any(layer.any() for layer in layers)
    assert bf.closed_forms.rank_one_limit_sharpness(np.eye(2), [0.0, 0.0], 2) == 0


def test_unseen_regression_vector():
    """Rank-one weights whose product no datum sees still have curvature: that of their first layer."""
    sigma = np.diag([1.0, 0.0])
    layers = bf.closed_forms.rank_one_limit([0.0, 3.0], [2, 2, 1])
    value = bf.closed_forms.rank_one_limit_sharpness(sigma, [0.0, 3.0], 2)
    assert value == pytest.approx(bf.closed_forms.regression_sharpness(layers, sigma))


@pytest.mark.parametrize("value", bad_input.not_numbers((2,)) + bad_input.not_arrays(1))
def test_bad_vector(value):
    with pytest.raises(ValueError, match=r"^w "):
        bf.closed_forms.rank_one_limit(value, [2, 2, 1])
