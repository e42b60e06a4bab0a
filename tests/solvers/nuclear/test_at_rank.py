import numpy as np
import pytest

import balancedfact as bf
from balancedfact.measurements import Entries, gaussian
from balancedfact.solvers.nuclear._reweighted import _followed, _TangentSpace, reweighted

pytestmark = pytest.mark.filterwarnings("error")


def instance(rng, shape, rank, condition, oversampling):
    """Exact entries of a matrix with log-spaced singular values; every row and column is seen `rank` times."""
    m = int(oversampling * rank * (sum(shape) - rank))
    while True:
        rows, cols = np.divmod(rng.choice(shape[0] * shape[1], m, replace=False), shape[1])
        if min(np.bincount(rows, minlength=shape[0]).min(), np.bincount(cols, minlength=shape[1]).min()) >= rank:
            break
    U, V = (np.linalg.qr(rng.standard_normal((d, rank)))[0] for d in shape)
    X = U * np.logspace(0, -np.log10(condition), rank) @ V.T
    A = Entries(rows, cols, shape)
    return A, A(X), X


@pytest.mark.few(1)
@pytest.mark.parametrize(("condition", "oversampling"), [(10, 1.8), (1e5, 2.2), (1e8, 3.0)])
@pytest.mark.parametrize("shape", [(60, 80), (90, 60)])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_matrix_of_given_rank_is_found_from_few_entries_and_proved_to_be_determined(condition, oversampling, shape, seed):
    A, b, X = instance(np.random.default_rng(seed), shape, 3, condition, oversampling)
    solution = bf.flat_minimum(A, b, max_rank=3, rng=0)
    assert solution.method == "at the rank"
    assert np.linalg.norm(solution.matrix - X) <= 1e-8 * np.linalg.norm(X)
    certificate = solution.certificate
    assert 0 < certificate.injectivity <= certificate.injectivity_above <= 1
    assert "determine it locally" in solution.message
    assert solution.status in (bf.Status.OPTIMAL, bf.Status.RANK_LIMITED)


def test_dense_measurements_go_straight_to_the_rank_too(rng):
    truth = rng.standard_normal((15, 2)) @ rng.standard_normal((2, 12))
    A = gaussian(90, truth.shape, rng)
    solution = bf.norm_minimum(A, A(truth), max_rank=2, rng=0)
    assert solution.method == "at the rank"
    np.testing.assert_allclose(solution.matrix, truth, atol=1e-8)
    assert solution.certificate.injectivity > 0


def test_a_limit_above_the_rank_finds_the_rank(rng):
    A, b, X = instance(rng, (60, 50), 2, 10, 5.0)
    solution = bf.flat_minimum(A, b, max_rank=4, rng=0)
    assert solution.rank == 2
    assert np.linalg.norm(solution.matrix - X) <= 1e-8 * np.linalg.norm(X)


def test_where_nothing_of_the_rank_fits_the_convex_problem_is_solved_as_before(rng):
    A, b, _ = instance(rng, (20, 18), 3, 2, 2.5)
    solution = bf.flat_minimum(A, b, max_rank=2, rng=0)
    assert solution.status is bf.Status.RANK_EXCLUDED
    assert np.isnan(solution.certificate.injectivity)


def test_a_named_method_asks_for_the_convex_bound(rng):
    A, b, X = instance(rng, (20, 18), 2, 2, 3.0)
    solution = bf.flat_minimum(A, b, max_rank=2, method="factored", rng=0)
    assert solution.method != "at the rank"
    assert np.isnan(solution.certificate.injectivity)


def test_the_same_seed_gives_the_same_pair():
    A, b, _ = instance(np.random.default_rng(3), (40, 30), 2, 100, 2.0)
    once, again = (reweighted(A, b, 2, np.random.default_rng(1)) for _ in range(2))
    assert all(np.array_equal(p, q) for p, q in zip(once, again, strict=True))


@pytest.mark.slow
def test_where_the_smoothing_falls_too_fast_it_is_made_to_fall_slowly():
    A, b, X = instance(np.random.default_rng(15), (200, 200), 5, 10, 1.3)
    fast, _ = _followed(A, b, 5, np.random.default_rng(0), 0.85)
    L, R = reweighted(A, b, 5, np.random.default_rng(0))
    assert fast > 1e-4
    assert np.linalg.norm(L @ R.T - X) <= 1e-9 * np.linalg.norm(X)


def test_the_enclosure_is_saved_with_the_solution(rng, tmp_path):
    A, b, _ = instance(rng, (30, 25), 2, 3, 3.0)
    solution = bf.flat_minimum(A, b, max_rank=2, rng=0)
    solution.save(tmp_path / "found.npz")
    loaded = bf.Solution.load(tmp_path / "found.npz")
    assert loaded.certificate.injectivity == solution.certificate.injectivity > 0


def test_images_of_the_tangent_space_and_back_are_adjoint(rng):
    A = bf.measurements.bernoulli_mask((6, 5), 0.7, rng)
    U, V = np.linalg.qr(rng.standard_normal((6, 2)))[0], np.linalg.qr(rng.standard_normal((5, 2)))[0]
    space, y = _TangentSpace(A, U, V), rng.standard_normal(A.m)
    M, C, B = rng.standard_normal((2, 2)), rng.standard_normal((6, 2)), rng.standard_normal((5, 2))
    C, B = C - U @ (U.T @ C), B - V @ (V.T @ B)
    x = np.vstack([M, C, B])
    np.testing.assert_allclose(space.image(x), A(U @ M @ V.T + C @ V.T + U @ B.T), atol=1e-13)
    back = space.back(y)
    assert np.vdot(back, x) == pytest.approx(y @ space.image(x), rel=1e-12)
    np.testing.assert_allclose(U.T @ back[2:8], 0, atol=1e-13)  # its parts are orthogonal, as those of `x`
    np.testing.assert_allclose(V.T @ back[8:], 0, atol=1e-13)
