import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from balancedfact._packing import Packing
from balancedfact.measurements import Dense, RankOne
from balancedfact.solvers.fibre import _chain
from balancedfact.solvers.fibre._chain import (
    Chain,
    ChainPoint,
    FewMatrices,
    ManyMatrices,
    OneOperator,
    SelfAdjoint,
    compress,
    few_matrices,
    one_operator,
    stacks,
)


def random_chain(rng, r, m, depth, kind=few_matrices):
    """A chain with the list of its matrices `K`."""
    K = rng.standard_normal((m, r, r))
    first, last = (X @ X.T for X in rng.standard_normal((2, r, r + 1)))
    return Chain(first, kind(Dense(K.transpose(0, 2, 1))), last, depth), K


def terms(chain, K, P):
    """The L terms of f at P_1, ..., P_N, from the definition."""
    found = [np.trace(np.linalg.inv(P[0]) @ chain.first)]
    found += [sum(np.trace(P[j - 1] @ k @ np.linalg.inv(P[j]) @ k.T) for k in K) for j in range(1, len(P))]
    return [*found, np.trace(P[-1] @ chain.last)]


def random_point(chain, rng, spread=0.5):
    start = chain.start()
    H = spread * rng.standard_normal(start.G.shape)
    return start.moved(H + H.transpose(0, 2, 1))


def symmetric(rng, n, r):
    X = rng.standard_normal((n, r, r))
    return X + X.transpose(0, 2, 1)


@pytest.mark.parametrize("r", [1, 2, 5])
def test_coordinates_are_orthonormal(r, rng):
    space, X, Y = Packing(r), symmetric(rng, 3, r), symmetric(rng, 3, r)
    np.testing.assert_allclose(space.unpack(space.pack(X)), X, atol=1e-15)
    np.testing.assert_allclose(np.sum(space.pack(X) * space.pack(Y)), np.sum(X * Y), rtol=1e-13)


@given(seed=st.integers(0, 2**32 - 1), r=st.integers(1, 5), m=st.integers(1, 30), rank_one=st.booleans())
def test_couplings_are_sums_over_the_matrices(seed, r, m, rank_one):
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((2, m, r))
    map = RankOne(left, right) if rank_one else Dense(rng.standard_normal((m, r, r)))
    K = map.rotated(np.eye(r), np.eye(r)).transpose(0, 2, 1)
    G, inverse = rng.standard_normal((2, 3, r, r))
    H = symmetric(rng, 3, r)
    near = [[g @ k @ i for k in K] for g, i in zip(G, inverse, strict=True)]
    forward = np.array([sum(k @ h @ k.T for k in ks) for ks, h in zip(near, H, strict=True)])
    backward = np.array([sum(k.T @ h @ k for k in ks) for ks, h in zip(near, H, strict=True)])
    for kind in (few_matrices, one_operator, ManyMatrices):
        framed = kind(map).framed(G, inverse)
        np.testing.assert_allclose(framed.forward(H), forward, atol=1e-11 * np.abs(forward).max())
        np.testing.assert_allclose(framed.backward(H), backward, atol=1e-11 * np.abs(backward).max())
    assert len(few_matrices(map).stack) <= max(r**2, 1)
    space = Packing(r)
    applied = np.einsum("nst,nt->ns", few_matrices(map).framed(G, inverse).operators(space), space.pack(H))
    np.testing.assert_allclose(space.unpack(applied), forward, atol=1e-11 * np.abs(forward).max())


def test_measurements_are_taken_in_chunks(monkeypatch, rng):
    map, H = Dense(rng.standard_normal((23, 3, 3))), symmetric(rng, 2, 3)
    frames = rng.standard_normal((2, 2, 3, 3))
    whole = [kind(map).framed(*frames).forward(H) for kind in (few_matrices, one_operator)]
    monkeypatch.setattr(_chain, "ENTRIES_AT_ONCE", 40)
    assert [len(stack) for stack in stacks(map)] == [4, 4, 4, 4, 4, 3]
    for kind, expected in zip((few_matrices, one_operator), whole, strict=True):
        np.testing.assert_allclose(kind(map).framed(*frames).forward(H), expected, rtol=1e-11)


def test_form_is_chosen_by_size(rng):
    assert isinstance(compress(Dense(np.ones((50, 6, 6))), 10), FewMatrices)
    assert isinstance(compress(Dense(np.ones((50, 6, 6))), 2), ManyMatrices)
    assert isinstance(compress(Dense(np.ones((2, 30, 30))), 10), ManyMatrices)
    assert isinstance(compress(Dense(np.ones((100, 30, 30))), 10), OneOperator)
    assert isinstance(compress(RankOne(*np.ones((2, 100, 30))), 10), ManyMatrices)
    assert isinstance(compress(RankOne(*np.ones((2, 600, 30))), 100), OneOperator)


@pytest.mark.parametrize("kind", [few_matrices, one_operator, ManyMatrices])
@pytest.mark.parametrize("depth", [2, 3, 6])
def test_point_is_the_best_multiple_of_its_frames(kind, depth, rng):
    chain, K = random_chain(rng, 3, 4, depth, kind)
    G = rng.standard_normal((depth - 1, 3, 3))
    point = _chain.ChainPoint(chain, G, np.linalg.inv(G))
    P = point.G.transpose(0, 2, 1) @ point.G
    found = terms(chain, K, P)
    np.testing.assert_allclose(found, [point.value / depth] * depth, rtol=1e-10)
    before = G.transpose(0, 2, 1) @ G
    ratios = np.linalg.solve(before, P)
    np.testing.assert_allclose(ratios, ratios[:, :1, :1] * np.eye(3), atol=1e-8 * np.abs(ratios).max())
    assert point.value <= sum(terms(chain, K, before)) * (1 + 1e-12)
    np.testing.assert_allclose(point.G @ point.inverse, np.broadcast_to(np.eye(3), G.shape), atol=1e-10)
    np.testing.assert_allclose(point.ahead + point.behind, [np.diag(d) for d in point.curvature], atol=1e-12 * point.value)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_gradient_is_the_derivative_along_geodesics(depth, rng):
    chain, K = random_chain(rng, 3, 2, depth)
    point = random_point(chain, rng)
    H = symmetric(rng, depth - 1, 3)

    def value(t):
        moved = [g.T @ scipy.linalg.expm(t * h) @ g for g, h in zip(point.G, H, strict=True)]
        return sum(terms(chain, K, moved))

    h = 1e-4
    slope = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
    assert np.vdot(point.gradient, H) == pytest.approx(slope, rel=1e-8)
    assert point.stationarity == pytest.approx(np.linalg.norm(point.gradient) / point.value)
    end = point.moved(0.1 * H)
    assert end.value <= value(0.1) * (1 + 1e-12)
    np.testing.assert_allclose(np.trace(point.gradient, axis1=1, axis2=2), 0, atol=1e-12 * point.value)


def test_velocity_between_points(rng):
    chain, _ = random_chain(rng, 3, 2, 4)
    point, other = random_point(chain, rng), random_point(chain, rng)
    H = point.towards(other)
    reached = [g.T @ scipy.linalg.expm(h) @ g for g, h in zip(point.G, H, strict=True)]
    np.testing.assert_allclose(reached, other.G.transpose(0, 2, 1) @ other.G, rtol=1e-9)


@given(seed=st.integers(0, 2**32 - 1), r=st.integers(1, 3), m=st.integers(1, 3), depth=st.integers(2, 6), sparse=st.booleans())
def test_lower_bound_holds_at_every_pair_of_points(seed, r, m, depth, sparse):
    rng = np.random.default_rng(seed)
    K = rng.standard_normal((m, r, r)) * (rng.random((m, r, r)) < (0.5 if sparse else 1.0))
    K += 1e-3 * rng.standard_normal(K.shape)
    first, last = (np.diag(rng.random(r) ** 4) + 1e-6 * np.eye(r) for _ in range(2))
    chain = Chain(first, FewMatrices(K), last, depth)
    points = [random_point(chain, rng, spread) for spread in (0.0, 0.1, 0.5, 1.0, 1.5)]
    assert max(point.lower for point in points) <= min(point.value for point in points) * (1 + 1e-12)
    for point in points:
        nuclear = sum(np.linalg.norm(g, "nuc") for g in point.gradient)
        assert point.lower == pytest.approx(max(point.value - depth / 2 * nuclear, 0), abs=1e-9 * point.value)
        assert point.gap == pytest.approx(1 - point.lower / point.value)


def test_lower_bound_is_sharp_in_its_constant():
    """Two layers: the bound is the arithmetic less the difference of the ends, the minimum their geometric mean."""
    for size in (1e-1, 1e-2, 1e-3):
        chain = Chain(np.diag([1 + size, 1 - size]), FewMatrices(np.empty((0, 2, 2))), np.diag([1 - size, 1 + size]), 2)
        point = chain.start()
        assert point.value - point.lower == pytest.approx(4 * size)
        assert 2 * np.sqrt(1 - size**2) * 2 >= point.lower


def test_couplings_known_by_a_formula_are_those_of_their_matrices(rng):
    """All unit matrices between weights give ``tr(S H) S``, the identity gives `H`; so do value and gradient."""
    r, s = 3, rng.uniform(0.5, 2.0, 3)
    S = np.diag(s)
    units = np.eye(r * r).reshape(-1, r, r) * np.sqrt(np.multiply.outer(s, s))
    cases = [
        (units, SelfAdjoint(lambda H: np.einsum("ab,...ab->...", S, H)[..., None, None] * S)),
        (np.eye(r)[None], SelfAdjoint(np.array)),
    ]
    for stack, known in cases:
        one, other = (Chain(2 * S, coupling, 3 * S, 5) for coupling in (FewMatrices(stack), known))
        start = random_point(one, rng)
        points = [ChainPoint(chain, start.G, start.inverse) for chain in (one, other)]
        assert points[0].value == pytest.approx(points[1].value, rel=1e-13)
        assert points[0].value == pytest.approx(sum(terms(one, stack, points[0].G.transpose(0, 2, 1) @ points[0].G)), rel=1e-12)
        np.testing.assert_allclose(points[0].lower, points[1].lower, rtol=1e-10)
        by_P = [point.inverse @ point.gradient @ point.inverse.transpose(0, 2, 1) for point in points]
        np.testing.assert_allclose(*by_P, atol=1e-10 * np.abs(by_P[0]).max())
