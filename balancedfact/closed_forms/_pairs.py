"""The balanced and the flat factorization of a given matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike

from balancedfact._linalg import magnitude
from balancedfact._validate import as_array, as_count, check_room
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map

# A direction whose cost can be made as small as one likes is shrunk by this power of two: its square is below rounding.
_VANISHING = 2.0**-27

Rescale = Callable[[np.ndarray], np.ndarray]


def balanced_pair(X: ArrayLike, rank: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    r"""The balanced factorization of a matrix, which is also its norm-minimal one.

    With the singular value decomposition :math:`X = U\Sigma V^\top`,

    .. math:: L = U\Sigma^{1/2}, \quad R = V\Sigma^{1/2}, \qquad L^\top L = R^\top R = \Sigma, \qquad
              \tfrac12(\|L\|_F^2 + \|R\|_F^2) = \|X\|_*,

    the least value over all factorizations of `X`. Every other balanced factorization is ``(L @ Q, R @ Q)``, `Q` orthogonal.

    Parameters
    ----------
    X : array_like, shape (d1, d2)
        The matrix.
    rank : int, optional
        Number of columns of the factors, at least the numerical rank of `X`, which is the default (1 for a zero matrix): the
        number of singular values above ``max(X.shape) * eps`` times the largest. Columns beyond the rank are zero.

    Returns
    -------
    L : numpy.ndarray, shape (d1, rank)
    R : numpy.ndarray, shape (d2, rank)

    Raises
    ------
    ValueError
        If `X` is not a finite real matrix or `rank` is below its numerical rank.

    See Also
    --------
    flat_pair : The flat pair of the same matrix.
    schatten_layers : More than two layers.
    balancedfact.balanced_approximation : The best balanced pair of a given rank.

    References
    ----------
    Ding et al. 2022; Liu, Shen, Zhou (CS282 report), equation (6).

    Chapters :doc:`/theory/two_factors` and :doc:`/theory/balanced_geometry`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> L, R = bf.closed_forms.balanced_pair(np.diag([9.0, 4.0, 0.0]), rank=3)
    >>> print(abs(L.round(12)))
    [[3. 0. 0.]
     [0. 2. 0.]
     [0. 0. 0.]]
    """
    U, s, V, size = compact_svd(as_array(X, "X", ndim=2))
    root = np.sqrt(s) * np.sqrt(size)
    return _padded(U * root, V * root, rank)


def flat_pair(X: ArrayLike, A: MeasurementMap, rank: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    r"""The flat factorization of a matrix under a measurement map.

    Among all pairs with :math:`LR^\top = X` it has the least scaled trace of the Hessian of
    :math:`\|\mathcal A(LR^\top) - b\|^2` (no factor ``1/m``; see `balancedfact.curvature.scaled_trace`),

    .. math:: \min_{LR^\top = X} 2m(\|D_1L\|_F^2 + \|D_2R\|_F^2) = 4m\,\|D_1XD_2\|_*,

    and is rescaled-balanced, :math:`L^\top D_1^2 L = R^\top D_2^2 R`. For invertible rescalings and
    :math:`D_1XD_2 = U\Sigma V^\top` it is :math:`L = D_1^{-1}U\Sigma^{1/2}`, :math:`R = D_2^{-1}V\Sigma^{1/2}`, unique up to
    ``(L @ Q, R @ Q)`` with `Q` orthogonal.

    Parameters
    ----------
    X : array_like, shape (d1, d2)
        The matrix.
    A : MeasurementMap
        Measurements of ``d1 x d2`` matrices, whose `D1` and `D2` set the cost.
    rank : int, optional
        Number of columns of the factors, at least the numerical rank of `X`, as for `balanced_pair`. Columns beyond the rank
        are zero.

    Returns
    -------
    L : numpy.ndarray, shape (d1, rank)
    R : numpy.ndarray, shape (d2, rank)

    Raises
    ------
    ValueError
        If `X` is not a finite real matrix of the shape that `A` measures, or `rank` is below its numerical rank.

    See Also
    --------
    balanced_pair : The balanced pair of the same matrix.
    balancedfact.curvature.scaled_trace : The scaled trace of any pair.
    two_layer_minimum : The least trace, not scaled by the sides of the matrix.
    balancedfact.flat_minimum : The flattest over all matrices that fit.

    Notes
    -----
    **Singular rescalings.** A row or column that `A` never sees makes `D1` or `D2` singular. The infimum is still
    ``4 m nuclear(D1 X D2)``, and ``L @ R.T`` is still `X`. The infimum is attained unless some part of `X` is visible on one
    side only; the cost of that part tends to zero as its weight moves to the side that is not seen, so no minimiser exists.
    The weight is then moved by a factor ``2**27`` each way: the pair multiplies to `X` and its scaled trace equals the infimum
    to rounding error, but its entries on the unseen side are large.

    If ``X = H K.T`` is one factorization of `X` at its rank, all others are ``(H G, K inv(G).T)``. The method is thin QR
    factorizations of ``D1 H`` and ``D2 K`` and one small singular value decomposition, so neither `D1` nor `D2` is inverted.

    References
    ----------
    Ding et al. 2022, the proof of the equivalence of flat solutions and weighted nuclear norm minimisation.

    Chapter :doc:`/theory/two_factors`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(20, (4, 3), rng=0)
    >>> X = np.arange(12.0).reshape(4, 3)
    >>> L, R = bf.closed_forms.flat_pair(X, A)
    >>> L.shape, bool(np.allclose(L @ R.T, X))
    ((4, 2), True)
    >>> bool(np.allclose(A.D1 @ L @ (A.D1 @ L).T, A.D1 @ L @ L.T @ A.D1))
    True
    >>> value = 4 * A.m * np.linalg.norm(A.D1 @ X @ A.D2, "nuc")
    >>> bool(np.isclose(bf.curvature.scaled_trace(L, R, A), value))
    True
    """
    U, s, V, size = compact_svd(as_array(X, "X", shape=as_map(A).matrix_shape))
    L, R, _ = weighted_pair(U, s, V, A.rescale_left, A.rescale_right, _VANISHING)
    return _padded(L * np.sqrt(size), R * np.sqrt(size), rank)


def compact_svd(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """``X / size = U @ diag(s) @ V.T`` with only the singular values above rounding error."""
    size = magnitude(X)
    U, s, Vt = np.linalg.svd(X / size, full_matrices=False)
    keep = s > max(X.shape) * np.finfo(float).eps * s[0]
    return U[:, keep], s[keep], Vt[keep].T, size


def weighted_pair(
    U: np.ndarray, s: np.ndarray, V: np.ndarray, left: Rescale, right: Rescale, vanishing: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """The pair with ``L @ R.T = U @ diag(s) @ V.T`` that minimises ``|left(L)|^2 + |right(R)|^2``, and half the infimum.

    `left` and `right` multiply by square matrices, which may be singular: see the notes of `flat_pair`. The infimum is twice
    the nuclear norm of the product rescaled on both sides; every column of the pair that is seen contributes equally to both
    terms. A column that is seen on one side only is multiplied by `vanishing` there.
    """
    H, K = U * np.sqrt(s), V * np.sqrt(s)
    # Parts of the product that one side does not see cost nothing there: split them off, left first.
    H, K, unseen_left = _split_unseen(H, K, left)
    K, H, unseen_right = _split_unseen(K, H, right)
    core_left, core_right, nuclear = _core_pair(H, K, left, right)
    (free, paid), (free_right, paid_left) = unseen_left, unseen_right
    L = np.concatenate([core_left, free / vanishing, paid_left * vanishing], axis=1)
    R = np.concatenate([core_right, paid * vanishing, free_right / vanishing], axis=1)
    return L, R, nuclear


def _split_unseen(seen, other, rescale):  # type: ignore[no-untyped-def]
    """Rotate ``seen @ other.T`` so that the columns of `seen` which `rescale` sends to zero stand apart."""
    _, cost, Vt = np.linalg.svd(rescale(seen), full_matrices=False)
    visible = cost > max(seen.shape) * np.finfo(float).eps * np.max(cost, initial=0.0)
    kept, gone = Vt[visible].T, Vt[~visible].T
    return seen @ kept, other @ kept, (seen @ gone, other @ gone)


def _core_pair(H: np.ndarray, K: np.ndarray, left: Rescale, right: Rescale) -> tuple[np.ndarray, np.ndarray, float]:
    """The minimising pair of ``H @ K.T`` where ``left(H)`` and ``right(K)`` have full column rank."""
    if H.shape[1] == 0:
        return H, K, 0.0
    R1 = scipy.linalg.qr(left(H), mode="r")[0][: H.shape[1]]
    R2 = scipy.linalg.qr(right(K), mode="r")[0][: K.shape[1]]
    U, s, _ = np.linalg.svd(R1 @ R2.T)
    root = np.sqrt(s)
    # Solving with `R2` for the second factor is the same in exact arithmetic, but would lose the product to rounding when
    # the rescalings are ill-conditioned: here the two matrices are inverse to each other whatever the errors of U and s.
    return H @ scipy.linalg.solve_triangular(R1, U * root), K @ (R1.T @ (U / root)), float(s.sum())


def _padded(L: np.ndarray, R: np.ndarray, rank: int | None) -> tuple[np.ndarray, np.ndarray]:
    """`L` and `R` with zero columns up to `rank`."""
    found = L.shape[1]
    width = max(found, 1) if rank is None else as_count(rank, "rank")
    check_room("rank", len(L) + len(R), width)
    if width < found:
        raise ValueError(f"rank is {rank}; expected at least {found}, the numerical rank of X")
    pad = ((0, 0), (0, width - found))
    return np.pad(L, pad), np.pad(R, pad)
