import numpy as np
import pytest

from balancedfact._linalg import frobenius, magnitude, scaled_product


@pytest.mark.parametrize("X", [np.zeros((2, 3)), np.empty((0, 3)), -np.zeros((1, 1))], ids=["zero", "empty", "minus zero"])
def test_the_magnitude_of_nothing_is_one(X):
    assert magnitude(X) == 1.0
    assert frobenius(X) == 0.0


def test_the_magnitude_is_the_largest_absolute_entry():
    assert magnitude(np.array([[1.0, -7.0], [2.0, 6.0]])) == 7.0


@pytest.mark.parametrize("c", [5e-324, 1e-300, 1e-150, 1.0, 1e150, 1e307])
def test_the_frobenius_norm_neither_overflows_nor_vanishes(c):
    assert frobenius(c * np.array([[3.0, 0.0], [0.0, -4.0]])) == pytest.approx(5 * c, rel=1e-14)


def test_the_norm_of_a_matrix_worked_by_hand():
    assert frobenius(np.array([[0.0, 3.0, 0.0], [-4.0, 0.0, 0.0]])) == pytest.approx(5.0, rel=1e-15)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((3.0, -2.0, 0.5), -3.0),
        ((1e300, 1e300, 1e-300, 1e-300, 7.0), 7.0),
        ((1e-300, 1e-300, 1e300, 1e300, 7.0), 7.0),
        ((1e-200, 5e-324, 1e300, 1e300), 5e-324 * 1e300 * 1e100),
        ((0.0, 1e300, 1e300), 0.0),
        ((1e300, 1e300), np.inf),
        ((1e-300, 1e-300), 0.0),
    ],
)
def test_a_product_is_as_large_as_it_is(factors, expected):
    assert scaled_product(*factors) == pytest.approx(expected, rel=1e-15, abs=0)
