r"""Newton's method for a smooth maximum of the Hessian's eigenvalues over the layers of a fixed width that fit the data.

At layers that fit, the eigenvalues of the Hessian of :math:`\frac1m\|\mathcal A(W_L\cdots W_1)-b\|^2` that are not zero are
those of :math:`\frac2mQ`, :math:`Q = JJ^\top`, `J` the Jacobian of the measurements with respect to the layers. With
:math:`f_y(W) = \langle\mathcal A^*(y), W_L\cdots W_1\rangle` and eigenvectors :math:`y_a` of `Q`, :math:`g_a = J^\top y_a`,

.. math:: y_a^\top(\partial_uQ)y_b = (f_{y_a}''g_b + f_{y_b}''g_a)^\top u, \qquad
          y_a^\top(\partial_u\partial_vQ)y_a = 2u^\top(f_{y_a}''f_{y_a}'' + f_{y_a}'''[g_a])v .

What is minimised is :math:`\beta^{-1}\log\operatorname{tr}e^{\beta Q}`; a step minimises the quadratic model of the Lagrangian
over the kernel of `J`, without the rotations of the hidden spaces. Derivatives along a direction are those of polynomials, and
are taken by a complex step, exact to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from balancedfact._linalg import FITTED, product
from balancedfact.solvers.fibre._soft_maximum import divided
from balancedfact.solvers.iteration._limits import check_time

_SEEN_WEIGHT = 1e-13  # weights below this share of the largest are left out of the derivatives
_IMAGINARY_STEP = 1e-30  # of the complex derivative
_DEPENDENT_ROWS = 1e-9  # singular values of the Jacobian below this fraction of the largest count as zero
_LONGEST_SHARP_STEP = 0.3  # of the norm of the layers, the longest step
_SHARP_STEPS = 60
_QUADRATIC, _NOTHING_LEFT = 1e-2, 1e-18  # decrements, times beta: the quadratic range, and nothing left to gain
_RESOLVED_SHARE = 1e-13  # changes of the value below this fraction of it are rounding
_LEAST_CURVATURE = 1e-13  # curvatures below this fraction of the largest count as this


def jacobian(stack: np.ndarray, layers: list[np.ndarray]) -> np.ndarray:
    """The derivatives of the measurements with respect to the entries of the layers, shape ``(m, n)``."""
    before, after = partial_products(layers)
    blocks = [(C.T @ stack @ B.T).reshape(len(stack), -1) for C, B in zip(after[1:], before[:-1], strict=True)]
    return np.concatenate(blocks, axis=1)


def bending(S: np.ndarray, layers: list[np.ndarray]) -> np.ndarray:
    """The second derivatives of ``sum(S * W_L @ ... @ W_1)`` with respect to the entries of the layers, shape ``(n, n)``."""
    before, after = partial_products(layers)
    ends = np.cumsum([0, *(W.size for W in layers)])
    total = np.zeros((ends[-1], ends[-1]), dtype=layers[0].dtype)
    for j in range(len(layers)):
        between = np.eye(layers[j].shape[0], dtype=total.dtype)
        for k in range(j + 1, len(layers)):
            outer = after[k + 1].T @ S @ before[j].T
            block = np.einsum("da,cb->abcd", between, outer).reshape(layers[j].size, layers[k].size)
            total[ends[j] : ends[j + 1], ends[k] : ends[k + 1]] = block
            total[ends[k] : ends[k + 1], ends[j] : ends[j + 1]] = block.T
            between = layers[k] @ between
    return total


def partial_products(layers: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The products of the first `j` layers and of the last ``L - j``, for ``j = 0, ..., L``."""
    before, after = [np.eye(layers[0].shape[1])], [np.eye(layers[-1].shape[0])]
    for first, last in zip(layers, layers[::-1], strict=True):
        before.append(first @ before[-1])
        after.insert(0, after[0] @ last)
    return before, after


class SharpPoint:
    """Layers that fit, with the eigenvalues of `Q`, ascending, its eigenvectors and the weights of the smooth maximum."""

    def __init__(self, stack: np.ndarray, b: np.ndarray, layers: list[np.ndarray], beta: float) -> None:
        self.stack, self.b, self.layers, self.beta = stack, b, layers, beta
        self.x = np.concatenate([W.ravel() for W in layers])
        self.J = jacobian(stack, layers)
        self.values, self.vectors = np.linalg.eigh(self.J @ self.J.T)
        shares = np.exp(beta * (self.values - self.values[-1]))
        self.weights = shares / shares.sum()
        self.value = float(self.values[-1] + np.log(shares.sum()) / beta)

    @property
    def largest(self) -> float:
        return float(self.values[-1])

    def smoothed(self, beta: float) -> SharpPoint:
        """The same layers with another smoothness."""
        return SharpPoint(self.stack, self.b, self.layers, beta)

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        return np.tensordot(y, self.stack, 1)

    def _shaped(self, x: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum([W.size for W in self.layers])[:-1]
        return [part.reshape(W.shape) for part, W in zip(np.split(x, ends), self.layers, strict=True)]

    @cached_property
    def _linear(self) -> tuple[np.ndarray, np.ndarray]:
        """The pseudo-inverse of `J`, and a basis of its kernel without the rotations of the hidden spaces."""
        U, s, Vt = np.linalg.svd(self.J, full_matrices=False)
        kept = s > _DEPENDENT_ROWS * s[0]
        inverse = (Vt[kept].T / s[kept]) @ U[:, kept].T
        turns, rows = self._turns(), Vt[kept]
        U, s, Vt = np.linalg.svd(np.concatenate([rows, turns]))
        return inverse, Vt[int(np.count_nonzero(s > _DEPENDENT_ROWS * s[0])) :].T

    def _turns(self) -> np.ndarray:
        rows = []
        for j in range(len(self.layers) - 1):
            for p, q in zip(*np.triu_indices(len(self.layers[j]), 1), strict=True):
                V = [np.zeros(W.shape) for W in self.layers]
                V[j][p], V[j][q] = self.layers[j][q], -self.layers[j][p]
                V[j + 1][:, q], V[j + 1][:, p] = -self.layers[j + 1][:, p], self.layers[j + 1][:, q]
                row = np.concatenate([part.ravel() for part in V])
                rows.append(row / (np.linalg.norm(row) or 1.0))
        return np.array(rows).reshape(len(rows), self.x.size)

    @property
    def _active(self) -> np.ndarray:
        return np.flatnonzero(self.weights > _SEEN_WEIGHT * self.weights[-1])

    def _along(self, a: int) -> list[np.ndarray]:
        """The layers with an imaginary step along `g_a`."""
        return self._shaped(self.x + 1j * _IMAGINARY_STEP * (self.J.T @ self.vectors[:, a]))

    def _derivative(self, along: list[np.ndarray]) -> np.ndarray:
        return jacobian(self.stack, along).imag / _IMAGINARY_STEP

    def _expansion(self) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and Hessian of the smooth maximum with respect to the entries of the layers."""
        n, active = self.x.size, self._active
        gradient, hessian = np.zeros(n), np.zeros((n, n))
        turned = self.J.T @ self.vectors  # the g_b as columns
        for a, bend in zip(active, divided(self.values, self.weights, active, self.beta), strict=True):
            check_time()
            S, along = self.adjoint(self.vectors[:, a]), self._along(a)
            T, third = bending(S, self.layers), bending(S, along).imag / _IMAGINARY_STEP
            D = (T @ turned).T + self.vectors.T @ self._derivative(along)
            gradient += self.weights[a] * D[a]
            hessian += 2 * self.weights[a] * (T @ T + third) + (D.T * bend) @ D
        return gradient, hessian - self.beta * np.outer(gradient, gradient)

    def step(self) -> tuple[np.ndarray, float, float]:
        """Newton's direction along the layers that fit, the slope along it, and the least curvature over the largest."""
        gradient, hessian = self._expansion()
        inverse, kernel = self._linear
        if kernel.shape[1] == 0:
            return np.zeros_like(self.x), 0.0, np.inf
        hessian = kernel.T @ (hessian - bending(self.adjoint(inverse.T @ gradient), self.layers)) @ kernel
        slope = kernel.T @ gradient
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
        size = float(np.abs(values).max())
        v = -vectors @ ((vectors.T @ slope) / np.maximum(np.abs(values), _LEAST_CURVATURE * size))
        return kernel @ v, float(slope @ v), float(values[0]) / size

    @property
    def stationarity(self) -> float:
        """The norm of the gradient along the layers that fit over that of the gradient."""
        gradient = np.zeros_like(self.x)
        for a in self._active:
            gradient += self.weights[a] * (self._derivative(self._along(a)).T @ self.vectors[:, a])
        size = float(np.linalg.norm(gradient))
        return float(np.linalg.norm(self._linear[1].T @ gradient)) / size if size > 0 else 0.0

    def moved(self, v: np.ndarray) -> SharpPoint | None:
        """The point at `v` from here, led back onto the data; ``None`` where that fails."""
        x, last, size = self.x + v, np.inf, float(np.linalg.norm(self.b))
        while True:
            layers = self._shaped(x)
            residual = self.b - np.tensordot(self.stack, product(layers), 2)
            misfit = float(np.linalg.norm(residual)) / size
            if misfit < 1e-15 or not misfit < 0.7 * last:
                return SharpPoint(self.stack, self.b, layers, self.beta) if misfit < FITTED else None
            x, last = x + self._linear[0] @ residual, misfit


def descend_smoothly(point: SharpPoint, seen: Callable[[SharpPoint], None]) -> tuple[SharpPoint, float]:
    """Newton's method with line search for one smoothness: the end, and the least relative curvature at the last step."""
    last, curvature = np.inf, np.nan
    for _ in range(_SHARP_STEPS):
        v, slope, curvature = point.step()
        if -slope <= _NOTHING_LEFT / point.beta:
            break
        if (
            -slope <= min(_QUADRATIC / point.beta, 0.5 * last) and curvature > -_LEAST_CURVATURE
        ):  # the value no longer tells: the slope does
            trial = point.moved(v)
            if trial is None:
                break
            last, point = -slope, trial
            seen(point)
            continue
        if -slope <= _RESOLVED_SHARE * point.value:
            break
        taken = min(1.0, _LONGEST_SHARP_STEP * float(np.linalg.norm(point.x)) / float(np.linalg.norm(v)))
        better = None
        while better is None and taken > 1e-9:
            trial = point.moved(taken * v)
            if trial is not None and trial.value <= point.value + 1e-4 * taken * slope:
                better = trial
            taken /= 3
        if better is None:
            break
        point = better
        seen(point)
    return point, curvature
