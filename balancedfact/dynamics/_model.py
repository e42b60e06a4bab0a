"""The loss of many networks at once, as a function of their end-to-end matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from balancedfact import curvature
from balancedfact._validate import as_array
from balancedfact.closed_forms import regression_sharpness
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map


class Model(Protocol):
    """A trained model: the losses of stacked layers, and other quantities that can be watched."""

    def loss(self, layers: list[np.ndarray]) -> np.ndarray:
        """The losses, shape ``(runs,)``."""

    def sharpness(self, layers: list[np.ndarray]) -> np.ndarray:
        """The largest eigenvalues of the Hessians, shape ``(runs,)``."""


class MapModel:
    r"""The loss :math:`\ell(E) = \frac1m\|\mathcal A(E) - b\|^2`, for matrices stacked along one leading axis."""

    def __init__(self, A: MeasurementMap, b: ArrayLike) -> None:
        self.A, self.b = A, as_array(b, "b", shape=(as_map(A).m,))
        # Dense measurements of several matrices at once are one product.
        stored = A.stored_stack
        self._rows = None if stored is None else np.ascontiguousarray(stored.reshape(A.m, -1))

    def residual(self, E: np.ndarray) -> np.ndarray:
        """The residuals, shape ``(runs, m)``."""
        if self._rows is not None:
            return E.reshape(E.shape[0], -1) @ self._rows.T - self.b
        return np.stack([self.A.forward(one) for one in E]) - self.b

    def loss_and_gradient(self, E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The losses, shape ``(runs,)``, and their gradients in `E`."""
        residual = self.residual(E)
        scaled = (2 / self.A.m) * residual
        if self._rows is not None:
            gradient = (scaled @ self._rows).reshape(E.shape)
        else:
            gradient = np.stack([self.A.adjoint_matrix(one) for one in scaled])
        return np.mean(residual**2, axis=-1), gradient

    def gradient(self, E: np.ndarray) -> np.ndarray:
        """The gradient at one matrix, shape ``(d_L, d_0)``."""
        if self._rows is not None:
            return self.loss_and_gradient(E[None])[1][0]
        return self.A.adjoint_matrix((2 / self.A.m) * (self.A.forward(E) - self.b))

    def normal(self, E: np.ndarray) -> np.ndarray:
        """The derivative of the gradients in `E`, ``(2/m) A^*(A(E))``, which does not depend on the data."""
        if self._rows is not None:
            flat = E.reshape(E.shape[0], -1)
            return ((2 / self.A.m) * (flat @ self._rows.T) @ self._rows).reshape(E.shape)
        return np.stack([self.A.adjoint_matrix((2 / self.A.m) * self.A.forward(one)) for one in E])

    def loss(self, layers: list[np.ndarray]) -> np.ndarray:
        """The losses, shape ``(runs,)``."""
        return np.mean(self.residual(product(layers)) ** 2, axis=-1)

    def sharpness(self, layers: list[np.ndarray]) -> np.ndarray:
        """The largest eigenvalues of the Hessians, shape ``(runs,)``."""
        return np.array([curvature.sharpness(one, self.A, self.b) for one in unstacked(layers)])

    def trace(self, layers: list[np.ndarray]) -> np.ndarray:
        """The traces of the Hessians, shape ``(runs,)``."""
        return np.array([curvature.trace(list(one), self.A) for one in unstacked(layers)])


@dataclass(frozen=True)
class RegressionModel:
    r"""The loss :math:`(w_{\rm prod}-w)^\top\hat\Sigma(w_{\rm prod}-w) + \text{floor}`, :math:`w_{\rm prod} = E^\top p`.

    Every array has one leading axis for the runs.
    """

    covariance: np.ndarray
    w: np.ndarray
    readout: np.ndarray
    floor: float = 0.0

    def _error(self, layers: list[np.ndarray]) -> np.ndarray:
        vector = self.readout
        for layer in layers[::-1]:
            vector = np.matmul(vector[:, None, :], layer)[:, 0]
        return vector - self.w

    def loss(self, layers: list[np.ndarray]) -> np.ndarray:
        error = self._error(layers)
        return np.einsum("ri,rij,rj->r", error, self.covariance, error) + self.floor

    def distance(self, layers: list[np.ndarray]) -> np.ndarray:
        r"""The squared distances :math:`\|w_{\rm prod}-w\|^2`."""
        return np.sum(self._error(layers) ** 2, axis=-1)

    def sharpness(self, layers: list[np.ndarray]) -> np.ndarray:
        return np.asarray(regression_sharpness(layers, self.covariance, self.w, self.readout))

    def trace(self, layers: list[np.ndarray]) -> np.ndarray:
        """The traces of the Hessians: ``2 sum_k |a_k|^2 <covariance, B_{k-1}.T B_{k-1}>``."""
        vectors = [self.readout]
        for layer in layers[:0:-1]:
            vectors.append(np.matmul(vectors[-1][:, None, :], layer)[:, 0])
        total, before = np.zeros(self.w.shape[0]), np.broadcast_to(np.eye(self.w.shape[1]), self.covariance.shape)
        for layer, vector in zip(layers, vectors[::-1], strict=True):
            total += 2 * np.sum(vector**2, axis=-1) * np.einsum("rki,rij,rkj->r", before, self.covariance, before)
            before = layer @ before
        return total


def regression_of(A: MeasurementMap, b: np.ndarray, runs: int) -> RegressionModel | None:
    """The same loss in the form of univariate regression, or ``None`` if it does not have one."""
    if A.matrix_shape[0] == 1:
        inputs, readout = A.rotated(np.eye(1), np.eye(A.matrix_shape[1]))[:, 0], np.ones(1)
    elif (common := _common_left(A)) is not None:
        readout, inputs = common
    else:
        return None
    w = np.linalg.lstsq(inputs, b, rcond=None)[0]
    floor = float(np.mean((inputs @ w - b) ** 2))
    covariance = inputs.T @ inputs / A.m
    sigma, target, p = (np.broadcast_to(x, (runs, *x.shape)) for x in (covariance, w, readout))
    return RegressionModel(sigma, target, p, floor)


def rows_of(A: MeasurementMap) -> tuple[np.ndarray, np.ndarray]:
    """The measurements written out, shape ``(m, outputs, d_0)``, and the readout ``(outputs, d_L)`` that comes before them."""
    common = _common_left(A)
    if common is not None:
        return common[0][None], common[1][:, None]
    return np.eye(A.matrix_shape[0]), A.stack()


def _common_left(A: MeasurementMap) -> tuple[np.ndarray, np.ndarray] | None:
    """The vector `p` and the rows ``v_i`` if every measurement is of ``p v_i.T``."""
    if A.vectors is None or not np.all(A.vectors[0] == A.vectors[0][0]):
        return None
    return A.vectors[0][0], A.vectors[1]


def product(layers: list[np.ndarray]) -> np.ndarray:
    """The end-to-end matrices of stacked layers."""
    E = layers[0]
    for layer in layers[1:]:
        E = layer @ E
    return E


def unstacked(layers: list[np.ndarray]) -> list[list[np.ndarray]]:
    """The layers of each run."""
    return [list(one) for one in zip(*layers, strict=True)]
