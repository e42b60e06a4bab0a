"""The convex problem on the core of near-active singular vectors, against the interior point of the whole problem."""

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.measurements import Entries
from balancedfact.solvers.nuclear._active_core import _solved, active_core
from balancedfact.solvers.nuclear._interior_point import interior_point
from balancedfact.solvers.nuclear._problem import NuclearProblem, Point, balanced
from tests import maps


def normalised(build, rng, q, m, shape=(7, 5)):
    A, _ = build(rng, *shape, m, "none")
    b = A(rng.standard_normal((shape[0], 2)) @ rng.standard_normal((2, shape[1]))) + 0.2 * rng.standard_normal(A.m)
    size = np.linalg.norm(b)
    return NuclearProblem(A, b / size, q / size)


def exact(problem):
    """Matrix, dual vector and value of the whole problem."""
    for found in interior_point(problem):
        Z, y = found
    misfit = problem.b - problem.map(Z)
    return Z, y, np.linalg.norm(Z, "nuc") + misfit @ misfit / (2 * problem.q)


@pytest.mark.parametrize("build", [maps.dense, maps.entries, maps.rank_one])
@pytest.mark.parametrize("m", [9, 30])
def test_on_the_whole_space_it_is_the_whole_problem(build, m, rng):
    """With fewer measurements than numbers in the core, and with more (30 > 4 x 5)."""
    problem = normalised(build, rng, 0.3, m, shape=(4, 5) if m == 30 and build is not maps.entries else (7, 5))
    d1, d2 = problem.map.matrix_shape
    U, V = (np.linalg.qr(rng.standard_normal((d, d)))[0] for d in (d1, d2))
    C, y = _solved(problem, U, V)
    _, expected, value = exact(problem)
    misfit = problem.b - problem.map(U @ C @ V.T)
    assert np.linalg.norm(C, "nuc") + misfit @ misfit / (2 * problem.q) == pytest.approx(value, rel=1e-11)
    np.testing.assert_allclose(y, expected, atol=1e-5 * np.linalg.norm(expected))
    assert np.linalg.norm(problem.map.adjoint(y), 2) <= 1 + 1e-12


def test_the_dual_vector_is_feasible_on_the_core_and_its_value_is_that_of_the_core(rng):
    """The best matrix within the core and the best dual vector have one value, with more measurements than numbers."""
    problem = normalised(maps.dense, rng, 0.3, 30)
    U, V = np.linalg.qr(rng.standard_normal((7, 2)))[0], np.linalg.qr(rng.standard_normal((5, 3)))[0]
    C, y = _solved(problem, U, V)
    misfit = problem.b - problem.map(U @ C @ V.T)
    value = np.linalg.norm(C, "nuc") + misfit @ misfit / (2 * problem.q)
    assert np.linalg.norm(U.T @ problem.map.adjoint(y) @ V, 2) <= 1 + 1e-12
    assert problem.b @ y - 0.5 * problem.q * y @ y == pytest.approx(value, rel=1e-11)


@pytest.mark.parametrize("build", [maps.dense, maps.entries, maps.rank_one])
def test_rounds_from_a_rough_point_end_at_the_optimum(build, rng):
    problem = normalised(build, rng, 0.05, 20)
    Z, _, value = exact(problem)
    U, s, Vt = np.linalg.svd(Z + 1e-3 * rng.standard_normal(Z.shape), full_matrices=False)
    k = np.count_nonzero(s > 1e-2)
    L, R, _ = balanced(U[:, :k] * s[:k], Vt[:k].T)
    y = problem.less(L, R) / problem.q
    points = list(active_core(problem, L, R, y, rng))
    verdicts = [problem.judge(point, rng, accuracy=1e-12) for point in points]
    assert verdicts[-1].value == pytest.approx(value, rel=1e-10)
    assert verdicts[-1].value - verdicts[-1].lower <= 1e-10 * value
    assert all(np.allclose(p.L.T @ p.L, np.diag(p.s)) and np.allclose(p.R.T @ p.R, np.diag(p.s)) for p in points)


def test_a_core_that_is_too_large_is_left_alone(rng):
    A = bf.measurements.gaussian(40, (40, 35), rng=0)
    L, R, s = balanced(rng.standard_normal((40, 30)), rng.standard_normal((35, 30)))
    assert list(active_core(NuclearProblem(A, np.ones(40), 0.1), L, R, np.zeros(40), rng)) == []
    assert isinstance(Point(L, R, s, np.zeros(40)), Point)


@pytest.mark.parametrize("method", ["riemannian", "factored"])
def test_a_minimiser_that_is_hardly_unique(method):
    """42 entries of 15 x 24: ten singular values of the dual matrix are 1, and pairs of rank 3 fit as well up to 1e-9."""
    rng = np.random.default_rng(163)
    places = rng.choice(15 * 24, 42, replace=False)
    A = Entries(*np.unravel_index(places, (15, 24)), (15, 24))
    b = A(np.outer(rng.standard_normal(15), rng.standard_normal(24)))
    b = b + 0.5 * np.std(b) * rng.standard_normal(42)
    found = bf.flat_minimum(A, b, penalty=1.5, method=method, rng=1)
    assert found.status is bf.Status.OPTIMAL
