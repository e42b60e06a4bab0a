r"""Half steps of alternating least squares for entries: one ridge regression for every row, compiled.

Row by row the minimiser `x` of ``sum_e w_e^2 (x . r_e)^2 - 2 w_e b_e (x . r_e) + shift |x|^2``, over the entries `e` of the row
and the rows `r_e` of the other factor that they point to. With as many entries as unknowns or more, the ``k x k`` normal
equations are solved; with fewer, those of the same number as the entries, since the minimiser is a combination of the `r_e`.
"""

from __future__ import annotations

import numpy as np

from balancedfact.measurements._sampled import Layout, compiled, gathered

# A pivot of Cholesky's factorization below this part of its diagonal is rounding error.
_PIVOT = 1e-15


@compiled
def _ridge(lo, hi, pointers, indices, weights, targets, shift, scales, theirs, out):  # type: ignore[no-untyped-def]
    k = theirs.shape[1]
    H, g, seen = np.empty((k, k)), np.empty(k), np.empty((k, k))
    for i in range(lo, hi):
        start, end, scale = pointers[i], pointers[i + 1], scales[i]
        n = min(end - start, k)
        if n < k:
            for e in range(n):
                w, row = weights[start + e], theirs[indices[start + e]]
                for j in range(k):
                    seen[e, j] = w * row[j]
                seen[e, k - 1] *= scale
                g[e] = targets[start + e]
            for a in range(n):
                for c in range(a + 1):
                    total = 0.0
                    for j in range(k):
                        total += seen[a, j] * seen[c, j]
                    H[a, c] = total
        else:
            H[:] = 0.0
            g[:] = 0.0
            e = start
            while e + 4 <= end:  # four at a time, so that what is summed is read and written once
                r0, r1, r2, r3 = theirs[indices[e]], theirs[indices[e + 1]], theirs[indices[e + 2]], theirs[indices[e + 3]]
                w0, w1, w2, w3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
                b0, b1, b2, b3 = w0 * targets[e], w1 * targets[e + 1], w2 * targets[e + 2], w3 * targets[e + 3]
                w0, w1, w2, w3 = w0 * w0, w1 * w1, w2 * w2, w3 * w3
                for a in range(k):
                    g[a] += b0 * r0[a] + b1 * r1[a] + b2 * r2[a] + b3 * r3[a]
                    s0, s1, s2, s3 = w0 * r0[a], w1 * r1[a], w2 * r2[a], w3 * r3[a]
                    row = H[a]
                    for c in range(a + 1):
                        row[c] += s0 * r0[c] + s1 * r1[c] + s2 * r2[c] + s3 * r3[c]
                e += 4
            for last in range(e, end):
                r0, w0 = theirs[indices[last]], weights[last]
                for a in range(k):
                    g[a] += w0 * targets[last] * r0[a]
                    s0 = w0 * w0 * r0[a]
                    row = H[a]
                    for c in range(a + 1):
                        row[c] += s0 * r0[c]
            g[k - 1] *= scale
            for c in range(k - 1):
                H[k - 1, c] *= scale
            H[k - 1, k - 1] *= scale * scale
        for a in range(n):  # Cholesky's factor, and the forward solution with it
            row = H[a]
            for c in range(a):
                other, total = H[c], row[c]
                for j in range(c):
                    total -= row[j] * other[j]
                row[c] = total / other[c]
            total, right = row[a] + shift, g[a]
            least = _PIVOT * total
            for j in range(a):
                total -= row[j] * row[j]
                right -= row[j] * g[j]
            row[a] = np.sqrt(max(total, least))
            g[a] = right / row[a]
        for a in range(n - 1, -1, -1):
            row = H[a]
            x = g[a] / row[a]
            g[a] = x
            for j in range(a):
                g[j] -= row[j] * x
        if n < k:
            out[i] = 0.0
            for e in range(n):
                for j in range(k):
                    out[i, j] += g[e] * seen[e, j]
        else:
            out[i] = g
        out[i, k - 1] *= scale


class HalfStep:
    """The ridge regressions of all rows of one side.

    Parameters
    ----------
    layout : Layout
        The entries, sorted by the rows of this side.
    weights : numpy.ndarray, shape (m,)
        The factors of the entries, sorted likewise.
    order : numpy.ndarray or slice
        Where the sorted entries stand among the data as they come.
    shift : float
        The weight of the squares of the unknowns.
    """

    def __init__(self, layout: Layout, weights: np.ndarray, order: np.ndarray | slice, shift: float) -> None:
        self._layout, self._weights, self._order, self._shift = layout, weights, order, shift

    def __call__(self, b: np.ndarray, theirs: np.ndarray, scales: np.ndarray | None = None) -> np.ndarray:
        """The factor `X` that minimises ``|A(X @ theirs.T) - b|^2 + shift |X|^2``, seen from this side.

        With `scales`, a number for every row, the squares of the last column weigh ``shift / scales^2`` in place of `shift`.
        """
        layout, k = self._layout, theirs.shape[1]
        count = layout.pointers.size - 1
        out = np.empty((count, k))
        if k == 0:
            return out
        targets = b if isinstance(self._order, slice) else gathered(b, self._order)
        theirs = np.ascontiguousarray(theirs)
        scales = np.ones(count) if scales is None else scales
        fixed = layout.pointers, layout.indices, self._weights, targets, self._shift, scales, theirs, out
        layout.by_rows(lambda lo, hi: _ridge(lo, hi, *fixed), k * (k + 1))
        return out
