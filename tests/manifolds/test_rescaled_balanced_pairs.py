import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.manifolds import BalancedPairs, RescaledBalancedPairs, check_manifold
from tests import bad_input

SIZES = st.integers(1, 4)


@given(SIZES, SIZES, st.integers(1, 5), st.integers(0, 30))
def test_passes_the_conformance_check(d1, d2, k, seed):
    rng = np.random.default_rng(seed)
    D1, D2 = (np.eye(d) + 0.2 * rng.standard_normal((d, d)) for d in (d1, d2))
    report = check_manifold(RescaledBalancedPairs(D1, D2, k, rng=seed), seed)
    assert report.ok, str(report)


def test_identities_give_balanced_pairs():
    plain, rescaled = BalancedPairs(4, 3, 2, rng=1), RescaledBalancedPairs(np.eye(4), np.eye(3), 2, rng=1)
    point = plain.random_point()
    assert np.allclose(point[0], rescaled.random_point()[0])
    vector = plain.random_tangent_vector(point)
    assert np.allclose(vector[0], rescaled.projection(point, vector)[0])
    assert rescaled.dim == plain.dim
    assert str(rescaled).startswith("Rescaled-balanced")


def test_flat_pairs_are_points(rng):
    A = bf.measurements.gaussian(30, (5, 4), rng=rng)
    L, R = bf.closed_forms.flat_pair(rng.standard_normal((5, 4)), A)
    manifold = RescaledBalancedPairs(A.D1, A.D2, 4)
    assert manifold.residual([L, R]) < 1e-13
    again = manifold.nearest(L, R)
    assert np.allclose(again[0], L)
    assert np.allclose(again[1], R)


@pytest.mark.parametrize(
    "bad", [*bad_input.not_arrays(2), *bad_input.not_numbers((3, 3)), pytest.param(np.ones((3, 2)), id="tall")]
)
def test_bad_rescalings_are_refused(bad):
    with pytest.raises(ValueError, match="D1"):
        RescaledBalancedPairs(bad, np.eye(3), 2)
    with pytest.raises(ValueError, match="D2"):
        RescaledBalancedPairs(np.eye(3), bad, 2)


@pytest.mark.parametrize("singular", [np.zeros((2, 2)), np.diag([1.0, 0.0]), np.ones((2, 2))])
def test_singular_rescalings_are_refused(singular):
    with pytest.raises(ValueError, match="D2 is singular"):
        RescaledBalancedPairs(np.eye(3), singular, 2)
