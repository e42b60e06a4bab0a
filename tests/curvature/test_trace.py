from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from balancedfact.curvature import isotropic_trace, scaled_trace, trace
from balancedfact.measurements import Dense, Entries, RankOne
from tests import bad_input, maps, oracles

BUILDERS = [*maps.BUILT_IN.values(), maps.minimal]
ALL = [*maps.BUILT_IN.values(), *maps.DERIVED.values()]


def layers_between(rng, d1, d2, hidden):
    widths = [d2, *hidden, d1]
    return [rng.standard_normal((out, into)) for into, out in pairwise(widths)]


@settings(max_examples=25)
@given(maps.cases(*BUILDERS, largest=4, most=5), st.lists(st.integers(1, 4), max_size=3))
def test_the_trace_is_that_of_the_hessian_by_differentiation(case, hidden):
    A, matrices, rng = case
    layers = layers_between(rng, *A.matrix_shape, hidden)
    H = oracles.hessian(layers, matrices, rng.standard_normal(A.m))
    assert trace(layers, A) == pytest.approx(np.trace(H), rel=1e-10, abs=1e-12)


@settings(max_examples=25)
@given(maps.cases(*BUILDERS, largest=4, most=5), st.integers(1, 6))
def test_the_scaled_trace_is_that_of_the_hessian_by_differentiation(case, k):
    A, matrices, rng = case
    d1, d2 = A.matrix_shape
    L, R = rng.standard_normal((d1, k)), rng.standard_normal((d2, k))
    diagonal = np.diag(oracles.pair_hessian(L, R, matrices, rng.standard_normal(A.m)))
    expected = diagonal[: L.size].sum() / d1 + diagonal[L.size :].sum() / d2
    assert scaled_trace(L, R, A) == pytest.approx(expected, rel=1e-10, abs=1e-12)


@given(maps.cases(*ALL), st.lists(st.integers(1, 5), max_size=5))
def test_the_trace_is_the_sum_over_layers_and_measurements(case, hidden):
    A, matrices, rng = case
    layers = layers_between(rng, *A.matrix_shape, hidden)
    layers[0][:, rng.integers(0, layers[0].shape[1])] = 0
    layers[-1][rng.integers(0, layers[-1].shape[0])] = 0
    expected = pytest.approx(sum(oracles.trace_terms(layers, matrices)), rel=1e-10, abs=1e-12)
    assert trace(layers, A) == expected
    assert trace(layers, A.second_moment()) == expected


@given(maps.cases(*ALL), st.integers(1, 6))
def test_the_scaled_trace_weighs_the_factors_by_the_rescalings(case, k):
    A, _, rng = case
    L, R = (rng.standard_normal((d, k)) for d in A.matrix_shape)
    expected = 2 * A.m * (np.sum((A.D1 @ L) ** 2) + np.sum((A.D2 @ R) ** 2))
    assert scaled_trace(L, R, A) == pytest.approx(expected, rel=1e-11)


def test_numbers_worked_by_hand():
    A = Entries([0, 0, 1], [0, 1, 1], (2, 2))
    L, R = np.array([[1.0], [2.0]]), np.array([[3.0], [5.0]])
    # The residuals are l_0 r_0, l_0 r_1 and l_1 r_1 less the data.
    assert scaled_trace(L, R, A) == pytest.approx((2 * (9 + 25) + 2 * 25) / 2 + (2 * 1 + 2 * (1 + 4)) / 2)
    assert trace([R.T, L], A) == pytest.approx((2 * (9 + 25) + 2 * 25 + 2 * 1 + 2 * (1 + 4)) / 3)
    assert isotropic_trace([R.T, L]) == pytest.approx(5 * 2 + 2 * 34)
    assert isotropic_trace([np.full((2, 3), 7.0)]) == pytest.approx(6.0)


def test_the_one_dimensional_chain_has_curvature_two_for_each_layer():
    for depth in range(1, 6):
        assert trace([np.ones((1, 1))] * depth, Dense(np.ones((1, 1, 1)))) == 2 * depth


@pytest.mark.parametrize("hidden", [[], [2], [3, 4], [2, 5, 3]])
def test_isotropic_measurements_give_twice_the_isotropic_trace(hidden, rng):
    d1, d2 = 3, 4
    rows, cols = np.divmod(np.arange(d1 * d2), d2)
    layers = layers_between(rng, d1, d2, hidden)
    for A in (
        Entries(rows, cols, (d1, d2), np.full(d1 * d2, np.sqrt(d1 * d2))),
        Dense(np.sqrt(d1 * d2) * np.linalg.qr(rng.standard_normal((12, 12)))[0].reshape(12, d1, d2)),
    ):
        assert trace(layers, A) == pytest.approx(2 * isotropic_trace(layers), rel=1e-12)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=7), st.integers(0, 2**32 - 1))
def test_the_isotropic_trace_is_the_sum_over_layers(widths, seed):
    rng = np.random.default_rng(seed)
    layers = layers_between(rng, widths[0], widths[-1], widths[1:-1])
    assert isotropic_trace(layers) == pytest.approx(sum(oracles.isotropic_terms(layers)), rel=1e-12)


def test_scaled_trace_and_trace_agree_up_to_their_conventions_for_square_matrices(rng):
    A, _ = maps.dense(rng, 4, 4, 6, "none")
    L, R = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    assert scaled_trace(L, R, A) == pytest.approx(A.m / 4 * trace([R.T, L], A), rel=1e-12)


def test_an_orthogonal_change_of_the_hidden_basis_changes_nothing(rng):
    A, _ = maps.rank_one(rng, 4, 3, 6, "none")
    L, R, Q = rng.standard_normal((4, 3)), rng.standard_normal((3, 3)), np.linalg.qr(rng.standard_normal((3, 3)))[0]
    assert scaled_trace(L @ Q, R @ Q, A) == pytest.approx(scaled_trace(L, R, A), rel=1e-12)
    assert trace([Q.T @ R.T, L @ Q], A) == pytest.approx(trace([R.T, L], A), rel=1e-12)


@given(maps.cases(*ALL, edges=["none", "zero", "unseen", "sparse"]))
def test_zero_layers_have_the_trace_of_what_is_left(case):
    A, matrices, _ = case
    d1, d2 = A.matrix_shape
    L, R = np.zeros((d1, 2)), np.zeros((d2, 2))
    assert scaled_trace(L, R, A) == 0
    assert trace([R.T, L], A) == 0
    assert trace([np.zeros((d1, d2))], A) == pytest.approx(2 / A.m * sum(np.sum(M**2) for M in matrices), rel=1e-12)


def test_curvature_that_vanishes_is_zero_and_not_nan(rng):
    for _ in range(50):
        u, v = rng.standard_normal(4), rng.standard_normal(3)
        C, B = rng.standard_normal((4, 3)), rng.standard_normal((3, 3))
        C -= np.outer(u, u @ C) / (u @ u)
        B -= np.outer(B @ v, v) / (v @ v)
        for A in (Dense([np.outer(u, v)]), RankOne([u], [v]), maps.Minimal([np.outer(u, v)])):
            assert 0 <= trace([B, C], A) < 1e-12


@pytest.mark.parametrize("c", [1e-150, 1e-60, 1e60, 1e150])
@pytest.mark.parametrize("build", maps.BUILT_IN.values(), ids=maps.BUILT_IN)
def test_both_traces_are_homogeneous_at_extreme_scales(build, c):
    A, _ = build(np.random.default_rng(0), 4, 3, 6, "none")
    scaled, _ = build(np.random.default_rng(0), 4, 3, 6, "none", c)
    rng = np.random.default_rng(1)
    L, R = rng.standard_normal((4, 2)), rng.standard_normal((3, 2))
    value, total = scaled_trace(L, R, A), trace([R.T, L], A)
    assert scaled_trace(c * L, c * R, A) == pytest.approx(c**2 * value, rel=1e-12, abs=0)
    assert trace([c * R.T, c * L], A) == pytest.approx(c**2 * total, rel=1e-12, abs=0)
    assert isotropic_trace([c * R.T, c * L]) == pytest.approx(c**2 * isotropic_trace([R.T, L]), rel=1e-12, abs=0)
    assert scaled_trace(L, R, scaled) == pytest.approx(c**2 * value, rel=1e-12, abs=0)
    assert trace([R.T, L], scaled) == pytest.approx(c**2 * total, rel=1e-12, abs=0)
    assert scaled_trace(L / c, R / c, scaled) == pytest.approx(value, rel=1e-12, abs=0)
    assert trace([R.T / c, L / c], scaled) == pytest.approx(total, rel=1e-12, abs=0)
    one_sided = 2 * A.m * np.sum((A.D1 @ L) ** 2)
    assert scaled_trace(1e150 * L, 1e-150 * R, A) == pytest.approx(1e300 * one_sided, rel=1e-12)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([-500, -250, 0, 250, 500])), min_size=2, max_size=8),
    st.sampled_from([-500, 0, 500]),
    st.integers(0, 2**32 - 1),
)
def test_layers_of_very_different_scales_lose_nothing_that_is_representable(sizes, exponent, seed):
    exponents = [each for _, each in sizes]
    others = [sum(exponents) - each for each in exponents]
    assume(-500 <= max(others) <= 500)
    assume(-500 <= max(others) + exponent <= 500)
    rng = np.random.default_rng(seed)
    layers = layers_between(rng, 3, 4, [width for width, _ in sizes[1:]])
    stack = rng.standard_normal((3, 3, 4))
    scaled = [np.ldexp(layer, each) for layer, each in zip(layers, exponents, strict=True)]

    def total(terms, shift):
        return sum(np.ldexp(term, 2 * (other + shift)) for term, other in zip(terms, others, strict=True))

    terms = oracles.trace_terms(layers, list(stack))
    expected = total(terms, exponent)
    assert trace(scaled, Dense(np.ldexp(stack, exponent))) == pytest.approx(expected, rel=1e-11, abs=0)
    expected = total(oracles.isotropic_terms(layers), 0)
    assert isotropic_trace(scaled) == pytest.approx(expected, rel=1e-11, abs=0)


def test_hundreds_of_layers_neither_overflow_nor_vanish(rng):
    projection = np.full((60, 60), 1 / 60)
    assert isotropic_trace([projection] * 300) == pytest.approx(2 * 60 + 298, rel=1e-10)
    rotations = [np.linalg.qr(rng.standard_normal((30, 30)))[0] for _ in range(400)]
    assert isotropic_trace(rotations) == pytest.approx(400 * 900, rel=1e-10)
    assert trace(rotations, Dense(np.eye(30)[None])) == pytest.approx(2 * 400 * 30, rel=1e-10)


PAIR = (np.ones((3, 2)), np.ones((4, 2)))
MAP = Dense(np.ones((2, 3, 4)))


@pytest.mark.parametrize("name", ["L", "R"])
@pytest.mark.parametrize("factor", bad_input.not_numbers((3, 2)) + bad_input.not_arrays(2))
def test_a_bad_factor_is_refused(name, factor):
    with pytest.raises(ValueError, match=rf"^{name} "):
        scaled_trace(**{"L": PAIR[0], "R": PAIR[1], name: factor}, A=MAP)


@pytest.mark.parametrize(("L", "R"), [((3, 2), (4, 3)), ((4, 2), (3, 2)), ((3, 2), (3, 2)), ((4, 2), (4, 2))])
def test_factors_of_wrong_shape_are_refused(L, R):
    with pytest.raises(ValueError, match=r"^(L and R have|R has) "):
        scaled_trace(np.ones(L), np.ones(R), MAP)


@pytest.mark.parametrize("function", [isotropic_trace, lambda layers: trace(layers, MAP)], ids=["isotropic_trace", "trace"])
@pytest.mark.parametrize("layer", bad_input.not_numbers((3, 2)) + bad_input.not_arrays(2))
def test_a_bad_layer_is_refused(function, layer):
    with pytest.raises(ValueError, match=r"^layers\[1\] "):
        function([np.ones((2, 4)), layer])


@pytest.mark.parametrize("function", [isotropic_trace, lambda layers: trace(layers, MAP)], ids=["isotropic_trace", "trace"])
@pytest.mark.parametrize("layers", [[], None, 3, [np.ones((2, 4)), np.ones((3, 3))]], ids=["empty", "none", "number", "chain"])
def test_layers_that_do_not_multiply_are_refused(function, layers):
    with pytest.raises(ValueError, match=r"^layers"):
        function(layers)


def test_layers_of_another_end_to_end_shape_are_refused():
    with pytest.raises(ValueError, match=r"^layers multiply to shape \(4, 3\); expected \(3, 4\)$"):
        trace([np.ones((2, 3)), np.ones((4, 2))], MAP)


def test_inputs_are_left_unchanged(rng):
    A, _ = maps.dense(rng, 4, 3, 6, "none")
    L, R = rng.standard_normal((4, 2)), rng.standard_normal((3, 2))
    kept = L.copy(), R.copy(), A.matrices.copy()
    scaled_trace(L, R, A)
    trace([R.T, L], A)
    isotropic_trace([R.T, L])
    for before, after in zip(kept, (L, R, A.matrices), strict=True):
        np.testing.assert_array_equal(before, after)
