"""Deep factorizations whose curvature separates into a left and a right norm: the isotropic and the Kronecker case."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import frobenius, magnitude, scaled_product
from balancedfact._spectrum import RANK_CUT, numerical_rank
from balancedfact._validate import as_array, as_depth, as_widths
from balancedfact.closed_forms._pairs import compact_svd, weighted_pair

# What a part of the matrix that costs nothing on one side is multiplied by on the other. Its cost there is 1e-8 of what it
# would be, about as much as the large entries on the free side cost in rounding errors when curvature is a quadratic form.
_VANISHING_ROOT = 2.0**-13


def min_isotropic_trace(M: ArrayLike, depth: int) -> float:
    r"""The least value of the isotropic surrogate `R(W)` over all factorizations of a matrix.

    .. math:: \min_{W_L\cdots W_1 = M} \sum_{j=1}^L \|W_L\cdots W_{j+1}\|_F^2\,\|W_{j-1}\cdots W_1\|_F^2
              = L\,(d_0d_L)^{1/L}\,\|M\|_*^{2-2/L}.

    It does not depend on the hidden widths as long as none is below the rank of `M`. `min_isotropic_layers` attains it. For
    isotropic measurements, :math:`\sum_i \operatorname{vec}A_i\operatorname{vec}A_i^\top = m I`, the least trace of the
    Hessian is exactly twice this number.

    Parameters
    ----------
    M : array_like, shape (d_L, d_0)
        The end-to-end matrix.
    depth : int
        The number of layers `L`, at least 2.

    Returns
    -------
    float
        In the units of `balancedfact.curvature.isotropic_trace`; 0 for a zero matrix.

    Raises
    ------
    ValueError
        If `M` is not a finite real matrix or `depth` is not an integer of at least 2.

    See Also
    --------
    min_isotropic_layers : Layers that attain it.
    balancedfact.curvature.isotropic_trace : The trace of given layers.

    References
    ----------
    Gatmiry et al. 2023, Lemma 4.

    Chapter :doc:`/theory/deep_closed_forms`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> bf.closed_forms.min_isotropic_trace(np.ones((4, 1)), 3)  # 3 * 4**(1/3) * 2**(4/3)
    12.0
    """
    matrix, depth = as_array(M, "M", ndim=2), as_depth(depth)
    _, s, _, size = compact_svd(matrix)
    return _least_value(float(s.sum()), *np.sqrt(matrix.shape), depth, size)


def min_isotropic_layers(M: ArrayLike, widths: list[int]) -> list[np.ndarray]:
    r"""A factorization of a matrix with the least isotropic surrogate `R(W)`.

    With the singular value decomposition :math:`M = U\Lambda V^\top` of rank `r`,

    .. math:: W_1 = \tfrac1{\alpha'}\alpha^{1-L/2}\,Q_1\Lambda^{1/2}V^\top, \qquad W_j = \alpha\,Q_jQ_{j-1}^\top, \qquad
              W_L = \alpha'\alpha^{1-L/2}\,U\Lambda^{1/2}Q_{L-1}^\top,

    .. math:: \alpha = \Bigl(\frac{\|M\|_*}{\sqrt{d_0d_L}}\Bigr)^{1/L}, \qquad \alpha' = (d_L/d_0)^{1/4},

    where the columns of :math:`Q_j` are the first `r` unit vectors of dimension :math:`d_j` (any orthonormal ones would do):
    wider layers are padded with zeros.

    Parameters
    ----------
    M : array_like, shape (d_L, d_0)
        The end-to-end matrix.
    widths : list of int
        ``[d_0, d_1, ..., d_L]``, ``L >= 2``, which starts and ends with the sizes of `M`; none below its rank.

    Returns
    -------
    list of numpy.ndarray
        ``[W_1, ..., W_L]``, ``W_j`` of shape ``(d_j, d_{j-1})``. Zeros if `M` is zero.

    Raises
    ------
    ValueError
        If `M` is not a finite real matrix, the widths do not fit its shape, or one of them is below its numerical rank: the
        number of singular values above ``1e-6`` of the largest.

    See Also
    --------
    min_isotropic_trace : The value that they attain.
    kronecker_layers : Measurements with a separated moment.

    Notes
    -----
    All singular values above rounding error are kept where the widths leave room for them. In a narrower factorization, as
    many as fit; what is dropped is then below ``1e-6`` of the largest.

    Gatmiry et al. print :math:`\alpha = (\|M\|_*/(d_0d_L))^{1/L}` and :math:`\alpha' = (d_L/d_0)^{1/2}`, with which the layers
    multiply to `M` but miss the minimum.

    References
    ----------
    Gatmiry et al. 2023, Lemma 4, with the constants corrected.

    Chapter :doc:`/theory/deep_closed_forms`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> M = np.outer([1.0, 2.0], [1.0, -1.0, 1.0])
    >>> layers = bf.closed_forms.min_isotropic_layers(M, [3, 1, 4, 2])
    >>> [layer.shape for layer in layers], bool(np.allclose(np.linalg.multi_dot(layers[::-1]), M))
    ([(1, 3), (4, 1), (2, 4)], True)
    >>> bool(np.isclose(bf.curvature.isotropic_trace(layers), bf.closed_forms.min_isotropic_trace(M, 3)))
    True
    """
    matrix = as_array(M, "M", ndim=2)
    widths = as_widths(widths, matrix.shape)
    U, s, V, size = _narrowed_svd(matrix, widths)
    root = np.sqrt(s)
    x, y = np.sqrt(matrix.shape)
    return _chain(U * root, V * root, float(s.sum()), x, y, size, widths)


def kronecker_minimum(M: ArrayLike, X: ArrayLike, Y: ArrayLike, depth: int) -> float:
    r"""The least curvature of a factorization under measurements with a Kronecker-structured second moment.

    .. math:: \inf_{W_L\cdots W_1 = M} \sum_{j=1}^L \|X\,W_L\cdots W_{j+1}\|_F^2\,\|W_{j-1}\cdots W_1\,Y\|_F^2
              = L\,(\|X\|_F\|Y\|_F)^{2/L}\,\|XMY\|_*^{2-2/L}.

    Measurements :math:`A_i = x_iy_i^\top`, or any others, with

    .. math:: \sum_i (x_ix_i^\top)\otimes(y_iy_i^\top) = \sum_i\operatorname{vec}A_i\operatorname{vec}A_i^\top
              = (X^\top X)\otimes(YY^\top)

    with `vec` taken row by row, have a trace of the Hessian that is ``2 / m`` times this sum, so the least trace of the Hessian
    is ``2 / m`` times the value returned. With ``X = I`` and ``Y = I`` the value is `min_isotropic_trace`. See
    `kronecker_layers` for which side is which.

    Parameters
    ----------
    M : array_like, shape (d_L, d_0)
        The end-to-end matrix.
    X : array_like, shape (p, d_L)
        Acts on the rows of `M`, its output side. Only ``X.T @ X`` matters; it may be singular.
    Y : array_like, shape (d_0, q)
        Acts on the columns of `M`, its input side. Only ``Y @ Y.T`` matters; it may be singular.
    depth : int
        The number of layers `L`, at least 2.

    Returns
    -------
    float
        The infimum; 0 if ``X @ M @ Y`` is zero.

    Raises
    ------
    ValueError
        If an array is not a finite real matrix, the shapes do not fit or `depth` is not an integer of at least 2.

    See Also
    --------
    kronecker_layers : Layers that attain it.
    balancedfact.induced_regularizer : Measurements of any kind.

    References
    ----------
    Wind 2022, which assumes `X` and `Y` square and invertible.

    Chapter :doc:`/theory/deep_closed_forms`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> rng = np.random.default_rng(0)
    >>> X, M, Y = rng.standard_normal((6, 3)), rng.standard_normal((3, 2)), rng.standard_normal((2, 5))
    >>> A = bf.measurements.RankOne(np.repeat(X, 5, axis=0), np.tile(Y.T, (6, 1)))  # every row of X with every column of Y
    >>> layers = bf.closed_forms.kronecker_layers(M, X, Y, [2, 2, 2, 3])
    >>> value = 2 / A.m * bf.closed_forms.kronecker_minimum(M, X, Y, 3)
    >>> bool(np.isclose(bf.curvature.trace(layers, A), value))
    True
    """
    matrix, left, right, x, y = _kronecker_input(M, X, Y)
    depth = as_depth(depth)
    U, s, V, size = compact_svd(matrix)
    nuclear = np.linalg.svd((left @ U * s) @ (right @ V).T, compute_uv=False).sum()
    return _least_value(float(nuclear), frobenius(left), frobenius(right), depth, size, x, y)


def kronecker_layers(M: ArrayLike, X: ArrayLike, Y: ArrayLike, widths: list[int]) -> list[np.ndarray]:
    r"""A factorization with the value of `kronecker_minimum`, or with one close to it where none attains it.

    With :math:`XMY = U\Sigma V^\top` of rank `r` and invertible `X` and `Y`,

    .. math:: W_1 = \gamma\,Q_1\Sigma^{1/2}V^\top Y^{-1}, \qquad W_j = \beta\,Q_jQ_{j-1}^\top, \qquad
              W_L = \alpha\,X^{-1}U\Sigma^{1/2}Q_{L-1}^\top,

    .. math:: \beta = \Bigl(\frac{\|XMY\|_*}{\|X\|_F\|Y\|_F}\Bigr)^{1/L}, \qquad
              \alpha = \Bigl(\frac{\|X\|_F}{\|Y\|_F}\Bigr)^{1/2}\beta^{1-L/2}, \qquad
              \gamma = \Bigl(\frac{\|Y\|_F}{\|X\|_F}\Bigr)^{1/2}\beta^{1-L/2},

    where the columns of :math:`Q_j` are the first `r` unit vectors: wider layers are padded with zeros. No inverse is formed.

    Parameters
    ----------
    M : array_like, shape (d_L, d_0)
        The end-to-end matrix.
    X : array_like, shape (p, d_L)
        Acts on the rows of `M`, its output side: ``X.T @ X`` is the second moment of the left vectors.
    Y : array_like, shape (d_0, q)
        Acts on the columns of `M`, its input side: ``Y @ Y.T`` is the second moment of the right vectors.
    widths : list of int
        ``[d_0, d_1, ..., d_L]``, ``L >= 2``, which starts and ends with the sizes of `M`; none below its rank.

    Returns
    -------
    list of numpy.ndarray
        ``[W_1, ..., W_L]``, ``W_j`` of shape ``(d_j, d_{j-1})``. Zeros if `M` is zero.

    Raises
    ------
    ValueError
        If an array is not a finite real matrix, the shapes do not fit, or a width is below the numerical rank of `M`, as for
        `min_isotropic_layers`.

    See Also
    --------
    kronecker_minimum : The value that they attain.
    min_isotropic_layers : The isotropic case.

    Notes
    -----
    **Orientation.** The source writes :math:`\tilde W = W_1W_2\cdots W_L` and measures :math:`x_i^\top\tilde Wy_i`. Here the
    product is :math:`W_L\cdots W_1`. It is the same matrix ``M``, with the same `X` on its left and `Y` on its right: only the
    numbering of the layers is reversed, so ``kronecker_layers(M, X, Y, widths)[::-1]`` is the source's list. A network that is
    the transpose of this one has ``M.T``, ``Y.T``, ``X.T`` and ``widths[::-1]`` in place of ``M``, ``X``, ``Y``, ``widths``.

    **Singular X or Y.** The layers always multiply to `M`. The infimum is attained unless some part of `M` is visible to one
    of `X` and `Y` only. The cost of that part tends to zero as its weight moves to the side that is not seen, so no minimiser
    exists. The weight is then moved by a factor ``2**13`` each way: the cost of such a part is ``2**-26``, about ``1e-8``, of
    what it would be if its weight were shared equally.

    References
    ----------
    Wind 2022.

    Chapter :doc:`/theory/deep_closed_forms`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> M, X, Y = np.diag([1.0, 2.0]), np.diag([1.0, 3.0]), np.diag([2.0, 1.0])
    >>> layers = bf.closed_forms.kronecker_layers(M, X, Y, [2, 4, 3, 2])
    >>> bool(np.allclose(np.linalg.multi_dot(layers[::-1]), M))
    True
    """
    matrix, left, right, _, _ = _kronecker_input(M, X, Y)
    widths = as_widths(widths, matrix.shape)
    U, s, V, size = _narrowed_svd(matrix, widths)
    L, R, nuclear = weighted_pair(U, s, V, left.__matmul__, right.__matmul__, _VANISHING_ROOT)
    return _chain(L, R, nuclear, frobenius(left), frobenius(right), size, widths)


def _kronecker_input(M, X, Y):  # type: ignore[no-untyped-def]
    """The matrix, square `left` and `right` of ordinary size that act on its two sides, and the sizes divided out."""
    matrix = as_array(M, "M", ndim=2)
    left, right = as_array(X, "X", ndim=2), as_array(Y, "Y", ndim=2)
    rows, columns = matrix.shape
    if left.shape[1] != rows:
        raise ValueError(f"X has {left.shape[1]} columns; expected {rows}, the number of rows of M")
    if right.shape[0] != columns:
        raise ValueError(f"Y has {right.shape[0]} rows; expected {columns}, the number of columns of M")
    x, y = magnitude(left), magnitude(right)
    return matrix, _square(left / x), _square(right.T / y), x, y


def _square(X: np.ndarray) -> np.ndarray:
    """A square matrix with the Gram matrix ``X.T @ X``."""
    rows, columns = X.shape
    if rows > columns:
        return np.asarray(np.linalg.qr(X, mode="r"))
    return np.pad(X, ((0, columns - rows), (0, 0)))


def _narrowed_svd(M: np.ndarray, widths: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """The compact decomposition of `M` with no more terms than the widths have room for."""
    U, s, V, size = compact_svd(M)
    rank = numerical_rank(s)
    for j, width in enumerate(widths):
        if width < rank:
            raise ValueError(
                f"widths[{j}] is {width}; expected at least {rank}, the number of singular values of M "
                f"above {RANK_CUT:g} of the largest"
            )
    room = min(widths)
    return U[:, :room], s[:room], V[:, :room], size


def _least_value(nuclear: float, x: float, y: float, depth: int, size: float, *sizes: float) -> float:
    """The value ``L (x y)^(2/L) nuclear^(2-2/L)``, where `size` multiplies the matrix and `sizes` those beside it."""
    root = (x * y) ** (1 / depth) * nuclear ** (1 - 1 / depth)
    outer = (size ** (1 - 1 / depth), *sizes)
    return scaled_product(depth, root, root, *outer, *outer)


def _chain(
    L: np.ndarray, R: np.ndarray, nuclear: float, x: float, y: float, size: float, widths: list[int]
) -> list[np.ndarray]:
    """Layers that multiply to ``size * L @ R.T``, with weights such that all terms of the sum over layers are equal.

    `L` and `R`, seen through the matrices of Frobenius norms `x` and `y`, have squared norm `nuclear`. Each layer gets an
    equal share ``size ** (1 / depth)`` of the magnitude, so none overflows.
    """
    depth, rank = len(widths) - 1, L.shape[1]
    share, balance = size ** (1 / depth), 1.0
    ends = share
    if nuclear > 0:  # else every weighting costs nothing
        middle = nuclear / (x * y)
        balance, ends, share = np.sqrt(x / y), share * middle ** (1 / depth - 0.5), share * middle ** (1 / depth)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    cores = [ends / balance * R.T, *[share * np.eye(rank)] * (depth - 2), ends * balance * L]
    return [
        np.pad(core, ((0, rows - core.shape[0]), (0, columns - core.shape[1])))
        for core, (rows, columns) in zip(cores, shapes, strict=True)
    ]
