"""A linear map of matrices as an operator of SciPy on row-major vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from balancedfact._validate import as_regular


class RowMajorOperator(ABC):
    """All that `scipy.sparse.linalg.aslinearoperator` asks of a map, with row-major ``vec(X)``; how maps print and pickle."""

    matrix_shape: tuple[int, int]
    m: int
    dtype = np.dtype(np.float64)

    @abstractmethod
    def _forward(self, X: np.ndarray) -> np.ndarray:
        """The measurements of a matrix."""

    @abstractmethod
    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        """The adjoint of a vector, a matrix."""

    @property
    def shape(self) -> tuple[int, int]:
        """The shape ``(m, d1 * d2)`` of the map as a matrix acting on row-major ``vec(X)``."""
        return self.m, self.matrix_shape[0] * self.matrix_shape[1]

    def matvec(self, x: np.ndarray) -> np.ndarray:
        """The measurements of ``x.reshape(d1, d2)``."""
        return self._forward(as_regular(x, "x").reshape(self.matrix_shape))

    def rmatvec(self, y: np.ndarray) -> np.ndarray:
        """The adjoint, raveled to a vector of length ``d1 * d2``."""
        return self._adjoint(as_regular(y, "y").ravel()).ravel()

    def to_linear_operator(self) -> LinearOperator:
        """The map on row-major vectors as a `scipy.sparse.linalg.LinearOperator`.

        Examples
        --------
        >>> import balancedfact as bf
        >>> bf.measurements.Entries([1, 0], [0, 1], (2, 2)).to_linear_operator() @ [1.0, 2.0, 3.0, 4.0]
        array([3., 2.])
        """
        return aslinearoperator(self)

    def __getstate__(self) -> dict[str, Any]:
        """State for pickling, without cached properties, which are recomputed on demand."""
        kind = type(self)
        return {name: each for name, each in vars(self).items() if not isinstance(getattr(kind, name, None), cached_property)}

    def __repr__(self) -> str:
        d1, d2 = self.matrix_shape
        return f"<{type(self).__name__}: {self.m} measurements of {d1} x {d2} matrices>"
