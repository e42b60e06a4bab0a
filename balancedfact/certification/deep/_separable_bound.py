r"""A lower bound on deep networks with weight decay where the data determine the matrix, which closes at any rank.

Let :math:`\mathcal A^*\mathcal A\succeq\ell`, :math:`\ell>0`. The rest :math:`K=\mathcal A^*\mathcal A-\ell` is convex, and is
above its tangent at any matrix :math:`E_0`. With :math:`N = \mathcal A^*(b-\mathcal A(E_0))+\ell E_0` and its singular values
:math:`n_i`, von Neumann's trace inequality leaves one problem for each singular value:

.. math:: \tfrac12\|\mathcal A(E)-b\|^2+\tfrac{\lambda L}2\|E\|_{S_{2/L}}^{2/L} \ge \tfrac12\|b\|^2
          -\tfrac12\langle E_0,KE_0\rangle-\tfrac1{2\ell}\|N\|^2
          +\sum_i\min_{x\ge0}\tfrac1{2\ell}(n_i-\ell x)^2+\tfrac{\lambda L}2x^{2/L}.

At a stationary point :math:`E_0` of rank `r` its singular values are stationary in `r` of these problems, and zero is in the
others: if they are the minima there, the bound is the value of :math:`E_0`.
"""

from __future__ import annotations

import numpy as np

from balancedfact._linalg import EPS, frobenius
from balancedfact.certification.deep._decay_line import FallingLine, least
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._careful import careful_total, gamma, is_positive_definite

_MOST_GRAM_NUMBERS = 2**24  # of all measurements
_MOST_GRAM_ORDER = 2000


def separable_bound(A: MeasurementMap, b: np.ndarray, penalty: float, depth: int, E: np.ndarray) -> float:
    """The bound with the tangent at `E`, rounded down; 0 where the data do not determine the matrix."""
    ell = _convexity(A)
    if ell == 0 or not np.isfinite(E).all():
        return 0.0
    measured, errors = A.careful_forward(E, np.eye(E.shape[1]))
    missed = frobenius(errors) + 2 * EPS * (frobenius(b) + frobenius(measured))
    S, blur = A.careful_adjoint(b - measured)
    N = S + ell * E
    reach = frobenius(A.row_norms) * (1 + 1e-12)  # at least the norm of the map
    lost = 1.01 * frobenius(blur) + reach * missed + 4 * EPS * (frobenius(S) + ell * frobenius(E))
    total, error = careful_total(np.concatenate([b * b / 2, -measured * measured / 2, (ell / 2 * E * E).ravel()]))
    error += missed * (frobenius(measured) + missed)
    size = frobenius(N) + lost
    lower = total - error - size**2 / (2 * ell) * (1 + gamma(N.size + 10))
    root = np.sqrt(ell)
    return lower + sum(least(FallingLine(n / root, root), penalty, depth, 0.0, np.inf) for n in _singular_values_below(N, lost))


def _convexity(A: MeasurementMap) -> float:
    """A proved lower bound on the least eigenvalue of ``A* A``; 0 where none is positive, or it costs too much."""
    order = A.shape[1]
    if A.m < order or order > _MOST_GRAM_ORDER or A.m * order > _MOST_GRAM_NUMBERS:
        return 0.0
    rows = A.rotated(*map(np.eye, A.matrix_shape)).reshape(A.m, order)
    gram = rows.T @ rows
    error = gamma(A.m + 8) * float(np.vdot(rows, rows)) * (1 + 1e-12)
    least_found = float(np.linalg.eigvalsh(gram)[0])
    ell = least_found * (1 - 1e-6) - 4 * order * error
    return ell if ell > 0 and is_positive_definite(gram - ell * np.eye(order), error + 4 * EPS * ell) else 0.0


def _singular_values_below(N: np.ndarray, lost: float) -> np.ndarray:
    """Numbers that the singular values of a matrix within `lost` of `N` do not exceed."""
    U, s, Vt = np.linalg.svd(N, full_matrices=False)
    skew = [frobenius(Q.T @ Q - np.eye(len(s))) + gamma(len(Q)) * len(s) for Q in (U, Vt.T)]
    away = frobenius(N - (U * s) @ Vt) + gamma(len(s) + 4) * frobenius(s) * len(s)
    return s * (1 + skew[0]) * (1 + skew[1]) + away + lost
