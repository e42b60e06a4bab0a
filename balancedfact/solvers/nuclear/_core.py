"""Proximal steps for the core `C` of ``X = U C V.T``, a convex problem in a few variables."""

from __future__ import annotations

import numpy as np

from balancedfact.measurements import MeasurementMap
from balancedfact.solvers.nuclear._columns import RELATIVE_RANK

_CORE_STEPS = 20
_POWER_STEPS, _CURVATURE_MARGIN = 6, 1.1  # of the power iteration for the largest curvature, which it underestimates


def core_steps(
    A: MeasurementMap,
    b: np.ndarray,
    q: float,
    start: tuple[np.ndarray, np.ndarray, np.ndarray],
    rng: np.random.Generator,
    steps: int = _CORE_STEPS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A balanced pair and its singular values, by proximal steps for ``|A(U C V.T) - b|^2 / 2 + q nuclear(C)``.

    They `start` from ``(U, C, V)``; `U` and `V` have orthonormal columns. The momentum starts anew whenever it points uphill.
    """
    U, C, V = (np.ascontiguousarray(part) for part in start)  # once, and not at every product
    if U.shape[1] == 0:
        return U, V, np.zeros(0)

    def back(image: np.ndarray) -> np.ndarray:
        return np.asarray(U.T @ (A.adjoint_operator(image) @ V))

    direction, curvature = rng.standard_normal(C.shape), 0.0
    for _ in range(_POWER_STEPS):
        direction = back(A.forward_factored(U @ (direction / np.linalg.norm(direction)), V))
        curvature = float(np.linalg.norm(direction))
        if curvature == 0:
            return U[:, :0], V[:, :0], np.zeros(0)
    step, ahead, pace = 1 / (_CURVATURE_MARGIN * curvature), C, 1.0
    P, s, Qt = np.linalg.svd(C)
    for _ in range(steps):
        image = A.forward_factored(U @ ahead, V)
        image -= b
        slope = back(image)
        P, s, Qt = np.linalg.svd(ahead - step * slope)
        s = np.maximum(s - step * q, 0.0)
        after = (P * s) @ Qt
        if np.vdot(ahead - after, after - C) > 0:
            pace, ahead = 1.0, after
        else:
            faster = 0.5 * (1 + np.sqrt(1 + 4 * pace**2))
            ahead = after + (pace - 1) / faster * (after - C)
            pace = faster
        C = after
    keep = s > RELATIVE_RANK * s[0]
    s = s[keep]
    root = np.sqrt(s)
    return U @ (P[:, keep] * root), V @ (Qt[keep].T * root), s
