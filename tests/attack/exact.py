"""Verdicts from the definitions in 60-digit arithmetic: nothing here imports the package.

A problem is the list of its matrices ``A_i`` (arrays of float64, which are exact numbers) and the data ``b``.
"""

from fractions import Fraction

import mpmath as mp
import numpy as np

mp.mp.dps = 60
_ZERO = mp.mpf(10) ** -45  # relative: an eigenvalue below it is zero in 60 digits


def matrix(array):
    """An array of float64 as exact numbers."""
    return mp.matrix([[mp.mpf(float(x)) for x in row] for row in np.atleast_2d(array)])


def dot(P, Q):
    return mp.fsum(P[i, j] * Q[i, j] for i in range(P.rows) for j in range(P.cols))


def power(S, exponent):
    """``S ** exponent`` of a positive semidefinite matrix, zero on its kernel."""
    values, vectors = mp.eigsy(S)
    least = _ZERO * max(abs(x) for x in values)
    return vectors * mp.diag([x**exponent if x > least else mp.mpf(0) for x in values]) * vectors.T


def singular_values(X):
    """From the symmetric matrix [[0, X], [X', 0]], whose eigenvalues they are: no squaring."""
    S = mp.zeros(X.rows + X.cols)
    for i in range(X.rows):
        for j in range(X.cols):
            S[i, X.rows + j] = S[X.rows + j, i] = X[i, j]
    values = sorted(mp.eigsy(S, eigvals_only=True), reverse=True)
    return [max(x, mp.mpf(0)) for x in values[: min(X.rows, X.cols)]]


class Exact:
    """The problem ``min ||D1 X D2||_*`` over the matrices that fit, or its penalised form, in 60 digits."""

    def __init__(self, stack, b, *, flat=True, penalty=0.0):
        self.A = [matrix(each) for each in stack]
        self.b = [mp.mpf(float(x)) for x in b]
        self.flat, self.penalty = flat, mp.mpf(float(penalty))
        m, d1, d2 = np.shape(stack)
        self.m, self.shape = m, (d1, d2)
        if flat:
            S1, S2 = mp.zeros(d1), mp.zeros(d2)
            for each in self.A:
                S1 += each * each.T
                S2 += each.T * each
            S1, S2 = S1 / (m * d2), S2 / (m * d1)
            self.roots = power(S1, mp.mpf(1) / 2), power(S2, mp.mpf(1) / 2)
            self.inverses = power(S1, -mp.mpf(1) / 2), power(S2, -mp.mpf(1) / 2)
        else:
            self.roots = self.inverses = mp.eye(d1), mp.eye(d2)
        # The factor in front of the norm: of the scaled trace, of the squared norms of the factors, or the penalty.
        self.factor = self.penalty if penalty else mp.mpf(4 * m if flat else 2)

    def residuals(self, X):
        return [dot(each, X) - b for each, b in zip(self.A, self.b, strict=True)]

    def value(self, X):
        norm = mp.fsum(singular_values(self.roots[0] * X * self.roots[1]))
        fit = mp.fsum(r**2 for r in self.residuals(X)) / 2 if self.penalty else 0
        return fit + self.factor * norm

    def bound(self, y):
        """The lower bound that a dual vector proves, scaled as well as can be."""
        y = [mp.mpf(float(x)) for x in y]
        Y = mp.zeros(*self.shape)
        for each, weight in zip(self.A, y, strict=True):
            Y += weight * each
        norm = max(singular_values(self.inverses[0] * Y * self.inverses[1]))
        gain = mp.fsum(b * w for b, w in zip(self.b, y, strict=True))
        if gain <= 0:
            return mp.mpf(0)
        if not self.penalty:
            return self.factor * gain / norm if norm > 0 else mp.inf
        square = mp.fsum(w**2 for w in y)
        t = gain / square if norm * gain <= self.penalty * square else self.penalty / norm
        return t * gain - t**2 * square / 2

    def excluded(self, y):
        """The nuclear norm below which no matrix fits, by a combination `y` of the equations; 0 if it proves nothing."""
        y = [mp.mpf(float(x)) for x in y]
        Y = mp.zeros(*self.shape)
        for each, weight in zip(self.A, y, strict=True):
            Y += weight * each
        gain, norm = mp.fsum(b * w for b, w in zip(self.b, y, strict=True)), max(singular_values(Y))
        return mp.mpf(0) if gain <= 0 else gain / norm if norm > 0 else mp.inf

    def missed(self, X):
        """The largest miss of a datum, relative to ``max(|b_i|, 1e-3 ||A_i|| ||X||)``."""
        size = mp.sqrt(dot(X, X))
        worst = mp.mpf(0)
        for each, b, r in zip(self.A, self.b, self.residuals(X), strict=True):
            scale = max(abs(b), mp.sqrt(dot(each, each)) * size / 1000)
            if r != 0:
                worst = max(worst, abs(r) / scale if scale > 0 else mp.inf)
        return worst


def consistent(stack, b):
    """Whether some matrix satisfies every equation exactly: elimination in rational numbers."""
    rows = [[Fraction(float(x)) for x in np.ravel(each)] + [Fraction(float(y))] for each, y in zip(stack, b, strict=True)]
    width, at = len(rows[0]) - 1, 0
    for k in range(width):
        pivot = next((i for i in range(at, len(rows)) if rows[i][k]), None)
        if pivot is None:
            continue
        rows[at], rows[pivot] = rows[pivot], rows[at]
        for i in range(at + 1, len(rows)):
            if rows[i][k]:
                q = rows[i][k] / rows[at][k]
                rows[i] = [x - q * p for x, p in zip(rows[i], rows[at], strict=True)]
        at += 1
    return all(not row[-1] for row in rows[at:])
