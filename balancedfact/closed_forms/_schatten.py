r"""Weight decay on deep linear networks: the Schatten quasi-norm that it minimises, and what it does to an observed matrix.

Over all layers that multiply to `M`, hidden widths of at least its rank,

.. math:: \min_{W_L\cdots W_1 = M}\ \sum_j\|W_j\|_F^2 = L\,\|M\|_{S_{2/L}}^{2/L} = L\sum_i\sigma_i(M)^{2/L},

the nuclear norm for two layers, and no norm, nor convex, beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import EPS, magnitude, scaled_product
from balancedfact._shrinkage import shrunk, thresholds
from balancedfact._validate import as_array, as_depth, as_number, as_widths
from balancedfact.closed_forms._minimal_sharpness import padded


class SingularValues(NamedTuple):
    """The singular value decomposition of ``size * U @ diag(sigma) @ Vt`` without what rounding cannot tell from zero."""

    U: np.ndarray
    sigma: np.ndarray
    Vt: np.ndarray
    size: float


def singular_values(M: np.ndarray) -> SingularValues:
    """Singular values up to ``max(shape) * eps`` times the largest count as zero."""
    size = magnitude(M)
    U, sigma, Vt = np.linalg.svd(M / size, full_matrices=False)
    keep = sigma > max(M.shape) * EPS * sigma[0]
    return SingularValues(U[:, keep], sigma[keep], Vt[keep], size)


def schatten_value(M: ArrayLike, depth: int) -> float:
    r"""The least sum of squared weights of a deep linear network with a given product: :math:`L\|M\|_{S_{2/L}}^{2/L}`.

    Parameters
    ----------
    M : array_like, shape (d1, d2)
        The product of the layers. Singular values up to ``max(shape) * eps`` times the largest count as zero.
    depth : int
        The number of layers `L`, at least 2.

    Returns
    -------
    float
        :math:`L\sum_i\sigma_i^{2/L}`; for two layers twice the nuclear norm.

    Raises
    ------
    ValueError
        If `M` is not a finite real matrix, or `depth` is below 2.

    See Also
    --------
    schatten_layers : Layers that attain it.
    balancedfact.norm_minimum : The least value over the networks that fit data.

    References
    ----------
    Shang, Liu, Cheng, "Scalable algorithms for tractable Schatten quasi-norm minimization", 2016, for the identity.

    Chapter :doc:`/theory/weight_decay`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> print(round(bf.closed_forms.schatten_value(np.diag([8.0, 1.0]), depth=6), 12))
    18.0
    """
    L = as_depth(depth)
    found = singular_values(as_array(M, "M", ndim=2))
    return scaled_product(float(L), float(np.sum(found.sigma ** (2 / L))), found.size ** (1 / L), found.size ** (1 / L))


def schatten_layers(M: ArrayLike, widths: Sequence[int]) -> list[np.ndarray]:
    r"""The layers of least sum of squares with a given product: balanced ones.

    With :math:`M = U\Sigma V^\top`, they are :math:`W_1 = \Sigma^{1/L}V^\top`, :math:`W_k = \Sigma^{1/L}`,
    :math:`W_L = U\Sigma^{1/L}`, with zeros to fill the widths. All other layers that attain it come from these by rotations of
    the hidden spaces.

    Parameters
    ----------
    M : array_like, shape (d1, d2)
        The product of the layers. Singular values up to ``max(shape) * eps`` times the largest count as zero.
    widths : sequence of int
        ``[d2, d_1, ..., d_{L-1}, d1]``, with hidden widths of at least the rank of `M`.

    Returns
    -------
    list of numpy.ndarray
        ``[W_1, ..., W_L]`` with ``W_{k+1}.T @ W_{k+1} == W_k @ W_k.T`` and ``sum(norm(W)**2) == schatten_value(M, L)``.

    Raises
    ------
    ValueError
        If `M` is not a finite real matrix, `widths` do not fit its shape, or a hidden width is below its rank.

    See Also
    --------
    schatten_value : The value that they attain.
    balanced_pair : The same for two layers.

    References
    ----------
    Chapter :doc:`/theory/weight_decay`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> layers = bf.closed_forms.schatten_layers(np.diag([8.0, 1.0]), [2, 3, 2, 2])
    >>> print(round(sum(np.sum(W**2) for W in layers), 12))
    15.0
    """
    matrix = as_array(M, "M", ndim=2)
    sizes = as_widths(widths, matrix.shape)
    U, sigma, Vt, size = singular_values(matrix)
    if min(sizes[1:-1]) < sigma.size:
        raise ValueError(f"widths is {sizes}; expected hidden widths of at least {sigma.size}, the rank of M")
    L = len(sizes) - 1
    share = size ** (1 / L) * sigma ** (1 / L)
    return padded([share[:, None] * Vt, *[np.diag(share)] * (L - 2), U * share], sizes)


def schatten_shrinkage(Y: ArrayLike, penalty: float, depth: int) -> np.ndarray:
    r"""The product of the layers of the best deep linear network with weight decay for a fully observed matrix.

    The global minimiser of

    .. math:: \tfrac12\|E - Y\|_F^2 + \tfrac{\lambda}2\min_{W_L\cdots W_1 = E}\sum_j\|W_j\|_F^2
              = \tfrac12\|E - Y\|_F^2 + \tfrac{\lambda L}2\sum_i\sigma_i(E)^{2/L}

    has the singular vectors of `Y`. Each singular value `y` becomes the larger root `x` of
    :math:`x + \lambda x^{2/L-1} = y`, or zero if `y` is not above the `collapse_threshold`, where it jumps. For two layers this
    is soft thresholding, :math:`\max(y-\lambda, 0)`.

    Parameters
    ----------
    Y : array_like, shape (d1, d2)
        The observed matrix.
    penalty : float
        The weight decay :math:`\lambda\ge0`.
    depth : int
        The number of layers `L`, at least 2.

    Returns
    -------
    numpy.ndarray, shape (d1, d2)
        The minimiser; at a singular value exactly at the threshold, where both are minimisers, the one of lower rank.

    Raises
    ------
    ValueError
        If `Y` is not a finite real matrix, `penalty` is negative, or `depth` is below 2.

    See Also
    --------
    collapse_threshold : Where singular values jump to zero.

    References
    ----------
    The collapse of deep linear networks under weight decay: arXiv 2603.27072, arXiv 2506.20344.

    Chapter :doc:`/theory/weight_decay`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> print(bf.closed_forms.schatten_shrinkage(np.diag([3.0, 1.0]), 0.5, depth=2))
    [[2.5 0. ]
     [0.  0.5]]
    >>> print(bf.closed_forms.schatten_shrinkage(np.diag([3.0, 1.0]), 0.5, depth=4).round(6))
    [[2.695453 0.      ]
     [0.       0.      ]]
    """
    matrix = as_array(Y, "Y", ndim=2)
    weight, L = as_number(penalty, "penalty", least=0.0), as_depth(depth)
    U, sigma, Vt, size = singular_values(matrix)
    # In units of the size: x = size * t has t + (weight * size**(2/L - 2)) * t**(2/L - 1) = y / size.
    return size * (U * shrunk(sigma, weight * size ** (2 / L - 2), L)) @ Vt


def collapse_threshold(penalty: float, depth: int) -> tuple[float, float]:
    r"""The singular values up to which weight decay makes a deep linear network collapse to zero, globally and locally.

    For :math:`\tfrac12(x-y)^2 + \tfrac{\lambda L}2x^{2/L}` (see `schatten_shrinkage`), the global minimiser is zero exactly for
    `y` up to

    .. math:: y^* = \tfrac{L-1}{L-2}\,\bigl(\lambda(L-2)\bigr)^{L/(2L-2)},

    where it jumps to :math:`x^* = \tfrac{L-2}{L-1}y^*`, and a second local minimum exists exactly above

    .. math:: y_c = \tfrac{2L-2}{L-2}\,\bigl(\lambda\tfrac{L-2}L\bigr)^{L/(2L-2)} .

    For two layers both are :math:`\lambda`, and nothing jumps.

    Parameters
    ----------
    penalty : float
        The weight decay :math:`\lambda\ge0`.
    depth : int
        The number of layers `L`, at least 2.

    Returns
    -------
    threshold : float
        :math:`y^*`.
    local : float
        :math:`y_c\le y^*`. Between the two, gradient flow stays at a nonzero local minimum once it is there, although zero is
        better.

    Raises
    ------
    ValueError
        If `penalty` is negative or `depth` is below 2.

    See Also
    --------
    schatten_shrinkage : The shrinkage that jumps there.

    References
    ----------
    Chapter :doc:`/theory/weight_decay`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> bf.closed_forms.collapse_threshold(0.5, depth=4)
    (1.5, 1.1905507889761497)
    """
    weight, L = as_number(penalty, "penalty", least=0.0), as_depth(depth)
    return thresholds(weight, L)
