"""Columns that a penalty presses to zero, against the minimisation in one coefficient."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from balancedfact.solvers.nuclear._columns import leading_block, needed
from balancedfact.solvers.nuclear._problem import balanced
from tests import maps


@pytest.mark.parametrize("build", [maps.dense, maps.entries, maps.rank_one])
def test_a_column_is_needed_where_its_best_coefficient_is_positive(build, rng):
    kept = dropped = 0
    for penalty in np.geomspace(0.1, 10.0, 20):
        A, _ = build(rng, 5, 4, 12, "none")
        L, R, s = balanced(rng.standard_normal((5, 3)), rng.standard_normal((4, 3)))
        b = A(L @ R.T) + 3 * rng.standard_normal(A.m)
        found = needed(A, L, R, s, (b - A(L @ R.T)) / penalty, penalty)[2]
        best = []
        for k in range(3):
            u, v = L[:, k] / np.sqrt(s[k]), R[:, k] / np.sqrt(s[k])
            image, rest = A(np.outer(u, v)), b - A(L @ R.T) + s[k] * A(np.outer(u, v))

            def objective(c, image=image, rest=rest):
                return 0.5 * np.sum((rest - c * image) ** 2) + penalty * c

            best.append(minimize_scalar(objective, bounds=(0, 100), method="bounded", options={"xatol": 1e-9}).x)
        clear = [abs(c) > 1e-6 for c in best]
        np.testing.assert_array_equal(np.isin(s, found), clear)
        kept, dropped = kept + sum(clear), dropped + 3 - sum(clear)
    assert kept
    assert dropped


@pytest.mark.parametrize("size", [1e-150, 1.0, 1e150])
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (70, 70), (5, 9)])
@pytest.mark.parametrize("rank", [0, 3, 55])
def test_the_leading_block_is_that_of_the_deflated_matrix(shape, rank, size, rng):
    rank = min(rank, min(shape) - 2)
    U, V = (np.linalg.qr(rng.standard_normal((d, rank)))[0] for d in shape)
    S = size * rng.standard_normal(shape)
    S[:, 0] = 0.0
    outside = S - U @ (U.T @ S)
    outside -= outside @ V @ V.T
    exact = np.linalg.svd(outside, compute_uv=False)
    none = np.zeros((min(shape), 0))
    for before in (none, leading_block(S, 4, U, V, none, rng)[3]):
        left, sigma, right, after = leading_block(S, 4, U, V, before, rng)
        count = sigma.size
        assert count == min(4, min(shape))
        np.testing.assert_allclose(sigma[:2], exact[:2], rtol=1e-3)
        assert np.all(sigma <= exact[:count] * (1 + 1e-12) + 1e-14 * exact[0])
        np.testing.assert_allclose(left.T @ left, np.eye(count), atol=1e-12)
        seen = sigma > 1e-3 * exact[0]
        np.testing.assert_allclose((right.T @ right)[np.ix_(seen, seen)], np.eye(count)[np.ix_(seen, seen)], atol=1e-9)
        np.testing.assert_allclose(np.diag(left.T @ outside @ right), sigma, rtol=1e-9, atol=1e-14 * exact[0])
        assert after.shape == (min(shape), count)


def test_the_leading_block_of_a_matrix_of_low_rank_or_none_is_no_larger_than_it(rng):
    nothing = np.zeros((80, 0)), np.zeros((60, 0))
    S = rng.standard_normal((80, 2)) @ rng.standard_normal((2, 60))
    _, sigma, _, _ = leading_block(S, 5, *nothing, np.zeros((60, 0)), rng)
    np.testing.assert_allclose(sigma[:2], np.linalg.svd(S, compute_uv=False)[:2], rtol=1e-12)
    np.testing.assert_allclose(sigma[2:], 0, atol=1e-6 * sigma[0])
    assert not leading_block(np.zeros((80, 60)), 5, *nothing, np.zeros((60, 0)), rng)[1].any()
