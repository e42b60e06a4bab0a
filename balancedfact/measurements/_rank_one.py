"""Measurements by rank-one matrices: bilinear sensing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator

from balancedfact._linalg import frobenius, safe_scale
from balancedfact._packing import Packing
from balancedfact._validate import as_array
from balancedfact.measurements._base import MeasurementMap
from balancedfact.measurements._careful import gamma
from balancedfact.measurements._pair_gram import gram_of_blocks
from balancedfact.measurements._second_moment import RankOneMoment, SecondMoment, Superoperator, worth_forming

# Entries up to which the adjoint is formed, and numbers that a core's cache holds.
MOST_ENTRIES, _CACHED = 2**24, 2**17


class RankOne(MeasurementMap):
    r"""Measurements :math:`u_i^\top X v_i` by the rank-one matrices :math:`A_i = u_i v_i^\top`, none of which is formed.

    Parameters
    ----------
    left : array_like, shape (m, d1)
        The vectors :math:`u_i`.
    right : array_like, shape (m, d2)
        The vectors :math:`v_i`.

    Raises
    ------
    ValueError
        If `left` and `right` are not matrices of finite real numbers with one row for each measurement.

    See Also
    --------
    Dense : Matrices of any rank.
    bilinear : Random instances.
    regression : The data of a regression.

    Notes
    -----
    A second moment costs two matrix products, ``O(m (d1**2 + d2**2))`` operations; the forward map ``O(m d1 d2)``, or
    ``O(m k (d1 + d2))`` on a factored matrix ``L @ R.T`` of ``k`` columns.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.RankOne([[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]])
    >>> A(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([2., 4.])
    """

    def __init__(self, left: ArrayLike, right: ArrayLike) -> None:
        self.left = as_array(left, "left", ndim=2)
        self.right = as_array(right, "right", ndim=2)
        if self.right.shape[0] != self.left.shape[0]:
            raise ValueError(f"right has {self.right.shape[0]} rows; expected {self.left.shape[0]}, as left has")
        self._describe()

    def _describe(self) -> None:
        self.m = self.left.shape[0]
        self.matrix_shape = (self.left.shape[1], self.right.shape[1])

    @classmethod
    def _from_vectors(cls, left: np.ndarray, right: np.ndarray) -> RankOne:
        self = cls.__new__(cls)
        self.left, self.right = left, right
        self._describe()
        return self

    forms_stack = False

    def _forward(self, X: np.ndarray) -> np.ndarray:
        return np.einsum("ij,ij->i", self.left @ X, self.right)

    def forward_factored(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        return np.einsum("ij,ij->i", self.left @ L, self.right @ R)

    def image_squares(self, U: np.ndarray, V: np.ndarray) -> np.ndarray:
        return np.einsum("ij,ij->j", (self.left @ U) ** 2, (self.right @ V) ** 2)

    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        return (self.left.T * y) @ self.right

    def adjoint_operator(self, y: np.ndarray) -> LinearOperator:
        def times(V: np.ndarray) -> np.ndarray:
            return self.left.T @ (y * (self.right @ V).T).T

        def transposed_times(U: np.ndarray) -> np.ndarray:
            return self.right.T @ (y * (self.left @ U).T).T

        return LinearOperator(
            self.matrix_shape, matvec=times, matmat=times, rmatvec=transposed_times, rmatmat=transposed_times, dtype=float
        )

    def adjoint_for_many(self, y: np.ndarray) -> np.ndarray | LinearOperator:
        d1, d2 = self.matrix_shape
        # A product with the operator reads all vectors twice, which takes longer than any product with the matrix.
        return self._adjoint(y) if d1 * d2 <= min(MOST_ENTRIES, self.m * (d1 + d2)) else self.adjoint_operator(y)

    def adjoint_norm(self, y: np.ndarray) -> float:
        weighted = y[:, None] * self.right
        blocks = np.array_split(self.left.T, -(-self.matrix_shape[0] // 256))
        return frobenius(np.array([frobenius(block @ weighted) for block in blocks]))

    @property
    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        return self.left, self.right

    @property
    def moment_cost(self) -> int:
        return self.m * max(self.matrix_shape) ** 2

    def pair_hessian(
        self, L: np.ndarray, R: np.ndarray, y: np.ndarray | None = None, *, coupled: int | None = None
    ) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        u, v = self.left, self.right
        uL, vR = u @ L, v @ R
        count = 0 if y is None else L.shape[1] if coupled is None else coupled
        rows = max(1, _CACHED // sum(self.matrix_shape))

        def hessian(dL: np.ndarray, dR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            G, H = np.zeros_like(dL), np.zeros_like(dR)
            for start in range(0, self.m, rows):  # a block of vectors is used twice while it is in the cache
                i = slice(start, start + rows)
                du, dv = u[i] @ dL, v[i] @ dR
                change = np.einsum("ij,ij->i", du, vR[i]) + np.einsum("ij,ij->i", uL[i], dv)
                forth, back = change[:, None] * vR[i], change[:, None] * uL[i]
                if y is not None and count > 0:
                    forth[:, :count] -= y[i, None] * dv[:, :count]
                    back[:, :count] -= y[i, None] * du[:, :count]
                G += u[i].T @ forth
                H += v[i].T @ back
            return G, H

        return hessian

    def pair_gram(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        def jacobian(i: slice) -> np.ndarray:
            u, v = self.left[i], self.right[i]
            halves = u[:, :, None] * (v @ R)[:, None], v[:, :, None] * (u @ L)[:, None]
            return np.concatenate(halves, axis=1).reshape(len(u), -1)

        return gram_of_blocks(jacobian, self.m, L.size + R.size)

    def _left_moment(self, P: np.ndarray) -> np.ndarray:
        weights = np.einsum("ij,ij->i", self.right @ P, self.right)
        return (self.left.T * weights) @ self.left

    def _right_moment(self, Q: np.ndarray) -> np.ndarray:
        weights = np.einsum("ij,ij->i", self.left @ Q, self.left)
        return (self.right.T * weights) @ self.right

    def second_moment(self) -> SecondMoment:
        d1, d2 = self.matrix_shape
        if not worth_forming(d1, d2, self.m * (d1**2 + d2**2)):
            return self.streamed_moment()
        unit = self.at_unit_scale()
        packed = []
        for vectors in (unit.left, unit.right):
            packing = Packing(vectors.shape[1])
            packed.append(vectors[:, packing.rows] * vectors[:, packing.cols] * packing.weights)
        return Superoperator(packed[0].T @ packed[1], self.matrix_shape, 2 / self.m, self.scale)

    def streamed_moment(self) -> SecondMoment:
        unit = self.at_unit_scale()
        return RankOneMoment(unit.left, unit.right, self.scale)

    def rotated(self, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        return np.einsum("ip,iq->ipq", self.left @ P, self.right @ Q)

    def congruence(self, P: np.ndarray, Q: np.ndarray) -> RankOne:
        return RankOne._from_vectors(self.left @ P, self.right @ Q)

    def select(self, index: np.ndarray, weights: np.ndarray | None = None) -> RankOne:
        whole = np.array_equal(index, np.arange(self.m))  # then there is nothing to copy
        left, right = (self.left, self.right) if whole else (self.left[index], self.right[index])
        return RankOne._from_vectors(left if weights is None else left * weights[:, None], right)

    @cached_property
    def row_norms(self) -> np.ndarray:
        return np.linalg.norm(self.left, axis=1) * np.linalg.norm(self.right, axis=1)

    def scaled_gram(self, W11: np.ndarray, W12: np.ndarray, W22: np.ndarray) -> np.ndarray:
        cross = self.left @ W12 @ self.right.T
        return (self.left @ W11 @ self.left.T) * (self.right @ W22 @ self.right.T) + cross * cross.T

    def unfolding(self, side: int) -> tuple[np.ndarray, float]:
        ours, theirs = (self.left, self.right) if side == 0 else (self.right, self.left)
        return ours * _lengths(theirs)[:, None], gamma(theirs.shape[1])

    def careful_adjoint(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        S, size, starts = np.zeros(self.matrix_shape), np.zeros(self.matrix_shape), range(0, self.m, 512)
        for start in starts:
            i = slice(start, start + 512)
            S += (self.left[i].T * y[i]) @ self.right[i]
            size += (np.abs(self.left[i]).T * np.abs(y[i])) @ np.abs(self.right[i])
        return S, gamma(min(512, self.m) + len(starts)) * size

    def careful_forward(self, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes = np.einsum("ij,ij->i", np.abs(self.left) @ np.abs(L), np.abs(self.right) @ np.abs(R))
        return self.forward_factored(L, R), gamma(sum(self.matrix_shape) + L.shape[1]) * sizes

    @cached_property
    def _scales(self) -> tuple[float, float]:
        return safe_scale(float(np.abs(self.left).max())), safe_scale(float(np.abs(self.right).max()))

    @property
    def scale(self) -> float:
        return self._scales[0] * self._scales[1]

    def at_unit_scale(self) -> RankOne:
        a, b = self._scales
        return self if a == b == 1.0 else RankOne._from_vectors(self.left / a, self.right / b)


def _lengths(X: np.ndarray) -> np.ndarray:
    """The norms of the rows, without squaring numbers that are far from 1."""
    largest = np.maximum(X.max(axis=1, initial=0.0), -X.min(axis=1, initial=0.0))
    far = (largest > 0) & ((largest < 1e-100) | (largest > 1e100))
    with np.errstate(over="ignore", under="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", X, X))
    lengths[far] = [frobenius(each) for each in X[far]]
    return np.asarray(lengths)
