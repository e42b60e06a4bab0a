r"""Second-order descent on the two factors, for any measurement map and without forming a ``d1 x d2`` matrix.

Minimises ``f(L, R) = |A(L R.T) - b|^2 / 2 + q (|L|^2 + |R|^2) / 2`` by a trust-region Newton method whose steps come from
conjugate gradients (Steihaug 1983). One Hessian product is one `MeasurementMap.pair_hessian`: ``O(m k)`` for entry sampling.

The preconditioner is the inverse of what the Hessian would be if ``A*A`` were `density` times the identity and the pair
stationary. Its form is closed: for a balanced pair ``L = U s^(1/2)``, ``R = V s^(1/2)`` a step ``(U B + L', V C + R')``, with
``L'`` orthogonal to `U` and ``R'`` to `V`, decouples into the columns of ``L'`` and ``R'`` and, for ``B + C`` and ``B - C``,
into the pairs of entries ``(i, j)``, ``(j, i)``. So the soft directions, those that unbalance the pair, cost no iterations.
Preconditioning by ``density R.T R + q I`` alone (Mishra and Sepulchre, "Riemannian preconditioning", 2016) leaves them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from balancedfact.measurements import MeasurementMap
from balancedfact.solvers.iteration._conjugate_gradients import trust_region_step
from balancedfact.solvers.nuclear._problem import OffsetTerms, Pair, balanced

# What is added to curvatures that vanish, relative to the largest.
_REGULAR = 1e-8
# Unknowns up to which the Hessian itself is the preconditioner once conjugate gradients take half as many products, and the
# relative size of the eigenvalues that are left out then: rotations.
_MOST_UNKNOWNS, _ROTATION_CURVATURE = 800, 1e-13
# Steps in which the misfit must at least halve where it is to vanish: Gauss-Newton steps that do not have nowhere to go.
_FRUITLESS = 20
# Steps with the Hessian as preconditioner, which solve their models: a search that needs more is lost in rounding.
_MOST_DENSE_STEPS = 100


class Descent(NamedTuple):
    """The end of a descent: the factors, the residual ``b - A(L R.T)`` and the norm of the gradient; offsets if any."""

    L: np.ndarray
    R: np.ndarray
    residual: np.ndarray
    gradient_norm: float
    offsets: Pair | None = None


def descend(
    A: MeasurementMap,
    b: np.ndarray,
    q: float,
    L: np.ndarray,
    R: np.ndarray,
    *,
    density: float,
    gradient_tol: float = 0.0,
    residual_tol: float = 0.0,
    max_products: int = 2000,
    terms: OffsetTerms | None = None,
    offsets: Pair | None = None,
    horizontal: bool = False,
    watch: Callable[[np.ndarray, np.ndarray, np.ndarray], None] = lambda L, R, residual: None,
) -> Descent:
    """Descend from ``(L, R)`` until the gradient or the residual is below its tolerance, or rounding errors stop it.

    `density` is the mean squared weight with which a matrix entry is measured; it scales the preconditioner. `watch` is called
    with ``(L, R, residual)`` at every accepted point. The pair is balanced at every step, which leaves its product as it is.
    With `terms`, offsets move along with the factors, from `offsets`. `horizontal` steps neither rotate nor unbalance the pair:
    the descent is then one on the balanced pairs modulo rotations, with balancing as its retraction.
    """
    objective = _Objective(A, b, q, density, terms, horizontal)
    x, s = objective.balanced(objective.joined(L, R, offsets))
    residual, value = objective.evaluate(x)
    slope = objective.slope(x, residual)
    radius, budget, d1, stiff, dense_steps = np.inf, max_products, len(L), False, 0
    values: deque[float] = deque(maxlen=_FRUITLESS)
    while True:
        watch(*objective.factors(x), residual)
        norm = _norm(slope)
        if norm <= gradient_tol or np.linalg.norm(residual) <= residual_tol or budget <= 0:
            break
        dense_steps += stiff
        fruitless = residual_tol > 0 and len(values) == _FRUITLESS and value > 0.5 * values[0]
        if fruitless or dense_steps > _MOST_DENSE_STEPS:
            break
        values.append(value)
        hessian = objective.hessian(x, residual)
        if stiff:
            precondition = _dense_preconditioner(objective.hessian_matrix(x, residual), x)
        else:
            precondition = objective.preconditioner(x, s)
        step, model, products, length, _ = trust_region_step(
            lambda p, apply=hessian: np.vstack(apply(p[:d1], p[d1:])),  # type: ignore[misc]
            np.vstack(slope),
            radius,
            accuracy=min(0.1, np.sqrt(norm)),
            max_products=budget,
            precondition=lambda p, apply=precondition: np.vstack(apply((p[:d1], p[d1:]))),  # type: ignore[misc]
        )
        budget -= products
        unknowns = x[0].size + x[1].size
        if not stiff and 2 * products > unknowns and unknowns <= _MOST_UNKNOWNS:
            stiff, radius = True, np.inf  # another metric
        trial, trial_s = objective.balanced((x[0] + step[:d1], x[1] + step[d1:]))
        trial_residual, trial_value = objective.evaluate(trial)
        trial_slope = objective.slope(trial, trial_residual)
        gain = value - trial_value
        if model <= 1e-13 * value:
            # The decrease is lost in the rounding of the objective: the gradient alone can tell whether the step is good.
            accept = _norm(trial_slope) <= 0.5 * norm
            if not accept:
                break
        else:
            ratio = gain / model
            accept = ratio > 0.1
            if ratio < 0.25:
                radius = 0.25 * length
            elif ratio > 0.75 and length >= 0.9 * radius:
                radius *= 3.0
            if length <= 1e-15 * _norm(x):
                break
        if accept:
            x, s, residual, value, slope = trial, trial_s, trial_residual, trial_value, trial_slope
    return Descent(*objective.factors(x), residual, norm, objective.offsets(x))


class _Objective:
    """The objective and its derivatives at ``x = (L, R)``, or ``([L, a], [R, c])`` with offsets in the last columns."""

    def __init__(
        self, A: MeasurementMap, b: np.ndarray, q: float, density: float, terms: OffsetTerms | None, horizontal: bool = False
    ) -> None:
        self.A, self.b, self.q, self.density, self.terms, self.horizontal = A, b, q, density, terms, horizontal

    def joined(self, L: np.ndarray, R: np.ndarray, offsets: Pair | None) -> Pair:
        if self.terms is None:
            return L, R
        a, c = (np.zeros(len(L)), np.zeros(len(R))) if offsets is None else offsets
        return np.column_stack([L, a]), np.column_stack([R, c])

    def factors(self, x: Pair) -> Pair:
        return x if self.terms is None else (x[0][:, :-1], x[1][:, :-1])

    def offsets(self, x: Pair) -> Pair | None:
        return None if self.terms is None else (x[0][:, -1], x[1][:, -1])

    def balanced(self, x: Pair) -> tuple[Pair, np.ndarray]:
        L, R, s = balanced(*self.factors(x))
        return self.joined(L, R, self.offsets(x)), s

    def partners(self, x: Pair) -> Pair:
        """The opposite factor of each column: of `x` itself, or the fixed vectors for the columns of offsets."""
        if self.terms is None:
            return x
        return np.column_stack([x[0][:, :-1], self.terms.f]), np.column_stack([x[1][:, :-1], self.terms.g])

    def weighted(self, x: Pair) -> Pair:
        """The gradient of the penalty, which is quadratic."""
        G, H = self.q * x[0], self.q * x[1]
        if self.terms is not None:
            G[:, -1], H[:, -1] = self.terms.left * x[0][:, -1], self.terms.right * x[1][:, -1]
        return G, H

    def evaluate(self, x: Pair) -> tuple[np.ndarray, float]:
        left, right = x
        if self.terms is not None:
            left, right = np.column_stack([left, self.terms.f]), np.insert(right, -1, self.terms.g, axis=1)
        residual = self.b - self.A.forward_factored(left, right)
        return residual, 0.5 * float(residual @ residual) + 0.5 * _inner(x, self.weighted(x))

    def slope(self, x: Pair, residual: np.ndarray) -> Pair:
        back, (left, right), (G, H) = self.A.adjoint_operator(residual), self.partners(x), self.weighted(x)
        return G - back @ right, H - back.T @ left

    def hessian(self, x: Pair, residual: np.ndarray) -> Callable[[np.ndarray, np.ndarray], Pair]:
        # Gauss-Newton where the residual is to vanish, and its part of the Hessian with it.
        coupled = self.factors(x)[0].shape[1]
        curved = self.A.pair_hessian(*self.partners(x), residual if self.q > 0 else None, coupled=coupled)

        def product(dL: np.ndarray, dR: np.ndarray) -> Pair:
            (G, H), (penalty, other) = curved(dL, dR), self.weighted((dL, dR))
            return G + penalty, H + other

        return product

    def hessian_matrix(self, x: Pair, residual: np.ndarray) -> np.ndarray:
        """The matrix of `hessian` for the entries of the first part of `x` above those of the second, row by row."""
        H, first = self.A.pair_gram(*self.partners(x)), x[0].size
        if self.q > 0:
            back, shape = self.A.adjoint_matrix(residual), (*x[0].shape, *x[1].shape)
            for p in range(self.factors(x)[0].shape[1]):
                H[:first, first:].reshape(shape)[:, p, :, p] -= back
                H[first:, :first].reshape(shape[2:] + shape[:2])[:, p, :, p] -= back.T
        H[np.diag_indices_from(H)] += _flat(self.weighted((np.ones_like(x[0]), np.ones_like(x[1]))))
        return H

    def preconditioner(self, x: Pair, s: np.ndarray) -> Callable[[Pair], Pair]:
        inner = _preconditioner(*self.factors(x), s, self.density, self.q, self.horizontal)
        if self.terms is None:
            return inner
        f, g, left, right = self.terms
        a, c = 1 / (self.density * float(g @ g) + left), 1 / (self.density * float(f @ f) + right)
        return lambda v: self.joined(*inner(self.factors(v)), (a * v[0][:, -1], c * v[1][:, -1]))


def _dense_preconditioner(H: np.ndarray, x: Pair) -> Callable[[Pair], Pair]:
    """The inverse of the Hessian `H` at `x` with the absolute values of its eigenvalues."""
    (left, right), first = (x[0].shape, x[1].shape), x[0].size
    values, vectors = np.linalg.eigh(H)
    sizes = np.abs(values)
    inverse = np.where(sizes > _ROTATION_CURVATURE * sizes.max(), 1 / np.where(sizes > 0, sizes, 1.0), 0.0)

    def precondition(g: Pair) -> Pair:
        moved = vectors @ (inverse * (vectors.T @ _flat(g)))
        return moved[:first].reshape(left), moved[first:].reshape(right)

    return precondition


def _flat(x: Pair) -> np.ndarray:
    return np.concatenate([x[0].ravel(), x[1].ravel()])


def _norm(x: Pair) -> float:
    return float(np.sqrt(_inner(x, x)))


def _inner(a: Pair, c: Pair) -> float:
    return float(np.vdot(a[0], c[0]) + np.vdot(a[1], c[1]))


def _preconditioner(
    L: np.ndarray, R: np.ndarray, s: np.ndarray, density: float, q: float, horizontal: bool = False
) -> Callable[[Pair], Pair]:
    """The inverse Hessian at a balanced pair for a map with ``A*A = density``, where ``A*(residual)`` is `q` on the pair.

    `horizontal`: zero along the directions that rotate or unbalance the pair.
    """
    if s.size == 0:
        return lambda g: g
    curvature = density * s
    least = _REGULAR * max(float(curvature[0]), q, np.finfo(float).tiny)
    root = np.sqrt(np.where(s > 0, s, 1.0))  # a column that vanishes has no direction, and all of it is outside
    U, V = L / root, R / root
    outside = 1 / (curvature + q + least)
    along = np.sqrt(curvature + least)
    total = np.add.outer(along**2, along**2)

    def solve(G: np.ndarray, sign: float, stiff: np.ndarray, soft: np.ndarray | float) -> np.ndarray:
        """`X` with ``s_j X_ij + sign sqrt(s_i s_j) X_ji = G_ij / density``, with eigenvalues `stiff` and, for zero, `soft`."""
        seen = (along * G + sign * along[:, None] * G.T) / total
        unseen = (along[:, None] * G - sign * along * G.T) / total
        return along * seen / stiff + along[:, None] * unseen / soft

    def precondition(g: Pair) -> Pair:
        B, C = U.T @ g[0], V.T @ g[1]
        # Rotations of the pair, which change nothing, are the null directions of the sum, unbalancing those of the difference.
        unbalancing = 2 * q + least
        rotating, soft = (np.inf, np.inf) if horizontal else (total, unbalancing)
        both, difference = solve(B + C, 1.0, total, rotating), solve(B - C, -1.0, total + unbalancing, soft)
        dB, dC = (both + difference) / 2, (both - difference) / 2
        return (g[0] - U @ B) * outside + U @ dB, (g[1] - V @ C) * outside + V @ dC

    return precondition
