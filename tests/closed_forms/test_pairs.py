import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.closed_forms import balanced_pair, flat_pair
from balancedfact.curvature import scaled_trace
from balancedfact.measurements import Dense, Entries, RankOne
from tests import bad_input, maps


def low_rank(rng, d1, d2, rank):
    rank = min(rank, d1, d2)
    return rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))


def nuclear(X):
    return np.linalg.svd(X, compute_uv=False).sum()


def assert_product(L, R, X, tolerance=1e-13):
    assert L.shape[1] == R.shape[1]
    assert np.linalg.norm(L @ R.T - X) <= tolerance * np.linalg.norm(X)


def assert_flat(L, R, X, A, tolerance=1e-12):
    """The pair multiplies to X, has the least scaled trace and is rescaled-balanced."""
    root_left, root_right = A.D1, A.D2
    least = 4 * A.m * nuclear(root_left @ X @ root_right)
    # What X weighs where both sides see it at full strength: below rounding of it nothing can be told from zero.
    ceiling = 4 * A.m * np.linalg.norm(root_left, 2) * np.linalg.norm(root_right, 2) * nuclear(X)
    assert scaled_trace(L, R, A) == pytest.approx(least, rel=tolerance, abs=1e-14 * ceiling)
    weights = np.linalg.norm(root_left @ L) ** 2 + np.linalg.norm(root_right @ R) ** 2
    unbalance = L.T @ root_left @ root_left @ L - R.T @ root_right @ root_right @ R
    # Where the least value is not attained no pair is exactly balanced, and this one is to the root of the precision.
    attained = all(np.linalg.cond(root) < 1e9 for root in (root_left, root_right))
    assert np.linalg.norm(unbalance) <= (1e-11 * weights if attained else 2.0**-24 * (weights + ceiling / (4 * A.m)))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_the_balanced_pair_is_balanced_and_norm_minimal(d1, d2, rank, seed):
    rng = np.random.default_rng(seed)
    X = low_rank(rng, d1, d2, rank)
    L, R = balanced_pair(X)
    assert L.shape[1] == max(1, min(d1, d2, rank))
    assert_product(L, R, X)
    size = max(nuclear(X), 1e-300)
    assert np.linalg.norm(L.T @ L - R.T @ R) <= 1e-13 * size
    assert np.sum(L**2) == pytest.approx(nuclear(X), rel=1e-13)
    assert np.sum(R**2) == pytest.approx(nuclear(X), rel=1e-13)
    mixing = np.linalg.qr(rng.standard_normal(2 * (L.shape[1],)))[0] @ np.diag(rng.uniform(0.5, 2, L.shape[1]))
    other = np.sum((L @ mixing) ** 2) + np.sum((R @ np.linalg.inv(mixing).T) ** 2)
    assert other >= np.sum(L**2) + np.sum(R**2) - 1e-12 * size


@pytest.mark.parametrize("c", [1e-300, 1e-150, 1e150, 1e300])
def test_the_balanced_pair_of_an_extreme_matrix_is_scaled_by_the_root(c, rng):
    X = low_rank(rng, 5, 4, 2)
    expected, found = balanced_pair(X), balanced_pair(c * X)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours @ ours.T, np.sqrt(c) * theirs @ (np.sqrt(c) * theirs).T, rtol=1e-11, atol=1e-13 * c)
    assert_product(found[0] / np.sqrt(c), found[1] / np.sqrt(c), X)


@given(maps.cases(*maps.BUILT_IN.values(), maps.minimal, most=20), st.integers(0, 5))
def test_the_flat_pair_is_flat_for_every_kind_of_map(case, rank):
    A, _, rng = case
    X = low_rank(rng, *A.matrix_shape, rank)
    L, R = flat_pair(X, A)
    assert L.shape[1] == max(1, min(rank, *A.matrix_shape))
    assert_product(L, R, X)
    assert_flat(L, R, X, A)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_the_flat_pair_is_the_rescaled_singular_value_decomposition(shape, rank, rng):
    A, _ = maps.dense(rng, *shape, 40, "none")
    X = low_rank(rng, *shape, rank)
    U, s, Vt = np.linalg.svd(A.D1 @ X @ A.D2)
    expected_left = np.linalg.solve(A.D1, U[:, :rank] * np.sqrt(s[:rank]))
    expected_right = np.linalg.solve(A.D2, Vt[:rank].T * np.sqrt(s[:rank]))
    L, R = flat_pair(X, A)
    np.testing.assert_allclose(L @ L.T, expected_left @ expected_left.T, atol=1e-11)
    np.testing.assert_allclose(R @ R.T, expected_right @ expected_right.T, atol=1e-11)
    assert_product(L, R, X)


def test_no_other_factorization_has_a_smaller_scaled_trace(rng):
    for build in maps.BUILT_IN.values():
        A, _ = build(rng, 5, 4, 30, "none")
        X = low_rank(rng, 5, 4, 2)
        L, R = flat_pair(X, A)
        least = scaled_trace(L, R, A)
        for spread in (1e-4, 1e-1, 1.0):
            for _ in range(20):
                G = np.eye(2) + spread * rng.standard_normal((2, 2))
                assert scaled_trace(L @ G, R @ np.linalg.inv(G).T, A) >= least * (1 - 1e-12)
        assert scaled_trace(*balanced_pair(X), A) > least * (1 + 1e-6)


def test_isotropic_rescalings_make_flat_pairs_balanced(rng):
    rows, cols = np.divmod(np.arange(12), 4)
    A, X = Entries(rows, cols, (3, 4)), low_rank(rng, 3, 4, 2)
    flat, balanced = flat_pair(X, A), balanced_pair(X)
    # D1 and D2 are the same multiple of the identity.
    for ours, theirs in zip(flat, balanced, strict=True):
        np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-13)


def test_the_value_of_a_flat_pair_worked_by_hand():
    A = Entries([0, 0, 0, 0, 1], [0, 0, 0, 0, 0], (2, 1))
    X = np.array([[3.0], [4.0]])
    L, R = flat_pair(X, A)
    # D1^2 = diag(4, 1) / 5 and D2^2 = 5 / 10, so |D1 X D2|_* = sqrt((4 * 9 + 16) / 5 * (1 / 2)).
    assert scaled_trace(L, R, A) == pytest.approx(4 * 5 * np.sqrt(52 / 10), rel=1e-14)


def project_out(rng, matrices, left, right):
    d1, d2 = matrices.shape[1:]
    Q1, Q2 = (np.linalg.qr(rng.standard_normal((d, d)))[0] for d in (d1, d2))
    P1, P2 = Q1[:, left:] @ Q1[:, left:].T, Q2[:, right:] @ Q2[:, right:].T
    return P1 @ matrices @ P2


@pytest.mark.parametrize(("left", "right"), [(1, 0), (0, 1), (1, 1), (2, 2), (4, 0), (0, 3), (4, 3)])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_singular_rescalings_keep_the_product_and_the_least_value(left, right, rank, rng):
    A = Dense(project_out(rng, rng.standard_normal((30, 5, 4)), left, right))
    assert np.linalg.matrix_rank(A.D1, tol=1e-9) == 5 - left
    for X in (low_rank(rng, 5, 4, rank), 1e100 * low_rank(rng, 5, 4, rank)):
        L, R = flat_pair(X, A)
        assert_product(L, R, X)
        assert_flat(L, R, X, A)


@pytest.mark.parametrize("seen", ["left", "right", "neither", "both"])
def test_parts_seen_on_one_side_only_cost_nothing_and_keep_the_product(seen, rng):
    # Rows 0 to 2 and columns 0 and 1 are observed, of 5 x 4.
    rows, cols = np.divmod(np.arange(6), 2)
    A = Entries(rows, cols, (5, 4))
    X = np.zeros((5, 4))
    block = {"left": np.s_[:3, 2:], "right": np.s_[3:, :2], "neither": np.s_[3:, 2:], "both": np.s_[:3, :2]}[seen]
    X[block] = rng.standard_normal(X[block].shape)
    L, R = flat_pair(X, A)
    assert_product(L, R, X)
    assert_flat(L, R, X, A)
    if seen != "both":
        ceiling = 4 * A.m * np.linalg.norm(A.D1, 2) * np.linalg.norm(A.D2, 2) * nuclear(X)
        assert 0 <= scaled_trace(L, R, A) < 1e-14 * ceiling


def test_unseen_parts_beside_seen_ones_leave_the_value_of_the_seen_ones(rng):
    rows, cols = np.divmod(np.arange(6), 2)
    A, X = Entries(rows, cols, (5, 4)), rng.standard_normal((5, 4))
    L, R = flat_pair(X, A)
    assert_product(L, R, X)
    assert scaled_trace(L, R, A) == pytest.approx(4 * A.m * nuclear(A.D1 @ X @ A.D2), rel=1e-12)
    inner = Entries(rows, cols, (3, 2))
    scale = 4 * A.m * nuclear(inner.D1 @ X[:3, :2] @ inner.D2) * np.sqrt(3 * 2 / (5 * 4))
    assert scaled_trace(L, R, A) == pytest.approx(scale, rel=1e-12)


def test_a_map_of_zeros_makes_every_factorization_flat(rng):
    X = low_rank(rng, 4, 3, 2)
    for build in maps.BUILT_IN.values():
        A, _ = build(rng, 4, 3, 5, "zero")
        L, R = flat_pair(X, A)
        assert_product(L, R, X)
        assert scaled_trace(L, R, A) == 0


@pytest.mark.parametrize("exponent", range(1, 8))
def test_ill_conditioned_rescalings_keep_the_product(exponent):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        T1, T2 = (np.linalg.qr(rng.standard_normal((d, d)))[0] * 10.0 ** -rng.uniform(0, exponent, d) for d in (6, 5))
        A, X = Dense(T1 @ rng.standard_normal((40, 6, 5)) @ T2.T), rng.standard_normal((6, 5))
        L, R = flat_pair(X, A)
        assert_product(L, R, X)
        assert_flat(L, R, X, A)


@pytest.mark.parametrize("c", [1e-300, 1e-150, 1e150, 1e300])
def test_the_flat_pair_of_an_extreme_matrix_is_scaled_by_the_root(c, rng):
    for build in maps.BUILT_IN.values():
        A, _ = build(rng, 5, 4, 30, "none")
        X = low_rank(rng, 5, 4, 2)
        expected, (L, R) = flat_pair(X, A), flat_pair(c * X, A)
        np.testing.assert_allclose(L / np.sqrt(c) @ R.T / np.sqrt(c), X, atol=1e-12)
        for ours, theirs in zip((L, R), expected, strict=True):
            np.testing.assert_allclose(ours / np.sqrt(c) @ ours.T / np.sqrt(c), theirs @ theirs.T, rtol=1e-8, atol=1e-10)
        assert scaled_trace(L, R, A) == pytest.approx(c * scaled_trace(*expected, A), rel=1e-12, abs=0)


@pytest.mark.parametrize("c", [1e-150, 1e-60, 1e60, 1e150])
@pytest.mark.parametrize("build", maps.BUILT_IN.values(), ids=maps.BUILT_IN)
def test_the_flat_pair_does_not_depend_on_the_magnitude_of_the_measurements(build, c):
    A, _ = build(np.random.default_rng(0), 5, 4, 30, "none")
    scaled, _ = build(np.random.default_rng(0), 5, 4, 30, "none", c)
    X = low_rank(np.random.default_rng(1), 5, 4, 2)
    expected, (L, R) = flat_pair(X, A), flat_pair(X, scaled)
    for ours, theirs in zip((L, R), expected, strict=True):
        np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, rtol=1e-9, atol=1e-11)
    assert scaled_trace(L, R, scaled) == pytest.approx(c**2 * scaled_trace(*expected, A), rel=1e-12, abs=0)


MAP = RankOne(np.eye(4, 3) + 1, np.vander([1.0, 2.0, 3.0, 4.0], 2))
FORMS = {"balanced_pair": balanced_pair, "flat_pair": lambda X, rank=None: flat_pair(X, MAP, rank)}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("rank", [2, 3, np.int64(7)])
def test_wider_factors_have_zero_columns_beyond_the_rank(form, rank, rng):
    X = rng.standard_normal((3, 2))
    L, R = form(X, rank)
    assert L.shape == (3, rank)
    assert R.shape == (2, rank)
    narrow = form(X)
    np.testing.assert_array_equal(L[:, :2], narrow[0])
    np.testing.assert_array_equal(R[:, :2], narrow[1])
    assert not L[:, 2:].any()
    assert not R[:, 2:].any()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("rank", "width"), [(None, 1), (1, 1), (4, 4)])
def test_the_zero_matrix_has_zero_factors(form, rank, width):
    L, R = form(np.zeros((3, 2)), rank)
    np.testing.assert_array_equal(L, np.zeros((3, width)))
    np.testing.assert_array_equal(R, np.zeros((2, width)))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_width_is_the_numerical_rank(form, rng):
    exact = np.outer(rng.standard_normal(3), rng.standard_normal(2))
    assert form(exact)[0].shape == (3, 1)
    assert form(exact + 1e-17 * rng.standard_normal((3, 2)))[0].shape == (3, 1)
    assert form(exact + 1e-10 * rng.standard_normal((3, 2)))[0].shape == (3, 2)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_matrix_is_left_unchanged(form, rng):
    X = rng.standard_normal((3, 2))
    kept = X.copy()
    form(X)
    np.testing.assert_array_equal(X, kept)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("X", bad_input.not_numbers((3, 2)) + bad_input.not_arrays(2))
def test_a_bad_matrix_is_refused(form, X):
    with pytest.raises(ValueError, match=r"^X "):
        form(X)


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (4, 2)])
def test_a_matrix_that_the_map_does_not_measure_is_refused(shape):
    with pytest.raises(ValueError, match=r"^X has shape .*; expected \(3, 2\)$"):
        flat_pair(np.ones(shape), MAP)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("rank", [value for value in bad_input.BAD_COUNT if value is not None], ids=repr)
def test_a_bad_rank_is_refused(form, rank):
    with pytest.raises(ValueError, match=r"^rank is "):
        form(np.ones((3, 2)), rank)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_rank_below_that_of_the_matrix_is_refused(form):
    with pytest.raises(ValueError, match=r"^rank is 1; expected at least 2, the numerical rank of X$"):
        form(np.eye(3, 2), 1)


def test_a_tall_matrix_needs_no_square_of_its_height():
    rng = np.random.default_rng(0)
    A = Entries(rng.integers(0, 20_000, 500), rng.integers(0, 3, 500), (20_000, 3))
    X = rng.standard_normal((20_000, 3))
    tracemalloc.start()
    try:
        L, R = flat_pair(X, A)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50e6
    assert_product(L, R, X)
