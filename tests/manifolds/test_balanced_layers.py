import itertools

import autograd.numpy as anp
import numpy as np
import pymanopt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymanopt.optimizers import ConjugateGradient, TrustRegions

from balancedfact.manifolds import BalancedLayers, BalancedPairs, check_manifold
from tests import bad_input
from tests.manifolds import planted

WIDTHS = st.lists(st.integers(1, 4), min_size=3, max_size=5)


def flat(layers):
    return np.concatenate([np.ravel(part) for part in layers])


def unflat(numbers, like):
    ends = np.cumsum([part.size for part in like])[:-1]
    return [piece.reshape(part.shape) for piece, part in zip(np.split(numbers, ends), like, strict=True)]


def projection_matrix(manifold, point):
    return np.array([flat(manifold.projection(point, unflat(unit, point))) for unit in np.eye(flat(point).size)]).T


def constraint_jacobian(layers):
    """The derivative of ``W_{k+1}' W_{k+1} - W_k W_k'`` for all k, one column per entry of the layers."""
    columns = []
    for unit in np.eye(flat(layers).size):
        V = unflat(unit, layers)
        columns.append(
            flat(
                [
                    V[k + 1].T @ layers[k + 1] + layers[k + 1].T @ V[k + 1] - V[k] @ layers[k].T - layers[k] @ V[k].T
                    for k in range(len(layers) - 1)
                ]
            )
        )
    return np.array(columns).T


def parametrised(widths, rng, core=None):
    """Balanced layers ``Q_k S Q_{k-1}'`` and the derivative of the parametrisation, whose range is the tangent space."""
    q = min(widths)
    Q = [np.linalg.qr(rng.standard_normal((d, q)))[0] for d in widths]
    S = rng.standard_normal((q, q)) if core is None else core
    S = S + S.T if core is None else S
    columns = []
    for _ in range(2 * q * sum(widths) + 5):
        dQ = [rng.standard_normal(X.shape) for X in Q]
        dQ = [D - X @ (X.T @ D + D.T @ X) / 2 for D, X in zip(dQ, Q, strict=True)]
        dS = rng.standard_normal((q, q))
        dS += dS.T
        columns.append(
            flat([dQ[k + 1] @ S @ Q[k].T + Q[k + 1] @ dS @ Q[k].T + Q[k + 1] @ S @ dQ[k].T for k in range(len(widths) - 1)])
        )
    return [Q[k + 1] @ S @ Q[k].T for k in range(len(widths) - 1)], np.array(columns).T


@given(WIDTHS, st.integers(0, 1000))
def test_random_points_are_balanced_and_of_full_rank(widths, seed):
    layers = BalancedLayers(widths, rng=seed).random_point()
    assert [layer.shape for layer in layers] == list(zip(widths[1:], widths[:-1], strict=True))
    for one, other in itertools.pairwise(layers):
        assert np.abs(other.T @ other - one @ one.T).max() < 1e-13
    assert all(np.linalg.matrix_rank(layer) == min(widths) for layer in layers)
    assert np.linalg.norm(layers[0], 2) < 3


def test_random_points_have_singular_values_about_one():
    values = np.linalg.svd(BalancedLayers([40, 5, 30, 20, 10], rng=0).random_point()[0], compute_uv=False)[:5]
    assert 0.4 < values.min() < values.max() < 1.6


@given(WIDTHS, st.integers(0, 1000), st.booleans())
def test_tangent_space_is_the_range_of_the_parametrisation(widths, seed, repeated):
    point, derivative = parametrised(widths, np.random.default_rng(seed), 2 * np.eye(min(widths)) if repeated else None)
    manifold = BalancedLayers(widths)
    U, s, _ = np.linalg.svd(derivative, full_matrices=False)
    basis = U[:, s > 1e-7 * s[0]]
    assert basis.shape[1] == manifold.dim
    assert np.abs(projection_matrix(manifold, point) - basis @ basis.T).max() < 1e-6


@pytest.mark.parametrize("widths", [[4, 2, 2, 3], [2, 2, 2, 2, 2], [3, 1, 1, 5], [5, 3, 4]])
def test_tangent_space_is_the_null_space_of_the_constraint_when_no_hidden_layer_is_wider(widths, rng):
    manifold = BalancedLayers(widths, rng=rng)
    point = manifold.random_point()
    J = constraint_jacobian(point)
    assert np.abs(J @ projection_matrix(manifold, point)).max() < 1e-13 * max(widths) * 10
    if max(widths[1:-1]) == min(widths):
        assert manifold.dim == J.shape[1] - np.linalg.matrix_rank(J)


@pytest.mark.slow
@settings(max_examples=20)
@given(WIDTHS, st.integers(0, 30))
def test_passes_the_conformance_check(widths, seed):
    report = check_manifold(BalancedLayers(widths, rng=seed), seed)
    assert report.ok, str(report)


@pytest.mark.parametrize("widths", [[3, 2, 4, 3], [3, 3, 3]])
def test_passes_the_conformance_check_at_repeated_singular_values(widths, rng):
    point, _ = parametrised(widths, rng, np.eye(min(widths)))
    report = check_manifold(BalancedLayers(widths), 0, point=point)
    assert report.ok, str(report)


@pytest.mark.few(3)
@planted.every_mistake
@pytest.mark.parametrize("widths", [[3, 2, 2, 4], pytest.param([2, 4, 3], marks=pytest.mark.slow)])
def test_planted_mistakes_are_noticed(mistake, widths):
    planted.assert_noticed(BalancedLayers, mistake, [widths])


@pytest.mark.parametrize("sizes", [(5, 4, 3), (3, 5, 4), (4, 3, 6)])
def test_two_layers_are_a_balanced_pair(sizes, rng):
    d1, d2, k = sizes
    pairs, layers = BalancedPairs(d1, d2, k, rng=rng), BalancedLayers([d2, k, d1])
    assert layers.dim == pairs.dim
    draws = [pairs.random_point() for _ in range(4)]
    as_layers = [[R.T, L] for L, R in draws]
    (point, first, second, third), (w, x, y, _) = draws, as_layers

    def agree(pair, found):
        assert np.allclose(found[1], pair[0], atol=1e-12)
        assert np.allclose(found[0].T, pair[1], atol=1e-12)

    agree(pairs.projection(point, first), layers.projection(w, x))
    V = pairs.projection(point, third)
    agree(
        pairs.euclidean_to_riemannian_hessian(point, first, second, V),
        layers.euclidean_to_riemannian_hessian(w, x, y, [V[1].T, V[0]]),
    )
    errors = []
    for t in (1e-2, 5e-3):
        pair, near = pairs.retraction(point, t * V), layers.retraction(w, [t * V[1].T, t * V[0]])
        errors.append(np.linalg.norm(flat([near[1], near[0].T]) - flat(pair)))
    assert errors[1] < errors[0] / 12  # fourth order apart
    # Where the rank is lost.
    drop = np.diag([1.0] * (min(sizes) - 1) + [0.0] * (k - min(sizes) + 1))
    rotation = np.linalg.qr(rng.standard_normal((k, k)))[0]
    point = [part @ rotation @ drop for part in pairs.nearest(np.eye(d1, k), np.eye(d2, k))]
    w, V = [point[1].T, point[0]], pairs.projection(point, third)
    agree(pairs.projection(point, first), layers.projection(w, x))
    agree(
        pairs.euclidean_to_riemannian_hessian(point, first, second, V),
        layers.euclidean_to_riemannian_hessian(w, x, y, [V[1].T, V[0]]),
    )


@pytest.mark.few(1)
@pytest.mark.parametrize("widths", [[3, 2, 2, 3], [2, 4, 3, 2], [3, 2, 4, 3, 2]])
@pytest.mark.parametrize(("size", "excess"), [(0.3, 1e-2), (1.0, 0.3)])
def test_retraction_is_nearly_the_nearest_point(widths, size, excess, rng):
    """Against balanced layers for which the rest of the way is normal, found by descent from the retraction."""
    manifold = BalancedLayers(widths, rng=rng)
    for _ in range(5):
        point = manifold.random_point()
        vector = size * manifold.random_tangent_vector(point)
        goal = [layer + change for layer, change in zip(point, vector, strict=True)]
        found = nearest = manifold.retraction(point, vector)
        for _ in range(60):
            way = manifold.projection(nearest, [one - other for one, other in zip(goal, nearest, strict=True)])
            nearest = manifold.retraction(nearest, 0.7 * way)
        assert manifold.norm(nearest, way) < 1e-8
        distances = [np.linalg.norm(flat(goal) - flat(layers)) for layers in (found, nearest)]
        assert distances[0] <= (1 + excess) * distances[1] + 1e-12


@pytest.mark.parametrize("widths", [[4, 3, 3, 5], [3, 5, 4, 3], [2, 2, 2]])
@pytest.mark.parametrize("rank", [0, 1])
def test_nothing_fails_where_the_rank_is_lost(widths, rank, rng):
    manifold = BalancedLayers(widths, rng=rng)
    q = min(widths)
    point, _ = parametrised(widths, rng, np.diag([2.0] * rank + [0.0] * (q - rank)))
    projection = projection_matrix(manifold, point)
    assert np.abs(projection @ projection - projection).max() < 1e-12
    assert np.abs(projection - projection.T).max() < 1e-12
    J = constraint_jacobian(point)
    kernel = np.eye(J.shape[1]) - np.linalg.pinv(J, rcond=1e-10) @ J
    assert np.abs(projection - kernel).max() < 1e-9
    moved = manifold.retraction(point, manifold.random_tangent_vector(point))
    assert manifold.residual(moved) < 1e-14
    g, h = manifold.random_point(), manifold.random_point()
    vector = manifold.random_tangent_vector(point)
    assert np.isfinite(flat(manifold.euclidean_to_riemannian_hessian(point, g, h, vector))).all()


def test_a_way_out_of_a_saddle_is_tangent_and_followed(rng):
    """At zero, layers of rank one with shared singular vectors lead out along the set, and the retraction keeps them."""
    manifold = BalancedLayers([4, 3, 3, 5])
    u = [vector / np.linalg.norm(vector) for vector in (rng.standard_normal(d) for d in manifold.widths)]
    way = [np.outer(u[k + 1], u[k]) for k in range(3)]
    point = list(manifold.zero_vector(None))
    assert np.allclose(flat(manifold.projection(point, way)), flat(way), atol=1e-15)
    assert np.allclose(flat(manifold.retraction(point, way)), flat(way), atol=1e-14)


@pytest.mark.parametrize("scale", [1e-150, 1e-100, 1e100, 1e150])
def test_scales_cancel(scale, rng):
    manifold = BalancedLayers([3, 4, 2, 3], rng=rng)
    point, vector = manifold.random_point(), manifold.random_point()
    small, change = [scale * part for part in point], [scale * part for part in vector]
    assert np.allclose(flat(manifold.projection(small, vector)), flat(manifold.projection(point, vector)), atol=1e-13)
    assert np.allclose(flat(manifold.retraction(small, change)) / scale, flat(manifold.retraction(point, vector)), atol=1e-13)


def test_balanced_layers_and_small_singular_values_are_kept(rng):
    core = np.diag([1.0, 1e-7, 1e-13])
    point, _ = parametrised([5, 3, 4, 6], rng, core)
    manifold = BalancedLayers([5, 3, 4, 6])
    again = manifold.retraction(point, manifold.zero_vector(point))
    assert np.abs(flat(again) - flat(point)).max() < 3e-15


@pytest.mark.parametrize("widths", [[8, 3, 5, 7], [5, 4, 3, 6, 6], [4, 6, 5]])
@pytest.mark.parametrize("optimizer", [TrustRegions, ConjugateGradient])
def test_users_costs_reach_the_truncated_svd(widths, optimizer, rng):
    """Every matrix of rank q is a product of balanced layers, so that nothing is lost against the best of that rank."""
    M = rng.standard_normal((widths[-1], widths[0]))
    manifold = BalancedLayers(widths, rng=0)

    @pymanopt.function.autograd(manifold)
    def cost(*layers):
        product = layers[0]
        for layer in layers[1:]:
            product = anp.dot(layer, product)
        return anp.sum((product - M) ** 2)

    solver = optimizer(verbosity=0, max_iterations=2000, min_gradient_norm=1e-6)
    result = solver.run(pymanopt.Problem(manifold, cost), initial_point=manifold.random_point())
    assert manifold.residual(result.point) < 1e-13
    best = np.sum(np.linalg.svd(M, compute_uv=False)[min(widths) :] ** 2)
    assert cost(*result.point) == pytest.approx(best, rel=1e-6, abs=1e-8)


def test_seeds_decide_and_changes_in_place_are_noticed():
    manifold = BalancedLayers([4, 3, 2], rng=5)
    point, vector = manifold.random_point(), manifold.random_point()
    assert np.array_equal(flat(point), flat(BalancedLayers([4, 3, 2], rng=5).random_point()))
    manifold.projection(point, vector)
    for part, fresh in zip(point, manifold.random_point(), strict=True):
        part[...] = fresh
    expected = BalancedLayers([4, 3, 2]).projection(point, vector)
    assert np.array_equal(flat(manifold.projection(point, vector)), flat(expected))
    np.random.seed(1)  # noqa: NPY002, what a user of pymanopt does
    first = flat(BalancedLayers([4, 3, 2]).random_point())
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(flat(BalancedLayers([4, 3, 2]).random_point()), first)


@pytest.mark.parametrize("bad", [3, None, [2, 3], [], "abc", [[1, 2], [3, 4], [5, 6]]])
def test_bad_widths_are_refused(bad):
    with pytest.raises(ValueError, match="widths"):
        BalancedLayers(bad)


@pytest.mark.parametrize("bad", bad_input.BAD_COUNT)
def test_bad_sizes_are_refused(bad):
    with pytest.raises(ValueError, match=r"widths\[1\]"):
        BalancedLayers([3, bad, 2])


def test_bad_rng_and_distances_are_refused():
    with pytest.raises(ValueError, match="rng"):
        BalancedLayers([3, 3, 3], rng=-1)
    manifold = BalancedLayers([3, 3, 3], rng=0)
    with pytest.raises(NotImplementedError, match="closed form"):
        manifold.dist(manifold.random_point(), manifold.random_point())
