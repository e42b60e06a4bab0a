"""Problems of a million measurements: proved, recovered, and without a dense array of the size of the matrix."""

import tracemalloc

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.measurements import Entries, RankOne
from balancedfact.solvers.nuclear._hold_out import largest_penalty

pytestmark = pytest.mark.slow

SHAPE, RANK, COUNT = (6000, 5000), 5, 1_000_000


def completion(noise):
    rng = np.random.default_rng(0)
    code = rng.permutation(np.unique(rng.integers(0, SHAPE[0] * SHAPE[1], COUNT)))
    A = Entries(*np.divmod(code, SHAPE[1]), SHAPE)
    L, R = (rng.standard_normal((size, RANK)) for size in SHAPE)
    e = noise * np.sqrt(RANK) * rng.standard_normal(A.m)
    return A, A.forward_factored(L, R) + e, e, (L, R)


def hidden(solution, truth):
    rng = np.random.default_rng(1)
    rows, cols = (rng.integers(0, size, 200_000) for size in SHAPE)
    expected = np.einsum("ij,ij->i", truth[0][rows], truth[1][cols])
    return np.sqrt(np.mean((solution.predict(rows, cols) - expected) ** 2))


@pytest.fixture(scope="module")
def noisy():
    """Entries, data, the matrix behind them, a penalty, the solution and the bytes that it took."""
    A, b, e, truth = completion(0.1)
    penalty = 1.1 * largest_penalty(A, e, np.random.default_rng(0))
    bf.flat_minimum(A, b, penalty=30 * penalty, tol=0.5, rng=0)  # compiles
    tracemalloc.start()
    solution = bf.flat_minimum(A, b, penalty=penalty, tol=1e-3, rng=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return A, b, truth, penalty, solution, peak


def test_noisy_entries_are_completed_to_the_noise_level_and_proved(noisy):
    *_, truth, _, solution, peak = noisy
    assert solution.status.ok
    assert solution.certificate.gap <= 1e-3
    assert "randomised Lanczos" in solution.certificate.proof
    assert solution.pair[0].shape[1] == RANK
    sigma = 0.1 * np.sqrt(RANK)
    assert np.hypot(hidden(solution, truth), sigma) < 1.15 * sigma
    assert peak < 8 * SHAPE[0] * SHAPE[1]  # less than one dense array, of which 4.2 per cent are data


def test_exact_entries_are_completed_to_rounding_error():
    A, b, _, truth = completion(0.0)
    solution = bf.flat_minimum(A, b, rng=0)
    assert solution.status.ok
    assert hidden(solution, truth) <= 1e-12 * np.sqrt(RANK)


def test_the_order_of_the_entries_does_not_matter(noisy):
    A, b, _, penalty, one, _ = noisy
    order = np.random.default_rng(2).permutation(A.m)
    other = bf.flat_minimum(A.select(order), b[order], penalty=penalty, tol=1e-3, rng=0)
    np.testing.assert_allclose(other.certificate.dual, one.certificate.dual[order], atol=1e-10 * np.abs(b).max())
    assert other.value == pytest.approx(one.value, rel=1e-12)


def test_many_rank_one_measurements():
    rng = np.random.default_rng(0)
    d, m = 400, 20_000
    A = RankOne(rng.standard_normal((m, d)), rng.standard_normal((m, d)))
    L, R = rng.standard_normal((d, 3)), rng.standard_normal((d, 3))
    b = A.forward_factored(L, R)
    solution = bf.flat_minimum(A, b, rng=0)
    assert solution.status.ok
    assert np.linalg.norm(solution.matrix - L @ R.T) <= 1e-11 * np.linalg.norm(L @ R.T)
    noise = 0.1 * np.std(b) * rng.standard_normal(m)
    noisy = bf.flat_minimum(A, b + noise, penalty=1.1 * largest_penalty(A, noise, rng), tol=1e-4, rng=0)
    assert noisy.certificate.gap <= 1e-4
    assert np.linalg.norm(noisy.matrix - L @ R.T) <= 0.1 * np.linalg.norm(L @ R.T)
