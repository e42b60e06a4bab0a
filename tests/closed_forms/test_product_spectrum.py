import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.closed_forms._product_spectrum import log2_singular_values
from tests.closed_forms.exact_product import exact_log2_singular_values


@pytest.mark.parametrize(("size", "length"), [(1, 3), (2, 1), (2, 2), (2, 100), (3, 3), (3, 100), (4, 2), (4, 30)])
def test_powers_have_the_exact_singular_values(size, length, rng):
    factor = rng.standard_normal((size, size))
    exact = exact_log2_singular_values([factor] * length)
    np.testing.assert_allclose(log2_singular_values([factor] * length), exact, atol=1e-13 * length * np.linalg.cond(factor))


@pytest.mark.parametrize("length", [2, 10, 60])
def test_products_of_different_matrices_have_the_exact_singular_values(length, rng):
    factors = list(rng.standard_normal((length, 3, 3)))
    exact = exact_log2_singular_values(factors)
    condition = sum(np.linalg.cond(factor) for factor in factors)
    np.testing.assert_allclose(log2_singular_values(factors), exact, atol=1e-14 * condition)


@pytest.mark.parametrize("length", [2, 5, 50])
def test_graded_factors_have_the_exact_singular_values(length, rng):
    factor = np.diag([1e-6, 1.0, 1e-3]) @ rng.standard_normal((3, 3))
    found, exact = log2_singular_values([factor] * length), exact_log2_singular_values([factor] * length)
    np.testing.assert_allclose(found, exact, atol=1e-8 * length)
    np.testing.assert_allclose(found[:2], exact[:2], atol=1e-11 * length)


@pytest.mark.parametrize("factor", [np.diag([1e-6, 1.0, 1e-3]), np.diag([1.0, 1.0, 0.999]), np.eye(3), np.eye(3)[[1, 2, 0]]])
@pytest.mark.parametrize("length", [1, 7, 100])
def test_normal_factors_in_any_order(factor, length):
    expected = length * np.sort(np.log2(np.linalg.svd(factor, compute_uv=False)))[::-1]
    np.testing.assert_allclose(log2_singular_values([factor] * length), expected, atol=1e-12 * length)


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_orthogonally_disguised_diagonal_factors(size, length, seed):
    rng = np.random.default_rng(seed)
    bases = [np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(length + 1)]
    values = np.exp2(-rng.integers(0, 3, (length, size)) * rng.random())
    factors = [after * value @ before.T for before, after, value in zip(bases[:-1], bases[1:], values, strict=True)]
    expected = np.sort(np.log2(values).sum(axis=0))[::-1]
    np.testing.assert_allclose(log2_singular_values(factors), expected, atol=1e-11 * length)


@pytest.mark.parametrize(("size", "gap"), [(16, 0.5), (16, 4.0), (16, 30.0), (100, 12.0)])
def test_an_even_chain_of_values_is_parted_before_it_is_lost(size, gap, rng):
    """Neighbours at a moderate distance, over a wider range than that of a number."""
    Q, levels = np.linalg.qr(rng.standard_normal((size, size)))[0], -gap * np.arange(float(size))
    found = log2_singular_values([Q * np.exp2(levels / 100) @ Q.T] * 100)
    np.testing.assert_allclose(found, levels, atol=1e-11 * np.exp2(-levels[-1] / 100))


def test_close_values_in_a_large_matrix():
    """Many sweeps would be needed to part neighbours: they are left together."""
    rng = np.random.default_rng(3)
    values = np.exp2(-np.linspace(0, 30, 40))
    bases = [np.linalg.qr(rng.standard_normal((40, 40)))[0] for _ in range(2)]
    found = log2_singular_values([bases[0] * values @ bases[1].T, bases[1] * values @ bases[0].T])
    np.testing.assert_allclose(found[:20], 2 * np.log2(values[:20]), atol=1e-9)
    np.testing.assert_allclose(found, 2 * np.log2(values), atol=1e-5)


def test_zeros_are_minus_infinity():
    assert log2_singular_values([np.zeros((2, 2))] * 3).tolist() == [-np.inf, -np.inf]
    found = log2_singular_values([np.diag([1.0, 0.0])] * 10)
    assert found[0] == pytest.approx(0, abs=1e-12)
    assert found[1] < -500
