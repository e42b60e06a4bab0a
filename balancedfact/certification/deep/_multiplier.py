r"""The multiplier bound, and the vector `y` for which it is largest.

Let :math:`H_1^2 = \sum_iA_iA_i^\top`, :math:`H_2^2 = \sum_iA_i^\top A_i`, and let `t` be the singular values of
:math:`H_1^+\mathcal A^*(y)H_2^+`. For every `y` with :math:`b^\top y>0`, every network of `L` layers that fits has

.. math:: \operatorname{tr}\nabla^2\mathcal L(W)\ \ge\
          \frac{2L}m\,\frac{(b^\top y)^{2-2/L}}{\|y\|^{2-4/L}\,\big(\sum_kt_k^{2/(L-2)}\big)^{1-2/L}} .

Any `y` is valid, so the search for a good one need not be rigorous. For `L = 3` the best one is on a curve: the denominator is
then a power of :math:`\|y\|^2\,y^\top Gy`, where `G` is the Gram matrix of the whitened measurements, and where the means of
:math:`\|y\|^2` and :math:`y^\top Gy` are balanced by a number `c`, :math:`y\propto(c^2I+G)^{-1}b`. There are several local
maxima in `c`, hence a grid. For more layers the last sum is smoothed and the logarithm climbed by L-BFGS.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from balancedfact._linalg import EPS
from balancedfact.certification._pair import power_below
from balancedfact.certification._rounding import whitening
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._careful import UNIT, careful_total, gamma

_LARGEST_GRAM = 3000  # measurements up to which the Gram matrix is decomposed
_GRID = 200  # points of the logarithmic grid
_SMOOTHINGS = (0.1, 0.01, 0.001)  # of the singular values, as fractions of the largest
_LBFGS_STEPS = 60  # of L-BFGS for each smoothing


def multiplier_bound(A: MeasurementMap, b: np.ndarray, y: np.ndarray, depth: int) -> float:
    """The bound from one `y`, for a map of ordinary scale; 0 where `y` says nothing."""
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


class ProvedDual(NamedTuple):
    """Numbers that a dual vector proves for a map at unit scale, all rounding counted.

    `along` is at most ``b.y``, `size` at least ``|y|``, and `t` are at least the singular values of ``D1^+ A*(y) D2^+``.
    """

    along: float
    size: float
    t: np.ndarray

    @property
    def nuclear(self) -> float:
        """A lower bound on ``|D1 E D2|_*`` for all `E` that fit."""
        most = float(self.t.max(initial=0.0))
        return self.along / most * (1 - 4 * UNIT) if self.along > 0 and most > 0 else 0.0

    def bound(self, m: int, shape: tuple[int, int], depth: int) -> float:
        """The lower bound on the trace."""
        t = self.t / (m * np.sqrt(shape[0] * shape[1]))  # the H_i are the D_i times the roots of m d2 and m d1
        total = float(np.sum(t ** (2 / (depth - 2))))
        if not (self.along > 0 and total > 0):
            return 0.0
        parts = (2 - 2 / depth) * np.log(self.along), (2 - 4 / depth) * np.log(self.size), (1 - 2 / depth) * np.log(total)
        lost = 16 * UNIT * (10 + float(np.abs(parts).sum())) + gamma(t.size)
        return float(2 * depth / m * np.exp(parts[0] - parts[1] - parts[2]) * (1 - lost))


def proved_dual(A: MeasurementMap, b: np.ndarray, y: np.ndarray) -> ProvedDual:
    """The numbers behind the bound from one `y` for the map ``A.at_unit_scale()``, with their rounding.

    Where rounding leaves no bound, `along` is zero.
    """
    nothing = ProvedDual(0.0, 1.0, np.zeros(0))
    white, unit = A.whitened(), A.at_unit_scale()
    factor = whitening(A, (white.left, white.right)).factor
    if not (np.any(y) and np.isfinite(y).all() and np.isfinite(factor)):
        return nothing
    y = y / power_below(float(np.max(np.abs(y))))
    along, error = careful_total(b * y)
    square, more = careful_total(y * y)
    S, errors = unit.careful_adjoint(y)
    W = np.asarray(white.left.T @ S @ white.right)
    errors = errors + gamma(sum(A.matrix_shape)) * np.abs(S)
    spill = 1.01 * float(np.linalg.norm(np.asarray(abs(white.left).T @ errors @ abs(white.right))))
    t = np.linalg.svd(W, compute_uv=False)
    t = factor * (t + spill + 8 * max(W.shape) * EPS * t.max(initial=0.0)) * (1 + 8 * UNIT)
    return ProvedDual(along - 1.01 * error, float(np.sqrt(square + 1.01 * more)) * (1 + 4 * UNIT), t)


def best_multipliers(A: MeasurementMap, b: np.ndarray, start: np.ndarray, depth: int) -> np.ndarray:
    """A `y` whose bound is at least that of `start`, and a local maximum as far as the search got.

    Parameters
    ----------
    A : MeasurementMap
        Of ordinary scale, with `D1` and `D2` invertible.
    b : numpy.ndarray, shape (m,)
    start : numpy.ndarray, shape (m,)
        For instance the multipliers of a minimum; zeros are allowed.
    depth : int
        At least 3.
    """
    white = A.whitened().map
    candidates = [start, b]
    if A.m <= _LARGEST_GRAM:
        candidates.append(_on_the_curve(white, b))
    best = max(candidates, key=lambda y: multiplier_bound(A, b, y, depth))
    if depth == 3 and A.m <= _LARGEST_GRAM:
        return best
    return max((best, *_climbed(white, b, best, depth)), key=lambda y: multiplier_bound(A, b, y, depth))


def _on_the_curve(white: MeasurementMap, b: np.ndarray) -> np.ndarray:
    r"""The best ``(c^2 I + G)^{-1} b``: three layers have the bound :math:`(b^\top y)^4/(\|y\|^2\,y^\top Gy)`, up to powers."""
    from scipy.optimize import minimize_scalar  # here, for it takes long to load

    g, vectors = np.linalg.eigh(white.gram)
    g, beta = np.maximum(g, 0.0), (b @ vectors) ** 2
    floor = max(g[0], 1e-12 * g[-1])

    def lost(log: float) -> float:
        weights = 1 / (np.exp(log) + g)
        squares = beta * weights**2
        return float(np.log(np.sum(squares)) + np.log(np.sum(g * squares)) - 4 * np.log(np.sum(beta * weights)))

    grid = np.linspace(np.log(floor) - 1, np.log(g[-1]) + 1, _GRID)
    values = np.array([lost(log) for log in grid])
    k = int(np.argmin(values))
    low, high = grid[max(k - 1, 0)], grid[min(k + 1, _GRID - 1)]
    found = minimize_scalar(lost, bounds=(low, high), method="bounded", options={"xatol": 1e-10})
    log = found.x if found.fun < values[k] else grid[k]
    return vectors @ ((b @ vectors) / (np.exp(log) + g))


def _climbed(white: MeasurementMap, b: np.ndarray, y: np.ndarray, depth: int) -> list[np.ndarray]:
    """Ascend from `y` by L-BFGS on the logarithm of the bound, with the singular values smoothed less and less."""
    from scipy.optimize import minimize  # here, for it takes long to load

    found, power = [], 2 / (depth - 2)
    y = y / np.linalg.norm(y)

    for smoothing in _SMOOTHINGS:
        scale = float(np.linalg.norm(white.adjoint_matrix(y), 2))

        def lost(y: np.ndarray, floor: float = smoothing * scale) -> tuple[float, np.ndarray]:
            along = float(b @ y)
            if along <= 0:
                return np.inf, np.zeros_like(y)
            U, t, Vt = scipy.linalg.svd(white.adjoint_matrix(y), full_matrices=False, check_finite=False)
            smooth = t**2 + floor**2
            total = float(np.sum(smooth ** (power / 2)))
            slope = white.forward((U * (power * t * smooth ** (power / 2 - 1))) @ Vt) / total
            size = float(y @ y)
            gradient = (2 - 2 / depth) * b / along - (1 - 2 / depth) * (2 * y / size + slope)
            value = (2 - 2 / depth) * np.log(along) - (1 - 2 / depth) * (np.log(size) + np.log(total))
            return -float(value), -gradient

        result = minimize(lost, y, jac=True, method="L-BFGS-B", options={"maxiter": _LBFGS_STEPS})
        y = result.x / np.linalg.norm(result.x)
        found.append(y)
    return found
