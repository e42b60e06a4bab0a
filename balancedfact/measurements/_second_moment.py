"""The second moments of a map, formed once, for the trace of the Hessian and its derivatives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp

from balancedfact._packing import Packing
from balancedfact._validate import as_array, as_shape

_MOST_MOMENT_ENTRIES = 2**26  # half a gigabyte

# A symmetric matrix given by two factors: (F, G) stands for (F.T @ G + G.T @ F) / 2, and None for the identity.
SymmetricFactors = tuple[np.ndarray | None, np.ndarray | None]


class SecondMoment(ABC):
    r"""The maps :math:`P\mapsto\sum_i A_iPA_i^\top` and :math:`Q\mapsto\sum_i A_i^\top QA_i` between symmetric matrices.

    Every function of `balancedfact.curvature` that takes a measurement map only for its second moments takes one of these too:
    the trace of the Hessian and its derivatives. Where they are needed again and again for the same measurements, form the
    second moments once with `MeasurementMap.second_moment` and pass them instead of the map.

    Attributes
    ----------
    matrix_shape : tuple of int
        ``(d1, d2)``, the shape of the matrices measured.
    weight : float
        What multiplies the sum over layers in the trace: ``2 / m`` for the second moments of a map.
    scale : float
        The magnitude by which the :math:`A_i` are divided in this form, so that their squares neither overflow nor vanish.

    See Also
    --------
    MeasurementMap.second_moment : Forms it.
    IsotropicMoment : That of isotropic measurements.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> moment = bf.measurements.Entries([0, 1], [1, 1], (2, 2)).second_moment()
    >>> moment.left_moment(np.array([[2.0, 1.0], [1.0, 3.0]]))
    array([[3., 0.],
           [0., 3.]])
    >>> bf.curvature.trace([np.eye(2), np.eye(2)], moment)
    4.0
    """

    def __init__(self, matrix_shape: tuple[int, int], weight: float, scale: float = 1.0) -> None:
        self.matrix_shape, self.weight, self.scale = matrix_shape, weight, scale

    @abstractmethod
    def _left(self, pairs: list[SymmetricFactors]) -> list[Any]:
        r"""The matrix :math:`\sum_i A_iPA_i^\top` of each pair, with ``A_i / scale`` for `A_i`, with ``@`` and ``trace``."""

    @abstractmethod
    def _right(self, pairs: list[SymmetricFactors]) -> list[Any]:
        r"""The matrix :math:`\sum_i A_i^\top QA_i` of each pair, with ``A_i / scale`` for `A_i`, with ``@`` and ``trace``."""

    def energies(self, factors: list[tuple[np.ndarray | None, np.ndarray | None]]) -> list[float]:
        r"""The sum :math:`\sum_i \|C^\top A_iB^\top\|_F^2` of each ``(C, B)``, with ``A_i / scale`` for `A_i`."""
        moments = self._left([(B, B) for _, B in factors])
        found = [X.trace() if C is None else np.vdot(C, X @ C) for (C, _), X in zip(factors, moments, strict=True)]
        return [max(float(each), 0.0) for each in found]  # rounding may leave a sum of squares that vanishes negative

    def left_moment(self, P: np.ndarray) -> np.ndarray:
        r"""The matrix :math:`\sum_i A_iPA_i^\top` for the symmetric part of `P`, shape ``(d1, d1)``."""
        d1, d2 = self.matrix_shape
        return self.scale**2 * (self._left([(as_array(P, "P", shape=(d2, d2)), None)])[0] @ np.eye(d1))

    def right_moment(self, Q: np.ndarray) -> np.ndarray:
        r"""The matrix :math:`\sum_i A_i^\top QA_i` for the symmetric part of `Q`, shape ``(d2, d2)``."""
        d1, d2 = self.matrix_shape
        return self.scale**2 * (self._right([(as_array(Q, "Q", shape=(d1, d1)), None)])[0] @ np.eye(d2))

    def __repr__(self) -> str:
        d1, d2 = self.matrix_shape
        return f"<{type(self).__name__}: second moments of measurements of {d1} x {d2} matrices>"


class HasMoments(Protocol):
    """A measurement map, as far as `MapMoment` needs one."""

    matrix_shape: tuple[int, int]
    m: int

    @property
    def scale(self) -> float: ...
    def at_unit_scale(self) -> HasMoments: ...
    def energy(self, C: np.ndarray | None, B: np.ndarray | None) -> float: ...
    def left_moment_matrix(self, P: np.ndarray) -> np.ndarray: ...
    def right_moment_matrix(self, Q: np.ndarray) -> np.ndarray: ...


class MapMoment(SecondMoment):
    """The second moments of a map, evaluated by the map each time."""

    def __init__(self, A: HasMoments) -> None:
        super().__init__(A.matrix_shape, 2 / A.m, A.scale)
        self._unit = A.at_unit_scale()

    def energies(self, factors: list[tuple[np.ndarray | None, np.ndarray | None]]) -> list[float]:
        return [self._unit.energy(C, None if B is None else B.T) for C, B in factors]

    def _left(self, pairs: list[SymmetricFactors]) -> list[Any]:
        return [self._unit.left_moment_matrix(_symmetric(pair, self.matrix_shape[1])) for pair in pairs]

    def _right(self, pairs: list[SymmetricFactors]) -> list[Any]:
        return [self._unit.right_moment_matrix(_symmetric(pair, self.matrix_shape[0])) for pair in pairs]


class Superoperator(SecondMoment):
    """The second moments as one matrix between the independent entries of symmetric matrices.

    Off-diagonal entries are weighed by the root of two, which makes the packing an isometry and the right moment the transpose
    of the left one. Any number of matrices are mapped by one product.
    """

    def __init__(self, table: np.ndarray, matrix_shape: tuple[int, int], weight: float, scale: float) -> None:
        super().__init__(matrix_shape, weight, scale)
        self._table = table
        self._packings = Packing(matrix_shape[0]), Packing(matrix_shape[1])

    def _left(self, pairs: list[SymmetricFactors]) -> list[Any]:
        left, right = self._packings
        return list(left.unpack(_packed(right, pairs) @ self._table.T))

    def _right(self, pairs: list[SymmetricFactors]) -> list[Any]:
        left, right = self._packings
        return list(right.unpack(_packed(left, pairs) @ self._table))


class RankOneMoment(SecondMoment):
    r"""The second moments of rank-one matrices: :math:`\sum_i (v_i^\top Pv_i)\,u_iu_i^\top`, never formed."""

    def __init__(self, left: np.ndarray, right: np.ndarray, scale: float) -> None:
        super().__init__((left.shape[1], right.shape[1]), 2 / len(left), scale)
        self._vectors = left, right

    def _left(self, pairs: list[SymmetricFactors]) -> list[Any]:
        left, right = self._vectors
        return [Weighted(left, _inner_rows(right, pair)) for pair in pairs]

    def _right(self, pairs: list[SymmetricFactors]) -> list[Any]:
        left, right = self._vectors
        return [Weighted(right, _inner_rows(left, pair)) for pair in pairs]


class DiagonalMoment(SecondMoment):
    """The second moments of single entries, which see and give diagonals only: one sparse matrix of squared weights."""

    def __init__(self, squares: sp.csr_array, m: int, scale: float) -> None:
        super().__init__(squares.shape, 2 / m, scale)
        self._squares, self._transposed = squares, squares.T.tocsr()

    def _left(self, pairs: list[SymmetricFactors]) -> list[Any]:
        diagonals = self._squares @ np.stack([_diagonal(pair, self.matrix_shape[1]) for pair in pairs], axis=1)
        return [Diagonal(each) for each in diagonals.T]

    def _right(self, pairs: list[SymmetricFactors]) -> list[Any]:
        diagonals = self._transposed @ np.stack([_diagonal(pair, self.matrix_shape[0]) for pair in pairs], axis=1)
        return [Diagonal(each) for each in diagonals.T]


class IsotropicMoment(SecondMoment):
    r"""The second moments of an orthonormal basis of matrices, :math:`P\mapsto\operatorname{tr}(P)\,I` on both sides.

    With it in place of a map, `balancedfact.curvature.trace` is the isotropic surrogate
    :math:`R(W) = \sum_j \|C_j\|_F^2\|B_{j-1}\|_F^2` (its `weight` is 1), and so are its derivatives.

    Parameters
    ----------
    shape : tuple of int
        ``(d1, d2)``, the shape of the end-to-end matrix.

    Raises
    ------
    ValueError
        If `shape` is not two positive integers.

    See Also
    --------
    SecondMoment : The moment of other measurements.
    balancedfact.curvature.isotropic_trace : The trace that it gives.

    References
    ----------
    Chapter :doc:`/theory/curvature`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> layers = [np.ones((2, 3)), np.ones((4, 2))]
    >>> moment = bf.measurements.IsotropicMoment((4, 3))
    >>> bf.curvature.trace(layers, moment), bf.curvature.isotropic_trace(layers)
    (48.0, 48.0)
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__(as_shape(shape), 1.0)

    def _left(self, pairs: list[SymmetricFactors]) -> list[Any]:
        d1, d2 = self.matrix_shape
        return [Diagonal(np.full(d1, _diagonal(pair, d2).sum())) for pair in pairs]

    def _right(self, pairs: list[SymmetricFactors]) -> list[Any]:
        d1, d2 = self.matrix_shape
        return [Diagonal(np.full(d2, _diagonal(pair, d1).sum())) for pair in pairs]


class Diagonal:
    """A diagonal matrix."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def trace(self) -> float:
        return float(self.values.sum())

    def __matmul__(self, C: np.ndarray) -> np.ndarray:
        return self.values[:, None] * C


class Weighted:
    """The matrix ``V.T @ diag(weights) @ V``."""

    def __init__(self, V: np.ndarray, weights: np.ndarray) -> None:
        self.V, self.weights = V, weights

    def trace(self) -> float:
        return float(self.weights @ np.einsum("ij,ij->i", self.V, self.V))

    def __matmul__(self, C: np.ndarray) -> np.ndarray:
        return self.V.T @ (self.weights[:, None] * (self.V @ C))


def worth_forming(d1: int, d2: int, cost: int) -> bool:
    """Tell whether the superoperator applies faster than a form of `cost` multiplications, and fits in memory."""
    entries = d1 * (d1 + 1) // 2 * (d2 * (d2 + 1) // 2)
    # A product with few vectors reads the table once, at about the speed of four multiplications for each number.
    return 4 * entries <= cost and entries <= _MOST_MOMENT_ENTRIES


def _packed(packing: Packing, pairs: list[SymmetricFactors]) -> np.ndarray:
    return np.stack([packing.pack(_symmetric(pair, packing.d)) for pair in pairs])


def _symmetric(pair: SymmetricFactors, d: int) -> np.ndarray:
    F, G = pair
    if F is None or G is None:
        only = F if G is None else G
        return np.eye(d) if only is None else (only + only.T) / 2
    product = F.T @ G
    return product if F is G else (product + product.T) / 2


def _diagonal(pair: SymmetricFactors, d: int) -> np.ndarray:
    F, G = pair
    if F is None or G is None:
        only = F if G is None else G
        return np.ones(d) if only is None else np.diagonal(only)
    return np.einsum("ij,ij->j", F, G)


def _inner_rows(V: np.ndarray, pair: SymmetricFactors) -> np.ndarray:
    F, G = pair
    first = V if F is None else V @ F.T
    second = first if G is F else V if G is None else V @ G.T
    return np.einsum("ij,ij->i", first, second)
