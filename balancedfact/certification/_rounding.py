r"""The rounding of a certificate: bounds that hold in exact arithmetic for the numbers that are returned.

The rounding is bounded a priori, by the constants :math:`\gamma_n` of Higham (2002, chapter 3), from the numbers at hand and
from nothing the solver claims. Let `T` be the matrix by which the left side was whitened. With
:math:`\|T^\top D_1^2T - I\|_F\le\varepsilon`, computed from the measurements themselves,
:math:`D_1^{+2}\preceq TT^\top/(1-\varepsilon)` on the range of `D1`, so that

.. math:: \|D_1^+ S D_2^+\| \le \frac{\|T_1^\top S T_2\|}{\sqrt{(1-\varepsilon_1)(1-\varepsilon_2)}}

for every ``S = A*(y)``. This needs `T` to have as many columns as `D1` has rank: a direction that rounding cannot tell from an
unseen one leaves no bound. How a norm is proved is said in `_proved_norm`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from balancedfact.certification._proved_norm import proved_norm
from balancedfact.certification._spectral_norm import is_small, norm_bound
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._careful import UNIT, gamma, in_parts

# Matrix entries up to which the sum of the measurements is formed.
MOST_FORMED = 2**24


class Whitening(NamedTuple):
    """The distances of two matrices `T` from whitening a map exactly."""

    left: float
    right: float

    @property
    def factor(self) -> float:
        """The factor of a norm between them that bounds it between the inverses of `D1` and `D2`; infinite if nothing does."""
        if not (self.left < 0.5 and self.right < 0.5):
            return np.inf
        return (1 + 4 * UNIT) / float(np.sqrt((1 - self.left) * (1 - self.right)))


def whitening(A: MeasurementMap, T: tuple[Any, Any]) -> Whitening:
    """The departure of ``T.T @ D**2 @ T`` from the identity on both sides of a map, with all rounding."""
    if A.uncertain:
        return Whitening(np.inf, np.inf)
    unit, errors = A.at_unit_scale(), []
    for side, each in enumerate(T):
        terms = A.m * A.matrix_shape[1 - side]
        if sp.issparse(each):  # measurements of entries: sums of squares, where nothing cancels
            entries = unit.as_entries()
            places = entries.rows if side == 0 else entries.cols
            longest = 0 if np.all(np.abs(entries.weights) == 1) else int(np.bincount(places).max())
            errors.append(gamma(longest + 12))
        else:
            G, error = unit.careful_gram(each, side)
            off = float(np.linalg.norm(G / terms - np.eye(len(G))))
            errors.append(1.01 * (off + error / terms + 4 * UNIT * np.sqrt(len(G))))
    return Whitening(*errors)


def dual_norm(
    A: MeasurementMap, T: tuple[Any, Any], y: np.ndarray, known: float | None, rng: np.random.Generator
) -> tuple[float, float]:
    """A bound on the norm of ``T1.T @ A*(y) @ T2`` as it was computed, for a map of unit scale, and one on what rounding adds.

    `known` is the first of them, where the solver has it.
    """
    d1, d2 = A.matrix_shape
    diagonal = sp.issparse(T[0]) and sp.issparse(T[1])
    if d1 * d2 > MOST_FORMED or (A.of_entries and diagonal and not is_small(A.matrix_shape)):
        if known is None:
            inner = A.congruence(*T)
            bases = np.zeros((inner.matrix_shape[0], 0)), np.zeros((inner.matrix_shape[1], 0))
            known = norm_bound(inner.adjoint_for_many(y), *bases, rng)[0]
        return known * (1 + 1e-12), _spill(A, T, y)
    if A.of_entries and diagonal:
        entries = A.as_entries()
        W = np.zeros((d1, d2))
        np.add.at(W, (entries.rows, entries.cols), entries.weights * y)
        return proved_norm(np.asarray(T[0].T @ W @ T[1]), known), _spill(A, T, y)
    S, error = A.careful_adjoint(y)
    W = np.asarray(T[0].T @ S @ T[1])
    error = error + gamma(d1 + d2) * np.abs(S)
    spill = float(np.linalg.norm(np.asarray(abs(T[0]).T @ error @ abs(T[1])))) * 1.01
    if is_small(W.shape):
        return proved_norm(W, known), spill
    if known is not None:
        return known * (1 + 1e-12), spill
    return norm_bound(W, np.zeros((W.shape[0], 0)), np.zeros((W.shape[1], 0)), rng)[0] * (1 + 1e-12), spill


def _spill(A: MeasurementMap, T: tuple[Any, Any], y: np.ndarray) -> float:
    """A bound on the rounding of ``T1.T @ A*(y) @ T2`` in the norm where the sum of the measurements is not formed."""
    d1, d2 = A.matrix_shape
    if A.of_entries and sp.issparse(T[0]) and sp.issparse(T[1]):
        entries = A.as_entries()
        left, right = (np.asarray(abs(each).sum(axis=1)).ravel() for each in T)
        terms = entries.weights * y
        for part, rows, cols in in_parts(terms, entries.rows, entries.cols):
            part *= left[rows]
            part *= right[cols]
        size = float(np.linalg.norm(terms))
        del terms
        # Every entry is one product, or a sum over the measurements of one place.
        places = entries.codes
        places.sort()
        once = not np.any(places[1:] == places[:-1])
        repeats = 1 if once else int(np.unique(places, return_counts=True)[1].max())
        return gamma(repeats + 8) * size * float(np.sqrt(repeats))
    # Crude: the sum of the norms of all terms.
    sizes = [float(np.linalg.norm(np.asarray(each @ np.eye(each.shape[1])), 2)) for each in T]
    return gamma(d1 + d2 + 8) * float(np.abs(y) @ A.row_norms) * sizes[0] * sizes[1]
