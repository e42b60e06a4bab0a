from itertools import pairwise

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancedfact.curvature import hessian_vector_product, loss_gradient
from balancedfact.measurements import Dense, Entries
from tests import bad_input, maps, oracles

ALL = [*maps.BUILT_IN.values(), maps.minimal]


def chain(rng, widths):
    return [rng.standard_normal((out, into)) for into, out in pairwise(widths)]


def flat(layers):
    return np.concatenate([np.ravel(layer) for layer in layers])


def gradient_by_definition(layers, matrices, b):
    shapes, rows = [layer.shape for layer in layers], np.reshape(matrices, (len(matrices), -1))

    def loss(theta):
        product = anp.eye(shapes[0][1])
        for layer in oracles.unpacked(theta, shapes):
            product = anp.dot(layer, product)
        return anp.mean((anp.dot(rows, anp.ravel(product)) - b) ** 2)

    return autograd.grad(loss)(flat(layers))


@settings(max_examples=40)
@given(maps.cases(*ALL, largest=4, most=5), st.lists(st.integers(1, 4), max_size=4), st.sampled_from(["none", "zero layer"]))
def test_gradient_and_hessian_are_those_by_differentiation(case, hidden, edge):
    A, matrices, rng = case
    widths = [A.matrix_shape[1], *hidden, A.matrix_shape[0]]
    layers, V, b = chain(rng, widths), chain(rng, widths), rng.standard_normal(A.m)
    if edge == "zero layer":
        layers[rng.integers(len(layers))][:] = 0
    expected = gradient_by_definition(layers, matrices, b)
    np.testing.assert_allclose(flat(loss_gradient(layers, A, b)), expected, rtol=0, atol=1e-12 * (1 + np.abs(expected).max()))
    H = oracles.hessian(layers, matrices, b)
    found = hessian_vector_product(layers, V, A, b)
    assert [each.shape for each in found] == [layer.shape for layer in layers]
    np.testing.assert_allclose(flat(found), H @ flat(V), rtol=0, atol=1e-12 * (1 + np.abs(H).max() * len(H)))


def test_finite_differences(rng):
    A, _ = maps.rank_one(rng, 5, 4, 9, "none")
    layers, V, b, h = chain(rng, [4, 3, 6, 5]), chain(rng, [4, 3, 6, 5]), rng.standard_normal(9), 1e-6
    ahead, behind = ([layer + t * v for layer, v in zip(layers, V, strict=True)] for t in (h, -h))
    change = (flat(loss_gradient(ahead, A, b)) - flat(loss_gradient(behind, A, b))) / (2 * h)
    np.testing.assert_allclose(flat(hessian_vector_product(layers, V, A, b)), change, atol=1e-7 * np.abs(change).max())


@pytest.mark.parametrize("c", [1e-150, 1e-60, 1e60, 1e150])
@pytest.mark.parametrize("build", maps.BUILT_IN.values(), ids=maps.BUILT_IN)
def test_extreme_scales(build, c):
    A, _ = build(np.random.default_rng(0), 4, 3, 6, "none")
    large, _ = build(np.random.default_rng(0), 4, 3, 6, "none", c)
    rng = np.random.default_rng(1)
    layers, V, b = chain(rng, [3, 2, 5, 4]), chain(rng, [3, 2, 5, 4]), rng.standard_normal(6)
    gradient, product = loss_gradient(layers, A, b), hessian_vector_product(layers, V, A, b)

    def assert_all_close(found, expected):
        for each, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(each, other, rtol=1e-11)

    # One layer smaller by what the map is larger, or another layer larger by it.
    for k in range(3):
        factors = [1 / c if i == k else 1.0 for i in range(3)]
        moved = [t * layer for t, layer in zip(factors, layers, strict=True)]
        along = [t * v for t, v in zip(factors, V, strict=True)]
        assert_all_close([t * each for t, each in zip(factors, loss_gradient(moved, large, b), strict=True)], gradient)
        found = hessian_vector_product(moved, along, large, b)
        assert_all_close([t * each for t, each in zip(factors, found, strict=True)], product)
    shifted = [c * layers[0], layers[1], layers[2] / c]
    found = loss_gradient(shifted, A, b)
    assert_all_close([c * found[0], found[1], found[2] / c], gradient)


def test_a_zero_direction_of_a_layer_does_not_hide_the_others(rng):
    A, matrices = maps.dense(rng, 3, 2, 4, "none")
    layers, b, first = chain(rng, [2, 2, 3]), rng.standard_normal(4), rng.standard_normal((2, 2))
    expected = oracles.hessian(layers, matrices, b) @ flat([first, np.zeros((3, 2))])
    V = [np.ldexp(first, -300), np.zeros((3, 2))]
    found = hessian_vector_product([np.ldexp(layers[0], 500), np.ldexp(layers[1], -500)], V, A, b)
    np.testing.assert_allclose(np.ldexp(found[1].ravel(), 300), expected[4:], rtol=1e-11)


def test_layers_of_a_large_completion_form_no_matrix_of_its_size(rng):
    n, m = 200_000, 500
    A = Entries(rng.integers(0, n, m), rng.integers(0, n, m), (n, n))
    layers, V = chain(rng, [n, 2, n]), chain(rng, [n, 2, n])
    first, second = loss_gradient(layers, A, rng.standard_normal(m)), hessian_vector_product(layers, V, A, np.zeros(m))
    assert [each.shape for each in first] == [each.shape for each in second] == [(2, n), (n, 2)]


@pytest.mark.parametrize("function", [loss_gradient, lambda layers, A, b: hessian_vector_product(layers, [], A, b)])
@pytest.mark.parametrize("layer", bad_input.not_numbers((3, 2)) + bad_input.not_arrays(2))
def test_a_bad_layer_is_refused(function, layer):
    with pytest.raises(ValueError, match=r"^layers\[1\] "):
        function([np.ones((2, 4)), layer], Dense(np.ones((5, 3, 4))), np.ones(5))


@pytest.mark.parametrize("b", bad_input.bad((5,)))
def test_bad_data_are_refused(b):
    layers, A = [np.ones((2, 4)), np.ones((3, 2))], Dense(np.ones((5, 3, 4)))
    with pytest.raises(ValueError, match=r"^b "):
        loss_gradient(layers, A, b)
    with pytest.raises(ValueError, match=r"^b "):
        hessian_vector_product(layers, layers, A, b)


@pytest.mark.parametrize("direction", bad_input.bad((3, 2)))
def test_a_bad_direction_is_refused(direction):
    layers, A = [np.ones((2, 4)), np.ones((3, 2))], Dense(np.ones((5, 3, 4)))
    with pytest.raises(ValueError, match=r"^directions\[1\] "):
        hessian_vector_product(layers, [np.ones((2, 4)), direction], A, np.ones(5))
