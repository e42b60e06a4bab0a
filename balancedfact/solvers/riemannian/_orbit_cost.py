r"""The isotropic trace, and the scaled trace of two layers, on factorizations of a diagonal matrix, with two derivatives.

.. math:: T(W) = \langle P, C_1C_1^\top\rangle
          + \sum_{j=2}^{L-1}\|C_j\|_F^2\|B_{j-1}\|_F^2 + \langle Q, B_{L-1}^\top B_{L-1}\rangle,

with :math:`B_j = W_j\cdots W_1` and :math:`C_j = W_L\cdots W_{j+1}`. For ``M = U S V.T`` the layers
:math:`W_1V^\top, W_2, \dots, UW_L` have the isotropic trace `T` with :math:`P = d_0I`, :math:`Q = d_LI`, so that a search over
factorizations of `M` is one over square layers of size ``rank M`` with the product `S`.
"""

from __future__ import annotations

import numpy as np

Matrices = list[np.ndarray]


class OrbitCost:
    """The function for weights `P`, `Q` of the ends. Indices of products are those of the formula, with ``None`` at 0."""

    def __init__(self, P: np.ndarray, Q: np.ndarray) -> None:
        self.P, self.Q = P, Q

    def value(self, *W: np.ndarray) -> float:
        B, C, b, c = self._products(W)
        last = len(W) - 1
        ends = np.vdot(self.P @ C[1], C[1]) + np.vdot(B[last] @ self.Q, B[last])
        return float(ends + sum(c[j] * b[j - 1] for j in range(2, last + 1)))

    def gradient(self, *W: np.ndarray) -> Matrices:
        B, C, b, c = self._products(W)
        left, right = self._seeds(B, C, b, c)
        for i in range(len(W) - 2, 0, -1):
            left[i] = left[i] + W[i].T @ left[i + 1]
        for i in range(2, len(W)):
            right[i] = right[i] + right[i - 1] @ W[i - 1].T
        inner = [left[k] @ B[k - 1].T + C[k].T @ right[k - 1] for k in range(2, len(W))]
        return [left[1], *inner, right[-1]]

    def hessian(self, *arguments: np.ndarray) -> Matrices:
        """The derivative of the gradient at the first half of the arguments along the second half."""
        L = len(arguments) // 2
        W, V = arguments[:L], arguments[L:]
        B, C, b, c = self._products(W)
        dB, dC = list(B), list(C)
        dB[1], dC[L - 1] = V[0], V[L - 1]
        for i in range(2, L):
            dB[i] = V[i - 1] @ B[i - 1] + W[i - 1] @ dB[i - 1]
        for i in range(L - 2, 0, -1):
            dC[i] = dC[i + 1] @ W[i] + C[i + 1] @ V[i]
        db, dc = ([0.0, *(2 * float(np.vdot(X[i], dX[i])) for i in range(1, L))] for X, dX in ((B, dB), (C, dC)))
        left, right = self._seeds(B, C, b, c)
        d_left, d_right = self._seeds(dB, dC, b, c)
        for i in range(1, L - 1):
            d_left[i] = d_left[i] + 2 * dc[i + 1] * B[i]
            d_right[i + 1] = d_right[i + 1] + 2 * db[i] * C[i + 1]
        for i in range(L - 2, 0, -1):
            d_left[i] = d_left[i] + W[i].T @ d_left[i + 1] + V[i].T @ left[i + 1]
            left[i] = left[i] + W[i].T @ left[i + 1]
        for i in range(2, L):
            d_right[i] = d_right[i] + d_right[i - 1] @ W[i - 1].T + right[i - 1] @ V[i - 1].T
            right[i] = right[i] + right[i - 1] @ W[i - 1].T
        inner = [
            d_left[k] @ B[k - 1].T + left[k] @ dB[k - 1].T + dC[k].T @ right[k - 1] + C[k].T @ d_right[k - 1]
            for k in range(2, L)
        ]
        return [d_left[1], *inner, d_right[-1]]

    def _products(self, W: tuple[np.ndarray, ...]) -> tuple[Matrices, Matrices, list[float], list[float]]:
        """``B[1..L-1]``, ``C[1..L-1]`` and their squared norms."""
        L, none = len(W), np.empty((0, 0))
        B, C = [none, W[0], *[none] * (L - 2)], [none, *[none] * (L - 2), W[-1]]
        for i in range(2, L):
            B[i] = W[i - 1] @ B[i - 1]
        for i in range(L - 2, 0, -1):
            C[i] = C[i + 1] @ W[i]
        b, c = ([float(np.vdot(X, X)) for X in products] for products in (B, C))
        return B, C, b, c

    def _seeds(self, B: Matrices, C: Matrices, b: list[float], c: list[float]) -> tuple[Matrices, Matrices]:
        """The derivatives of the sum with respect to every `B` and `C` on its own, linear in `B` and `C` for given norms."""
        last = len(B) - 1
        left = [B[0], *(2 * c[i + 1] * B[i] for i in range(1, last)), 2 * B[last] @ self.Q]
        right = [C[0], 2 * self.P @ C[1], *(2 * b[i - 1] * C[i] for i in range(2, last + 1))]
        return left, right
