"""The diagonal of the Hessian, exactly: one number for each weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from balancedfact._memory import ENTRIES_AT_ONCE
from balancedfact._validate import as_layers
from balancedfact.curvature._scaled import ONE, Scaled, ordinary, partial_products
from balancedfact.measurements import Entries, MeasurementMap, RankOne
from balancedfact.measurements._as_map import as_map


def diagonal(layers: Sequence[ArrayLike], A: MeasurementMap) -> list[np.ndarray]:
    r"""Diagonal of the Hessian of :math:`\mathcal L(W) = \frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`.

    The second derivative along the entry `(p, q)` of the layer `W_j` is

    .. math:: \tfrac2m\sum_i\bigl(C_j^\top A_iB_{j-1}^\top\bigr)_{pq}^2,

    with :math:`B_{j-1} = W_{j-1}\cdots W_1` and :math:`C_j = W_L\cdots W_{j+1}`. The end-to-end matrix is linear in each layer,
    so the diagonal depends neither on `b` nor on whether the layers fit.

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]`` with ``W_k`` of shape ``(d_k, d_{k-1})``, `W_1` applied first.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.

    Returns
    -------
    list of numpy.ndarray
        One array for each layer, of its shape, with entries that are not negative and add up to `trace`.

    Raises
    ------
    ValueError
        If the layers do not multiply to the shape that `A` measures, or have NaN, infinite or complex entries.

    See Also
    --------
    layer_traces : The sum over the entries of each layer.
    trace : The sum of all entries.

    Notes
    -----
    For `Dense` it costs the products :math:`C_j^\top A_iB_{j-1}^\top`, a limited number of them at a time; for `RankOne` and
    `Entries` one product of squared factors for each layer, and no matrix of the size of the data.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> bf.curvature.diagonal([np.array([[3.0]]), np.array([[4.0]])], A)
    [array([[32.]]), array([[18.]])]
    """
    W = [ordinary(layer) for layer in as_layers(layers, as_map(A).matrix_shape)]
    B, C = partial_products(W)
    unit = A.at_unit_scale()
    found = []
    for before, after in zip(B, C, strict=True):
        squares = _sum_of_squares(unit, after, before.T)
        found.append(ordinary(squares, 2 * (before.exponent + after.exponent)).times(A.scale).times(A.scale).value(2 / A.m))
    return found


def _sum_of_squares(A: MeasurementMap, left: Scaled, right: Scaled) -> np.ndarray:
    """The sums over `i` of the squared entries of ``left.T @ A_i @ right``."""
    P, Q = left.array, right.array
    if isinstance(A, RankOne):
        before = A.left if P is None else A.left @ P
        after = A.right if Q is None else A.right @ Q
        return np.asarray((before**2).T @ after**2)
    if isinstance(A, Entries):
        counts = sp.csr_array((A.weights**2, (A.rows, A.cols)), shape=A.matrix_shape)
        half = counts.toarray() if Q is None and P is None else counts if Q is None else counts @ Q**2
        return np.asarray(half if P is None else (half.T @ P**2).T)
    d1, d2 = A.matrix_shape
    P, Q = np.eye(d1) if left is ONE else P, np.eye(d2) if right is ONE else Q
    chunk = max(1, ENTRIES_AT_ONCE // (d1 * d2))
    total = np.zeros((P.shape[1], Q.shape[1]))
    for start in range(0, A.m, chunk):
        part = A if A.m <= chunk else A.select(np.arange(start, min(start + chunk, A.m)))
        stack = part.rotated(P, Q)
        total += np.einsum("ipq,ipq->pq", stack, stack)
    return total
