r"""Conjugate gradients: for linear equations, and in a trust region for quadratic models.

Vectors are arrays of any shape, with the inner product of their entries. The preconditioner is symmetric and positive; one that
is a projection keeps everything in its range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from balancedfact.solvers.iteration._limits import check_time

Operator = Callable[[np.ndarray], np.ndarray]


class LinearSolution(NamedTuple):
    """A solution of ``operator(x) = target`` and the number of products it took."""

    x: np.ndarray
    products: int


class RegionStep(NamedTuple):
    """A step, the decrease of the model, the products spent, the length in the preconditioner's norm, if it is at its limit."""

    x: np.ndarray
    decrease: float
    products: int
    length: float
    limited: bool


def identity(x: np.ndarray) -> np.ndarray:
    """The preconditioner that does nothing."""
    return x


def conjugate_gradients(
    operator: Operator,
    target: np.ndarray,
    *,
    accuracy: float,
    max_products: int,
    precondition: Operator = identity,
    flat: float = 0.0,
) -> LinearSolution:
    """Solve ``operator(x) = target`` for a positive-semidefinite operator, from zero.

    Ends when the residual has fallen by `accuracy` in the preconditioner's norm, or along a direction whose curvature is at
    most `flat` relative to that of the inverse preconditioner.
    """
    x, residual = np.zeros_like(target), target
    z = precondition(residual)
    p, rho = z, float(np.vdot(residual, z))
    first, products = rho, 0
    while products < max_products and rho > accuracy**2 * first:
        check_time()
        image = operator(p)
        products += 1
        curvature = float(np.vdot(p, image))
        if not curvature > flat * rho:
            break
        alpha = rho / curvature
        x = x + alpha * p
        residual = residual - alpha * image
        z = precondition(residual)
        previous, rho = rho, float(np.vdot(residual, z))
        p = z + rho / previous * p
    return LinearSolution(x, products)


def trust_region_step(
    hessian: Operator,
    slope: np.ndarray,
    radius: float,
    *,
    accuracy: float,
    max_products: int,
    precondition: Operator = identity,
) -> RegionStep:
    """Minimise ``<slope, x> + <x, hessian(x)> / 2`` over ``|x| <= radius`` in the preconditioner's norm (Steihaug 1983).

    The region limits the step where conjugate gradients leave it or meet negative curvature; with an infinite radius, that step
    is as long as the gradient. At least one product is spent, unless the slope vanishes in that norm: then the step is zero.
    """
    x, r = np.zeros_like(slope), -slope
    z = precondition(r)
    p, rz = z, float(np.vdot(r, z))
    if not rz > 0:
        return RegionStep(x, 0.0, 0, 0.0, False)
    target = accuracy**2 * rz
    # Squared lengths in the preconditioner's metric follow from recurrences (Conn, Gould and Toint 2000, section 7.5.1).
    xx, xp, pp = 0.0, 0.0, rz
    decrease, products = 0.0, 0
    while products < max(max_products, 1):
        check_time()
        image = hessian(p)
        products += 1
        curvature = float(np.vdot(p, image))
        alpha = rz / curvature if curvature > 0 else np.inf
        if not xx + 2 * alpha * xp + alpha**2 * pp < radius**2:
            tau = float((-xp + np.sqrt(xp**2 + pp * (radius**2 - xx))) / pp) if np.isfinite(radius) else 1.0
            decrease += tau * rz - 0.5 * tau**2 * curvature
            length = float(np.sqrt(xx + 2 * tau * xp + tau**2 * pp))
            return RegionStep(x + tau * p, decrease, products, length, True)
        x = x + alpha * p
        xx += 2 * alpha * xp + alpha**2 * pp
        decrease += 0.5 * alpha * rz
        r = r - alpha * image
        z = precondition(r)
        new = float(np.vdot(r, z))
        if new <= target:
            break
        p = z + new / rz * p
        xp, pp, rz = new / rz * (xp + alpha * pp), new + (new / rz) ** 2 * pp, new
    return RegionStep(x, decrease, products, float(np.sqrt(xx)), False)
