"""The certificate of a pair and a dual vector, computed from these alone, with all rounding bounded.

Whoever found them: a solver of this package, another one, or a file. The bounds are those of `_rounding`.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from balancedfact._linalg import frobenius, magnitude
from balancedfact._spectrum import product_singular_values
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._careful import UNIT, careful_total
from balancedfact.solution import Certificate, Objective, Offsets
from balancedfact.solvers.nuclear._rounding import Whitening, dual_norm, whitening
from balancedfact.solvers.nuclear._spectral_norm import norm_bound

# How well data that are to be interpolated must be fitted, relative to their norm.
FEASIBLE = 1e-10
# The share of |A_i| |X| that counts as the size of a datum which is smaller.
_SHARE = 1e-3


def certify_pair(
    A: MeasurementMap,
    b: np.ndarray,
    objective: Objective,
    pair: tuple[np.ndarray, np.ndarray],
    dual: np.ndarray,
    *,
    rng: np.random.Generator,
    offsets: Offsets | None = None,
    known: bool = False,
    white: tuple[Any, Any] | None = None,
) -> Certificate:
    """The certificate; `known` says that the dual matrix is within its constraint up to rounding."""
    (L, R), weight = pair, objective.weight(A.m)
    values, errors = _measured(A, L, R, offsets)
    residual = values - b
    errors = errors + 2 * UNIT * (np.abs(values) + np.abs(b))
    value, value_error = _size(A, L, R, objective.flat)
    before, lower, dual = _bound(A, b, objective, dual, offsets, known, white, rng)
    if objective.penalty > 0:
        share = objective.penalty / weight
        off, spill = frobenius(residual), frobenius(errors)
        value, value_error = 0.5 * off**2 + share * value, share * value_error + 1.01 * (off * spill + 0.5 * spill**2)
        if offsets is not None and objective.offset_penalty is not None:
            value += 0.5 * objective.offset_penalty * (frobenius(offsets.rows) ** 2 + frobenius(offsets.cols) ** 2)
        value_error += 1e-14 * value
    fits = frobenius(residual) / frobenius(b) if np.any(b) else 0.0
    size = frobenius(product_singular_values([R.T / magnitude(R), L / magnitude(L)])) * magnitude(L) * magnitude(R)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        sizes = np.maximum(np.abs(b), _SHARE * size * A.row_norms)
        worst = float(np.max(np.where(np.abs(residual) + errors > 0, (np.abs(residual) + errors) / sizes, 0.0)))
    gap = (abs(value - lower) + value_error) / value if value > 0 else 0.0
    rounding = (max(before - lower, 0.0) + value_error) / value if value > 0 else 0.0
    if objective.penalty == 0 and not (fits <= 10 * FEASIBLE and worst <= 10 * FEASIBLE):
        gap = np.nan  # the value of a pair that does not fit is no upper bound
    if not np.isfinite(value):
        gap = np.nan
    return Certificate(fits, lower, gap, dual, value=value, worst_datum=worst, rounding=rounding)


def _measured(A: MeasurementMap, L: np.ndarray, R: np.ndarray, offsets: Offsets | None) -> tuple[np.ndarray, np.ndarray]:
    if offsets is None:
        return A.careful_forward(L, R)
    d1, d2 = A.matrix_shape
    rows = np.column_stack([L, offsets.rows + offsets.mean, np.ones(d1)])
    return A.careful_forward(rows, np.column_stack([R, np.ones(d2), offsets.cols]))


def _size(A: MeasurementMap, L: np.ndarray, R: np.ndarray, flat: bool) -> tuple[float, float]:
    """The scaled trace, or the sum of squares, of a pair and a bound on its error."""
    total = error = 0.0
    unit = A.at_unit_scale()
    for side, factor in enumerate((L, R)):
        a = float(np.ldexp(1.0, int(np.frexp(magnitude(factor))[1])))
        if not flat:
            found, spill = careful_total(np.square(factor / a).ravel())
            scale = a
        elif A.of_entries:
            scaled = (A.rescale_left if side == 0 else A.rescale_right)(factor / a)
            found, spill = careful_total(np.square(scaled).ravel())
            scale, spill = np.sqrt(2 * A.m) * A.scale * a, spill + 2 * _longest_sum(A, side) * UNIT * found
        else:
            G, spill = unit.careful_gram(factor / a, side)
            found, spill = max(float(np.trace(G)), 0.0), spill * np.sqrt(len(G))
            scale = np.sqrt(2 / A.matrix_shape[1 - side]) * A.scale * a
        with np.errstate(over="ignore", invalid="ignore"):
            total += float(scale * np.sqrt(found)) ** 2
            error += float(scale * np.sqrt(spill)) ** 2
    return total, error + 1e-14 * total


def _longest_sum(A: MeasurementMap, side: int) -> int:
    """The number of roundings in a squared entry of a diagonal rescaling; sums of ones are exact."""
    entries = A.at_unit_scale().as_entries()
    if np.all(np.abs(entries.weights) == 1):
        return 10
    return 10 + int(np.bincount(entries.rows if side == 0 else entries.cols).max())


def _bound(
    A: MeasurementMap,
    b: np.ndarray,
    objective: Objective,
    dual: np.ndarray,
    offsets: Offsets | None,
    known: bool,
    white: tuple[Any, Any] | None,
    rng: np.random.Generator,
) -> tuple[float, float, np.ndarray]:
    """The lower bound without and with the rounding, and the dual vector brought within its constraint."""
    limit, unit, (d1, d2) = objective.penalty or 1.0, A.at_unit_scale(), A.matrix_shape
    if white is None:
        made = A.whitened() if objective.flat else A.unwhitened()
        white = made.left, made.right
    away = whitening(A, white) if objective.flat else Whitening(0.0, 0.0)
    y = dual / A.scale if objective.flat else dual * A.scale
    before = _dual_objective(A, b, objective, dual, offsets, exact=False)
    if not np.any(dual):
        return before, before, dual
    bases = np.zeros((white[0].shape[1], 0)), np.zeros((white[1].shape[1], 0))
    prior = limit if known else None
    if prior is None and A.of_entries and d1 * d2 > 500_000:
        inner = unit.congruence(*white) if objective.flat else unit
        prior = norm_bound(inner.adjoint_for_many(y), *bases, rng)[0]
    norm = dual_norm(unit, white, y, bases, prior, rng) * away.factor if np.isfinite(away.factor) else np.inf
    if not np.isfinite(norm):
        zeros = np.zeros_like(dual)
        return before, 0.0, zeros  # nothing is known but that the objective is not negative
    if norm > limit or (objective.penalty == 0 and norm < 0.5 * limit and not known):
        dual = dual * (limit / norm * (1 - 4 * UNIT))
    return before, max(_dual_objective(A, b, objective, dual, offsets, exact=True), 0.0), dual


def _dual_objective(
    A: MeasurementMap, b: np.ndarray, objective: Objective, dual: np.ndarray, offsets: Offsets | None, *, exact: bool
) -> float:
    """The dual objective at a vector within its constraint; if `exact`, less all that rounding may have added."""
    data, spill = b, np.zeros(1)
    if offsets is not None:
        ones = A.forward_factored(np.ones((A.matrix_shape[0], 1)), np.ones((A.matrix_shape[1], 1)))
        data = b - offsets.mean * ones
        spill = 4 * UNIT * (np.abs(b) + np.abs(offsets.mean * ones))
    along, error = careful_total(data * dual)
    error += float(np.sum(spill * np.abs(dual)))
    if objective.penalty == 0:
        return objective.weight(A.m) * (along - 1.01 * error * exact) * (1 - 4 * UNIT * exact * np.sign(along))
    square, more = careful_total(dual * dual)
    lower = along - 0.5 * square - 1.01 * exact * (error + more + 2 * UNIT * (abs(along) + square))
    if offsets is not None and objective.offset_penalty is not None:
        entries = A.as_entries()
        for places, size in ((entries.rows, A.matrix_shape[0]), (entries.cols, A.matrix_shape[1])):
            sums = np.abs(np.bincount(places, entries.weights * dual, size))
            if exact:
                counts = np.bincount(places, minlength=size) + 4
                sums = sums + counts * UNIT * np.bincount(places, np.abs(entries.weights * dual), size)
            lower -= frobenius(sums) ** 2 / (2 * objective.offset_penalty) * (1 + 1e-14 * exact)
    return float(lower)


def excluded_norm(A: MeasurementMap, b: np.ndarray, y: np.ndarray) -> float:
    """The nuclear norm up to which no matrix fits, by ``b.y`` against ``A*(y)`` with its rounding; 0 if `y` proves nothing."""
    along, error = careful_total(b * y)
    if not along > error:
        return 0.0
    if _vanishes(A, y):
        return float(np.inf)
    S, spill = A.at_unit_scale().careful_adjoint(y * A.scale)
    reach = float(np.linalg.norm(np.abs(S) + spill)) * (1 + 1e-12)
    return (along - error) / reach if reach > 0 else float(np.inf)


def _vanishes(A: MeasurementMap, y: np.ndarray) -> bool:
    """Whether the combination is zero in exact arithmetic, where that is quick to tell."""
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


def suggested_size(A: MeasurementMap, b: np.ndarray) -> float:
    """The size of a matrix that single data suggest: the largest ``|b_i| / |A_i|``."""
    norms = A.row_norms
    seen = norms > 0
    return float(np.max(np.abs(b[seen]) / norms[seen], initial=0.0))
