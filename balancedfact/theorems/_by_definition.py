"""Slow computations straight from the definitions: the other side of a claim than the package's own routines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from balancedfact import measurements


def product(layers: Sequence[Any]) -> Any:
    """``W_L @ ... @ W_1``."""
    result = layers[0]
    for layer in layers[1:]:
        result = layer @ result
    return result


def before(layers: Sequence[np.ndarray], j: int) -> np.ndarray:
    """``B_j = W_j @ ... @ W_1``, the identity for ``j = 0``."""
    return product([np.eye(layers[0].shape[1]), *layers[:j]])


def after(layers: Sequence[np.ndarray], j: int) -> np.ndarray:
    """``C_j = W_L @ ... @ W_{j+1}``, the identity for ``j = L``."""
    return product([*layers[j:], np.eye(layers[-1].shape[0])])


def loss(layers: Sequence[np.ndarray], matrices: np.ndarray, b: np.ndarray) -> float:
    """``(1/m) |A(W_L ... W_1) - b|^2`` for the matrices ``A_1, ..., A_m``."""
    end = product(layers)
    return sum((np.sum(A * end) - value) ** 2 for A, value in zip(matrices, b, strict=True)) / len(matrices)


def gradient(layers: Sequence[np.ndarray], matrices: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    """The gradient of the loss by the chain rule, one layer after the other."""
    residual = product(layers)
    slope = sum(2 / len(matrices) * (np.sum(A * residual) - value) * A for A, value in zip(matrices, b, strict=True))
    return [after(layers, j).T @ slope @ before(layers, j - 1).T for j in range(1, len(layers) + 1)]


def hessian(layers: Sequence[np.ndarray], matrices: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The dense Hessian of the loss over all entries of all layers, by automatic differentiation."""
    import autograd
    import autograd.numpy as anp

    shapes = [layer.shape for layer in layers]
    ends = np.cumsum([0, *(rows * cols for rows, cols in shapes)])
    rows = np.reshape(matrices, (len(matrices), -1))

    def value(theta: Any) -> Any:
        parts = [anp.reshape(theta[ends[k] : ends[k + 1]], shape) for k, shape in enumerate(shapes)]
        return anp.mean((anp.dot(rows, anp.ravel(product(parts))) - b) ** 2)

    return np.asarray(autograd.hessian(value)(packed(layers)))


def top(symmetric: np.ndarray) -> float:
    """The largest eigenvalue."""
    return float(np.linalg.eigvalsh(symmetric)[-1])


def inverse_root(square: np.ndarray) -> np.ndarray:
    """The inverse square root of a positive-semidefinite matrix, zero where that is."""
    values, vectors = np.linalg.eigh(square)
    keep = values > 1e-12 * values[-1]
    return np.asarray(vectors[:, keep] / np.sqrt(values[keep]) @ vectors[:, keep].T)


def trace(layers: Sequence[np.ndarray], matrices: np.ndarray) -> float:
    """The trace of the Hessian as the sum over layers and measurements."""
    total = 0.0
    for j in range(1, len(layers) + 1):
        total += sum(float(np.sum((before(layers, j - 1) @ A.T @ after(layers, j)) ** 2)) for A in matrices)
    return 2 / len(matrices) * total


def packed(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Stack all entries in one vector."""
    return np.concatenate([layer.ravel() for layer in layers])


def unpacked(theta: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """The layers of these shapes whose entries are `theta`."""
    ends = np.cumsum([rows * cols for rows, cols in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(theta, ends), shapes, strict=True)]


def gaussian_layers(rng: np.random.Generator, widths: Sequence[int]) -> list[np.ndarray]:
    """Layers with standard Gaussian entries over the root of the width."""
    return [rng.standard_normal((widths[k + 1], widths[k])) / np.sqrt(widths[k]) for k in range(len(widths) - 1)]


class Regression(NamedTuple):
    """A univariate regression, with what Marion and Chizat derive from it."""

    inputs: np.ndarray
    targets: np.ndarray
    covariance: np.ndarray
    w: np.ndarray  # the minimiser of least norm
    floor: float  # the least risk
    smallest: float  # nonzero eigenvalue of the covariance
    largest: float

    @property
    def A(self) -> measurements.MeasurementMap:
        return measurements.regression(self.inputs)

    @property
    def matrices(self) -> np.ndarray:
        return self.inputs[:, None, :]

    @property
    def a(self) -> float:
        """The variance of the data along the minimiser."""
        return float(self.w @ self.covariance @ self.w / (self.w @ self.w))


def regression(rng: np.random.Generator, d: int, n: int, *, norm: float | None = None, spread: float = 1.0) -> Regression:
    """A random regression of `n` samples of `d` inputs with noise, whose minimiser has the given norm."""
    X = rng.standard_normal((n, d)) * np.exp(spread * rng.uniform(-0.5, 0.5, d)) @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    y = X @ rng.standard_normal(d) + 0.5 * rng.standard_normal(n)
    w = np.linalg.lstsq(X, y, rcond=None)[0]
    if norm is not None:
        y, w = y * norm / np.linalg.norm(w), w * norm / np.linalg.norm(w)
    covariance = X.T @ X / n
    values = np.linalg.eigvalsh(covariance)
    values = values[values > 1e-10 * values[-1]]
    return Regression(X, y, covariance, w, float(np.mean((X @ w - y) ** 2)), float(values[0]), float(values[-1]))


def minimiser(rng: np.random.Generator, w: np.ndarray, widths: Sequence[int]) -> list[np.ndarray]:
    """Random layers ``d_0, ..., d_{L-1}, 1`` with the product ``w.T``."""
    layers = gaussian_layers(rng, widths)
    a = product(layers[1:])[0]
    layers[0] = layers[0] + np.outer(a, w - layers[0].T @ a) / (a @ a)
    return layers
