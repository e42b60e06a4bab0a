"""The least of half the square of a decreasing line and a concave power, proved."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from balancedfact._linalg import EPS

EVALUATED = 64 * EPS  # of the terms of a value: more than what their evaluation loses


class FallingLine(NamedTuple):
    """The line ``height - steepness * t``."""

    height: float
    steepness: float


def least(line: FallingLine, penalty: float, depth: int, start: float, end: float) -> float:
    """The least of ``max(p - q t, 0)**2 / 2 + penalty * L / 2 * t**(2 / L)`` over ``start <= t <= end``, rounded down.

    Such a function is concave up to its inflection, convex from there to `p / q`, and increases beyond: it is least at the
    beginning, at the end of the concave part, or where its slope vanishes in the convex part; a tangent near there bounds it.
    """
    p, q = line
    power, lost = 2 / depth, EVALUATED * p * p

    def value(t: float) -> float:
        return (max(p - q * t, 0.0) ** 2 / 2 + penalty * depth / 2 * t**power) * (1 - EVALUATED)

    def slope(t: float) -> float:
        return penalty * t ** (power - 1) - q * (p - q * t)

    if not q * start < p:  # beyond, and where nothing is measured, only the penalty changes
        return value(start) - lost
    last = min(end, p / q) if q > 0 else start
    bend = (penalty * (1 - power)) ** (1 / (2 - power)) * q ** (-2 / (2 - power)) if q > 0 else np.inf
    left = max(start, bend)
    if not 0 < left < last:
        return min(value(start), value(last)) - lost
    if slope(left) >= 0:
        z = left
    elif slope(last) <= 0:
        z = last
    else:
        from scipy.optimize import brentq  # takes a third of the time of the whole import

        z = float(brentq(slope, left, last, xtol=np.finfo(float).tiny, rtol=4 * EPS))
    steep = slope(z)
    tangent = value(z) - max(steep, 0.0) * (z - left) - max(-steep, 0.0) * (last - z)
    return min(value(start), tangent) - lost
