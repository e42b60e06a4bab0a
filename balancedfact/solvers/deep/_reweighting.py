r"""Reweighted least squares for Schatten-2/L quasi-norms, with or without exact fit.

A step minimises the square of a matrix with the harmonic mean of the weights of both sides (Kuemmerle, Sigl 2018), those of
:math:`\sum_i(\sigma_i^2+\varepsilon^2)^{1/L}` at the matrix before, for falling :math:`\varepsilon`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg

from balancedfact._linalg import EPS
from balancedfact.measurements import MeasurementMap

_LAST_SMOOTHING = 1e-8  # of the first singular value, where the smoothing ends


def reweighted(
    A: MeasurementMap,
    b: np.ndarray,
    X: np.ndarray,
    depth: int,
    report: Callable[[np.ndarray, float], None],
    *,
    shrink: float,
    penalty: float = 0.0,
) -> np.ndarray:
    """The end of the steps from `X`, whose smoothing falls by the factor `shrink`; a `penalty` of zero interpolates."""
    d1, d2 = A.matrix_shape
    first = smoothing = float(np.linalg.norm(X, 2))
    zero, power = np.zeros((d1, d2)), 1 - 1 / depth
    while smoothing > _LAST_SMOOTHING * first:
        # Inverse weights (X X' + smoothing^2)^(1 - 1/L) of both sides; their mean is the harmonic mean of the weights.
        U, sigma, Vt = np.linalg.svd(X)
        squares = np.zeros(max(d1, d2))
        squares[: sigma.size] = sigma**2
        inverse = (squares + smoothing**2) ** power
        left, right = (U * inverse[:d1]) @ U.T, (Vt.T * inverse[:d2]) @ Vt
        gram = (A.scaled_gram(left, zero, np.eye(d2)) + A.scaled_gram(np.eye(d1), zero, right)) / 2
        Z = A.adjoint(solved(gram + penalty * np.eye(A.m), b))
        X = (left @ Z + Z @ right) / 2
        report(X, smoothing)
        smoothing *= shrink
    return X


def solved(gram: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The solution of least norm of a semidefinite system that has one, up to rounding errors."""
    scale = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    scaled = gram / np.multiply.outer(scale, scale)
    try:
        return np.asarray(scipy.linalg.cho_solve(scipy.linalg.cho_factor(scaled), b / scale) / scale)
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(scaled, b / scale, rcond=max(scaled.shape) * EPS)[0] / scale)
