r"""Entries of a matrix with free effects of rows and columns taken out.

.. math:: \min_{\alpha,\beta}\tfrac12\|\mathcal A(X) + T(\alpha,\beta) - b\|^2 = \tfrac12\|P\mathcal A(X) - Pb\|^2,

where `T` gives an entry the effects of its row and its column, and `P` projects onto what they cannot reach. The map of this
module is :math:`P\mathcal A`: minimising over `X` alone solves the problem with effects exactly, and a dual vector `y` proves a
lower bound with :math:`Py`, whose matrix has vanishing row and column sums.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import block_array, coo_array
from scipy.sparse.csgraph import connected_components

from balancedfact._validate import as_number
from balancedfact.measurements._base import MeasurementMap
from balancedfact.measurements._careful import UNIT, is_positive_definite
from balancedfact.measurements._entries import Entries

_DENSE = 100_000  # entries of a matrix


class TwoWayEntries(MeasurementMap):
    r"""Entries of a matrix, from which effects of rows and columns are projected out.

    The map is :math:`\mathcal A(X) = cP(X_{r_1c_1}, \dots, X_{r_mc_m})`, with `c` the factor and `P` the orthogonal projection
    onto the complement of all vectors :math:`(\alpha_{r_i} + \beta_{c_i})_i`.

    Parameters
    ----------
    entries : Entries
        Different entries of weight one.
    factor : float
        The number `c` that multiplies all measurements.

    Raises
    ------
    ValueError
        If an entry is there twice, or has a weight other than one.

    See Also
    --------
    Entries : Entries as they are.
    balancedfact.panel_effect : The fit that uses it.

    Notes
    -----
    The effects are fitted with a pseudo-inverse of order ``d1 + d2``, which is formed once.

    References
    ----------
    Guide :doc:`/guide/panels`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> entries = bf.measurements.Entries([0, 0, 1, 1], [0, 1, 0, 1], (2, 2))
    >>> A = bf.measurements.TwoWayEntries(entries)
    >>> A(np.array([[1.0, 2.0], [3.0, 8.0]])).round(6)
    array([ 1., -1., -1.,  1.])
    """

    def __init__(self, entries: Entries, factor: float = 1.0) -> None:
        if not isinstance(entries, Entries):
            raise ValueError(f"entries is {type(entries).__name__}; expected bf.measurements.Entries")
        if entries.places[0].size < entries.m or np.any(entries.weights != 1):
            raise ValueError("entries holds an entry twice or with a weight; expected different entries of weight 1")
        self.entries, self.factor = entries, as_number(factor, "factor")
        self.matrix_shape, self.m = entries.matrix_shape, entries.m

    def effects(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r"""The effects :math:`\alpha, \beta` that fit `y` best, zero for rows and columns without entries.

        What one may add to all rows of a connected part and take from its columns is settled by the least norm.
        """
        d1, d2 = self.matrix_shape
        rows, cols = self.entries.rows, self.entries.cols
        sums = np.concatenate([np.bincount(rows, y, d1), np.bincount(cols, y, d2)])
        both = self._inverse @ sums
        return both[:d1], both[d1:]

    @cached_property
    def _normal(self) -> np.ndarray:
        """The matrix of the normal equations of the effects, of order ``d1 + d2``; its entries are whole numbers."""
        seen = np.zeros(self.matrix_shape)
        seen[self.entries.rows, self.entries.cols] = 1.0
        return np.block([[np.diag(seen.sum(axis=1)), seen], [seen.T, np.diag(seen.sum(axis=0))]])

    @cached_property
    def _inverse(self) -> np.ndarray:
        return np.linalg.pinv(self._normal, rcond=1e-12, hermitian=True)

    @cached_property
    def _least_curvature(self) -> float:
        """A proved lower bound on the positive eigenvalues of the normal equations; zero if none is found."""
        # Nothing is missing but the constants of each part: with their squares added, the eigenvalues elsewhere are as before.
        part = np.concatenate(self.parts)
        sign = np.repeat([1.0, -1.0], self.matrix_shape)
        whole = self._normal + np.outer(sign, sign) * (part[:, None] == part)
        least = 0.9 * float(np.linalg.eigvalsh(whole)[0])
        return least if least > 0 and is_positive_definite(whole - least * np.eye(len(whole)), 0.0) else 0.0

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the connected parts that rows and columns belong to; effects are known together within one part."""
        d1, d2 = self.matrix_shape
        links = coo_array((np.ones(self.m), (self.entries.rows, self.entries.cols)), shape=(d1, d2))
        _, part = connected_components(block_array([[None, links], [links.T, None]]), directed=False)
        return part[:d1], part[d1:]

    @cached_property
    def _is_zero(self) -> bool:
        """Tell whether effects fit every data, so that what rounding leaves of a projection is nothing."""
        return self.m == sum(self.matrix_shape) - np.unique(np.concatenate(self.parts)).size

    def project(self, y: np.ndarray) -> np.ndarray:
        """The part of `y` that effects cannot reach."""
        return self._passes(y)[0]

    def _passes(self, y: np.ndarray) -> tuple[np.ndarray, float]:
        """The part of `y` that effects cannot reach, and a bound on the norm of what rounding changed besides effects."""
        if self._is_zero:
            return np.zeros(self.m), 0.0
        spill = 0.0
        for _ in range(2):  # the second removes what rounding left in
            alpha, beta = self.effects(y)
            taken = alpha[self.entries.rows] + beta[self.entries.cols]
            y = y - taken
            spill += 1.01 * UNIT * float(np.linalg.norm(taken) + np.linalg.norm(y))
        return y, spill

    def _careful_projection(self, y: np.ndarray, error: float) -> tuple[np.ndarray, float]:
        r"""The part of `y` that effects cannot reach, and a bound on its error in the norm; that of `y` is at most `error`.

        What is found, :math:`z = y - T\theta + \delta`, has the projection :math:`Py + P\delta`, and differs from its own by
        effects of norm at most :math:`\|T^\top z\|/\sqrt\lambda`, where :math:`\lambda` is the least positive eigenvalue of
        :math:`T^\top T`. So the pseudo-inverse need not be trusted.
        """
        z, spill = self._passes(y)
        if self._is_zero:
            return z, 0.0
        left = 0.0
        for places, size in ((self.entries.rows, self.matrix_shape[0]), (self.entries.cols, self.matrix_shape[1])):
            counts = np.bincount(places, minlength=size)
            sums = np.abs(np.bincount(places, z, size)) + 1.01 * counts * UNIT * np.bincount(places, np.abs(z), size)
            left += float(sums @ sums)
        least = self._least_curvature
        return z, 1.01 * (error + spill + (float(np.sqrt(left / least)) if least > 0 else np.inf))

    def careful_forward(self, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, errors = self.entries.careful_forward(L, R)
        z, error = self._careful_projection(values, float(np.linalg.norm(errors)))
        found = self.factor * z
        return found, 1.01 * abs(self.factor) * error + 2 * UNIT * np.abs(found)

    def careful_adjoint(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z, error = self._careful_projection(y, 0.0)
        found = self.factor * z
        errors = 1.01 * abs(self.factor) * error + 2 * UNIT * np.abs(found)
        return self.entries.adjoint_matrix(found), self.entries.adjoint_matrix(errors)

    def _forward(self, X: np.ndarray) -> np.ndarray:
        return self.factor * self.project(self.entries.forward(X))

    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        return self.entries.adjoint_matrix(self.factor * self.project(y))

    def forward_factored(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        return self.factor * self.project(self.entries.forward_factored(L, R))

    def adjoint_operator(self, y: np.ndarray) -> Any:
        d1, d2 = self.matrix_shape
        if d1 * d2 <= _DENSE:  # products with an array of this size cost less than those with a map
            return self._adjoint(y)
        return self.entries.adjoint_operator(self.factor * self.project(y))

    def _left_moment(self, P: np.ndarray) -> np.ndarray:
        # The sum over i and j of G_ij A_i P A_j.T with the matrix G of the projection, and A_i a single entry.
        rows, cols, _ = self._places
        sums = self._projection * P[np.ix_(cols, cols)]
        left = np.eye(self.matrix_shape[0])[rows]
        return self.factor**2 * (left.T @ sums @ left)

    def _right_moment(self, Q: np.ndarray) -> np.ndarray:
        rows, cols, _ = self._places
        sums = self._projection * Q[np.ix_(rows, rows)]
        right = np.eye(self.matrix_shape[1])[cols]
        return self.factor**2 * (right.T @ sums @ right)

    @property
    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, cols = self.entries.rows, self.entries.cols
        return rows, cols, self.matrix_shape[0] + cols

    @cached_property
    def _projection(self) -> np.ndarray:
        """The projection as a matrix, for maps of few measurements."""
        rows, _, below = self._places
        if self._is_zero:
            return np.zeros((self.m, self.m))
        K = self._inverse
        mixed = K[np.ix_(rows, below)]
        return np.eye(self.m) - (K[np.ix_(rows, rows)] + mixed + mixed.T + K[np.ix_(below, below)])

    def rotated(self, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        single = self.entries.rotated(P, Q)
        return self.factor * np.tensordot(self._projection, single, axes=1)

    @cached_property
    def row_norms(self) -> np.ndarray:
        rows, _, below = self._places
        if self._is_zero:
            return np.zeros(self.m)
        K = self._inverse
        leverage = K[rows, rows] + 2 * K[rows, below] + K[below, below]
        return abs(self.factor) * np.sqrt(np.maximum(1 - leverage, 0.0))

    def gram_solver(self, shift: float) -> Callable[[np.ndarray], np.ndarray]:
        if shift == 0:
            raise np.linalg.LinAlgError("effects are projected out: the Gram matrix is singular")

        def solve(rhs: np.ndarray) -> np.ndarray:
            inside = self.project(rhs)
            return inside / (self.factor**2 + shift) + (rhs - inside) / shift

        return solve

    def select(self, index: np.ndarray, weights: np.ndarray | None = None) -> MeasurementMap:
        whole = index.size == self.m and np.array_equal(index, np.arange(self.m))
        if whole and weights is not None and weights.size and np.all(weights == weights[0]):
            return TwoWayEntries(self.entries, self.factor * float(weights[0]))
        return super().select(index, weights)
