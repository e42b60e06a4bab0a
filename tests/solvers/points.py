"""Normalised problems, and what the points that an algorithm proposes for them are worth."""

import numpy as np

from balancedfact.solvers.nuclear._frame import Frame
from balancedfact.solvers.nuclear._problem import Point, balanced_from_matrix
from tests.solvers.conic import example, reference


def frame_of(name, flat, penalty):
    """The normalised problem of an example, with its units."""
    A, _, b = example(name)
    return Frame(A, b, penalty, flat=flat)


def from_matrices(iterates):
    """The points of an algorithm that yields matrices and dual vectors."""
    return [Point(*balanced_from_matrix(Z), y) for Z, y in iterates]


def gap_of(verdict):
    return abs(verdict.value - verdict.lower) / verdict.value


def best(problem, points):
    """The best point and dual bound among `points`, as the point with its verdict."""
    rng = np.random.default_rng(0)
    judged = [(point, problem.judge(point, rng)) for point in points]
    lower = max(verdict.lower for _, verdict in judged)
    fitting = [pair for pair in judged if problem.q > 0 or pair[1].residual <= 1e-10]
    point, verdict = min(fitting, key=lambda pair: pair[1].value)
    return point, verdict._replace(lower=lower)


def assert_reaches_the_optimum(name, flat, penalty, points, *, matrix_tol, gap=1e-8):
    """The best of the points has the value and the matrix of the conic solver, and together they prove it."""
    frame = frame_of(name, flat, penalty)
    value, X = reference(name, flat, penalty)
    point, verdict = best(frame.problem, points)
    np.testing.assert_allclose(frame.units * verdict.value, value, rtol=1e-7)
    np.testing.assert_allclose(frame.units * verdict.lower, value, rtol=1e-7)
    assert gap_of(verdict) <= gap
    found = frame.size * (frame.white.left @ point.L) @ (frame.white.right @ point.R).T
    assert np.linalg.norm(found - X) <= matrix_tol * np.linalg.norm(X)
