"""Enclosures that confirm most right verdicts at once; what they leave open is judged in 60 digits by `exact`.

Balls of 600 bits (Arb, through python-flint). Nothing here imports the package. With ``M1``, ``M2`` the sums of ``A A'`` and
``A' A``, an answer is bounded from above by the squared norms of its factors, and from below by a dual vector once

    [[beta G1, S], [S', beta G2]]  is positive definite,   G = M1 / (m d2), M2 / (m d1)  or  I,   S = sum_i y_i A_i,

for then ``||D1^+ S D2^+|| <= beta``: pivots that are positive as balls prove it.
"""

from contextlib import contextmanager

import flint
import numpy as np

_BITS = 600


@contextmanager
def precision():
    before, flint.ctx.prec = flint.ctx.prec, _BITS
    try:
        yield
    finally:
        flint.ctx.prec = before


def balls(array):
    rows, cols = np.shape(array)
    return flint.arb_mat(rows, cols, np.ravel(array).tolist())


def inner(P, Q):
    return sum((p * q for p, q in zip(P.entries(), Q.entries(), strict=True)), flint.arb(0))


def positive(rows):
    """Whether a symmetric matrix, a list of rows of balls, has positive pivots."""
    rows = [list(row) for row in rows]
    for k, row in enumerate(rows):
        if not row[k] > 0:
            return False
        for i in range(k + 1, len(rows)):
            if rows[i][k] != 0:
                factor = rows[i][k] / row[k]
                rows[i] = [x - factor * p if j > k else x for j, (x, p) in enumerate(zip(rows[i], row, strict=True))]
    return True


class Quick:
    """The problem ``min ||D1 X D2||_*`` over the matrices that fit, or its penalised form, with its rounding in balls."""

    def __init__(self, stack, b, *, flat, penalty):
        stack = np.asarray(stack, dtype=float)
        self.m, d1, d2 = stack.shape
        self.flat, self.penalty, self.stack = flat, flint.arb(penalty), stack
        self.A, self.b = [balls(each) for each in stack], balls(np.reshape(b, (-1, 1)))
        self.seen = stack.any((0, 2)).nonzero()[0].tolist(), stack.any((0, 1)).nonzero()[0].tolist()
        if flat:
            zero = flint.arb_mat(d1, d1), flint.arb_mat(d2, d2)
            squares = (each * each.transpose() for each in self.A), (each.transpose() * each for each in self.A)
            self.G = (
                sum(squares[0], zero[0]) * (flint.arb(1) / (self.m * d2)),
                sum(squares[1], zero[1]) * (flint.arb(1) / (self.m * d1)),
            )
        else:
            self.G = balls(np.eye(d1)), balls(np.eye(d2))
        self.factor = self.penalty if penalty else flint.arb(4 * self.m if flat else 2)

    def fits(self, X, most):
        """Whether no datum is missed by more than `most`, relative to ``max(|b_i|, 1e-3 ||A_i|| ||X||)``."""
        size = inner(X, X)
        for i, each in enumerate(self.A):
            datum = self.b[i, 0]
            miss = inner(each, X) - datum
            granted = max((datum * datum).lower(), (inner(each, each) * size / 10**6).lower())
            if not miss * miss <= most * most * granted:
                return False
        return True

    def above(self, L, R):
        """An upper bound on the value of ``L R'``: by half the squared norms of its factors in place of the norm."""
        half = (inner(L, self.G[0] * L) + inner(R, self.G[1] * R)) / 2
        if not self.penalty > 0:
            return self.factor * half
        X = L * R.transpose()
        misses = [inner(each, X) - self.b[i, 0] for i, each in enumerate(self.A)]
        return sum((r * r for r in misses), flint.arb(0)) / 2 + self.penalty * half

    def bounded(self, S, beta):
        """Whether the norm of ``D1^+ S D2^+`` is proved to be at most `beta`."""
        P, Q = self.seen if self.flat else (range(S.nrows()), range(S.ncols()))
        top = [[beta * self.G[0][p, q] for q in P] + [S[p, q] for q in Q] for p in P]
        low = [[S[q, p] for q in P] + [beta * self.G[1][p, q] for q in Q] for p in Q]
        return positive(top + low)

    def proves(self, y, lower):
        """Whether the dual vector is seen to prove a lower bound: ``False`` says nothing."""
        S = sum((each * w for each, w in zip(self.A, y.tolist(), strict=True)), flint.arb_mat(*self.stack.shape[1:]))
        y = balls(y[:, None])
        gain = inner(self.b, y)
        if not gain > 0:
            return False
        if not self.penalty > 0:
            return self.bounded(S, self.factor * gain / lower)
        root = (gain * gain - 2 * inner(y, y) * lower).sqrt()
        if not root >= 0:
            return False
        least = 2 * lower / (gain + root)  # of the multiples t for which t gain - t^2 |y|^2 / 2 is the bound
        return self.bounded(S, self.penalty / least)


def confirmed(case, L, R, value, dual, lower, *, tol, fits):
    """Whether an ``OPTIMAL`` is seen to be right: fit, value, bound and gap."""
    if not (value > 0 and lower > 0):
        return False
    with precision():
        quick = Quick(case.stack(), case.b, flat=case.flat, penalty=case.penalty)
        L, R = balls(L), balls(R)
        above, said, least = quick.above(L, R), flint.arb(value), flint.arb(lower) / (1 + flint.arb(10) ** -11)
        if not (case.penalty or quick.fits(L * R.transpose(), flint.arb(fits))):
            return False
        # The value lies between `least` and `above`, as soon as the first is proved.
        near = above - said <= said * flint.arb(10) ** -7 and said - least <= said * flint.arb(10) ** -7
        closed = above - least <= flint.arb(1.01) * tol * least
        return bool(near and closed and quick.proves(dual, least))
