r"""Rigorous lower bounds on the trace of the Hessian of every deep factorization that fits the data.

**From any vector** `y`: let :math:`H_1^2 = \sum_iA_iA_i^\top`, :math:`H_2^2 = \sum_iA_i^\top A_i`, and let `t` be the singular
values of :math:`H_1^{-1}\mathcal A^*(y)H_2^{-1}`. Then

.. math:: \operatorname{tr}\nabla^2\mathcal L(W)\ \ge\
          \frac{2L}m\,\frac{(b^\top y)^{2-2/L}}{\|y\|^{2-4/L}\,\big(\sum_kt_k^{2/(L-2)}\big)^{1-2/L}} .

**From an isometry** of the whitened measurements :math:`\tilde A_i = D_1^{-1}A_iD_2^{-1}`: where
:math:`\frac1m\sum_i\langle\tilde A_i, uv^\top\rangle^2\ge\ell` for all unit vectors,

.. math:: \operatorname{tr}\nabla^2\mathcal L(W)\ \ge\ 2L\,(d_1d_2\,\ell^{L-2})^{1/L}\,\|D_1ED_2\|_*^{2-2/L},

and the dual vector of two layers bounds the nuclear norm.

The proofs are in the theory page "The flattest deep network".
"""

from __future__ import annotations

import numpy as np

from balancedfact.measurements import MeasurementMap, isometry_constant

# The relaxation behind an isometry constant: the largest order for which it takes a fraction of a second, and its steps.
_LARGEST, _ITERATIONS = 150, 30


def multiplier_bound(A: MeasurementMap, b: np.ndarray, y: np.ndarray, depth: int) -> float:
    """The bound, for a map of ordinary scale; 0 where `y` says nothing."""
    size = float(np.linalg.norm(y))
    along = float(b @ y) / size if size > 0 else 0.0
    if along <= 0:
        return 0.0
    d1, d2 = A.matrix_shape
    (left, U), (right, V) = A.left_root, A.right_root
    keep_left, keep_right = left > 0, right > 0
    seen = U[:, keep_left].T @ A.adjoint_matrix(y / size) @ V[:, keep_right]
    seen = seen / np.multiply.outer(left[keep_left] * np.sqrt(d2), right[keep_right] * np.sqrt(d1)) / A.m
    t = np.linalg.svd(seen, compute_uv=False)
    # Rounding raises vanishing singular values, which only lowers the bound: at most each t_k by this much.
    t = t + 8 * max(d1, d2) * np.finfo(float).eps * t[0]
    log = (2 - 2 / depth) * np.log(along) - (1 - 2 / depth) * np.log(np.sum(t ** (2 / (depth - 2))))
    return float(2 * depth / A.m * np.exp(log))


def isometry_bound(A: MeasurementMap, nuclear: float, depth: int, rng: np.random.Generator) -> float:
    """The second bound, for a map of ordinary scale that sees every direction, from a lower bound `nuclear` on ``|D1 E D2|_*``.

    0 where the isometry is not proved, or where the proof would take long.
    """
    d1, d2 = A.matrix_shape
    if d1 * d2 > _LARGEST or nuclear <= 0:
        return 0.0
    least = isometry_constant(A.whitened().map, 1, starts=1, iterations=_ITERATIONS, rng=rng).smallest[0]
    if least <= 0:
        return 0.0
    return float(2 * depth * (d1 * d2 * least ** (depth - 2)) ** (1 / depth) * nuclear ** (2 - 2 / depth))
