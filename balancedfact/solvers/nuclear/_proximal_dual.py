r"""The dual of one proximal step, ascended by Newton's method.

Newton's equations are solved by conjugate gradients. What makes them fast is to treat the symmetric part within the singular
vectors of the solution exactly (`CorePreconditioner`). Where the entries are as few as they can be, the step grows ill-posed,
and a shift that falls with the gradient bounds it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from balancedfact.solvers.iteration._conjugate_gradients import conjugate_gradients, identity
from balancedfact.solvers.iteration._limits import check_time
from balancedfact.solvers.nuclear._problem import NuclearProblem
from balancedfact.solvers.nuclear._thresholding import CorePreconditioner, Thresholded

# How small the misfit must be relative to the move of the proximal step, and relative to the data where that is rounding.
_MISFIT_TO_MOVE, _LEAST_MISFIT = 0.1, 1e-12
_STEPS_INSIDE = 30  # at most
# Accuracy of conjugate gradients for the first step inside and for the others, and their products at most.
_ACCURACY_FIRST, _ACCURACY_OTHERS, _NEWTON_PRODUCTS = 0.3, 0.03, 300
_SHIFT_TO_MISFIT, _LARGEST_SHIFT = 1e-2, 1e-2  # of the Newton matrix, whose entries are at most of size one
_ENOUGH_INCREASE, _SHORTEST = 1e-4, 1e-3  # of the line search
# More products than these call for a preconditioner, and this many times as many as after it was made for a new one; it is kept
# while the rank changes by as little, and made for ranks up to one whose core is quickly factored.
_SLOW_PRODUCTS, _STALE, _RANKS_NEAR, _LARGEST_CORE = 20, 1.5, 2, 60


class ProximalStep(NamedTuple):
    """The dual vector and the point of a proximal step, its distance from the start (relative), Newton steps, products."""

    y: np.ndarray
    X: np.ndarray
    moved: float
    steps: int
    products: int


class ProximalDual:
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

    def solve(
        self,
        y: np.ndarray,
        size: float,
        budget: int,
        *,
        misfit_to_move: float = _MISFIT_TO_MOVE,
        least_misfit: float = _LEAST_MISFIT,
        most_products: float = np.inf,
    ) -> ProximalStep:
        """At most `budget` Newton steps from `y`, until the misfit, in units of `size`, is one of those two."""
        b, q = self.problem.b, self.problem.q
        here, value = self.at(y)
        most, products = min(_STEPS_INSIDE, budget), 0
        for step in range(most + 1):
            X = here.matrix
            moved = float(np.linalg.norm(X - self.X)) / (float(np.linalg.norm(self.X)) or 1.0)
            slope = b - here.image - q * y
            misfit = float(np.linalg.norm(slope)) / size
            done = misfit <= max(least_misfit, misfit_to_move * moved) and step > 0
            if done or step == most or products >= most_products:
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
            products += found.products
            self.fresh = self.fresh or found.products
            direction = found.x / self.t
            gain, length = float(slope @ direction), 1.0
            while True:
                trial, reached = self.at(y + length * direction)
                if reached >= value + _ENOUGH_INCREASE * length * gain - 1e-15 * abs(value) or length <= _SHORTEST:
                    break
                length *= 0.5
            y, here, value = y + length * direction, trial, reached
        return ProximalStep(y, X, moved, step, products)
