"""Newton's method on the dual against the interior-point method, and where it is chosen."""

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.solution import Status
from balancedfact.solvers import DualNewton, InteriorPoint, NuclearProblem
from balancedfact.solvers.iteration._conjugate_gradients import conjugate_gradients, identity
from balancedfact.solvers.nuclear import _selection
from balancedfact.solvers.nuclear._dual_newton import dual_newton
from balancedfact.solvers.nuclear._thresholding import CorePreconditioner, Thresholded

DUAL_NEWTON = DualNewton()


def few_entries(shape, m, rank, seed=0):
    """Entries of a matrix of low rank that are too few to determine it."""
    rng = np.random.default_rng(seed)
    places = rng.choice(shape[0] * shape[1], m, replace=False)
    A = bf.measurements.Entries(*np.divmod(places, shape[1]), shape)
    L, R = (rng.standard_normal((d, rank)) for d in shape)
    return A, A.forward_factored(L, R)


@pytest.mark.few(1)
@pytest.mark.parametrize("penalty", [0.0, 1e-3, 3.0])
@pytest.mark.parametrize("shape", [(20, 20), (14, 22), (22, 14)])
def test_the_optimum_is_that_of_the_interior_point_method(shape, penalty):
    A, b = few_entries(shape, 130, 4)
    solution = bf.flat_minimum(A, b, penalty=penalty, method=DUAL_NEWTON, rng=0)
    other = bf.flat_minimum(A, b, penalty=penalty, method=InteriorPoint(), rng=0)
    assert (solution.status, solution.method) == (Status.OPTIMAL, "dual Newton")
    assert solution.rank > 4
    np.testing.assert_allclose(solution.value, other.value, rtol=2e-8)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_extreme_data(scale):
    A, b = few_entries((12, 15), 90, 2)
    plain = bf.norm_minimum(A, b, method=DUAL_NEWTON, rng=0)
    scaled = bf.norm_minimum(A, scale * b, method=DUAL_NEWTON, rng=0)
    assert scaled.status is Status.OPTIMAL
    np.testing.assert_allclose(scaled.value / scale, plain.value, rtol=1e-8)


@pytest.mark.slow
def test_entries_at_the_edge_are_certified_at_any_rank():
    A, b = few_entries((60, 60), 1100, 6)
    solution = bf.flat_minimum(A, b, rng=0)
    assert (solution.status, solution.method) == (Status.OPTIMAL, "dual Newton")
    assert solution.rank > 6
    assert solution.value <= bf.flat_minimum(A, b, method="splitting", rng=0).value * (1 + 1e-8)


@pytest.mark.slow
def test_the_preconditioner_saves_products():
    A, b = few_entries((40, 40), 560, 5)
    problem = NuclearProblem(A, b, 0.0)
    Z, y, _ = list(dual_newton(problem))[-1]
    t = 100 * float(np.linalg.norm(Z, 2))
    U, s, Vt = np.linalg.svd(Z + t * A.adjoint(y))
    at = Thresholded(A, U, s, Vt.T, t * (1 + 1e-9))
    target, counts = np.random.default_rng(0).standard_normal(A.m), []
    for precondition in (identity, CorePreconditioner(at, 1e-6)):
        found = conjugate_gradients(
            lambda v: at.product(v) + 1e-6 * v, target, accuracy=1e-2, max_products=3000, precondition=precondition
        )
        counts.append(found.products)
    assert 3 * counts[1] < counts[0] < 3000


def test_a_start_is_used():
    A, b = few_entries((20, 20), 130, 4)
    solution = bf.flat_minimum(A, b, method=DUAL_NEWTON, rng=0)
    again = bf.flat_minimum(A, b, method=DUAL_NEWTON, rng=0, initial=solution.pair)
    assert again.status is Status.OPTIMAL
    np.testing.assert_allclose(again.value, solution.value, rtol=2e-8)


def test_what_does_not_suit_is_refused():
    A, b = few_entries((12, 15), 90, 2)
    with pytest.raises(ValueError, match="does not suit the problem: decompositions of a 12 x 15 matrix"):
        bf.flat_minimum(A, b, method=DualNewton(most_entries=100))
    with pytest.raises(ValueError, match="has no place for offsets"):
        bf.flat_minimum(A, b, penalty=1.0, offset_penalty=1.0, method=DUAL_NEWTON)
    with pytest.raises(ValueError, match="it is for Entries"):
        bf.flat_minimum(bf.measurements.gaussian(8, (4, 3), rng=0), np.ones(8), method=DUAL_NEWTON)
    with pytest.raises(ValueError, match="most_entries is 0"):
        DualNewton(most_entries=0)


def test_few_steps_leave_a_true_certificate():
    A, b = few_entries((40, 40), 560, 5)
    solution = bf.flat_minimum(A, b, method=DualNewton(max_iterations=3), rng=0)
    assert solution.status is Status.GAP_OPEN
    best = bf.flat_minimum(A, b, method=DUAL_NEWTON, rng=0).value
    assert solution.certificate.lower_bound <= best <= solution.value


def test_the_factored_method_leaves_a_fit_that_repeats(monkeypatch):
    """Where a low rank fits and its dual vector of least norm fails, the next algorithm proves it."""
    monkeypatch.setattr(_selection, "_MANY_ENTRIES", 0)
    A, b = few_entries((30, 30), 400, 2, seed=1)
    stays = bf.flat_minimum(A, b, method=bf.solvers.Factored(), rng=0, tol=1e-6)
    solution = bf.flat_minimum(A, b, rng=0)
    assert solution.status is Status.OPTIMAL
    np.testing.assert_allclose(solution.value, stays.value, rtol=1e-6)


def ill_conditioned(size, rank, m, seed):
    """Entries of a matrix with singular values from 1 down to 1e-5, too few to determine it."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((size, rank)))[0] for _ in range(2))
    A = bf.measurements.Entries(*np.divmod(rng.choice(size * size, m, replace=False), size), (size, size))
    return A, A.forward_factored(U * np.logspace(0, -5, rank), V)


@pytest.mark.slow
def test_singular_values_of_many_sizes_are_left_to_an_interior_point_method():
    """The Newton matrix is then too ill-conditioned for conjugate gradients; the solution is of exact rank all the same."""
    A, b = ill_conditioned(40, 5, 562, seed=1)
    alone = bf.flat_minimum(A, b, method=DualNewton(most_measurements=A.m - 1, max_iterations=30), rng=0)
    assert alone.status is Status.GAP_OPEN
    solution = bf.flat_minimum(A, b, method=DualNewton(most_measurements=A.m), rng=0)
    assert solution.status is Status.OPTIMAL
    assert solution.rank < 25
    assert alone.certificate.lower_bound <= solution.value <= alone.value
    other = bf.flat_minimum(A, b, method=InteriorPoint(), rng=0)
    np.testing.assert_allclose(solution.value, other.value, rtol=2e-8)
    with pytest.raises(ValueError, match="most_measurements is 0"):
        DualNewton(most_measurements=0)
