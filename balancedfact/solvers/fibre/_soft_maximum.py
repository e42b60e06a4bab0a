r"""Newton's method for the largest eigenvalue on a chain of positive-definite matrices, through a smooth maximum.

For matrices :math:`A_1,\dots,A_k` and ``M = hi @ lo`` the layers ``G_1 lo``, ``G_j G_{j-1}^-1``, ``hi G_{L-1}^-1`` have the
derivatives :math:`J_{j,i} = C_j^\top A_iB_{j-1}^\top`, and the sharpness is the largest eigenvalue of
:math:`Q_{il} = \sum_j\langle J_{j,i}, J_{j,l}\rangle`. Along the geodesics ``G_j -> expm(t H_j / 2) G_j``

.. math:: J_{j,i}(t) = e^{-tH_j/2}J_{j,i}e^{tH_{j-1}/2}, \qquad H_0 = H_L = 0,

so :math:`y^\top Qy` is a sum of exponentials for every `y`, and the largest eigenvalue is geodesically convex. What is
minimised is :math:`\beta^{-1}\log\operatorname{tr}e^{\beta Q}`, within :math:`\beta^{-1}\log k` of it and convex too, for
growing :math:`\beta`; its weights :math:`\omega = e^{\beta Q}/\operatorname{tr}e^{\beta Q}` are the dual variable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from balancedfact._packing import Packing
from balancedfact.solvers.fibre._chain import FramedMatrices

# Weights below this share of the largest are left out of the derivatives.
_SEEN = 1e-13
# Largest eigenvalue of a step.
_LONGEST_SOFT_STEP = 2.0
_SOFT_STEPS = 60
# Numbers of derivatives between eigenvectors that are held at a time.
_DERIVATIVES_HELD = 2**22
# Decrements, times beta, where Newton's method is in its quadratic range, and where nothing is left to gain.
_NEAR, _CLOSE = 1e-2, 1e-18


class Ensemble(NamedTuple):
    """The matrices as the ends and the middle of the chain see them: ``hi.T @ A_i``, ``A_i @ lo.T``, ``hi.T @ A_i @ lo.T``."""

    first: np.ndarray
    last: np.ndarray
    middle: np.ndarray


class Smooth(NamedTuple):
    """A point with the eigenvalues of `Q` there, ascending, its eigenvectors, and the weights of the smooth maximum."""

    G: np.ndarray
    inverse: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    weights: np.ndarray
    value: float

    @property
    def largest(self) -> float:
        return float(self.values[-1])


def derivatives(ensemble: Ensemble, G: np.ndarray, inverse: np.ndarray) -> list[np.ndarray]:
    """The stacks of the derivatives of all layers."""
    back = inverse.transpose(0, 2, 1)
    middle = [later @ ensemble.middle @ earlier.T for later, earlier in zip(back[1:], G[:-1], strict=True)]
    return [back[0] @ ensemble.first, *middle, ensemble.last @ G[-1].T]


def at(ensemble: Ensemble, G: np.ndarray, inverse: np.ndarray, beta: float) -> Smooth:
    """The smooth maximum at a point."""
    Q = np.zeros((len(ensemble.first),) * 2)
    for stack in derivatives(ensemble, G, inverse):
        flat = stack.reshape(len(stack), -1)
        Q += flat @ flat.T
    values, vectors = np.linalg.eigh(Q)
    shares = np.exp(beta * (values - values[-1]))
    total = float(shares.sum())
    return Smooth(G, inverse, values, vectors, shares / total, float(values[-1]) + np.log(total) / beta)


def descend(ensemble: Ensemble, point: Smooth, beta: float, seen: Callable[[Smooth], None]) -> Smooth:
    """Newton's method with line search for one smoothness.

    The weights are off by the root of `beta` times the decrement, which falls far below what the value resolves: near the
    minimum full steps are taken as long as they lower the decrement.
    """
    space = Packing(point.G.shape[1])
    last = np.inf
    for _ in range(_SOFT_STEPS):
        gradient, hessian = _expansion(ensemble, point, beta, space)
        ridge = 1e-14 * float(np.trace(hessian)) / len(hessian)
        values, vectors = np.linalg.eigh(hessian)
        step = -vectors @ ((vectors.T @ gradient) / np.maximum(values, ridge))
        slope = float(gradient @ step)
        H = space.unpack(step.reshape(len(point.G), -1))
        if -slope <= _NEAR / beta:
            if -slope <= _CLOSE / beta or -slope > 0.5 * last:
                break
            last, point = -slope, _moved(ensemble, point, H, beta)
            seen(point)
            continue
        taken = min(1.0, _LONGEST_SOFT_STEP / float(np.abs(np.linalg.eigvalsh(H)).max()))
        moved = None
        while taken > 1e-9:
            trial = _moved(ensemble, point, taken * H, beta)
            if trial.value <= point.value + 1e-4 * taken * slope:
                moved = trial
                break
            taken /= 3
        if moved is None:
            break
        point = moved
        seen(point)
    return point


def _moved(ensemble: Ensemble, point: Smooth, H: np.ndarray, beta: float) -> Smooth:
    values, vectors = np.linalg.eigh(H)
    half, turned = np.exp(values / 2)[:, None, :], vectors.transpose(0, 2, 1)
    return at(ensemble, vectors * half @ turned @ point.G, point.inverse @ (vectors / half @ turned), beta)


def _expansion(ensemble: Ensemble, point: Smooth, beta: float, space: Packing) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and Hessian of the smooth maximum along the geodesics, in the coordinates of the `H_j`."""
    stacks = derivatives(ensemble, point.G, point.inverse)
    turned = [np.tensordot(point.vectors.T, stack, axes=1) for stack in stacks]
    weights, places = point.weights, len(point.G)
    active = np.flatnonzero(weights > _SEEN * weights[-1])
    total = places * space.size
    gradient, hessian = np.zeros(total), np.zeros((total, total))
    bends, most = divided(point.values, weights, active, beta), max(1, _DERIVATIVES_HELD // (len(weights) * total))
    for start in range(0, active.size, most):
        some = active[start : start + most]
        slopes = []  # [a, b, e]: the derivative of Q between eigenvectors a and b
        for j in range(places):
            behind = np.einsum("asc,btc->abst", turned[j][some], turned[j], optimize=True)
            ahead = np.einsum("acs,bct->abst", turned[j + 1][some], turned[j + 1], optimize=True)
            change = ahead - behind
            slopes.append(space.pack((change + change.swapaxes(2, 3)) / 2))
        D = np.concatenate(slopes, axis=2)
        gradient += weights[some] @ D[np.arange(some.size), some]
        flat = (D * np.sqrt(bends[start : start + most])[:, :, None]).reshape(-1, total)
        hessian += flat.T @ flat
    hessian -= beta * np.outer(gradient, gradient)
    size = space.size
    root = np.sqrt(weights[active])[:, None, None]
    for j in range(places):
        here, there = root * turned[j][active], root * turned[j + 1][active]
        X = np.einsum("asc,atc->st", here, here) + np.einsum("acs,act->st", there, there)
        basis = space.unpack(np.eye(size))
        block = slice(j * size, (j + 1) * size)
        hessian[block, block] += space.pack((basis @ X + X @ basis) / 2)
        if j > 0:
            before = slice((j - 1) * size, j * size)
            cross = FramedMatrices(here[None]).operators(space)[0]
            hessian[block, before] -= cross
            hessian[before, block] -= cross.T
    return gradient, (hessian + hessian.T) / 2


def divided(values: np.ndarray, weights: np.ndarray, active: np.ndarray, beta: float) -> np.ndarray:
    """The divided differences of the weights; those between an active eigenvector and another count twice."""
    x = beta * (values[active][:, None] - values)
    far, least = np.abs(x), np.minimum(weights[active][:, None], weights)
    most = np.maximum(weights[active][:, None], weights)
    safe = np.where(far > 0, far, 1.0)
    bends = np.where(far > 1e-3, (most - least) / safe, most * (1 - far / 2 + far**2 / 6))
    inactive = np.ones(weights.size, dtype=bool)
    inactive[active] = False
    return np.asarray(beta * bends * np.where(inactive, 2.0, 1.0))
