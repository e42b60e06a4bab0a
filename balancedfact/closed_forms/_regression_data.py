r"""A regression in the eigenbasis of its covariance, and the convex problem in one number that is its least sharpness."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import EPS, frobenius, magnitude
from balancedfact._validate import as_array


class RegressionData(NamedTuple):
    r"""A covariance ``scale * vectors @ diag(values) @ vectors.T`` and a matrix ``size * coefficients @ vectors.T``.

    The `size` is the Frobenius norm of the matrix, or zero if the covariance sends it to zero; `values` below rounding error
    are zero.
    """

    values: np.ndarray
    vectors: np.ndarray
    coefficients: np.ndarray
    scale: float
    size: float

    @property
    def root(self) -> np.ndarray:
        r"""The matrix :math:`M\hat\Sigma^{1/2}` of the scaled problem, in the eigenbasis, with no more rows than columns."""
        root = self.coefficients * np.sqrt(self.values)
        return root if len(root) <= root.shape[1] else np.asarray(np.linalg.qr(root, mode="r"))


def one_of(M: ArrayLike | None, w: ArrayLike | None, inputs: int) -> np.ndarray:
    """`M`, a vector of `inputs` numbers or a matrix of so many columns, or the vector `w`, as a matrix."""
    if M is not None and w is not None:
        raise ValueError("M and w are both given; expected one of them")
    if w is not None:
        return as_array(w, "w", shape=(inputs,))[None]
    if M is None:
        raise ValueError("M and w are both missing; expected one of them")
    matrix = as_array(M, "M")
    if matrix.ndim not in (1, 2) or matrix.shape[-1] != inputs:
        raise ValueError(f"M has shape {matrix.shape}; expected ({inputs},), or outputs x {inputs}, as the covariance has")
    return np.atleast_2d(matrix)


def as_covariance(covariance: ArrayLike) -> np.ndarray:
    """Return `covariance` as a symmetric positive semidefinite float64 matrix, or raise a ``ValueError``."""
    matrix = as_array(covariance, "covariance", ndim=2)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"covariance has shape {matrix.shape}; expected a square matrix")
    scale = magnitude(matrix)
    if np.abs(matrix / scale - matrix.T / scale).max() > 1e-8:
        raise ValueError(f"covariance differs from its transpose by {np.abs(matrix - matrix.T).max():.3g}; expected symmetry")
    least = float(np.linalg.eigvalsh(matrix / scale)[0])
    if least < -1e-8:
        raise ValueError(f"covariance has the eigenvalue {scale * least:.3g}; expected a positive semidefinite matrix")
    return matrix


def regression_data(covariance: ArrayLike, M: ArrayLike | None = None, *, w: ArrayLike | None = None) -> RegressionData:
    """The checked arguments of a regression, with `M` or, for one output, `w`, in the eigenbasis of its covariance."""
    matrix = as_covariance(covariance)
    target = one_of(M, w, len(matrix))
    scale, size = magnitude(matrix), frobenius(target)
    values, vectors = np.linalg.eigh((matrix / scale + matrix.T / scale) / 2)
    noise = values.size * EPS * max(values[-1], 0.0)
    values = np.where(values > noise, values, 0.0)
    if size == 0:
        return RegressionData(values, vectors, np.zeros_like(target), scale, 0.0)
    coefficients = (target / size) @ vectors
    visible = np.abs(coefficients[:, values > 0]) > values.size * EPS
    return RegressionData(values, vectors, coefficients, scale, size if visible.any() else 0.0)


def best_scale(data: RegressionData, L: int) -> tuple[float, float, np.ndarray]:
    r"""The minimiser of the scaled problem: its value over `s`, `s`, and the dual maximiser `y`, a unit vector.

    With :math:`R = M\hat\Sigma^{1/2}` in the eigenbasis, the largest eigenvalue of
    :math:`s\Lambda + (L-1)s^{-1/(L-1)}R^\top R` is :math:`s\nu` where
    :math:`h(\nu) = \lambda_{\max}(R(\nu-\Lambda)^{-1}R^\top) = s^{L/(L-1)}/(L-1)`: so `s` is explicit in
    :math:`\nu\ge\lambda_{\max}(\Lambda)` and falls with it, and the problem, convex in :math:`\log s`, has one descent in `nu`.
    """
    root, top = data.root, float(data.values.max())
    seen = np.abs(root).max(axis=0) > 0
    R, gaps = root[:, seen], top - data.values[seen]  # with nu = top + delta, nu - values is free of cancellation

    def resolved(delta: float) -> tuple[float, np.ndarray]:
        """The function h at ``top + delta``, and an orthonormal basis of its eigenspace."""
        weighted = R / np.sqrt(delta + gaps)
        eigenvalues, u = np.linalg.eigh(weighted @ weighted.T)
        return float(eigenvalues[-1]), u[:, eigenvalues >= eigenvalues[-1] * (1 - 1e-10)]

    def slope(log_delta: float) -> float:
        """A positive multiple of the derivative in nu of log(nu s): 1/nu + (L - 1)/L h'/h."""
        delta = np.exp(log_delta)
        _, u = resolved(delta)
        share = (u[:, -1] @ R) ** 2 / (delta + gaps)
        return float(1 - (L - 1) / L * (top + delta) * np.sum(share / (delta + gaps)) / np.sum(share))

    # At nu = L top the mean of nu / (nu - v) is at most L / (L - 1), so the slope is not negative there.
    low, high = np.log(top) - 80.0, np.log(top * (L - 1)) + 1.0
    if slope(low) >= 0:  # M has no part on the top eigenspace, and the minimum is at the end of the interval
        delta = 0.0 if np.all(gaps > 0) else float(np.exp(low))
    else:
        from scipy.optimize import brentq  # takes a third of the time of the whole import

        delta = float(np.exp(brentq(slope, low, high, xtol=1e-15, rtol=8 * EPS, maxiter=500)))
    h, u = resolved(delta)
    s = float(((L - 1) * h) ** ((L - 1) / L))
    candidates = np.zeros((data.values.size, u.shape[1]))
    candidates[seen] = R.T @ u / (delta + gaps)[:, None]
    if delta == 0:
        candidates = np.column_stack([candidates, np.eye(data.values.size)[:, data.values == top]])
    return top + delta, s, _balanced_vector(np.linalg.qr(candidates)[0], data.values, root, s, L)


def _balanced_vector(basis: np.ndarray, values: np.ndarray, root: np.ndarray, s: float, L: int) -> np.ndarray:
    r"""A unit vector of the top eigenspace with :math:`s\,y^\top\Lambda y = s^{-1/(L-1)}\|Ry\|^2`.

    The difference of the two sides is a quadratic form with values of both signs, or zero, on the eigenspace.
    """
    image = root @ basis
    form = s * (basis.T * values) @ basis - s ** (-1 / (L - 1)) * image.T @ image
    eigenvalues, vectors = np.linalg.eigh(form)
    least, most = float(eigenvalues[0]), float(eigenvalues[-1])
    if least * most >= 0:
        pick = vectors[:, 0] if abs(least) <= abs(most) else vectors[:, -1]
    else:
        pick = (np.sqrt(most) * vectors[:, 0] + np.sqrt(-least) * vectors[:, -1]) / np.sqrt(most - least)
    return np.asarray(basis @ pick)
