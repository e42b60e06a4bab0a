r"""Matrices of low rank at which a form ``|G vec(X)|^2 / |X|^2`` is largest or smallest, by alternating eigenproblems.

With one factor of ``X = U V.T`` orthonormal and fixed, the form is a Rayleigh quotient in the other, and its extreme
eigenvector is a global answer for that factor. The value never gets worse, but the limit may be a local extremum: hence many
starts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

ROUGH, SWEEPS = 1e-5, 500


class Alternating:
    """The form of the rows of `G`, each a matrix of `shape` in row-major order."""

    def __init__(self, G: np.ndarray, shape: tuple[int, int]) -> None:
        d1, d2 = shape
        stack = G.reshape(len(G), d1, d2)
        self.shape, self.count = shape, len(G)
        self._zero = 8 * np.finfo(float).eps * float(np.vdot(G, G))
        self._by_row = np.ascontiguousarray(stack.transpose(1, 0, 2)).reshape(d1, -1)
        self._by_column = np.ascontiguousarray(stack.transpose(2, 0, 1)).reshape(d2, -1)

    def extreme(self, starts: Iterable[np.ndarray], sign: int) -> np.ndarray:
        """The best unit matrix of rank at most `r` reached from right factors `starts`, ``d2 x r``, for ``sign`` 1 or -1."""
        found = [self._climb(np.linalg.qr(start)[0], sign, ROUGH) for start in starts]
        found.sort(key=lambda pair: -sign * pair[0])
        finished = [self._climb(V, sign, 1e-14) for _, V in found[:3]]
        value, V = max(finished, key=lambda pair: sign * pair[0])
        return self._factor(self._by_column, V, sign)[1] @ V.T

    def _climb(self, V: np.ndarray, sign: int, tolerance: float) -> tuple[float, np.ndarray]:
        """The value and the orthonormal right factor after sweeps that changed the value by more than `tolerance`."""
        value = -sign * np.inf
        for _ in range(SWEEPS):
            before = value
            _, U = self._factor(self._by_column, V, sign)
            value, V = self._factor(self._by_row, np.linalg.qr(U)[0], sign)
            V = np.linalg.qr(V)[0]
            if abs(value - before) <= tolerance * abs(value) or value <= self._zero:
                break
        return value, V

    def _factor(self, arranged: np.ndarray, basis: np.ndarray, sign: int) -> tuple[float, np.ndarray]:
        """The extreme value and the other factor, for an orthonormal `basis` of the factor that is contracted."""
        rank, other = basis.shape[1], arranged.shape[1] // self.count
        rows = (basis.T @ arranged).reshape(rank, self.count, other).transpose(1, 0, 2).reshape(self.count, rank * other)
        values, vectors = np.linalg.eigh(rows.T @ rows)
        k = -1 if sign > 0 else 0
        return float(values[k]), vectors[:, k].reshape(rank, other).T
