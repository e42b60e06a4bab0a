r"""Douglas-Rachford splitting with Anderson acceleration, for matrices of moderate size and any number of measurements.

Alternates the proximal map of the data, ``Z = V + t A*(y)`` with ``(t A A* + q I) y = b - A(V)``, and that of the nuclear
norm. The first gives a point that fits and, without further work, the dual vector; the second the rank. The iteration is
nearly linear close to the solution, so type-II Anderson mixing of a few iterates speeds it up. The step `t` follows the
ratio of the two halves of the gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from balancedfact._validate import as_count
from balancedfact.solvers.iteration._limits import check_time
from balancedfact.solvers.nuclear._algorithm import NO_OFFSETS, Algorithm
from balancedfact.solvers.nuclear._problem import NuclearProblem, Pair, Point

# Growth of the iterate, relative to where it began, that no problem asks for.
_DIVERGED = 1e20
_MEMORY = 10
_EVERY = 10


@dataclass(frozen=True)
class Splitting(Algorithm):
    """Accelerated Douglas-Rachford splitting: one singular value decomposition an iteration, whatever the rank.

    Parameters
    ----------
    most_entries : int
        Largest number ``d1 * d2`` of matrix entries; at four million a decomposition takes seconds.
    most_measurements : int
        Largest number of measurements whose Gram matrix is factored; single entries, whose Gram matrix is diagonal, are not
        limited.
    max_iterations : int
        Largest number of iterations. Reaching it is no ``Status.LIMIT``: the certificate of the best point
        decides the verdict.

    Raises
    ------
    ValueError
        If a limit is not a positive number.

    See Also
    --------
    InteriorPoint : More accurate where it can be afforded.
    Factored : For large matrices.
    select_method : The choice between them.

    References
    ----------
    Lions and Mercier 1979; Anderson 1965 for the acceleration.

    Guide :doc:`/guide/certificate`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(20, (6, 5), rng=0)
    >>> solution = bf.flat_minimum(A, np.ones(20), method=bf.solvers.Splitting())
    >>> solution.status.name, solution.method
    ('OPTIMAL', 'splitting')
    """

    name = "splitting"
    most_entries: int = 4_000_000
    most_measurements: int = 6000
    max_iterations: int = 5000

    def __post_init__(self) -> None:
        for name in ("most_entries", "most_measurements", "max_iterations"):
            as_count(getattr(self, name), name)

    def suits(self, problem: NuclearProblem) -> str | None:
        """Return the limit that the problem exceeds, if any."""
        if problem.offsets is not None:
            return NO_OFFSETS
        A = problem.map
        d1, d2 = A.matrix_shape
        if d1 * d2 > self.most_entries:
            return f"decompositions of a {d1} x {d2} matrix are beyond most_entries={self.most_entries}"
        if not A.of_entries and A.m > self.most_measurements:
            return f"{A.m} measurements, the order of the Gram matrix, are beyond most_measurements={self.most_measurements}"
        return None

    def points(
        self, problem: NuclearProblem, rng: np.random.Generator, *, max_rank: int | None = None, initial: Pair | None = None
    ) -> Iterator[Point]:
        """Yield the point that fits after every few iterations."""
        try:
            for Z, y in splitting(problem, initial=initial, max_iterations=self.max_iterations):
                yield Point.from_matrix(Z, y)
        except np.linalg.LinAlgError:  # a penalty so small that it is lost in the rounding of the Gram matrix
            return


def splitting(
    problem: NuclearProblem, *, initial: tuple[np.ndarray, np.ndarray] | None = None, max_iterations: int = 5000
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``(Z, y)`` every few iterations, from a pair `initial`. With ``q = 0`` every `Z` fits to rounding error."""
    A, b, q = problem.map, problem.b, problem.q
    V = A.adjoint_matrix(A.gram_solver(q)(b)) if initial is None else initial[0] @ initial[1].T
    size = float(np.linalg.norm(V, 2))
    t, far = size / 50, _DIVERGED * size
    solve = A.gram_solver(q / t)
    mixer = _Anderson(_MEMORY)
    for k in range(max_iterations):
        check_time()
        y = solve(b - A.forward(V)) / t
        Z = V + t * A.adjoint_matrix(y)
        U, s, Wt = np.linalg.svd(2 * Z - V, full_matrices=False)
        rank = int(np.count_nonzero(s > t))
        X = (U[:, :rank] * (s[:rank] - t)) @ Wt[:rank]
        if k % _EVERY == 0:
            yield Z, y
        if k % (3 * _EVERY) == 0 and 0 < k <= 300:
            factor = _rebalance(problem, X, Z, y)
            if factor != 1.0:
                t *= factor
                V = Z - t * A.adjoint_matrix(y)
                solve = A.gram_solver(q / t)
                mixer = _Anderson(_MEMORY)
                continue
        V = mixer.next(V, X - Z)
        if not float(np.abs(V).max()) < far:  # rounding in the Gram matrix has made the iteration expand
            return


def _rebalance(problem: NuclearProblem, X: np.ndarray, Z: np.ndarray, y: np.ndarray) -> float:
    """Factor by which to change the step: below 1 where the fitting point lags behind, above 1 where the dual vector does."""
    excess = max(abs(float(np.linalg.norm(problem.map.adjoint_matrix(y), 2)) - 1), 1e-15)
    misfit = max(float(np.linalg.norm(X - Z) / np.linalg.norm(Z)), 1e-15)
    ratio = np.sqrt(0.2 * excess / misfit)
    return float(np.clip(ratio, 0.25, 4.0)) if not 0.4 < ratio < 2.5 else 1.0


class _Anderson:
    """Type-II Anderson mixing of a fixed-point iteration ``V <- V + f(V)``, restarted when the residual grows.

    Mixing can go round in circles, plain steps cannot: a stall is answered by ever longer rests from mixing.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.pause, self.rest = memory, 0
        self.least, self.stalled = np.inf, 0
        self.forget()

    def forget(self) -> None:
        self.points: list[np.ndarray] = []
        self.steps: list[np.ndarray] = []
        self.size = np.inf

    def next(self, V: np.ndarray, f: np.ndarray) -> np.ndarray:
        if self.rest > 0:
            self.rest -= 1
            return V + f
        size = float(np.linalg.norm(f))
        if size > 2 * self.size:
            self.forget()
        self.size = size
        if size < 0.9 * self.least:
            self.least, self.stalled = size, 0
        else:
            self.stalled += 1
        if self.stalled > 5 * self.memory:
            self.pause = self.rest = 2 * self.pause
            self.least, self.stalled = np.inf, 0
            self.forget()
            return V + f
        self.points = [*self.points, V][-self.memory - 1 :]
        self.steps = [*self.steps, f][-self.memory - 1 :]
        if len(self.steps) < 3:
            return V + f
        changes = np.diff([step.ravel() for step in self.steps], axis=0)
        moves = np.diff([point.ravel() for point in self.points], axis=0)
        gram = changes @ changes.T
        if not gram.any():  # a fixed point to the last digit
            return V + f
        gram[np.diag_indices_from(gram)] += 1e-10 * np.trace(gram)
        weights = np.linalg.solve(gram, changes @ f.ravel())
        step = f - (weights @ (moves + changes)).reshape(V.shape)
        if np.linalg.norm(step) > np.linalg.norm(V):  # far beyond where the steps that are mixed say anything
            self.forget()
            return V + f
        return V + step
