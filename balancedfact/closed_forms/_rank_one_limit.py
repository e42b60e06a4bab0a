"""The end of gradient flow from a vanishing start in univariate regression, and the sharpness of that minimiser."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import frobenius
from balancedfact._validate import as_array, as_widths
from balancedfact.closed_forms._minimal_sharpness import balanced_sharpness, padded


def rank_one_limit(w: ArrayLike, widths: Sequence[int]) -> list[np.ndarray]:
    r"""The limit of gradient flow from a vanishing start in a regression with one output, up to rotations of hidden spaces.

    All layers have rank one and equal norm, and consecutive layers are aligned:

    .. math:: W_k = c\,u_kv_k^\top, \qquad c = \|w\|^{1/L}, \qquad u_k = v_{k+1}, \quad v_1 = w/\|w\|.

    The hidden directions depend on the start; here each is the first unit vector.

    Parameters
    ----------
    w : array_like, shape (d,)
        The minimiser of the risk of least norm.
    widths : sequence of int
        ``[d, d_1, ..., d_{L-1}, 1]``, any hidden widths.

    Returns
    -------
    list of numpy.ndarray
        ``[W_1, ..., W_L]`` with ``W_L @ ... @ W_1 == w[None, :]``, all zero for a zero `w`.

    Raises
    ------
    ValueError
        If `w` is not a finite real vector or `widths` do not fit it.

    See Also
    --------
    rank_one_limit_sharpness : Their sharpness.
    flattest_regression_layers : The flattest layers in comparison.

    References
    ----------
    Marion, Chizat 2024, Theorem 3 and Corollary 1.

    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> layers = bf.closed_forms.rank_one_limit([0.0, 8.0], [2, 2, 2, 1])
    >>> print(layers[0])
    [[0. 2.]
     [0. 0.]]
    """
    vector = as_array(w, "w", ndim=1)
    sizes = as_widths(widths, (1, vector.size))
    size = frobenius(vector)
    c = size ** (1 / (len(sizes) - 1))
    first = c * vector[None] / (size or 1.0)
    return padded([first, *[np.full((1, 1), c)] * (len(sizes) - 2)], sizes)


def rank_one_limit_sharpness(covariance: ArrayLike, w: ArrayLike, depth: int) -> float:
    r"""The sharpness of `rank_one_limit`, the end of gradient flow from a vanishing start in a regression with one output.

    .. math:: 2\|w\|^{2-2/L}\,\lambda_{\max}\bigl(\hat\Sigma + (L-1)\hat\Sigma^{1/2}\hat w\hat w^\top\hat\Sigma^{1/2}\bigr),
              \qquad \hat w = w/\|w\|.

    Parameters
    ----------
    covariance : array_like, shape (d, d)
        :math:`\hat\Sigma`, symmetric positive semidefinite, of any rank.
    w : array_like, shape (d,)
        The minimiser of the risk of least norm.
    depth : int
        The number of layers `L`, at least 2.

    Returns
    -------
    float
        In the units of `minimal_sharpness`; zero for a zero `w`.

    Raises
    ------
    ValueError
        If the covariance is not a symmetric positive semidefinite matrix, `w` does not fit it or `depth` is below 2.

    See Also
    --------
    rank_one_limit : The layers.
    minimal_sharpness : The least sharpness in comparison.

    Notes
    -----
    Marion and Chizat bound its ratio to `minimal_sharpness` by four times the condition number of the covariance
    (Corollary 2). Here both numbers are exact, and so is their ratio.

    References
    ----------
    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> print(bf.closed_forms.rank_one_limit_sharpness(np.eye(2), [0.0, 1.0], depth=7))
    14.0
    """
    return balanced_sharpness(covariance, w=w, depth=depth)
