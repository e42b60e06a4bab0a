r"""The trace of the Hessian, exactly and at every point.

The end-to-end matrix is linear in each layer, so the residual term of the Hessian has a zero diagonal block for every layer:
the formulas below hold away from minimisers too (Gatmiry et al. 2023 state theirs at zero loss).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import frobenius, magnitude
from balancedfact._validate import as_layers, as_pair
from balancedfact.curvature._scaled import ZERO, Scaled, ordinary, partial_products
from balancedfact.measurements import IsotropicMoment, MeasurementMap, SecondMoment
from balancedfact.measurements._as_map import as_map


def scaled_trace(L: ArrayLike, R: ArrayLike, A: MeasurementMap) -> float:
    r"""Scaled trace of the Hessian of :math:`f(L, R) = \|\mathcal A(LR^\top) - b\|^2` (no factor ``1/m``).

    .. math:: \operatorname{str} D^2 f = \tfrac1{d_1}\operatorname{tr}_L + \tfrac1{d_2}\operatorname{tr}_R
              = 2m\,(\|D_1 L\|_F^2 + \|D_2 R\|_F^2),

    the trace over the entries of `L` divided by ``d1`` plus the trace over those of `R` divided by ``d2``. It depends neither
    on `b` nor on whether the pair fits the data.

    Parameters
    ----------
    L : array_like, shape (d1, k)
        Left factor.
    R : array_like, shape (d2, k)
        Right factor.
    A : MeasurementMap
        Measurements of ``d1 x d2`` matrices.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If shapes do not fit, or a factor has NaN, infinite or complex entries.

    See Also
    --------
    trace : The trace of the mean squared error, any depth.
    balancedfact.closed_forms.flat_pair : The factors of least scaled trace.

    References
    ----------
    Ding, Drusvyatskiy, Fazel, Harchaoui, "Flat minima generalize for low-rank matrix recovery", 2022.

    Chapters :doc:`/theory/two_factors` and :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Entries([0, 0, 1, 1], [0, 1, 0, 1], (2, 2))
    >>> bf.curvature.scaled_trace(np.eye(2), np.eye(2), A)
    8.0
    """
    left, right = as_pair(L, R, as_map(A).matrix_shape)
    a, b = magnitude(left), magnitude(right)
    norm_left = np.sqrt(2 * A.m) * A.scale * a * frobenius(A.rescale_left(left / a))
    norm_right = np.sqrt(2 * A.m) * A.scale * b * frobenius(A.rescale_right(right / b))
    return float(norm_left**2 + norm_right**2)


def trace(layers: Sequence[ArrayLike], A: MeasurementMap | SecondMoment) -> float:
    r"""Trace of the Hessian of :math:`\mathcal L(W) = \frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`.

    .. math:: \operatorname{tr}\nabla^2\mathcal L(W) = \frac2m \sum_{j=1}^L \sum_i \|C_j^\top A_i B_{j-1}^\top\|_F^2,

    with :math:`B_{j-1} = W_{j-1}\cdots W_1` and :math:`C_j = W_L\cdots W_{j+1}`. It does not depend on `b`.

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]`` with ``W_k`` of shape ``(d_k, d_{k-1})``, `W_1` applied first.
    A : MeasurementMap or SecondMoment
        Measurements of ``d_L x d_0`` matrices, or their second moments formed once by ``A.second_moment()``: worth it when the
        trace is computed at many points.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the layers do not multiply to the shape that `A` measures, or have NaN, infinite or complex entries.

    See Also
    --------
    scaled_trace : The scaled trace of a pair.
    layer_traces : Its parts.
    trace_gradient : Its gradient.
    balancedfact.induced_regularizer : Its least value over the factorizations of a matrix.

    Notes
    -----
    Each of the ``L`` terms costs one second moment of `A`, and nothing loops over measurements. With the second moments of
    `Dense` formed once, all terms together are one product of ``L`` vectors with a matrix, whatever the number of measurements.
    Gatmiry et al. print the value without the factor 2 in their theorems; here it is the trace itself.

    References
    ----------
    Gatmiry, Li, Chuang, Reddi, Ma, Jegelka, "The inductive bias of flatness regularization for deep matrix factorization",
    2023, Lemma 2.

    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> bf.curvature.trace([np.ones((1, 1))] * 5, A)
    10.0
    """
    total = ZERO
    for term in _terms(layers, A):
        total += term
    return float(total.value())


def layer_traces(layers: Sequence[ArrayLike], A: MeasurementMap | SecondMoment) -> np.ndarray:
    r"""The parts of `trace` that belong to the single layers.

    The trace over the entries of the layer `W_j` is
    :math:`\frac2m\sum_i\|C_j^\top A_iB_{j-1}^\top\|_F^2`, with :math:`B_{j-1} = W_{j-1}\cdots W_1` and
    :math:`C_j = W_L\cdots W_{j+1}`.

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]`` with ``W_k`` of shape ``(d_k, d_{k-1})``, `W_1` applied first.
    A : MeasurementMap or SecondMoment
        As for `trace`.

    Returns
    -------
    numpy.ndarray, shape (L,)
        The parts, which add up to `trace`. At the flattest factorization of a matrix all are equal.

    Raises
    ------
    ValueError
        If the layers do not multiply to the shape that `A` measures, or have NaN, infinite or complex entries.

    See Also
    --------
    trace : Their sum.
    diagonal : Every entry.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> bf.curvature.layer_traces([np.array([[3.0]]), np.array([[4.0]])], A)
    array([32., 18.])
    """
    return np.array([float(term.value()) for term in _terms(layers, A)])


def _terms(layers: Sequence[ArrayLike], A: MeasurementMap | SecondMoment) -> list[Scaled]:
    """The trace over the entries of each layer."""
    W = [ordinary(layer) for layer in as_layers(layers, as_map(A, or_moment=True).matrix_shape)]
    B, C = partial_products(W)
    moment = A if isinstance(A, SecondMoment) else A.streamed_moment()
    energies = moment.energies([(c.array, b.array) for b, c in zip(B, C, strict=True)])
    return [
        ordinary(np.asarray(energy), 2 * (b.exponent + c.exponent)).times(moment.scale).times(moment.scale).times(moment.weight)
        for energy, b, c in zip(energies, B, C, strict=True)
    ]


def isotropic_trace(layers: Sequence[ArrayLike]) -> float:
    r"""The isotropic surrogate :math:`R(W) = \sum_j \|W_L\cdots W_{j+1}\|_F^2\,\|W_{j-1}\cdots W_1\|_F^2`.

    Empty products are identities, with :math:`\|I_d\|_F^2 = d`. When the measurements are isotropic,
    :math:`\sum_i \operatorname{vec}A_i\operatorname{vec}A_i^\top = m I`, the trace of the Hessian is exactly ``2 R(W)``; under
    a restricted isometry of constant ``delta`` it lies within ``2 (1 +- delta) R(W)``.

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]``, `W_1` applied first.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the layers cannot be multiplied, or have NaN, infinite or complex entries.

    See Also
    --------
    trace : The trace for measurements of any kind.
    balancedfact.closed_forms.min_isotropic_trace : Its least value.

    References
    ----------
    Gatmiry et al. 2023, equation (10).

    Chapters :doc:`/theory/curvature` and :doc:`/theory/deep_closed_forms`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> bf.curvature.isotropic_trace([np.ones((1, 1))] * 5)
    5.0
    """
    checked = as_layers(layers)
    return trace(checked, IsotropicMoment((checked[-1].shape[0], checked[0].shape[1])))
