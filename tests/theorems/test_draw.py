"""The instances and slow computations that the claims are compared with."""

import numpy as np
import pytest

from balancedfact import measurements
from balancedfact.theorems import _draw


def test_second_derivative_is_exact_to_the_fifth_degree(rng):
    coefficients = rng.standard_normal(6)
    assert _draw.second_derivative(lambda t: np.polyval(coefficients, t)) == pytest.approx(2 * coefficients[3], abs=1e-12)


def test_random_factorizations_multiply_to_the_matrix(rng):
    M = rng.standard_normal((3, 5))
    for depth in (2, 3, 5):
        for width in (3, 6):
            layers = _draw.factorization(rng, M, depth, width)
            assert [layer.shape[0] for layer in layers] == [width] * (depth - 1) + [3]
            np.testing.assert_allclose(_draw.product(layers), M, atol=1e-9)


def test_near_isometry_has_the_constant_it_returns(rng):
    A, delta = _draw.near_isometry(rng, (4, 3), 1, 0.5, unseen=2)
    assert delta < 0.5
    for _ in range(200):
        X = np.outer(rng.standard_normal(4), rng.standard_normal(3))
        assert abs(np.sum(A(X) ** 2) / A.m / np.sum(X**2) - 1) <= delta
    low, _ = measurements.isometry_constant(A, 1, rng=0).delta
    assert low == pytest.approx(delta, rel=1e-2)


def test_near_isometry_refuses_the_impossible(rng):
    with pytest.raises(RuntimeError, match="isometry constant below 1e-09"):
        _draw.near_isometry(rng, (2, 2), 1, 1e-9, unseen=0)
