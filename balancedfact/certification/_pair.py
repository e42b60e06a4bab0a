"""The certificate of a pair and a dual vector, computed from these alone, with all rounding bounded.

Whoever found them: a solver of this package, another one, or a file. The bounds are those of `_rounding`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from balancedfact._certificate import Certificate
from balancedfact._linalg import frobenius, magnitude, scaled_product
from balancedfact._new_rows import Offsets
from balancedfact._objective import Objective
from balancedfact._spectrum import product_singular_values
from balancedfact.certification._rounding import dual_norm, whitening
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._careful import UNIT, careful_total, in_parts

# How well data that are to be interpolated must be fitted, relative to their norm.
FEASIBLE = 1e-10
# How well each single datum must be fitted, relative to its own size.
DATUM = 1e-7
# The share of |A_i| |X| that counts as the size of a datum which is smaller.
_SHARE = 1e-3
# A dual vector whose norm exceeds its limit by less is kept as it is, and a multiple of it gives the bound.
_SLACK = 1e-9


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
    """The certificate; `known` says that the dual matrix is within its constraint up to rounding.

    Data are counted in units of their size, and squares of factors in units of theirs: nothing that is compared overflows or
    vanishes.
    """
    (L, R), unit = pair, power_below(magnitude(b))
    fits, worst, off, more = fit_of_pair(A, b, pair, offsets, unit)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        total, spill, size = _size(A, L, R, objective.flat)
        before, lower, dual = _bound(A, b, objective, dual, unit, offsets, known, white, rng)
        if objective.penalty > 0:
            # In units of unit**2, half of which is the objective of the zero matrix.
            share = scaled_product(objective.penalty, 1 / objective.weight(A.m), size, size, 1 / unit, 1 / unit)
            value, value_error = 0.5 * off**2 + share * total, share * spill + 1.01 * (off * more + 0.5 * more**2)
            if offsets is not None and objective.offset_penalty is not None:
                for each in (offsets.rows, offsets.cols):
                    value += 0.5 * np.float64(np.sqrt(objective.offset_penalty) * frobenius(each / unit)) ** 2
            value_error += 1e-14 * value
            factors = (unit, unit)
        else:
            value, value_error, factors = np.float64(total), np.float64(spill), (size, size)
            # The bound is in units of what one unit of data and one of the map make.
            scale = scaled_product(objective.weight(A.m), unit, A.scale if objective.flat else 1 / A.scale, 1 / size, 1 / size)
            before, lower = before * scale, lower * scale
        gap, rounding = np.float64(0.0), np.float64(0.0)
        claimed = max(lower, np.float64(0.0))  # no objective is negative
        if value > 0:
            gap = (abs(value - claimed) + value_error) / value
            rounding = min((max(min(before, value) - lower, 0.0) + value_error) / value, gap)
        in_full = scaled_product(float(value), *factors), scaled_product(float(claimed), *factors)
        if objective.penalty == 0 and not reached(fits, worst):
            gap = np.float64(np.nan)  # the value of a pair that does not fit is no upper bound
        if value > 0 and not np.finfo(float).tiny <= in_full[0] < np.inf:
            gap = np.float64(np.nan)  # the value itself overflows, or vanishes
        return Certificate(fits, in_full[1], float(gap), dual, value=in_full[0], worst_datum=worst, rounding=float(rounding))


def reached(fits: float, worst: float) -> bool:
    """Tell whether data that are to be interpolated are, all together and each by its own size."""
    return fits <= 10 * FEASIBLE and worst <= DATUM


def power_below(size: float) -> float:
    """The power of two next below a size, by which to divide without rounding."""
    return float(np.ldexp(1.0, max(int(np.frexp(size)[1]) - 1, -1022)))


def fit_of_pair(
    A: MeasurementMap,
    b: np.ndarray,
    pair: tuple[np.ndarray, np.ndarray],
    offsets: Offsets | None,
    unit: float,
    blur: float = 0.0,
) -> tuple[float, float, np.float64, np.float64]:
    """The relative residual, the worst datum, and the norms of the residual and of the errors in it, in units of the data.

    `blur` bounds the Frobenius distance of the product of the pair from the matrix that is meant.
    """
    residual, errors = _measured(A, *pair, offsets)
    if blur > 0:
        errors = errors + blur * A.row_norms
    for some, found, datum in in_parts(errors, residual, b):
        some += 2 * UNIT * (np.abs(found) + np.abs(datum))
    residual -= b
    size, error = frobenius(residual), frobenius(errors)
    fits = size / frobenius(b) if np.any(b) else 0.0
    misses = np.abs(residual, out=residual)  # which is needed no more
    misses += errors
    del errors
    return fits, _worst_datum(A, b, pair, misses), np.float64(size) / unit, np.float64(error) / unit


def _worst_datum(A: MeasurementMap, b: np.ndarray, pair: tuple[np.ndarray, np.ndarray], misses: np.ndarray) -> float:
    """The largest miss, relative to the datum, or to the share of the matrix that is seen where the datum is smaller."""
    L, R = pair
    size = frobenius(product_singular_values([R.T / magnitude(R), L / magnitude(L)])) * magnitude(L) * magnitude(R)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        worst = []
        for miss, datum, norms in in_parts(misses, b, A.row_norms):
            sizes = np.maximum(np.abs(datum), (_SHARE * size) * norms)
            worst.append(np.max(np.divide(miss, sizes, out=miss, where=miss > 0)))  # misses are needed no more
        return float(np.max(worst))


def _measured(A: MeasurementMap, L: np.ndarray, R: np.ndarray, offsets: Offsets | None) -> tuple[np.ndarray, np.ndarray]:
    if offsets is None:
        return A.careful_forward(L, R)
    d1, d2 = A.matrix_shape
    rows = np.column_stack([L, offsets.rows + offsets.mean, np.ones(d1)])
    return A.careful_forward(rows, np.column_stack([R, np.ones(d2), offsets.cols]))


def _size(A: MeasurementMap, L: np.ndarray, R: np.ndarray, flat: bool) -> tuple[float, float, float]:
    """The scaled trace, or the sum of squares, of a pair and a bound on its error, both in units of ``size**2``; `size`."""
    found: list[tuple[float, float, float]] = []
    unit = A.at_unit_scale()
    for side, factor in enumerate((L, R)):
        a = power_below(magnitude(factor))
        if not flat:
            found.append((*careful_total(np.square(factor / a).ravel()), a))
        elif A.of_entries:
            scaled = (A.rescale_left if side == 0 else A.rescale_right)(factor / a)
            part, spill = careful_total(np.square(scaled).ravel())
            spill += 2 * _longest_sum(A, side) * UNIT * part
            found.append((part, spill, float(np.sqrt(2 * A.m)) * A.scale * a))
        else:
            G, spill = unit.careful_gram(factor / a, side)
            part = max(float(np.trace(G)), 0.0)
            found.append((part, spill * np.sqrt(len(G)), float(np.sqrt(2 / A.matrix_shape[1 - side])) * A.scale * a))
    size = max(each[2] for each in found)
    total = sum((each[2] / size) ** 2 * each[0] for each in found)
    error = sum((each[2] / size) ** 2 * each[1] for each in found)
    return total, error + 1e-14 * total, size


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
    unit: float,
    offsets: Offsets | None,
    known: bool,
    white: tuple[Any, Any] | None,
    rng: np.random.Generator,
) -> tuple[np.float64, np.float64, np.ndarray]:
    """The lower bound without and with the rounding, and the dual vector brought within its constraint.

    `b` is counted in its `unit`. Without a penalty the bounds are in units of ``weight * unit * scale``, or ``/ scale``.
    """
    if white is None:
        made = A.whitened() if objective.flat else A.unwhitened()
        white = made.left, made.right
    factor = whitening(A, white).factor if objective.flat else 1.0
    to_unit = 1 / A.scale if objective.flat else A.scale  # of a dual vector, to one of the map at unit scale
    limit = objective.penalty or 1.0
    nothing = np.float64(0.0)
    if not np.any(dual) or not np.isfinite(dual).all():
        return nothing, nothing, np.zeros(A.m)
    if not np.isfinite(factor):
        return np.float64(np.inf), nothing, np.zeros(A.m)  # nothing is known but that the objective is not negative

    def norms_of(y: np.ndarray, known: bool) -> tuple[float, float]:
        """The norm of the dual matrix relative to what is allowed, without and with its rounding."""
        size = power_below(magnitude(y))
        prior = limit / size / to_unit * (1 + 8 * UNIT) if known else None
        plain, spill = dual_norm(A.at_unit_scale(), white, y / size, prior, rng)
        units = size, to_unit, 1 / limit
        return scaled_product(plain, *units), scaled_product((plain + spill) * factor, *units)

    plain, norm = norms_of(dual, known)
    if not np.isfinite(norm):
        return nothing, nothing, np.zeros(A.m)
    if norm > 0 and (norm > 1 + _SLACK or (objective.penalty == 0 and norm < 0.5 and not known)):
        dual = dual * (1 / norm)
        plain, norm = norms_of(dual, False)  # of the vector returned, whose rounding the inverses of D1 and D2 may magnify
    multiple = 1 / norm * (1 - 4 * UNIT) if norm > 1 else 1.0
    before = _dual_objective(A, b, objective, dual, 1 / plain if plain > 0 else 1.0, unit, offsets, exact=False)
    lower = _dual_objective(A, b, objective, dual, multiple, unit, offsets, exact=True)
    return before, lower, dual


def _dual_objective(
    A: MeasurementMap,
    b: np.ndarray,
    objective: Objective,
    dual: np.ndarray,
    multiple: float,
    unit: float,
    offsets: Offsets | None,
    *,
    exact: bool,
) -> np.float64:
    """The dual objective at a `multiple` of a vector, less what rounding may have added; if not `exact`, at the best one."""
    y = dual / unit if objective.penalty > 0 else dual * (1 / A.scale if objective.flat else A.scale)
    data, spill = b / unit, None
    if offsets is not None:
        ones = A.forward_factored(np.ones((A.matrix_shape[0], 1)), np.ones((A.matrix_shape[1], 1)))
        means = offsets.mean / unit * ones
        spill = 4 * UNIT * (np.abs(data) + np.abs(means))
        data -= means
    data *= y
    along, error = (np.float64(each) for each in careful_total(data))
    if spill is not None:
        error += np.sum(spill * np.abs(y))
    if objective.penalty == 0:
        return np.float64((along - 1.01 * error * exact) * multiple * (1 - 4 * UNIT * exact))
    square, more = (np.float64(each) for each in careful_total(y * y))
    if not exact and square > 0:
        multiple = min(multiple, max(float(along / square), 0.0))
    along, error, square, more = along * multiple, error * multiple, square * multiple**2, more * multiple**2
    lower = along - 0.5 * square - 1.01 * exact * (error + more + 4 * UNIT * (abs(along) + square))
    if offsets is not None and objective.offset_penalty is not None:
        entries = A.as_entries()
        for places, size in ((entries.rows, A.matrix_shape[0]), (entries.cols, A.matrix_shape[1])):
            sums = np.abs(np.bincount(places, entries.weights * y, size))
            if exact:
                counts = np.bincount(places, minlength=size) + 4
                sums = sums + counts * UNIT * np.bincount(places, np.abs(entries.weights * y), size)
            lower -= np.float64(multiple * frobenius(sums / np.sqrt(objective.offset_penalty))) ** 2 / 2 * (1 + 1e-14 * exact)
    return np.float64(lower)
