"""The least trace of the Hessian over the factorizations of a matrix, for one measurement and for two layers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import magnitude, scaled_product
from balancedfact._validate import as_array, as_depth
from balancedfact.closed_forms._pairs import compact_svd
from balancedfact.closed_forms._product_spectrum import log2_singular_values
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map


def single_measurement_minimum(M: ArrayLike, A1: ArrayLike, depth: int) -> float:
    r"""The least trace of the Hessian over the factorizations of a matrix under a single measurement.

    .. math:: \inf_{W_L\cdots W_1 = M} \operatorname{tr}\nabla^2\bigl(\langle A_1, W_L\cdots W_1\rangle - b\bigr)^2
              = 2L\,\bigl\|(A_1^\top M)^{L-1}A_1^\top\bigr\|_{S_{2/L}}^{2/L} = 2L\sum_i\sigma_i^{2/L},

    with the singular values :math:`\sigma_i` of :math:`(A_1^\top M)^{L-1}A_1^\top`. It does not depend on the hidden widths
    as long as none is below the rank of `M`.

    Parameters
    ----------
    M : array_like, shape (d_L, d_0)
        The end-to-end matrix.
    A1 : array_like, shape (d_L, d_0)
        The measurement.
    depth : int
        The number of layers `L`, at least 2.

    Returns
    -------
    float
        In the units of `balancedfact.curvature.trace`.

    Raises
    ------
    ValueError
        If `M` or `A1` is not a finite real matrix, their shapes differ or `depth` is not an integer of at least 2.

    See Also
    --------
    two_layer_minimum : Any measurements, two layers.
    balancedfact.induced_regularizer : Any measurements, any depth.

    Notes
    -----
    **Attainment.** The value is attained if :math:`(A_1^\top M)^{L-1}A_1^\top` has the rank of `M`, which is the generic case.
    Otherwise it may be an infimum that no factorization attains: for :math:`M = e_1e_2^\top`, :math:`A_1 = I` and ``L = 3`` the
    value is 0, and the layers :math:`te_2^\top`, :math:`t^{-2}`, :math:`te_1` have the trace :math:`4t^{-2}`.

    **Accuracy.** The exponent ``2 / L`` would turn the rounding errors of a formed power, ``1e-16`` of the largest singular
    value, into numbers of order one. The product is therefore compressed to the rank of `M` and never formed; its singular
    values are computed from the factors, with an error that a change of each factor by its rounding error could cause. A
    value that should be 0 because :math:`A_1^\top M` is nilpotent comes out as that of a neighbouring matrix, which is as large
    as the power ``2 / L`` of a rounding error in the worst case.

    The source prints the value without the factor 2 of its own formula for the trace, and calls it a minimum.

    References
    ----------
    Gatmiry et al. 2023, Theorem 7.

    Chapter :doc:`/theory/deep_closed_forms`.

    Examples
    --------
    The identity measured on a symmetric matrix gives ``2 L`` times the sum of the eigenvalues to the power ``2 - 2 / L``.

    >>> import numpy as np, balancedfact as bf
    >>> bf.closed_forms.single_measurement_minimum(np.diag([1.0, 4.0]), np.eye(2), 2)
    20.0
    >>> value = bf.closed_forms.single_measurement_minimum(np.diag([1.0, 4.0]), np.eye(2), 100)
    >>> bool(np.isclose(value, 200 * (1 + 4**1.98)))
    True
    """
    matrix = as_array(M, "M", ndim=2)
    measurement = as_array(A1, "A1", shape=matrix.shape)
    depth = as_depth(depth)
    U, s, V, size = compact_svd(matrix)
    if s.size == 0:
        return 0.0
    scale = magnitude(measurement)
    root = np.sqrt(s)
    into, out_of = measurement.T / scale @ (U * root), (V * root).T @ measurement.T / scale
    # (A' M)^(L-1) A' = into @ core^(L-2) @ out_of, and the outer factors are reduced to square ones.
    core = (V * root).T @ into
    first, last = (np.asarray(np.linalg.qr(tall, mode="r")) for tall in (out_of.T, into))
    levels = log2_singular_values([first.T, *[core] * (depth - 2), last])
    outer = (size ** (1 - 1 / depth), scale)
    return scaled_product(2 * depth, np.exp2(levels * (2 / depth)).sum(), *outer, *outer)


def two_layer_minimum(M: ArrayLike, A: MeasurementMap) -> float:
    r"""The least trace of the Hessian over the factorizations of a matrix into two layers.

    .. math:: \inf_{W_2W_1 = M} \operatorname{tr}\nabla^2\tfrac1m\|\mathcal A(W_2W_1) - b\|^2 = 4\,\|DMD'\|_*, \qquad
              D = \Bigl(\frac1m\sum_iA_iA_i^\top\Bigr)^{1/2},\quad D' = \Bigl(\frac1m\sum_iA_i^\top A_i\Bigr)^{1/2}.

    Parameters
    ----------
    M : array_like, shape (d1, d2)
        The matrix.
    A : MeasurementMap
        Measurements of ``d1 x d2`` matrices.

    Returns
    -------
    float
        In the units of `balancedfact.curvature.trace`.

    Raises
    ------
    ValueError
        If `M` is not a finite real matrix of the shape that `A` measures.

    See Also
    --------
    flat_pair : The pair of least scaled trace; the notes say how it gives the layers of least trace.
    balancedfact.induced_regularizer : Any depth.

    Notes
    -----
    In terms of the rescalings of Ding et al., ``D = sqrt(d2) D1`` and ``D' = sqrt(d1) D2``. The pair ``(L, R)`` of `flat_pair`
    minimises the same two terms with other weights, so ``[R.T / t, t * L]`` with ``t = (d1 / d2) ** 0.25`` are layers that
    attain the value, or approach it where it is not attained.

    The source prints the value without the factor 2 of its own formula for the trace.

    References
    ----------
    Gatmiry et al. 2023, Theorem 5.

    Chapters :doc:`/theory/deep_closed_forms` and :doc:`/theory/two_factors`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(20, (4, 3), rng=0)
    >>> M = np.arange(12.0).reshape(4, 3)
    >>> L, R = bf.closed_forms.flat_pair(M, A)
    >>> t = (4 / 3) ** 0.25
    >>> bool(np.isclose(bf.curvature.trace([R.T / t, t * L], A), bf.closed_forms.two_layer_minimum(M, A)))
    True
    """
    U, s, V, size = compact_svd(as_array(M, "M", shape=as_map(A).matrix_shape))
    if s.size == 0:
        return 0.0
    nuclear = np.linalg.svd((A.rescale_left(U) * s) @ A.rescale_right(V).T, compute_uv=False).sum()
    return scaled_product(4 * np.sqrt(U.shape[0] * V.shape[0]), nuclear, size, A.scale, A.scale)
