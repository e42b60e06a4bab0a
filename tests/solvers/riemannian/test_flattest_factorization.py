import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.solution import Status
from tests.bad_input import BAD_RNG, not_arrays, not_numbers
from tests.maps import BUILT_IN
from tests.solvers.factorizations import least_trace, random_layers


def low_rank(d1, d2, r, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d1, r)) @ rng.standard_normal((r, d2))


def least_isotropic(M, depth):
    """Gatmiry et al., Lemma 4 with the constant corrected."""
    rows, columns = M.shape
    return depth * (rows * columns) ** (1 / depth) * np.linalg.svd(M, compute_uv=False).sum() ** (2 - 2 / depth)


def assert_factorization(solution, M, widths):
    assert [layer.shape for layer in solution.layers] == list(zip(widths[1:], widths[:-1], strict=True))
    np.testing.assert_allclose(solution.matrix, M, atol=1e-13 * np.abs(M).max() * max(M.shape))
    assert solution.certificate.feasibility <= 1e-13


@pytest.mark.parametrize("depth", [2, 3, 5, 10])
@pytest.mark.parametrize(("d1", "d2", "r", "hidden"), [(6, 4, 3, 3), (4, 6, 2, 5), (5, 5, 5, 5), (3, 7, 1, 2)])
def test_the_search_reaches_the_least_isotropic_trace(depth, d1, d2, r, hidden):
    M, widths = low_rank(d1, d2, r), [d2, *[hidden] * (depth - 1), d1]
    solution = bf.flattest_factorization(M, widths, rng=depth, progress=False)
    assert_factorization(solution, M, widths)
    assert solution.value == pytest.approx(least_isotropic(M, depth), rel=1e-10)
    assert bf.curvature.isotropic_trace(solution.layers) == pytest.approx(solution.value, rel=1e-13)
    assert solution.certificate.lower_bound == pytest.approx(least_isotropic(M, depth), rel=1e-12)
    assert solution.status is Status.OPTIMAL
    assert solution.history["value"][-1] == pytest.approx(solution.value, rel=1e-10)


def conditioned(d1, d2, r, condition, seed=0):
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((d, r)))[0] for d in (d1, d2))
    return (U * np.geomspace(1, 1 / condition, r)) @ V.T


@pytest.mark.parametrize("depth", [2, 3, 5, 10, 20])
@pytest.mark.parametrize("condition", [1e3, 1e6])
def test_neither_depth_nor_condition_keep_a_start_from_arriving(depth, condition):
    M = conditioned(9, 7, 5, condition, depth)
    for seed in range(5):
        solution = bf.flattest_factorization(M, [7, *[6] * (depth - 1), 9], rng=seed, progress=False)
        assert solution.value == pytest.approx(least_isotropic(M, depth), rel=1e-12)
        assert solution.status is Status.OPTIMAL
        assert solution.history["inner"].sum() < 150
        assert solution.certificate.lower_bound == pytest.approx(solution.history["lower_bound"][-1], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [2, 3, 5, 10, 20])
@pytest.mark.parametrize(("d1", "d2", "r"), [(20, 15, 4), (15, 15, 15), (30, 40, 30)])
def test_twenty_of_twenty_starts_arrive(depth, d1, d2, r):
    M = conditioned(d1, d2, r, 1e6, 100 + depth)
    for seed in range(20):
        solution = bf.flattest_factorization(M, [d2, *[r] * (depth - 1), d1], rng=seed, progress=False)
        assert abs(solution.value / least_isotropic(M, depth) - 1) <= 1e-12
        assert solution.status is Status.OPTIMAL


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_a_start_may_be_any_layers_of_the_matrix(depth, rng):
    M, widths = low_rank(5, 6, 3), [6, *[7] * (depth - 1), 5]
    for measured in (None, bf.measurements.gaussian(25, (5, 6), rng=1)):
        known = bf.flattest_factorization(M, widths, measured, rng=0, progress=False)
        for scale in (1.0, 1e-80):
            start = random_layers(M * scale, depth, 7, rng)
            found = bf.flattest_factorization(M * scale, widths, measured, initial=start, progress=False)
            assert_factorization(found, M * scale, widths)
            assert found.value / scale ** (2 - 2 / depth) == pytest.approx(known.value, rel=1e-11)
            assert found.status is Status.OPTIMAL
    again = bf.flattest_factorization(M, widths, initial=bf.flattest_factorization(M, widths, rng=0).layers)
    assert len(again.history["value"]) <= 2


@pytest.mark.parametrize("kind", BUILT_IN)
@pytest.mark.parametrize(("d1", "d2", "r", "hidden"), [(5, 4, 2, 2), (4, 6, 2, 4), (4, 4, 4, 4)])
def test_the_search_reaches_the_flat_pair(kind, d1, d2, r, hidden, rng):
    M = low_rank(d1, d2, r)
    A, _ = BUILT_IN[kind](rng, d1, d2, 60, "none")
    solution = bf.flattest_factorization(M, [d2, hidden, d1], A, rng=1, progress=False)
    assert_factorization(solution, M, [d2, hidden, d1])
    value = 4 * A.m * np.linalg.norm(A.D1 @ M @ A.D2, "nuc")
    assert solution.value == pytest.approx(value, rel=1e-10)
    assert bf.curvature.scaled_trace(*bf.closed_forms.flat_pair(M, A), A) == pytest.approx(solution.value, rel=1e-10)
    assert solution.certificate.lower_bound == pytest.approx(value, rel=1e-12)
    assert solution.status is Status.OPTIMAL
    L, R = solution.pair
    low = L.T @ A.D1 @ A.D1 @ L
    np.testing.assert_allclose(low, R.T @ A.D2 @ A.D2 @ R, atol=1e-6 * np.abs(low).max())
    assert solution.certificate.balance <= 1e-6


def test_more_layers_under_measurements():
    """All entries observed once: the trace of the Hessian is 2 R(W) over the number of entries."""
    rows, cols = np.indices((4, 3)).reshape(2, -1)
    A, M = bf.measurements.Entries(rows, cols, (4, 3)), low_rank(4, 3, 2)
    solution = bf.flattest_factorization(M, [3, 3, 2, 4], A, rng=0, progress=False)
    assert_factorization(solution, M, [3, 3, 2, 4])
    assert solution.value == pytest.approx(2 * least_isotropic(M, 3) / A.m, rel=1e-10)
    assert solution.value == pytest.approx(bf.curvature.trace(solution.layers, A), rel=1e-13)
    assert solution.status is Status.OPTIMAL
    assert 0 <= solution.certificate.gap <= 1e-11
    other = bf.measurements.gaussian(9, (4, 3), rng=2)
    values = [bf.flattest_factorization(M, [3, 2, 2, 4], other, rng=seed, progress=False).value for seed in range(3)]
    np.testing.assert_allclose(values, least_trace(M, other.matrices, 3, 2, np.random.default_rng(0))[0], rtol=1e-8)
    np.testing.assert_allclose(values, values[0], rtol=1e-12)  # geodesic convexity: every start ends at the same value


@given(st.integers(1, 5), st.integers(1, 5), st.integers(2, 5), st.integers(0, 2), st.integers(0, 10_000))
@settings(max_examples=20)
def test_any_shape(d1, d2, depth, extra, seed):
    r = 1 + seed % min(d1, d2)
    M, widths = low_rank(d1, d2, r, seed), [d2, *[r + extra] * (depth - 1), d1]
    solution = bf.flattest_factorization(M, widths, rng=seed, progress=False)
    assert_factorization(solution, M, widths)
    assert solution.value == pytest.approx(least_isotropic(M, depth), rel=1e-7)  # ill-conditioned matrices are among them
    assert solution.status.ok


@pytest.mark.parametrize("scale", [1e-150, 1e150])
@pytest.mark.parametrize("depth", [2, 4])
def test_extreme_scales(scale, depth):
    M = low_rank(4, 3, 2)
    widths = [3, *[2] * (depth - 1), 4]
    solution = bf.flattest_factorization(scale * M, widths, rng=0, progress=False)
    assert solution.value / scale ** (2 - 2 / depth) == pytest.approx(least_isotropic(M, depth), rel=1e-10)
    np.testing.assert_allclose(solution.matrix / scale, M, atol=1e-12)
    assert solution.status is Status.OPTIMAL


def test_zero():
    solution = bf.flattest_factorization(np.zeros((3, 2)), [2, 1, 4, 3])
    assert [layer.shape for layer in solution.layers] == [(1, 2), (4, 1), (3, 4)]
    assert solution.value == 0
    assert solution.status is Status.OPTIMAL


def test_parts_that_are_not_seen():
    M = np.ones((4, 4)) + np.eye(4)
    # A direction that is seen from neither side costs nothing; what is seen of the rest has its least value.
    A = bf.measurements.Entries([0, 1, 2], [0, 1, 2], (4, 4))
    solution = bf.flattest_factorization(M, [4, 4, 4], A, rng=0, progress=False)
    assert solution.status is Status.OPTIMAL
    assert solution.value == pytest.approx(4 * A.m * np.linalg.norm(A.D1 @ M @ A.D2, "nuc"), rel=1e-12)
    # Row 3 is seen by no measurement, column 3 by one.
    A = bf.measurements.Entries([0, 1, 2, 0], [0, 1, 2, 3], (4, 4))
    solution = bf.flattest_factorization(M, [4, 4, 4], A, rng=0, progress=False)
    assert solution.status is Status.UNATTAINED
    assert "seen from one side only" in solution.message
    assert solution.value >= solution.certificate.lower_bound * (1 - 1e-12)


def test_seed_history_callback_and_interrupt():
    M, seen = low_rank(4, 3, 2), []
    one, two, other = (bf.flattest_factorization(M, [3, 2, 2, 4], rng=s, callback=seen.append) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.layers[0], two.layers[0])
    assert not np.array_equal(one.layers[0], other.layers[0])
    assert [r["value"] for r in seen[: len(one.history["value"])]] == list(one.history["value"])

    def callback(record):
        if record["iteration"] == 1:
            raise KeyboardInterrupt

    solution = bf.flattest_factorization(M, [3, 2, 2, 4], rng=0, callback=callback)
    assert solution.status is Status.INTERRUPTED
    assert_factorization(solution, M, [3, 2, 2, 4])


def test_bad_arguments():
    M = low_rank(4, 3, 2)
    A = bf.measurements.gaussian(5, (4, 3), rng=0)
    for value in [case.values[0] for case in not_numbers((4, 3)) + not_arrays(2)]:
        with pytest.raises(ValueError, match="M"):
            bf.flattest_factorization(value, [3, 2, 4])
    for value in [3, None, [3, 4], [3, 2, 5], [4, 2, 3], [3, 0, 4], [3, 2.0, 4], [3, 1, 4], [3, 2, 1, 4]]:
        with pytest.raises(ValueError, match="widths"):
            bf.flattest_factorization(M, value)
    for value in ["map", bf.measurements.gaussian(5, (3, 4), rng=0)]:
        with pytest.raises(ValueError, match="A "):
            bf.flattest_factorization(M, [3, 2, 4], value)
    for value in BAD_RNG:
        with pytest.raises(ValueError, match="rng"):
            bf.flattest_factorization(M, [3, 2, 4], A, rng=value)
    with pytest.raises(ValueError, match="tol"):
        bf.flattest_factorization(M, [3, 2, 4], tol=-1.0)
    right = random_layers(M, 2, 2, np.random.default_rng(0))
    for value in [3, "ab", [], right[:1], [*right, np.eye(4)], [2 * right[0], right[1]], [right[0][:, :2], right[1]]]:
        with pytest.raises(ValueError, match="initial"):
            bf.flattest_factorization(M, [3, 2, 4], initial=value)
