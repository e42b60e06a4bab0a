import numpy as np
import pytest

import balancedfact as bf
from balancedfact.certification.deep._lifted_bound import _in_gauge, _outer_products, _terms, _traces, lifted_bound
from balancedfact.measurements import Dense, Entries, gaussian, isometry_constant
from balancedfact.theorems._draw import orbit

pytestmark = pytest.mark.filterwarnings("error")


def test_three_layers_are_proved_optimal():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((3, 1)) @ rng.standard_normal((1, 3))
    A = gaussian(6, (3, 3), rng)
    solution = bf.flat_network(A, A(truth), 3, rng=0)
    assert solution.status is bf.Status.OPTIMAL
    assert 0 < solution.certificate.gap < 1e-3
    assert "moments" in solution.message


DEEPER = [4, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (5, 12))]


@pytest.mark.parametrize("depth", DEEPER)
def test_deeper_networks_are_proved_optimal(depth):
    rng = np.random.default_rng(0)
    A = gaussian(7, (3, 3), rng)
    solution = bf.flat_network(A, A(np.outer(rng.standard_normal(3), rng.standard_normal(3))), depth, rng=0)
    assert solution.status is bf.Status.OPTIMAL
    assert 0 < solution.certificate.gap < 1e-3
    assert "moments" in solution.message


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3, 4, 6])
def test_no_network_is_below_the_bound(depth, rng):
    A = gaussian(8 if depth > 3 else 7, (3, 4), rng)
    for rank in (1, 3):
        E = rng.standard_normal((3, rank)) @ rng.standard_normal((rank, 4))
        b = A(E)
        found = bf.flat_network(A, b, depth, rng=rng, bound="quick")
        y = bf.flat_minimum(A, b).certificate.dual
        bound = lifted_bound(A, b, y, found.layers, rng, work=8e7 if depth == 3 else 2e9)
        assert 0.5 * found.value < bound <= found.value
        # A worse network known beforehand, of another matrix, leaves the bound valid.
        worse = orbit(rng, E + rng.standard_normal((3, 4)), 3, depth, 1.0)
        assert lifted_bound(A, b, y, worse, rng, work=8e7 if depth == 3 else 2e9) <= found.value * (1 + 1e-9)


def test_no_isometry_no_bound(rng):
    A = Entries([0, 0, 1], [0, 1, 1], (2, 2))
    layers = [np.eye(2)] * 3
    assert lifted_bound(A, np.ones(3), np.ones(3), layers, rng) == 0
    few = gaussian(2, (4, 4), rng)
    assert lifted_bound(few, np.ones(2), np.ones(2), [np.eye(4)] * 3, rng) == 0


def test_a_network_that_says_nothing_proves_nothing(rng):
    A = gaussian(8, (3, 3), rng)
    b = A(np.eye(3))
    y = bf.flat_minimum(A, b).certificate.dual
    assert lifted_bound(A, b, y, [np.zeros((3, 3))] * 4, rng) == 0
    assert lifted_bound(A, b, y, [-np.eye(3), *[np.eye(3)] * 3], rng) == 0


@pytest.mark.parametrize("depth", [3, 4, 5, 7])
def test_terms_are_those_of_the_network(depth, rng):
    """The product of all terms in their gauges is that of the shares of the trace, and the traces are within their bound."""
    shape = d1, d2 = 3, 2
    A = gaussian(5, shape, rng)
    E = rng.standard_normal(shape)
    layers = orbit(rng, E, 2, depth, 0.3)
    white = A.whitened()
    stack = white.map.rotated(np.eye(d1), np.eye(d2))
    b = A(2.0**depth * E) / white.scale  # the data of twice every layer
    outer = _outer_products(layers, np.eye(d1) @ white.left, np.eye(d2) @ white.right)
    terms = _terms(stack, b, outer)
    shares = bf.curvature.layer_traces([2 * W for W in layers], A) / (2 * white.scale**2)
    known = np.prod([term.known**term.layers for term in terms])
    assert sum(term.layers for term in terms) == depth - 2
    if depth < 6:
        assert known == pytest.approx(np.prod(shares), rel=1e-9)
    else:
        assert known <= np.prod(shares) * (1 + 1e-9)


@pytest.mark.parametrize("depth", [3, 4, 5, 7])
def test_the_traces_of_networks_are_within_their_bound(depth, rng):
    shape = d1, d2 = 3, 2
    A = gaussian(5, shape, rng)
    E = rng.standard_normal(shape)
    white = A.whitened()
    stack = white.map.rotated(np.eye(d1), np.eye(d2))
    sides = np.eye(d1) @ white.left, np.eye(d2) @ white.right
    b = np.tensordot(stack, np.linalg.inv(sides[0]) @ E @ np.linalg.inv(sides[1]).T, 2)
    nuclear = np.linalg.norm(np.linalg.inv(sides[0]) @ E @ np.linalg.inv(sides[1]).T, "nuc")
    isometry = isometry_constant(white.map, 1, starts=1, iterations=100, rng=rng).smallest[0]
    assert isometry > 0
    terms = _terms(stack, b, _outer_products(orbit(rng, E, 2, depth, 0.3), *sides))
    kinds = [terms[0], *[terms[1]] * (depth - 4), terms[-1]] if depth > 5 else terms
    for spread in (0.1, 1.0, 2.0):
        outer = _outer_products(orbit(rng, E, 2, depth, spread), *sides)
        for j, (before, after, _, _) in enumerate(kinds):
            (Q, P), (R, S) = (
                _in_gauge((C @ C.T, B.T @ B), side.gauge)
                for (C, B), side in zip(outer[j : j + 2], (before, after), strict=True)
            )
            t = np.einsum("iab,icd,ac,bd->", stack, stack, R, P) / A.m
            traces = (np.trace(Q) + np.trace(P)) * (np.trace(R) + np.trace(S))
            assert traces <= _traces(before, after, t, isometry, nuclear) * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-120, 1e120])
def test_the_share_does_not_depend_on_the_scale(scale, rng):
    truth = rng.standard_normal((3, 1)) @ rng.standard_normal((1, 3))
    A = gaussian(7, (3, 3), rng)
    shares = [1 - bf.flat_network(Dense(s * A.stack()), s * A(truth), 4, rng=0).certificate.gap for s in (1.0, scale)]
    assert shares[0] > 0.98
    assert shares[0] == pytest.approx(shares[1], rel=0.02)
