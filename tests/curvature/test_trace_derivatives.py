from itertools import pairwise

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from balancedfact.curvature import isotropic_trace, trace, trace_gradient, trace_hessian_vector_product
from balancedfact.measurements import Dense, IsotropicMoment
from balancedfact.measurements._second_moment import MapMoment
from tests import bad_input, maps, oracles

ALL = [*maps.BUILT_IN.values(), maps.minimal]


def chain(rng, widths):
    return [rng.standard_normal((out, into)) for into, out in pairwise(widths)]


def trace_by_definition(shapes, matrices, weight):
    """The sum over layers and measurements, as a function of the vector of all entries that autograd can differentiate."""

    def total(theta):
        layers, value = oracles.unpacked(theta, shapes), 0.0
        for j in range(len(layers)):
            B, C = anp.eye(shapes[0][1]), anp.eye(shapes[-1][0])
            for layer in layers[:j]:
                B = anp.dot(layer, B)
            for layer in layers[:j:-1]:
                C = anp.dot(C, layer)
            for A in matrices:
                value = value + weight * anp.sum(anp.dot(anp.dot(B, A.T), C) ** 2)
        return value

    return total


def flat(layers):
    return np.concatenate([np.ravel(layer) for layer in layers])


def derivatives(layers, directions, matrices, weight):
    if len(layers) == 1:  # the trace is constant, of which autograd would warn
        return np.zeros((2, layers[0].size))
    shapes = [layer.shape for layer in layers]
    gradient = autograd.grad(trace_by_definition(shapes, matrices, weight))
    theta, along = flat(layers), flat(directions)
    return gradient(theta), autograd.grad(lambda at: anp.sum(gradient(at) * along))(theta)


def assert_close(found, expected):
    size = np.abs(expected).max() or 1.0
    np.testing.assert_allclose(flat(found), expected, rtol=0, atol=1e-11 * max(size, 1.0))


@settings(max_examples=30)
@given(maps.cases(*ALL, largest=3, most=4), st.lists(st.integers(1, 3), max_size=4), st.sampled_from(["none", "zero layer"]))
def test_gradient_and_hessian_are_those_by_differentiation(case, hidden, edge):
    A, matrices, rng = case
    d1, d2 = A.matrix_shape
    layers, directions = chain(rng, [d2, *hidden, d1]), chain(rng, [d2, *hidden, d1])
    if edge == "zero layer":
        layers[rng.integers(len(layers))][:] = 0
    gradient, product = derivatives(layers, directions, matrices, 2 / A.m)
    for moment in (A, A.second_moment(), MapMoment(A)):
        assert_close(trace_gradient(layers, moment), gradient)
        assert_close(trace_hessian_vector_product(layers, directions, moment), product)


@pytest.mark.parametrize("widths", [[3, 2], [3, 4, 2], [2, 3, 1, 4], [3, 2, 4, 2, 3]])
def test_isotropic_gradient_and_hessian(widths, rng):
    layers, directions, moment = chain(rng, widths), chain(rng, widths), IsotropicMoment((widths[-1], widths[0]))
    assert trace(layers, moment) == isotropic_trace(layers)
    basis = list(np.eye(widths[0] * widths[-1]).reshape(-1, widths[-1], widths[0]))
    assert isotropic_trace(layers) == pytest.approx(sum(oracles.isotropic_terms(layers)), rel=1e-12)
    gradient, product = derivatives(layers, directions, basis, 1.0)
    assert_close(trace_gradient(layers, moment), gradient)
    assert_close(trace_hessian_vector_product(layers, directions, moment), product)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_finite_differences_and_symmetry(depth, rng):
    widths = [4, *rng.integers(2, 6, depth - 1), 3]
    A, _ = maps.dense(rng, 3, 4, 30, "none")
    moment, layers, V, W = A.second_moment(), *(chain(rng, widths) for _ in range(3))
    along, h = trace_hessian_vector_product(layers, V, moment), 1e-6

    def moved(t):
        return [layer + t * v for layer, v in zip(layers, V, strict=True)]

    slope = (trace(moved(h), moment) - trace(moved(-h), moment)) / (2 * h)
    assert np.vdot(flat(trace_gradient(layers, moment)), flat(V)) == pytest.approx(slope, rel=1e-7)
    change = (flat(trace_gradient(moved(h), A)) - flat(trace_gradient(moved(-h), A))) / (2 * h)
    np.testing.assert_allclose(flat(along), change, rtol=0, atol=1e-7 * np.abs(change).max())
    other = flat(trace_hessian_vector_product(layers, W, moment))
    assert np.vdot(flat(along), flat(W)) == pytest.approx(np.vdot(other, flat(V)), rel=1e-11)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_euler_relations(depth, seed):
    """The trace is homogeneous of degree 2 (L - 1)."""
    rng = np.random.default_rng(seed)
    A, _ = maps.rank_one(rng, 3, 2, 5, "none")
    layers = chain(rng, [2, *rng.integers(1, 4, depth - 1), 3])
    gradient, degree = flat(trace_gradient(layers, A)), 2 * (depth - 1)
    size = np.abs(gradient).max() * np.abs(flat(layers)).max() + 1e-30
    assert gradient @ flat(layers) == pytest.approx(degree * trace(layers, A), rel=1e-10, abs=1e-12) or depth == 1
    product = flat(trace_hessian_vector_product(layers, layers, A))
    np.testing.assert_allclose(product, (degree - 1) * gradient, rtol=0, atol=1e-10 * size)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([-500, -250, 0, 250, 500])), min_size=2, max_size=6),
    st.sampled_from([-500, 0, 500]),
    st.sampled_from([*maps.BUILT_IN.values()]),
    st.integers(0, 2**32 - 1),
)
@settings(suppress_health_check=[HealthCheck.filter_too_much])  # most products of such scales are no numbers
def test_layers_of_very_different_scales_lose_nothing_that_is_representable(sizes, exponent, build, seed):
    exponents = [each for _, each in sizes]
    depth, total = len(sizes), sum(exponents)
    # The term of layer j as the layer k varies scales as 2**(2 (total - e_j + exponent) - e_k).
    shifts = [[2 * (total - exponents[j] + exponent) - exponents[k] for j in range(depth)] for k in range(depth)]
    assume(all(-900 <= max(shifts[k][j] for j in range(depth) if j != k) <= 900 for k in range(depth)))
    rng = np.random.default_rng(seed)
    layers = chain(rng, [4, *(width for width, _ in sizes[1:]), 3])
    A, matrices = build(np.random.default_rng(seed), 3, 4, 3, "none")
    large, _ = build(np.random.default_rng(seed), 3, 4, 3, "none", 2.0**exponent)
    found = trace_gradient([np.ldexp(layer, each) for layer, each in zip(layers, exponents, strict=True)], large)
    shapes = [layer.shape for layer in layers]
    parts = [[np.zeros(shape) for shape in shapes] for _ in range(depth)]
    for j in range(depth):

        def term(theta, j=j):
            unpacked = oracles.unpacked(theta, shapes)
            B, C = anp.eye(4), anp.eye(3)
            for layer in unpacked[:j]:
                B = anp.dot(layer, B)
            for layer in unpacked[:j:-1]:
                C = anp.dot(C, layer)
            return 2 / 3 * sum(anp.sum(anp.dot(anp.dot(B, M.T), C) ** 2) for M in matrices)

        parts[j] = oracles.unpacked(autograd.grad(term)(flat(layers)), shapes)
    for k in range(depth):
        expected = sum(np.ldexp(parts[j][k], shifts[k][j]) for j in range(depth) if j != k)
        np.testing.assert_allclose(found[k], expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("c", [1e-150, 1e-60, 1e60, 1e150])
def test_homogeneity_at_extreme_scales(c, rng):
    A, _ = maps.dense(rng, 3, 4, 20, "none")
    layers, V = chain(rng, [4, 2, 3]), chain(rng, [4, 2, 3])
    huge = [c * layer for layer in layers]
    for moment in (A, A.second_moment(), IsotropicMoment((3, 4))):
        gradient, product = trace_gradient(layers, moment), trace_hessian_vector_product(layers, V, moment)
        for found, expected in zip(trace_gradient(huge, moment), gradient, strict=True):
            np.testing.assert_allclose(found / c, expected, rtol=1e-11)
        along = trace_hessian_vector_product(huge, V, moment)
        for found, expected in zip(along, product, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_hundreds_of_layers_neither_overflow_nor_vanish(rng):
    rotations = [np.linalg.qr(rng.standard_normal((8, 8)))[0] for _ in range(300)]
    A = Dense(np.eye(8)[None])
    # Scaling one layer by t scales all terms but its own, each worth 2 * 8, by t squared.
    for found, layer in zip(trace_gradient(rotations, A), rotations, strict=True):
        np.testing.assert_allclose(found, 2 * 299 * 2 * layer, rtol=0, atol=1e-9)
    thirds = trace_gradient([layer / 1e10 for layer in rotations], Dense(np.eye(8)[None]))
    assert all(not each.any() for each in thirds)  # 1e-5970


def test_vanishing_layers(rng):
    A, matrices = maps.entries(rng, 3, 4, 6, "none")
    zero = [np.zeros((2, 4)), np.zeros((2, 2)), np.zeros((3, 2))]
    assert all(not each.any() for each in trace_gradient(zero, A))
    assert all(not each.any() for each in trace_hessian_vector_product(zero, chain(rng, [4, 2, 2, 3]), A))
    [gradient] = trace_gradient([np.ones((3, 4))], A)
    assert gradient.shape == (3, 4)
    assert not gradient.any()


@pytest.mark.parametrize("function", [trace_gradient, lambda layers, A: trace_hessian_vector_product(layers, [], A)])
@pytest.mark.parametrize("layer", bad_input.not_numbers((3, 2)) + bad_input.not_arrays(2))
def test_a_bad_layer_is_refused(function, layer):
    with pytest.raises(ValueError, match=r"^layers\[1\] "):
        function([np.ones((2, 4)), layer], IsotropicMoment((3, 4)))


@pytest.mark.parametrize("direction", bad_input.bad((3, 2)))
def test_a_bad_direction_is_refused(direction):
    layers = [np.ones((2, 4)), np.ones((3, 2))]
    with pytest.raises(ValueError, match=r"^directions\[1\] "):
        trace_hessian_vector_product(layers, [np.ones((2, 4)), direction], IsotropicMoment((3, 4)))


@pytest.mark.parametrize("directions", [None, 3, [], [np.ones((2, 4))], [np.ones((2, 4)), np.ones((3, 2)), np.ones((1, 1))]])
def test_directions_of_another_depth_are_refused(directions):
    layers = [np.ones((2, 4)), np.ones((3, 2))]
    with pytest.raises(ValueError, match=r"^directions "):
        trace_hessian_vector_product(layers, directions, IsotropicMoment((3, 4)))


def test_inputs_are_left_unchanged(rng):
    A, _ = maps.dense(rng, 3, 4, 20, "none")
    moment, layers, V = A.second_moment(), chain(rng, [4, 2, 2, 3]), chain(rng, [4, 2, 2, 3])
    kept = [each.copy() for each in (*layers, *V, A.matrices)]
    gradient = trace_gradient(layers, moment)
    trace_hessian_vector_product(layers, V, moment)
    for each in gradient:
        each[:] = 0
    for before, after in zip(kept, (*layers, *V, A.matrices), strict=True):
        np.testing.assert_array_equal(before, after)
