import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given

from balancedfact.curvature import scaled_trace
from balancedfact.measurements import Dense, Entries, check_measurements
from tests import bad_input, maps, oracles


@given(maps.cases(maps.entries))
def test_every_method_agrees_with_the_matrices(case):
    oracles.assert_agrees(*case)


def test_every_method_agrees_with_the_matrices_at_larger_sizes(rng):
    oracles.assert_agrees(*maps.entries(rng, 12, 9, 60, "none"), rng)


def test_measured_entries_are_the_entries():
    A = Entries([0, 1, 1, 0], [2, 0, 0, 1], (2, 3))
    np.testing.assert_array_equal(A([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), [3.0, 4.0, 4.0, 2.0])


def test_repeated_entries_add_up_in_the_adjoint():
    A = Entries([1, 0, 1], [0, 1, 0], (2, 2), weights=[2.0, 3.0, -5.0])
    np.testing.assert_array_equal(A.adjoint([1.0, 10.0, 1.0]), [[0.0, 30.0], [-3.0, 0.0]])


def test_rescalings_are_roots_of_row_and_column_counts():
    A = Entries([0, 0, 0, 2], [0, 1, 0, 0], (3, 2))
    np.testing.assert_allclose(A.D1, np.diag(np.sqrt(np.array([3, 0, 1]) / (4 * 2))), rtol=1e-15)
    np.testing.assert_allclose(A.D2, np.diag(np.sqrt(np.array([3, 1]) / (4 * 3))), rtol=1e-15)


def test_weights_are_one_unless_given(rng):
    rows, cols, X = rng.integers(0, 3, 6), rng.integers(0, 4, 6), rng.standard_normal((3, 4))
    np.testing.assert_array_equal(Entries(rows, cols, (3, 4))(X), Entries(rows, cols, (3, 4), np.ones(6))(X))
    np.testing.assert_array_equal(Entries(rows, cols, (3, 4), np.full(6, -2.0))(X), -2 * Entries(rows, cols, (3, 4))(X))


def test_the_gram_matrix_is_inverted_where_it_can_be(rng):
    A = Entries([0, 1, 1], [0, 0, 2], (2, 3), [2.0, -3.0, 0.5])
    np.testing.assert_allclose(A.gram_solver(0.0)(np.ones(3)), [1 / 4, 1 / 9, 4], rtol=1e-15)
    np.testing.assert_allclose(A.gram_solver(1.0)(np.ones(3)), [1 / 5, 1 / 10, 4 / 5], rtol=1e-15)
    for singular in (Entries([0, 0], [1, 1], (2, 3)), Entries([0, 1], [1, 1], (2, 3), [1.0, 0.0])):
        with pytest.raises(np.linalg.LinAlgError, match="the Gram matrix is singular"):
            singular.gram_solver(0.0)
        oracles.assert_agrees(singular, [singular.adjoint(unit) for unit in np.eye(2)], rng)


def test_whitened_map_keeps_only_what_is_observed():
    A = Entries([4, 1, 4], [2, 2, 0], (6, 5), weights=[1.0, 2.0, 0.0])
    white = A.whitened()
    assert isinstance(white.map, Entries)
    assert white.map.matrix_shape == (2, 1)
    assert sp.issparse(white.left)
    np.testing.assert_array_equal(np.flatnonzero(white.left.toarray().any(axis=1)), [1, 4])
    np.testing.assert_array_equal(np.flatnonzero(white.right.toarray().any(axis=1)), [2])


@pytest.mark.parametrize("c", [1e-150, 1e-60, -1e60, 1e150])
def test_extreme_weights_change_nothing_but_the_magnitude(c, rng):
    rows, cols, weights = rng.integers(0, 4, 9), rng.integers(0, 3, 9), rng.standard_normal(9)
    A, scaled = Entries(rows, cols, (4, 3), weights), Entries(rows, cols, (4, 3), c * weights)
    np.testing.assert_allclose(scaled.D1, abs(c) * A.D1, rtol=1e-12)
    np.testing.assert_allclose(scaled.D2, abs(c) * A.D2, rtol=1e-12)
    assert check_measurements(scaled, rng).ok
    oracles.assert_whitened(scaled, rng)


def test_a_weight_too_small_to_count_counts_as_zero():
    tiny, zero = (Entries([0, 1], [0, 1], (2, 2), [1.0, weight]) for weight in (1e-200, 0.0))
    np.testing.assert_array_equal(tiny.D1, zero.D1)
    white = tiny.whitened()
    assert white.map.matrix_shape == (1, 1)
    np.testing.assert_array_equal(white.map([[1.0]]), zero.whitened().map([[1.0]]))


def test_factors_of_any_memory_layout_and_type_give_the_same_measurements(rng):
    A, _ = maps.entries(rng, 6, 5, 12, "none")
    L, R = rng.integers(-4, 5, (6, 8)), rng.integers(-4, 5, (5, 8))
    expected = A((L[:, ::2] @ R[:, ::2].T).astype(float))
    for kind in (np.asarray, np.asfortranarray, np.float32, lambda M: M.astype(float)):
        np.testing.assert_allclose(A.forward_factored(kind(L)[:, ::2], kind(R)[:, ::2]), expected, rtol=1e-13)


def test_many_measurements_of_wide_factors_agree_with_the_product(rng):
    A = Entries(rng.integers(0, 50, 20_000), rng.integers(0, 40, 20_000), (50, 40), rng.standard_normal(20_000))
    L, R = rng.standard_normal((50, 37)), rng.standard_normal((40, 37))
    np.testing.assert_allclose(A.forward_factored(L, R), A(L @ R.T), atol=1e-11)


def test_factors_of_wrong_shape_are_not_read_beyond_their_end():
    A = Entries([2], [3], (3, 4))
    for L, R in [((2, 1), (4, 1)), ((3, 1), (3, 1)), ((4, 1), (3, 1)), ((3, 2), (4, 1)), ((3, 1), (4, 2)), ((3,), (4,))]:
        with pytest.raises(ValueError, match=r"^L and R have "):
            A.forward_factored(np.ones(L), np.ones(R))


def test_large_sparse_problems_never_form_a_matrix(rng):
    d1, d2, m = 200_000, 100_000, 1000
    rows, cols, weights = rng.integers(0, d1, m), rng.integers(0, d2, m), rng.standard_normal(m)
    L, R, y = rng.standard_normal((d1, 3)), rng.standard_normal((d2, 3)), rng.standard_normal(m)
    Entries([0], [0], (1, 1)).forward_factored(np.ones((1, 1)), np.ones((1, 1)))  # compiles
    tracemalloc.start()
    try:
        A = Entries(rows, cols, (d1, d2), weights)
        measured = A.forward_factored(L, R)
        operator = A.adjoint_operator(y)
        product, transposed = operator @ R, operator.T @ L
        energy = A.energy(L, R)
        left, right = A.rescale_left(L), A.rescale_right(R)
        white = A.whitened()
        whitened = white.map.forward_factored(np.ones((white.map.matrix_shape[0], 1)), np.ones((white.map.matrix_shape[1], 1)))
        chosen = A.select(np.arange(10)).forward_factored(L, R)
        value = scaled_trace(L, R, A)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6
    expected = weights * np.einsum("ij,ij->i", L[rows], R[cols])
    np.testing.assert_allclose(measured, expected, atol=1e-13)
    np.testing.assert_allclose(chosen, expected[:10], atol=1e-13)
    np.testing.assert_allclose(np.vdot(L, product), y @ expected, rtol=1e-10)
    np.testing.assert_allclose(np.vdot(R, transposed), y @ expected, rtol=1e-10)
    per_entry = weights**2 * np.sum(L[rows] ** 2, axis=1) * np.sum(R[cols] ** 2, axis=1)
    np.testing.assert_allclose(energy, per_entry.sum(), rtol=1e-12)
    trace_left = np.sum(weights**2 * np.sum(L[rows] ** 2, axis=1)) / d2
    trace_right = np.sum(weights**2 * np.sum(R[cols] ** 2, axis=1)) / d1
    np.testing.assert_allclose(m * np.sum(left**2), trace_left, rtol=1e-12)
    np.testing.assert_allclose(m * np.sum(right**2), trace_right, rtol=1e-12)
    np.testing.assert_allclose(value, 2 * (trace_left + trace_right), rtol=1e-12)
    ones = white.left @ np.ones((white.left.shape[1], 1)), white.right @ np.ones((white.right.shape[1], 1))
    np.testing.assert_allclose(whitened, A.forward_factored(*ones), rtol=1e-12)


def test_a_dense_map_of_the_same_matrices_has_the_same_rescalings(rng):
    A, matrices = maps.entries(rng, 5, 7, 20, "sparse")
    np.testing.assert_allclose(Dense(matrices).D1, A.D1, atol=1e-14)
    np.testing.assert_allclose(Dense(matrices).D2, A.D2, atol=1e-14)


BAD_INDEX = [
    *([0.0, 1.0], [np.nan, 0.0], [0, -1], [0, 3], ["0", "1"], [None, 0], [True, False], [0j, 1], [[0, 1]], [[0, 1], [0]]),
    *([], 1, None, np.array([0, 2**63], dtype=np.uint64)),
]


@pytest.mark.parametrize("name", ["rows", "cols"])
@pytest.mark.parametrize("index", BAD_INDEX, ids=str)
def test_bad_indices_are_refused(name, index):
    with pytest.raises(ValueError, match=rf"^{name} "):
        Entries(**{"rows": [0, 1], "cols": [0, 1], name: index}, shape=(3, 3))


@pytest.mark.parametrize(("rows", "cols", "name"), [([3], [0], "rows"), ([0], [2], "cols")])
def test_each_index_is_held_to_its_own_bound(rows, cols, name):
    Entries([2], [1], (3, 2))
    with pytest.raises(ValueError, match=rf"^{name} has values"):
        Entries(rows, cols, (3, 2))


def test_unequal_numbers_of_indices_are_refused():
    with pytest.raises(ValueError, match=r"^cols has 3 entries; expected 2"):
        Entries([0, 1], [0, 1, 1], (3, 3))


@pytest.mark.parametrize("shape", bad_input.BAD_SHAPE, ids=str)
def test_bad_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"^shape"):
        Entries([0], [0], shape)


@pytest.mark.parametrize("weights", [param for param in bad_input.bad((2,)) if param.id != "none"])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match=r"^weights "):
        Entries([0, 1], [0, 1], (3, 3), weights)


def test_the_newton_matrix_is_summed_in_blocks(rng):
    """More entries than a block, some of them repeated, against the formula."""
    W = rng.standard_normal((9, 9))
    W = W @ W.T
    W11, W12, W22 = W[:5, :5], W[:5, 5:], W[5:, 5:]
    A = Entries(rng.integers(5, size=130), rng.integers(4, size=130), (5, 4), weights=rng.standard_normal(130))
    gram = np.empty((130, 130))
    for k, (i, j, v) in enumerate(zip(A.rows, A.cols, A.weights, strict=True)):
        for n, (p, q, w) in enumerate(zip(A.rows, A.cols, A.weights, strict=True)):
            gram[k, n] = v * w * (W11[i, p] * W22[j, q] + W12[i, q] * W12[p, j])
    np.testing.assert_allclose(A.scaled_gram(W11, W12, W22), gram, rtol=1e-12, atol=1e-12)
