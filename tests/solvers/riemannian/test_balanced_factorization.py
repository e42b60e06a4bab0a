import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.solution import Status
from tests.bad_input import BAD_RNG, not_arrays, not_numbers
from tests.solvers.factorizations import random_layers
from tests.solvers.riemannian.test_flattest_factorization import assert_factorization, conditioned, low_rank


def squares(layers):
    return sum(np.sum(layer**2) for layer in layers)


def least(M, depth):
    """The Schatten quasi-norm, from its definition."""
    s = np.linalg.svd(M, compute_uv=False)
    return depth * np.sum(s[s > 1e-9 * s[0]] ** (2 / depth))


@pytest.mark.parametrize("depth", [2, 3, 5, 10, 20])
@pytest.mark.parametrize(("d1", "d2", "r", "hidden", "condition"), [(6, 4, 3, 3, 10), (9, 7, 5, 6, 1e6), (12, 12, 12, 12, 1e3)])
def test_every_start_ends_at_balanced_layers(depth, d1, d2, r, hidden, condition):
    M, widths = conditioned(d1, d2, r, condition, depth), [d2, *[hidden] * (depth - 1), d1]
    for seed in range(3):
        solution = bf.balanced_factorization(M, widths, rng=seed, progress=False)
        assert_factorization(solution, M, widths)
        assert solution.value == pytest.approx(least(M, depth), rel=1e-12)
        assert solution.value == pytest.approx(squares(solution.layers), rel=1e-14)
        assert solution.status is Status.OPTIMAL
        assert solution.history["lower_bound"][-1] == pytest.approx(least(M, depth), rel=1e-11)
        for one, other in zip(solution.layers, solution.layers[1:], strict=False):
            assert np.linalg.norm(other.T @ other - one @ one.T) <= 1e-6 * squares([one])
        assert solution.certificate.balance <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("depth", [2, 3, 5, 10, 20])
@pytest.mark.parametrize(("d1", "d2", "r"), [(20, 15, 4), (15, 15, 15), (30, 40, 30)])
def test_twenty_of_twenty_starts_are_balanced(depth, d1, d2, r):
    M = conditioned(d1, d2, r, 1e6, 100 + depth)
    for seed in range(20):
        solution = bf.balanced_factorization(M, [d2, *[r] * (depth - 1), d1], rng=seed, progress=False)
        assert abs(solution.value / least(M, depth) - 1) <= 1e-12
        assert solution.status is Status.OPTIMAL


@given(st.integers(1, 5), st.integers(1, 5), st.integers(2, 5), st.integers(0, 2), st.integers(0, 10_000))
@settings(max_examples=15)
def test_any_shape_from_any_layers(d1, d2, depth, extra, seed):
    r = 1 + seed % min(d1, d2)
    M, widths = low_rank(d1, d2, r, seed), [d2, *[r + extra] * (depth - 1), d1]
    start = random_layers(M, depth, r + extra, np.random.default_rng(seed))
    solution = bf.balanced_factorization(M, widths, initial=start, progress=False)
    assert_factorization(solution, M, widths)
    assert solution.value == pytest.approx(bf.closed_forms.schatten_value(M, depth), rel=1e-9)
    assert solution.value <= squares(start) * (1 + 1e-12)
    assert solution.status.ok


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_scales(scale):
    M = low_rank(4, 3, 2)
    solution = bf.balanced_factorization(scale * M, [3, 2, 3, 2, 4], rng=0, progress=False)
    assert solution.value / scale**0.5 == pytest.approx(least(M, 4), rel=1e-11)
    np.testing.assert_allclose(solution.matrix / scale, M, atol=1e-12)
    assert solution.status is Status.OPTIMAL


def test_zero():
    solution = bf.balanced_factorization(np.zeros((3, 2)), [2, 1, 4, 3])
    assert [layer.shape for layer in solution.layers] == [(1, 2), (4, 1), (3, 4)]
    assert (solution.value, solution.status) == (0, Status.OPTIMAL)


def test_seed_history_callback_and_limit():
    M, seen = low_rank(4, 3, 2), []
    one, two, other = (bf.balanced_factorization(M, [3, 2, 2, 4], rng=s, callback=seen.append) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.layers[0], two.layers[0])
    assert not np.array_equal(one.layers[0], other.layers[0])
    assert [record["value"] for record in seen[: len(one.history["value"])]] == list(one.history["value"])
    assert np.all(np.diff(one.history["value"]) <= 1e-12)
    stopped = bf.balanced_factorization(M, [3, 2, 2, 4], rng=0, limits=bf.Limits(iterations=2))
    assert stopped.status is Status.LIMIT
    assert_factorization(stopped, M, [3, 2, 2, 4])
    assert stopped.certificate.lower_bound <= least(M, 3) * (1 + 1e-12) < stopped.value


def test_bad_arguments():
    M = low_rank(4, 3, 2)
    for value in [case.values[0] for case in not_numbers((4, 3)) + not_arrays(2)]:
        with pytest.raises(ValueError, match="M"):
            bf.balanced_factorization(value, [3, 2, 4])
    for value in [3, None, [3, 4], [3, 2, 5], [3, 0, 4], [3, 1, 4]]:
        with pytest.raises(ValueError, match="widths"):
            bf.balanced_factorization(M, value)
    for value in BAD_RNG:
        with pytest.raises(ValueError, match="rng"):
            bf.balanced_factorization(M, [3, 2, 4], rng=value)
    with pytest.raises(ValueError, match="tol"):
        bf.balanced_factorization(M, [3, 2, 4], tol=0.0)
    with pytest.raises(ValueError, match="initial"):
        bf.balanced_factorization(M, [3, 2, 4], initial=[np.eye(2, 3), np.eye(4, 2)])
