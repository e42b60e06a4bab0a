r"""The certificate of given layers and a dual vector, for networks of three or more layers.

It follows from the layers, the vector and the data alone, whoever found them. Value, residual and the bound of the dual vector
carry an a priori bound on their rounding; a product of `n` matrices errs by at most :math:`\gamma_N` times the product of their
Frobenius norms, `N` the sum of the inner dimensions. Stationarity and curvature are evidence and have none.

**The flattest of a product.** Multiply the layers by numbers that make their `L` shares of the trace equal; with `f` the trace
there and :math:`G_k` its gradient by the layer `W_k`, no factorization of the same product, of the width of its rank, has a
trace below

.. math:: f - \tfrac L4\sum_{j<L}\bigl\|\operatorname{sym}(G_jW_j^\top - W_{j+1}^\top G_{j+1})\bigr\|_* ,

for the trace is geodesically convex in these factorizations (theory page "Induced regularizer"). Where the data determine the
matrix, this bounds every network that fits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from balancedfact._certificate import Certificate
from balancedfact._linalg import EPS, frobenius, magnitude, product
from balancedfact._objective import Objective
from balancedfact._status import Status
from balancedfact.certification._pair import certify_pair, fit_of_pair, power_below, reached
from balancedfact.certification._verdict import unreached
from balancedfact.certification.deep._bounds import DeepDual, best_bound
from balancedfact.certification.deep._least_squares import at_layers
from balancedfact.certification.deep._multiplier import best_multipliers, proved_dual
from balancedfact.curvature import layer_traces, trace, trace_gradient
from balancedfact.curvature._zero_loss import DeepProblem, ZeroLossPoint
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._careful import careful_total, gamma
from balancedfact.measurements._ordinary_size import of_ordinary_size

GAP_OF_NETWORKS = 1e-3  # relative gap up to which a network is called optimal: bounds are coarse
_SLOPE, _NEGATIVE_CURVATURE, _FIBRE = 1e-8, 1e-7, 1e-6  # relative, up to which layers count as a minimum
# Numbers in the Jacobian of the fit, beyond which the second order of a sum of squares is not looked at.
_MOST_LINEARISED = 2**24
_INJECTIVE = 1e-10  # least singular value, relative to the largest, from which on data determine the matrix


class SecondOrder(NamedTuple):
    """Relative stationarity and curvature at layers, and multipliers of the fit; ``nan`` where they are too large."""

    stationarity: float
    curvature: float
    multipliers: np.ndarray


def measured_fit(
    A: MeasurementMap, b: np.ndarray, layers: list[np.ndarray], unit: float
) -> tuple[float, float, np.float64, np.float64]:
    """The residual of layers, in the terms of `fit_of_pair`."""
    spread = float(np.exp(sum(np.log(max(frobenius(W), np.finfo(float).tiny)) for W in layers)))
    blur = gamma(sum(len(W) for W in layers)) * spread
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return fit_of_pair(A, b, (layers[-1], product(layers[:-1]).T), None, unit, blur)


def fit_of_layers(A: MeasurementMap, b: np.ndarray, layers: list[np.ndarray]) -> tuple[float, float]:
    """The relative residual and the worst datum, rounding included."""
    return measured_fit(A, b, layers, power_below(magnitude(b)))[:2]


def certify_layers(
    A: MeasurementMap,
    b: np.ndarray,
    objective: Objective,
    layers: list[np.ndarray],
    dual: np.ndarray | None,
    *,
    effort: str,
    rng: np.random.Generator,
) -> Certificate:
    """The certificate; without a `dual` vector the multipliers at the layers are taken, for the trace only.

    `effort` is that of `best_bound`, or ``"dual"`` for the bound of a dual vector and nothing else: the best one that is found
    from the one given.
    """
    pair, unit = (layers[-1], product(layers[:-1]).T), power_below(magnitude(b))
    fits, worst = fit_of_layers(A, b, layers)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found = second_order(A, b, objective, layers, rng)
        y = found.multipliers if dual is None else dual
        if objective.flat and effort == "dual" and not A.uncertain:
            y = best_multipliers(_seen(A, layers)[0], b / unit, y, len(layers))
        if objective.flat:
            value, error = _trace(A, layers)
            enough = (1 - GAP_OF_NETWORKS) * value if 0 < value < np.inf else -np.inf
            lower, source, least = bound_on_trace(A, b, layers, y, enough, effort, rng)
        else:
            total, spill, size = sum_of_squares(layers)
            value, error = total * size * size, spill * size * size
            nuclear = certify_pair(A, b, Objective("norm"), pair, y, rng=rng).lower_bound / 2
            lower, source, least = len(layers) * max(nuclear, 0.0) ** (2 / len(layers)) * (1 - 16 * EPS), _NUCLEAR, np.nan
        gap = np.nan
        if np.finfo(float).tiny <= value < np.inf and reached(fits, worst):
            gap = (abs(value - lower) + error) / value
        elif value == 0 and not np.any(b):
            gap = 0.0
    return Certificate(
        fits,
        float(lower),
        float(gap),
        y,
        stationarity=found.stationarity,
        curvature=found.curvature,
        fibre_gap=float(max(value / least - 1, 0.0)) if least > 0 else np.nan,
        proof=f"computed anew from the layers; the bound follows from {source}",
        value=float(value),
        worst_datum=worst,
        rounding=float(error / value) if value > 0 else np.nan,
    )


def verdict_on_layers(certificate: Certificate, objective: Objective, tol: float) -> tuple[Status, str]:
    """The verdict as a status and a sentence; bounds on the trace close to `GAP_OF_NETWORKS` at best, all else to `tol`."""
    missed = unreached(certificate) if objective.penalty == 0 else None
    if missed is not None:
        return Status.GAP_OPEN, missed
    if np.isnan(certificate.gap):
        return Status.GAP_OPEN, f"The value, {certificate.value:.3g}, is beyond what floating-point numbers tell apart."
    if certificate.gap <= (max(tol, GAP_OF_NETWORKS) if objective.flat else tol):
        better = f"a relative {certificate.gap:.1e}"
        return Status.OPTIMAL, f"Optimal: no factorization of any width is better by more than {better}; {certificate.proof}."
    share = np.floor(1000 * (1 - certificate.gap)) / 10  # never 100 where the gap is open
    bound = f"the lower bound is {share:.3g} % of the value"
    # A fibre gap is not looked at for sums of squares, whose every stationary point is balanced.
    flattest = not certificate.fibre_gap > max(tol, _FIBRE)
    if certificate.stationarity <= max(tol, _SLOPE) and certificate.curvature >= -_NEGATIVE_CURVATURE and flattest:
        return Status.STATIONARY, f"A minimum to second order among networks of these widths; {bound}."
    found = f"stationarity {certificate.stationarity:.1e}, curvature {certificate.curvature:.1e}"
    return Status.GAP_OPEN, f"No minimum to second order was confirmed: {found}; {bound}."


_NUCLEAR = "the proved least nuclear norm, for the sum of squares is at least L times its power 2/L"


def _trace(A: MeasurementMap, layers: list[np.ndarray]) -> tuple[float, float]:
    """The trace of the Hessian and a bound on its rounding."""
    return trace(layers, A), rounding_of_trace(A, layers)


def rounding_of_trace(A: MeasurementMap, layers: list[np.ndarray]) -> float:
    """A bound on the rounding of the trace of the Hessian, and so on that of its largest eigenvalue."""
    sizes = np.log([frobenius(W) for W in layers])
    reach = 2 * (np.sum(sizes) - sizes) + 2 * np.log(frobenius(A.row_norms)) + np.log(2 / A.m)
    roundings = 4 * (A.m + sum(A.matrix_shape) + sum(len(W) for W in layers))
    return gamma(roundings) * float(np.sum(np.exp(reach)))


def sum_of_squares(layers: list[np.ndarray]) -> tuple[float, float, float]:
    """The sum of squares of all layers and a bound on its rounding, in units of the square of a size; that size."""
    size = power_below(max(magnitude(W) for W in layers))
    return *careful_total(np.concatenate([np.square(W / size).ravel() for W in layers])), size


def _seen(A: MeasurementMap, layers: list[np.ndarray]) -> tuple[MeasurementMap, list[np.ndarray], float]:
    """The map of ordinary size on the directions that it sees, the layers there, and by how much the map was divided."""
    near, power = of_ordinary_size(A)
    unit, power = near.at_unit_scale(), power * float(near.scale)
    left, right = (vectors[:, values > 0] for values, vectors in (unit.left_root, unit.right_root))
    if left.shape[1] + right.shape[1] == sum(A.matrix_shape):
        return unit, layers, power
    return unit.congruence(left, right), [layers[0] @ right, *layers[1:-1], left.T @ layers[-1]], power


def bound_on_trace(
    A: MeasurementMap,
    b: np.ndarray,
    layers: list[np.ndarray],
    y: np.ndarray,
    enough: float,
    effort: str,
    rng: np.random.Generator,
) -> tuple[float, str, float]:
    """The largest lower bound on the trace, what it follows from, and the least trace of the product if it is bounded.

    From `enough` on no larger one is looked for.
    """
    depth, level = len(layers), power_below(magnitude(b))
    # The trace per unit of the problem with the map at unit scale, or of ordinary size, and the data ``b / level``.
    units = float(np.exp((2 - 2 / depth) * np.log(level) + 2 / depth * np.log(A.scale)))
    unit, inner, power = _seen(A, layers)
    per = float(np.exp((2 - 2 / depth) * np.log(level) + 2 / depth * np.log(power)))
    proved = proved_dual(A, b / level, y)
    lower, source = proved.bound(A.m, A.matrix_shape, depth) * units * (1 - 64 * EPS), "a dual vector alone"
    least = flattest_of_product(unit, inner) * power * power
    if least > lower and reached(*fit_of_layers(A, b, layers)) and _determined(unit):  # of a matrix that fits
        lower, source = least, "the least trace of the matrix, which the data determine"
    if effort != "dual" and lower < enough and proved.along > 0 and not A.uncertain:
        known = DeepDual(inner, y, y, proved_dual(unit, b / level, y).nuclear)
        found = best_bound(unit, b / level, depth, known, effort=effort, rng=rng)
        if found.value * per * (1 - 64 * EPS) > lower:
            lower, source = found.value * per * (1 - 64 * EPS), found.source
    return lower if np.isfinite(lower) else 0.0, source, least


def flattest_of_product(A: MeasurementMap, layers: list[np.ndarray]) -> float:
    """A lower bound on the trace of every factorization of the product; 0 where the layers are wider than its rank."""
    rank = np.linalg.matrix_rank(product(layers))
    terms = layer_traces(layers, A)
    if {len(W) for W in layers[:-1]} != {rank} or not (np.all(terms > 0) and np.isfinite(terms).all()):
        return 0.0
    roots = np.sqrt(terms / np.exp(np.mean(np.log(terms))))
    even = [root * W for root, W in zip(roots, layers, strict=True)]
    G = trace_gradient(even, A)
    slopes = [P @ U.T - V.T @ Q for P, U, Q, V in zip(G[:-1], even[:-1], G[1:], even[1:], strict=True)]
    lost = sum(float(np.linalg.norm((S + S.T) / 2, "nuc")) for S in slopes)
    return max(float(np.sum(layer_traces(even, A))) - len(layers) / 4 * lost, 0.0) * (1 - 1e3 * EPS)


def _determined(A: MeasurementMap) -> bool:
    """Tell whether only one matrix can fit."""
    order = A.shape[1]
    if A.m < order or A.m * order > _MOST_LINEARISED:
        return False
    rows = A.stack().reshape(A.m, -1)
    s = np.linalg.svd(rows[np.any(rows, axis=1)], compute_uv=False)
    return bool(s.size == order and s[-1] > _INJECTIVE * s[0])


def second_order(
    A: MeasurementMap, b: np.ndarray, objective: Objective, layers: list[np.ndarray], rng: np.random.Generator
) -> SecondOrder:
    """Stationarity and curvature on the layers that fit, in units in which layers and data are of ordinary size."""
    unit, inner, power = _seen(A, layers)
    unknown = SecondOrder(np.nan, np.nan, np.zeros(A.m))
    sizes = [frobenius(W) for W in inner]
    norms = unit.row_norms
    heavy = np.flatnonzero(norms > 0)
    if not all(0 < size < np.inf for size in sizes) or not heavy.size or not np.any(b):
        return unknown
    size = float(np.exp(np.mean(np.log(sizes))))
    inner = [W / size for W in inner]
    rows = unit.select(heavy, 1 / norms[heavy])
    data = b[heavy] / norms[heavy] / power / size ** len(layers)
    if not np.isfinite(data).all():
        return unknown
    multipliers = np.zeros(A.m)
    if not objective.flat:
        if rows.m * sum(W.size for W in inner) > _MOST_LINEARISED:
            return unknown
        at = at_layers(rows, data, inner)
        return SecondOrder(at.stationarity, at.curvature, multipliers)
    point = ZeroLossPoint(DeepProblem(unit, rows, data, len(layers)), inner)
    if not point.tractable:
        return unknown
    multipliers[heavy] = point.multipliers() / norms[heavy]
    curvature = point.curvature(rng)[0]
    return SecondOrder(point.stationarity, 0.0 if np.isnan(curvature) else curvature, multipliers)  # nowhere to move: none
