"""Contradictory data: the proof that no matrix fits, or none up to some norm.

For every matrix `X` that fits, ``b.y = <A*(y), X> <= |A*(y)| |X|_*``: a vector with ``b.y > 0`` excludes every matrix whose
nuclear norm is below ``b.y / |A*(y)|``. Both sides are taken with all of their rounding.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from balancedfact._linalg import magnitude
from balancedfact.certification._rounding import MOST_FORMED
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._careful import careful_total, gamma

# A contradiction is claimed if it excludes matrices of that many times the size that the data suggest.
EXCLUDED = 1e6


def excluded_norm(A: MeasurementMap, b: np.ndarray, y: np.ndarray) -> float:
    """The nuclear norm up to which no matrix fits, by ``b.y`` against ``A*(y)`` with its rounding; 0 if `y` proves nothing."""
    size, length = magnitude(b), magnitude(y)
    along, error = careful_total((b / size) * (y / length))
    if not along > 1.01 * error:
        return 0.0
    if _vanishes(A, y):
        return float(np.inf)
    reach = _reach(A.at_unit_scale(), y / length) * (1 + 1e-12)
    with np.errstate(over="ignore"):
        return (along - 1.01 * error) / reach * (size / A.scale) if reach > 0 else float(np.inf)


def proves_contradiction(A: MeasurementMap, b: np.ndarray, excluded: float) -> bool:
    """Tell whether the matrices excluded are all that are of a size that the data suggest, and far more."""
    norms = A.row_norms
    seen = norms > 0
    # The largest |b_i| / |A_i|: a matrix that fits is at least that large.
    return excluded > EXCLUDED * float(np.max(np.abs(b[seen]) / norms[seen], initial=0.0))


def _reach(A: MeasurementMap, y: np.ndarray) -> float:
    """A bound on the Frobenius norm of ``A*(y)`` with its rounding, for a map of unit scale."""
    if A.of_entries:
        entries = A.as_entries()
        _, group = entries.places
        terms = entries.weights * y
        sums, sizes = np.bincount(group, terms), np.bincount(group, np.abs(terms))
        return float(np.linalg.norm(np.abs(sums) + gamma(int(np.bincount(group).max())) * sizes))
    if A.matrix_shape[0] * A.matrix_shape[1] > MOST_FORMED:
        return A.adjoint_norm(y) + gamma(A.m) * float(np.abs(y) @ A.row_norms)
    S, spill = A.careful_adjoint(y)
    return float(np.linalg.norm(np.abs(S) + spill))


def _vanishes(A: MeasurementMap, y: np.ndarray) -> bool:
    """Tell whether the combination is zero in exact arithmetic, where that is quick to tell."""
    used = np.flatnonzero(y)
    if not A.row_norms[used].any():
        return True
    if not A.of_entries or used.size > 1000:
        return False
    entries, sums = A.as_entries(), dict[tuple[int, int], Fraction]()
    for i in used.tolist():
        place = int(entries.rows[i]), int(entries.cols[i])
        sums[place] = sums.get(place, Fraction(0)) + Fraction(float(entries.weights[i])) * Fraction(float(y[i]))
    return not any(sums.values())
