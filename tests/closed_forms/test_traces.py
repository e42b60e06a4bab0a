import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.closed_forms import flat_pair, kronecker_minimum, single_measurement_minimum, two_layer_minimum
from balancedfact.curvature import trace
from balancedfact.measurements import Dense, Entries
from tests import bad_input, maps, oracles
from tests.closed_forms import brute_force
from tests.closed_forms.exact_product import exact_log2_singular_values


def low_rank(rng, rows, columns, rank):
    rank = min(rank, rows, columns)
    return rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))


def nuclear(X):
    return np.linalg.svd(X, compute_uv=False).sum()


# One measurement.


@pytest.mark.few(2)
@pytest.mark.parametrize("depth", [2, 3, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (4, 5))])
@pytest.mark.parametrize(("shape", "rank"), [((3, 4), 2), ((4, 2), 2), ((3, 3), 1), ((3, 3), 3)])
def test_the_value_is_what_brute_force_finds(shape, rank, depth):
    rng = np.random.default_rng(depth)
    M, A1 = low_rank(rng, *shape, rank), rng.standard_normal(shape)
    found = brute_force.least(brute_force.hessian_trace([A1]), brute_force.narrow_chart(M, rank, depth), seed=depth)
    assert found == pytest.approx(single_measurement_minimum(M, A1, depth), rel=1e-8)


@pytest.mark.parametrize("widths", [[2, 3, 3], [2, 3, 3, 3], [2, 3, 2, 3, 3]])
def test_wider_hidden_layers_do_not_help(widths, rng):
    M, A1 = rng.standard_normal((3, 2)), rng.standard_normal((3, 2))
    found = brute_force.least(brute_force.hessian_trace([A1]), brute_force.wide_chart(M, widths), seed=1)
    assert found == pytest.approx(single_measurement_minimum(M, A1, len(widths) - 1), rel=1e-7)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_no_factorization_is_below_the_value(rows, columns, rank, depth, seed):
    rng = np.random.default_rng(seed)
    M, A1, width = low_rank(rng, rows, columns, rank), rng.standard_normal((rows, columns)), max(rows, columns)
    layers = [rng.standard_normal((width, columns)), *rng.standard_normal((depth - 2, width, width))]
    before = layers[0]
    for layer in layers[1:]:
        before = layer @ before
    layers.append(M @ np.linalg.pinv(before))
    assert trace(layers, Dense(A1[None])) >= single_measurement_minimum(M, A1, depth) * (1 - 1e-11)


@pytest.mark.parametrize("depth", [2, 3, 10, 100])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_value_is_that_of_exact_arithmetic(size, depth):
    rng = np.random.default_rng(depth)
    M, A1 = rng.integers(-9, 10, (2, size, size))
    levels = exact_log2_singular_values([A1.T, *[M, A1.T] * (depth - 1)])
    expected = 2 * depth * np.exp2(levels * 2 / depth).sum()
    assert single_measurement_minimum(M, A1, depth) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 10, 100])
def test_a_symmetric_matrix_measured_by_the_identity(depth, rng):
    Q = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    values = 10.0 ** -rng.uniform(0, 8, 30) * rng.choice([-1, 1], 30)
    expected = 2 * depth * np.sum(np.abs(values) ** (2 - 2 / depth))
    assert single_measurement_minimum(Q * values @ Q.T, np.eye(30), depth) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 10, 100])
def test_rank_deficiency_adds_no_spurious_terms(depth, rng):
    Q = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    A1 = np.eye(20)
    M = Q[:, :3] * [3.0, 2.0, 1.0] @ Q[:, :3].T
    expected = 2 * depth * np.sum(np.array([3.0, 2.0, 1.0]) ** (2 - 2 / depth))
    assert single_measurement_minimum(M, A1, depth) == pytest.approx(expected, rel=1e-12)
    # The same of the measurement: what it does not see adds nothing.
    assert single_measurement_minimum(A1, M, depth) == pytest.approx(2 * depth * (9 + 4 + 1), rel=1e-12)


def test_a_measurement_of_rank_one_sees_one_number(rng):
    u, v, M = rng.standard_normal(4), rng.standard_normal(3), rng.standard_normal((4, 3))
    for depth in (2, 3, 20):
        expected = 2 * depth * abs(u @ M @ v) ** (2 - 2 / depth) * (np.linalg.norm(u) * np.linalg.norm(v)) ** (2 / depth)
        assert single_measurement_minimum(M, np.outer(u, v), depth) == pytest.approx(expected, rel=1e-12)
        assert 2 * kronecker_minimum(M, u[None], v[:, None], depth) == pytest.approx(expected, rel=1e-12)


def test_transposing_both_matrices_changes_nothing(rng):
    M, A1 = rng.standard_normal((2, 5, 3))
    for depth in (2, 3, 40):
        value = single_measurement_minimum(M, A1, depth)
        assert single_measurement_minimum(M.T, A1.T, depth) == pytest.approx(value, rel=1e-12)


def test_a_nilpotent_product_has_infimum_zero_that_is_approached_and_not_attained():
    M, A1 = np.array([[0.0, 1.0], [0.0, 0.0]]), np.eye(2)
    assert single_measurement_minimum(M, A1, 2) == pytest.approx(4)
    assert single_measurement_minimum(M, A1, 3) < 1e-9
    for t in (1.0, 1e2, 1e5):
        layers = [np.array([[0, t]]), np.array([[t**-2]]), np.array([[t], [0]])]
        np.testing.assert_allclose(layers[2] @ layers[1] @ layers[0], M)
        assert trace(layers, Dense(A1[None])) == pytest.approx(4 / t**2, rel=1e-12)


@pytest.mark.slow
def test_the_infimum_of_degenerate_problems_by_brute_force(rng):
    """The power has a smaller rank than the matrix."""
    shift, identity = np.diag([1.0, 1.0], 1), np.eye(3)
    for depth, tolerance in ((2, 1e-9), (3, 1e-6)):
        found = brute_force.least(brute_force.hessian_trace([identity]), brute_force.narrow_chart(shift, 2, depth), 0, starts=1)
        assert found == pytest.approx(single_measurement_minimum(shift, identity, depth), rel=tolerance)
    M, A1 = rng.standard_normal((3, 3)), low_rank(rng, 3, 3, 2)
    for depth in (2, 3):
        found = brute_force.least(brute_force.hessian_trace([A1]), brute_force.narrow_chart(M, 3, depth), 0, starts=1)
        assert found == pytest.approx(single_measurement_minimum(M, A1, depth), rel=1e-8)


@pytest.mark.parametrize("depth", [2, 3, 100])
@pytest.mark.parametrize("c", [1e-150, 1e-60, 1e60, 1e150])
def test_extreme_scales(depth, c, rng):
    M, A1 = rng.standard_normal((2, 4, 3))
    value = single_measurement_minimum(M, A1, depth)
    powers = c ** (1 - 1 / depth)
    assert single_measurement_minimum(c * M, A1, depth) == pytest.approx(powers * powers * value, rel=1e-11, abs=0)
    assert single_measurement_minimum(M, c * A1, depth) == pytest.approx(c * c * value, rel=1e-11, abs=0)
    assert single_measurement_minimum(c * M, A1 / c, depth) == pytest.approx(value * c ** (-2 / depth), rel=1e-11, abs=0)


@pytest.mark.parametrize("depth", [2, 3, 100])
def test_zeros_have_the_value_zero(depth, rng):
    M = rng.standard_normal((3, 2))
    assert single_measurement_minimum(0 * M, M, depth) == 0
    assert single_measurement_minimum(M, 0 * M, depth) == 0


@pytest.mark.parametrize("bad", bad_input.bad((3, 2)))
def test_a_bad_matrix_or_measurement_is_refused(bad):
    good = np.ones((3, 2))
    with pytest.raises(ValueError, match=r"^A1 "):
        single_measurement_minimum(good, bad, 3)
    with pytest.raises(ValueError, match=r"^(M|A1) "):
        single_measurement_minimum(bad, good, 3)


@pytest.mark.parametrize("depth", [1, *bad_input.BAD_COUNT], ids=repr)
def test_a_bad_depth_is_refused(depth):
    with pytest.raises(ValueError, match=r"^depth is "):
        single_measurement_minimum(np.ones((3, 2)), np.ones((3, 2)), depth)


# Two layers.


@given(maps.cases(*maps.BUILT_IN.values(), maps.minimal), st.integers(0, 5))
def test_the_value_is_the_nuclear_norm_and_the_flat_pair_attains_it(case, rank):
    A, matrices, rng = case
    d1, d2 = A.matrix_shape
    M = low_rank(rng, d1, d2, rank)

    def root(square):
        values, vectors = np.linalg.eigh(square)
        return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T

    D, E = root(sum(B @ B.T for B in matrices) / A.m), root(sum(B.T @ B for B in matrices) / A.m)
    ceiling = 4 * np.linalg.norm(D, 2) * np.linalg.norm(E, 2) * nuclear(M)
    value = two_layer_minimum(M, A)
    assert value == pytest.approx(4 * nuclear(D @ M @ E), rel=1e-9, abs=1e-7 * ceiling)
    L, R = flat_pair(M, A)
    t = (d1 / d2) ** 0.25
    attained = sum(oracles.trace_terms([R.T / t, t * L], matrices))
    assert attained == pytest.approx(value, rel=1e-12, abs=1e-13 * ceiling)


def test_the_two_layer_value_is_what_brute_force_finds(rng):
    for build in maps.BUILT_IN.values():
        A, matrices = build(rng, 3, 4, 8, "none")
        M = low_rank(rng, 3, 4, 2)
        cost = brute_force.hessian_trace(matrices)
        found = brute_force.least(cost, brute_force.narrow_chart(M, 2, 2), seed=0)
        assert found == pytest.approx(two_layer_minimum(M, A), rel=1e-9)
        wide = rng.standard_normal((5, 4))
        assert trace([wide, M @ np.linalg.pinv(wide)], A) >= two_layer_minimum(M, A)


def test_one_measurement_of_two_layers(rng):
    M, A1 = rng.standard_normal((2, 4, 3))
    value = single_measurement_minimum(M, A1, 2)
    assert two_layer_minimum(M, Dense(A1[None])) == pytest.approx(value, rel=1e-12)


def test_entries_worked_by_hand():
    A, M = Entries([0, 0, 0, 0, 1], [0, 0, 0, 0, 0], (2, 1)), np.array([[3.0], [4.0]])
    # D^2 = diag(4, 1) / 5 and D'^2 = 1.
    assert two_layer_minimum(M, A) == pytest.approx(4 * np.sqrt((4 * 9 + 16) / 5), rel=1e-14)


@pytest.mark.parametrize("c", [1e-150, 1e150])
@pytest.mark.parametrize("build", maps.BUILT_IN.values(), ids=maps.BUILT_IN)
def test_extreme_scales_of_two_layers(build, c):
    A, _ = build(np.random.default_rng(0), 4, 3, 9, "none")
    scaled, _ = build(np.random.default_rng(0), 4, 3, 9, "none", c)
    M = low_rank(np.random.default_rng(1), 4, 3, 2)
    value = two_layer_minimum(M, A)
    assert two_layer_minimum(c * M, A) == pytest.approx(c * value, rel=1e-11, abs=0)
    assert two_layer_minimum(M / c, scaled) == pytest.approx(c * value, rel=1e-11, abs=0)
    assert two_layer_minimum(M, scaled) == pytest.approx(c * c * value, rel=1e-11, abs=0)


def test_zeros_of_two_layers(rng):
    A, _ = maps.dense(rng, 4, 3, 5, "zero")
    assert two_layer_minimum(rng.standard_normal((4, 3)), A) == 0
    A, _ = maps.dense(rng, 4, 3, 5, "none")
    assert two_layer_minimum(np.zeros((4, 3)), A) == 0


@pytest.mark.parametrize("M", bad_input.bad((3, 2)))
def test_a_bad_matrix_for_two_layers_is_refused(M):
    with pytest.raises(ValueError, match=r"^M "):
        two_layer_minimum(M, Dense(np.ones((2, 3, 2))))
