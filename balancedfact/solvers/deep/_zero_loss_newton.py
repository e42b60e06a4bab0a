r"""Newton's method for the trace of the Hessian over the layers of a fixed width that fit the data.

With the trace `T`, multipliers `y` and :math:`S = \mathcal A^*(y)`, a step minimises the quadratic model of the Lagrangian
:math:`T(W) - \langle S, W_L\cdots W_1\rangle` over the kernel of the Jacobian `J` of :math:`W\mapsto\mathcal A(W_L\cdots W_1)`,
by conjugate gradients in a trust region (Steihaug 1983); Gauss-Newton steps lead back onto the data. The trace does not
change along ``(W_j) -> (Q_j W_j Q_{j-1}.T)`` with orthogonal `Q_j`, which conjugate gradients leave alone near a minimum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from balancedfact.curvature._zero_loss import ZeroLossPoint
from balancedfact.solvers.iteration._conjugate_gradients import trust_region_step

_MOST_PRODUCTS = 1000  # Hessian products in one step
_UNRESOLVED_CHANGE = 1e-11  # a change of the value below this fraction of it is not told from rounding error


def newton(
    point: ZeroLossPoint, tol: float, watch: Callable[[ZeroLossPoint], bool], *, max_iterations: int = 100
) -> ZeroLossPoint:
    """Descend from a point that fits the data until its stationarity is at most `tol` or rounding errors stop it.

    `watch` is called with every accepted point and ends the descent by returning true.
    """
    radius = 0.1 * float(np.linalg.norm(point.x))
    for _ in range(max_iterations):
        if watch(point) or point.stationarity <= tol:
            return point
        accepted = None
        while accepted is None:
            forcing = max(min(0.1, np.sqrt(point.stationarity)), 0.1 * tol / point.stationarity)
            v, _, _, _, limited = trust_region_step(
                point.hessian,
                point.slope,
                radius,
                accuracy=forcing,
                max_products=_MOST_PRODUCTS,
            )
            predicted = -float(point.slope @ v + 0.5 * v @ point.hessian(v))
            trial = point.moved(v)
            length = float(np.linalg.norm(v))
            ratio = (point.value - trial.value) / predicted if trial is not None else -1.0
            if predicted <= _UNRESOLVED_CHANGE * point.value:  # the value no longer tells: the gradient must
                if trial is None or trial.stationarity >= point.stationarity:
                    return point
                ratio = 1.0
            if trial is not None and ratio > 0.1:
                accepted = trial
            if ratio < 0.25:
                radius = 0.3 * length
            elif ratio > 0.7 and limited:
                radius = 2.5 * max(radius, length)
        point = accepted
    return point
