r"""Gradient and Hessian of the trace of the Hessian, by one pass forward and one backward through the layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_directions, as_layers
from balancedfact.curvature._scaled import ZERO, Scaled, derivatives_after, derivatives_before, ordinary, partial_products
from balancedfact.measurements import MeasurementMap, SecondMoment
from balancedfact.measurements._as_map import as_map


def trace_gradient(layers: Sequence[ArrayLike], A: MeasurementMap | SecondMoment) -> list[np.ndarray]:
    r"""Gradient of `trace`, the trace of the Hessian of the loss, with respect to the layers.

    With :math:`T(W) = \frac2m\sum_j\sum_i\|C_j^\top A_iB_{j-1}^\top\|_F^2`,
    :math:`X_j = \sum_i A_iB_{j-1}^\top B_{j-1}A_i^\top` and :math:`Y_j = \sum_i A_i^\top C_jC_j^\top A_i`,

    .. math:: \nabla_{W_k}T = \frac4m\Big(C_k^\top\hat C_{k-1} + \hat B_kB_{k-1}^\top\Big), \qquad
              \hat C_k = X_kC_k + \hat C_{k-1}W_k^\top, \quad \hat B_{k-1} = B_{k-1}Y_k + W_k^\top\hat B_k .

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]`` with ``W_k`` of shape ``(d_k, d_{k-1})``, `W_1` applied first.
    A : MeasurementMap or SecondMoment
        Measurements of ``d_L x d_0`` matrices, or their second moments formed once by ``A.second_moment()``, or
        `balancedfact.measurements.IsotropicMoment` for the gradient of `isotropic_trace`.

    Returns
    -------
    list of numpy.ndarray
        One array for each layer, of its shape.

    Raises
    ------
    ValueError
        If the layers do not multiply to the shape that `A` measures, or have NaN, infinite or complex entries.

    See Also
    --------
    trace : The value.
    trace_hessian_vector_product : The second derivative.

    Notes
    -----
    It costs ``2 (L - 1)`` second moments and ``O(L)`` products of layers.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> bf.curvature.trace_gradient([np.array([[3.0]]), np.array([[5.0]])], A)
    [array([[12.]]), array([[20.]])]
    """
    W, moment = _prepared(layers, A)
    return Sensitivities(W, moment).gradient()


def trace_hessian_vector_product(
    layers: Sequence[ArrayLike], directions: Sequence[ArrayLike], A: MeasurementMap | SecondMoment
) -> list[np.ndarray]:
    """Derivative of `trace_gradient` along a direction: the Hessian of the trace of the Hessian applied to a vector.

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]``, `W_1` applied first.
    directions : list of array_like
        One array for each layer, of its shape.
    A : MeasurementMap or SecondMoment
        As for `trace_gradient`.

    Returns
    -------
    list of numpy.ndarray
        One array for each layer, of its shape.

    Raises
    ------
    ValueError
        If the layers do not multiply to the shape that `A` measures, a direction has not the shape of its layer, or something
        has NaN, infinite or complex entries.

    See Also
    --------
    trace : The value.
    trace_gradient : The first derivative.

    Notes
    -----
    It costs ``4 L - 6`` second moments for ``L >= 2`` layers and ``O(L)`` products of layers.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> layers, ones = [np.array([[3.0]]), np.array([[5.0]])], [np.ones((1, 1))] * 2
    >>> bf.curvature.trace_hessian_vector_product(layers, ones, A)
    [array([[4.]]), array([[4.]])]
    """
    W, moment = _prepared(layers, A)
    return Sensitivities(W, moment).gradient_along(as_directions(directions, [layer.array.shape for layer in W]))


class Sensitivities:
    """Derivatives of half the sum over layers, with respect to the products that the layers belong to.

    `left[k]` belongs to ``C[k - 1]`` and `right[k]` to ``B[k + 1]``, the products that the layer ``W[k]`` enters next.
    """

    def __init__(self, W: list[Scaled], moment: SecondMoment) -> None:
        self.W, self.moment = W, moment
        self.B, self.C = partial_products(W)
        # The last C and the first B are constant: the moments that would multiply their derivatives are not needed.
        self.X = _moments(moment._left, self.B[:-1], self.B[:-1])
        factors = [C.T for C in self.C[1:]]
        self.Y = _moments(moment._right, factors, factors)
        self.left, self.right = [ZERO], [ZERO]
        for X, C, layer in zip(self.X, self.C, W, strict=False):
            self.left.append(X @ C + self.left[-1] @ layer.T)
        for Y, B, layer in zip(self.Y[::-1], self.B[::-1], W[::-1], strict=False):
            self.right.insert(0, (Y @ B.T).T + layer.T @ self.right[0])

    def gradient(self) -> list[np.ndarray]:
        """The gradient of the trace."""
        gradient = [C.T @ left + right @ B.T for B, C, left, right in zip(self.B, self.C, self.left, self.right, strict=True)]
        return _values(gradient, self.W, self.moment)

    def gradient_along(self, directions: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The derivative of the gradient along a direction; only the moments that the direction moves are formed anew."""
        W, moment, B, C, last = self.W, self.moment, self.B, self.C, len(self.W) - 1
        V = [ordinary(direction) for direction in directions]
        dB, dC = derivatives_before(W, V, B), derivatives_after(W, V, C)
        # The first B and the last C are constant: their moments do not move.
        dX = _moments(moment._left, B[1:-1], dB[1:-1])
        dY = _moments(moment._right, [each.T for each in C[1:-1]], [each.T for each in dC[1:-1]])
        d_left, d_right = [ZERO], [ZERO]
        for k in range(last):
            moved = self.X[k] @ dC[k]
            if k > 0:
                moved += _twice(dX[k - 1] @ C[k]) + d_left[k] @ W[k].T + self.left[k] @ V[k].T
            d_left.append(moved)
        for k in range(last, 0, -1):
            moved = (self.Y[k - 1] @ dB[k].T).T
            if k < last:
                moved += _twice((dY[k - 1] @ B[k].T).T) + W[k].T @ d_right[0] + V[k].T @ self.right[k]
            d_right.insert(0, moved)
        product = [
            C[k].T @ d_left[k] + dC[k].T @ self.left[k] + d_right[k] @ B[k].T + self.right[k] @ dB[k].T for k in range(last + 1)
        ]
        return _values(product, W, moment)


def _moments(apply, first: list[Scaled], second: list[Scaled]) -> list[Scaled]:  # type: ignore[no-untyped-def]
    if not first:
        return []
    found = apply([(F.array, G.array) for F, G in zip(first, second, strict=True)])
    return [Scaled(each, F.exponent + G.exponent) for each, F, G in zip(found, first, second, strict=True)]


def _twice(X: Scaled) -> Scaled:
    return X if X is ZERO else Scaled(X.array, X.exponent + 1)


def _prepared(layers: Sequence[ArrayLike], A: MeasurementMap | SecondMoment) -> tuple[list[Scaled], SecondMoment]:
    checked = as_layers(layers, as_map(A, or_moment=True).matrix_shape)
    return [ordinary(layer) for layer in checked], A if isinstance(A, SecondMoment) else A.streamed_moment()


def _values(halves: list[Scaled], W: list[Scaled], moment: SecondMoment) -> list[np.ndarray]:
    return [
        np.zeros(layer.array.shape) if half is ZERO else half.times(moment.scale).times(moment.scale).value(2 * moment.weight)
        for half, layer in zip(halves, W, strict=True)
    ]
