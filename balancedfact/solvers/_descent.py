r"""Second-order descent on the two factors, for any measurement map and without forming a ``d1 x d2`` matrix.

Minimises ``f(L, R) = |A(L R.T) - b|^2 / 2 + q (|L|^2 + |R|^2) / 2`` by a trust-region Newton method whose steps come from
conjugate gradients (Steihaug 1983). One Hessian product costs one forward map and four applications of an adjoint to `k`
columns (two with ``q = 0``, where Gauss-Newton steps are taken): ``O(m k)`` for entry sampling. Conjugate gradients are
preconditioned in the way of Mishra and Sepulchre ("Riemannian preconditioning", 2016): the curvature in `L` is close to
``density R.T R + q I``, that in `R` to ``density L.T L + q I``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from balancedfact.measurements import MeasurementMap

Pair = tuple[np.ndarray, np.ndarray]


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
    with ``(L, R, residual)`` at every accepted point.
    """

    def evaluate(L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, float]:
        residual = b - A.forward_factored(L, R)
        return residual, 0.5 * float(residual @ residual) + 0.5 * q * _norm(L, R) ** 2

    def gradient(L: np.ndarray, R: np.ndarray, residual: np.ndarray):  # type: ignore[no-untyped-def]
        back = A.adjoint_operator(residual)
        return back, (q * L - back @ R, q * R - back.T @ L)

    residual, value = evaluate(L, R)
    back, slope = gradient(L, R, residual)
    radius, budget = np.inf, max_products
    while True:
        watch(L, R, residual)
        norm = _norm(*slope)
        if norm <= gradient_tol or np.linalg.norm(residual) <= residual_tol or budget <= 0:
            break
        precondition = _preconditioner(L, R, density, q)

        def hessian(dL: np.ndarray, dR: np.ndarray, L=L, R=R, back=back) -> Pair:  # type: ignore[no-untyped-def]
            push = A.adjoint_operator(A.forward_factored(np.hstack([dL, L]), np.hstack([R, dR])))
            if q == 0:  # Gauss-Newton: the residual is to vanish, and its part of the Hessian with it
                return push @ R, push.T @ L
            return push @ R - back @ dR + q * dL, push.T @ L - back.T @ dL + q * dR

        step, model, products, length = _steihaug(hessian, precondition, slope, radius, norm, budget)
        budget -= products
        trial_L, trial_R = L + step[0], R + step[1]
        trial, trial_value = evaluate(trial_L, trial_R)
        trial_back, trial_slope = gradient(trial_L, trial_R, trial)
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
            L, R, residual, value, back, slope = trial_L, trial_R, trial, trial_value, trial_back, trial_slope
    return Descent(L, R, residual, norm)


def _norm(dL: np.ndarray, dR: np.ndarray) -> float:
    return float(np.sqrt(np.vdot(dL, dL) + np.vdot(dR, dR)))


def _inner(a: Pair, c: Pair) -> float:
    return float(np.vdot(a[0], c[0]) + np.vdot(a[1], c[1]))


def _preconditioner(L: np.ndarray, R: np.ndarray, density: float, q: float) -> Callable[[Pair], Pair]:
    k = L.shape[1]

    def inverse(gram: np.ndarray) -> np.ndarray:
        return np.linalg.inv(density * gram + (q + 1e-8 * density * np.trace(gram) / k) * np.eye(k))

    left, right = inverse(R.T @ R), inverse(L.T @ L)
    return lambda g: (g[0] @ left, g[1] @ right)


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
