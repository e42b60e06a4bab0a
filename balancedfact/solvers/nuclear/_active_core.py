r"""Interior-point steps on the core of a pair and of the singular vectors whose dual values are near 1.

At an optimum ``A*(y)`` has the singular value 1 on all columns of the solution, and where the minimiser is hardly unique on
more: the pairs that fit nearly as well then form a curved valley, along which descent is lost in the rounding of the objective.
The near-active singular vectors span the face that the solutions lie in, and on ``X = U C V.T`` the convex problem is small:
its interior point has a dual vector as exact as the value is. What that vector still violates is quadratic in the error of the
vectors, so that a few rounds, each with those of the last dual vector beside all earlier ones, end at rounding. This is how
spectral bundle methods converge (Helmberg and Rendl 2000; Overton 1988 for the quadratic rate).

With more measurements than numbers in `C`, the orthogonal factor of the map on the core takes them to as many.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from balancedfact._linalg import EPS
from balancedfact.measurements import Dense
from balancedfact.solvers.nuclear._columns import leading_block, trimmed
from balancedfact.solvers.nuclear._interior_point import interior_point
from balancedfact.solvers.nuclear._problem import NuclearProblem, Point

_ACTIVE = 0.9  # singular values of the dual matrix from which on they count as near 1
_CORE_ROWS = 30  # rows or columns: beyond it an interior-point step takes seconds
_CORE_NUMBERS = 20_000_000  # in the map on the core
_CORE_ROUNDS = 8
_CORE_GAP = 1e-13  # relative gap of the core, and excess of the dual norm
_CORE_IDLE = 3  # steps in a row that do not halve the gap: rounding
_SPANNED = 1e-10  # a direction this close to the span of others is theirs


def active_core(
    problem: NuclearProblem, L: np.ndarray, R: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> Iterator[Point]:
    """Yield the solution on the core of a balanced pair and its dual vector, again and again, with ``q > 0`` and no offsets.

    Ends where the core is too large, and where the dual vector keeps its constraint on the whole.
    """
    A, (d1, d2) = problem.map, problem.map.matrix_shape
    nothing, before = (np.zeros((d1, 0)), np.zeros((d2, 0))), np.zeros((min(d1, d2), 0))
    U, V = nothing
    for solved in range(_CORE_ROUNDS):
        room = min(_CORE_ROWS - L.shape[1], d1, d2)
        if room <= 0:
            return
        left, sigma, right, before = leading_block(A.adjoint_for_many(y), room, *nothing, before, rng)
        near = sigma > _ACTIVE
        if max(U.shape[1], V.shape[1]) + np.count_nonzero(near) > _CORE_ROWS:
            U, V = nothing  # without the vectors of earlier rounds that the solution does without
        U, V = _basis(np.hstack([U, L, left[:, near]])), _basis(np.hstack([V, R, right[:, near]]))
        if (solved and sigma[0] <= 1 + _CORE_GAP) or A.m * U.shape[1] * V.shape[1] > _CORE_NUMBERS:
            return
        found = _solved(problem, U, V)
        if found is None:
            return
        C, y = found
        L, R, s = trimmed(U @ C, V)
        yield Point(L, R, s, y)


def _basis(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the span of columns, whatever their lengths."""
    U, s, _ = np.linalg.svd(columns / np.linalg.norm(columns, axis=0), full_matrices=False)
    return np.asarray(U[:, s > _SPANNED * s[0]])


def _solved(problem: NuclearProblem, U: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The `C` that is best for ``X = U C V.T``, and the dual vector; ``None`` where the penalty is lost beside the map."""
    b, q, shape = problem.b, problem.q, (U.shape[1], V.shape[1])
    matrix = problem.map.rotated(U, V).reshape(b.size, -1)
    Q = None
    if b.size > matrix.shape[1]:
        Q, matrix = np.linalg.qr(matrix)
    if not q > EPS * max(matrix.shape) * float(np.linalg.norm(matrix, 2)) ** 2:  # the Gram matrix may be singular
        return None
    core = NuclearProblem(Dense(matrix.reshape(-1, *shape)), b if Q is None else Q.T @ b, q)
    least, idle = np.inf, 0
    for Z, dual in interior_point(core):
        misfit = core.b - core.map.forward(Z)
        value = float(np.linalg.norm(Z, "nuc") + misfit @ misfit / (2 * q))
        gap = (value - float(core.b @ dual) + 0.5 * q * float(dual @ dual)) / value
        idle = 0 if gap < 0.5 * least else idle + 1
        if gap < least:
            least, C, y = gap, Z, dual
        if gap <= _CORE_GAP or idle == _CORE_IDLE:
            break
    return C, (y if Q is None else Q @ y + (b - Q @ core.b) / q)
