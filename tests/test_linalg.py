from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancedfact._linalg import frobenius, magnitude, nuclear, partial_products


@pytest.mark.parametrize("X", [np.zeros((2, 3)), np.empty((0, 3)), -np.zeros((1, 1))], ids=["zero", "empty", "minus zero"])
def test_the_magnitude_of_nothing_is_one(X):
    assert magnitude(X) == 1.0
    assert frobenius(X) == 0.0


def test_the_magnitude_is_the_largest_absolute_entry():
    assert magnitude(np.array([[1.0, -7.0], [2.0, 6.0]])) == 7.0


@pytest.mark.parametrize("c", [5e-324, 1e-300, 1e-150, 1.0, 1e150, 1e307])
def test_the_frobenius_norm_neither_overflows_nor_vanishes(c):
    assert frobenius(c * np.array([[3.0, 0.0], [0.0, -4.0]])) == pytest.approx(5 * c, rel=1e-14)


def test_norms_of_a_matrix_worked_by_hand():
    X = np.array([[0.0, 3.0, 0.0], [-4.0, 0.0, 0.0]])
    assert frobenius(X) == pytest.approx(5.0, rel=1e-15)
    assert nuclear(X) == pytest.approx(7.0, rel=1e-15)


def test_the_nuclear_norm_of_a_factored_matrix_is_at_most_half_the_squared_norms(rng):
    L, R = rng.standard_normal((5, 2)), rng.standard_normal((4, 2))
    assert nuclear(L @ R.T) <= (frobenius(L) ** 2 + frobenius(R) ** 2) / 2


@given(st.lists(st.integers(1, 4), min_size=2, max_size=7))
def test_partial_products_are_the_products_on_either_side_of_each_layer(widths):
    rng = np.random.default_rng(len(widths))
    layers = [rng.integers(-3, 4, (out, into)).astype(float) for into, out in pairwise(widths)]
    before, after = partial_products(layers)
    assert len(before) == len(after) == len(layers)
    assert before[0] is None
    assert after[-1] is None
    for j in range(len(layers)):
        B, C = np.eye(widths[0]), np.eye(widths[-1])
        for layer in layers[:j]:
            B = layer @ B
        for layer in reversed(layers[j + 1 :]):
            C = C @ layer
        np.testing.assert_array_equal(B if before[j] is None else before[j], B)
        np.testing.assert_array_equal(C if after[j] is None else after[j], C)
        assert j == 0 or before[j] is not None
        assert j == len(layers) - 1 or after[j] is not None
