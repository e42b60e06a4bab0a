import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.manifolds._exponential import exponential


@given(st.integers(1, 6), st.floats(-3, 1.2), st.integers(0, 1000))
def test_agrees_with_scipy(size, exponent, seed):
    A = 10**exponent * np.random.default_rng(seed).standard_normal((size, size))
    expected = scipy.linalg.expm(A)
    assert np.abs(exponential(A) - expected).max() <= 1e-11 * np.abs(expected).max()


@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e-16])
def test_small_matrices(scale):
    assert np.array_equal(exponential(scale * np.ones((3, 3))), np.eye(3) + scale * np.ones((3, 3)))


def test_rotations_and_inverses(rng):
    A = 5 * rng.standard_normal((4, 4))
    Q = exponential(A - A.T)
    assert np.abs(Q.T @ Q - np.eye(4)).max() < 1e-13
    assert np.allclose(exponential(np.diag([1.0, -2.0])), np.diag(np.exp([1.0, -2.0])), rtol=1e-14)
