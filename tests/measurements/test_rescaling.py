"""Roots of moments, against sixty digits."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancedfact.measurements._rescaling import FullRoot, rank_at_most, triangle


def precise_root(factor):
    """The root of ``factor.T @ factor`` and its eigenvalues, descending, by an eigendecomposition in sixty digits."""
    with mpmath.workdps(60):
        F = mpmath.matrix(factor.tolist())
        values, vectors = mpmath.eigsy(F.T * F)
        roots = mpmath.diag([mpmath.sqrt(max(value, 0)) for value in values])
        root = vectors * roots * vectors.T
        d = factor.shape[1]
        dense = np.array([[float(root[p, q]) for q in range(d)] for p in range(d)])
        return dense, np.array(sorted((float(roots[k, k]) for k in range(d)), reverse=True))


@pytest.mark.parametrize("rows", [4, 9])
@pytest.mark.parametrize("spread", [0, 4, 7])
def test_a_root_keeps_all_digits_of_badly_scaled_columns(rows, spread, rng):
    factor = rng.standard_normal((rows, 4)) * 10.0 ** -np.linspace(0, spread, 4)
    found, (dense, values) = FullRoot(factor), precise_root(factor)
    assert found.rank == 4
    np.testing.assert_allclose(found.eigen[0], values, rtol=1e-12)
    np.testing.assert_allclose(found.dense(), dense, atol=1e-14 * values[0])
    L = rng.standard_normal((4, 2))
    np.testing.assert_allclose(found.times(L), dense @ L, atol=1e-13 * values[0])
    T = found.inverse()
    whitened = factor @ T
    np.testing.assert_allclose(whitened.T @ whitened, np.eye(4), atol=1e-9)


def test_directions_that_no_row_sees_are_left_out(rng):
    V = np.linalg.qr(rng.standard_normal((5, 5)))[0][:, :3]
    factor = rng.standard_normal((8, 3)) @ V.T
    found = FullRoot(factor)
    assert found.rank == 3
    np.testing.assert_allclose(found.dense(), precise_root(factor)[0], atol=1e-13)
    T = found.inverse()
    np.testing.assert_allclose((factor @ T).T @ (factor @ T), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(T, V @ (V.T @ T), atol=1e-12)  # within the range
    assert FullRoot(np.zeros((3, 2))).rank == 0
    np.testing.assert_array_equal(FullRoot(np.zeros((3, 2))).dense(), np.zeros((2, 2)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 5), st.integers(1, 9))
@settings(deadline=None)
def test_a_triangle_has_the_gram_matrix_of_all_rows(seed, n, d, length):
    N = np.random.default_rng(seed).standard_normal((n, d)) * 10.0 ** -np.arange(d)
    R = triangle(N[start : start + length] for start in range(0, n, length))
    assert R.shape[0] <= max(d, min(n, length))
    size = np.linalg.norm(N, axis=0)
    np.testing.assert_allclose(R.T @ R / np.outer(size, size), N.T @ N / np.outer(size, size), atol=1e-13)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 6), st.integers(0, 6))
def test_ranks_are_exact_where_they_are_small(seed, n, d, k):
    rng = np.random.default_rng(seed)
    N = rng.integers(-3, 4, (n, k)) @ rng.integers(-3, 4, (k, d))
    assert rank_at_most(N.astype(float)) == np.linalg.matrix_rank(N)
    scales = 2.0 ** rng.integers(-30, 30, (n, 1))
    assert rank_at_most(N * scales) == np.linalg.matrix_rank(N)


def test_a_difference_below_rounding_counts_for_the_rank():
    rows = np.array([[1.0, 1.0], [1.0, np.nextafter(1.0, 2.0)]])
    assert rank_at_most(rows) == 2
