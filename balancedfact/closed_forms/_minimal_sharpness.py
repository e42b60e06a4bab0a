r"""Univariate regression with a deep linear network: the least sharpness of a minimiser, exactly, and the published bounds.

The risk is :math:`\frac1n\|y - X w\|^2` with :math:`w^\top = W_L\cdots W_1`; the data enter through their covariance
:math:`\hat\Sigma = X^\top X/n` and a regression vector `w` of least risk.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike

from balancedfact._linalg import frobenius, magnitude
from balancedfact._validate import as_array, as_count, as_widths

_EPS = np.finfo(float).eps


def minimal_sharpness(covariance: ArrayLike, w: ArrayLike, depth: int) -> float:
    r"""The least sharpness of any network of a given depth that solves a univariate regression.

    The sharpness is the largest eigenvalue of the Hessian of the risk :math:`\frac1n\|y - Xw_{\rm prod}\|^2`. Over all
    weights with :math:`W_L\cdots W_1 = w^\top`, at any hidden widths,

    .. math:: S_{\min} = 2\min_{s>0}\ \lambda_{\max}\bigl(s\hat\Sigma
              + (L-1)\,s^{-1/(L-1)}\,\hat\Sigma^{1/2}ww^\top\hat\Sigma^{1/2}\bigr),

    a convex problem in :math:`\log s`. For white data, :math:`\hat\Sigma = I`, it is :math:`2L\|w\|^{2-2/L}`.

    Parameters
    ----------
    covariance : array_like, shape (d, d)
        :math:`\hat\Sigma`, symmetric positive semidefinite, of any rank.
    w : array_like, shape (d,)
        A minimiser of the risk. Only its part in the range of the covariance matters.
    depth : int
        The number of layers `L`, at least 2.

    Returns
    -------
    float
        Zero if ``covariance @ w`` is zero: then zero weights are a minimiser, and the Hessian vanishes there.

    Raises
    ------
    ValueError
        If the covariance is not a symmetric positive semidefinite matrix, if `w` does not fit it or `depth` is below 2.

    See Also
    --------
    flattest_regression_layers : Weights that attain it.
    sharpness_bounds : The published lower and upper bound.

    Notes
    -----
    In the eigenbasis of the covariance, with eigenvalues :math:`\lambda_i` and :math:`z_i = \lambda_i w_i^2`, the largest
    eigenvalue is :math:`s\nu` where :math:`h(\nu) = \sum_i z_i/(\nu-\lambda_i) = s^{L/(L-1)}/(L-1)`. So `s` is explicit in
    :math:`\nu\ge\lambda_{\max}(\hat\Sigma)`, and the minimum is the root of one rational function of :math:`\nu`.

    Marion and Chizat bound the value from both sides (`sharpness_bounds`); the exact value is proved in the documentation.

    References
    ----------
    Marion, Chizat, "Deep linear networks for regression are implicitly regularized towards flat minima", 2024, Theorem 2.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> bf.closed_forms.minimal_sharpness(np.eye(3), [0.0, 1.0, 0.0], depth=10)
    20.0
    >>> print(round(bf.closed_forms.minimal_sharpness(np.diag([4.0, 1.0]), [0.6, 0.8], depth=2), 6))
    10.708193
    """
    values, _, coefficients, scale, size = spectrum(covariance, w)
    L = as_count(depth, "depth", least=2)
    if size == 0:
        return 0.0
    nu, s = _best(values, coefficients, L)
    return 2 * scale * nu * s * power(size, 2 - 2 / L)


def flattest_regression_layers(covariance: ArrayLike, w: ArrayLike, widths: Sequence[int]) -> list[np.ndarray]:
    r"""Weights of least sharpness for a univariate regression: they attain `minimal_sharpness`.

    Every layer has rank one and is aligned with the next: :math:`W_1 = s^{-1/2}e_1w^\top` and
    :math:`W_k = s^{1/(2(L-1))}e_1e_1^\top` for :math:`k\ge2`, with `s` the minimiser of the problem in `minimal_sharpness`.

    Parameters
    ----------
    covariance : array_like, shape (d, d)
        :math:`\hat\Sigma`, symmetric positive semidefinite, of any rank.
    w : array_like, shape (d,)
        A minimiser of the risk.
    widths : sequence of int
        ``[d, d_1, ..., d_{L-1}, 1]``, any hidden widths.

    Returns
    -------
    list of numpy.ndarray
        ``[W_1, ..., W_L]`` with ``W_L @ ... @ W_1 == w[None, :]``. All are zero if ``covariance @ w`` is zero: zero weights
        have the same risk, and no curvature.

    Raises
    ------
    ValueError
        If the covariance is not a symmetric positive semidefinite matrix, or `w` or `widths` do not fit it.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> W1, W2 = bf.closed_forms.flattest_regression_layers(np.eye(2), [0.0, 4.0], [2, 3, 1])
    >>> print(W2 @ W1)
    [[0. 4.]]
    """
    values, vectors, coefficients, scale, size = spectrum(covariance, w)
    sizes = as_widths(widths, (1, values.size))
    L = len(sizes) - 1
    if size == 0:
        return [np.zeros(shape) for shape in zip(sizes[1:], sizes, strict=False)]
    direction = as_array(w, "w") / size
    _, s = _best(values, coefficients, L)
    root = size ** (1 / L)
    return rank_one_chain(direction, sizes, root / np.sqrt(s), root * s ** (1 / (2 * (L - 1))))


def sharpness_bounds(covariance: ArrayLike, w: ArrayLike, depth: int) -> tuple[float, float]:
    r"""The published lower and upper bound on the least sharpness.

    .. math:: 2L\|w\|^{2-2/L}a \;\le\; S_{\min} \;\le\; 2\|w\|^{2-2/L}\sqrt{(2L-1)\Lambda^2 + (L-1)^2a^2},
              \qquad a = \frac{w^\top\hat\Sigma w}{\|w\|^2},\quad \Lambda = \lambda_{\max}(\hat\Sigma).

    Parameters
    ----------
    covariance : array_like, shape (d, d)
        :math:`\hat\Sigma`, symmetric positive semidefinite.
    w : array_like, shape (d,)
        The minimiser of the risk of least norm, to which the bounds refer.
    depth : int
        The number of layers `L`, at least 2.

    Returns
    -------
    lower, upper : float
        Both zero for a zero `w`.

    Raises
    ------
    ValueError
        If the covariance is not a symmetric positive semidefinite matrix, if `w` does not fit it or `depth` is below 2.

    References
    ----------
    Marion, Chizat 2024, Theorem 2.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> print(bf.closed_forms.sharpness_bounds(np.eye(2), [1.0, 0.0], depth=2))
    (4.0, 4.0)
    """
    values, _, coefficients, scale, size = spectrum(covariance, w)
    L = as_count(depth, "depth", least=2)
    if size == 0:
        return 0.0, 0.0
    a = float(values @ coefficients**2)
    unit = 2 * scale * power(size, 2 - 2 / L)
    return unit * L * a, unit * float(np.sqrt((2 * L - 1) * values.max() ** 2 + (L - 1) ** 2 * a**2))


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


def power(base: float, exponent: float) -> float:
    """The power, infinite where it overflows."""
    with np.errstate(over="ignore"):
        return float(np.power(base, exponent))


def rank_one_chain(w: np.ndarray, widths: Sequence[int], first: float, others: float) -> list[np.ndarray]:
    """The layers ``first * e_1 w^T`` and ``others * e_1 e_1^T``."""
    layers = [np.zeros(shape) for shape in zip(widths[1:], widths, strict=False)]
    layers[0][0] = first * w
    for layer in layers[1:]:
        layer[0, 0] = others
    return layers


def spectrum(covariance: ArrayLike, w: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float]:
    """Eigenvalues over `scale` and eigenvectors of the covariance, coefficients of ``w / size`` in them, `scale`, `size`.

    The `size` is the norm of `w`, or zero if the covariance sends `w` to zero.
    """
    matrix = as_covariance(covariance)
    vector = as_array(w, "w", shape=(matrix.shape[0],))
    scale, size = magnitude(matrix), frobenius(vector)
    values, vectors = np.linalg.eigh((matrix / scale + matrix.T / scale) / 2)
    noise = values.size * _EPS * max(values[-1], 0.0)
    values = np.where(values > noise, values, 0.0)
    if size == 0:
        return values, vectors, np.zeros_like(vector), scale, 0.0
    coefficients = vectors.T @ (vector / size)
    visible = np.abs(coefficients[values > 0]) > values.size * _EPS
    return values, vectors, coefficients, scale, size if visible.any() else 0.0


def _best(values: np.ndarray, coefficients: np.ndarray, L: int) -> tuple[float, float]:
    """The minimiser ``(nu, s)`` of ``nu * s`` for a unit vector, with ``s = ((L - 1) h(nu))**((L - 1) / L)``."""
    z = values * coefficients**2
    top = float(values.max())
    z, gaps = z[z > 0], top - values[z > 0]  # with nu = top + delta, the differences nu - values are free of cancellation

    def slope(log_delta: float) -> float:
        """A positive multiple of the derivative in nu of log(nu s): 1/nu - (L - 1)/L sum z/(nu - v)^2 / sum z/(nu - v)."""
        delta = np.exp(log_delta)
        share = z / (delta + gaps)
        return float(1 - (L - 1) / L * (top + delta) * np.sum(share / (delta + gaps)) / np.sum(share))

    # At nu = L top the mean of nu / (nu - v) is at most L / (L - 1), so the slope is not negative there.
    low, high = np.log(top) - 80.0, np.log(top * (L - 1)) + 1.0
    if slope(low) >= 0:  # w has no part on the top eigenspace, and the minimum is at the end of the interval
        delta = 0.0 if np.all(gaps > 0) else float(np.exp(low))
    else:
        delta = float(np.exp(scipy.optimize.brentq(slope, low, high, xtol=1e-15, rtol=8 * _EPS, maxiter=500)))
    s = float(((L - 1) * np.sum(z / (delta + gaps))) ** ((L - 1) / L))
    return top + delta, s
