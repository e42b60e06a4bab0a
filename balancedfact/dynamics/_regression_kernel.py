"""The compiled loop of gradient descent for univariate regression.

The gradient of every layer has rank one, ``a_k f_{k-1}^T``, so a step is two products with vectors and one rank-one update per
layer. Runs go side by side in lanes, the innermost axis of every array, which the compiler turns into vector instructions.
Arithmetic is the same in every lane and for any number of lanes: results do not depend on which runs are computed together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numba
import numpy as np

# A gradient this large has no way back: the square is the last that can be told from infinity.
_OVERFLOW = 1e300

# A step of all lanes together costs about as much as one of this many single runs, whatever the number of runs among them.
# Side by side, the weights of networks larger than this would not stay in the cache.
_LANES, _FEW, _LARGE = 64, 24, 4096


@cache
def _kernel(lanes: int) -> Callable[..., None]:
    @numba.njit(cache=True, error_model="numpy", nogil=True)
    def advance(weights, sizes, offsets, sigma, w, step, a, f, error, diverged, start, stop):  # type: ignore[no-untyped-def]
        """Take the steps `start` to `stop`; `a` holds the readout in its last row, `f` and `error` are work space."""
        depth, d = sizes.size - 1, sizes[0]
        total = np.empty(lanes)
        for iteration in range(start, stop):
            for k in range(depth, 0, -1):  # a_{k-1} = W_k^T a_k
                rows, cols, first = sizes[k], sizes[k - 1], offsets[k - 1]
                above, below = a[k], a[k - 1]
                for j in range(cols):
                    entry = weights[first + j]
                    for r in range(lanes):
                        below[j, r] = entry[r] * above[0, r]
                for i in range(1, rows):
                    for j in range(cols):
                        entry = weights[first + i * cols + j]
                        for r in range(lanes):
                            below[j, r] += entry[r] * above[i, r]
            for j in range(d):
                for r in range(lanes):
                    error[j, r] = a[0, j, r] - w[j, r]
            for r in range(lanes):
                total[r] = 0.0
            for i in range(d):  # f_0 = step * gradient in w
                for r in range(lanes):
                    f[0, i, r] = 0.0
                for j in range(d):
                    for r in range(lanes):
                        f[0, i, r] += sigma[i, j, r] * error[j, r]
                for r in range(lanes):
                    f[0, i, r] *= 2.0
                    total[r] += f[0, i, r] * f[0, i, r]
                    f[0, i, r] *= step[r]
            lost = False
            for r in range(lanes):
                lost |= not total[r] < _OVERFLOW
            if lost:  # the weights of such a run stay where they are
                for r in range(lanes):
                    if not total[r] < _OVERFLOW:
                        if diverged[r] < 0:
                            diverged[r] = iteration
                        for i in range(d):
                            f[0, i, r] = 0.0
            for k in range(1, depth + 1):  # f_k = W_k f_{k-1}, and W_k -= a_k f_{k-1}^T once an entry has been used
                rows, cols, first = sizes[k], sizes[k - 1], offsets[k - 1]
                before = f[k - 1]
                for i in range(rows):
                    factor = a[k, i]
                    for r in range(lanes):
                        total[r] = 0.0
                    for j in range(cols):
                        entry, column = weights[first + i * cols + j], before[j]
                        for r in range(lanes):
                            total[r] += entry[r] * column[r]
                            entry[r] -= factor[r] * column[r]
                    for r in range(lanes):
                        f[k, i, r] = total[r]

    return advance


class Descent:
    """Gradient descent of many runs that can be advanced piece by piece."""

    def __init__(
        self, layers: list[np.ndarray], covariance: np.ndarray, w: np.ndarray, readout: np.ndarray, step: np.ndarray
    ) -> None:
        self.runs = layers[0].shape[0]
        self.shapes = [layer.shape[1:] for layer in layers]
        self.sizes = np.array([self.shapes[0][1], *(rows for rows, _ in self.shapes)])
        self.offsets = np.cumsum([0, *(rows * cols for rows, cols in self.shapes)])
        lanes = _LANES if self.runs > _FEW and self.offsets[-1] <= _LARGE else 1
        self._advance = _kernel(lanes)
        flat = np.concatenate([layer.reshape(self.runs, -1) for layer in layers], axis=1)
        self.blocks = []
        for first in range(0, self.runs, lanes):
            # A last block that is not full repeats its last run.
            chosen = np.minimum(np.arange(first, first + lanes), self.runs - 1)
            a = np.zeros((self.sizes.size, self.sizes.max(), lanes))
            a[-1, : self.sizes[-1]] = readout[chosen].T
            arrays = (_lanes_last(flat[chosen]), _lanes_last(covariance[chosen]), _lanes_last(w[chosen]), step[chosen])
            work = a, np.zeros_like(a), np.zeros((self.sizes[0], lanes)), np.full(lanes, -1)
            self.blocks.append((*arrays, *work))

    def advance(self, start: int, stop: int) -> None:
        """Take the steps `start` to `stop`."""
        for weights, sigma, w, step, a, f, error, diverged in self.blocks:
            if not np.all(diverged >= 0):
                self._advance(weights, self.sizes, self.offsets, sigma, w, step, a, f, error, diverged, start, stop)

    @property
    def diverged(self) -> np.ndarray:
        """The step at which each run overflowed, or -1."""
        return np.concatenate([block[7] for block in self.blocks])[: self.runs]

    @property
    def layers(self) -> list[np.ndarray]:
        """The layers, shapes ``(runs, d_k, d_{k-1})``."""
        flat = np.concatenate([block[0].T for block in self.blocks])[: self.runs]
        parts = np.split(flat, self.offsets[1:-1], axis=1)
        return [part.reshape(self.runs, *shape) for part, shape in zip(parts, self.shapes, strict=True)]


def _lanes_last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, 0, -1))
