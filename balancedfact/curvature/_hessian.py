r"""The Hessian of the loss as a whole: its spectrum, its norm, and how much the loss rises within a radius.

All for :math:`\mathcal L(W) = \frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2` over all entries of all layers, in the order of the
layers, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator, eigsh

from balancedfact._linalg import frobenius
from balancedfact._validate import as_count, as_number
from balancedfact.curvature._loss import Linearisation
from balancedfact.curvature._scaled import Scaled, ordinary
from balancedfact.measurements import MeasurementMap

FORMED_WEIGHTS = 2048  # weights up to which the Hessian is formed
_STARTS = 8


def spectrum(layers: Sequence[ArrayLike], A: MeasurementMap, b: ArrayLike) -> np.ndarray:
    r"""All eigenvalues of the Hessian of :math:`\frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`, with their signs.

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]``, `W_1` applied first, with at most 2048 entries together.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.

    Returns
    -------
    numpy.ndarray
        As many eigenvalues as weights, ascending, of the full matrix. At zero loss at most `m` are not zero.

    Raises
    ------
    ValueError
        If shapes do not fit, something has NaN, infinite or complex entries, or there are more than 2048 weights:
        `top_eigenpairs` has no limit.

    See Also
    --------
    top_eigenpairs : The largest only.
    hessian_norm : The norm without the eigenvalues.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> bf.curvature.spectrum([np.array([[3.0]]), np.array([[4.0]])], A, [12.0]).round(12)
    array([ 0., 50.])
    """
    at = _Hessian(layers, A, b)
    if at.size > FORMED_WEIGHTS:
        raise ValueError(f"layers have {at.size} entries; expected at most {FORMED_WEIGHTS}; use top_eigenpairs")
    return at.rescaled(np.linalg.eigvalsh(at.matrix()))


def top_eigenpairs(
    layers: Sequence[ArrayLike], A: MeasurementMap, b: ArrayLike, k: int = 1
) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    r"""The `k` largest eigenvalues of the Hessian of :math:`\frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`, with eigenvectors.

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]``, `W_1` applied first, of any size.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.
    k : int
        How many, at most the number of weights.

    Returns
    -------
    values : numpy.ndarray, shape (k,)
        Descending. The first is the `sharpness`.
    vectors : list of list of numpy.ndarray
        For each eigenvalue one array for each layer, of its shape; all together orthonormal.

    Raises
    ------
    ValueError
        If shapes do not fit, something has NaN, infinite or complex entries, or `k` is not from 1 to the number of weights.

    See Also
    --------
    spectrum : All eigenvalues.
    sharpness : The largest.

    Notes
    -----
    By Lanczos iterations on Hessian-vector products, from a fixed pseudorandom start; up to 2048 weights, or for more than half
    of the eigenvalues, from the Hessian itself.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> values, vectors = bf.curvature.top_eigenpairs([np.array([[3.0]]), np.array([[4.0]])], A, [12.0])
    >>> print(values.round(12), abs(vectors[0][0]).round(12))
    [50.] [[0.8]]
    """
    at = _Hessian(layers, A, b)
    count = as_count(k, "k")
    if count > at.size:
        raise ValueError(f"k is {count}; expected at most {at.size}, the number of weights")
    if at.size <= FORMED_WEIGHTS or 2 * count >= at.size:
        values, vectors = np.linalg.eigh(at.matrix())
    else:
        operator = LinearOperator((at.size, at.size), matvec=at.times, dtype=float)
        values, vectors = eigsh(operator, k=count, which="LA", v0=_pseudorandom(at.size, 0))
        order = np.argsort(values)
        values, vectors = values[order], vectors[:, order]
    top = slice(None, -count - 1, -1)
    return at.rescaled(values[top]), [at.parts(vector) for vector in vectors[:, top].T]


def hessian_norm(layers: Sequence[ArrayLike], A: MeasurementMap, b: ArrayLike) -> float:
    r"""Frobenius norm of the Hessian of :math:`\frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`, exactly.

    It is the root of the sum of the squares of the entries of the Hessian, and of its eigenvalues.

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]``, `W_1` applied first.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If shapes do not fit, or something has NaN, infinite or complex entries.

    See Also
    --------
    trace : The sum of the eigenvalues.
    sharpness : The largest.
    spectrum : All of them.

    Notes
    -----
    It costs one Hessian-vector product for each weight or, where there are fewer, for each measurement: with the derivatives
    `J_i` of the measurements the Hessian is :math:`\frac2m(\sum_iJ_iJ_i^\top + N)`, and

    .. math:: \bigl\|\sum_iJ_iJ_i^\top + N\bigr\|_F^2
              = \sum_i\bigl\langle J_i, \bigl(\sum_kJ_kJ_k^\top + 2N\bigr)J_i\bigr\rangle + \|N\|_F^2,

    where the block of `N` between the layers `j < k` is a Kronecker product of
    :math:`C_k^\top\mathcal A^*(\mathcal A(E) - b)B_{j-1}^\top` and :math:`W_{k-1}\cdots W_{j+1}`, with
    :math:`E = W_L\cdots W_1`, :math:`B_{j-1} = W_{j-1}\cdots W_1` and :math:`C_k = W_L\cdots W_{k+1}`.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> print(round(bf.curvature.hessian_norm([np.array([[3.0]]), np.array([[4.0]])], A, [12.0]), 12))
    50.0
    """
    at = _Hessian(layers, A, b)
    if at.size <= at.at.m:
        return float(at.rescaled(np.array(np.sqrt(sum(np.sum(at.times(unit) ** 2) for unit in np.eye(at.size))))))
    total, shift = at.residual_norm() ** 2, -at.exponent
    for i in range(at.at.m):
        unit = np.zeros(at.at.m)
        unit[i] = 1.0
        row = at.at.pulled_back(ordinary(unit))
        e = max(each.exponent for each in row)
        flat = np.concatenate([np.ldexp(each.array, each.exponent - e).ravel() for each in row])
        V = [ordinary(part) for part in at.parts(flat)]
        outer = at.joined(at.at.pulled_back(at.at.pushed_forward(V)))
        total += float(np.ldexp(flat @ (2 * at.times(flat) - outer), 2 * e + shift))
    return float(at.rescaled(np.array(np.sqrt(max(total, 0.0)))))


class Rise(NamedTuple):
    """The rise of the loss within a radius: one that is attained, the direction that attains it, and a proved upper bound."""

    value: float
    directions: list[np.ndarray]
    upper: float


def worst_direction_sharpness(layers: Sequence[ArrayLike], A: MeasurementMap, b: ArrayLike, radius: float) -> Rise:
    r"""The most that the loss rises within a radius, as sharpness-aware minimisation (SAM) defines sharpness.

    .. math:: \max_{\|V\|\le\rho}\ \mathcal L(W+V) - \mathcal L(W),

    where :math:`\mathcal L(W) = \frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2` and :math:`\|V\|` is the Frobenius norm of all
    layers together. For small radii the maximum is about :math:`\rho\|\nabla\mathcal L\|`, and at a minimiser about
    :math:`\frac{\rho^2}2` times the largest eigenvalue of the Hessian.

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]``, `W_1` applied first.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.
    radius : float
        :math:`\rho>0`.

    Returns
    -------
    Rise
        A named tuple. `value` is the rise at ``W + directions``, where `directions` has one array for each layer and norm
        `radius` together. It is the best of ascents from the leading eigenvector of the Hessian, with either sign, from the
        gradient, from their sums, and from six fixed pseudorandom directions. The problem is not concave, so `value` is a
        lower bound on the maximum; `upper` is a proved upper bound, and the two agree to first order in the radius.

    Raises
    ------
    ValueError
        If shapes do not fit, something has NaN, infinite or complex entries, or `radius` is not positive or so large that the
        loss overflows.

    See Also
    --------
    sharpness : The largest eigenvalue.
    balancedfact.dynamics.sharpness_aware : Training that lowers it.

    Notes
    -----
    The upper bound: the residual :math:`r = \mathcal A(W_L\cdots W_1) - b` moves by a linear term :math:`JV` and by terms of
    higher order in `V`. With :math:`w_k` the spectral norms of the layers, the norm of these terms is at most

    .. math:: q = \|\mathcal A\|\,\Bigl(\prod_k(w_k + \rho) - \prod_kw_k - \rho\sum_k\prod_{i\ne k}w_i\Bigr),

    and with the largest singular value :math:`\|J\|`

    .. math:: \mathcal L(W+V) - \mathcal L(W) \le \rho\|\nabla\mathcal L\|
              + \tfrac1m\bigl((\rho\|J\| + q)^2 + 2\|r\|q\bigr).

    For :math:`\|\mathcal A\|` stands its bound :math:`(\sum_i\|A_i\|_F^2)^{1/2}`, and for more than 2048 weights a bound stands
    for :math:`\|J\|` too.

    References
    ----------
    Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-aware minimization for efficiently improving generalization", 2021.

    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> rise = bf.curvature.worst_direction_sharpness([np.array([[3.0]]), np.array([[4.0]])], A, [12.0], 1e-3)
    >>> print(round(rise.value / 1e-6 * 2, 1), rise.value <= rise.upper)
    50.0 True
    """
    at, rho = _Hessian(layers, A, b), as_number(radius, "radius", above=0.0, most=1e100)
    W = [np.asarray(layer, dtype=float) for layer in layers]
    residual = at.at.residual.value()

    def rise(direction: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the rise at the end of a direction, and the slope in the direction before it is normalised."""
        size = float(np.linalg.norm(direction))
        V = at.parts(rho / size * direction)
        there = Linearisation([w + v for w, v in zip(W, V, strict=True)], A, b)
        after = there.residual.value()
        slope = at.joined(there.pulled_back(there.residual), keep=False) * (2 / A.m) * rho / size
        slope = slope - direction * (direction @ slope) / size**2
        return -float((after - residual) @ (after + residual)) / A.m, -slope

    top = at.joined([ordinary(part) for part in top_eigenpairs(layers, A, b)[1][0]], keep=False)
    gradient = at.joined(at.at.pulled_back(at.at.residual), keep=False) * (2 / A.m)
    starts = [top, -top, *[_pseudorandom(at.size, seed) for seed in range(_STARTS - 2)]]
    slope = float(np.linalg.norm(gradient))
    if slope > 0:
        starts = [gradient / slope, top + gradient / slope, -top + gradient / slope, *starts]
    from scipy.optimize import minimize  # takes a third of the time of the whole import

    best, where = -np.inf, top
    for start in starts:
        if np.linalg.norm(start) == 0:
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            found = minimize(rise, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-12, "ftol": 1e-15})
        if -found.fun > best:
            best, where = -float(found.fun), found.x
    if not np.isfinite(best):
        raise ValueError(f"radius is {rho}, where the loss is beyond the range of numbers; expected a smaller one")
    return Rise(best, at.parts(rho * where / np.linalg.norm(where)), at.upper(W, rho, slope, frobenius(residual)))


class _Hessian:
    """The Hessian near a point as an operator on vectors, in units of ``2 / m * 2**exponent``."""

    def __init__(self, layers: Sequence[ArrayLike], A: MeasurementMap, b: ArrayLike) -> None:
        self.at = Linearisation(layers, A, b)
        self.map = A
        self.ends = np.cumsum([rows * cols for rows, cols in self.at.shapes])
        self.size, self.exponent = int(self.ends[-1]), 0
        probe = self.at.hessian([ordinary(part) for part in self.parts(_pseudorandom(self.size, 0))])
        if any(each.array.any() for each in probe):
            self.exponent = max(each.exponent for each in probe if each.array.any())

    def parts(self, x: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(shape) for part, shape in zip(np.split(x, self.ends[:-1]), self.at.shapes, strict=True)]

    def joined(self, V: list[Scaled], *, keep: bool = True) -> np.ndarray:
        """One vector, in units of ``2**exponent`` or, unless they are kept, as it is."""
        shift = self.exponent if keep else 0
        return np.concatenate([np.ldexp(each.array, each.exponent - shift).ravel() for each in V])

    def times(self, x: np.ndarray) -> np.ndarray:
        return self.joined(self.at.hessian([ordinary(part) for part in self.parts(x)]))

    def matrix(self) -> np.ndarray:
        full = np.stack([self.times(unit) for unit in np.eye(self.size)])
        return (full + full.T) / 2

    def rescaled(self, values: np.ndarray) -> np.ndarray:
        return np.ldexp(2 / self.at.m * values, self.exponent)

    def residual_norm(self) -> float:
        """The Frobenius norm of the residual term, from its Kronecker products."""
        total = 0.0
        for k in range(1, len(self.at.W)):
            middle = None
            for j in range(k - 1, -1, -1):
                if k == len(self.at.W) - 1 and j == 0:  # the matrix of slopes itself, which may not be formed
                    with np.errstate(divide="ignore"):  # the logarithm of zero
                        norm, power = 1.0, self.at.log_norm_of_slope()
                else:
                    outer = self.at.D[k] @ self.at.B[j].T
                    norm, power = frobenius(outer.array), float(outer.exponent)
                inner = float(self.at.shapes[j][0]) ** 0.5 if middle is None else frobenius(middle.array)
                power += (0 if middle is None else middle.exponent) - self.exponent
                total += 2 * (norm * inner * 2.0**power) ** 2
                middle = self.at.W[j] if middle is None else middle @ self.at.W[j]
        return float(np.sqrt(total))

    def upper(self, W: list[np.ndarray], rho: float, slope: float, residual: float) -> float:
        """The bound of `worst_direction_sharpness`."""
        m, norms = self.at.m, [float(np.linalg.norm(w, 2)) for w in W]
        top = float(np.linalg.norm(self.map.row_norms))  # at least the norm of the map
        # Coefficients of the product of w_k + t, of which those from t**2 on are of higher order; v_k <= rho for every layer.
        coefficients = np.polynomial.polynomial.polyfromroots([-w for w in norms])
        beyond = top * float(sum(c * rho**power for power, c in enumerate(coefficients) if power >= 2))
        linear = top * float(sum(np.prod(norms[:k] + norms[k + 1 :]) ** 2 for k in range(len(norms)))) ** 0.5
        if self.size <= FORMED_WEIGHTS:
            J = np.stack([self.joined(self.at.pulled_back(ordinary(unit)), keep=False) for unit in np.eye(m)])
            linear = min(linear, float(np.linalg.norm(J, 2)))
        return rho * slope + ((rho * linear + beyond) ** 2 + 2 * residual * beyond) / m


def _pseudorandom(size: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(size)
    return x / np.linalg.norm(x)
