r"""Layers that fit the data, with the trace of the Hessian, its Riemannian derivatives and the multipliers.

The layers that fit, those with :math:`\mathcal A(W_L\cdots W_1) = b`, are a manifold wherever the Jacobian `J` of the
constraint has full rank. With the trace `T`, multipliers `y` and :math:`S = \mathcal A^*(y)`, the Riemannian Hessian of `T` is
that of the Lagrangian :math:`T(W) - \langle S, W_L\cdots W_1\rangle` on the kernel of `J`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import scipy.linalg

from balancedfact._linalg import FITTED, product
from balancedfact.curvature._scaled import ordinary
from balancedfact.curvature._trace_derivatives import Sensitivities
from balancedfact.measurements import MeasurementMap, SecondMoment

_DEPENDENT = 1e-9  # rows of the Jacobian that add less than this fraction of the largest count as dependent
_MOST_JACOBIAN = 2**27  # of the Jacobian, a gigabyte, beyond which it is not formed


class DeepProblem:
    """The normalised problem: least trace under the map `unit` of all measurements, subject to ``map(E) = b``.

    `map` has rows of unit norm that are linearly independent; they span the same measurements as `unit`.
    """

    def __init__(self, unit: MeasurementMap, map: MeasurementMap, b: np.ndarray, depth: int) -> None:
        self.unit, self.map, self.b, self.depth = unit, map, b, depth
        self.moment: SecondMoment = unit.second_moment()
        self.size = float(np.linalg.norm(b))


class ZeroLossPoint:
    """Layers with the value, the gradient, the constraint and its linearisation there."""

    def __init__(self, problem: DeepProblem, layers: list[np.ndarray]) -> None:
        self.problem, self.layers = problem, layers
        self.shapes = [layer.shape for layer in layers]
        self.x = np.concatenate([layer.ravel() for layer in layers])
        self.state = Sensitivities([ordinary(layer) for layer in layers], problem.moment)
        self.gradient = self._flat(self.state.gradient())
        self.value = float(self.gradient @ self.x) / (2 * problem.depth - 2)  # every term is of degree 2 (L - 1)
        self.before: list[np.ndarray] = [np.eye(self.shapes[0][1])]
        for layer in layers:
            self.before.append(layer @ self.before[-1])
        self.after: list[np.ndarray] = [np.eye(self.shapes[-1][0])]
        for layer in layers[::-1]:
            self.after.insert(0, self.after[0] @ layer)
        self.matrix = self.before[-1]
        self.residual = problem.b - problem.map.forward(self.matrix)

    @property
    def width(self) -> int:
        return self.shapes[0][0]

    @property
    def tractable(self) -> bool:
        """Tell whether the constraint is small enough to be linearised."""
        return self.x.size * self.problem.map.m <= _MOST_JACOBIAN

    @property
    def misfit(self) -> float:
        """Relative residual of the data."""
        return float(np.linalg.norm(self.residual)) / self.problem.size

    def _flat(self, arrays: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([array.ravel() for array in arrays])

    def _shaped(self, v: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum([rows * cols for rows, cols in self.shapes])[:-1]
        return [part.reshape(shape) for part, shape in zip(np.split(v, ends), self.shapes, strict=True)]

    @cached_property
    def _jacobian(self) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
        """An orthonormal basis of the rows of `J` and the functions ``c -> J^+T c`` on it and ``r -> J^+ r``."""
        m = self.problem.map.m
        blocks = [
            self.problem.map.rotated(C, B.T).reshape(m, -1) for C, B in zip(self.after[1:], self.before[:-1], strict=True)
        ]
        rows = np.concatenate(blocks, axis=1)
        if rows.shape[1] >= m:
            Q, R = np.linalg.qr(rows.T)
            diagonal = np.abs(np.diag(R))
            if diagonal.min() > _DEPENDENT * diagonal.max():
                return Q, lambda c: np.linalg.solve(R, c), lambda r: Q @ np.linalg.solve(R.T, r)
        # A complete orthogonal decomposition J = U T Q.T; the singular value decomposition of LAPACK may fail to converge here.
        Q, R, order = scipy.linalg.qr(rows.T, mode="economic", pivoting=True)
        diagonal = np.abs(np.diag(R))
        rank = int(np.count_nonzero(diagonal > _DEPENDENT * diagonal[0]))
        Q = Q[:, :rank]
        U, T = np.linalg.qr(R[:rank, np.argsort(order)].T)
        return Q, lambda c: U @ np.linalg.solve(T.T, c), lambda r: Q @ np.linalg.solve(T, U.T @ r)

    @property
    def freedom(self) -> int:
        """The dimension in which the end-to-end matrix can move at its rank without leaving the data, to first order."""
        d1, d2 = self.matrix.shape
        return self.width * (d1 + d2 - self.width) - self._jacobian[0].shape[1]

    def projected(self, v: np.ndarray) -> np.ndarray:
        """The part of a direction along which the data stay fitted, to first order."""
        Q = self._jacobian[0]
        return v - Q @ (Q.T @ v)

    @cached_property
    def slope(self) -> np.ndarray:
        """The Riemannian gradient of the trace."""
        return self.projected(self.gradient)

    @property
    def stationarity(self) -> float:
        """The norm of the Riemannian gradient over that of the gradient."""
        return float(np.linalg.norm(self.slope) / np.linalg.norm(self.gradient))

    def multipliers(self, near: np.ndarray | None = None) -> np.ndarray:
        """The `y` with ``J.T y`` closest to the gradient; where there are many, that closest to the ray of `near`."""
        Q, to_multipliers, _ = self._jacobian
        if near is None:
            return to_multipliers(Q.T @ self.gradient)
        S = self.problem.map.adjoint_matrix(near)
        known = self._flat([C.T @ S @ B.T for C, B in zip(self.after[1:], self.before[:-1], strict=True)])
        square = float(known @ known)
        scale = float(known @ self.gradient) / square if square > 0 else 0.0
        return scale * near + to_multipliers(Q.T @ (self.gradient - scale * known))

    @cached_property
    def _pull(self) -> np.ndarray:
        return self.problem.map.adjoint_matrix(self.multipliers())

    def hessian(self, v: np.ndarray) -> np.ndarray:
        """The Riemannian Hessian of the trace applied to a direction that `projected` leaves alone."""
        V, S = self._shaped(v), self._pull
        d_before, d_after = [np.zeros_like(self.before[0])], [np.zeros_like(self.after[-1])]
        for V_k, W, B in zip(V[:-1], self.layers, self.before, strict=False):
            d_before.append(V_k @ B + W @ d_before[-1])
        for V_k, W, C in zip(V[:0:-1], self.layers[::-1], self.after[::-1], strict=False):
            d_after.insert(0, C @ V_k + d_after[0] @ W)
        bend = [
            dC.T @ S @ B.T + C.T @ S @ dB.T
            for C, dC, B, dB in zip(self.after[1:], d_after, self.before, d_before, strict=False)
        ]
        return self.projected(self._flat(self.state.gradient_along(V)) - self._flat(bend))

    def moved(self, v: np.ndarray) -> ZeroLossPoint | None:
        """The point at `v` from here, led back onto the data; ``None`` where that fails."""
        to_step, x, last = self._jacobian[2], self.x + v, np.inf
        while True:
            layers = self._shaped(x)
            residual = self.problem.b - self.problem.map.forward(product(layers))
            misfit = float(np.linalg.norm(residual)) / self.problem.size
            if misfit < 1e-15 or not misfit < 0.7 * last:
                return ZeroLossPoint(self.problem, layers) if misfit < FITTED else None
            x, last = x + to_step(residual), misfit

    def gauge(self) -> np.ndarray:
        """The directions ``X_j W_j - W_j X_{j-1}``, `X_j` antisymmetric, as rows: the trace and the product do not change."""
        k, rows = self.width, []
        for j in range(len(self.layers) - 1):
            for p, q in zip(*np.triu_indices(k, 1), strict=True):
                V = [np.zeros(shape) for shape in self.shapes]
                V[j][p], V[j][q] = self.layers[j][q], -self.layers[j][p]
                V[j + 1][:, q], V[j + 1][:, p] = -self.layers[j + 1][:, p], self.layers[j + 1][:, q]
                rows.append(self._flat(V))
        return np.array(rows).reshape(len(rows), self.x.size)

    def curvature(self, rng: np.random.Generator, steps: int = 200) -> tuple[float, np.ndarray]:
        """The smallest eigenvalue of the Riemannian Hessian over the largest in magnitude, and its direction.

        By the Lanczos method without the directions of the gauge; an upper estimate, exact once the method has converged.
        """
        basis = np.linalg.qr(np.concatenate([self._jacobian[0].T, self.gauge()]).T)[0]
        count = min(steps, self.x.size - basis.shape[1])
        if count <= 0:
            return np.nan, np.zeros_like(self.x)
        V = np.zeros((count, self.x.size))
        T = np.zeros((count, count))

        def cleaned(v: np.ndarray) -> np.ndarray:
            for _ in range(2):
                v = v - V.T @ (V @ v)
                v = v - basis @ (basis.T @ v)
            return v

        w = cleaned(rng.standard_normal(self.x.size))
        for k in range(count):
            V[k] = w / np.linalg.norm(w)
            w = self.hessian(V[k])
            T[k, k] = w @ V[k]
            w = cleaned(w)
            beta = float(np.linalg.norm(w))
            values, vectors = np.linalg.eigh(T[: k + 1, : k + 1])
            largest = np.abs(values).max()
            if k + 1 == count or beta <= 1e-8 * largest or beta * abs(vectors[-1, 0]) <= 1e-2 * abs(values[0]):
                break
            T[k, k + 1] = T[k + 1, k] = beta
        return float(values[0] / largest), V[: k + 1].T @ vectors[:, 0]
