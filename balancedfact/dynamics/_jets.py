"""Derivatives of the loss along lines in the space of all weights, exactly, by the arithmetic of truncated power series.

Along ``W + t V`` the gradient of the loss is a polynomial in `t`, whose coefficients are the gradient, the product ``H V`` with
the Hessian, and half of the third derivative ``D^3 L[V, V]``. Layers lie one after another in flat vectors.
"""

from __future__ import annotations

import numpy as np

from balancedfact.dynamics._model import MapModel

Series = list[np.ndarray]


class Jets:
    """The derivatives of the loss of a network of given shapes."""

    def __init__(self, model: MapModel, shapes: list[tuple[int, ...]]) -> None:
        self.model, self.shapes = model, shapes
        self.ends = np.cumsum([rows * cols for rows, cols in shapes])[:-1]
        self.size = int(sum(rows * cols for rows, cols in shapes))

    def layers(self, y: np.ndarray) -> list[np.ndarray]:
        """The layers in flat vectors of shape ``(..., n)``."""
        parts = np.split(y, self.ends, axis=-1)
        return [part.reshape(*y.shape[:-1], *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def flat(self, layers: list[np.ndarray]) -> np.ndarray:
        """The opposite of `layers`."""
        return np.concatenate([layer.reshape(*layer.shape[:-2], -1) for layer in layers], axis=-1)

    def loss(self, y: np.ndarray) -> float:
        """The loss."""
        return float(self.model.loss([layer[None] for layer in self.layers(y)])[0])

    def gradient(self, y: np.ndarray) -> np.ndarray:
        """The gradient, shape ``(n,)``."""
        return self.series(y, np.zeros((1, y.size)), 0)[0][0]

    def product(self, y: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The Hessian at `y` times the vectors `v`, shape ``(k, n)`` or ``(n,)``."""
        return self.series(y, np.atleast_2d(v), 1)[1].reshape(v.shape)

    def third(self, y: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The vectors ``D^3 L[v, v]``, that is the gradients of ``v' H v`` for fixed `v`; shape ``(k, n)`` or ``(n,)``."""
        return 2 * self.series(y, np.atleast_2d(v), 2)[2].reshape(v.shape)

    def hessian(self, y: np.ndarray) -> np.ndarray:
        """The whole Hessian, shape ``(n, n)``."""
        H = self.product(y, np.eye(y.size))
        return (H + H.T) / 2

    def series(self, y: np.ndarray, v: np.ndarray, order: int) -> Series:
        """The coefficients of the gradient along ``y + t v`` up to `order`, each of shape ``(k, n)``."""
        k, pairs = v.shape[0], zip(self.layers(y), self.layers(v), strict=True)
        W = [[np.broadcast_to(w, (k, *w.shape)), *([u] if order else [])] for w, u in pairs]
        before = [W[0]]
        for layer in W[1:]:
            before.append(_times(layer, before[-1], order))
        carried = [self.model.normal(E) if i else self.model.loss_and_gradient(E)[1] for i, E in enumerate(before[-1])]
        gradients: list[Series] = []
        for j in range(len(W) - 1, 0, -1):
            gradients.append(_times(carried, [np.swapaxes(B, -1, -2) for B in before[j - 1]], order))
            carried = _times([np.swapaxes(part, -1, -2) for part in W[j]], carried, order)
        gradients.append(carried)
        gradients.reverse()
        zero = [np.zeros((k, *shape)) for shape in self.shapes]
        return [self.flat([g[i] if i < len(g) else zero[j] for j, g in enumerate(gradients)]) for i in range(order + 1)]

    def jacobian(self, y: np.ndarray) -> np.ndarray:
        """The derivatives of the `m` measurements in the weights, shape ``(m, n)``."""
        A, W = self.model.A, self.layers(y)
        carried = np.stack([A.adjoint_matrix(unit) for unit in np.eye(A.m)])
        before = [np.eye(W[0].shape[1])]
        for layer in W[:-1]:
            before.append(layer @ before[-1])
        parts = []
        for j in range(len(W) - 1, -1, -1):
            parts.append(carried @ before[j].T)
            carried = W[j].T @ carried
        return self.flat(parts[::-1])

    def residual(self, y: np.ndarray) -> np.ndarray:
        """The residuals, shape ``(m,)``."""
        E = np.linalg.multi_dot([np.eye(self.shapes[-1][0]), *self.layers(y)[::-1]])
        return self.model.residual(E[None])[0]


def _times(left: Series, right: Series, order: int) -> Series:
    """The product of two series, truncated."""
    longest = min(order, len(left) + len(right) - 2)
    return [
        sum((left[i] @ right[n - i] for i in range(len(left)) if 0 <= n - i < len(right)), start=np.zeros(()))
        for n in range(longest + 1)
    ]
