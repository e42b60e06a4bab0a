"""The rescalings `D1` and `D2`: roots of second moments, which are diagonal for measurements of single entries."""

from __future__ import annotations

from typing import Any

import numpy as np

from balancedfact.measurements._selection import selection


class FullRoot:
    """The root of a positive-semidefinite matrix, by its eigenvalues; those that are rounding noise are set to zero."""

    def __init__(self, moment: np.ndarray) -> None:
        values, vectors = np.linalg.eigh((moment + moment.T) / 2)
        values, vectors = values[::-1], vectors[:, ::-1]
        noise = values.size * np.finfo(float).eps * max(values[0], 0.0)
        self.eigen = np.sqrt(np.where(values > noise, values, 0.0)), vectors

    def dense(self) -> np.ndarray:
        values, vectors = self.eigen
        return (vectors * values) @ vectors.T

    def times(self, L: np.ndarray) -> np.ndarray:
        values, vectors = self.eigen
        return (vectors * values) @ (vectors.T @ L)

    def inverse(self) -> np.ndarray:
        """The inverse on the range, in its eigenvectors: a matrix with as many columns as the rank."""
        values, vectors = self.eigen
        keep = values > 0
        return vectors[:, keep] / values[keep]


class DiagonalRoot:
    """The root of a diagonal matrix, of which no square array is formed unless it is asked for."""

    def __init__(self, moment: np.ndarray) -> None:
        self.moment, self.values = moment, np.sqrt(moment)

    @property
    def eigen(self) -> tuple[np.ndarray, np.ndarray]:
        return FullRoot(np.diag(self.moment)).eigen

    def dense(self) -> np.ndarray:
        return np.diag(self.values)

    def times(self, L: np.ndarray) -> np.ndarray:
        return self.values[:, None] * L

    def inverse(self) -> Any:
        seen = np.flatnonzero(self.values)
        return selection(seen, 1 / self.values[seen], self.values.size)


def root(moment: np.ndarray) -> FullRoot | DiagonalRoot:
    """The root of a matrix, or of a diagonal one given by its diagonal."""
    return DiagonalRoot(moment) if moment.ndim == 1 else FullRoot(moment)
