import numpy as np
import pytest

import balancedfact as bf
from balancedfact.curvature._zero_loss import DeepProblem, ZeroLossPoint
from balancedfact.measurements import gaussian
from balancedfact.solvers.deep._rank_test import _split, rank_test

pytestmark = pytest.mark.filterwarnings("error")


def flattest(A, E, depth):
    return ZeroLossPoint(DeepProblem(A, A, A(E), depth), bf.induced_regularizer(E, A, depth).layers)


def root(P):
    values, vectors = np.linalg.eigh(P)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def slope(point, N):
    """The formula of the module, from the definition: derivative of F along N, rows and columns orthogonal to those of E."""
    matrices, total = point.problem.unit.matrices, 0.0
    for j in range(1, len(point.layers)):
        B0, C1 = point.before[j - 1], point.after[j + 1]
        B, C = point.before[j], point.after[j]
        X = sum(A @ B0.T @ B0 @ A.T for A in matrices)
        Y = sum(A.T @ C1 @ C1.T @ A for A in matrices)
        half_left, half_right = root(X), root(Y)
        U, _, Vt = np.linalg.svd(half_left @ C @ B @ half_right)
        k = B.shape[0]
        U, V = U[:, :k], Vt[:k].T
        total += np.vdot(half_left @ U @ V.T @ half_right, N)
        inner = half_left @ N @ half_right
        inner = (inner - U @ (U.T @ inner)) @ (np.eye(len(V)) - V @ V.T)
        total += np.linalg.norm(inner, "nuc")
    return 4 / len(matrices) * total


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_the_expansion_across_ranks(depth, rng):
    A = gaussian(12, (4, 5), rng)
    E = rng.standard_normal((4, 2)) @ rng.standard_normal((2, 5))
    U, _, Vt = np.linalg.svd(E)
    point = flattest(A, E, depth)
    for N in (U[:, 2:3] @ Vt[3:4], U[:, 2:] @ rng.standard_normal((2, 3)) @ Vt[2:]):
        found = [(bf.induced_regularizer(E + t * N, A, depth).value - point.value) / t for t in (1e-4, 5e-5)]
        np.testing.assert_allclose(2 * found[1] - found[0], slope(point, N), rtol=1e-5)


@pytest.mark.parametrize("depth", [3, 5])
def test_along_the_rank_the_rest_vanishes(depth, rng):
    """The multipliers of a point on which the matrix is determined at its rank cancel the gradients of the norms there."""
    A = gaussian(30, (4, 5), rng)
    E = rng.standard_normal((4, 2)) @ rng.standard_normal((2, 5))
    point = flattest(A, E, depth)
    U, _, Vt = np.linalg.svd(E)
    pull = A.adjoint(point.multipliers())
    for N in (rng.standard_normal((4, 2)) @ Vt[:2], U[:, :2] @ rng.standard_normal((2, 5))):
        ahead, behind = (bf.induced_regularizer(E + t * N, A, depth).value for t in (1e-6, -1e-6))
        np.testing.assert_allclose(np.vdot(pull, N), (ahead - behind) / 2e-6, rtol=1e-6)


def test_the_split_of_isotropic_balls():
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((3, 4))
    sizes = [(0.3, 0.5), (1.0, 0.2)]
    roots = [(q * np.eye(3), r * np.eye(4)) for q, r in sizes]
    reach = sum(q * r for q, r in sizes)
    for excess in (0.6, 1.4):
        scaled = Z * (excess * reach / np.linalg.norm(Z, 2))
        found = _split(scaled, roots)
        assert found >= excess - 1e-9
        assert found <= 1 if excess < 1 else found <= 2
    assert _split(Z, [(np.zeros((3, 3)), np.eye(4))] * 2) == np.inf


def test_one_ball_is_a_weighted_norm():
    rng = np.random.default_rng(1)
    Q, R = (root(G @ G.T) for G in (rng.standard_normal((3, 5)), rng.standard_normal((4, 6))))
    Z = rng.standard_normal((3, 4))
    exact = np.linalg.norm(np.linalg.solve(Q, Z) @ np.linalg.inv(R), 2)
    np.testing.assert_allclose(_split(2 * Z / exact, [(Q, R)]), 2.0, rtol=1e-9)


@pytest.mark.slow
def test_a_split_is_a_proof_that_no_direction_descends():
    """Where the test passes, the derivative of F less that of the multipliers is nonnegative along every normal direction."""
    rng = np.random.default_rng(8)
    A, b = gaussian(8, (5, 5), rng), rng.standard_normal(8)
    for max_rank, passes in ((None, True), (2, False)):
        solution = bf.flat_network(A, b, 3, max_rank=max_rank, rng=0, bound="quick")
        point = ZeroLossPoint(DeepProblem(A, A, b, 3), solution.layers)
        y, k = point.multipliers(), point.width
        np.testing.assert_allclose(y, solution.certificate.dual, rtol=1e-6)
        test = rank_test(point, y)
        assert (test.excess <= 1) == passes
        U, _, Vt = np.linalg.svd(point.matrix)
        U, V = U[:, k:], Vt[k:].T
        rates = []
        for _ in range(200):
            N = U @ np.outer(rng.standard_normal(U.shape[1]), rng.standard_normal(V.shape[1])) @ V.T
            rates.append(slope(point, N) - y @ A(N))
        assert not passes or min(rates) >= 0
        if not passes:
            N = test.left @ test.right.T
            assert slope(point, N) < y @ A(N)


def test_two_layers_give_the_dual_norm_of_the_weighted_problem(rng):
    A, E = gaussian(40, (4, 5), rng), rng.standard_normal((4, 2)) @ rng.standard_normal((2, 5))
    point = flattest(A, E, 2)
    y = point.multipliers(near=1e3 * rng.standard_normal(40)) + 0.0
    y += 5 * (y - point.multipliers())  # any multipliers will do; these are far from least
    H1, H2 = (root(sum(pair)) for pair in ((M @ M.T for M in A.matrices), (M.T @ M for M in A.matrices)))
    S = 40 / 4 * np.linalg.solve(H1, A.adjoint(y)) @ np.linalg.inv(H2)
    U, _, Vt = np.linalg.svd(H1 @ E @ H2)
    inner = U[:, 2:].T @ S @ Vt[2:].T
    expected = np.linalg.norm(inner, 2)
    assert expected > 1
    np.testing.assert_allclose(rank_test(point, y).excess, expected, rtol=1e-6)


def test_full_rank_passes(rng):
    A, E = gaussian(6, (2, 3), rng), rng.standard_normal((2, 3))
    point = flattest(A, E, 3)
    assert rank_test(point, point.multipliers()).excess == 0


@pytest.mark.parametrize("scale", [1e-40, 1.0, 1e40])
def test_one_measurement_leaves_nothing_but_rounding_beside_rank_one(scale):
    """With `E` of rank one, one side of each place has a moment of rank one: no `T` reaches the normal space."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        A = gaussian(1, (3, 3), rng)
        left, _, right = np.linalg.svd(A.matrices[0])
        point = flattest(A, scale * np.outer(left[:, 0], right[0]), 3)
        assert rank_test(point, point.multipliers()).excess == np.inf


def test_no_direction_ends_the_search(monkeypatch, rng):
    """The whitening of measurements of very different sizes may leave nothing of a direction."""

    def hidden(point, y):
        found = rank_test(point, y)
        return found._replace(excess=2.0, left=0 * found.left, right=0 * found.right)

    monkeypatch.setattr("balancedfact.solvers.deep._network_search.rank_test", hidden)
    A = gaussian(7, (3, 3), rng)
    solution = bf.flat_network(A, A(np.outer(np.arange(1.0, 4.0), np.ones(3))), 3, rng=0, bound="quick")
    assert not solution.status.proved
    assert solution.certificate.feasibility < 1e-12
