r"""A dual vector that proves a pair of low rank to be best, where that of least norm does not.

Whether ``A*(y) = U V.T + W`` with ``W`` outside of both spaces and ``|W| <= 1`` can be had depends on the singular vectors of
a matrix alone, not on its singular values: those of ``U V.T``, which are all one, make the same question well conditioned
whatever the condition number. It is answered by Newton's method on the dual of a single proximal step from ``U V.T``, whose
solution is ``U V.T`` itself exactly if such a vector exists, and which starts from the vector of least norm.

Where the singular values of the truth are very different a path of penalties misses its rank; reweighted least squares find it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from balancedfact.solvers.nuclear._at_rank import at_rank
from balancedfact.solvers.nuclear._problem import NuclearProblem, Point
from balancedfact.solvers.nuclear._proximal_dual import ProximalDual

# Pairs tried have at most as many parameters as this fraction of the entries: beyond it the nuclear norm seldom recovers.
_FIT_PARAMETERS = 0.4
_EXACTLY_FITS = 1e-10  # relative residual of an exact fit
_STEP_LENGTH = 1.0  # of the proximal step, in units of the singular values
_MISFIT_LADDER = 0.1, 0.03, 1e-2, 3e-3, 1e-3, 1e-4, 1e-9, 1e-12  # to which the step is solved, one after the other
_WORTH_A_LOOK = 1e-9  # from here on the dual vectors are worth a look
_COMPLETING_STEPS, _COMPLETING_PRODUCTS = 40, 1500  # at most
_LOWER_NORM = 1e-9  # relative difference of nuclear norms beyond which a matrix is better


def completed_certificates(problem: NuclearProblem, point: Point) -> Iterator[np.ndarray]:
    """Yield dual vectors for a point that fits exactly and whose `y` is that of least norm, each closer to a proof.

    It ends where a matrix of the same measurements as ``U V.T`` and of lower nuclear norm shows that there is no such vector.
    """
    A = problem.map
    root = np.sqrt(point.s)
    U, V = point.L / root, point.R / root
    flat = NuclearProblem(A, A.forward_factored(U, V), 0.0)
    search, y, left, products = ProximalDual(flat, U @ V.T, _STEP_LENGTH), point.y, _COMPLETING_STEPS, _COMPLETING_PRODUCTS
    size = float(np.linalg.norm(flat.b))
    for misfit in _MISFIT_LADDER:
        end = search.solve(y, size, left, misfit_to_move=0.0, least_misfit=misfit, most_products=products)
        y, left, products = end.y, left - end.steps, products - end.products
        fits = end.X + A.adjoint_matrix(flat.b - A.forward(end.X))
        if float(np.linalg.svd(fits, compute_uv=False).sum()) < (1 - _LOWER_NORM) * point.s.size:
            return
        if misfit <= _WORTH_A_LOOK:
            yield y
        if left <= 0 or products <= 0:
            return


def proved_fits(problem: NuclearProblem, rng: np.random.Generator) -> Iterator[Point]:
    """Yield a pair of low rank that reweighted least squares find, if there is one that fits, with dual vectors."""
    m, half = problem.map.m, sum(problem.map.matrix_shape) / 2
    rank = int(half - max(half**2 - _FIT_PARAMETERS * m, 0.0) ** 0.5)  # k (d1 + d2 - k) is at most that fraction
    if rank == 0:
        return
    point = at_rank(problem, rank, rng, again=False)  # entries so many as these do not need it
    if point.s.size and np.linalg.norm(problem.residual(point)) <= _EXACTLY_FITS * np.linalg.norm(problem.b):
        yield point
        yield from (point._replace(y=y) for y in completed_certificates(problem, point))
