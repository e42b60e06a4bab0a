"""Dual vectors of fits of low rank, where that of least norm proves nothing."""

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.solution import Status
from balancedfact.solvers import Factored, InteriorPoint, NuclearProblem, Point
from balancedfact.solvers.nuclear._completed_certificate import completed_certificates, proved_fits
from balancedfact.solvers.nuclear._least_norm import least_norm_certificate


def entries(shape, m, values, seed):
    """Entries of a matrix with these singular values, and its balanced point with the dual vector of least norm."""
    rng = np.random.default_rng(seed)
    places = rng.choice(shape[0] * shape[1], m, replace=False)
    A = bf.measurements.Entries(*np.divmod(places, shape[1]), shape)
    U, V = (np.linalg.qr(rng.standard_normal((d, len(values))))[0] for d in shape)
    s = np.asarray(values)
    return A, Point(U * np.sqrt(s), V * np.sqrt(s), s, least_norm_certificate(A, U, V))


def bound(A, point, y):
    """The lower bound of a dual vector, from the definition."""
    return float(A.forward_factored(point.L, point.R) @ y) / np.linalg.norm(A.adjoint(y), 2)


@pytest.mark.parametrize("condition", [1.0, 1e5, 1e10])
@pytest.mark.parametrize(("shape", "m"), [((40, 40), 760), ((30, 60), 720)])
def test_a_fit_that_is_best_is_proved_whatever_its_condition(shape, m, condition):
    A, point = entries(shape, m, np.logspace(0, -np.log10(condition), 3), seed=1)
    problem = NuclearProblem(A, A.forward_factored(point.L, point.R), 0.0)
    total = point.s.sum()
    assert bound(A, point, point.y) < total * (1 - 1e-3)
    found = [bound(A, point, y) for y in completed_certificates(problem, point)]
    np.testing.assert_allclose(found[0], total, rtol=4e-9)
    np.testing.assert_allclose(found[-1], total, rtol=1e-10)


def test_a_fit_that_is_not_best_is_not_proved():
    A, point = entries((40, 40), 640, [1.0, 1.0, 1.0], seed=1)
    b = A.forward_factored(point.L, point.R)
    best = bf.norm_minimum(A, b, method=InteriorPoint(), rng=0).value / 2
    assert best < point.s.sum() * (1 - 1e-3)
    assert all(bound(A, point, y) <= best * (1 + 1e-9) for y in completed_certificates(NuclearProblem(A, b, 0.0), point))


def test_the_factored_method_completes_on_demand():
    A, point = entries((40, 40), 760, np.logspace(0, -1, 3), seed=1)
    b = A.forward_factored(point.L, point.R)
    solution = bf.norm_minimum(A, b, method=Factored(complete=True), rng=0)
    assert (solution.status, solution.rank) == (Status.OPTIMAL, 3)
    np.testing.assert_allclose(solution.value, 2 * point.s.sum(), rtol=1e-8)


def test_a_fit_that_a_path_of_penalties_misses_is_found_and_proved():
    A, point = entries((60, 60), 1400, np.logspace(0, -6, 3), seed=1)
    b = A.forward_factored(point.L, point.R)
    problem = NuclearProblem(A, b, 0.0)
    found = list(proved_fits(problem, np.random.default_rng(0)))
    np.testing.assert_allclose(found[0].s, point.s, rtol=1e-8)
    np.testing.assert_allclose(bound(A, point, found[-1].y), point.s.sum(), rtol=1e-9)
    assert not list(
        proved_fits(NuclearProblem(A, np.random.default_rng(2).standard_normal(A.m), 0.0), np.random.default_rng(0))
    )
