"""The search for a matrix of given rank that fits, without a convex problem, where the data are more than it has parameters."""

from __future__ import annotations

import numpy as np

from balancedfact.solvers.nuclear._columns import leading, trimmed
from balancedfact.solvers.nuclear._descent import descend
from balancedfact.solvers.nuclear._least_norm import least_norm_certificate
from balancedfact.solvers.nuclear._problem import NuclearProblem, Pair, Point, balanced
from balancedfact.solvers.nuclear._reweighted import reweighted

_EXACT_FIT = 1e-14  # the relative residual at which the descent on the factors ends
_FITS_WITHOUT = 1e-11  # the relative residual of columns beside which others are not needed
_MOST_FITTING_PRODUCTS = 3000  # of the descent


def is_determined(problem: NuclearProblem, rank: int) -> bool:
    """Tell whether there are more data to interpolate than matrices of this rank have parameters, so that few if any fit."""
    d1, d2 = problem.map.matrix_shape
    return problem.q == 0 and rank < min(d1, d2) and rank * (d1 + d2 - rank) < problem.map.m


def at_rank(
    problem: NuclearProblem, rank: int, rng: np.random.Generator, initial: Pair | None = None, *, again: bool = True
) -> Point:
    """The point to which a search over matrices of at most this rank comes, with the dual vector of least norm at it.

    It starts from `initial`; else for distinct entries where iteratively reweighted least squares end, for other measurements
    from the leading singular vectors of ``A*(b)``; and is a descent of Gauss and Newton's kind. See `reweighted` for `again`.
    """
    A, b = problem.map, problem.b
    if initial is not None:
        L, R = (part[:, :rank] for part in trimmed(*initial)[:2])
    elif _distinct(problem):
        L, R = reweighted(A, b, rank, rng, again=again)
    else:
        d1, d2 = A.matrix_shape
        left, values, right = leading(A.adjoint_for_many(b), rank, np.zeros((d1, 0)), np.zeros((d2, 0)), rng, tol=1e-3)
        root = np.sqrt(values / problem.density)
        L, R = left * root, right * root
    L, R, s = _fitted(problem, L, R)
    size = float(np.linalg.norm(b))
    for k in range(1, s.size):  # a limit above the rank leaves columns of rounding error
        if np.linalg.norm(b - A.forward_factored(L[:, :k], R[:, :k])) <= _FITS_WITHOUT * size:
            L, R, s = _fitted(problem, L[:, :k], R[:, :k])
            break
    root = np.sqrt(s)
    return Point(L, R, s, least_norm_certificate(A, L / root, R / root))


def _fitted(problem: NuclearProblem, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The balanced pair to which a descent leads that only fits, without columns that are zero; and its singular values."""
    A, b = problem.map, problem.b
    tol = _EXACT_FIT * float(np.linalg.norm(b))
    end = descend(A, b, 0.0, L, R, density=problem.density, residual_tol=tol, max_products=_MOST_FITTING_PRODUCTS)
    L, R, s = balanced(end.L, end.R)
    return L[:, s > 0], R[:, s > 0], s[s > 0]


def _distinct(problem: NuclearProblem) -> bool:
    """Tell whether ``A A* = 1``: distinct entries, which `Frame` leaves with weights of 1 or -1."""
    A = problem.map
    if not A.of_entries:
        return False
    entries = A.as_entries()
    return bool(np.all(np.abs(np.abs(entries.weights) - 1) < 1e-12)) and entries.places[0].size == A.m
