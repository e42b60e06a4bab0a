r"""Primal-dual interior-point method for nuclear-norm problems with up to a few thousand measurements.

Solves ``min nuclear(Z) + |r|^2 / (2 q)`` subject to ``A(Z) + r = b`` (``q = 0``: ``r = 0``) and its dual
``max b.y - q |y|^2 / 2`` subject to ``|S| <= 1``, ``S = A*(y)``, as the semidefinite pair

    P = [[W1, Z], [Z.T, W2]] >= 0,    D = [[I, -S], [-S.T, I]] >= 0,    P D = mu I,

with Nesterov-Todd scaling and Mehrotra's predictor and corrector. In the scaling ``W`` the Newton matrix is
``<A_i, W11 A_j W22 + W12 A_j.T W12>`` (`MeasurementMap.scaled_gram`), which is one symmetric product of the measurements in
rotated coordinates; the blocks `W1`, `W2` of the primal variable never enter it. The same elimination, for the norm of an
affine matrix function, is in Liu and Vandenberghe, "Interior-point method for nuclear norm approximation with application to
system identification", 2009.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from balancedfact._validate import as_count, as_number
from balancedfact.solvers.iteration._limits import check_time
from balancedfact.solvers.nuclear._algorithm import NO_OFFSETS, Algorithm
from balancedfact.solvers.nuclear._problem import NuclearProblem, Pair, Point

# Fraction of the way to the boundary of the cone that a step may go.
_TO_BOUNDARY = 0.98
# Distance from the boundary to which a dual vector is moved that another algorithm found, as a fraction of it.
_FROM_BOUNDARY = 0.1


@dataclass(frozen=True)
class InteriorPoint(Algorithm):
    """A primal-dual interior-point method: ten to thirty iterations to a gap of 1e-9, whatever the rank.

    Every iteration factors a symmetric matrix of the order of the number of measurements, and forms it from all measurements in
    rotated coordinates. The fields are limits on what that costs; the defaults keep an iteration within a few seconds on two
    cores.

    Parameters
    ----------
    most_measurements : int
        Largest number of measurements.
    most_rows : int
        Largest sum ``d1 + d2``, the order of the positive-semidefinite variables.
    most_work : float
        Largest number of multiplications ``m**2 * d1 * d2`` with which the Newton matrix is formed, for maps that form a stack
        of all measurements (`Dense` and maps of your own).
    max_iterations : int
        Largest number of iterations. Reaching it is no ``Status.LIMIT``: the certificate of the best point
        decides the verdict.

    Raises
    ------
    ValueError
        If a limit is not a positive number.

    See Also
    --------
    Splitting : For more measurements.
    Factored : For large matrices.
    select_method : The choice between them.

    References
    ----------
    Liu and Vandenberghe 2009, "Interior-point method for nuclear norm approximation with application to system identification".

    Guide :doc:`/guide/certificate`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(20, (6, 5), rng=0)
    >>> solution = bf.flat_minimum(A, np.ones(20), method=bf.solvers.InteriorPoint(max_iterations=50))
    >>> solution.status.name, solution.method
    ('OPTIMAL', 'interior-point')
    """

    name = "interior-point"
    most_measurements: int = 2500
    most_rows: int = 800
    most_work: float = 5e10
    max_iterations: int = 100

    def __post_init__(self) -> None:
        for name in ("most_measurements", "most_rows", "max_iterations"):
            as_count(getattr(self, name), name)
        as_number(self.most_work, "most_work", above=0.0)

    def suits(self, problem: NuclearProblem) -> str | None:
        """Return the limit that the problem exceeds, if any."""
        if problem.offsets is not None:
            return NO_OFFSETS
        A = problem.map
        d1, d2 = A.matrix_shape
        work = A.m * A.m * d1 * d2 if A.forms_stack else 0
        if A.m > self.most_measurements:
            return f"{A.m} measurements, the order of its Newton matrix, are beyond most_measurements={self.most_measurements}"
        if d1 + d2 > self.most_rows:
            return f"its variables of order d1 + d2 = {d1 + d2} are beyond most_rows={self.most_rows}"
        if work > self.most_work:
            return f"forming its Newton matrix takes {work:.1e} multiplications, beyond most_work={self.most_work:.1e}"
        return None

    def points(
        self, problem: NuclearProblem, rng: np.random.Generator, *, max_rank: int | None = None, initial: Pair | None = None
    ) -> Iterator[Point]:
        """Yield the points along the central path."""
        try:
            for Z, y in interior_point(problem, max_iterations=self.max_iterations):
                yield Point.from_matrix(Z, y)
        except np.linalg.LinAlgError:  # a penalty so small that it is lost in the rounding of the Gram matrix
            return


def interior_point(
    problem: NuclearProblem, *, start: tuple[np.ndarray, np.ndarray] | None = None, max_iterations: int = 100
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the iterates ``(Z, y)`` along the central path, from a start that fits the data, by default the one of least norm.

    Every `y` is strictly feasible for the dual. The caller stops when the certificate of the pair is good enough; the sequence
    ends by itself when rounding errors leave no further step. The Gram matrix of the measurements must be invertible.
    """
    A, b, q = problem.map, problem.b, problem.q
    d1, d2 = A.matrix_shape
    n = d1 + d2
    back = A.gram_solver(q)
    if start is None:
        least = A.adjoint_matrix(back(b))
        radius = 2 * np.linalg.norm(least, 2)
        P = np.block([[radius * np.eye(d1), least], [least.T, radius * np.eye(d2)]])
        y, S = np.zeros(A.m), np.zeros((d1, d2))
    else:
        P, y, S = _near_path(problem, *start)
    for _ in range(max_iterations):
        check_time()
        Z = P[:d1, d1:]
        residual = b - A.forward(Z) - q * y
        yield (Z if q > 0 else Z + A.adjoint_matrix(back(residual))), y  # near the end rounding moves it off the data
        D = np.block([[np.eye(d1), -S], [-S.T, np.eye(d2)]])
        mu = float(np.vdot(P, D)) / n
        # Nesterov-Todd: G.T @ D @ G = diag(lam) = inv(G) @ P @ inv(G).T.
        try:
            LP, LD = np.linalg.cholesky(P), np.linalg.cholesky(D)
        except np.linalg.LinAlgError:
            return  # P or D is singular to working precision: the path has been followed to its end
        U, lam, Vt = np.linalg.svd(LD.T @ LP)
        G = LP @ (Vt.T / np.sqrt(lam))
        W = G @ G.T
        M = A.scaled_gram(W[:d1, :d1], W[:d1, d1:], W[d1:, d1:])
        M[np.diag_indices_from(M)] += q
        solve = _refined_solver(M)
        if solve is None:
            return

        def direction(target: np.ndarray, refinements: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
            """Newton step for the scaled complementarity `target`: scaled dP, scaled dD, dy, dS."""
            goal = 2 * target / np.add.outer(lam, lam)
            full = G[:d1] @ goal @ G[d1:].T
            dy = solve(residual - A.forward(full), refinements)
            dS = A.adjoint_matrix(dy)
            cross = G[:d1].T @ dS @ G[d1:]
            scaled_D = -(cross + cross.T)
            return goal - scaled_D, scaled_D, dy, dS

        def longest(scaled: np.ndarray) -> float:
            """The step, at most 1, that keeps a fraction of the distance to the boundary of the cone."""
            root = np.sqrt(lam)
            low = np.linalg.eigvalsh(scaled / np.multiply.outer(root, root))[0]
            return 1.0 if low >= -_TO_BOUNDARY else -_TO_BOUNDARY / low

        square = np.diag(lam**2)
        affine_P, affine_D, _, _ = direction(-square, refinements=0)  # only the corrector depends on it
        alpha, beta = longest(affine_P), longest(affine_D)
        after = float(np.vdot(np.diag(lam) + alpha * affine_P, np.diag(lam) + beta * affine_D)) / n
        sigma = min(1.0, max(after / mu, 0.0)) ** 3
        corrector = affine_P @ affine_D
        corrector = (corrector + corrector.T) / 2
        scaled_P, scaled_D, dy, dS = direction(sigma * mu * np.eye(n) - square - corrector)
        alpha, beta = longest(scaled_P), longest(scaled_D)
        if q > 0:  # the primal residual involves y: both variables must move by the same step for it to shrink
            alpha = beta = min(alpha, beta)
        P = P + alpha * (G @ scaled_P @ G.T)
        P = (P + P.T) / 2
        y, S = y + beta * dy, S + beta * dS


def _near_path(problem: NuclearProblem, Z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`P`, `y` and ``A*(y)`` near the central path from a matrix and a dual vector: an interior pair whose `mu` is their gap's.

    With ``Z = U s V.T``, ``a = (mu + sqrt(mu^2 + 4 s^2)) / 2`` and ``S = U (s / a) V.T`` the products of the eigenvalues of
    ``P = [[U a U.T, Z], [Z.T, V a V.T]]`` and of `D` are all `mu`; `y` is only moved away from its boundary.
    """
    A, (d1, d2) = problem.map, problem.map.matrix_shape
    y = y * ((1 - _FROM_BOUNDARY) / max(float(np.linalg.norm(A.adjoint_matrix(y), 2)), np.finfo(float).tiny))
    U, s, Vt = np.linalg.svd(Z)
    mu = 2 * (float(s.sum()) - float(problem.b @ y) + 0.5 * problem.q * float(y @ y)) / (d1 + d2)
    a = np.full(max(d1, d2), mu)
    a[: s.size] = 0.5 * (mu + np.sqrt(mu**2 + 4 * s**2))
    P = np.block([[(U * a[:d1]) @ U.T, Z], [Z.T, (Vt.T * a[:d2]) @ Vt]])
    return P, y, A.adjoint_matrix(y)


def _refined_solver(M: np.ndarray) -> Callable[..., np.ndarray] | None:
    """Solve with a symmetric positive-semidefinite `M` that may be singular to working precision.

    Where the truth is recovered exactly the dual solution is not unique and `M` becomes singular along the path: it is then
    factored with the least diagonal shift that allows it, and steps of refinement remove the effect of the shift.
    """
    level = np.trace(M) / len(M)
    for shift in (0.0, 1e-15, 1e-13, 1e-11):
        shifted = M.copy()
        shifted[np.diag_indices_from(M)] += shift * level
        try:  # the transpose is in the order that LAPACK factors in place
            factor = scipy.linalg.cho_factor(shifted.T, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            continue

        def solve(rhs: np.ndarray, refinements: int = 2) -> np.ndarray:
            x = scipy.linalg.cho_solve(factor, rhs, check_finite=False)
            for _ in range(refinements):
                x = x + scipy.linalg.cho_solve(factor, rhs - M @ x, check_finite=False)
            return x

        return solve
    return None
