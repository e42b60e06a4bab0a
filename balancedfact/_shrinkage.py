"""Shrinkage of singular values by the power ``2 / L``: thresholds and minimisers of one scalar problem."""

from __future__ import annotations

import numpy as np

from balancedfact._linalg import EPS


def thresholds(weight: float, L: int) -> tuple[float, float]:
    """The numbers up to which ``(x - y)**2 / 2 + weight * L / 2 * x**(2 / L)`` is least at zero, and has no other minimum."""
    if L == 2:
        return weight, weight
    power = L / (2 * L - 2)
    return (L - 1) / (L - 2) * (weight * (L - 2)) ** power, (2 * L - 2) / (L - 2) * (weight * ((L - 2) / L)) ** power


def shrunk(y: np.ndarray, weight: float, L: int) -> np.ndarray:
    """The minimisers of ``(x - y)**2 / 2 + weight * L / 2 * x**(2 / L)``."""
    if L == 2:
        return np.maximum(y - weight, 0.0)
    kept = y > thresholds(weight, L)[0]
    x, target = y[kept].copy(), y[kept]
    for _ in range(60):  # Newton from above on a convex function that grows: monotone, and quadratic in the end
        slope = 1 - weight * (1 - 2 / L) * x ** (2 / L - 2)
        step = (x + weight * x ** (2 / L - 1) - target) / slope
        x -= step
        if np.all(np.abs(step) <= 4 * EPS * x):
            break
    shrunk = np.zeros_like(y)
    shrunk[kept] = x
    return shrunk
