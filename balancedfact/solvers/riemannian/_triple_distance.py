r"""The squared distance of a matrix from the product of a triple, with two derivatives.

.. math:: f(B, S, D) = \|BSD^\top - M\|^2 = \|M\|^2 - 2\langle B^\top MD, S\rangle + \|S\|^2

for orthonormal `B` and `D`, where ``S = C C.T`` or stands for itself. A value or a Hessian product takes two products of `M`
with as many columns as the triple has.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Triple = tuple[np.ndarray, np.ndarray, np.ndarray]


class TripleDistance:
    """The function for a matrix `M`. What a triple determines is kept for the Hessian, which is asked for many directions.

    `distance` is the value of a pair ``(B S, D)`` without cancellation, for where little is left.
    """

    def __init__(self, M: np.ndarray, merged: bool, distance: Callable[[np.ndarray, np.ndarray], float]) -> None:
        self.M, self.merged, self.distance = M, merged, distance
        self.square = float(np.vdot(M, M))
        self._at: tuple[np.ndarray, ...] = ()

    def _parts(self, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> tuple[np.ndarray, ...]:
        """``M D``, ``M.T B``, the symmetric part of ``B.T M D``, and `S`."""
        if not self._at or not all(one is other for one, other in zip(self._at, (B, C, D), strict=False)):
            MD = self.M @ D
            N = B.T @ MD
            S = (C + C.T) / 2 if self.merged else C @ C.T
            self._at = B, C, D, MD, self.M.T @ B, (N + N.T) / 2, S
        return self._at[3:]

    def value(self, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> float:
        _, _, N, S = self._parts(B, C, D)
        found = self.square - 2 * float(np.vdot(N, S)) + float(np.vdot(S, S))
        return found if found > 1e-2 * self.square else self.distance(B @ S, D)

    def gradient(self, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> Triple:
        MD, MB, N, S = self._parts(B, C, D)
        G = 2 * (S - N)
        return -2 * MD @ S, G if self.merged else 2 * G @ C, -2 * MB @ S

    def hessian(self, B: np.ndarray, C: np.ndarray, D: np.ndarray, U: np.ndarray, V: np.ndarray, W: np.ndarray) -> Triple:
        """The derivative of the gradient along ``(U, V, W)``."""
        MD, MB, N, S = self._parts(B, C, D)
        T = V if self.merged else V @ C.T + C @ V.T
        X = U.T @ MD + MB.T @ W
        H = 2 * T - X - X.T
        core = H if self.merged else 2 * (H @ C + 2 * (S - N) @ V)
        return -2 * (self.M @ (W @ S) + MD @ T), core, -2 * (self.M.T @ (U @ S) + MB @ T)
