"""The nuclear-norm problems straight from their definitions, for a generic conic solver."""

import warnings
from functools import cache

import cvxpy as cp
import numpy as np

from balancedfact.measurements import bernoulli, bernoulli_mask, bilinear, gaussian
from tests.oracles import adjoint, left_square, right_square

TIGHT = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12, "max_iter": 200}


def rescalings(matrices):
    """D1 and D2 from their definition."""

    def root(square):
        values, vectors = np.linalg.eigh(square)
        return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T

    return root(left_square(matrices)), root(right_square(matrices))


def spread(matrices):
    """By how much the nonzero eigenvalues of D1 and of D2 differ at most.

    They are singular values of the matrices side by side, and more accurate so than from the squares of the definition.
    """
    largest = 1.0
    for unfolded in (np.hstack(matrices), np.vstack(matrices)):
        values = np.linalg.svd(unfolded, compute_uv=False)
        largest = max(largest, values[0] / values[values > 1e-12 * values[0]][-1])
    return largest


def pseudo_inverses(matrices, flat):
    """The inverses of D1 and D2 on their ranges, or of the identities that take their place in the norm-minimal problem."""
    if not flat:
        return [np.eye(size) for size in matrices[0].shape]
    return [np.linalg.pinv(D, rcond=1e-7) for D in rescalings(matrices)]


def conic_minimum(matrices, b, *, flat, penalty=0.0):
    """Value and matrix of the flat (or norm-minimal) problem, in the units of the package.

    The variable is ``Z = D1 X D2``; what the measurements do not see of `X` is zero.
    """
    E1, E2 = pseudo_inverses(matrices, flat)
    Z = cp.Variable(matrices[0].shape)
    measured = [cp.sum(cp.multiply(E1 @ A @ E2, Z)) for A in matrices]
    if penalty > 0:
        misfit = sum(cp.square(value - datum) for value, datum in zip(measured, b, strict=True))
        problem = cp.Problem(cp.Minimize(0.5 * misfit + penalty * cp.normNuc(Z)))
    else:
        fits = [value == datum for value, datum in zip(measured, b, strict=True)]
        problem = cp.Problem(cp.Minimize(cp.normNuc(Z)), fits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tolerances are beyond what the solver always reaches
        problem.solve(solver=cp.CLARABEL, **TIGHT)
    units = 1.0 if penalty > 0 else (4.0 * len(matrices) if flat else 2.0)
    return units * problem.value, E1 @ Z.value @ E2


def dual_bound(matrices, b, y, *, flat, penalty=0.0):
    """The lower bound that `y` proves when it satisfies its constraint, and the norm that must be at most 1."""
    E1, E2 = pseudo_inverses(matrices, flat)
    norm = np.linalg.norm(E1 @ adjoint(matrices, y) @ E2, 2)
    if penalty > 0:
        return b @ y - y @ y / 2, norm / penalty
    return (4 * len(matrices) if flat else 2) * (b @ y), norm


# Small problems of the four ensembles of the sources.

ENSEMBLES = {
    "gaussian": lambda rng: gaussian(14, (5, 6), rng),
    "bernoulli": lambda rng: bernoulli(14, (6, 5), rng),
    "bilinear": lambda rng: bilinear(16, (5, 6), rng),
    "bernoulli_mask": lambda rng: bernoulli_mask((6, 5), 0.6, rng),
}


def explicit(A):
    """The matrices of a map of one of the ensembles."""
    if hasattr(A, "matrices"):
        return list(np.ascontiguousarray(A.matrices))
    if hasattr(A, "left"):
        return [np.outer(u, v) for u, v in zip(A.left, A.right, strict=True)]
    matrices = np.zeros((A.m, *A.matrix_shape))
    matrices[np.arange(A.m), A.rows, A.cols] = A.weights
    return list(matrices)


@cache
def example(name):
    """A map, its matrices, and data of a matrix of rank 2, which the measurements are too few to recover."""
    rng = np.random.default_rng(7)
    A = ENSEMBLES[name](rng)
    d1, d2 = A.matrix_shape
    truth = rng.standard_normal((d1, 2)) @ rng.standard_normal((2, d2))
    return A, explicit(A), A(truth)


@cache
def reference(name, flat, penalty):
    """The conic solver's answer to an example."""
    _, matrices, b = example(name)
    return conic_minimum(matrices, b, flat=flat, penalty=penalty)
