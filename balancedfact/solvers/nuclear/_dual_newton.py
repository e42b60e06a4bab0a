r"""Newton's method on the dual of proximal steps, for entries of matrices of moderate size whose solution is of any rank.

A proximal step is ``X <- argmin nuclear(Z) + |A(Z) - b|^2 / (2 q) + |Z - X|^2 / (2 t)``, with ``A(Z) = b`` for ``q = 0``.
Its dual ``max b.y - q |y|^2 / 2 - |P(X + t A*(y))|^2 / (2 t)``, where `P` lowers singular values by `t`, is concave and
differentiable, with the gradient ``b - q y - A(P(X + t A*(y)))``, and its Hessian is that of `Thresholded.product`: Newton
steps by conjugate gradients, on as many unknowns as there are measurements. A long `t` makes the steps outside few; a
decomposition is needed at each one inside (Liu, Sun and Toh 2012).

What makes conjugate gradients fast is to treat the symmetric part within the singular vectors of the solution exactly
(`CorePreconditioner`). Where the entries are as few as they can be, the step grows ill-posed, and a shift that falls with
the gradient bounds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from balancedfact._validate import as_count
from balancedfact.solvers.iteration._conjugate_gradients import conjugate_gradients, identity
from balancedfact.solvers.iteration._limits import check_time
from balancedfact.solvers.nuclear._algorithm import NO_OFFSETS, Algorithm
from balancedfact.solvers.nuclear._problem import NuclearProblem, Pair, Point
from balancedfact.solvers.nuclear._thresholding import CorePreconditioner, Thresholded

# The step: at first, by which factor it grows, and at most, in units of the norm of A*(b).
_FIRST_STEP, _STEP_GROWTH, _LONGEST_STEP = 2.0, 3.0, 300.0
# How small the misfit must be relative to the move of the proximal step, and relative to the data where that is rounding.
_MISFIT_TO_MOVE, _LEAST_MISFIT = 0.1, 1e-12
_STEPS_INSIDE, _PROXIMAL_STEPS = 30, 60  # at most
# Accuracy of conjugate gradients for the first step inside and for the others, and their products at most.
_ACCURACY_FIRST, _ACCURACY_OTHERS, _NEWTON_PRODUCTS = 0.3, 0.03, 300
_SHIFT_TO_MISFIT, _LARGEST_SHIFT = 1e-2, 1e-2  # of the Newton matrix, whose entries are at most of size one
_ENOUGH_INCREASE, _SHORTEST = 1e-4, 1e-3  # of the line search
# More products than these call for a preconditioner, and this many times as many as after it was made for a new one; it is kept
# while the rank changes by as little, and made for ranks up to one whose core is quickly factored.
_SLOW_PRODUCTS, _STALE, _RANKS_NEAR, _LARGEST_CORE = 20, 1.5, 2, 60


@dataclass(frozen=True)
class DualNewton(Algorithm):
    """Proximal steps by Newton's method on their dual, for distinct entries: fast where the solution is not of low rank.

    Every Newton step takes one singular value decomposition and conjugate gradients on as many unknowns as there are entries.

    Parameters
    ----------
    most_entries : int
        Largest number ``d1 * d2`` of matrix entries.
    max_iterations : int
        Largest number of Newton steps.

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

    def __post_init__(self) -> None:
        for name in ("most_entries", "max_iterations"):
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
        """Yield the point to which every proximal step leads, moved onto the data that are to be interpolated."""
        try:
            for Z, y in dual_newton(problem, initial=initial, max_iterations=self.max_iterations):
                yield Point.from_matrix(Z, y)
        except np.linalg.LinAlgError:  # a core that is singular in rounding
            return


def dual_newton(
    problem: NuclearProblem, *, initial: Pair | None = None, max_iterations: int = 100
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``(Z, y)`` after every proximal step. With ``q = 0`` every `Z` fits to rounding error."""
    A, b, q = problem.map, problem.b, problem.q
    back = A.gram_solver(q)
    S = A.adjoint_matrix(b)
    norm, size = float(np.linalg.norm(S, 2)), float(np.linalg.norm(b))
    X = S if initial is None else initial[0] @ initial[1].T
    y = b / norm if initial is None or q == 0 else problem.less(*initial) / q
    t, budget = _FIRST_STEP * norm, max_iterations
    inner = _ProximalDual(problem, X, t)
    for _ in range(_PROXIMAL_STEPS):
        steps, y, X, moved = inner.solve(y, size, budget)
        budget -= steps
        yield (X if q > 0 else X + A.adjoint_matrix(back(b - A.forward(X)))), y
        if budget <= 0 or (moved == 0 and t == _LONGEST_STEP * norm):
            return
        t = min(_STEP_GROWTH * t, _LONGEST_STEP * norm)
        inner.X, inner.t = X, t


class _ProximalDual:
    """The dual of the proximal step from `X` of length `t`, and a preconditioner from one step to the next."""

    def __init__(self, problem: NuclearProblem, X: np.ndarray, t: float) -> None:
        self.problem, self.X, self.t = problem, X, t
        self.preconditioner: CorePreconditioner | None = None
        self.products = self.fresh = 0  # of the last Newton step, and of the first after the preconditioner was made

    def at(self, y: np.ndarray) -> tuple[Thresholded, float]:
        """Threshold at `y`; with the value of the dual there."""
        check_time()
        A, t = self.problem.map, self.t
        U, s, Vt = np.linalg.svd(self.X + t * A.adjoint_matrix(y), full_matrices=False)
        here = Thresholded(A, U, s, Vt.T, t)
        less = 0.5 * self.problem.q * float(y @ y) + float(here.values @ here.values) / (2 * t)
        return here, float(self.problem.b @ y) - less

    def solve(self, y: np.ndarray, size: float, budget: int) -> tuple[int, np.ndarray, np.ndarray, float]:
        """Newton steps from `y`: their number, the dual vector, the point, and its distance from `X`, relative to it."""
        b, q = self.problem.b, self.problem.q
        here, value = self.at(y)
        for step in range(min(_STEPS_INSIDE, budget) + 1):
            X = here.matrix
            moved = float(np.linalg.norm(X - self.X)) / (float(np.linalg.norm(self.X)) or 1.0)
            slope = b - here.image - q * y
            misfit = float(np.linalg.norm(slope)) / size
            if (misfit <= max(_LEAST_MISFIT, _MISFIT_TO_MOVE * moved) and step > 0) or step == min(_STEPS_INSIDE, budget):
                break
            shift = q / self.t + min(_LARGEST_SHIFT, _SHIFT_TO_MISFIT * misfit)
            made = self.preconditioner
            usable = made is not None and abs(made.rank - here.rank) <= _RANKS_NEAR
            slow = self.products > _SLOW_PRODUCTS and (not usable or self.products > _STALE * self.fresh)
            if slow and 0 < here.rank <= _LARGEST_CORE:
                made = self.preconditioner = CorePreconditioner(here, shift)
                usable, self.fresh = True, 0
            found = conjugate_gradients(
                lambda v, h=here, e=shift: h.product(v) + e * v,  # type: ignore[misc]
                slope,
                accuracy=_ACCURACY_FIRST if step == 0 else _ACCURACY_OTHERS,
                max_products=_NEWTON_PRODUCTS,
                precondition=made if usable and made is not None else identity,
            )
            self.products = found.products
            self.fresh = self.fresh or found.products
            direction = found.x / self.t
            gain, length = float(slope @ direction), 1.0
            while True:
                trial, reached = self.at(y + length * direction)
                if reached >= value + _ENOUGH_INCREASE * length * gain - 1e-15 * abs(value) or length <= _SHORTEST:
                    break
                length *= 0.5
            y, here, value = y + length * direction, trial, reached
        return step, y, X, moved
