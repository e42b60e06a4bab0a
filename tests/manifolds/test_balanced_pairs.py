import itertools

import autograd.numpy as anp
import numpy as np
import pymanopt
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from pymanopt.optimizers import ConjugateGradient, TrustRegions

from balancedfact.manifolds import BalancedPairs, check_manifold
from tests import bad_input

SIZES = st.integers(1, 5)


def constraint_jacobian(L, R):
    """The derivative of ``L.T @ L - R.T @ R``, one column per entry of the pair."""
    columns = []
    for part, other in ((L, False), (R, True)):
        for index in np.ndindex(part.shape):
            unit = np.zeros(part.shape)
            unit[index] = 1
            change = unit.T @ part + part.T @ unit
            columns.append((-change if other else change).ravel())
    return np.array(columns).T


def flat(pair):
    return np.concatenate([np.ravel(part) for part in pair])


def projection_matrix(manifold, point):
    units = np.eye(manifold.d1 * manifold.k + manifold.d2 * manifold.k)
    split = manifold.d1 * manifold.k
    images = [
        flat(manifold.projection(point, [u[:split].reshape(-1, manifold.k), u[split:].reshape(-1, manifold.k)])) for u in units
    ]
    return np.array(images).T


@given(SIZES, SIZES, SIZES, st.integers(0, 1000))
def test_random_points_are_balanced_and_of_full_rank(d1, d2, k, seed):
    manifold = BalancedPairs(d1, d2, k, rng=seed)
    L, R = manifold.random_point()
    assert L.shape == (d1, k)
    assert R.shape == (d2, k)
    assert np.abs(L.T @ L - R.T @ R).max() < 1e-13 * max(1, np.vdot(L, L))
    assert np.linalg.matrix_rank(L) == min(d1, d2, k) == np.linalg.matrix_rank(R)


@given(SIZES, SIZES, st.integers(0, 1000))
def test_projection_is_onto_the_null_space_of_the_constraint(d1, d2, seed):
    manifold = BalancedPairs(d1, d2, min(d1, d2), rng=seed)
    point = manifold.random_point()
    J = constraint_jacobian(*point)
    expected = np.eye(J.shape[1]) - np.linalg.pinv(J, rcond=1e-10) @ J
    assert np.abs(projection_matrix(manifold, point) - expected).max() < 1e-7
    assert manifold.dim == J.shape[1] - np.linalg.matrix_rank(J)


def stiefel_derivative(manifold, rng):
    """A point and the derivative of ``(B, C, D) -> (B C, D C)`` there, whose range is the tangent space at full rank."""
    d1, d2, k, q = manifold.d1, manifold.d2, manifold.k, manifold.rank
    B, D = (np.linalg.qr(rng.standard_normal((d, q)))[0] for d in (d1, d2))
    C = rng.standard_normal((q, k))
    columns = []
    for _ in range(3 * manifold.dim + 5):
        dB, dD = (rng.standard_normal(X.shape) for X in (B, D))
        dB -= B @ (B.T @ dB + dB.T @ B) / 2
        dD -= D @ (D.T @ dD + dD.T @ D) / 2
        dC = rng.standard_normal(C.shape)
        columns.append(flat([dB @ C + B @ dC, dD @ C + D @ dC]))
    return [B @ C, D @ C], np.array(columns).T


@pytest.mark.parametrize("sizes", list(itertools.product([1, 2, 4], [1, 3], [1, 2, 3, 5])))
def test_tangent_space_is_the_range_of_the_stiefel_parametrisation(sizes, rng):
    manifold = BalancedPairs(*sizes)
    point, derivative = stiefel_derivative(manifold, rng)
    U, s, _ = np.linalg.svd(derivative, full_matrices=False)
    basis = U[:, s > 1e-9 * s[0]]
    assert basis.shape[1] == manifold.dim
    assert np.abs(projection_matrix(manifold, point) - basis @ basis.T).max() < 1e-8


@pytest.mark.slow
@given(SIZES, SIZES, st.integers(1, 7), st.integers(0, 30))
def test_passes_the_conformance_check(d1, d2, k, seed):
    report = check_manifold(BalancedPairs(d1, d2, k, rng=seed), seed)
    assert report.ok, str(report)


@pytest.mark.few(1)
@pytest.mark.parametrize("sizes", [(3, 2, 2), (4, 4, 2), (2, 2, 3), (1, 1, 1)])
def test_nearest_is_nearest(sizes, rng):
    """No pair found by minimising over the Stiefel parametrisation from many starts is nearer."""
    manifold = BalancedPairs(*sizes)
    d1, d2, k = sizes
    q = manifold.rank
    A, B = rng.standard_normal((d1, k)), rng.standard_normal((d2, k))
    L, R = manifold.nearest(A, B)
    found = np.sum((L - A) ** 2) + np.sum((R - B) ** 2)

    def distance(x):
        X, Y, C = x[: d1 * q].reshape(d1, q), x[d1 * q : (d1 + d2) * q].reshape(d2, q), x[(d1 + d2) * q :].reshape(q, k)
        X, Y = np.linalg.qr(X)[0], np.linalg.qr(Y)[0]
        return np.sum((X @ C - A) ** 2) + np.sum((Y @ C - B) ** 2)

    size = (d1 + d2) * q + q * k
    best = min(scipy.optimize.minimize(distance, rng.standard_normal(size)).fun for _ in range(6))
    assert found <= best * (1 + 1e-9)


def test_nearest_keeps_balanced_pairs_and_small_singular_values(rng):
    manifold = BalancedPairs(6, 5, 3)
    L, R = manifold.random_point()
    tilt = np.diag([1.0, 1e-7, 1e-12])
    again = manifold.nearest(L @ tilt, R @ tilt)
    assert np.allclose(again[0], L @ tilt, rtol=1e-9, atol=1e-15)
    assert np.allclose(again[1], R @ tilt, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("sizes", [(5, 4, 3), (4, 4, 6), (3, 5, 5)])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_nothing_fails_where_the_rank_is_lost(sizes, rank, rng):
    manifold = BalancedPairs(*sizes, rng=rng)
    drop = np.zeros((sizes[2], sizes[2]))
    drop[:rank, :rank] = np.eye(rank)
    point = [part @ drop for part in manifold.random_point()]
    projection = projection_matrix(manifold, point)
    assert np.abs(projection @ projection - projection).max() < 1e-12
    assert np.abs(projection - projection.T).max() < 1e-12
    J = constraint_jacobian(*point)
    assert np.abs(J @ projection).max() < 1e-12 * max(1, np.abs(J).max())
    vector = manifold.random_tangent_vector(point)
    moved = manifold.retraction(point, vector)
    assert manifold.residual(moved) < 1e-14
    g, h = manifold.random_point(), manifold.random_point()
    assert np.isfinite(flat(manifold.euclidean_to_riemannian_hessian(point, g, h, vector))).all()


def test_the_way_out_of_a_rank_deficient_saddle_is_tangent_and_followed(rng):
    """At L = R = 0 the cost |L R' - M|^2 has curvature -2 s_1 along the top singular vectors, which retraction keeps."""
    M = rng.standard_normal((5, 4))
    U, s, Vt = np.linalg.svd(M)
    manifold = BalancedPairs(5, 4, 2, rng=0)
    point = [np.zeros((5, 2)), np.zeros((4, 2))]
    direction = manifold.projection(point, [np.outer(U[:, 0], [1, 0]), np.outer(Vt[0], [1, 0])])
    hessian = manifold.euclidean_to_riemannian_hessian(
        point, manifold.zero_vector(point), [-2 * M @ direction[1], -2 * M.T @ direction[0]], direction
    )
    assert np.isclose(manifold.inner_product(point, direction, hessian), -4 * s[0])
    L, R = manifold.retraction(point, 0.1 * direction)
    assert np.sum((L @ R.T - M) ** 2) < np.sum(M**2)


def problem(manifold, M):
    @pymanopt.function.autograd(manifold)
    def cost(L, R):
        return anp.sum((L @ R.T - M) ** 2)

    return pymanopt.Problem(manifold, cost)


@pytest.mark.parametrize("sizes", [(12, 9, 3), (9, 12, 3), (5, 4, 4), (4, 6, 6)])
@pytest.mark.parametrize("optimizer", [TrustRegions, ConjugateGradient])
def test_users_costs_reach_the_truncated_svd(sizes, optimizer, rng):
    d1, d2, k = sizes
    M = rng.standard_normal((d1, d2))
    manifold = BalancedPairs(d1, d2, k, rng=3)
    solver = optimizer(verbosity=0, max_iterations=2000, min_gradient_norm=1e-6)
    L, R = solver.run(problem(manifold, M), initial_point=manifold.random_point()).point
    assert manifold.residual([L, R]) < 1e-12
    best = np.sum(np.linalg.svd(M, compute_uv=False)[k:] ** 2)
    assert np.sum((L @ R.T - M) ** 2) == pytest.approx(best, rel=1e-6, abs=1e-8)


def test_no_start_ends_at_a_saddle():
    """The size at which the product of Stiefel manifolds stops at a saddle from about one start in five."""
    rng = np.random.default_rng(0)
    M = rng.standard_normal((200, 5)) @ rng.standard_normal((5, 150)) + 0.1 * rng.standard_normal((200, 150))
    manifold = BalancedPairs(200, 150, 5, rng=1)

    @pymanopt.function.numpy(manifold)
    def cost(L, R):
        return np.sum((L @ R.T - M) ** 2)

    @pymanopt.function.numpy(manifold)
    def gradient(L, R):
        return 2 * (L @ (R.T @ R) - M @ R), 2 * (R @ (L.T @ L) - M.T @ L)

    @pymanopt.function.numpy(manifold)
    def hessian(L, R, U, V):
        cross = V.T @ R + R.T @ V, U.T @ L + L.T @ U
        return 2 * (U @ (R.T @ R) + L @ cross[0] - M @ V), 2 * (V @ (L.T @ L) + R @ cross[1] - M.T @ U)

    whole = pymanopt.Problem(manifold, cost, euclidean_gradient=gradient, euclidean_hessian=hessian)
    best = np.sum(np.linalg.svd(M, compute_uv=False)[5:] ** 2)
    for _ in range(20):
        L, R = TrustRegions(verbosity=0, max_iterations=100).run(whole, initial_point=manifold.random_point()).point
        assert cost(L, R) == pytest.approx(best, rel=1e-9)
        assert np.abs(L.T @ L - R.T @ R).max() < 1e-8


def test_seeds_decide(rng):
    assert np.array_equal(
        flat(BalancedPairs(4, 3, 2, rng=5).random_point()), flat(BalancedPairs(4, 3, 2, rng=5).random_point())
    )
    draws = []
    for _ in range(2):
        np.random.seed(1)  # noqa: NPY002, what a user of pymanopt does
        manifold = BalancedPairs(4, 3, 2)
        draws.append(flat(manifold.random_point()))
        assert not np.array_equal(draws[-1], flat(manifold.random_point()))
    assert np.array_equal(*draws)


def test_projections_notice_that_a_point_was_changed_in_place():
    manifold = BalancedPairs(4, 3, 2, rng=0)
    point, vector = manifold.random_point(), manifold.random_point()
    manifold.projection(point, vector)
    for part, fresh in zip(point, manifold.random_point(), strict=True):
        part[...] = fresh
    assert np.array_equal(flat(manifold.projection(point, vector)), flat(BalancedPairs(4, 3, 2).projection(point, vector)))


@pytest.mark.parametrize("name", ["d1", "d2", "k"])
@pytest.mark.parametrize("bad", bad_input.BAD_COUNT)
def test_bad_sizes_are_refused(name, bad):
    with pytest.raises(ValueError, match=name):
        BalancedPairs(**({"d1": 3, "d2": 3, "k": 2} | {name: bad}))


@pytest.mark.parametrize("bad", bad_input.BAD_RNG)
def test_bad_rng_is_refused(bad):
    with pytest.raises(ValueError, match="rng"):
        BalancedPairs(3, 3, 2, rng=bad)


def test_distance_says_that_there_is_none():
    manifold = BalancedPairs(3, 3, 2, rng=0)
    with pytest.raises(NotImplementedError, match="closed form"):
        manifold.dist(manifold.random_point(), manifold.random_point())
