import numpy as np
import pytest

import balancedfact as bf
from balancedfact.certification.deep import _lifted_bound
from balancedfact.certification.deep._lifted_bound import (
    _between,
    _in_gauge,
    _outer_products,
    _sizes,
    _terms,
    _traces,
    lifted_bound,
)
from balancedfact.measurements import Dense, Entries, gaussian, isometry_constant
from balancedfact.theorems._draw import orbit

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.slow
def test_three_layers_are_proved_optimal():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((3, 1)) @ rng.standard_normal((1, 3))
    A = gaussian(6, (3, 3), rng)
    solution = bf.flat_network(A, A(truth), 3, rng=0)
    assert solution.status is bf.Status.OPTIMAL
    assert 0 < solution.certificate.gap < 1e-3
    assert "moments" in solution.message


DEEPER = [4, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (5, 12))]


@pytest.mark.slow
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
        # A worse network known beforehand, of another matrix, leaves the bound valid, and here above zero.
        worse = orbit(rng, E + rng.standard_normal((3, 4)), 3, depth, 1.0)
        if rank == 1 and depth < 6:
            bound = lifted_bound(A, b, y, worse, rng, work=8e7 if depth == 3 else 2e9)
            assert 0 < bound <= found.value * (1 + 1e-9)


@pytest.mark.parametrize("depth", [4, 7])
def test_every_layer_counts(depth, monkeypatch):
    """With the terms of the network themselves the bound is its trace, for a network whose layers have equal shares."""
    rng = np.random.default_rng(0)
    A = gaussian(3, (2, 2), rng)
    E = np.outer(rng.standard_normal(2), rng.standard_normal(2))
    b, layers = A(E), bf.induced_regularizer(E, A, depth).layers
    y = bf.flat_minimum(A, b).certificate.dual
    monkeypatch.setattr(_lifted_bound, "_least", lambda stack, b, y, term, *rest: term.known)
    assert lifted_bound(A, b, y, layers, rng, work=1e10) == pytest.approx(bf.curvature.trace(layers, A), rel=1e-6)


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


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("depth", [3, 4, 5])
def test_the_bound_on_the_traces_is_reached(depth, size, rng):
    """By a network of rank one, where every matrix is measured alike."""
    d1, d2 = 3, 2
    stack = np.eye(d1 * d2).reshape(-1, d1, d2)
    u, v = (x / np.linalg.norm(x) for x in (rng.standard_normal((d1, 1)), rng.standard_normal((1, d2))))
    outer = _outer_products([v, *[np.eye(1)] * (depth - 2), size * u], np.eye(d1), np.eye(d2))
    for j, term in enumerate(_terms(stack, np.tensordot(stack, size * u @ v, 2), outer)):
        sides = term.before, term.after
        places = [_in_gauge((C @ C.T, B.T @ B), side.gauge) for (C, B), side in zip(outer[j : j + 2], sides, strict=True)]
        traces = np.prod([np.trace(Q) + np.trace(P) for Q, P in places])
        t = np.trace(places[0][1]) * np.trace(places[1][0]) / len(stack)
        assert term.known == pytest.approx(t)
        assert _traces(*sides, t, 1 / len(stack), size) == pytest.approx(traces, rel=1e-7)


def test_the_bounds_of_a_place_between_are_reached(rng):
    """By a product of rank one along the extreme directions of its gauge."""
    F, G = (root @ root.T for root in (rng.standard_normal((3, 3)), rng.standard_normal((2, 2))))
    before, after = _between(F, G)
    (_, U), (_, V) = np.linalg.eigh(before.gauge.left), np.linalg.eigh(-before.gauge.right)
    for side, counted, (i, j) in ((before, 1, (0, -1)), (after, 0, (-1, 0))):
        place = _in_gauge((4 * np.outer(U[:, i], U[:, i]), np.outer(V[:, j], V[:, j])), side.gauge)
        of_Q, of_P = (float(np.trace(X)) for X in place)
        assert of_Q * of_P == pytest.approx(4)  # the square of the nuclear norm
        assert (of_Q + of_P) / (of_Q, of_P)[counted] == pytest.approx(side.factor, rel=1e-7)
        assert (of_Q, of_P)[counted] == pytest.approx(2 * side.least, rel=1e-7)
        assert (side.constant, side.power) == (0, 1)


@pytest.mark.parametrize("depth", [4, 5])
def test_sizes_of_networks_are_within_their_bounds(depth, rng):
    """Where they are reached, by rank one where every matrix is measured alike, and for measurements at random."""
    d1, d2, size, reached = 3, 2, 0.7, []
    isotropic = np.eye(d1 * d2).reshape(-1, d1, d2)
    u, v = (x / np.linalg.norm(x) for x in (rng.standard_normal((d1, 1)), rng.standard_normal((1, d2))))
    random = gaussian(7, (d1, d2), rng).whitened().map
    E = rng.standard_normal((d1, d2))
    for stack, start, others, isometry in (
        (isotropic, [v, *[np.eye(1)] * (depth - 2), size * u], [], 1 / len(isotropic)),
        (
            random.rotated(np.eye(d1), np.eye(d2)),
            orbit(rng, E, 2, depth, 0.3),
            [orbit(rng, E, 2, depth, spread) for spread in (0.1, 1.0, 2.0)],
            isometry_constant(random, 1, starts=1, iterations=100, rng=rng).smallest[0],
        ),
    ):
        X = np.linalg.multi_dot(start[::-1])
        b, dual = np.tensordot(stack, X, 2), np.linalg.svd(X)
        y = np.tensordot(stack, dual[0][:, : len(dual[1])] @ dual[2], 2)
        nuclear = float(b @ y) / float(np.linalg.norm(np.tensordot(y, stack, 1), 2))
        terms = _terms(stack, b, _outer_products(start, np.eye(d1), np.eye(d2)))
        for layers in (start, *others):
            outer = _outer_products(layers, np.eye(d1), np.eye(d2))
            for k, term in enumerate(terms):
                sides = term.before, term.after
                places = [
                    _in_gauge((C @ C.T, B.T @ B), side.gauge) for (C, B), side in zip(outer[k : k + 2], sides, strict=True)
                ]
                t = float(np.einsum("iab,icd,ac,bd->", stack, stack, places[1][0], places[0][1])) / len(stack)
                for j in (j for j in (0, 1) if sides[j].free):
                    low, high = _sizes(stack, y, b, sides, j, t, isometry, nuclear, 1.0)
                    found = float(np.vdot(sides[j].gauge.left, places[j][0]))
                    assert low <= found * (1 + 1e-7)
                    assert found <= high * (1 + 1e-7)
                    if stack is isotropic:  # the second with a vector that proves too little for the first
                        loose = np.tensordot(stack, np.linalg.svd(X)[0] @ np.diag([1.0, 5.0, 0.0])[:, :2] @ dual[2], 2)
                        most = _sizes(stack, loose, b, sides, j, t, isometry, nuclear, 1.0)[1]
                        reached.append((low / found, most / found))
    np.testing.assert_allclose(np.array(reached), 1, rtol=1e-7)


@pytest.mark.slow
def test_the_share_does_not_depend_on_the_scale(rng):
    truth = rng.standard_normal((3, 1)) @ rng.standard_normal((1, 3))
    A = gaussian(7, (3, 3), rng)
    scaled = ((Dense(scale * A.stack()), scale * A(truth)) for scale in (1.0, 1e-120, 1e120))
    shares = [1 - bf.flat_network(*problem, 4, rng=0).certificate.gap for problem in scaled]
    assert shares[0] > 0.98
    assert shares[1:] == pytest.approx([shares[0]] * 2, rel=0.02)
