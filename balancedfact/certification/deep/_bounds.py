r"""Rigorous lower bounds on the trace of the Hessian of every deep factorization that fits the data: the largest of all.

**From any vector** `y`: `_multiplier`. **From weighted isometries**:
`_weighted_isometry`. **From lifts** of single layers: `_lifted_bound`.

**From an isometry** of the whitened measurements :math:`\tilde A_i = D_1^{-1}A_iD_2^{-1}`: where
:math:`\frac1m\sum_i\langle\tilde A_i, uv^\top\rangle^2\ge\ell` for all unit vectors,

.. math:: \operatorname{tr}\nabla^2\mathcal L(W)\ \ge\ 2L\,(d_1d_2\,\ell^{L-2})^{1/L}\,\|D_1ED_2\|_*^{2-2/L},

and the dual vector of two layers bounds the nuclear norm.

The proofs are in the theory pages "The flattest deep network" and "A global certificate".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from balancedfact._linalg import EPS
from balancedfact.certification.deep._lifted_bound import lifted_bound
from balancedfact.certification.deep._multiplier import best_multipliers, proved_dual
from balancedfact.certification.deep._weighted_isometry import BARRIER_WORK, weighted_isometry_bound
from balancedfact.measurements import MeasurementMap, isometry_constant

# The relaxation behind an isometry constant: the largest order for which it takes a fraction of a second, and its steps.
_RELAXED_ORDER, _ITERATIONS = 150, 30
# What the weighted isometry may cost where the bound must be cheap: order, work, evaluations, and gain at which a stage ends.
_QUICK_ORDER, _QUICK_WORK, _QUICK_EVALUATIONS, _QUICK_GAIN = 150, 5e8, 600.0, 1e-5


class Bound(NamedTuple):
    """A lower bound on the trace for a map of ordinary scale, and what it follows from."""

    value: float
    source: str


class DeepDual(NamedTuple):
    """Results of a solve that help a bound, in the units of the map `A`.

    `layers` are the network, `y` are multipliers of the deep problem, `two_layers` is the dual vector of two layers,
    and `nuclear` the lower bound on ``|D1 E D2|_*`` that it proves.
    """

    layers: Sequence[np.ndarray]
    y: np.ndarray
    two_layers: np.ndarray
    nuclear: float


def best_bound(
    A: MeasurementMap,
    b: np.ndarray,
    depth: int,
    dual: DeepDual,
    *,
    effort: str,
    rng: np.random.Generator,
    stop: Callable[[], bool] = lambda: False,
) -> Bound:
    """The largest of all bounds that the effort, ``"best"`` or ``"quick"``, allows."""
    y = best_multipliers(A, b, dual.y, depth)
    bounds = [
        Bound(proved_dual(A, b, y).bound(A.m, A.matrix_shape, depth), "a dual vector alone"),
        Bound(
            isometry_bound(A, dual.nuclear, depth, rng),
            "an isometry of rank one, proved by semidefinite relaxation, and the dual bound of two layers",
        ),
    ]
    work = BARRIER_WORK if effort == "best" else _QUICK_WORK if A.shape[1] <= _QUICK_ORDER else 0.0
    if work > 0:
        quick = {} if effort == "best" else {"most": _QUICK_EVALUATIONS, "gain": _QUICK_GAIN}
        found = weighted_isometry_bound(A, b, dual.two_layers, y, depth, work=work, stop=stop, **quick)
        bounds.append(Bound(found, "weighted isometries, a matrix inequality of order d1 d2 for each middle layer"))
    if effort == "best":
        found = lifted_bound(A, b, dual.two_layers, dual.layers, rng, stop=stop)
        bounds.append(
            Bound(
                found,
                "semidefinite programmes of order (d1 + d2)^2, one for each kind of layer, with the moments of the product",
            )
        )
    return max(bounds, key=lambda bound: bound.value)


def isometry_bound(A: MeasurementMap, nuclear: float, depth: int, rng: np.random.Generator) -> float:
    """The second bound, for a map of ordinary scale that sees every direction, from a lower bound `nuclear` on ``|D1 E D2|_*``.

    0 where the isometry is not proved, or where the proof would take long.
    """
    d1, d2 = A.matrix_shape
    if d1 * d2 > _RELAXED_ORDER or nuclear <= 0:
        return 0.0
    white = A.whitened()
    stretch = float(np.prod([values[-1] / values[0] if values[0] > 0 else np.inf for values, _ in (A.left_root, A.right_root)]))
    least = isometry_constant(white.map, 1, starts=1, iterations=_ITERATIONS, rng=rng).smallest[0]
    if least <= 0 or not stretch < 1e4:
        return 0.0
    margin = 1 - 64 * EPS * d1 * d2 * stretch**2  # for the rounding of the whitened measurements
    return float(2 * depth * (d1 * d2 * least ** (depth - 2)) ** (1 / depth) * nuclear ** (2 - 2 / depth)) * margin
