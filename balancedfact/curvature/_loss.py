r"""Gradient and Hessian of the loss :math:`\frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`, by passes through the layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_array, as_directions, as_layers
from balancedfact.curvature._scaled import Scaled, derivatives_before, ordinary, partial_products
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map


def loss_gradient(layers: Sequence[ArrayLike], A: MeasurementMap, b: ArrayLike) -> list[np.ndarray]:
    r"""Gradient of :math:`\mathcal L(W) = \frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2` with respect to the layers.

    .. math:: \nabla_{W_j}\mathcal L = C_j^\top GB_{j-1}^\top, \qquad G = \tfrac2m\mathcal A^*(\mathcal A(W_L\cdots W_1) - b),

    with :math:`B_{j-1} = W_{j-1}\cdots W_1` and :math:`C_j = W_L\cdots W_{j+1}`.

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]`` with ``W_k`` of shape ``(d_k, d_{k-1})``, `W_1` applied first.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.

    Returns
    -------
    list of numpy.ndarray
        One array for each layer, of its shape.

    Raises
    ------
    ValueError
        If shapes do not fit, or something has NaN, infinite or complex entries.

    See Also
    --------
    hessian_vector_product : The second derivative.
    balancedfact.dynamics.gradient_descent : Training.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> bf.curvature.loss_gradient([np.array([[3.0]]), np.array([[5.0]])], A, [14.0])
    [array([[10.]]), array([[6.]])]
    """
    at = Linearisation(layers, A, b)
    return [each.value(2 / A.m) for each in at.pulled_back(at.residual)]


def hessian_vector_product(
    layers: Sequence[ArrayLike], directions: Sequence[ArrayLike], A: MeasurementMap, b: ArrayLike
) -> list[np.ndarray]:
    r"""Hessian of :math:`\mathcal L(W) = \frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2` applied to a direction `V`.

    With the partial products :math:`B_{j-1} = W_{j-1}\cdots W_1`, :math:`C_j = W_L\cdots W_{j+1}` and
    :math:`E = W_L\cdots W_1`, the dot for derivatives along `V` (:math:`\dot E = \sum_j C_jV_jB_{j-1}`), and
    :math:`G = \frac2m\mathcal A^*(\mathcal A(E) - b)`,

    .. math:: \nabla^2\mathcal L[V]_j = C_j^\top\,\tfrac2m\mathcal A^*\mathcal A(\dot E)\,B_{j-1}^\top
              + \dot C_j^\top GB_{j-1}^\top + C_j^\top G\dot B_{j-1}^\top .

    The first term is the Gauss--Newton part; at zero loss the others vanish.

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]``, `W_1` applied first.
    directions : list of array_like
        One array for each layer, of its shape.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.

    Returns
    -------
    list of numpy.ndarray
        One array for each layer, of its shape.

    Raises
    ------
    ValueError
        If shapes do not fit, or something has NaN, infinite or complex entries.

    See Also
    --------
    spectrum : All eigenvalues.
    sharpest_direction : The leading eigenvector.
    loss_gradient : The first derivative.

    Notes
    -----
    It costs two evaluations of `A`, two of its adjoint and ``O(L)`` products of layers. Where `A` has structure, as `Entries`
    has, no ``d_L x d_0`` matrix is formed for two layers or more.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> layers, ones = [np.array([[3.0]]), np.array([[5.0]])], [np.ones((1, 1))] * 2
    >>> bf.curvature.hessian_vector_product(layers, ones, A, [14.0])
    [array([[82.]]), array([[50.]])]
    """
    at = Linearisation(layers, A, b)
    V = [ordinary(each) for each in as_directions(directions, at.shapes)]
    return [each.value(2 / A.m) for each in at.hessian(V)]


class Linearisation:
    """The loss near a point. All derivatives are those of ``m / 2`` times the loss."""

    def __init__(self, layers: Sequence[ArrayLike], A: MeasurementMap, b: ArrayLike) -> None:
        checked = as_layers(layers, as_map(A).matrix_shape)
        data = as_array(b, "b", shape=(A.m,))
        self.m, self.matrix_shape, self.shapes = A.m, A.matrix_shape, [layer.shape for layer in checked]
        self.W = [ordinary(layer) for layer in checked]
        self.map, self.scale = A.at_unit_scale(), A.scale
        self.B, self.C = partial_products(self.W)
        self.residual = self._measured([(self.W[-1], self.B[-1])]) + ordinary(-data)
        self.D = self._swept(self.adjoint(self.residual))

    def adjoint(self, y: Scaled) -> Scaled:
        """The matrix ``sum_i y_i A_i``, as anything with ``@`` and ``.T``, an array if there is only one layer."""
        weighted = y.times(self.scale)
        apply = self.map.adjoint_matrix if len(self.W) == 1 else self.map.adjoint_operator
        return Scaled(apply(weighted.array), weighted.exponent)

    def log_norm_of_slope(self) -> float:
        """The binary logarithm of the Frobenius norm of ``D[-1]``, the derivative in the end-to-end matrix."""
        weighted = self.residual.times(self.scale)
        return float(np.log2(self.map.adjoint_norm(weighted.array))) + weighted.exponent

    def pushed_forward(self, V: list[Scaled]) -> Scaled:
        """The change of the measurements when the layers move along `V`."""
        return self._change(V, derivatives_before(self.W, V, self.B))

    def pulled_back(self, y: Scaled) -> list[Scaled]:
        """The transpose of `pushed_forward`."""
        return self.pulled_back_matrix(self.adjoint(y))

    def pulled_back_matrix(self, G: Scaled) -> list[Scaled]:
        """The matrices ``C_j.T @ G @ B_{j-1}.T`` of all layers."""
        return [D @ B.T for D, B in zip(self._swept(G), self.B, strict=True)]

    def hessian(self, V: list[Scaled]) -> list[Scaled]:
        """The Hessian applied to `V`."""
        dB = derivatives_before(self.W, V, self.B)
        dD = [self.adjoint(self._change(V, dB))]
        for W, v, D in zip(self.W[:0:-1], V[:0:-1], self.D[::-1], strict=False):
            dD.append((D.T @ v).T + (dD[-1].T @ W).T)
        return [dD[-1 - k] @ self.B[k].T + self.D[k] @ dB[k].T for k in range(len(V))]

    def _swept(self, G: Scaled) -> list[Scaled]:
        """The matrices ``C_j.T @ G`` of all layers."""
        swept = [G]
        for W in self.W[:0:-1]:
            swept.append((swept[-1].T @ W).T)
        return swept[::-1]

    def _change(self, V: list[Scaled], dB: list[Scaled]) -> Scaled:
        moving = [] if len(V) == 1 else [(self.W[-1], dB[-1])]
        return self._measured([(V[-1], self.B[-1]), *moving])

    def _measured(self, products: list[tuple[Scaled, Scaled]]) -> Scaled:
        """The measurements of a sum of products of two factors."""
        top = max(left.exponent + right.exponent for left, right in products)
        lefts = [np.ldexp(left.array, left.exponent + right.exponent - top) for left, right in products]
        if len(self.W) == 1:
            numbers = self.map.forward(lefts[0])
        else:
            rights = [right.array for _, right in products]
            numbers = self.map.forward_factored(np.hstack(lefts), np.vstack(rights).T)
        return ordinary(numbers, top).times(self.scale)
