"""The nuclear-norm problems straight from their definitions, for a generic conic solver."""

import cvxpy as cp
import numpy as np

from tests.oracles import left_square, right_square

TIGHT = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12, "max_iter": 200}


def root(square):
    """The symmetric root of a positive-semidefinite matrix."""
    values, vectors = np.linalg.eigh(square)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def rescalings(matrices):
    """D1 and D2 from their definition."""
    return root(left_square(matrices)), root(right_square(matrices))


def conic_minimum(matrices, b, *, flat, penalty=0.0):
    """Value and matrix of the flat (or norm-minimal) problem, in the units of the package.

    The variable is ``Z = D1 X D2``; what the measurements do not see of `X` is zero.
    """
    m = len(matrices)
    D1, D2 = rescalings(matrices) if flat else (np.eye(size) for size in matrices[0].shape)
    E1, E2 = (np.linalg.pinv(D, rcond=1e-7) for D in (D1, D2))
    Z = cp.Variable(matrices[0].shape)
    measured = [cp.sum(cp.multiply(E1 @ A @ E2, Z)) for A in matrices]
    if penalty > 0:
        objective = 0.5 * cp.sum_squares(cp.hstack(measured) - b) + penalty * cp.normNuc(Z)
        problem = cp.Problem(cp.Minimize(objective))
    else:
        fits = [value == datum for value, datum in zip(measured, b, strict=True)]
        problem = cp.Problem(cp.Minimize(cp.normNuc(Z)), fits)
    problem.solve(solver=cp.CLARABEL, **TIGHT)
    units = 1.0 if penalty > 0 else (4.0 * m if flat else 2.0)
    return units * problem.value, E1 @ Z.value @ E2
