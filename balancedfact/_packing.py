"""Orthonormal coordinates of symmetric matrices."""

from __future__ import annotations

import numpy as np


class Packing:
    """Symmetric ``d x d`` matrices as vectors of ``d (d + 1) / 2`` numbers with the same inner products.

    Attributes
    ----------
    d : int
        The order of the matrices.
    rows, cols : ndarray of int
        The place in the upper triangle of each coordinate.
    weights : ndarray
        What the entry is multiplied by: the root of two beside the diagonal.
    place : ndarray of int, shape ``(d, d)``
        The coordinate of each entry.
    """

    def __init__(self, d: int) -> None:
        self.d, (self.rows, self.cols) = d, np.triu_indices(d)
        self.weights = np.where(self.rows == self.cols, 1.0, np.sqrt(2.0))
        self.place = np.empty((d, d), dtype=np.intp)
        self.place[self.rows, self.cols] = self.place[self.cols, self.rows] = np.arange(self.rows.size)
        self._upper = self.rows * d + self.cols

    @property
    def size(self) -> int:
        """The number of coordinates."""
        return self.rows.size

    def pack(self, P: np.ndarray) -> np.ndarray:
        """The vector of a matrix, or the rows for a stack of matrices, of which the upper triangle counts."""
        return P.reshape(*P.shape[:-2], self.d**2)[..., self._upper] * self.weights

    def unpack(self, x: np.ndarray) -> np.ndarray:
        """The matrix of a vector, or the stack of matrices for rows of vectors."""
        return (x / self.weights)[..., self.place]
