r"""The sharpness: the largest eigenvalue of the Hessian of the loss.

Let ``J`` be the derivative of the measurements with respect to the layers. The Hessian is :math:`\frac2mJ^\top J` plus the
residual term, which only depends on :math:`G = \frac2m\mathcal A^*(\mathcal A(E) - b)` and vanishes with it: at zero loss, and
at every point whose end-to-end matrix minimises the loss among all matrices. There the sharpness is
:math:`\frac2m\lambda_{\max}(JJ^\top) = \frac2m\lambda_{\max}(\mathcal AK\mathcal A^*)`,
:math:`K(Y) = \sum_jC_jC_j^\top YB_{j-1}^\top B_{j-1}`, a problem of the smallest of three sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator, eigsh

from balancedfact._linalg import frobenius, magnitude
from balancedfact.curvature._loss import Linearisation
from balancedfact.curvature._scaled import ONE, Scaled, ordinary
from balancedfact.measurements import MeasurementMap

# The residual term is left out where it is proved to change the sharpness by less than this, relatively.
_NEGLIGIBLE = 1e-13
_DECOMPOSED_ORDER = 64  # symmetric matrices up to this order are formed from their action and decomposed
_LARGEST_DENSE = 512  # order up to which A* A is formed
_MATRICES_AT_ONCE = 4096  # measurements whose matrices are formed at a time
_TOLERANCE = 1e-14

Vector = list[Scaled]


def sharpness(layers: Sequence[ArrayLike], A: MeasurementMap, b: ArrayLike) -> float:
    r"""Largest eigenvalue of the Hessian of :math:`\mathcal L(W) = \frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`.

    At zero loss, and wherever :math:`\mathcal A^*(\mathcal A(E) - b) = 0` for :math:`E = W_L\cdots W_1`, it is

    .. math:: \tfrac2m\,\lambda_{\max}(\mathcal AK\mathcal A^*), \qquad K(Y) = \sum_j C_jC_j^\top\,Y\,B_{j-1}^\top B_{j-1},

    with :math:`B_{j-1} = W_{j-1}\cdots W_1` and :math:`C_j = W_L\cdots W_{j+1}`. Elsewhere it is the largest eigenvalue, in the
    order of signed numbers, of the operator `hessian_vector_product`, residual term included.

    Parameters
    ----------
    layers : list of array_like
        ``[W_1, ..., W_L]`` with ``W_k`` of shape ``(d_k, d_{k-1})``, `W_1` applied first.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices; for regression with one output on the rows of `X`, ``Dense(X[:, None, :])``.
    b : array_like, shape (m,)
        The data.

    Returns
    -------
    float
        Never negative, since the trace of the Hessian is not.

    Raises
    ------
    ValueError
        If shapes do not fit, or something has NaN, infinite or complex entries.

    See Also
    --------
    sharpest_direction : A direction in which it is attained.
    worst_direction_sharpness : The sharpness that sharpness-aware training lowers.
    balancedfact.minimal_sharpness : Its least value over all factorizations.

    Notes
    -----
    The residual term is left out only where a bound on its norm proves it to be below ``1e-13`` of the result. The rest has the
    same positive eigenvalues as a matrix of order ``d_0 d_L``, which is :math:`2\hat\Sigma^{1/2}K\hat\Sigma^{1/2}` for one
    output, and as one of order ``m``. The former is decomposed if it is small; otherwise Lanczos iterations run on vectors of
    as many numbers as there are weights or measurements, whichever are fewer. Where the residual term counts, they run on the
    Hessian itself. They start from fixed pseudorandom vectors, so that the result is deterministic.

    References
    ----------
    Marion, Chizat, "Deep linear networks for regression are implicitly regularized towards flat minima", 2024, for one output.

    Chapters :doc:`/theory/curvature` and :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> bf.curvature.sharpness([np.ones((1, 1))] * 5, A, [1.0])
    10.0
    """
    return _top_of_hessian(Linearisation(layers, A, b)).number


def sharpest_direction(layers: Sequence[ArrayLike], A: MeasurementMap, b: ArrayLike) -> tuple[float, list[np.ndarray]]:
    """The `sharpness` with a direction in which it is attained: an eigenvector of the Hessian of norm one.

    Parameters
    ----------
    layers, A, b
        As for `sharpness`.

    Returns
    -------
    sharpness : float
    directions : list of numpy.ndarray
        One array for each layer, of its shape, with squared norms that add up to one. The common sign is arbitrary, and so is
        the choice of an eigenvector where the largest eigenvalue is multiple.

    Raises
    ------
    ValueError
        As for `sharpness`.

    See Also
    --------
    sharpness : The eigenvalue that belongs to it.
    top_eigenpairs : Several at once.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense(np.ones((1, 1, 1)))
    >>> value, (first, second) = bf.curvature.sharpest_direction([np.array([[3.0]]), np.array([[4.0]])], A, [12.0])
    >>> value
    50.0
    >>> abs(first / second)
    array([[1.33333333]])
    """
    at = Linearisation(layers, A, b)
    top = _top_of_hessian(at)
    return top.number, _parts(top.vector(), at.shapes)


class _Eigenvalue(NamedTuple):
    """The number ``value * 2**exponent``, and what returns a unit eigenvector to it."""

    value: float
    exponent: int
    vector: Callable[[], np.ndarray]

    @property
    def number(self) -> float:
        return float(np.ldexp(self.value, self.exponent))


def _top_of_hessian(at: Linearisation) -> _Eigenvalue:
    top = _top_of_gauss_newton(at)
    if not _residual_term_is_below(at, _NEGLIGIBLE * top.value, top.exponent):
        top = _top(at.hessian, at.shapes, top.vector() + 0.1 * _pseudorandom(at.shapes))
    return top._replace(value=2 / at.m * top.value)


def _residual_term_is_below(at: Linearisation, value: float, exponent: int) -> bool:
    r"""Tell whether ``value * 2**exponent`` bounds the norm of the residual term.

    Its block between the layers ``j < k`` has the norm :math:`\|C_k^\top GB_{j-1}^\top\|_2\|W_{k-1}\cdots W_{j+1}\|_2`, at most
    :math:`\|C_k^\top G\|_F\|B_{j-1}\|_F\prod_{j<i<k}\|W_i\|_2`.
    """
    if len(at.W) == 1:
        return True
    with np.errstate(divide="ignore"):  # the logarithm of zero is minus infinity, and so is that of its products
        gradients = [*(_log_norm(D, frobenius(D.array)) for D in at.D[:-1]), at.log_norm_of_slope()]
        before = [0.0, *(_log_norm(B, frobenius(B.array)) for B in at.B[1:])]
        between = [_log_norm(W, _spectral_bound(W.array)) for W in at.W]
        allowed = np.log2(value) + exponent
    squares = -np.inf
    for k in range(len(at.W)):
        product = 0.0
        for j in range(k - 1, -1, -1):
            squares = np.logaddexp2(squares, 1 + 2 * (gradients[k] + product + before[j]))
            product += between[j]
    return bool(squares / 2 <= allowed)


def _log_norm(X: Scaled, norm: float) -> float:
    return float(np.log2(norm)) + X.exponent


def _spectral_bound(W: np.ndarray) -> float:
    """An upper bound of the spectral norm, at most a few tenths above it: the Frobenius norm of a high power."""
    size = magnitude(W)
    power = W / size
    power = power @ power.T if len(W) < W.shape[1] else power.T @ power
    for _ in range(3):
        power = power @ power
    return size * float(np.linalg.norm(power)) ** (1 / 16)


def _top_of_gauss_newton(at: Linearisation) -> _Eigenvalue:
    """The top of the Hessian without its residual term, on the smallest of three sides."""
    m, outer, inner = at.m, at.matrix_shape[0] * at.matrix_shape[1], sum(rows * cols for rows, cols in at.shapes)
    if outer <= _DECOMPOSED_ORDER or outer <= min(m, inner, _LARGEST_DENSE):
        return _on_matrices(at)
    if inner < m:
        start = _pseudorandom(at.shapes)
        return _top(lambda V: at.pulled_back(at.pushed_forward(V)), at.shapes, start)
    top = _top(lambda y: [at.pushed_forward(at.pulled_back(y[0]))], [(m,)], _pseudorandom([(m,)]))
    return top._replace(vector=lambda: _unit(at.pulled_back(ordinary(top.vector()))))


def _on_matrices(at: Linearisation) -> _Eigenvalue:
    """The top of ``K^(1/2) A* A K^(1/2)``, of order ``d_0 d_L``."""
    d1, d2 = at.matrix_shape
    after = [Scaled(np.eye(d1)) if C is ONE else C @ C.T for C in at.C]
    before = [Scaled(np.eye(d2)) if B is ONE else B.T @ B for B in at.B]
    exponents = [Q.exponent + P.exponent for Q, P in zip(after, before, strict=True)]
    top = max(exponents)
    Q = np.stack([np.ldexp(each.array, e - top).ravel() for each, e in zip(after, exponents, strict=True)])
    P = np.stack([each.array.ravel() for each in before])
    K = (Q.T @ P).reshape(d1, d1, d2, d2).transpose(0, 2, 1, 3).reshape(d1 * d2, d1 * d2)
    squares, axes = np.linalg.eigh(K)
    root = axes * np.sqrt(np.maximum(squares, 0.0))
    gram = _gram(at.map)
    values, vectors = np.linalg.eigh(root.T @ gram @ root)
    mantissa, shift = np.frexp(at.scale)

    def vector() -> np.ndarray:
        matrix = (gram @ (root @ vectors[:, -1])).reshape(d1, d2)
        return _unit(at.pulled_back_matrix(ordinary(matrix)))

    return _Eigenvalue(max(float(values[-1]), 0.0) * mantissa**2, top + 2 * int(shift), vector)


def _gram(A: MeasurementMap) -> np.ndarray:
    """The matrix of ``A* A`` on row-major vectors."""
    d1, d2 = A.matrix_shape
    total = np.zeros((d1 * d2, d1 * d2))
    for start in range(0, A.m, _MATRICES_AT_ONCE):
        chunk = A if A.m <= _MATRICES_AT_ONCE else A.select(np.arange(start, min(start + _MATRICES_AT_ONCE, A.m)))
        rows = chunk.stack().reshape(chunk.m, d1 * d2)
        total += rows.T @ rows
    return total


def _top(apply: Callable[[Vector], Vector], shapes: Sequence[tuple[int, ...]], start: np.ndarray) -> _Eigenvalue:
    """The top of a symmetric operator on lists of arrays of the given shapes."""

    def applied(x: np.ndarray) -> Vector:
        return apply([ordinary(part) for part in _parts(x, shapes)])

    first = applied(start)
    if not any(each.array.any() for each in first):  # for a start that is generic: the operator is zero
        return _Eigenvalue(0.0, 0, lambda: start / np.linalg.norm(start))
    exponent = max(each.exponent for each in first)

    def action(x: np.ndarray) -> np.ndarray:
        return np.concatenate([np.ldexp(each.array, each.exponent - exponent).ravel() for each in applied(x)])

    if start.size <= _DECOMPOSED_ORDER:
        matrix = np.stack([action(unit) for unit in np.eye(start.size)])
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    else:
        operator = LinearOperator((start.size, start.size), matvec=action, dtype=float)
        values, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=_TOLERANCE)
    return _Eigenvalue(float(values[-1]), exponent, lambda: vectors[:, -1])


def _unit(V: Vector) -> np.ndarray:
    top = max(each.exponent for each in V)
    flat = np.concatenate([np.ldexp(each.array, each.exponent - top).ravel() for each in V])
    norm = np.linalg.norm(flat)
    return flat / norm if norm > 0 else _pseudorandom([flat.shape])  # the operator is zero: every vector will do


def _parts(x: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(x, ends[:-1]), shapes, strict=True)]


def _pseudorandom(shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal(sum(math.prod(shape) for shape in shapes))
    return x / np.linalg.norm(x)
