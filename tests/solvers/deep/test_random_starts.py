"""The flattest network from random layers, without a convex problem on the way."""

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.measurements import gaussian
from balancedfact.solution import Status


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("m", "noise"), [(14, 0.0), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((26, 0.0), (20, 0.3)))]
)
def test_random_layers_lead_to_the_minimum_that_the_convex_starts_find(depth, m, noise):
    """Isolated matrices of low rank (m = 26) and regular minima alike; no start knows of a convex problem."""
    rng = np.random.default_rng(3)
    A = gaussian(m, (6, 6), rng)
    truth = rng.standard_normal((6, 1)) @ rng.standard_normal((1, 6)) + noise * rng.standard_normal((6, 6))
    known = bf.flat_network(A, A(truth), depth, rng=0, bound="quick")
    for seed in range(2):
        found = bf.flat_network(A, A(truth), depth, rng=seed, method="riemannian", bound="quick")
        assert found.value == pytest.approx(known.value, rel=1e-10)
        assert found.status in (Status.STATIONARY, Status.OPTIMAL)
        assert "1 starts" in found.message or found.status is Status.OPTIMAL
        assert found.value >= found.certificate.lower_bound * (1 - 1e-12)
    layers = [rng.standard_normal((6, 6)) for _ in range(depth)]
    given = bf.flat_minimum(A, A(truth), depth, method="riemannian", initial=layers)
    assert given.value == pytest.approx(known.value, rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3, 5])
@pytest.mark.parametrize(("m", "starts"), [(100, 8), (250, 2)])
def test_random_starts_end_at_one_network(depth, m, starts):
    rng = np.random.default_rng(0)
    A = gaussian(m, (20, 20), rng)
    b = A(rng.standard_normal((20, 3)) @ rng.standard_normal((3, 20)))
    values = [bf.flat_network(A, b, depth, rng=seed, method="riemannian", bound="quick").value for seed in range(starts)]
    np.testing.assert_allclose(values, bf.flat_network(A, b, depth, rng=0, bound="quick").value, rtol=1e-8)


@pytest.mark.parametrize("bad", ["splitting", 3, b"riemannian", bf.solvers.Splitting()])
@pytest.mark.parametrize("solve", [bf.flat_network, bf.flat_minimum])
def test_other_methods_are_refused(bad, solve):
    with pytest.raises(ValueError, match=r"method is .*; expected None or 'riemannian' for depth 3"):
        solve(gaussian(10, (4, 4), 0), np.ones(10), 3, method=bad)


def test_a_rank_limit_and_a_seed(rng):
    A = gaussian(13, (4, 4), rng)
    b = A(rng.standard_normal((4, 2)) @ rng.standard_normal((2, 4)))
    one, two = (bf.flat_network(A, b, 3, rng=1, method="riemannian", bound="quick", max_rank=2) for _ in range(2))
    np.testing.assert_array_equal(one.matrix, two.matrix)
    assert one.layers[0].shape[0] <= 2
    assert one.certificate.feasibility <= 1e-12
