r"""The convex problem behind every flat pair, in coordinates where nothing but the nuclear norm is left.

``min nuclear(Z) + |A(Z) - b|^2 / (2 q)``, or with ``q = 0`` subject to ``A(Z) = b``; dual ``max b.y - q |y|^2 / 2`` subject
to ``|A*(y)| <= 1``. Algorithms see only this problem and propose factors of `Z` and a vector `y`; what they propose is
judged here.

With offsets, ``A(Z + a g.T + f c.T)`` stands for ``A(Z)`` and ``sum(left a^2) / (2 q) + sum(right c^2) / (2 q)`` is added, for
weights `left` and `right`. The dual objective loses ``q sum((A*(y) g)^2 / left) / 2 + q sum((A*(y).T f)^2 / right) / 2``: it
stays a lower bound for every `y`, and no constraint is added to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from balancedfact._linalg import frobenius
from balancedfact.certification._spectral_norm import ROUGH_STEPS, lanczos_steps, norm_bound
from balancedfact.measurements import MeasurementMap

Pair = tuple[np.ndarray, np.ndarray]


class Point(NamedTuple):
    r"""A balanced pair ``Z = L @ R.T`` with its singular values `s` (``L.T @ L = R.T @ R = diag(s)``) and a dual vector.

    A dual vector `y` of shape ``(m,)`` should have :math:`\|\mathcal A^*(y)\|_{op}\le 1`; any other is scaled. At the optimum
    with ``q > 0`` it is ``(b - A(Z)) / q``. Where the problem has offsets, the point also has their values `a` and `c`.

    See Also
    --------
    Algorithm : What proposes points.
    NuclearProblem : The problem that they belong to.

    References
    ----------
    Guide :doc:`/guide/own_algorithm`.

    Examples
    --------
    >>> import numpy as np
    >>> from balancedfact.solvers import Point
    >>> point = Point.from_matrix(np.outer([1.0, 2.0], [2.0, 0.0, 1.0]), np.zeros(4))
    >>> point.L.shape, point.R.shape, round(float(point.s[0]), 6)
    ((2, 2), (3, 2), 5.0)
    """

    L: np.ndarray
    R: np.ndarray
    s: np.ndarray
    y: np.ndarray
    offsets: Pair | None = None

    @classmethod
    def from_matrix(cls, Z: np.ndarray, y: np.ndarray) -> Point:
        """The point of a matrix `Z`, by its singular value decomposition, and a dual vector."""
        return cls(*balanced_from_matrix(Z), y)

    @classmethod
    def from_pair(cls, L: np.ndarray, R: np.ndarray, y: np.ndarray) -> Point:
        """The point of a pair with ``Z = L @ R.T``, balanced or not, and a dual vector."""
        return cls(*balanced(L, R), y)


class OffsetTerms(NamedTuple):
    """The vectors `f`, `g` that offsets multiply, ``a g.T + f c.T``, and the weights of the squares of `a` and of `c`."""

    f: np.ndarray
    g: np.ndarray
    left: np.ndarray
    right: np.ndarray


class Verdict(NamedTuple):
    """The worth of a point: objective, lower bound, relative residual, and the dual vector made feasible."""

    value: float
    lower: float
    residual: float
    y: np.ndarray
    proof: str


@dataclass(frozen=True)
class NuclearProblem:
    r"""The convex problem in normalised units, which algorithms see: a map, its data and the penalty `q`.

    .. math:: \min_Z \|Z\|_* + \tfrac1{2q}\|\mathcal A(Z) - b\|^2, \qquad\text{or with } q = 0 \qquad
              \min_{\mathcal A(Z) = b} \|Z\|_*.

    Attributes
    ----------
    map : MeasurementMap
        The measurements, in coordinates in which the objective is the nuclear norm.
    b : numpy.ndarray, shape (m,)
        The data.
    q : float
        The penalty; 0 interpolates.
    offsets : OffsetTerms, optional
        What belongs to row and column offsets, if the model has them.

    See Also
    --------
    Algorithm : What is given such a problem.
    Point : What an algorithm returns.

    References
    ----------
    Guide :doc:`/guide/own_algorithm`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> from balancedfact.solvers import NuclearProblem
    >>> problem = NuclearProblem(bf.measurements.gaussian(4, (2, 3), rng=0), np.ones(4), 0.5)
    >>> problem.map.matrix_shape, problem.q
    ((2, 3), 0.5)
    """

    map: MeasurementMap
    b: np.ndarray
    q: float
    offsets: OffsetTerms | None = None

    @property
    def density(self) -> float:
        """The mean squared weight with which a matrix entry is measured."""
        norms = self.map.row_norms
        return float(norms @ norms) / (self.map.matrix_shape[0] * self.map.matrix_shape[1])

    def residual(self, point: Point) -> np.ndarray:
        """The residual ``b - A(X)`` of a point, offsets included."""
        if self.offsets is None or point.offsets is None:
            return self.less(point.L, point.R)
        (f, g, _, _), (a, c) = self.offsets, point.offsets
        return self.less(np.column_stack([point.L, a, f]), np.column_stack([point.R, g, c]))

    def less(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        """The data less the measurements of ``L @ R.T``."""
        image = self.map.forward_factored(L, R)
        return np.subtract(self.b, image, out=image)

    def ridge(self, offsets: Pair | None) -> float:
        """The share of offsets in the objective."""
        if self.offsets is None or offsets is None:
            return 0.0
        return float(self.offsets.left @ offsets[0] ** 2 + self.offsets.right @ offsets[1] ** 2) / (2 * self.q)

    def judge(self, point: Point, rng: np.random.Generator, accuracy: float = 1e-3) -> Verdict:
        """The certificate of a point: its lower bound is computed from `y` alone and holds whatever `y` is.

        The bound may be loose by a relative `accuracy`; large problems get a looser one.
        """
        residual = self.residual(point)
        misfit, size = float(residual @ residual), float(np.linalg.norm(residual) / np.linalg.norm(self.b))
        del residual  # there may be hundreds of millions of measurements
        S = self.map.adjoint_for_many(point.y)
        with np.errstate(over="ignore"):  # a penalty of next to nothing makes residuals over it enormous, and nothing is proved
            along, square = float(self.b @ point.y), float(point.y @ point.y)
        if self.offsets is not None:
            f, g, left, right = self.offsets
            square += float(np.sum((S @ g) ** 2 / left) + np.sum((S.T @ f) ** 2 / right))
        misfit = 0.5 * misfit / self.q + self.ridge(point.offsets) if self.q > 0 else 0.0
        value = float(point.s.sum()) + misfit
        # Steps are for a norm that decides: where even a norm of 1 leaves the gap open, a rough bound will do.
        decisive = value - along + 0.5 * self.q * square <= 4 * accuracy * value
        root, steps = np.sqrt(point.s), lanczos_steps(accuracy, self.map.matrix_shape) if decisive else ROUGH_STEPS
        norm, proof = norm_bound(S, point.L / root, point.R / root, rng, steps=steps)
        # What rounding may have taken from the sum of matrices, which is large where they cancel.
        del S
        norm += 4 * np.finfo(float).eps * frobenius(point.y * self.map.row_norms)
        # The best multiple of y within its constraint; any will do where the measurements do not see it.
        cost, limits = self.q * square, (norm, self.q * square / along) if along > 0 else (0.0, 0.0)
        scale = 1 / max(limits) if max(limits) > 0 else 0.0
        lower = float(scale * (along - 0.5 * scale * cost))
        return Verdict(value, lower, size, scale * point.y, proof)


def balanced(L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The balanced pair with the product of `L` and `R`, and its singular values, in ``O((d1 + d2) k^2)`` operations."""
    if L.shape[1] == 0:
        return L, R, np.zeros(0)
    QL, TL = np.linalg.qr(L)
    QR, TR = np.linalg.qr(R)
    U, s, Vt = np.linalg.svd(TL @ TR.T)
    k = min(U.shape[1], Vt.shape[0])
    root = np.sqrt(s)
    return QL @ (U[:, :k] * root), QR @ (Vt[:k].T * root), s


def balanced_from_matrix(Z: np.ndarray, threshold: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The balanced pair of a matrix with its singular values lowered by `threshold`, those that vanish left out."""
    U, s, Vt = np.linalg.svd(Z, full_matrices=False)
    s = s - threshold
    keep = s > 0
    root = np.sqrt(s[keep])
    return U[:, keep] * root, Vt[keep].T * root, s[keep]
