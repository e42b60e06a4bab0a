import numpy as np
import pymanopt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.manifolds import StiefelTriples
from balancedfact.solution import Status
from balancedfact.solvers.riemannian._matrix_target import MatrixTarget
from balancedfact.solvers.riemannian._triple_distance import TripleDistance
from tests.bad_input import BAD_COUNT, BAD_RNG, bad, not_arrays, not_numbers

METHODS = ["svd", "riemannian"]
GEOMETRIES = ["pairs", "triples", "merged"]


def seeds(fast, most):
    """Seeds, of which those beyond the first few are slow."""
    slow = (pytest.param(seed, marks=pytest.mark.slow) for seed in range(fast, most))
    return pytest.mark.parametrize("seed", [*range(fast), *slow])


def searched(M, k, geometry, seed, **options):
    return bf.balanced_approximation(M, k, method="riemannian", geometry=geometry, rng=seed, progress=False, **options)


def noisy(d1, d2, r, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d1, r)) @ rng.standard_normal((r, d2)) + noise * rng.standard_normal((d1, d2))


def least(M, k):
    return np.sum(np.linalg.svd(M, compute_uv=False)[k:] ** 2)


def singular_pair(M, places, k):
    U, s, Vt = np.linalg.svd(M, full_matrices=False)
    pad = ((0, 0), (0, k - len(places)))
    return np.pad(U[:, places] * np.sqrt(s[places]), pad), np.pad(Vt[places].T * np.sqrt(s[places]), pad)


def assert_solved(solution, M, k):
    """The pair is balanced, its value the least one, and the bound below it; from the definitions."""
    L, R = solution.pair
    assert L.shape == (M.shape[0], k)
    assert R.shape == (M.shape[1], k)
    size = np.linalg.norm(M) or 1.0
    assert np.abs(L.T @ L - R.T @ R).max() <= 1e-14 * max(np.vdot(L, L), 1e-300) * 10
    error = np.linalg.norm((L @ R.T - M) / size) ** 2
    assert solution.value / size / size == pytest.approx(error, rel=1e-11, abs=1e-26)
    expected = least(M / size, k)
    assert error == pytest.approx(expected, rel=1e-9, abs=1e-23)
    bound = solution.certificate.lower_bound / size / size
    assert bound <= expected * (1 + 1e-12) + 1e-28
    assert solution.status is Status.OPTIMAL
    assert solution.certificate.gap <= 1e-9
    assert solution.certificate.balance <= 1e-14


@pytest.mark.slow
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 8), st.integers(0, 6), st.integers(0, 10_000))
@settings(max_examples=25)
def test_any_shape_and_rank(d1, d2, k, r, seed):
    M = noisy(d1, d2, min(r, d1, d2), noise=0.0 if seed % 2 else 0.3, seed=seed)
    assert_solved(bf.balanced_approximation(M, k, rng=seed), M, k)
    for geometry in GEOMETRIES:
        assert_solved(searched(M, k, geometry, seed), M, k)


@pytest.mark.parametrize("geometry", ["svd", *GEOMETRIES])
@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_extreme_scales(geometry, scale):
    M = noisy(7, 5, 2)
    solution = bf.balanced_approximation(scale * M, 2) if geometry == "svd" else searched(scale * M, 2, geometry, 0)
    assert_solved(solution, scale * M, 2)
    L, R = solution.pair
    np.testing.assert_allclose(L @ R.T / scale, np.linalg.multi_dot(singular_product(M, 2)), atol=1e-6)


def singular_product(M, k):
    L, R = singular_pair(M, np.arange(k), k)
    return L, np.eye(k), R.T


@pytest.mark.parametrize("geometry", GEOMETRIES)
@seeds(3, 10)
def test_random_starts_arrive(seed, geometry):
    M = noisy(60, 45, 5)
    solution = searched(M, 5, geometry, seed)
    assert_solved(solution, M, 5)
    assert solution.certificate.curvature >= -1e-8
    assert solution.certificate.stationarity <= 1e-8


@pytest.mark.few(1)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("places", [[1, 2, 3], [3, 4, 5], [0, 1], [2], []])
def test_a_start_at_a_saddle_ends_at_the_optimum(places, geometry):
    M = noisy(9, 7, 3)
    solution = searched(M, 3, geometry, 0, initial=singular_pair(M, np.array(places, dtype=int), 3))
    assert_solved(solution, M, 3)
    assert solution.history["escapes"][-1] >= 1 or geometry == "merged"  # where lost rank is only approached


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("wrong", [1, 2, 3])
@seeds(1, 3)
def test_the_local_minima_of_triples_are_left(seed, wrong, merged):
    """Singular pairs of which the last have the wrong sign, at which the square factor vanishes: Proposition 5."""
    M = noisy(9, 7, 3, seed=seed)
    U, s, Vt = np.linalg.svd(M, full_matrices=False)
    signs = np.where(np.arange(3) < 3 - wrong, 1.0, -1.0)
    s = np.where(signs > 0, s[:3], 1e-6 * s[0] if merged else 0.0)
    start = [U[:, :3], np.diag(s if merged else np.sqrt(s)), Vt[:3].T * signs]
    distance = TripleDistance(M, merged, lambda L, R: float(np.sum((L @ R.T - M) ** 2)))
    manifold = StiefelTriples(9, 7, 3, merged=merged)
    value, gradient, hessian = (
        pymanopt.function.numpy(manifold)(each) for each in (distance.value, distance.gradient, distance.hessian)
    )
    problem = pymanopt.Problem(
        manifold, value, euclidean_gradient=gradient, euclidean_hessian=hessian, preconditioner=manifold.preconditioner
    )
    found = bf.riemannian_minimum(problem, initial=start, rng=seed, tol=1e-12 if merged else 1e-8)  # small values hide in S
    assert found.status is Status.STATIONARY
    assert found.value == pytest.approx(least(M, 3), rel=1e-9)
    assert found.history["escapes"][-1] >= 1 or merged  # S is invertible, and its columns may turn of themselves


def test_a_start_at_the_optimum_stays():
    M = noisy(9, 7, 3)
    solution = bf.balanced_approximation(M, 3, method="riemannian", initial=singular_pair(M, np.arange(3), 3), rng=0)
    assert_solved(solution, M, 3)
    assert len(solution.history["value"]) <= 4


@pytest.mark.parametrize("places", [[1, 2, 3], [0, 1, 3], [0, 2]])
def test_a_saddle_cannot_pass_the_certificate(places):
    M = noisy(9, 7, 3)
    target = MatrixTarget(M, 3, np.random.default_rng(0))
    L, R = (part / np.sqrt(target.size) for part in singular_pair(M, np.array(places), len(places)))
    assert max(np.abs(part).max() for part in target.gradient(L, R)) < 1e-13
    solution = target.solution(L, R, "svd")
    assert solution.status is Status.GAP_OPEN
    assert solution.certificate.gap > 1e-2
    assert solution.certificate.lower_bound <= least(M, 3)


@given(st.integers(2, 6), st.integers(2, 6), st.integers(1, 4), st.integers(0, 10_000))
def test_the_bound_holds_for_any_columns(d1, d2, k, seed):
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((d1, d2)) * 10.0 ** rng.integers(-3, 3, d2)
    target = MatrixTarget(M, k, rng)
    expected = least(target.M, k)
    exact = singular_pair(target.M, np.arange(min(k, d1, d2)), min(k, d1, d2))[1]
    for R in [rng.standard_normal((d2, k)), exact, exact + 1e-6 * rng.standard_normal(exact.shape), exact[:, :1]]:
        bound = target._lower_bound(R)
        assert 0 <= bound <= expected * (1 + 1e-12) + 1e-30
    assert target._lower_bound(exact) == pytest.approx(expected, rel=1e-9, abs=1e-20)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize(("r", "k"), [(1, 2), (2, 5)])
def test_columns_that_are_not_needed_vanish(r, k, geometry):
    solution = searched(noisy(9, 7, r, noise=0.0), k, geometry, 0)
    s = np.linalg.svd(solution.pair[0], compute_uv=False)
    assert s[r] <= 1e-13 * s[0]


def test_ties_are_certified():
    assert_solved(bf.balanced_approximation(np.eye(6, 5), 2), np.eye(6, 5), 2)
    for geometry in GEOMETRIES:
        assert_solved(searched(np.eye(6, 5), 2, geometry, 0), np.eye(6, 5), 2)


def test_derivatives(rng):
    M = noisy(5, 4, 2)
    target = MatrixTarget(M, 2, rng)
    pair = [rng.standard_normal((5, 2)), rng.standard_normal((4, 2))]
    step = [rng.standard_normal((5, 2)), rng.standard_normal((4, 2))]
    E = pair[0] @ pair[1].T - target.M
    assert target.value(*pair) == pytest.approx(np.sum(E**2), rel=1e-12)
    np.testing.assert_allclose(target.gradient(*pair)[0], 2 * E @ pair[1], atol=1e-12)
    np.testing.assert_allclose(target.gradient(*pair)[1], 2 * E.T @ pair[0], atol=1e-12)
    h = 1e-6
    ends = [target.gradient(*(p + sign * h * s for p, s in zip(pair, step, strict=True))) for sign in (1, -1)]
    for found, up, down in zip(target.hessian(*pair, *step), *ends, strict=True):
        np.testing.assert_allclose(found, (up - down) / (2 * h), atol=1e-7)


def test_small_values_do_not_cancel(rng):
    L, R = rng.standard_normal((6, 2)), rng.standard_normal((5, 2))
    target = MatrixTarget(L @ R.T, 2, rng)
    L = L / target.size
    L = L * (1 + 1e-9)
    assert target.value(L, R) == pytest.approx(1e-18, rel=1e-5, abs=0)


def test_residuals_are_formed_in_blocks(rng):
    M = noisy(37, 5, 2)
    target = MatrixTarget(M, 2, rng)
    L, R = rng.standard_normal((37, 2)), rng.standard_normal((5, 2))
    expected = target.distance(L, R)
    target.rows = 4
    assert target.distance(L, R) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_zero(method):
    solution = bf.balanced_approximation(np.zeros((3, 4)), 2, method=method, rng=0)
    assert solution.status is Status.OPTIMAL
    assert solution.value == solution.certificate.lower_bound == solution.certificate.gap == 0
    assert not solution.matrix.any()
    assert solution.pair[0].shape == (3, 2)


@pytest.mark.parametrize("method", METHODS)
def test_large_matrices(method):
    M = noisy(2600, 200, 4)
    solution = bf.balanced_approximation(M, 4, method=method, rng=0, progress=False)
    assert_solved(solution, M, 4)


def test_the_same_seed_gives_the_same_answer():
    M = noisy(8, 6, 2)
    one, two, other = (bf.balanced_approximation(M, 2, method="riemannian", rng=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.layers[0], two.layers[0])
    assert not np.array_equal(one.layers[0], other.layers[0])


def test_history_and_callback():
    M, seen = noisy(8, 6, 5, 0.0), []
    solution = bf.balanced_approximation(M, 6, method="riemannian", rng=0, callback=seen.append)  # in several searches
    assert [record["value"] for record in seen] == list(solution.history["value"])
    assert list(solution.history["iteration"]) == list(range(len(seen)))
    assert np.all(np.diff(solution.history["seconds"]) >= 0)
    first = bf.balanced_approximation(noisy(8, 6, 2), 2, method="riemannian", rng=0)
    assert first.history["value"][-1] == pytest.approx(first.value)
    assert bf.balanced_approximation(M, 2).history == {}


@pytest.mark.parametrize("after", [1, 5])
def test_an_interrupt_returns_the_best_point_so_far(after):
    def callback(record):
        if record["iteration"] + 1 == after:
            raise KeyboardInterrupt

    M = noisy(8, 6, 2)
    solution = bf.balanced_approximation(M, 2, method="riemannian", rng=0, callback=callback)
    assert solution.status is Status.INTERRUPTED
    assert solution.value == pytest.approx(solution.history["value"].min())
    assert solution.certificate.lower_bound <= least(M, 2) * (1 + 1e-12)
    assert len(solution.history["value"]) == after


def test_bad_arguments():
    M = noisy(4, 3, 2)
    for value in [case.values[0] for case in not_numbers((4, 3)) + not_arrays(2)]:
        with pytest.raises(ValueError, match="M"):
            bf.balanced_approximation(value, 2)
    for value in BAD_COUNT:
        with pytest.raises(ValueError, match="rank"):
            bf.balanced_approximation(M, value)
    for value in BAD_RNG:
        with pytest.raises(ValueError, match="rng"):
            bf.balanced_approximation(M, 2, rng=value)
    with pytest.raises(ValueError, match="method is 'eigen'"):
        bf.balanced_approximation(M, 2, method="eigen")
    with pytest.raises(ValueError, match="initial"):
        bf.balanced_approximation(M, 2, initial=singular_pair(M, np.arange(2), 2))
    for value in [case.values[0] for case in bad((4, 2))]:
        with pytest.raises(ValueError, match=r"L|R|initial"):
            bf.balanced_approximation(M, 2, method="riemannian", initial=(value, np.ones((3, 2))))
    for value in [3.0, (np.ones((4, 2)),), (np.ones((4, 1)), np.ones((3, 1)))]:
        with pytest.raises(ValueError, match="initial"):
            bf.balanced_approximation(M, 2, method="riemannian", initial=value)
    for value in ("pair", None, 1):
        with pytest.raises(ValueError, match="geometry"):
            bf.balanced_approximation(M, 2, method="riemannian", geometry=value)
    with pytest.raises(ValueError, match="geometry is 'triples'; expected 'pairs' with method 'svd'"):
        bf.balanced_approximation(M, 2, geometry="triples")
