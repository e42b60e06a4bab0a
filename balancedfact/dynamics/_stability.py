"""The largest step at which a minimum is stable in the mean square under stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse.linalg
from numpy.typing import ArrayLike

from balancedfact._validate import as_count, as_flag, as_layers, as_number
from balancedfact.dynamics._jets import Jets
from balancedfact.dynamics._model import MapModel
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map

_HESSIAN_RANK = 1e-12  # eigenvalues of the Hessian below this, relative to the largest, count as zero
_DECOMPOSED_DIRECTIONS = 20  # directions up to which the eigenvalue is found from the whole matrix


def stability_threshold(
    layers: Sequence[ArrayLike],
    A: MeasurementMap,
    b: ArrayLike,
    *,
    batch: int,
    replacement: bool = True,
    tol: float = 1e-6,
) -> float:
    r"""Largest step of mini-batch SGD at which weights that fit the data are linearly stable in the mean square.

    Near such weights a step multiplies the deviation by :math:`I-\frac\eta B\sum_{i\in\text{batch}}H_i`, with
    :math:`H_i = 2\,\nabla f_i\nabla f_i^\top` the Hessian of the loss of one measurement :math:`f_i = \langle A_i, E\rangle`.
    The covariance of the deviation does not grow if and only if :math:`\eta\le 2/\lambda`, with the largest eigenvalue of

    .. math:: \tfrac12(HY + YH)\,\lambda = (1-p)\,HYH + \frac pm\sum_i H_iYH_i, \qquad H = \frac1m\sum_i H_i,

    over symmetric `Y` on the range of `H`, where :math:`p = 1/B` for batches drawn with replacement, as `sgd` draws them, and
    :math:`p = \frac{m-B}{B(m-1)}` without. As `B` grows the threshold becomes ``2 / sharpness``, that of gradient descent.

    Parameters
    ----------
    layers : sequence of array_like, shapes (d_k, d_{k-1})
        ``[W_1, ..., W_L]`` that fit the data.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.
    batch : int
        The number `B` of measurements in a step.
    replacement : bool, optional
        Whether batches are drawn with replacement.
    tol : float, optional
        The largest residual of the data, relative to them, that counts as a fit.

    Returns
    -------
    float
        Infinite where the loss is flat in every direction.

    Raises
    ------
    ValueError
        If shapes do not fit, the weights do not fit the data, or an argument is out of range.

    See Also
    --------
    gradient_descent, sgd : The training rules.
    balancedfact.curvature.sharpness : The sharpness; with all measurements in a step the threshold is ``2 / sharpness``.

    References
    ----------
    Mulayoff, Michaeli, "Exact mean square linear stability analysis for SGD", 2023 (arXiv 2306.07850): the condition in this
    form, derived here anew from the definition.

    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(4, (3, 3), rng=0)
    >>> layers = bf.closed_forms.min_isotropic_layers(np.eye(3), [3, 3, 3])
    >>> b = A(np.eye(3))
    >>> one, many = (bf.dynamics.stability_threshold(layers, A, b, batch=B) for B in (1, 10**6))
    >>> bool(one < many), bool(abs(many * bf.curvature.sharpness(layers, A, b) - 2) < 1e-4)
    (True, True)
    """
    W = as_layers(layers, as_map(A).matrix_shape)
    model, B, limit = MapModel(A, b), as_count(batch, "batch"), as_number(tol, "tol", above=0)
    as_flag(replacement, "replacement")
    m = A.m
    if not replacement and m < B:
        raise ValueError(f"batch is {B}; expected at most the {m} measurements, or replacement")
    jets = Jets(model, [layer.shape for layer in W])
    y = jets.flat(W)
    missed = float(np.linalg.norm(jets.residual(y)))
    if missed > limit * max(float(np.linalg.norm(model.b)), np.finfo(float).tiny):
        raise ValueError(f"layers miss the data by {missed:.3g}; expected weights that fit, up to tol = {limit:g}")
    p = 1 / B if replacement else (m - B) / (B * (m - 1)) if m > 1 else 0.0
    return _threshold(jets.jacobian(y), p)


def _threshold(J: np.ndarray, p: float) -> float:
    """Compute the threshold from the gradients of the measurements, one a row."""
    m = J.shape[0]
    size = float(np.abs(J).max())
    if size == 0:
        return np.inf
    _, s, Vt = np.linalg.svd(J / size, full_matrices=False)
    kept = s**2 > _HESSIAN_RANK * s[0] ** 2
    g = (J / size) @ Vt[kept].T  # the gradients in the eigenvectors of the Hessian
    h = 2 / m * s[kept] ** 2
    r = h.size
    root = np.sqrt((h[:, None] + h) / 2)

    def both(x: np.ndarray) -> np.ndarray:
        Y = x.reshape(r, r) / root
        Y = (Y + Y.T) / 2
        inner = np.einsum("ia,ab,ib->i", g, Y, g, optimize=True)
        found = (1 - p) * h[:, None] * Y * h + (4 * p / m) * ((g.T * inner) @ g)
        return (found / root).ravel()

    if r <= _DECOMPOSED_DIRECTIONS:
        matrix = np.stack([both(unit) for unit in np.eye(r * r)])
        largest = float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])
    else:
        operator = scipy.sparse.linalg.LinearOperator((r * r, r * r), matvec=both, dtype=float)
        # The eigenvector is positive semidefinite, so the identity is not orthogonal to it.
        found = scipy.sparse.linalg.eigsh(operator, k=1, which="LA", v0=np.eye(r).ravel(), return_eigenvectors=False, tol=1e-12)
        largest = float(found[0])
    return 2 / largest / size**2
