r"""Second-order descent on the two factors, for any measurement map and without forming a ``d1 x d2`` matrix.

Minimises ``f(L, R) = |A(L R.T) - b|^2 / 2 + q (|L|^2 + |R|^2) / 2`` by a trust-region Newton method whose steps come from
conjugate gradients (Steihaug 1983). One Hessian product is one `MeasurementMap.pair_hessian`: ``O(m k)`` for entry sampling.

The preconditioner is the inverse of what the Hessian would be if ``A*A`` were `density` times the identity and the pair
stationary. For a balanced pair ``L = U s^(1/2)``, ``R = V s^(1/2)`` it is known in closed form: a step
``(U B + L', V C + R')`` with ``L'``, ``R'`` orthogonal to `U`, `V` decouples into the columns of ``L'`` and ``R'`` and, for
``B + C`` and ``B - C``, into the pairs of entries ``(i, j)``, ``(j, i)``. So the soft directions, those that unbalance the
pair, cost no iterations.
Preconditioning by ``density R.T R + q I`` alone (Mishra and Sepulchre, "Riemannian preconditioning", 2016) leaves them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from balancedfact.measurements import MeasurementMap
from balancedfact.solvers._problem import balanced

Pair = tuple[np.ndarray, np.ndarray]

# What is added to curvatures that vanish, relative to the largest.
_REGULAR = 1e-8


class Descent(NamedTuple):
    """Where a descent ended: the factors, the residual ``b - A(L R.T)`` and the norm of the gradient."""

    L: np.ndarray
    R: np.ndarray
    residual: np.ndarray
    gradient_norm: float


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
    watch: Callable[[np.ndarray, np.ndarray, np.ndarray], None] = lambda L, R, residual: None,
) -> Descent:
    """Descend from ``(L, R)`` until the gradient or the residual is below its tolerance, or rounding errors stop it.

    `density` is the mean squared weight with which a matrix entry is measured; it scales the preconditioner. `watch` is called
    with ``(L, R, residual)`` at every accepted point. The pair is balanced at every step, which leaves its product as it is.
    """

    def evaluate(L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, float]:
        residual = b - A.forward_factored(L, R)
        return residual, 0.5 * float(residual @ residual) + 0.5 * q * _norm(L, R) ** 2

    def gradient(L: np.ndarray, R: np.ndarray, residual: np.ndarray) -> Pair:
        back = A.adjoint_operator(residual)
        return q * L - back @ R, q * R - back.T @ L

    L, R, s = balanced(L, R)
    residual, value = evaluate(L, R)
    slope = gradient(L, R, residual)
    radius, budget = np.inf, max_products
    while True:
        watch(L, R, residual)
        norm = _norm(*slope)
        if norm <= gradient_tol or np.linalg.norm(residual) <= residual_tol or budget <= 0:
            break
        precondition = _preconditioner(L, R, s, density, q)
        # Gauss-Newton where the residual is to vanish, and its part of the Hessian with it.
        hessian = _penalised(A.pair_hessian(L, R, residual if q > 0 else None), q)
        step, model, products, length = _steihaug(hessian, precondition, slope, radius, norm, budget)
        budget -= products
        trial_L, trial_R, trial_s = balanced(L + step[0], R + step[1])
        trial, trial_value = evaluate(trial_L, trial_R)
        trial_slope = gradient(trial_L, trial_R, trial)
        gain = value - trial_value
        if model <= 1e-13 * value:
            # The decrease is lost in the rounding of the objective: the gradient alone can tell whether the step is good.
            accept = _norm(*trial_slope) <= 0.5 * norm
            if not accept:
                break
        else:
            ratio = gain / model
            accept = ratio > 0.1
            if ratio < 0.25:
                radius = 0.25 * length
            elif ratio > 0.75 and length >= 0.9 * radius:
                radius *= 3.0
            if length <= 1e-15 * _norm(L, R):
                break
        if accept:
            L, R, s, residual, value, slope = trial_L, trial_R, trial_s, trial, trial_value, trial_slope
    return Descent(L, R, residual, norm)


def _norm(dL: np.ndarray, dR: np.ndarray) -> float:
    return float(np.sqrt(np.vdot(dL, dL) + np.vdot(dR, dR)))


def _inner(a: Pair, c: Pair) -> float:
    return float(np.vdot(a[0], c[0]) + np.vdot(a[1], c[1]))


def _penalised(hessian: Callable[[np.ndarray, np.ndarray], Pair], q: float) -> Callable[[np.ndarray, np.ndarray], Pair]:
    def product(dL: np.ndarray, dR: np.ndarray) -> Pair:
        G, H = hessian(dL, dR)
        return G + q * dL, H + q * dR

    return product


def _preconditioner(L: np.ndarray, R: np.ndarray, s: np.ndarray, density: float, q: float) -> Callable[[Pair], Pair]:
    """The inverse Hessian at a balanced pair for a map with ``A*A = density``, where ``A*(residual)`` is `q` on the pair."""
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
        soft = 2 * q + least
        both, difference = solve(B + C, 1.0, total, total), solve(B - C, -1.0, total + soft, soft)
        dB, dC = (both + difference) / 2, (both - difference) / 2
        return (g[0] - U @ B) * outside + U @ dB, (g[1] - V @ C) * outside + V @ dC

    return precondition


def _steihaug(hessian, precondition, slope: Pair, radius: float, norm: float, budget: int):  # type: ignore[no-untyped-def]
    """Minimise the quadratic model in the preconditioner's norm ball; also its decrease, the products and the length used."""
    x = (np.zeros_like(slope[0]), np.zeros_like(slope[1]))
    r = (-slope[0], -slope[1])
    z = precondition(r)
    p, rz = z, _inner(r, z)
    target = min(0.1, np.sqrt(norm)) * np.sqrt(rz)
    # Squared lengths in the preconditioner's metric follow from recurrences (Conn, Gould and Toint 2000, section 7.5.1).
    xx, xp, pp = 0.0, 0.0, rz
    model, products = 0.0, 0
    while products < max(budget, 1):
        Hp = hessian(*p)
        products += 1
        curvature = _inner(p, Hp)
        alpha = rz / curvature if curvature > 0 else np.inf
        if not xx + 2 * alpha * xp + alpha**2 * pp < radius**2:
            if np.isfinite(radius):
                tau = (-xp + np.sqrt(xp**2 + pp * (radius**2 - xx))) / pp
            else:  # negative curvature and no radius yet: go as far as the gradient is long
                tau = 1.0
            model += tau * rz - 0.5 * tau**2 * curvature
            return (x[0] + tau * p[0], x[1] + tau * p[1]), model, products, float(np.sqrt(xx + 2 * tau * xp + tau**2 * pp))
        x = (x[0] + alpha * p[0], x[1] + alpha * p[1])
        xx += 2 * alpha * xp + alpha**2 * pp
        model += 0.5 * alpha * rz
        r = (r[0] - alpha * Hp[0], r[1] - alpha * Hp[1])
        z = precondition(r)
        new = _inner(r, z)
        if np.sqrt(new) <= target:
            break
        p = (z[0] + new / rz * p[0], z[1] + new / rz * p[1])
        xp, pp, rz = new / rz * (xp + alpha * pp), new + (new / rz) ** 2 * pp, new
    return x, model, products, float(np.sqrt(xx))
