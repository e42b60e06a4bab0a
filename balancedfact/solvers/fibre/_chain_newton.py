r"""Newton's method on the chain of positive-definite matrices.

In the frame of the current point the Riemannian Hessian of `f` is block tridiagonal,

.. math:: (\nabla^2 f\,[H])_j = \tfrac12(D_j H_j + H_j D_j) - \Phi_{j+1}(H_{j+1}) - \Phi_j^*(H_{j-1}),
          \qquad \Phi_j(H) = \sum_i K_i^{(j)} H K_i^{(j)\top},

with diagonal `D_j`. Small ranks take one block elimination along the chain. Larger ones take conjugate gradients,
preconditioned by the diagonal blocks alone; the multiples of the identity, along which the chain couples most, are minimised
over exactly, and on what remains the preconditioner is exact for isotropic measurements whatever the depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from balancedfact._packing import Packing
from balancedfact._threads import threads_for
from balancedfact.solvers.fibre._chain import Chain, ChainPoint, FramedMatrices
from balancedfact.solvers.iteration._conjugate_gradients import conjugate_gradients
from balancedfact.solvers.iteration._log import Log

# Largest eigenvalue of a step that is tried: longer ones multiply the P_j by more than floating point resolves, or overflow.
_LONGEST_NEWTON_STEP = 30.0
# Two steps of a larger eigenvalue than this before the gap closes are no Newton steps towards a minimum.
_LONG = 0.2
# Logarithms of the condition number of P: up to the first, traces of layers are computed to several digits; beyond the second,
# rounding errors of the data decide whether the infimum is attained; at the third, nothing is left but rounding errors.
WELL_CONDITIONED, _UNRESOLVED, _ONLY_ROUNDING = 12.0, 20.0, 36.0
_NEWTON_STEPS = 300


class Ending(Enum):
    """The reasons for which an iteration ends."""

    MINIMUM = "the gap closed"
    UNATTAINED = "the iterates go to infinity"
    STALLED = "rounding errors stop the descent"
    INTERRUPTED = "the user stopped it"


@dataclass
class Run:
    """Reason for the end, point of smallest gap, last point that is well conditioned, and the record of all."""

    verdict: Ending
    point: ChainPoint
    moderate: ChainPoint
    history: dict[str, np.ndarray]


def minimise(
    chain: Chain, tol: float, log: Log, value: Callable[[float], float] = float, start: ChainPoint | None = None
) -> Run:
    """Descend until the relative gap is at most `tol`, from the identity by default.

    `value` converts to the user's units for the log.
    """
    point = best = moderate = chain.start() if start is None else start
    lengths, inner, verdict = [0.0], 0, Ending.STALLED
    with log, threads_for(chain.size**2 * chain.depth, 0):
        for _ in range(_NEWTON_STEPS):
            best = point if point.gap <= best.gap else best
            moderate = point if point.spread <= WELL_CONDITIONED else moderate
            record = {
                "value": value(point.value),
                "lower_bound": value(point.lower),
                "gap": point.gap,
                "stationarity": point.stationarity,
                "inner": float(inner),
            }
            log.write(f"gap {point.gap:.1e}", record)
            if point.gap <= tol:
                verdict = Ending.MINIMUM
                break
            if point.spread > _ONLY_ROUNDING:
                verdict = Ending.UNATTAINED
                break
            step, inner = newton_step(point)
            following = _searched(point, step)
            if following is None:
                break
            point, taken = following
            lengths.append(taken * float(np.abs(np.linalg.eigvalsh(step)).max()))
    if log.ended:
        verdict = Ending.INTERRUPTED
    # Steps that do not shrink while the gap closes have no end to reach.
    endless = min(lengths[-2:]) > _LONG or best.spread > _UNRESOLVED
    if endless and verdict is not Ending.INTERRUPTED:
        verdict = Ending.UNATTAINED
    return Run(verdict, best, moderate, log.history)


def newton_step(point: ChainPoint) -> tuple[np.ndarray, int]:
    """A descent direction that solves, or nearly solves, Newton's equation, and the number of inner iterations."""
    if isinstance(point.near, FramedMatrices):
        return eliminated(point, point.near), 1
    return conjugated(point)


def eliminated(point: ChainPoint, near: FramedMatrices) -> np.ndarray:
    """Newton's direction by block elimination along the chain."""
    space = Packing(point.chain.size)
    N = len(point.G)
    couple = near.operators(space)
    diagonal = (point.curvature[:, space.rows] + point.curvature[:, space.cols]) / 2
    ridge = 1e-14 * diagonal.max()
    slope = space.pack(point.gradient)
    for _ in range(8):
        pivots = np.empty((N, space.size, space.size))
        right = np.empty_like(slope)
        pivots[0], right[0] = np.diag(diagonal[0] + ridge), -slope[0]
        for j in range(1, N):
            solved = np.linalg.solve(pivots[j - 1], np.column_stack([couple[j - 1], right[j - 1]]))
            pivots[j] = np.diag(diagonal[j] + ridge) - couple[j - 1].T @ solved[:, :-1]
            right[j] = -slope[j] + couple[j - 1].T @ solved[:, -1]
        step = np.empty_like(slope)
        step[-1] = np.linalg.solve(pivots[-1], right[-1])
        for j in range(N - 2, -1, -1):
            step[j] = np.linalg.solve(pivots[j], right[j] + couple[j] @ step[j + 1])
        if np.vdot(slope, step) < 0:
            break
        ridge *= 100.0  # rounding errors made a pivot indefinite
    return space.unpack(step)


def conjugated(point: ChainPoint) -> tuple[np.ndarray, int]:
    """Newton's direction by preconditioned conjugate gradients, among matrices of trace zero."""
    depth, g = point.chain.depth, point.value / point.chain.depth
    curvature = np.maximum(point.curvature, 1e-14 * point.curvature.max())
    diagonal = (curvature[:, :, None] + curvature[:, None, :]) / 2

    def hessian(H: np.ndarray) -> np.ndarray:
        out = diagonal * H
        out[:-1] -= point.near.forward(H[1:])
        out[1:] -= point.near.backward(H[:-1])
        # What is gained by scaling the P_j anew: the squares of the derivatives of the L terms.
        ahead = np.einsum("jab,jab->j", point.ahead, H)
        behind = np.einsum("jab,jab->j", point.behind, H)
        slope = np.append(0.0, ahead) - np.append(behind, 0.0)
        out -= (slope[1:, None, None] * point.ahead - slope[:-1, None, None] * point.behind) / g
        return _traceless(out)

    def precondition(residual: np.ndarray) -> np.ndarray:
        return _traceless(residual / diagonal)

    target = -_traceless(point.gradient)
    # Superlinear in the end, and no more work at the beginning than its model is worth.
    accuracy = min(0.1, np.sqrt(point.stationarity))
    most = 20 * depth + 200
    x, count = conjugate_gradients(hessian, target, accuracy=accuracy, max_products=most, precondition=precondition, flat=1e-14)
    # A gradient along which the model is flat to rounding error is the step itself.
    return (x if x.any() else precondition(target)), count


def _searched(point: ChainPoint, step: np.ndarray) -> tuple[ChainPoint, float] | None:
    """The first point along the geodesic, halving the step, with enough descent; at rounding level, with a smaller gap."""
    slope = float(np.vdot(point.gradient, step))
    taken = min(1.0, _LONGEST_NEWTON_STEP / float(np.abs(np.linalg.eigvalsh(step)).max()))
    shortest = 1e-6 * taken
    while taken > shortest:
        trial = point.moved(taken * step)
        if trial.value <= point.value + 1e-4 * taken * slope:
            return trial, taken
        if trial.value <= point.value * (1 + 1e-13) and trial.gap < 0.9 * point.gap:
            return trial, taken
        taken /= 2
    return None


def _traceless(H: np.ndarray) -> np.ndarray:
    size = H.shape[-1]
    return H - (np.trace(H, axis1=1, axis2=2) / size)[:, None, None] * np.eye(size)
