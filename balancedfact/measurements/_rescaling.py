r"""The rescalings `D1` and `D2`: roots of second moments, which are diagonal for measurements of single entries.

A root is made from a factor `F` with ``F.T @ F = D**2``, never from the eigenvalues of ``D**2``, which lose half of the digits:
the triangle of a QR factorization of the unfolded measurements. Its columns are first divided by powers of two near their size
(Van der Sluis 1969), so that rows of very different size cost no accuracy. A direction is seen when its singular value exceeds
the rounding of that factorization.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg

from balancedfact.measurements._selection import selection

# Multiplications of long fractions up to which the exact rank of a matrix is computed.
_MOST_EXACT = 200_000


class FullRoot:
    """The root of ``factor.T @ factor``; directions that are lost in the rounding of the factor are left out."""

    def __init__(self, factor: np.ndarray) -> None:
        self.size = factor.shape[1]
        largest = np.abs(factor).max(axis=0)
        self.seen = np.flatnonzero(largest)
        self.scales = np.ldexp(1.0, np.frexp(largest[self.seen])[1])
        self.factor = factor[:, self.seen]
        _, s, Vt = np.linalg.svd(self.factor / self.scales, full_matrices=False)
        keep = s > 4 * max(factor.shape[1], 8) * np.finfo(float).eps * s[:1].max(initial=0.0)
        self.rank = int(np.count_nonzero(keep))
        self._s, self._V = s[keep], Vt[keep].T

    @cached_property
    def eigen(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues of the root, descending, with its eigenvectors; `rank` of them are positive."""
        values, vectors = np.zeros(self.size), np.eye(self.size)
        if self.rank:
            # One-sided Jacobi rotations: accurate in every singular value of a matrix whose columns are merely badly scaled.
            s, V = _jacobi(self.factor if self.rank == self.seen.size else (self._V * self._s).T * self.scales)
            values[: self.rank] = s[: self.rank]
            unseen = np.setdiff1d(np.arange(self.size), self.seen)
            vectors = np.zeros((self.size, self.size))
            vectors[self.seen, : self.seen.size] = V
            vectors[unseen, np.arange(self.seen.size, self.size)] = 1.0
        return values, vectors

    def dense(self) -> np.ndarray:
        values, vectors = self.eigen
        return (vectors * values) @ vectors.T

    def times(self, L: np.ndarray) -> np.ndarray:
        values, vectors = self.eigen
        return (vectors * values) @ (vectors.T @ L)

    def inverse(self) -> np.ndarray:
        """A matrix `T` of `rank` columns in the range of the root `D` with ``T.T @ D**2 @ T = I``.

        That is ``D^+ Q`` for a matrix `Q` with orthonormal columns; nearly diagonal where `D` is, up to the scales of its rows.
        """
        T = np.zeros((self.size, self.rank))
        if self.rank == self.seen.size:
            T[self.seen] = ((self._V / self._s) @ self._V.T) / self.scales[:, None]
        else:
            B = np.linalg.qr(self._V * self.scales[:, None])[0]  # a basis of the range
            T[self.seen] = B @ (B.T @ (self._V / self._s / self.scales[:, None]))
        return T


class DiagonalRoot:
    """The root of a diagonal matrix, of which no square array is formed unless it is asked for."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.size = values, values.size

    @property
    def rank(self) -> int:
        return int(np.count_nonzero(self.values))

    @property
    def eigen(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(-self.values, kind="stable")
        return self.values[order], np.eye(self.values.size)[:, order]

    def dense(self) -> np.ndarray:
        return np.diag(self.values)

    def times(self, L: np.ndarray) -> np.ndarray:
        return self.values[:, None] * L

    def inverse(self) -> Any:
        seen = np.flatnonzero(self.values)
        return selection(seen, 1 / self.values[seen], self.values.size)


def root(factor: np.ndarray) -> FullRoot | DiagonalRoot:
    """The root of ``factor.T @ factor``, or the diagonal root with these entries."""
    return DiagonalRoot(factor) if factor.ndim == 1 else FullRoot(factor)


def triangle(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """A factor with the Gram matrix of all rows together, with at most as many rows as columns: QR, block after block."""
    found: np.ndarray | None = None
    for block in blocks:
        stacked = block if found is None else np.vstack([found, block])
        found = np.asarray(np.linalg.qr(stacked, mode="r")) if stacked.shape[0] > stacked.shape[1] else stacked
    if found is None:
        raise ValueError("blocks is empty; expected at least one matrix")
    return found


def row_blocks(N: np.ndarray) -> Iterable[np.ndarray]:
    """The rows of a matrix in blocks that are a few times as long as wide."""
    size = max(2048, 4 * N.shape[1])
    return (N[start : start + size] for start in range(0, N.shape[0], size))


def rank_at_most(rows: np.ndarray) -> int:
    """An upper bound on the rank of a matrix that holds in exact arithmetic; the rank itself where it is small."""
    rows = rows[:, np.any(rows != 0, axis=0)]
    rows = np.unique(rows, axis=0)
    rows = rows[np.any(rows != 0, axis=1)]
    n, d = rows.shape
    bound = min(n, d)
    return _exact_rank(rows) if n * d * bound <= _MOST_EXACT else bound


def _exact_rank(rows: np.ndarray) -> int:
    left, rank = [[Fraction(x) for x in row] for row in rows.tolist()], 0
    while left:
        pivot_row = left.pop()
        pivot = next((j for j, x in enumerate(pivot_row) if x), None)
        if pivot is None:
            continue
        rank += 1
        for k, row in enumerate(left):
            if row[pivot]:
                factor = row[pivot] / pivot_row[pivot]
                left[k] = [x - factor * p for x, p in zip(row, pivot_row, strict=True)]
    return rank


def _jacobi(F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values, descending, and all right singular vectors of `F`."""
    rows, columns = F.shape
    square = np.vstack([F, np.zeros((max(columns - rows, 0), columns))])
    size = np.abs(square).max()
    s, _, V, work, _, info = scipy.linalg.lapack.dgejsv(square / size, joba=0, jobu=3, jobv=0)
    if info != 0:
        raise np.linalg.LinAlgError(f"dgejsv: info {info}")
    return s * (work[0] / work[1]) * size, V
