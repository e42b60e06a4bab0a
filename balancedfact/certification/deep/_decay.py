r"""The certificate of a deep network with weight decay, from its layers, one dual vector and the data alone.

**Lower bound.** For every `y` the measurements of a matrix of nuclear norm `t` are at least
:math:`(b^\top y-\|\mathcal A^*(y)\|t)/\|y\|` away from the data, and its quasi-norm is at least :math:`t^{2/L}`. So the least
value is at least the minimum over `t` of :math:`\frac12(p-qt)_+^2+\frac{\lambda L}2t^{2/L}`, where `p` and `q` are those of the
data themselves up to some `t`, and those of the dual vector beyond (`_decay_line`). Where the data determine the matrix the
bound of `_separable_bound` may be larger, and the larger one is taken.

Lines are rounded down; stationarity and curvature are evidence and are not.
"""

from __future__ import annotations

import numpy as np

from balancedfact._certificate import Certificate
from balancedfact._linalg import frobenius, magnitude, product, scaled_product
from balancedfact._objective import Objective
from balancedfact.certification._pair import power_below
from balancedfact.certification._proved_norm import proved_norm
from balancedfact.certification.deep._decay_line import EVALUATED, FallingLine, least
from balancedfact.certification.deep._layers import measured_fit, sum_of_squares
from balancedfact.certification.deep._separable_bound import SeparableBound
from balancedfact.curvature import loss_gradient, spectrum
from balancedfact.curvature._hessian import FORMED_WEIGHTS
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._careful import careful_total, gamma
from balancedfact.measurements._ordinary_size import of_ordinary_size

_HEAVIEST = 1e150  # penalty beyond which the same is proved
_BY_DISTANCE = "the distance of the data from all matrices of a nuclear norm, whose power 2/L is at most the quasi-norm"
_BY_CONVEXITY = "the least eigenvalue of the measurements, which leaves one problem for each singular value"
_CLOSED_DECAY = 1e-9  # relative gap at which no larger bound is looked for


class OrdinaryDecay:
    """The problem with map and data of ordinary size: values are in units of ``unit**2``, at matrices in units of ``size``."""

    def __init__(self, A: MeasurementMap, b: np.ndarray, depth: int, penalty: float) -> None:
        self.map, power = of_ordinary_size(A)
        self.depth, self.unit = depth, power_below(magnitude(b)) if b.any() else 1.0
        self.size, self.data = scaled_product(self.unit, 1 / power), b / self.unit
        weight = scaled_product(penalty, self.size ** (2 / depth), 1 / self.unit, 1 / self.unit)
        self.penalty = min(weight, _HEAVIEST)
        self.determined = SeparableBound(self.map, self.data, self.penalty, depth)


def certify_decay(
    A: MeasurementMap,
    b: np.ndarray,
    objective: Objective,
    layers: list[np.ndarray],
    dual: np.ndarray,
    problem: OrdinaryDecay | None = None,
) -> Certificate:
    """The certificate of three layers or more, for least squares with a penalty on the squares of all entries.

    The `problem` of these data and objective may be given where it is known already.
    """
    problem = problem or OrdinaryDecay(A, b, len(layers), objective.penalty)
    unit = problem.unit
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        fits, worst, off, more = measured_fit(A, b, layers, unit)
        total, spill, size = sum_of_squares(layers)
        share = scaled_product(objective.penalty / 2, size, size, 1 / unit, 1 / unit)
        value = float(off**2 / 2 + share * total)
        error = float(off * more + more**2 / 2 + share * spill + EVALUATED * value)
        E = product([W / problem.size ** (1 / len(layers)) for W in layers])
        determined = problem.determined.best(E, enough=value * (1 - _CLOSED_DECAY))
        lower, source = decay_bound(problem, dual), _BY_DISTANCE
        if determined > lower:
            lower, source = determined, _BY_CONVEXITY
        gap = (abs(value - lower) + error) / value if value > 0 else 0.0
        in_full = scaled_product(value, unit, unit)
        if value > 0 and not np.finfo(float).tiny <= in_full < np.inf:
            gap = np.nan  # the value itself overflows, or vanishes
    stationarity, curvature = _second_order(problem, layers)
    return Certificate(
        fits,
        scaled_product(lower, unit, unit),
        gap,
        dual,
        stationarity=stationarity,
        curvature=curvature,
        proof=f"computed anew from the layers; the bound follows from {source}",
        value=in_full,
        worst_datum=worst,
        rounding=error / value if value > 0 else 0.0,
    )


def decay_bound(problem: OrdinaryDecay, y: np.ndarray) -> float:
    """A lower bound on the value over all networks of the depth, whatever their widths."""
    penalty, depth = problem.penalty, problem.depth
    if not problem.data.any():
        return 0.0
    first = _line(problem.map, problem.data, problem.data)
    if not y.any():
        return max(least(first, penalty, depth, 0.0, np.inf), 0.0)
    second = _line(problem.map, problem.data, y)
    if not second.steepness < first.steepness:
        return max(least(first, penalty, depth, 0.0, np.inf), 0.0)
    meet = max((first.height - second.height) / (first.steepness - second.steepness), 0.0)
    before = least(first, penalty, depth, 0.0, meet)
    return max(min(before, least(second, penalty, depth, meet, np.inf)), 0.0)


def _line(A: MeasurementMap, b: np.ndarray, y: np.ndarray) -> FallingLine:
    y = y / power_below(magnitude(y))
    along, error = careful_total(b * y)
    S, errors = A.careful_adjoint(y)
    size, rounded = frobenius(y), gamma(len(y) + 4)
    height, steepness = (along - error) / size, (proved_norm(S) + 1.01 * float(np.linalg.norm(errors))) / size
    return FallingLine(height - rounded * abs(height), steepness * (1 + rounded))


def _second_order(problem: OrdinaryDecay, layers: list[np.ndarray]) -> tuple[float, float]:
    """Relative stationarity, and the least curvature relative to the largest; ``nan`` where the layers are too many numbers."""
    A, b, penalty = problem.map, problem.data, problem.penalty
    inner = [W / problem.size ** (1 / len(layers)) for W in layers]
    x = np.concatenate([W.ravel() for W in inner])
    if x.size > FORMED_WEIGHTS or not np.isfinite(x).all():
        return np.nan, np.nan
    pull = A.m / 2 * np.concatenate([G.ravel() for G in loss_gradient(inner, A, b)])
    size = float(np.linalg.norm(pull) + penalty * np.linalg.norm(x))
    values = A.m / 2 * spectrum(inner, A, b) + penalty
    largest = float(np.abs(values).max())
    stationarity = float(np.linalg.norm(pull + penalty * x)) / size if size > 0 else 0.0
    return stationarity, float(values.min()) / largest if largest > 0 else 0.0
