r"""Regression with a deep linear network: the least sharpness of a minimiser, exactly, and the published bounds.

The risk is :math:`\frac1n\|Y - W_L\cdots W_1X\|_F^2`, inputs in the columns of `X`; the data enter through their covariance
:math:`\hat\Sigma = XX^\top/n` and a matrix `M` of least risk, :math:`M\hat\Sigma = YX^\top/n`, one row for each output.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import EPS, scaled_product
from balancedfact._validate import as_depth, as_widths
from balancedfact.closed_forms._regression_data import best_scale, one_of, regression_data


def minimal_sharpness(
    covariance: ArrayLike, M: ArrayLike | None = None, depth: int | None = None, *, w: ArrayLike | None = None
) -> float:
    r"""The least sharpness of any network of a given depth that solves a regression.

    The sharpness is the largest eigenvalue of the Hessian of the risk :math:`\frac1n\|Y - W_L\cdots W_1X\|_F^2`, with no
    division by the number of outputs. Over all weights with :math:`W_L\cdots W_1 = M`, at hidden widths of at least the rank
    of `M`,

    .. math:: S_{\min} = 2\min_{s>0}\ \lambda_{\max}\bigl(s\hat\Sigma
              + (L-1)\,s^{-1/(L-1)}\,\hat\Sigma^{1/2}M^\top M\hat\Sigma^{1/2}\bigr)
              = 2L\max_{\|y\|=1}\ (y^\top\hat\Sigma y)^{1/L}\,\|M\hat\Sigma^{1/2}y\|^{2-2/L},

    a convex problem in :math:`\log s`. For white data, :math:`\hat\Sigma = I`, it is :math:`2L\|M\|_2^{2-2/L}`, with the
    spectral norm.

    Parameters
    ----------
    covariance : array_like, shape (d, d)
        :math:`\hat\Sigma`, symmetric positive semidefinite, of any rank.
    M : array_like, shape (d,) or (outputs, d)
        A minimiser of the risk over all matrices. Only its part on the range of the covariance matters.
    depth : int
        The number of layers `L`, at least 2.
    w : array_like, shape (d,), optional
        In place of `M`, for one output.

    Returns
    -------
    float
        Zero if ``M @ covariance`` is zero: then zero weights are a minimiser, and the Hessian vanishes there.

    Raises
    ------
    ValueError
        If the covariance is not a symmetric positive semidefinite matrix, `M` does not fit it, `depth` is below 2, or not
        exactly one of `M` and `w` is given.

    See Also
    --------
    flattest_regression_layers : Weights that attain it.
    sharpest_data_direction : The maximiser `y` of the second form.
    balanced_sharpness : The sharpness of balanced weights with the same product.
    balancedfact.minimal_sharpness : The same for any measurements.
    sharpness_bounds : The published lower and upper bound for one output.

    Notes
    -----
    The value depends on :math:`M\hat\Sigma^{1/2}` alone, so at hidden widths of at least its rank it is the least sharpness of
    *all* global minimisers of the risk. As a lower bound for weights with product `M` it holds at every width. Narrower
    networks cannot reach the least risk, and the formula is not the least sharpness of the best of them: with two layers of
    hidden width 1, inputs ``diag(1, 3)`` and targets ``diag(2, 1)``, that is 9, where the formula at the product of these
    layers gives 6.36.

    Marion and Chizat bound the value for one output from both sides (`sharpness_bounds`); Mulayoff and Michaeli have it for
    white data. The exact value is proved in the chapter :doc:`/theory/several_outputs`.

    References
    ----------
    Marion, Chizat, "Deep linear networks for regression are implicitly regularized towards flat minima", 2024, Theorem 2.
    Mulayoff, Michaeli, "Unique properties of flat minima in deep networks", 2020.

    Chapters :doc:`/theory/sharpness_and_dynamics` and :doc:`/theory/several_outputs`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> bf.closed_forms.minimal_sharpness(np.eye(3), [0.0, 1.0, 0.0], depth=10)
    20.0
    >>> print(round(bf.closed_forms.minimal_sharpness(np.diag([4.0, 1.0]), [0.6, 0.8], depth=2), 6))
    10.708193
    >>> print(round(bf.closed_forms.minimal_sharpness(np.eye(2), [[2.0, 0.0], [0.0, 1.0]], depth=2), 6))
    8.0
    """
    data = regression_data(covariance, M, w=w)
    L = as_depth(depth)  # type: ignore[arg-type]
    if data.size == 0:
        return 0.0
    nu, s, _ = best_scale(data, L)
    return scaled_product(2.0, data.scale, nu, s, *[power(data.size, 1 - 1 / L)] * 2)


def sharpest_data_direction(covariance: ArrayLike, M: ArrayLike, depth: int) -> np.ndarray:
    r"""The direction of the data that makes every minimiser sharp: the maximiser `y` in the formula of `minimal_sharpness`.

    For every unit vector `y`, every network with product `M`, of any width, has a sharpness of at least
    :math:`2L(y^\top\hat\Sigma y)^{1/L}\|M\hat\Sigma^{1/2}y\|^{2-2/L}`. The vector returned makes this bound largest: it is
    then the least sharpness itself, so the vector proves it.

    Parameters
    ----------
    covariance : array_like, shape (d, d)
        :math:`\hat\Sigma`, symmetric positive semidefinite, of any rank.
    M : array_like, shape (d,) or (outputs, d)
        A minimiser of the risk.
    depth : int
        The number of layers `L`, at least 2.

    Returns
    -------
    numpy.ndarray, shape (d,)
        A unit vector; its sign is arbitrary. If ``M @ covariance`` is zero, so is every bound, and an eigenvector of the
        covariance is returned.

    Raises
    ------
    ValueError
        If the covariance is not a symmetric positive semidefinite matrix, `M` does not fit it or `depth` is below 2.

    See Also
    --------
    minimal_sharpness : The value that it proves.
    flattest_regression_layers : Layers that attain it.

    References
    ----------
    Chapter :doc:`/theory/several_outputs`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> sigma, M = np.diag([4.0, 1.0]), np.array([[0.6, 0.8], [1.0, -2.0]])
    >>> y = bf.closed_forms.sharpest_data_direction(sigma, M, 3)
    >>> bound = 6 * (y @ sigma @ y) ** (1 / 3) * np.linalg.norm(M @ np.sqrt(sigma) @ y) ** (4 / 3)
    >>> bool(np.isclose(bound, bf.closed_forms.minimal_sharpness(sigma, M, 3), rtol=1e-12))
    True
    """
    data = regression_data(covariance, M)
    L = as_depth(depth)
    return data.vectors @ best_scale(data, L)[2] if data.size else data.vectors[:, -1]


def flattest_regression_layers(
    covariance: ArrayLike, M: ArrayLike | None = None, widths: Sequence[int] | None = None, *, w: ArrayLike | None = None
) -> list[np.ndarray]:
    r"""Weights of least sharpness for a regression: they attain `minimal_sharpness`.

    With :math:`M = U\Lambda V^\top`, they are :math:`W_1 = s^{-1/2}\Lambda V^\top`, :math:`W_k = s^{1/(2(L-1))}I` and
    :math:`W_L = s^{1/(2(L-1))}U`, with zeros to fill the widths and `s` the minimiser of the problem in `minimal_sharpness`.

    Parameters
    ----------
    covariance : array_like, shape (d, d)
        :math:`\hat\Sigma`, symmetric positive semidefinite, of any rank.
    M : array_like, shape (d,) or (outputs, d)
        A minimiser of the risk over all matrices.
    widths : sequence of int
        ``[d, d_1, ..., d_{L-1}, outputs]``, with hidden widths of at least the rank of ``M @ covariance``.
    w : array_like, shape (d,), optional
        In place of `M`, for one output.

    Returns
    -------
    list of numpy.ndarray
        ``[W_1, ..., W_L]`` with product `M`. Where a hidden width is below the rank of `M`, the product is `M` projected on the
        range of the covariance, which predicts the same. All are zero if ``M @ covariance`` is zero: zero weights
        have the same risk, and no curvature.

    Raises
    ------
    ValueError
        If the covariance is not a symmetric positive semidefinite matrix, `M` or `widths` do not fit it, a hidden width is
        below the rank of ``M @ covariance``, where no network solves the regression, or not exactly one of `M` and `w` is
        given.

    See Also
    --------
    minimal_sharpness : The sharpness that they attain.
    rank_one_limit : Layers that training from a small start finds.

    References
    ----------
    Chapter :doc:`/theory/several_outputs`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> W1, W2 = bf.closed_forms.flattest_regression_layers(np.eye(2), [0.0, 4.0], [2, 3, 1])
    >>> print(W2 @ W1)
    [[0. 4.]]
    """
    data = regression_data(covariance, M, w=w)
    matrix = one_of(M, w, data.values.size)
    sizes = as_widths(widths, matrix.shape)  # type: ignore[arg-type]
    L = len(sizes) - 1
    if data.size == 0:
        return [np.zeros(shape) for shape in zip(sizes[1:], sizes, strict=False)]
    unit, narrowest = matrix / data.size, min(sizes[1:-1])
    U = _range(unit)
    if U.shape[1] > narrowest:
        unit = (data.coefficients * (data.values > 0)) @ data.vectors.T
        U = _range(unit)
    if U.shape[1] > narrowest:
        raise ValueError(
            f"widths is {sizes}; expected hidden widths of at least {U.shape[1]}, the rank of M on the data: "
            "no narrower network solves the regression"
        )
    _, s, _ = best_scale(data, L)
    root, rank = data.size ** (1 / L), U.shape[1]
    layers = [root / np.sqrt(s) * (U.T @ unit), *[root * s ** (1 / (2 * (L - 1))) * np.eye(rank)] * (L - 2)]
    layers.append(root * s ** (1 / (2 * (L - 1))) * U)
    return padded(layers, sizes)


def balanced_sharpness(
    covariance: ArrayLike, M: ArrayLike | None = None, depth: int | None = None, *, w: ArrayLike | None = None
) -> float:
    r"""The sharpness of balanced weights that solve a regression, exactly.

    Weights are balanced if :math:`W_{k+1}^\top W_{k+1} = W_kW_k^\top`. Gradient flow from weights near zero ends close to such
    weights, and weight decay leads to them. All balanced weights with the product `M`, whose singular values are
    :math:`\sigma_1\ge\sigma_2\ge\dots`, have the sharpness

    .. math:: 2\,\lambda_{\max}\Bigl(\hat\Sigma^{1/2}\sum_{j=1}^L\sigma_1^{2(L-j)/L}(M^\top M)^{(j-1)/L}\,
              \hat\Sigma^{1/2}\Bigr).

    Parameters
    ----------
    covariance : array_like, shape (d, d)
        :math:`\hat\Sigma`, symmetric positive semidefinite, of any rank.
    M : array_like, shape (d,) or (outputs, d)
        A minimiser of the risk over all matrices: the product of the weights.
    depth : int
        The number of layers `L`, at least 2.
    w : array_like, shape (d,), optional
        In place of `M`, for one output.

    Returns
    -------
    float
        In the units of `minimal_sharpness`; zero for a zero `M`.

    Raises
    ------
    ValueError
        If the covariance is not a symmetric positive semidefinite matrix, `M` does not fit it, `depth` is below 2, or not
        exactly one of `M` and `w` is given.

    See Also
    --------
    minimal_sharpness : The least sharpness of all weights with this product.
    schatten_layers : Balanced weights.

    Notes
    -----
    The ratio to `minimal_sharpness` tells how much sharper than necessary gradient flow from a small start ends. If the
    covariance is definite or `M` is the minimiser of least norm, the ratio is at most ``condition``, the quotient of the
    largest and the least positive eigenvalue of the covariance, and for one output at most ``(condition + L - 1) / L``.

    References
    ----------
    Chapter :doc:`/theory/several_outputs`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> sigma, M = np.diag([4.0, 1.0]), np.array([[0.6, 0.8], [1.0, -2.0]])
    >>> ratio = bf.closed_forms.balanced_sharpness(sigma, M, 3) / bf.closed_forms.minimal_sharpness(sigma, M, 3)
    >>> 1 <= ratio <= 4
    True
    """
    data = regression_data(covariance, M, w=w)
    L = as_depth(depth)  # type: ignore[arg-type]
    matrix = one_of(M, w, data.values.size)
    size = np.linalg.norm(matrix / (largest := np.abs(matrix).max() or 1.0), 2)
    if size == 0:
        return 0.0
    _, sigma, Vt = np.linalg.svd(matrix / largest / size)
    cosines = np.zeros(data.values.size)
    cosines[: sigma.size] = np.minimum(sigma, 1.0)
    # The sum over j, whose first term is 1 for the zero singular values too.
    weights = 1 + sum((cosines ** (2 * j / L) for j in range(1, L)), np.zeros_like(cosines))
    factor = np.sqrt(weights)[:, None] * (Vt @ data.vectors) * np.sqrt(data.values)
    top = float(np.linalg.norm(factor, 2)) ** 2
    return scaled_product(2.0, data.scale, top, *[power(largest, 1 - 1 / L)] * 2, power(float(size), 2 - 2 / L))


def sharpness_bounds(covariance: ArrayLike, w: ArrayLike, depth: int) -> tuple[float, float]:
    r"""The lower and upper bound of Marion and Chizat on the least sharpness of a regression with one output.

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
        In the units of `minimal_sharpness`; both zero if ``covariance @ w`` is zero.

    Raises
    ------
    ValueError
        If the covariance is not a symmetric positive semidefinite matrix, `w` does not fit it or `depth` is below 2.

    See Also
    --------
    minimal_sharpness : The exact value between them.

    References
    ----------
    Marion, Chizat 2024, Theorem 2.

    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> print(bf.closed_forms.sharpness_bounds(np.eye(2), [1.0, 0.0], depth=2))
    (4.0, 4.0)
    """
    data = regression_data(covariance, w=w)
    L = as_depth(depth)
    if data.size == 0:
        return 0.0, 0.0
    values = data.values
    a = float(values @ data.coefficients[0] ** 2)
    unit = 2 * data.scale * power(data.size, 2 - 2 / L)
    return unit * L * a, unit * float(np.sqrt((2 * L - 1) * values.max() ** 2 + (L - 1) ** 2 * a**2))


def power(base: float, exponent: float) -> float:
    """The power, infinite where it overflows."""
    with np.errstate(over="ignore"):
        return float(np.power(base, exponent))


def padded(layers: Sequence[np.ndarray], widths: Sequence[int]) -> list[np.ndarray]:
    """The layers with rows and columns of zeros up to the widths."""
    grown = [np.zeros(shape) for shape in zip(widths[1:], widths, strict=False)]
    for large, layer in zip(grown, layers, strict=True):
        large[: layer.shape[0], : layer.shape[1]] = layer
    return grown


def _range(unit: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the columns of a matrix of ordinary size."""
    U, sigma, _ = np.linalg.svd(unit, full_matrices=False)
    return U[:, sigma > max(unit.shape) * EPS * sigma[0]]
