"""Measurements by arbitrary matrices."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import frobenius, safe_scale
from balancedfact._packing import Packing
from balancedfact._validate import as_array
from balancedfact.measurements._base import MeasurementMap
from balancedfact.measurements._careful import careful_combination, gamma
from balancedfact.measurements._pair_gram import gram_of_blocks
from balancedfact.measurements._second_moment import MapMoment, SecondMoment, Superoperator, worth_forming

# Multiplications of one second moment beyond which two energies are worth four small eigendecompositions.
_WORTH_PAIRING = 5_000_000
# The Jacobian of a pair is formed where it is smaller than the matrices by this factor.
_MANY_COLUMNS = 2


class Dense(MeasurementMap):
    r"""Measurements :math:`\langle A_i, X\rangle` by arbitrary matrices.

    Parameters
    ----------
    matrices : array_like, shape (m, d1, d2)
        The matrices :math:`A_i`.

    Raises
    ------
    ValueError
        If `matrices` is not a stack of matrices of finite real numbers.

    See Also
    --------
    RankOne : Where all matrices are products of vectors.
    Entries : Where they are single entries.
    gaussian : Random instances.

    Notes
    -----
    The matrices are stored as ``(d1, m, d2)``: in that order both second moments are a plain product on either side of one
    congruence, ``O(m d1 d2 (d1 + d2))`` operations, and nothing is ever transposed in memory.

    References
    ----------
    Guide :doc:`/guide/own_measurements`, chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Dense([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]])
    >>> A(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([5., 2.])
    """

    def __init__(self, matrices: ArrayLike) -> None:
        stack = as_array(matrices, "matrices", ndim=3)
        self._slabs = np.ascontiguousarray(stack.transpose(1, 0, 2))
        self._describe()

    def _describe(self) -> None:
        d1, self.m, d2 = self._slabs.shape
        self.matrix_shape = (d1, d2)

    @classmethod
    def _from_slabs(cls, slabs: np.ndarray) -> Dense:
        self = cls.__new__(cls)
        self._slabs = slabs
        self._describe()
        return self

    @property
    def matrices(self) -> np.ndarray:
        """The matrices :math:`A_i`, shape ``(m, d1, d2)``."""
        return self._slabs.transpose(1, 0, 2)

    def _forward(self, X: np.ndarray) -> np.ndarray:
        return np.matmul(self._slabs, X[:, :, None])[:, :, 0].sum(axis=0)

    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        return np.matmul(y, self._slabs)

    def _left_moment(self, P: np.ndarray) -> np.ndarray:
        d1, m, d2 = self._slabs.shape
        product = (self._slabs.reshape(d1 * m, d2) @ P).reshape(d1, m * d2)
        return product @ self._slabs.reshape(d1, m * d2).T

    def _right_moment(self, Q: np.ndarray) -> np.ndarray:
        d1, m, d2 = self._slabs.shape
        product = (Q @ self._slabs.reshape(d1, m * d2)).reshape(d1 * m, d2)
        return self._slabs.reshape(d1 * m, d2).T @ product

    def pair_hessian(
        self, L: np.ndarray, R: np.ndarray, y: np.ndarray | None = None, *, coupled: int | None = None
    ) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        r"""The second derivative as for any map; for few columns from the Jacobian ``[A_i R, A_i.T L]``, formed once.

        That takes as long as one product with the matrices, and a product with it less, as ``k (d1 + d2)`` is to ``d1 d2``.
        """
        (d1, d2), k = self.matrix_shape, L.shape[1]
        if _MANY_COLUMNS * k * (d1 + d2) > d1 * d2:
            return super().pair_hessian(L, R, y, coupled=coupled)
        count, J = k if coupled is None else coupled, self._pair_jacobian(L, R)
        back = None if y is None or count == 0 else self.adjoint_operator(y)

        def hessian(dL: np.ndarray, dR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            image = ((J @ np.vstack([dL, dR]).ravel()) @ J).reshape(d1 + d2, k)
            G, H = image[:d1], image[d1:]
            if back is not None:
                G[:, :count] -= back @ dR[:, :count]
                H[:, :count] -= back.T @ dL[:, :count]
            return G, H

        return hessian

    def pair_gram(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        def jacobian(i: slice) -> np.ndarray:
            return Dense._from_slabs(self._slabs[:, i])._pair_jacobian(L, R)

        return gram_of_blocks(jacobian, self.m, L.size + R.size)

    def _pair_jacobian(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        """The derivative of ``A(L R.T)`` by the entries of `L` above those of `R`, row by row, shape ``(m, (d1 + d2) k)``."""
        (d1, m, d2), k = self._slabs.shape, L.shape[1]
        J = np.empty((m, d1 + d2, k))
        J[:, :d1] = (self._slabs.reshape(d1 * m, d2) @ R).reshape(d1, m, k).transpose(1, 0, 2)
        J[:, d1:] = (L.T @ self._slabs.reshape(d1, m * d2)).reshape(k, m, d2).transpose(1, 2, 0)
        return J.reshape(m, -1)

    def second_moment(self) -> SecondMoment:
        d1, m, d2 = self._slabs.shape
        if not worth_forming(d1, d2, m * d1 * d2 * (d1 + d2)):
            return self.streamed_moment()
        slabs, left, right = self.at_unit_scale()._slabs, Packing(d1), Packing(d2)
        table, start = np.empty((left.size, right.size)), 0
        for p in range(d1):
            blocks = np.matmul(slabs[p].T, slabs[p:])  # sum_i A_i[p, q] A_i[s, r] for s >= p
            table[start : start + d1 - p] = right.pack((blocks + blocks.transpose(0, 2, 1)) / 2)
            start += d1 - p
        table *= left.weights[:, None]
        return Superoperator(table, self.matrix_shape, 2 / m, self.scale)

    def streamed_moment(self) -> SecondMoment:
        return DenseMoment(self)

    def _rotated_slabs(self, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        d1, m, d2 = self._slabs.shape
        half = P.T @ self._slabs.reshape(d1, m * d2)
        return (half.reshape(-1, d2) @ Q).reshape(P.shape[1], m, Q.shape[1])

    def stack(self) -> np.ndarray:
        return self.matrices

    @property
    def stored_stack(self) -> np.ndarray:
        return self.matrices

    def rotated(self, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        return self._rotated_slabs(P, Q).transpose(1, 0, 2)

    def congruence(self, P: np.ndarray, Q: np.ndarray) -> Dense:
        return Dense._from_slabs(self._rotated_slabs(P, Q))

    def select(self, index: np.ndarray, weights: np.ndarray | None = None) -> Dense:
        chosen = self._slabs[:, index]
        return Dense._from_slabs(chosen if weights is None else chosen * weights[:, None])

    @cached_property
    def row_norms(self) -> np.ndarray:
        return np.sqrt(np.einsum("pmq,pmq->m", self._slabs, self._slabs))

    def unfolding(self, side: int) -> tuple[np.ndarray, float]:
        d1, m, d2 = self._slabs.shape
        return (self._slabs.reshape(d1, m * d2).T if side == 0 else self._slabs.reshape(d1 * m, d2)), 0.0

    def careful_adjoint(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return careful_combination(y, self._slabs)

    def careful_forward(self, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (d1, d2), size = self.matrix_shape, np.abs(L) @ np.abs(R).T
        sizes = np.zeros(self.m)
        for slab, row in zip(self._slabs, size, strict=True):
            sizes += np.abs(slab) @ row
        return self.forward_factored(L, R), gamma(d1 + d2 + L.shape[1]) * sizes

    @cached_property
    def scale(self) -> float:
        return safe_scale(float(np.abs(self._slabs).max()))

    def at_unit_scale(self) -> Dense:
        return self if self.scale == 1.0 else Dense._from_slabs(self._slabs / self.scale)


class DenseMoment(MapMoment):
    """The second moments of a map of arbitrary matrices, evaluated each time, at half the price where many are asked for."""

    def __init__(self, A: Dense) -> None:
        super().__init__(A)
        self._matrices = A.at_unit_scale()

    def energies(self, factors: list[tuple[np.ndarray | None, np.ndarray | None]]) -> list[float]:
        (d1, d2), slabs = self.matrix_shape, self._matrices._slabs
        m = slabs.shape[1]
        if m * d1 * d2 * (d1 + d2) < _WORTH_PAIRING:
            return super().energies(factors)
        energies, inner = np.zeros(len(factors)), []
        for k, (C, B) in enumerate(factors):
            if B is None:
                rows = slabs.reshape(d1, m * d2)
                energies[k] = np.vdot(rows, rows) if C is None else np.vdot(C, (rows @ rows.T) @ C)
            elif C is None:
                columns = slabs.reshape(d1 * m, d2)
                energies[k] = np.vdot(B, B @ (columns.T @ columns))
            else:
                inner.append((k, C, B))
        for (i, C, B), (j, D, E) in zip(inner[::2], inner[1::2], strict=False):
            (S, (s, u)), (T, (t, v)) = _joint_axes(C.T, D.T), _joint_axes(B, E)
            rotated = self._matrices._rotated_slabs(S, T)
            squares = np.square(rotated, out=rotated).sum(axis=1)
            energies[i], energies[j] = s @ squares @ t, u @ squares @ v
        if len(inner) % 2:
            k, C, B = inner[-1]
            [energies[k]] = super().energies([(C, B)])
        return [max(float(each), 0.0) for each in energies]


def _joint_axes(F: np.ndarray, G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`T` and rows `f`, `g` with ``F.T @ F = T @ diag(f) @ T.T`` and ``G.T @ G = T @ diag(g) @ T.T``.

    The two parts of an orthogonal basis have Gram matrices that add up to the identity, so they share their eigenvectors.
    """
    p, q = frobenius(F), frobenius(G)
    basis, triangle = np.linalg.qr(np.vstack([F / (p or 1.0), G / (q or 1.0)]))
    part = basis[: len(F)]
    shares, axes = np.linalg.eigh(part.T @ part)
    shares = np.clip(shares, 0.0, 1.0)
    return triangle.T @ axes, np.array([p**2 * shares, q**2 * (1 - shares)])
