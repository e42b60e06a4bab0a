"""Balanced pairs as ``L = B C``, ``R = D C`` with orthonormal `B` and `D`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from pymanopt.manifolds import Euclidean, Product, Stiefel

from balancedfact._validate import as_array, as_count, as_pair


def stiefel_product(d1: int, d2: int, k: int) -> Product:
    r"""The manifold of triples ``(B, C, D)`` with ``B.T @ B = D.T @ D = I``, which `pair_of` maps onto the balanced pairs.

    It is :math:`\mathrm{St}(d_1, q)\times\mathbb R^{q\times k}\times\mathrm{St}(d_2, q)` with
    :math:`q = \min(d_1, d_2, k)`. Every balanced pair is reached (see `factors_of`), and with each triple all triples
    ``(B Q, Q.T C, D Q)`` with `Q` orthogonal give the same pair. A minimiser is therefore never isolated, which makes the
    Hessian there singular. `BalancedPairs` is the same set without this redundancy.

    Parameters
    ----------
    d1, d2, k : int
        Shapes ``(d1, k)`` and ``(d2, k)`` of the pair.

    Returns
    -------
    pymanopt.manifolds.Product

    Raises
    ------
    ValueError
        If a size is not a positive integer.

    See Also
    --------
    pair_of, factors_of : From its points to pairs and back.
    BalancedPairs : The set without a parametrisation.

    References
    ----------
    Liu, Shen, Zhou (CS282 report), section 5, which prints ``R = B D`` for ``R = D C`` and supposes that solutions are lost.

    Chapter :doc:`/theory/balanced_geometry`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> [part.shape for part in bf.manifolds.stiefel_product(5, 4, 7).random_point()]
    [(5, 4), (4, 7), (4, 4)]
    """
    d1, d2, k = as_count(d1, "d1"), as_count(d2, "d2"), as_count(k, "k")
    q = min(d1, d2, k)
    return Product([Stiefel(d1, q), Euclidean(q, k), Stiefel(d2, q)])


def pair_of(B: ArrayLike, C: ArrayLike, D: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The pair ``(B @ C, D @ C)``, balanced when the columns of `B` and of `D` are orthonormal.

    Parameters
    ----------
    B : array_like, shape (d1, q)
    C : array_like, shape (q, k)
    D : array_like, shape (d2, q)

    Returns
    -------
    L : numpy.ndarray, shape (d1, k)
    R : numpy.ndarray, shape (d2, k)

    Raises
    ------
    ValueError
        If the shapes do not fit or `B` or `D` is not orthonormal to eight digits.

    See Also
    --------
    stiefel_product : The manifold of such triples.
    factors_of : The triple of a pair.

    References
    ----------
    Chapter :doc:`/theory/balanced_geometry`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> L, R = bf.manifolds.pair_of(np.eye(3, 2), [[1.0, 2.0], [0.0, 3.0]], np.eye(4, 2))
    >>> bool(np.allclose(L.T @ L, R.T @ R))
    True
    """
    C = as_array(C, "C", ndim=2)
    B, D = as_array(B, "B", ndim=2), as_array(D, "D", ndim=2)
    for name, factor in (("B", B), ("D", D)):
        if factor.shape[1] != C.shape[0]:
            raise ValueError(f"{name} has {factor.shape[1]} columns; expected {C.shape[0]}, the number of rows of C")
        deviation = np.abs(factor.T @ factor - np.eye(C.shape[0])).max()
        if deviation > 1e-8:
            raise ValueError(f"{name} has columns that miss orthonormality by {deviation:.1e}; expected at most 1e-8")
    return B @ C, D @ C


def factors_of(L: ArrayLike, R: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""The triple ``(B, C, D)`` with ``L = B C`` and ``R = D C`` of a balanced pair, by polar decomposition.

    ``L.T @ L = R.T @ R = V diag(s**2) V.T`` gives ``C = diag(s) V.T`` with `q` rows and orthonormal `B` and `D`, completed
    arbitrarily where `C` loses rank. Every balanced pair has such a triple, since its rank is at most
    :math:`q = \min(d_1, d_2, k)`.

    Parameters
    ----------
    L : array_like, shape (d1, k)
    R : array_like, shape (d2, k)

    Returns
    -------
    B : numpy.ndarray, shape (d1, q)
    C : numpy.ndarray, shape (q, k)
    D : numpy.ndarray, shape (d2, q)

    Raises
    ------
    ValueError
        If the pair is not balanced to eight digits of its squared norm.

    See Also
    --------
    stiefel_product : The manifold of such triples.
    pair_of : The pair of a triple.

    References
    ----------
    Chapter :doc:`/theory/balanced_geometry`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> L, R = bf.manifolds.BalancedPairs(5, 4, 6, rng=0).random_point()
    >>> B, C, D = bf.manifolds.factors_of(L, R)
    >>> bool(np.allclose(B @ C, L) and np.allclose(D @ C, R))
    True
    """
    L, R = as_pair(L, R)
    size = np.linalg.norm(L) + np.linalg.norm(R) or 1.0
    deviation = np.linalg.norm((L / size).T @ (L / size) - (R / size).T @ (R / size))
    if deviation > 1e-8:
        raise ValueError(f"L and R are not balanced: L.T @ L - R.T @ R is {deviation:.1e} of the squared norm; expected 1e-8")
    q = min(*L.shape, R.shape[0])
    U, s, Vt = np.linalg.svd(L, full_matrices=False)
    B, C = U[:, :q], s[:q, None] * Vt[:q]
    # The orthonormal D that minimises the distance of D C from R, exact since the Gram matrices agree.
    P, _, Qt = np.linalg.svd(R @ C.T, full_matrices=False)
    return B, C, P @ Qt
