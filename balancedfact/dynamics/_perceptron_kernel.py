"""The compiled loop of gradient descent for one multilayer perceptron with one output, all samples side by side."""

from __future__ import annotations

import numba

from balancedfact.dynamics._gelu import gelu


@numba.njit(cache=True, error_model="numpy", nogil=True, fastmath={"reassoc", "contract", "nsz"})
def advance(weights, sizes, offsets, h, slopes, z, back, carried, y, count, step, start, stop):  # type: ignore[no-untyped-def]
    """Take the steps `start` to `stop`; return the step at which the loss overflowed, or -1.

    `h[0]` holds the inputs, one sample per column; samples beyond `count` are zero inputs with zero targets, for which the
    output is zero too. The other arrays are work space.
    """
    depth, n = sizes.size - 1, y.size
    for iteration in range(start, stop):
        for k in range(1, depth + 1):
            rows, cols, first = sizes[k], sizes[k - 1], offsets[k - 1]
            for i in range(rows):
                line = z[i * n : (i + 1) * n]
                line[:] = 0.0
                for j in range(cols):
                    w = weights[first + i * cols + j]
                    source = h[k - 1, j]
                    for s in range(n):
                        line[s] += w * source[s]
            if k < depth:
                m = rows * n
                gelu(z[:m], h[k].ravel()[:m], slopes[k].ravel()[:m])
        total = 0.0
        for s in range(n):
            error = z[s] - y[s]
            total += error * error
            back[0, s] = 2.0 * step / count * error
        if not total < 1e300:
            return iteration
        for k in range(depth, 0, -1):
            rows, cols, first = sizes[k], sizes[k - 1], offsets[k - 1]
            for j in range(cols):
                source, target = h[k - 1, j], carried[j]
                target[:] = 0.0
                for i in range(rows):
                    w = weights[first + i * cols + j]
                    delta = back[i]
                    inner = 0.0
                    for s in range(n):
                        target[s] += w * delta[s]
                        inner += delta[s] * source[s]
                    weights[first + i * cols + j] = w - inner
            if k > 1:
                for j in range(cols):
                    slope, target, source = slopes[k - 1, j], back[j], carried[j]
                    for s in range(n):
                        target[s] = source[s] * slope[s]
    return -1
