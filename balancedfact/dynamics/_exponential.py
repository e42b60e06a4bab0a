r"""One step of an exponential Rosenbrock method for gradient flow, with Krylov spaces.

For :math:`\dot u = f(u)` with the symmetric Jacobian :math:`J = -\nabla^2\mathcal L`, the method ``exprb43`` of Hochbruck,
Ostermann and Schweitzer (2009) is of order four and exact on linear problems. Near a minimiser the flow is almost linear,
however stiff, and the Hessian of a factorization has rank at most the number of measurements: steps grow without bound while
the Krylov spaces stay small.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial

import numpy as np
import scipy.linalg

Field = Callable[[np.ndarray], np.ndarray]

_DIMENSION = 80
_TINY = 1e-14
_LOOK_EVERY = 4  # dimensions between two looks at whether a Krylov space is large enough


def exponential_step(
    u: np.ndarray, slope: np.ndarray, field: Field, jacobian: Callable[[np.ndarray], np.ndarray], h: float, tol: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """The state after time `h` and an estimate of its error; ``None`` if a Krylov space grew too large.

    `slope` is ``field(u)``, `jacobian` the product with its derivative at `u` and `tol` the largest error of a component.
    """
    first = _Krylov(jacobian, slope, h, tol)
    if not first.converged:
        return None
    half, full = 0.5 * h * first.phi(1, 0.5 * h), h * first.phi(1, h)
    bend = field(u + half) - slope - jacobian(half)
    second = _Krylov(jacobian, bend, h, tol / 50)
    if not second.converged:
        return None
    move = full + h * second.phi(1, h)
    turn = field(u + move) - slope - jacobian(move)
    third = _Krylov(jacobian, turn, h, tol / 50)
    if not third.converged:
        return None
    error = h * (-48 * second.phi(4, h) + 12 * third.phi(4, h))
    return u + full + h * (16 * second.phi(3, h) - 2 * third.phi(3, h)) + error, error


class _Krylov:
    """Functions of a symmetric operator applied to one vector, from a Lanczos basis with full reorthogonalisation."""

    def __init__(self, product: Callable[[np.ndarray], np.ndarray], v: np.ndarray, h: float, tol: float) -> None:
        self.norm = float(np.linalg.norm(v))
        self.converged = bool(np.isfinite(self.norm))
        if self.norm == 0 or not self.converged:
            self.basis, self.values, self.vectors = np.zeros((1, v.size)), np.zeros(1), np.ones((1, 1))
            return
        limit = min(_DIMENSION, v.size)
        basis, diagonal, beside = np.empty((limit, v.size)), np.zeros(limit), np.zeros(limit)
        basis[0] = v / self.norm
        scale = 0.0
        for k in range(limit):
            w = product(basis[k])
            if k:
                w = w - beside[k - 1] * basis[k - 1]
            diagonal[k] = basis[k] @ w
            w = w - diagonal[k] * basis[k]
            inner = basis[: k + 1] @ w  # what rounding has left along the others
            diagonal[k] += inner[k]
            w -= inner @ basis[: k + 1]
            beta = float(np.linalg.norm(w))
            scale = max(scale, abs(diagonal[k]), beta)
            whole = beta <= _TINY * scale or k + 1 == v.size
            if whole or k + 1 == limit or k % _LOOK_EVERY == 0:
                self.basis = basis[: k + 1]
                self.values, self.vectors = scipy.linalg.eigh_tridiagonal(diagonal[: k + 1], beside[:k])
                # The residual of the exponential at time h bounds what the rest of the space can add.
                rest = h * beta * abs(float(self.vectors[-1] @ (_phi(1, h * self.values) * self.vectors[0]))) * self.norm
                if whole or h * rest <= tol:
                    return
            if k + 1 < limit:
                beside[k] = beta
                basis[k + 1] = w / beta
        self.converged = False

    def phi(self, order: int, h: float) -> np.ndarray:
        """The function ``phi_order(h J) v``."""
        coefficients = self.vectors @ (_phi(order, h * self.values) * self.vectors[0])
        return self.norm * (coefficients @ self.basis)


def _phi(order: int, z: np.ndarray) -> np.ndarray:
    """The functions ``phi_1 = (exp(z) - 1) / z`` and ``phi_{k+1} = (phi_k - 1/k!) / z``."""
    small = np.abs(z) < 1
    near = np.where(small, z, 0.0)
    series = np.zeros_like(z)
    for k in range(20, -1, -1):
        series = series * near + 1 / factorial(k + order)
    far = np.where(small, 1.0, z)
    with np.errstate(over="ignore"):
        value = np.expm1(far) / far
        for k in range(1, order):
            value = (value - 1 / factorial(k)) / far
    return np.where(small, series, value)
