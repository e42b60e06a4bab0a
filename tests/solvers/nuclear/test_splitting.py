import numpy as np
import pytest

from balancedfact.measurements import Dense, Entries, bernoulli_mask, gaussian
from balancedfact.solvers.nuclear._frame import Frame
from balancedfact.solvers.nuclear._problem import balanced_from_matrix
from balancedfact.solvers.nuclear._splitting import _Anderson, splitting
from tests.solvers.conic import ENSEMBLES
from tests.solvers.points import assert_reaches_the_optimum, best, frame_of, from_matrices, gap_of

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.few(1)
@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_iteration_ends_at_the_optimum(name, flat, penalty):
    points = from_matrices(splitting(frame_of(name, flat, penalty).problem, max_iterations=1500))
    assert_reaches_the_optimum(name, flat, penalty, points, matrix_tol=1e-6)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_every_matrix_fits_data_that_are_to_be_interpolated(name):
    problem = frame_of(name, True, 0.0).problem
    for Z, _ in splitting(problem, max_iterations=200):
        np.testing.assert_allclose(problem.map(Z), problem.b, atol=1e-12 * np.abs(problem.b).max())


@pytest.mark.parametrize("name", ENSEMBLES)
def test_with_a_penalty_every_residual_is_the_dual_vector(name):
    problem = frame_of(name, True, 0.3).problem
    for Z, y in splitting(problem, max_iterations=200):
        np.testing.assert_allclose(problem.map(Z) + problem.q * y, problem.b, atol=1e-11 * np.abs(problem.b).max())


@pytest.mark.few(1)
@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_a_start_at_the_solution_is_worth_something(penalty, rng):
    problem = frame_of("bernoulli_mask", True, penalty).problem
    Z = list(splitting(problem, max_iterations=1500))[-1][0]
    L, R, _ = balanced_from_matrix(Z)
    first, *_ = from_matrices(splitting(problem, initial=(L, R), max_iterations=1))
    cold, *_ = from_matrices(splitting(problem, max_iterations=1))
    values = [problem.judge(point, rng).value for point in (first, cold)]
    assert values[0] <= values[1]
    elsewhere = rng.standard_normal((6, 2)), rng.standard_normal((5, 2))
    for start in ((L, R), elsewhere):
        _, verdict = best(problem, from_matrices(splitting(problem, initial=start, max_iterations=1500)))
        assert gap_of(verdict) <= 1e-9


# Six entries in a ring: mixing alone goes round in circles on some of these data.
RING = Entries([0, 0, 1, 1, 2, 2], [0, 1, 0, 2, 1, 2], (3, 3))


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(8))
def test_mixing_does_not_stall(seed, penalty):
    b = RING(np.random.default_rng(seed).standard_normal((3, 3)))
    problem = Frame(RING, b, penalty * np.linalg.norm(b), flat=True).problem
    _, verdict = best(problem, from_matrices(splitting(problem, max_iterations=3000)))
    assert gap_of(verdict) <= 1e-8


def test_iterations_beyond_convergence_do_no_harm():
    for name, penalty in (("gaussian", 0.0), ("bernoulli_mask", 0.3)):
        problem = frame_of(name, True, penalty).problem
        points = from_matrices(splitting(problem, max_iterations=3000))
        _, verdict = best(problem, points[-1:])
        assert gap_of(verdict) <= 1e-12


def test_more_measurements_than_an_interior_point_method_likes(rng):
    truth = rng.standard_normal((70, 3)) @ rng.standard_normal((3, 60))
    A = bernoulli_mask((70, 60), 0.7, rng)
    problem = Frame(A, A(truth), 0.0, flat=True).problem
    assert problem.map.m > 2500
    _, verdict = best(problem, from_matrices(splitting(problem, max_iterations=400)))
    assert gap_of(verdict) <= 1e-8


@pytest.mark.few(4)
@pytest.mark.parametrize(("m", "shape"), [(1, (1, 6)), (1, (6, 1)), (5, (30, 1)), (5, (1, 30)), (20, (40, 2)), (3, (40, 2))])
@pytest.mark.parametrize("penalty", [0.0, 0.02])
def test_thin_matrices(m, shape, penalty, rng):
    problem = Frame(gaussian(m, shape, rng), rng.standard_normal(m), penalty, flat=True).problem
    _, verdict = best(problem, from_matrices(splitting(problem, max_iterations=1000)))
    assert gap_of(verdict) <= 1e-8


def test_dependent_measurements_with_a_penalty(rng):
    matrices = rng.standard_normal((6, 4, 3))
    for A in (Dense(np.concatenate([matrices, matrices[:3]])), Entries([0, 0, 1, 1], [0, 0, 1, 2], (2, 3))):
        problem = Frame(A, rng.standard_normal(A.m), 0.1, flat=True).problem
        _, verdict = best(problem, from_matrices(splitting(problem, max_iterations=1500)))
        assert gap_of(verdict) <= 1e-8


# Mixing


def iterations(mixer, f, V, tol, most=2000):
    for k in range(most):
        step = f(V)
        if np.linalg.norm(step) <= tol:
            return k, V
        V = mixer.next(V, step)
    return most, V


def test_mixing_solves_a_linear_iteration_in_about_as_many_steps_as_it_has_dimensions(rng):
    Q = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    slow = (Q * np.linspace(0.5, 0.999, 8)) @ Q.T
    goal = rng.standard_normal((4, 2))

    def f(V):
        return (slow @ (V - goal).ravel() - (V - goal).ravel()).reshape(4, 2)

    V = goal + 0.1 * rng.standard_normal((4, 2))
    plain, _ = iterations(_Anderson(0), f, V, 1e-8)
    mixed, end = iterations(_Anderson(10), f, V, 1e-8)
    assert plain > 500
    assert mixed <= 30
    np.testing.assert_allclose(end, goal, atol=1e-4)


def test_mixing_leaves_a_fixed_point_alone_and_keeps_going_where_there_is_none():
    V = np.ones((2, 3))
    mixer = _Anderson(5)
    for _ in range(20):
        V = mixer.next(V, np.zeros((2, 3)))
    np.testing.assert_array_equal(V, np.ones((2, 3)))
    mixer = _Anderson(5)
    for _ in range(50):
        V = mixer.next(V, np.full((2, 3), 0.1))
    np.testing.assert_allclose(V, 1 + 0.1 * 50)


def test_mixing_gives_way_to_plain_steps_where_it_does_not_help(rng):
    mixer, V, steps = _Anderson(3), np.ones((2, 2)), []
    for _ in range(60):
        f = rng.standard_normal((2, 2))
        f *= 0.1 / np.linalg.norm(f)  # no progress at all
        after = mixer.next(V, f)
        steps.append(np.array_equal(after, V + f))
        V = after
    longest = max(len(run) for run in "".join("x" if plain else " " for plain in steps).split())
    assert longest >= 6
