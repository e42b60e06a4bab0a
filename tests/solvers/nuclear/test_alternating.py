import numpy as np
import pytest

import balancedfact as bf
from balancedfact.measurements import Entries, bernoulli_mask, gaussian
from balancedfact.solvers.nuclear._alternating import alternating, is_uneven
from balancedfact.solvers.nuclear._columns import needed
from balancedfact.solvers.nuclear._frame import Frame
from balancedfact.solvers.nuclear._noise_edge import largest_penalty
from balancedfact.solvers.nuclear._problem import balanced

pytestmark = pytest.mark.filterwarnings("error")


def uneven(rng, shape=(60, 45), m=900, spread=1.0):
    """Noisy entries of a matrix of rank 3 whose rows and columns are seen very unevenly."""
    chances = [rng.lognormal(0, 1.3, d) for d in shape]
    places = rng.choice(shape[0] * shape[1], m, replace=False, p=np.outer(*chances).ravel() / np.outer(*chances).sum())
    A = Entries(*np.divmod(places, shape[1]), shape, spread ** rng.uniform(-1, 0, m))
    truth = rng.standard_normal((shape[0], 3)) @ rng.standard_normal((3, shape[1]))
    return A, A(truth) + 0.3 * A.weights * rng.standard_normal(m)


def frame(A, b, fraction, **options):
    """The problem at this fraction of the penalty from which on the solution is zero."""
    return Frame(A, b, fraction * largest_penalty(A, b, np.random.default_rng(0)), flat=True, **options)


def seen(A, b):
    """The problem without rows and columns that nothing sees."""
    rows, cols = (np.unique(each, return_inverse=True)[1] for each in (A.rows, A.cols))
    return Entries(rows, cols, (rows.max() + 1, cols.max() + 1), A.weights), b


@pytest.mark.few(1)
@pytest.mark.parametrize("fraction", [0.5, pytest.param(0.1, marks=pytest.mark.slow), 0.01])
@pytest.mark.parametrize(
    ("transposed", "spread"), [(True, 1.0), pytest.param(False, 1.0, marks=pytest.mark.slow), (False, 1e4)]
)
def test_it_finds_the_minimum_that_a_dense_method_proves(transposed, spread, fraction):
    rng = np.random.default_rng(3)
    A, b = seen(*uneven(rng, spread=spread))
    if transposed:
        A = Entries(A.cols, A.rows, A.matrix_shape[::-1], A.weights)
    whole = frame(A, b, fraction)
    proved = bf.flat_minimum(A, b, penalty=whole.penalty, method=bf.solvers.Splitting(), tol=1e-7)
    verdicts = [whole.problem.judge(point, rng) for point in alternating(whole.problem, rng)]
    value, lower = min(each.value for each in verdicts), max(each.lower for each in verdicts)
    assert lower <= value * (1 + 1e-12)
    assert (value - lower) / value < 1e-3
    np.testing.assert_allclose(whole.units * value, proved.value, rtol=1e-4)  # Newton's method brings the rest
    precise = bf.flat_minimum(A, b, penalty=whole.penalty, method=bf.solvers.Factored(), tol=1e-9)
    np.testing.assert_allclose(precise.value, proved.value, rtol=1e-7)
    assert precise.status is bf.Status.OPTIMAL


def test_offsets_are_minimised_along():
    rng = np.random.default_rng(5)
    A, b = seen(*uneven(rng))
    b = b + 2 * rng.standard_normal(A.matrix_shape[0])[A.rows] - rng.standard_normal(A.matrix_shape[1])[A.cols] + 3
    whole = frame(A, b, 0.05, offset_penalty=0.7)
    verdicts = [whole.problem.judge(point, rng) for point in alternating(whole.problem, rng)]
    value, lower = min(each.value for each in verdicts), max(each.lower for each in verdicts)
    assert 0 <= (value - lower) / value < 1e-3


def test_the_limit_on_the_rank_is_kept_and_a_start_is_used(rng):
    A, b = seen(*uneven(rng))
    problem = frame(A, b, 0.05).problem
    assert max(point.s.size for point in alternating(problem, rng, max_rank=2)) <= 2
    best = min(alternating(problem, rng), key=lambda point: problem.judge(point, rng).value)
    first = next(alternating(problem, rng, initial=(best.L, best.R)))
    assert problem.judge(first, rng).value <= problem.judge(best, rng).value * (1 + 1e-9)


def test_the_same_seed_gives_the_same_points():
    A, b = seen(*uneven(np.random.default_rng(0)))
    problem = frame(A, b, 0.1).problem
    once, again = (list(alternating(problem, np.random.default_rng(1))) for _ in range(2))
    assert len(once) == len(again)
    assert all(np.array_equal(p.L, q.L) and np.array_equal(p.y, q.y) for p, q in zip(once, again, strict=True))


def test_only_penalised_entries_that_are_uneven_are_called_so(rng):
    A, b = uneven(rng)
    assert is_uneven(Frame(A, b, 1.0, flat=False).problem)
    assert not is_uneven(Frame(A, A(np.ones(A.matrix_shape)), 0.0, flat=True).problem)
    even = bernoulli_mask((60, 45), 0.6, rng)
    assert not is_uneven(Frame(even, np.ones(even.m), 1.0, flat=True).problem)
    other = gaussian(30, (6, 5), rng)
    assert not is_uneven(Frame(other, np.ones(30), 1.0, flat=True).problem)


def test_columns_whose_best_coefficient_is_zero_go(rng):
    A, b = seen(*uneven(rng))
    problem = frame(A, b, 0.1).problem
    L, R, s = balanced(*(rng.standard_normal((d, 4)) for d in problem.map.matrix_shape))
    L, R, s = (each * factor for each, factor in zip((L, R, s), (1e-3, 1e-3, 1e-6), strict=True))
    y = (problem.b - problem.map.forward_factored(L, R)) / problem.q
    U, V = L / np.sqrt(s), R / np.sqrt(s)
    best = []
    for j in range(4):  # the coefficient t >= 0 of u v.T with the rest as it is, from a fine grid around its stationary point
        image = problem.map(np.outer(U[:, j], V[:, j]))
        rest = problem.q * y + s[j] * image
        grid = np.linspace(0, 2 * abs(image @ rest) / (image @ image), 4001)
        costs = [0.5 * np.sum((rest - t * image) ** 2) + problem.q * t for t in grid]
        best.append(grid[int(np.argmin(costs))])
    np.testing.assert_allclose(
        problem.map.image_squares(U, V), [np.sum(problem.map(np.outer(u, v)) ** 2) for u, v in zip(U.T, V.T, strict=True)]
    )
    kept = needed(problem.map, L, R, s, y, problem.q)[2]
    np.testing.assert_allclose(kept, s[np.array(best) > 0])
