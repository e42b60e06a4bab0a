"""Measurements of single entries: matrix completion."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from balancedfact._linalg import frobenius, magnitude, safe_scale
from balancedfact._validate import as_array, as_gappy, as_index, as_shape
from balancedfact.measurements._base import MeasurementMap
from balancedfact.measurements._careful import gamma
from balancedfact.measurements._entry_order import OrderedEntries
from balancedfact.measurements._frame import column_of, identified
from balancedfact.measurements._pair_gram import gram_of_entries
from balancedfact.measurements._second_moment import DiagonalMoment, SecondMoment
from balancedfact.measurements._selection import single_entries
from balancedfact.measurements._sparse_operator import SparseOperator

if TYPE_CHECKING:
    from balancedfact.measurements._ridge import HalfStep

# The memory of a solve, as measured: compiled code and buffers, layouts and residuals of each entry, vectors of both sides.
_BYTES_ONCE, _BYTES_AN_ENTRY, _VECTORS, _VECTORS_A_COLUMN, _LANCZOS_VECTORS = 1.2e8, 100.0, 150, 20, 400
_ROWS_OF_GRAM = 48  # of the Newton matrix that are summed at once, so that they stay in the cache


class Entries(OrderedEntries):
    r"""Measurements :math:`w_i X_{r_i c_i}` of single entries. An entry may be measured more than once.

    Parameters
    ----------
    rows, cols : array_like of int, shape (m,)
        Where the entries stand, counted from zero.
    shape : tuple of int
        ``(d1, d2)``, the shape of the matrices measured.
    weights : array_like, shape (m,), optional
        The factors :math:`w_i`; all one by default.

    Raises
    ------
    ValueError
        If `rows`, `cols` and `weights` are not of one length, an entry is outside of `shape`, or a weight is not finite.

    See Also
    --------
    TwoWayEntries : With row and column effects projected out.
    bernoulli_mask : Random instances.
    balancedfact.complete : Completion of a table in one call.

    Notes
    -----
    No ``d1 x d2`` array is formed unless `adjoint` is called. `D1` and `D2` are diagonal, the roots of the sums of squared
    weights in each row and column over ``m d2`` and ``m d1``: the flat completion is that of least weighted trace norm
    (Salakhutdinov, Srebro 2010). On a factored matrix ``L @ R.T`` of ``k`` columns the forward map costs ``O(m k)``.

    References
    ----------
    Guide :doc:`/guide/tables`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Entries([0, 1], [1, 0], (2, 2))
    >>> A(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([2., 3.])
    """

    def __init__(self, rows: ArrayLike, cols: ArrayLike, shape: tuple[int, int], weights: ArrayLike | None = None) -> None:
        self.matrix_shape = as_shape(shape)
        self.rows = as_index(rows, "rows", self.matrix_shape[0])
        self.cols = as_index(cols, "cols", self.matrix_shape[1])
        if self.cols.size != self.rows.size:
            raise ValueError(f"cols has {self.cols.size} entries; expected {self.rows.size}, as rows has")
        self.m = self.rows.size
        # Without weights one number is seen from all places.
        self.weights = np.broadcast_to(1.0, self.m) if weights is None else as_array(weights, "weights", shape=(self.m,))

    @classmethod
    def from_array(cls, M: ArrayLike) -> tuple[Entries, np.ndarray]:
        """The entries of a matrix that were seen, and their values.

        Parameters
        ----------
        M : array_like, shape (d1, d2)
            A matrix, ``nan`` or masked where an entry was not seen.

        Returns
        -------
        A : Entries
        b : numpy.ndarray, shape (m,)

        Raises
        ------
        ValueError
            If `M` is not a matrix of numbers, holds infinite values, or no entry was seen.

        Examples
        --------
        >>> import numpy as np, balancedfact as bf
        >>> A, b = bf.measurements.Entries.from_array([[1.0, np.nan], [3.0, 4.0]])
        >>> A, b
        (<Entries: 3 measurements of 2 x 2 matrices>, array([1., 3., 4.]))
        """
        array = as_gappy(M, "M")
        seen = ~np.isnan(array)
        rows, cols = np.nonzero(seen)
        if not rows.size:
            raise ValueError(f"M has shape {array.shape} and no entry that was seen; expected at least one number")
        return cls(rows, cols, as_shape(array.shape, "M.shape")), as_array(array[seen], "M")

    @classmethod
    def from_sparse(cls, S: Any) -> tuple[Entries, np.ndarray]:
        """The stored entries of a sparse matrix, and their values; stored zeros were seen too.

        Parameters
        ----------
        S : scipy.sparse matrix or array, shape (d1, d2)
            Its stored entries are those that were seen.

        Returns
        -------
        A : Entries
        b : numpy.ndarray, shape (m,)

        Raises
        ------
        ValueError
            If `S` is not sparse, not a matrix, or stores nothing.

        Examples
        --------
        >>> import scipy.sparse as sp, balancedfact as bf
        >>> A, b = bf.measurements.Entries.from_sparse(sp.coo_array(([5.0], ([1], [0])), shape=(2, 2)))
        >>> A.rows, A.cols, b
        (array([1]), array([0]), array([5.]))
        """
        if not sp.issparse(S) or S.ndim != 2:
            raise ValueError(f"S is {type(S).__name__}; expected a sparse matrix of SciPy")
        coo = S.tocoo()
        if not coo.nnz:
            raise ValueError(f"S has shape {S.shape} and stores no entry; expected at least one")
        return cls(coo.row, coo.col, as_shape(S.shape, "S.shape")), as_array(coo.data, "S")

    @classmethod
    def from_frame(
        cls, frame: Any, row: str, column: str, value: str
    ) -> tuple[Entries, np.ndarray, tuple[list[str] | None, list[str] | None]]:
        """The entries in a data frame with one to a line, their values, and the names of rows and columns.

        Parameters
        ----------
        frame : pandas.DataFrame or polars.DataFrame
            Or anything else whose columns are ``frame[name]``.
        row, column, value : str
            The columns that name the row and the column of each entry, and the one of its value. Integers are numbered as they
            rise, everything else as text in order of first appearance.

        Returns
        -------
        A : Entries
            With `labels`, which the solutions take over.
        b : numpy.ndarray, shape (m,)
        labels : tuple
            The names of the rows and of the columns, as texts.

        Raises
        ------
        ValueError
            If a column does not exist, or a cell is missing.

        Examples
        --------
        >>> import balancedfact as bf
        >>> frame = {"who": ["ann", "bob", "bob"], "film": [7, 7, 9], "stars": [4.0, 5.0, 3.0]}
        >>> A, b, labels = bf.measurements.Entries.from_frame(frame, "who", "film", "stars")
        >>> A, labels
        (<Entries: 3 measurements of 2 x 2 matrices>, (['ann', 'bob'], ['7', '9']))
        """
        columns = [column_of(frame, *pair) for pair in (("row", row), ("column", column), ("value", value))]
        (rows, row_labels), (cols, col_labels) = identified(columns[0], row), identified(columns[1], column)
        entries = cls(rows, cols, (len(row_labels), len(col_labels)))
        entries.labels = (row_labels, col_labels)
        return entries, as_array(columns[2], value, shape=(rows.size,)), entries.labels

    def _forward(self, X: np.ndarray) -> np.ndarray:
        return self.weights * X[self.rows, self.cols]

    def forward_factored(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        from balancedfact.measurements._sampled import sampled_product  # numba is imported only where it is used

        if (len(L), len(R)) != self.matrix_shape:  # the compiled loop does not check its bounds
            raise ValueError(f"L and R have {len(L)} and {len(R)} rows; expected {self.matrix_shape}")
        out = sampled_product(L, R, self.rows, self.cols)
        out *= self.weights
        return out

    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        d1, d2 = self.matrix_shape
        return np.bincount(self.codes, self.weights * y, minlength=d1 * d2).reshape(d1, d2)

    def adjoint_operator(self, y: np.ndarray) -> SparseOperator:
        return SparseOperator(self, self._sorted(self.weights * y))

    def image_squares(self, U: np.ndarray, V: np.ndarray) -> np.ndarray:
        return np.einsum("ij,ij->j", U**2, SparseOperator(self, self._sorted_weights[0] ** 2) @ V**2)

    def adjoint_norm(self, y: np.ndarray) -> float:
        first, group = self.places  # an entry may be measured several times
        numbers = self.weights * y
        return frobenius(numbers if first.size == self.m else np.bincount(group, numbers))

    def pair_hessian(
        self, L: np.ndarray, R: np.ndarray, y: np.ndarray | None = None, *, coupled: int | None = None
    ) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        rows, columns = self._layout, self._transposed_layout
        weights = self._sorted_weights
        count, back = 0, weights  # which is not read where no column is coupled
        if y is not None:
            count = L.shape[1] if coupled is None else coupled
            by_rows = self._sorted(self.weights * y)
            back = by_rows, self._by_columns(by_rows)

        def hessian(dL: np.ndarray, dR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            G = rows.half_hessian(weights[0], back[0], count, np.hstack([dL, L]), np.hstack([R, dR]))
            return G, columns.half_hessian(weights[1], back[1], count, np.hstack([dR, R]), np.hstack([L, dL]))

        return hessian

    def pair_gram(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        squares = np.bincount(self.codes, (self.weights / self.scale) ** 2, minlength=len(L) * len(R))
        return gram_of_entries(squares.reshape(len(L), len(R)), self.scale * L, self.scale * R)

    def memory_needed(self, columns: int = 10) -> float:
        rows, cols = self.matrix_shape
        vectors = _VECTORS + _VECTORS_A_COLUMN * columns
        return _BYTES_ONCE + _BYTES_AN_ENTRY * self.m + 8.0 * ((rows + cols) * vectors + min(rows, cols) * _LANCZOS_VECTORS)

    def half_steps(self, shift: float) -> tuple[HalfStep, HalfStep]:
        from balancedfact.measurements._ridge import HalfStep  # numba is imported only where it is used

        rows, columns = self._layout, self._transposed_layout
        order = columns.order if isinstance(rows.order, slice) else rows.order[columns.order]
        by_rows, by_columns = self._sorted_weights
        return HalfStep(rows, by_rows, rows.order, shift), HalfStep(columns, by_columns, order, shift)

    def _left_moment(self, P: np.ndarray) -> np.ndarray:
        # Distinct measurements of one row share no other matrix entry, so the sum is diagonal.
        return np.diag(np.bincount(self.rows, self.weights**2 * P[self.cols, self.cols], self.matrix_shape[0]))

    def _right_moment(self, Q: np.ndarray) -> np.ndarray:
        return np.diag(np.bincount(self.cols, self.weights**2 * Q[self.rows, self.rows], self.matrix_shape[1]))

    def streamed_moment(self) -> SecondMoment:
        squares = sp.csr_array(((self.weights / self.scale) ** 2, (self.rows, self.cols)), shape=self.matrix_shape)
        return DiagonalMoment(squares, self.m, self.scale)

    @property
    def moment_cost(self) -> int:
        return self.m

    def energy(self, C: np.ndarray | None, B: np.ndarray | None) -> float:
        terms = self.weights**2
        if C is not None:
            terms = terms * np.einsum("ij,ij->i", C, C)[self.rows]
        if B is not None:
            terms = terms * np.einsum("ij,ij->i", B, B)[self.cols]
        return float(terms.sum())

    def rotated(self, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        return np.einsum("ip,iq->ipq", self.weights[:, None] * P[self.rows], Q[self.cols])

    def select(self, index: np.ndarray, weights: np.ndarray | None = None) -> Entries:
        chosen = self.weights[index] if weights is None else self.weights[index] * weights
        return Entries(self.rows[index], self.cols[index], self.matrix_shape, chosen)

    @property
    def row_norms(self) -> np.ndarray:
        return np.abs(self.weights)

    def gram_solver(self, shift: float) -> Callable[[np.ndarray], np.ndarray]:
        # Measurements of different entries are orthogonal, so the Gram matrix has one block w w.T for every entry measured.
        places, group = self.places
        if shift == 0 and (places.size < self.m or not self.weights.all()):
            raise np.linalg.LinAlgError("an entry is measured twice or with weight zero: the Gram matrix is singular")
        if places.size == self.m:
            return lambda rhs: rhs / (self.weights**2 + shift)
        energy = np.bincount(group, self.weights**2) + shift

        def solve(rhs: np.ndarray) -> np.ndarray:
            return (rhs - self.weights * (np.bincount(group, self.weights * rhs) / energy)[group]) / shift

        return solve

    def scaled_gram(self, W11: np.ndarray, W12: np.ndarray, W22: np.ndarray) -> np.ndarray:
        rows, cols, w = self.rows, self.cols, self.weights
        gram = np.empty((self.m, self.m))
        for start in range(0, self.m, _ROWS_OF_GRAM):
            part = slice(start, min(start + _ROWS_OF_GRAM, self.m))
            i, j, before = rows[part], cols[part], slice(0, part.stop)
            block = np.take(W11[i], rows[before], axis=1)
            block *= np.take(W22[j], cols[before], axis=1)
            cross = np.take(W12[i], cols[before], axis=1)
            cross *= np.take(W12.T[j], rows[before], axis=1)
            block += cross
            block *= w[part, None]
            block *= w[before]
            gram[part, before] = block
            gram[before, part] = block.T
        return gram

    @cached_property
    def scale(self) -> float:
        return safe_scale(float(np.abs(self.weights).max()))

    def at_unit_scale(self) -> Entries:
        return self if self.scale == 1.0 else Entries(self.rows, self.cols, self.matrix_shape, self.weights / self.scale)

    def identity_factors(self) -> tuple[np.ndarray, np.ndarray]:
        d1, d2 = self.matrix_shape
        energy = self.weights**2
        return np.sqrt(np.bincount(self.rows, energy, d1)), np.sqrt(np.bincount(self.cols, energy, d2))

    def rank_bounds(self) -> tuple[int, int]:
        some = self.weights != 0
        return np.unique(self.rows[some]).size, np.unique(self.cols[some]).size

    def careful_forward(self, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        left, right = (magnitude(each) * np.linalg.norm(each / magnitude(each), axis=1)[:, None] for each in (L, R))
        errors = self.forward_factored(left, right)
        np.abs(errors, out=errors)
        errors *= gamma(L.shape[1] + 2)
        return self.forward_factored(L, R), errors

    def congruence(self, P: Any, Q: Any) -> MeasurementMap:
        """The map with matrices ``P.T @ A_i @ Q``: again one of entries if `P` and `Q` are sparse with at most one to a row.

        A measurement whose row or column is dropped stays, as zero, at the first entry.
        """
        left, right = single_entries(P), single_entries(Q)
        if left is None or right is None:
            return super().congruence(P, Q)
        weights = self.weights * left[1][self.rows]
        weights *= right[1][self.cols]
        return Entries(left[0][self.rows], right[0][self.cols], (P.shape[1], Q.shape[1]), weights)

    of_entries, forms_stack = True, False

    def as_entries(self) -> Entries:
        return self
