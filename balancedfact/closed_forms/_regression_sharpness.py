"""The sharpness of a deep linear network for univariate regression, exactly, for one network or many at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import square_root
from balancedfact._validate import as_array

_ENTRIES = 2**20  # of the Hessians held in memory at once


def regression_sharpness(
    layers: Sequence[ArrayLike], covariance: ArrayLike, w: ArrayLike | None = None, readout: ArrayLike | None = None
) -> np.ndarray | float:
    r"""The largest eigenvalue of the Hessian of the risk of a deep linear network for univariate regression.

    The model is :math:`f(x) = p^\top W_L\cdots W_1x` and the risk, up to a constant,
    :math:`(w_{\rm prod}-w)^\top\hat\Sigma(w_{\rm prod}-w)`, where :math:`w_{\rm prod} = W_1^\top\cdots W_L^\top p`. With
    :math:`B_{k-1} = W_{k-1}\cdots W_1` and :math:`C_k = W_L\cdots W_{k+1}`, the largest eigenvalue at a minimiser is that of a
    ``d x d`` matrix,

    .. math:: 2\hat\Sigma^{1/2}\Bigl(\sum_k\|C_k^\top p\|^2B_{k-1}^\top B_{k-1}\Bigr)\hat\Sigma^{1/2},

    and away from minimisers that of a matrix with at most :math:`\sum_k(d_k+d_{k-1}-1)` rows. It is the largest with regard to
    sign, not the largest in magnitude, and never negative.

    Parameters
    ----------
    layers : sequence of array_like, shapes (..., d_k, d_{k-1})
        ``[W_1, ..., W_L]``, with any leading axes for many networks at once.
    covariance : array_like, shape (d, d) or (..., d, d)
        :math:`\hat\Sigma`, symmetric positive semidefinite.
    w : array_like, shape (d,) or (..., d), optional
        A minimiser of the risk. Without it the layers are taken to be a minimiser themselves.
    readout : array_like, shape (d_L,) or (..., d_L), optional
        The fixed vector `p`; not needed if ``d_L == 1``, where it is 1.

    Returns
    -------
    float, or numpy.ndarray of the leading shape
        The sharpness of each network.

    Raises
    ------
    ValueError
        If shapes do not fit, or an argument has NaN, infinite or complex entries.

    See Also
    --------
    minimal_sharpness : The least value.
    balancedfact.curvature.sharpness : The sharpness for any measurements.

    Notes
    -----
    With :math:`a_k = C_k^\top p` and :math:`f_k = B_k\nabla`, :math:`\nabla = 2\hat\Sigma(w_{\rm prod}-w)`, the second
    derivative along `U` is

    .. math:: 2\Bigl\|\hat\Sigma^{1/2}\sum_kB_{k-1}^\top U_k^\top a_k\Bigr\|^2
              + 2\sum_{k<l}a_l^\top U_l\,W_{l-1}\cdots W_{k+1}\,U_kf_{k-1}.

    It sees of :math:`U_k` only :math:`U_k^\top a_k` and :math:`U_kf_{k-1}`, so the Hessian vanishes on the complement of the
    matrices :math:`a_kx^\top + yf_{k-1}^\top`, which have an orthonormal basis of :math:`d_k+d_{k-1}-1` elements.

    References
    ----------
    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> bf.closed_forms.regression_sharpness([np.ones((1, 1))] * 5, [[1.0]])
    10.0
    >>> bf.closed_forms.regression_sharpness([np.ones((1, 1))] * 2, [[1.0]], w=[2.0])  # eigenvalues of [[2, 0], [0, 2]]
    2.0
    """
    stack, sigma, target, p = as_regression(layers, covariance, w, readout)
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in (*stack, sigma)), *(x.shape[:-1] for x in (target, p)))
    values = _at_minimiser(stack, sigma, p) if w is None else _in_portions(stack, sigma, target, p, lead)
    return np.broadcast_to(values, lead).copy() if lead else float(values)


def _in_portions(stack: list[np.ndarray], sigma: np.ndarray, w: np.ndarray, p: np.ndarray, lead: tuple[int, ...]) -> np.ndarray:
    """The eigenvalues away from minimisers, for so many networks at a time that their Hessians fit into memory."""

    def flat(array: np.ndarray, axes: int) -> np.ndarray:
        tail = array.shape[array.ndim - axes :]
        return np.broadcast_to(array, lead + tail).reshape(-1, *tail)

    layers, sigma, w, p = [flat(layer, 2) for layer in stack], flat(sigma, 2), flat(w, 1), flat(p, 1)
    rows = sum(sum(layer.shape[-2:]) - 1 for layer in stack)
    size = max(1, _ENTRIES // rows**2)
    slices = [slice(first, first + size) for first in range(0, w.shape[0], size)]
    parts = [_anywhere([layer[part] for layer in layers], sigma[part], w[part], p[part]) for part in slices]
    return np.concatenate(parts).reshape(lead)


def as_regression(
    layers: Sequence[ArrayLike], covariance: ArrayLike, w: ArrayLike | None, readout: ArrayLike | None
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Checked layers, covariance, minimiser (zero if missing) and readout, whose leading axes broadcast."""
    stack = as_stack(layers)
    d, out = stack[0].shape[-1], stack[-1].shape[-2]
    sigma = _last_axes(covariance, "covariance", (d, d))
    target = np.zeros(d) if w is None else _last_axes(w, "w", (d,))
    if readout is None and out != 1:
        raise ValueError(f"readout is None with layers that end in {out} rows; expected a vector of length {out}")
    p = np.ones(1) if readout is None else _last_axes(readout, "readout", (out,))
    try:
        np.broadcast_shapes(*(x.shape[:-2] for x in (*stack, sigma)), *(x.shape[:-1] for x in (target, p)))
    except ValueError:
        shapes = {"covariance": sigma.shape[:-2], "w": target.shape[:-1], "readout": p.shape[:-1]}
        raise ValueError(
            f"layers has the leading axes {stack[0].shape[:-2]} and others {shapes}; expected equal ones"
        ) from None
    return stack, sigma, target, p


def as_stack(layers: Sequence[ArrayLike]) -> list[np.ndarray]:
    """Return `layers` as float64 arrays of shapes ``(..., d_k, d_{k-1})`` with equal leading axes."""
    try:
        stack = [as_array(layer, f"layers[{k}]") for k, layer in enumerate(layers)]
    except TypeError:
        raise ValueError(f"layers is {layers!r}; expected a list of matrices [W_1, ..., W_L]") from None
    if not stack:
        raise ValueError("layers is empty; expected a list of matrices [W_1, ..., W_L]")
    for k, layer in enumerate(stack):
        if layer.ndim < 2:
            raise ValueError(f"layers[{k}] has shape {layer.shape}; expected at least 2 dimensions")
        if layer.shape[:-2] != stack[0].shape[:-2]:
            raise ValueError(f"layers[{k}] has leading axes {layer.shape[:-2]}; expected {stack[0].shape[:-2]}")
        if k and layer.shape[-1] != stack[k - 1].shape[-2]:
            raise ValueError(f"layers[{k}] has {layer.shape[-1]} columns; expected {stack[k - 1].shape[-2]}")
    return stack


def _last_axes(value: ArrayLike, name: str, shape: tuple[int, ...]) -> np.ndarray:
    array = as_array(value, name)
    if array.shape[-len(shape) :] != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape} as its last axes, to fit layers")
    return array


def _backward(stack: list[np.ndarray], p: np.ndarray) -> list[np.ndarray]:
    """The vectors ``a_k = W_{k+1}^T ... W_L^T p`` for ``k = 0, ..., L``."""
    vectors = [p]
    for layer in stack[::-1]:
        vectors.append(np.matmul(vectors[-1][..., None, :], layer)[..., 0, :])
    return vectors[::-1]


def _at_minimiser(stack: list[np.ndarray], sigma: np.ndarray, p: np.ndarray) -> np.ndarray:
    a = _backward(stack, p)
    before = np.eye(stack[0].shape[-1])
    kernel = np.zeros_like(before)
    for k, layer in enumerate(stack, start=1):
        kernel = kernel + np.sum(a[k] ** 2, axis=-1)[..., None, None] * (np.swapaxes(before, -1, -2) @ before)
        before = layer @ before
    root = square_root(sigma)
    return 2 * np.linalg.eigvalsh(root @ kernel @ root)[..., -1]


def _anywhere(stack: list[np.ndarray], sigma: np.ndarray, w: np.ndarray, p: np.ndarray) -> np.ndarray:
    a = _backward(stack, p)
    f = 2 * np.matmul(sigma, (a[0] - w)[..., None])[..., 0]
    lead = np.broadcast_shapes(f.shape[:-1], *(layer.shape[:-2] for layer in stack))
    d = stack[0].shape[-1]
    # Coordinates: for each layer the matrices unit(a_k) e_j^T (`rows`), then, below the last layer, those with rows
    # orthogonal to a_k and columns along f_{k-1} (`columns`).
    rows = np.cumsum([0, *(layer.shape[-1] for layer in stack)])
    columns = rows[-1] + np.cumsum([0, *(layer.shape[-2] - 1 for layer in stack[:-1])])
    hessian = np.zeros((*lead, columns[-1], columns[-1]))
    jacobian = np.zeros((*lead, d, rows[-1]))
    before = np.broadcast_to(np.eye(d), (*lead, d, d))
    for k, layer in enumerate(stack):
        length, unit, complement = _frame(np.broadcast_to(a[k + 1], (*lead, a[k + 1].shape[-1])))
        jacobian[..., rows[k] : rows[k + 1]] = length[..., None, None] * np.swapaxes(before, -1, -2)
        if k + 1 < len(stack):
            size = np.linalg.norm(f, axis=-1)[..., None, None]
            # What U_k f_{k-1} is for the coordinates of this layer, carried up through the layers above.
            aligned, across = unit[..., :, None] * f[..., None, :], size * complement
            for above in range(k + 1, len(stack)):
                weight = np.linalg.norm(a[above + 1], axis=-1)[..., None, None]
                here = slice(rows[above], rows[above + 1])
                hessian[..., here, rows[k] : rows[k + 1]] = weight * aligned
                hessian[..., here, columns[k] : columns[k + 1]] = weight * across
                aligned, across = stack[above] @ aligned, stack[above] @ across
        before = layer @ before
        f = np.matmul(layer, f[..., None])[..., 0]
    hessian += np.swapaxes(hessian, -1, -2)
    hessian[..., : rows[-1], : rows[-1]] += 2 * np.swapaxes(jacobian, -1, -2) @ sigma @ jacobian
    # What is left out has eigenvalue zero, and the trace is not negative: neither is the largest eigenvalue.
    return np.linalg.eigvalsh(hessian)[..., -1]


def _frame(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The norm of each vector, a unit vector along it, and an orthonormal basis of the complement, by one reflection."""
    n = vectors.shape[-1]
    length = np.linalg.norm(vectors, axis=-1)
    sign = np.where(vectors[..., 0] < 0, -1.0, 1.0)
    unit = np.where(length[..., None] > 0, vectors / np.where(length > 0, length, 1.0)[..., None], np.eye(n)[0])
    axis = unit.copy()
    axis[..., 0] += sign
    reflection = np.eye(n) - axis[..., :, None] * axis[..., None, :] * (2 / np.sum(axis**2, axis=-1))[..., None, None]
    return length, unit, reflection[..., 1:]
