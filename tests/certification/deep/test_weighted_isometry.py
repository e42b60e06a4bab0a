import numpy as np
import pytest

import balancedfact as bf
from balancedfact.certification.deep._weighted_isometry import _INFLATION, Barrier, _start, weighted_isometry_bound
from balancedfact.measurements import Dense, bilinear, gaussian
from tests.oracles import trace_terms

pytestmark = pytest.mark.filterwarnings("error")


def barrier_of(rng, shape, depth, m=None):
    m = m or shape[0] * shape[1] + 1
    A = gaussian(m, shape, rng)
    stack = A.whitened().map.rotated(*(np.eye(d) for d in shape))
    b = A(rng.standard_normal(shape))
    y = np.linalg.lstsq(A.gram, b, rcond=None)[0]
    barrier = Barrier(stack, b, y, depth)
    N, least = barrier.visible(200, lambda: False)
    return barrier, _start(barrier, N, least, y)


@pytest.mark.parametrize("depth", [3, 4, 5])
@pytest.mark.parametrize("shape", [(3, 2), (2, 4)])
def test_the_gradient_is_the_derivative(depth, shape, rng):
    barrier, weights = barrier_of(rng, shape, depth)
    x = barrier.packed(weights)
    _, gradient = barrier.climbed(x, 0.1)
    for _ in range(5):
        direction = rng.standard_normal(x.size) * np.abs(x).max()
        h = 1e-7
        ends = [barrier.climbed(x + sign * h * direction, 0.1)[0] for sign in (1, -1)]
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(gradient @ direction, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("shape", [(3, 2), (2, 4), (1, 3)])
def test_coordinates_of_odd_matrices(shape, rng):
    d1, d2 = shape
    barrier = Barrier(rng.standard_normal((7, d1, d2)), np.ones(7), np.ones(7), 3)
    x = rng.standard_normal(barrier.sizes()[0][1:])
    N = barrier.odd(x)
    np.testing.assert_array_equal(N, N.T)
    four = N.reshape(d1, d2, d1, d2)
    np.testing.assert_array_equal(four, -four.transpose(0, 3, 2, 1))
    assert np.linalg.norm(N) == pytest.approx(np.linalg.norm(x))
    G = rng.standard_normal(N.shape)
    assert np.vdot(barrier.coordinates(G + G.T), x) == pytest.approx(np.vdot(G + G.T, N))
    # Every odd matrix has coordinates.
    even = (G + G.T).reshape(d1, d2, d1, d2)
    odd = ((even - even.transpose(0, 3, 2, 1)) / 2).reshape(N.shape)
    np.testing.assert_allclose(barrier.odd(barrier.coordinates(odd)), odd, atol=1e-12)


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_the_preconditioner_is_symmetric_and_exact_for_a_multiple_of_the_identity(depth, rng):
    barrier, weights = barrier_of(rng, (3, 2), depth)
    x = barrier.packed(weights)
    barrier.climbed(x, 0.1)
    p, q = rng.standard_normal((2, x.size))
    assert p @ barrier.preconditioned(x, q, 0.1) == pytest.approx(q @ barrier.preconditioned(x, p, 0.1))
    assert p @ barrier.preconditioned(x, p, 0.1) > 0
    barrier.slacks = [3.0 * np.eye(6)] * barrier.middle  # the Hessian by N is then mu / 9
    odd = rng.standard_normal(weights.odd.shape)
    step = barrier.packed(weights._replace(odd=odd))
    found = barrier.unpacked(barrier.preconditioned(x, step, 0.1)).odd
    np.testing.assert_allclose(found, 9 * odd / 0.1)


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_what_is_proved_holds_on_products(depth, rng):
    barrier, weights = barrier_of(rng, (3, 3), depth)
    assert np.isfinite(barrier.proved(weights))
    X, K = barrier.pairs(weights)
    for x, k, y in zip(X, K, weights.y, strict=True):
        np.testing.assert_allclose(x @ k, barrier.adjoint(y), rtol=1e-10, atol=1e-10)
    for _ in range(200):
        u, v = rng.standard_normal(3), rng.standard_normal(3)
        form = np.sum((barrier.stack @ v @ u) ** 2) / barrier.m
        split = weights.scale**2 * (u @ barrier.a.reshape(3, 3) @ v) ** 2
        for j in range(depth - 2):
            assert form >= split + np.sum((X[j + 1].T @ u) ** 2) * np.sum((K[j] @ v) ** 2)


def test_nothing_is_proved_where_the_inequality_fails(rng):
    barrier, weights = barrier_of(rng, (3, 3), 3)
    assert barrier.proved(weights._replace(y=100 * weights.y)) == -np.inf
    assert barrier.climbed(barrier.packed(weights._replace(y=100 * weights.y)), 1.0) is None


@pytest.mark.parametrize("depth", [3, 4])
def test_rounding_is_no_proof(depth, rng):
    """The largest multiple of the weights that is proved leaves the inequality as much room as its rounding takes."""
    barrier, weights = barrier_of(rng, (3, 3), depth)
    low, high = 1.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.isfinite(barrier.proved(weights._replace(y=middle * weights.y))) else (low, middle)
    last = weights._replace(y=low * weights.y)
    X, K = barrier.pairs(last)
    room = []
    for j in range(depth - 2):
        left, right = X[j + 1] @ X[j + 1].T, K[j].T @ K[j]
        left, right = (W + _INFLATION * np.linalg.norm(W) * np.eye(3) for W in (left, right))
        parts = barrier.slack(j, last, left, right)
        room.append(np.linalg.eigvalsh(np.sum(parts, axis=0))[0] / sum(np.linalg.norm(part) for part in parts))
    assert min(room) > 4 * np.finfo(float).eps


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "depth"), [(gaussian, 3), (bilinear, 3), (gaussian, 5)])
def test_no_network_is_below_the_bound(kind, depth, rng):
    d1, d2 = shape = (4, 3)
    A = kind(11, shape, rng)
    stack = A.stack()
    for widths in ([5] * (depth - 1), [1] * (depth - 1), [2, *[7] * (depth - 2)]):  # wide, narrow, of low rank
        sizes = [d2, *widths, d1]
        layers = [rng.standard_normal(size) for size in zip(sizes[1:], sizes, strict=False)]
        product = np.linalg.multi_dot(layers[::-1])
        b = A(product)
        y = bf.flat_minimum(A, b).certificate.dual
        bound = weighted_isometry_bound(A, b, y, y, depth, work=1e6)
        assert bound > 0 or depth > 3
        unbalanced = [layers[0] * 30, *layers[1:-1], layers[-1] / 30]
        for each in (layers, unbalanced, bf.induced_regularizer(product, A, depth).layers):
            assert bound <= sum(trace_terms(each, stack)) * (1 + 1e-9)
        if depth == 3:
            assert bound <= bf.flat_network(A, b, depth, rng=rng, bound="quick").value * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3, 4, 5])
def test_the_units_of_the_outer_layers(depth):
    # Few measurements of small matrices, whose moments on both sides together are far from isotropic.
    for seed in range(4):
        rng = np.random.default_rng(seed)
        A, b = gaussian(3, (2, 2), rng), rng.standard_normal(3)
        least = bf.flat_network(A, b, depth, rng=0, bound="quick").value
        y = bf.flat_minimum(A, b).certificate.dual
        assert weighted_isometry_bound(A, b, y, y, depth, work=2e5) <= least


@pytest.mark.slow
def test_it_is_close_for_gaussian_measurements(rng):
    truth = rng.standard_normal((6, 1)) @ rng.standard_normal((1, 6))
    A = gaussian(30, (6, 6), rng)
    b = A(truth)
    value, y = bf.flat_network(A, b, 3, rng=0, bound="quick").value, bf.flat_minimum(A, b).certificate.dual
    assert 0.8 * value < weighted_isometry_bound(A, b, y, y, 3, work=5e6) < value
    deeper = bf.flat_network(A, b, 4, rng=0, bound="quick")
    assert 0.6 * deeper.value < weighted_isometry_bound(A, b, y, y, 4, work=1e7) < deeper.value


@pytest.mark.slow
def test_the_share_does_not_depend_on_the_scale(rng):
    truth = rng.standard_normal((4, 1)) @ rng.standard_normal((1, 4))
    A = gaussian(12, (4, 4), rng)
    scaled = ((Dense(scale * A.stack()), scale * A(truth)) for scale in (1.0, 1e-120, 1e120))
    shares = [1 - bf.flat_network(*problem, 3, rng=0).certificate.gap for problem in scaled]
    assert shares[1:] == pytest.approx([shares[0]] * 2, rel=0.02)


def test_rounding_beyond_the_first_shift_ends_the_search(rng):
    """Rows of 1e16, too few to see everything: the zero eigenvalues are rounding errors of 1e16, and nothing is proved."""
    rows = 1e16 * rng.standard_normal((3, 3, 2))
    assert Barrier(rows, np.ones(3), np.ones(3), 3).visible(200, lambda: False)[1] == -np.inf


def test_refused_arguments():
    A = gaussian(12, (4, 4), 0)
    with pytest.raises(ValueError, match="bound is 'all'; expected"):
        bf.flat_network(A, np.ones(12), 3, bound="all")
    with pytest.raises(ValueError, match="gap_tol"):
        bf.flat_network(A, np.ones(12), 3, gap_tol=-1.0)
