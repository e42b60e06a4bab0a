"""Starting points of training: Gaussian, residual and balanced layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import magnitude
from balancedfact._validate import as_array, as_count, as_depth, as_rng, as_widths, check_room


def gaussian_layers(widths: Sequence[int], scale: ArrayLike, rng: int | np.random.Generator | None = None) -> list[np.ndarray]:
    r"""Layers with independent Gaussian entries of a given standard deviation.

    Parameters
    ----------
    widths : sequence of int
        ``[d_0, ..., d_L]``.
    scale : float or array_like
        The standard deviation. An array gives one network per entry, with the shape of the array as leading axes.
    rng : int or numpy.random.Generator, optional
        Seed or generator.

    Returns
    -------
    list of numpy.ndarray
        ``[W_1, ..., W_L]``, `W_k` of shape ``(..., d_k, d_{k-1})``.

    Raises
    ------
    ValueError
        If `widths` are not at least two positive integers, or `scale` is negative or not finite.

    See Also
    --------
    residual_layers : A start near the identity.
    balanced_layers : A balanced start.

    References
    ----------
    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> [W.shape for W in bf.dynamics.gaussian_layers([5, 4, 1], 0.1, rng=0)]
    [(4, 5), (1, 4)]
    >>> [W.shape for W in bf.dynamics.gaussian_layers([5, 4, 1], [0.1, 0.2, 0.3], rng=0)]
    [(3, 4, 5), (3, 1, 4)]
    """
    sizes, size = as_widths(widths, least=2), _as_scale(scale)
    generator = as_rng(rng)
    check_room("widths", *size.shape[:-2], sum(rows * cols for rows, cols in _shapes(sizes)))
    return [size * generator.standard_normal((*size.shape[:-2], *shape)) for shape in _shapes(sizes)]


def residual_layers(width: int, depth: int, scale: ArrayLike, rng: int | np.random.Generator | None = None) -> list[np.ndarray]:
    r"""Square layers near the identity, :math:`W_k = I + \frac{s}{\sqrt{Ld}}N_k` with independent standard Gaussian entries.

    Parameters
    ----------
    width : int
        The width `d` of every layer.
    depth : int
        The number of layers `L`.
    scale : float or array_like
        The scale `s`. An array gives one network per entry, with the shape of the array as leading axes.
    rng : int or numpy.random.Generator, optional
        Seed or generator.

    Returns
    -------
    list of numpy.ndarray
        ``[W_1, ..., W_L]``, each of shape ``(..., width, width)``.

    Raises
    ------
    ValueError
        If `width` or `depth` is not a positive integer, or `scale` is negative or not finite.

    See Also
    --------
    gaussian_layers : A Gaussian start.
    regression_descent : Training of such networks, with a readout.

    References
    ----------
    Marion, Chizat 2024, equation (2).

    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> print(bf.dynamics.residual_layers(2, 3, 0.0)[0])
    [[1. 0.]
     [0. 1.]]
    """
    d, L, size = as_count(width, "width"), as_depth(depth, least=1), _as_scale(scale)
    check_room("width", L, *size.shape[:-2], d, d)
    generator = as_rng(rng)
    spread = size / np.sqrt(L * d)
    return [np.eye(d) + spread * generator.standard_normal((*size.shape[:-2], d, d)) for _ in range(L)]


def balanced_layers(M: ArrayLike, widths: Sequence[int], rng: int | np.random.Generator | None = None) -> list[np.ndarray]:
    r"""Layers with a given product that are balanced: :math:`W_{k+1}^\top W_{k+1} = W_kW_k^\top`.

    From :math:`M = U\Lambda V^\top`, :math:`W_1 = Q_1\Lambda^{1/L}V^\top`, :math:`W_k = Q_k\Lambda^{1/L}Q_{k-1}^\top` and
    :math:`W_L = U\Lambda^{1/L}Q_{L-1}^\top`.

    Parameters
    ----------
    M : array_like, shape (d_L, d_0)
        The product.
    widths : sequence of int
        ``[d_0, ..., d_L]``, with hidden widths of at least the numerical rank of `M`.
    rng : int or numpy.random.Generator, optional
        Draws the orthonormal columns of the matrices :math:`Q_k`; without it these are the first unit vectors.

    Returns
    -------
    list of numpy.ndarray
        ``[W_1, ..., W_L]``.

    Raises
    ------
    ValueError
        If `M` is not a finite real matrix, or `widths` do not fit its shape and rank.

    See Also
    --------
    gaussian_layers : A start that is not balanced.
    balanced_flow : The flow from such a start.
    balancedfact.manifolds.BalancedLayers : The manifold of all balanced layers.

    References
    ----------
    Chapter :doc:`/theory/deep_manifolds`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> W1, W2, W3 = bf.dynamics.balanced_layers(np.diag([8.0, 1.0]), [2, 3, 3, 2], rng=0)
    >>> bool(np.allclose(W3 @ W2 @ W1, np.diag([8.0, 1.0]))), bool(np.allclose(W2.T @ W2, W1 @ W1.T))
    (True, True)
    """
    matrix, sizes = as_array(M, "M", ndim=2), as_widths(widths, least=2)
    if (sizes[-1], sizes[0]) != matrix.shape:
        raise ValueError(f"widths goes from {sizes[0]} to {sizes[-1]}; expected {matrix.shape[1]} to {matrix.shape[0]}")
    size = magnitude(matrix)
    U, s, Vt = np.linalg.svd(matrix / size, full_matrices=False)
    keep = s > max(matrix.shape) * np.finfo(float).eps * s[0]
    rank, L = int(np.count_nonzero(keep)), len(sizes) - 1
    if min(sizes) < rank:
        raise ValueError(f"widths has the least entry {min(sizes)}; expected at least {rank}, the numerical rank of M")
    root = (s[keep] ** (1 / L)) * size ** (1 / L)
    generator = None if rng is None else as_rng(rng)
    frames = [Vt[keep].T, *(_frame(width, rank, generator) for width in sizes[1:-1]), U[:, keep]]
    return [(above * root) @ below.T for below, above in itertools.pairwise(frames)]


def _shapes(sizes: list[int]) -> list[tuple[int, int]]:
    return list(zip(sizes[1:], sizes, strict=False))


def _as_scale(scale: ArrayLike) -> np.ndarray:
    array = as_array(scale, "scale")
    if array.min() < 0:
        raise ValueError(f"scale is {array.min()}; expected at least 0")
    return array[..., None, None]


def _frame(width: int, rank: int, generator: np.random.Generator | None) -> np.ndarray:
    if generator is None:
        return np.eye(width, rank)
    return np.linalg.qr(generator.standard_normal((width, rank)))[0]
