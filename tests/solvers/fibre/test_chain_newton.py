import numpy as np
import pytest

import balancedfact as bf
from balancedfact._packing import Packing
from balancedfact.measurements import Dense, gaussian
from balancedfact.solvers.fibre import _chain
from balancedfact.solvers.fibre._chain import Chain, ManyMatrices, few_matrices, one_operator
from balancedfact.solvers.fibre._chain_newton import Ending, _searched, conjugated, eliminated, minimise
from balancedfact.solvers.iteration._log import Log
from tests.solvers.fibre.test_chain import random_chain, random_point


def quiet():
    return Log(progress=False)


def second_derivative(point, K, A, B):
    """The second derivative of f along s * A + t * B in the frame of the point, from the definition."""
    near = [[G @ k @ inverse for k in K] for G, inverse in zip(point.G[:-1], point.inverse[1:], strict=True)]

    def along(H):
        first = point.inverse[0].T @ point.chain.first @ point.inverse[0]
        last = point.G[-1] @ point.chain.last @ point.G[-1].T
        total = np.trace(H[0] @ H[0] @ first) + np.trace(H[-1] @ H[-1] @ last)
        for j, ks in enumerate(near):
            for k in ks:
                total += np.trace(H[j] @ H[j] @ k @ k.T) + np.trace(H[j + 1] @ H[j + 1] @ k.T @ k)
                total -= 2 * np.trace(H[j] @ k @ H[j + 1] @ k.T)
        return total

    return (along(A + B) - along(A - B)) / 4


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_elimination_solves_newtons_equation(depth, rng):
    chain, K = random_chain(rng, 3, 4, depth)
    point = random_point(chain, rng, 0.2)
    step = eliminated(point, point.near)
    for _ in range(5):
        test = rng.standard_normal(step.shape)
        test = test + test.transpose(0, 2, 1)
        expected = -np.vdot(point.gradient, test)
        assert second_derivative(point, K, step, test) == pytest.approx(expected, rel=1e-8, abs=1e-9 * point.value)


@pytest.mark.parametrize("kind", [few_matrices, one_operator, ManyMatrices])
@pytest.mark.parametrize("depth", [2, 4, 9])
def test_conjugate_gradients_find_the_same_direction(kind, depth, rng):
    chain, K = random_chain(rng, 3, 4, depth, kind)
    best = minimise(chain, 1e-13, quiet()).point
    H = 1e-7 * rng.standard_normal(best.G.shape)
    point = best.moved(H + H.transpose(0, 2, 1))  # close to the minimum, where the equation is solved accurately
    step, count = conjugated(point)
    space = Packing(3)
    near = few_matrices(Dense(K.transpose(0, 2, 1))).framed(point.G[:-1], point.inverse[1:])
    assert space.pack(step).shape == (depth - 1, 6)
    exact = eliminated(point, near)
    traceless = exact - np.trace(exact, axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3)
    np.testing.assert_allclose(step, traceless, atol=2e-3 * np.abs(traceless).max())
    assert count < 6 * depth


@pytest.mark.parametrize("m", [1, 3, 40])
@pytest.mark.parametrize("depth", [3, 8])
def test_both_solvers_reach_the_same_minimum(m, depth, monkeypatch, rng):
    A, M = gaussian(m, (6, 7), rng), rng.standard_normal((6, 7))
    monkeypatch.setattr(_chain, "_QUICKLY_FACTORED", np.inf)
    direct = bf.induced_regularizer(M, A, depth)
    monkeypatch.setattr(_chain, "_QUICKLY_FACTORED", 0)
    iterative = bf.induced_regularizer(M, A, depth)
    assert iterative.value == pytest.approx(direct.value, rel=1e-11)
    assert iterative.certificate.gap <= 1e-12
    assert direct.history["inner"][1:].tolist() == [1] * (direct.history["inner"].size - 1)
    assert iterative.history["inner"].sum() > direct.history["inner"].sum()


def test_iterations_do_not_grow_with_depth(monkeypatch, rng):
    A, M = gaussian(60, (10, 10), rng), rng.standard_normal((10, 10))
    for small in (np.inf, 0):
        monkeypatch.setattr(_chain, "_QUICKLY_FACTORED", small)
        for depth in (5, 20, 80):
            solution = bf.induced_regularizer(M, A, depth)
            assert solution.certificate.gap <= 1e-12
            assert solution.history["gap"].size <= 6
            assert solution.history["inner"].sum() <= 30


def test_preconditioner_is_exact_for_isotropic_measurements(monkeypatch, rng):
    monkeypatch.setattr(_chain, "_QUICKLY_FACTORED", 0)
    basis = np.linalg.qr(rng.standard_normal((16, 16)))[0].reshape(-1, 4, 4)
    M = rng.standard_normal((4, 4))
    chain = Chain(np.eye(4), one_operator(Dense(basis)), np.eye(4), 30)
    best = minimise(chain, 1e-13, quiet()).point
    H = 1e-5 * rng.standard_normal(best.G.shape)
    point = best.moved(H + H.transpose(0, 2, 1))
    _, count = conjugated(point)
    assert count <= 2
    assert bf.induced_regularizer(M, Dense(basis), 30).history["gap"].size == 1


def test_steps_that_are_too_long_are_shortened(rng):
    chain, _ = random_chain(rng, 3, 2, 4)
    point = random_point(chain, rng)
    step = eliminated(point, point.near)
    following, taken = _searched(point, 40 * step)
    assert 1 / 64 <= taken < 1
    assert following.value < point.value
    assert _searched(point, step)[1] == 1.0
    assert _searched(point, -step) is None


def wild_chain(seed, spread):
    """A chain whose entries range over many orders of magnitude."""
    rng = np.random.default_rng(seed)
    r, m, depth = int(rng.integers(2, 5)), int(rng.integers(1, 4)), int(rng.integers(2, 9))
    K = rng.standard_normal((m, r, r)) * np.exp(spread * rng.standard_normal((m, r, r)))
    first, last = (X @ X.T for X in rng.standard_normal((2, r, r)) * np.exp(spread * rng.standard_normal((2, r, r))))
    return Chain(first, few_matrices(Dense(K.transpose(0, 2, 1))), last, depth)


def test_converges_from_far_away():
    for seed in range(40):
        run = minimise(wild_chain(seed, 3.0), 1e-12, quiet())
        assert run.verdict is Ending.MINIMUM
        assert run.history["gap"].size <= 30
        assert np.all(np.diff(run.history["value"]) <= 1e-12 * run.history["value"][:-1])


def test_best_point_is_kept_where_rounding_errors_rule():
    unfinished = worse = 0  # on which of these chains depends on the linear algebra that NumPy was built with
    for seed in (16, 58, 85, 88):
        run = minimise(wild_chain(seed, 6.0), 1e-12, quiet())
        assert run.point.gap == run.history["gap"].min()
        assert (run.verdict is Ending.MINIMUM) == (run.point.gap <= 1e-12)
        unfinished += run.verdict in (Ending.UNATTAINED, Ending.STALLED)
        worse += run.history["gap"][-1] > run.history["gap"].min()
    assert unfinished > 1
    assert worse > 0


@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-12])
def test_endless_steps_are_noticed_before_the_matrices_degenerate(tol):
    broken = Chain(np.eye(2), few_matrices(Dense(np.diag([1.0, 0.0])[None])), np.eye(2), 4)
    run = minimise(broken, tol, quiet())
    assert run.verdict is Ending.UNATTAINED
    assert run.point.gap <= tol


def test_verdicts(rng):
    chain, _ = random_chain(rng, 2, 3, 4)
    assert minimise(chain, 1e-12, quiet()).verdict is Ending.MINIMUM
    stalled = minimise(chain, 1e-300, quiet())
    assert stalled.verdict is Ending.STALLED
    assert stalled.point.gap < 1e-13
    broken = Chain(np.eye(2), few_matrices(Dense(np.diag([1.0, 0.0])[None])), np.eye(2), 4)
    run = minimise(broken, 1e-12, quiet())
    assert run.verdict is Ending.UNATTAINED
    assert run.point.value == pytest.approx(4, rel=1e-10)
    assert run.point.spread > 12 >= run.moderate.spread
