r"""Newton's method on the dual of proximal steps, for entries of matrices of moderate size whose solution is of any rank.

A proximal step is ``X <- argmin nuclear(Z) + |A(Z) - b|^2 / (2 q) + |Z - X|^2 / (2 t)``, with ``A(Z) = b`` for ``q = 0``.
Its dual ``max b.y - q |y|^2 / 2 - |P(X + t A*(y))|^2 / (2 t)``, where `P` lowers singular values by `t`, is concave and
differentiable, with the gradient ``b - q y - A(P(X + t A*(y)))``, and its Hessian is that of `Thresholded.product`: Newton
steps by conjugate gradients, on as many unknowns as there are measurements. A long `t` makes the steps outside few; a
decomposition is needed at each one inside (Liu, Sun and Toh 2012).

Where the singular values of the solution differ very much the Newton matrix is ill-conditioned, the more so the longer `t` is,
and conjugate gradients are lost in it. An interior-point method does not mind, but each of its steps factors a matrix of the
order of the measurements: from what the first proximal steps have found it takes half as many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from balancedfact._validate import as_count
from balancedfact.solvers.nuclear._algorithm import NO_OFFSETS, Algorithm
from balancedfact.solvers.nuclear._completed_certificate import proved_fits
from balancedfact.solvers.nuclear._interior_point import interior_point
from balancedfact.solvers.nuclear._problem import NuclearProblem, Pair, Point
from balancedfact.solvers.nuclear._proximal_dual import ProximalDual

# The step: at first, by which factor it grows, and at most, in units of the norm of A*(b).
_FIRST_STEP, _STEP_GROWTH, _LONGEST_STEP = 2.0, 3.0, 300.0
_PROXIMAL_STEPS = 60  # at most
# An interior-point method from a start near its path takes about so many steps, of so many products of matrices of its order
# beside the factorization; a product with the Newton matrix takes the time of so many multiplications an entry, and at least.
_INTERIOR_STEPS, _STEP_WORK, _PRODUCT_WORK, _PRODUCT_OVERHEAD = 12, 60, 1300, 4e6
_CLOSED_GAP, _NEAR_GAP = 1e-8, 0.1  # the goal, and from where on the pace says how far it is
# Products after which a fit of low rank is sought by other means.
_SEEK_FIT = 1400


@dataclass(frozen=True)
class DualNewton(Algorithm):
    """Proximal steps by Newton's method on their dual, for distinct entries: fast where the solution is not of low rank.

    Every Newton step takes one singular value decomposition and conjugate gradients on as many unknowns as there are entries.

    Parameters
    ----------
    most_entries : int
        Largest number ``d1 * d2`` of matrix entries.
    max_iterations : int
        Largest number of Newton steps. Reaching it is no ``Status.LIMIT``: the certificate of the best point
        decides the verdict.
    most_measurements : int
        Largest number of entries to interpolate up to which an interior-point method takes over once it promises to be faster.

    Raises
    ------
    ValueError
        If a limit is not a positive number.

    See Also
    --------
    Splitting : Needs more steps, each of them cheaper, and serves other measurements too.
    InteriorPoint : For few measurements.
    select_method : The choice between them.

    References
    ----------
    Liu, Sun and Toh 2012, "An implementable proximal point algorithmic framework for nuclear norm minimization".

    Guide :doc:`/guide/certificate`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.bernoulli_mask((12, 10), 0.5, rng=0)
    >>> b = A(np.arange(120.0).reshape(12, 10) % 7)
    >>> solution = bf.flat_minimum(A, b, method=bf.solvers.DualNewton())
    >>> solution.status.name, solution.method
    ('OPTIMAL', 'dual Newton')
    """

    name = "dual Newton"
    most_entries: int = 1_500_000
    max_iterations: int = 100
    most_measurements: int = 6000

    def __post_init__(self) -> None:
        for name in ("most_entries", "max_iterations", "most_measurements"):
            as_count(getattr(self, name), name)

    def suits(self, problem: NuclearProblem) -> str | None:
        """Return what the problem lacks or exceeds, if anything."""
        if problem.offsets is not None:
            return NO_OFFSETS
        d1, d2 = problem.map.matrix_shape
        if not problem.map.of_entries:
            return "it is for Entries"
        if d1 * d2 > self.most_entries:
            return f"decompositions of a {d1} x {d2} matrix are beyond most_entries={self.most_entries}"
        return None

    def points(
        self, problem: NuclearProblem, rng: np.random.Generator, *, max_rank: int | None = None, initial: Pair | None = None
    ) -> Iterator[Point]:
        """Yield the point to which every proximal step leads, moved onto the data that are to be interpolated.

        Where this is slow, singular values of very different size may be the cause. Those of a fit of low rank `proved_fits` do
        without, and those of the solution an interior-point method.
        """
        seek, turn = problem.q == 0, _Turn(problem, self.most_measurements)
        try:
            path = dual_newton(problem, initial=initial, max_iterations=self.max_iterations, most_products=turn.worth)
            for Z, y, products in path:
                point = Point.from_matrix(Z, y)
                yield point
                if turn.better(Z, float(point.s.sum()), y, products):
                    yield from turn.points()
                    return
                if seek and products > _SEEK_FIT:
                    seek = False
                    yield from proved_fits(problem, rng)
        except np.linalg.LinAlgError:  # a core that is singular in rounding
            return


class _Turn:
    """The judge of when an interior-point method is the faster way on, for at most so many entries to be interpolated.

    A Newton step is cheap where conjugate gradients are, and they are where the singular values of the solution are of one
    size; an interior-point method does not mind, and a start near its path spares it half of its steps.
    """

    def __init__(self, problem: NuclearProblem, most_measurements: int) -> None:
        m, (d1, d2) = problem.map.m, problem.map.matrix_shape
        self.problem, self.worth = problem, np.inf
        if problem.q == 0 and m <= most_measurements:
            work = _INTERIOR_STEPS * (m**3 / 3 + _STEP_WORK * (d1 + d2) ** 3)
            self.worth = work / (_PRODUCT_WORK * d1 * d2 + _PRODUCT_OVERHEAD)
        self.value, self.lower, self.gap, self.products = np.inf, 0.0, np.inf, 0

    def better(self, Z: np.ndarray, value: float, y: np.ndarray, products: int) -> bool:
        """Keep the best of what a proximal step found; whether at its pace the rest takes more products than it is worth."""
        if self.worth == np.inf:
            return False
        lower = float(self.problem.b @ y) / float(np.linalg.norm(self.problem.map.adjoint_matrix(y), 2))
        if value < self.value:
            self.value, self.Z = value, Z
        if lower > self.lower:
            self.lower, self.y = lower, y
        before, done = self.gap, self.products
        gap = self.gap = 1 - self.lower / self.value
        self.products = products
        ahead = 0.0
        if _CLOSED_GAP < gap < _NEAR_GAP:
            steps = np.log(gap / _CLOSED_GAP) / max(np.log(before / gap), _CLOSED_GAP)
            ahead = float(steps) * (products - done)
        return max(ahead, products) >= self.worth and self.lower > 0

    def points(self) -> Iterator[Point]:
        """Yield the points of the interior-point method from the best so far."""
        return (Point.from_matrix(Z, y) for Z, y in interior_point(self.problem, start=(self.Z, self.y)))


def dual_newton(
    problem: NuclearProblem, *, initial: Pair | None = None, max_iterations: int = 100, most_products: float = np.inf
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield ``(Z, y)`` and the products so far after every proximal step. With ``q = 0`` every `Z` fits to rounding error."""
    A, b, q = problem.map, problem.b, problem.q
    back = A.gram_solver(q)
    S = A.adjoint_matrix(b)
    norm, size = float(np.linalg.norm(S, 2)), float(np.linalg.norm(b))
    X = S if initial is None else initial[0] @ initial[1].T
    y = b / norm if initial is None or q == 0 else problem.less(*initial) / q
    t, budget, products = _FIRST_STEP * norm, max_iterations, 0
    inner = ProximalDual(problem, X, t)
    for _ in range(_PROXIMAL_STEPS):
        end = inner.solve(y, size, budget, most_products=most_products - products)
        y, X, budget, products = end.y, end.X, budget - end.steps, products + end.products
        yield (X if q > 0 else X + A.adjoint_matrix(back(b - A.forward(X)))), y, products
        if budget <= 0 or (end.moved == 0 and t == _LONGEST_STEP * norm):
            return
        t = min(_STEP_GROWTH * t, _LONGEST_STEP * norm)
        inner.X, inner.t = X, t
