r"""A lower bound on deep networks with weight decay where the data determine the matrix, which closes at any rank.

Let :math:`\mathcal A^*\mathcal A\succeq\ell`, :math:`\ell>0`. The rest :math:`K=\mathcal A^*\mathcal A-\ell` is convex, and is
above its tangent at any matrix :math:`E_0`. With :math:`N = \mathcal A^*(b-\mathcal A(E_0))+\ell E_0` and its singular values
:math:`n_i`, von Neumann's trace inequality leaves one problem for each singular value:

.. math:: \tfrac12\|\mathcal A(E)-b\|^2+\tfrac{\lambda L}2\|E\|_{S_{2/L}}^{2/L} \ge \tfrac12\|b\|^2
          -\tfrac12\langle E_0,KE_0\rangle-\tfrac1{2\ell}\|N\|^2
          +\sum_i\min_{x\ge0}\tfrac1{2\ell}(n_i-\ell x)^2+\tfrac{\lambda L}2x^{2/L}.

At a stationary point :math:`E_0` of rank `r` its singular values are stationary in `r` of these problems, and zero is in the
others: if they are the minima there, the bound is the value of :math:`E_0`. Else other matrices :math:`E_0` have larger bounds,
and the largest is that at the solution of a convex problem, with the convex envelope of :math:`\frac\ell2x^2+\frac{\lambda L}2
x^{2/L}` in place of this: linear up to where shrinkage jumps, and itself beyond. It is found by accelerated proximal gradients.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from balancedfact._linalg import EPS, frobenius
from balancedfact._shrinkage import shrunk, thresholds
from balancedfact.certification.deep._decay_line import FallingLine, least
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._careful import careful_total, gamma, is_positive_definite

_MOST_GRAM_NUMBERS = 2**24  # of all measurements
_MOST_GRAM_ORDER = 2000
_RELAXATION_STEPS, _RELAXED = 1000, 1e-10  # at most, and the relative length of the last


class SeparableBound:
    """The bound for one problem; `convexity` is 0 where the data do not determine the matrix, and all bounds are then."""

    def __init__(self, A: MeasurementMap, b: np.ndarray, penalty: float, depth: int) -> None:
        self.A, self.b, self.penalty, self.depth = A, b, penalty, depth
        self.gram, self.convexity = _convexity(A)

    def best(self, E: np.ndarray, enough: float) -> float:
        """The bound with the tangent at `E`, or unless it is `enough`, with the best one."""
        if self.convexity == 0 or not np.isfinite(E).all():
            return 0.0
        found = self.at(E)
        return found if found >= enough else max(found, self.largest)

    def at(self, E: np.ndarray) -> float:
        """The bound with the tangent at `E`, rounded down."""
        A, b, ell = self.A, self.b, self.convexity
        measured, errors = A.careful_forward(E, np.eye(E.shape[1]))
        missed = frobenius(errors) + 2 * EPS * (frobenius(b) + frobenius(measured))
        S, blur = A.careful_adjoint(b - measured)
        N = S + ell * E
        reach = frobenius(A.row_norms) * (1 + 1e-12)  # at least the norm of the map
        lost = 1.01 * frobenius(blur) + reach * missed + 4 * EPS * (frobenius(S) + ell * frobenius(E))
        total, error = careful_total(np.concatenate([b * b / 2, -measured * measured / 2, (ell / 2 * E * E).ravel()]))
        error += missed * (frobenius(measured) + missed) + 2 * EPS * ell * frobenius(E) ** 2
        size, root = frobenius(N) + lost, np.sqrt(ell)
        lower = total - error - size**2 / (2 * ell) * (1 + gamma(N.size + 10))
        lines = [FallingLine(n / root, root) for n in _singular_values_below(N, lost)]
        return lower + sum(least(line, self.penalty, self.depth, 0.0, np.inf) for line in lines)

    @cached_property
    def largest(self) -> float:
        """The bound with the best tangent."""
        return self.at(self.relaxed())

    def relaxed(self) -> np.ndarray:
        """The solution of the convex problem."""
        ell, L = self.convexity, self.depth
        threshold = thresholds(self.penalty / ell, L)[0]
        jump = (L - 2) / (L - 1) * threshold
        rest = self.gram - ell * np.eye(len(self.gram))
        step = 1 / max(float(np.linalg.norm(rest, 2)), ell)
        pull = self.A.adjoint_matrix(self.b)

        def descended(Y: np.ndarray) -> np.ndarray:
            U, s, Vt = np.linalg.svd(Y - step * ((rest @ Y.ravel()).reshape(Y.shape) - pull), full_matrices=False)
            linear = np.maximum(s - step * ell * threshold, 0.0)
            beyond = shrunk(s / (1 + step * ell), self.penalty * step / (1 + step * ell), L)
            return np.asarray((U * np.where(linear > jump, beyond, linear)) @ Vt)

        X = Y = np.zeros(self.A.matrix_shape)
        momentum = 1.0
        for _ in range(_RELAXATION_STEPS):
            before, X = X, descended(Y)
            if frobenius(X - before) <= _RELAXED * frobenius(X):
                break
            ahead = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            if np.vdot(Y - X, X - before) > 0:  # beyond the minimum along the way: from here anew
                momentum, Y = 1.0, X
            else:
                momentum, Y = ahead, X + (momentum - 1) / ahead * (X - before)
        return X


def _convexity(A: MeasurementMap) -> tuple[np.ndarray, float]:
    """The matrix of ``A* A`` and a proved lower bound on its eigenvalues; 0 where none is positive, or it costs too much."""
    order = A.shape[1]
    if A.m < order or order > _MOST_GRAM_ORDER or A.m * order > _MOST_GRAM_NUMBERS:
        return np.empty((0, 0)), 0.0
    rows = A.rotated(*map(np.eye, A.matrix_shape)).reshape(A.m, order)
    gram = rows.T @ rows
    error = gamma(A.m + 8) * float(np.vdot(rows, rows)) * (1 + 1e-12)
    ell = float(np.linalg.eigvalsh(gram)[0]) * (1 - 1e-6) - 4 * order * error
    proved = ell > 0 and is_positive_definite(gram - ell * np.eye(order), error + 4 * EPS * ell)
    return gram, ell if proved else 0.0


def _singular_values_below(N: np.ndarray, lost: float) -> np.ndarray:
    """Numbers that the singular values of a matrix within `lost` of `N` do not exceed."""
    U, s, Vt = np.linalg.svd(N, full_matrices=False)
    skew = [frobenius(Q.T @ Q - np.eye(len(s))) + gamma(len(Q)) * len(s) for Q in (U, Vt.T)]
    away = frobenius(N - (U * s) @ Vt) + gamma(len(s) + 4) * frobenius(s) * len(s)
    return s * (1 + skew[0]) * (1 + skew[1]) + away + lost
