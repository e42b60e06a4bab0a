from itertools import pairwise

import numpy as np
import pytest

from balancedfact.measurements import Dense, Entries, bernoulli_mask, bilinear, gaussian
from balancedfact.solvers.nuclear._frame import Frame
from balancedfact.solvers.nuclear._interior_point import _near_path, _refined_solver, interior_point
from tests.solvers.conic import ENSEMBLES
from tests.solvers.points import assert_reaches_the_optimum, best, frame_of, from_matrices, gap_of

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_path_ends_at_the_optimum(name, flat, penalty):
    points = from_matrices(interior_point(frame_of(name, flat, penalty).problem))
    assert_reaches_the_optimum(name, flat, penalty, points, matrix_tol=1e-4 if penalty == 0 else 1e-6)


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_every_iterate_is_feasible_for_the_dual_and_the_gap_closes_fast(name, penalty):
    problem = frame_of(name, True, penalty).problem
    gaps = []
    for Z, y in interior_point(problem):
        assert np.linalg.norm(problem.map.adjoint(y), 2) < 1
        verdict = problem.judge(from_matrices([(Z, y)])[0], np.random.default_rng(0))
        gaps.append(gap_of(verdict))
        # What the primal equation leaves is the residual r = q y, and nothing of it while the path is followed.
        misfit = np.linalg.norm(problem.map(Z) + problem.q * y - problem.b)
        if penalty == 0 or len(gaps) > 6:
            assert misfit <= 1e-7 * np.linalg.norm(problem.b)
        if gaps[-1] <= 1e-8:
            break
    assert len(gaps) <= 16
    assert all(after <= 0.8 * before for before, after in pairwise(gaps))
    assert gaps[-1] <= 0.2 * gaps[-2]


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_the_path_ends_by_itself(penalty):
    problem = frame_of("gaussian", True, penalty).problem
    iterates = list(interior_point(problem))
    assert 10 < len(iterates) < 100
    assert all(np.isfinite(Z).all() and np.isfinite(y).all() for Z, y in iterates)
    assert len(list(interior_point(problem, max_iterations=3))) == 3


def test_the_first_iterate_fits_the_data_and_its_dual_vector_is_zero():
    problem = frame_of("bernoulli", True, 0.0).problem
    Z, y = next(interior_point(problem))
    np.testing.assert_allclose(problem.map(Z), problem.b, atol=1e-12)
    np.testing.assert_array_equal(y, np.zeros(problem.map.m))
    rows = np.array([problem.map.rmatvec(unit) for unit in np.eye(problem.map.m)])
    np.testing.assert_allclose(Z.ravel(), np.linalg.pinv(rows) @ problem.b, atol=1e-12)


@pytest.mark.parametrize("penalty", [0.0, 1e-3])
def test_where_the_truth_is_recovered_and_the_dual_solution_is_not_unique(penalty, rng):
    truth = rng.standard_normal((14, 2)) @ rng.standard_normal((2, 12))
    for A in (gaussian(140, (14, 12), rng), bilinear(140, (14, 12), rng), bernoulli_mask((14, 12), 0.8, rng)):
        problem = Frame(A, A(truth), penalty, flat=True).problem
        _, verdict = best(problem, from_matrices(interior_point(problem)))
        assert gap_of(verdict) <= 1e-8


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (4, 3)])
def test_few_measurements_and_thin_matrices(shape, penalty, rng):
    for m in {1, min(2, shape[0] * shape[1])}:
        A = gaussian(m, shape, rng)
        problem = Frame(A, rng.standard_normal(m), penalty, flat=True).problem
        _, verdict = best(problem, from_matrices(interior_point(problem)))
        assert gap_of(verdict) <= 1e-8


def test_dependent_measurements_with_a_penalty(rng):
    matrices = rng.standard_normal((6, 4, 3))
    A = Dense(np.concatenate([matrices, matrices[:3]]))
    problem = Frame(A, rng.standard_normal(9), 0.1, flat=True).problem
    _, verdict = best(problem, from_matrices(interior_point(problem)))
    assert gap_of(verdict) <= 1e-8
    repeated = Entries([0, 0, 1, 1], [0, 0, 1, 2], (2, 3))
    problem = Frame(repeated, np.array([1.0, 2.0, 3.0, -1.0]), 0.1, flat=True).problem
    _, verdict = best(problem, from_matrices(interior_point(problem)))
    assert gap_of(verdict) <= 1e-8


def test_newton_systems_that_are_singular_to_working_precision(rng):
    factor = rng.standard_normal((8, 5))
    M = factor @ factor.T
    x = M @ rng.standard_normal(8)
    np.testing.assert_allclose(M @ _refined_solver(M)(x), x, atol=1e-8 * np.abs(x).max())
    regular = M + np.eye(8)
    np.testing.assert_allclose(_refined_solver(regular)(x), np.linalg.solve(regular, x), rtol=1e-12)
    assert _refined_solver(M - np.eye(8)) is None


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_a_start_from_another_algorithm_is_taken_near_the_path(shape, penalty, rng):
    problem = Frame(gaussian(30, shape, rng=rng), rng.standard_normal(30), penalty, flat=False).problem
    path = list(interior_point(problem))
    Z, y = path[3]
    P, inside, S = _near_path(problem, Z, 1.5 * y)
    np.testing.assert_allclose(S, problem.map.adjoint(inside))
    np.testing.assert_allclose(np.linalg.norm(S, 2), 0.9)
    d1 = shape[0]
    np.testing.assert_allclose(P[:d1, d1:], Z)
    assert np.linalg.eigvalsh(P)[0] > 0
    gap = np.linalg.norm(Z, "nuc") - problem.b @ inside + 0.5 * problem.q * inside @ inside
    s = np.linalg.svd(Z, compute_uv=False)
    a = np.sort(np.linalg.eigvalsh(P[:d1, :d1]))[::-1][: s.size]
    np.testing.assert_allclose(a - s**2 / a, 2 * gap / sum(shape))
    again = list(interior_point(problem, start=(Z, y)))
    np.testing.assert_allclose(again[-1][0], path[-1][0], atol=1e-6)


def test_iterates_fit_where_rounding_would_move_them_off_the_data():
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((30, 4)))[0] for _ in range(2))
    A = Entries(*np.divmod(rng.choice(900, 400, replace=False), 30), (30, 30))
    problem = Frame(A, A.forward_factored(U * np.logspace(0, -5, 4), V), 0.0, flat=True).problem
    for Z, _ in interior_point(problem):
        np.testing.assert_allclose(problem.map.forward(Z), problem.b, atol=1e-13 * np.linalg.norm(problem.b))
