"""No lower bound on the trace of the flattest deep network is above the best of many random descents.

For every problem: each of the bounds on its own, and descents by Newton's method on the layers that fit, from random layers
that are narrow, of full width, wider than the matrix, of deficient rank up to a small part, or unbalanced by factors up to
``exp(3)`` a layer. A row of a table is printed for each: problem, how many descents fitted the data, least and median trace of
these, each bound over the least trace, rounded down, processor seconds. The command fails if a bound exceeds a trace.

    python benchmarks/random_descents.py                  # 1000 descents for each of eight problems
    python benchmarks/random_descents.py 50               # 50 for each
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise

import numpy as np

import balancedfact as bf
from balancedfact.certification.deep._bounds import isometry_bound
from balancedfact.certification.deep._lifted_bound import lifted_bound
from balancedfact.certification.deep._multiplier import best_multipliers, multiplier_bound
from balancedfact.certification.deep._weighted_isometry import weighted_isometry_bound
from balancedfact.curvature._zero_loss import DeepProblem, ZeroLossPoint
from balancedfact.measurements import Dense, MeasurementMap
from balancedfact.solvers.deep._zero_loss_newton import newton

KINDS = ("narrow", "full", "wide", "deficient", "unbalanced")
PROBLEMS = [("gaussian", 3, 3, 6, 3), ("gaussian", 3, 3, 6, 4), ("gaussian", 4, 3, 9, 3), ("gaussian", 3, 3, 4, 5)]
PROBLEMS += [("bilinear", 3, 3, 6, 3), ("bilinear", 3, 3, 7, 4), ("entries", 3, 3, 6, 3), ("entries", 4, 3, 8, 4)]


def problem(kind: str, d1: int, d2: int, m: int, seed: int = 0) -> tuple[MeasurementMap, np.ndarray]:
    """The measurements, as dense matrices, and the data of a matrix of rank one."""
    rng = np.random.default_rng(seed)
    if kind == "entries":
        rows, cols = np.unravel_index(rng.choice(d1 * d2, m, replace=False), (d1, d2))
        A: MeasurementMap = bf.measurements.Entries(rows, cols, (d1, d2))
    else:
        A = getattr(bf.measurements, kind)(m, (d1, d2), rng)
    return A, A(np.outer(rng.standard_normal(d1), rng.standard_normal(d2)))


def start(kind: str, d1: int, d2: int, L: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Random layers."""
    full = min(d1, d2)
    width = {"narrow": int(rng.integers(1, full)), "wide": full + int(rng.integers(1, 3))}.get(kind, full)
    widths = [d2, *[width] * (L - 1), d1]
    layers = [rng.standard_normal((rows, cols)) / np.sqrt(cols) for cols, rows in pairwise(widths)]
    if kind == "deficient":
        layers = [np.outer(W[:, 0], W[0]) + 10 ** rng.uniform(-3, -1) * W for W in layers]
    if kind == "unbalanced":
        factors = rng.uniform(-3, 3, L)
        layers = [np.exp(factor) * W for factor, W in zip(factors - factors.mean(), layers, strict=True)]
    return layers


def descents(A: MeasurementMap, b: np.ndarray, L: int, count: int) -> list[float]:
    """The traces at which the descents that fit the data end."""
    (d1, d2), rng, ends = A.matrix_shape, np.random.default_rng(1), []
    dense = Dense(A.rotated(np.eye(d1), np.eye(d2)))
    deep = DeepProblem(dense, dense, b, L)
    for k in range(count):
        point: ZeroLossPoint | None = ZeroLossPoint(deep, start(KINDS[k % len(KINDS)], d1, d2, L, rng))
        for _ in range(30):  # Gauss-Newton from afar, halfway where it leads away
            assert point is not None
            if point.misfit <= 1e-12:
                break
            step, share = point._jacobian[2](point.residual), 1.0
            while share > 1e-3:
                trial = ZeroLossPoint(deep, point._shaped(point.x + share * step))
                if trial.misfit < point.misfit:
                    break
                share /= 2
            point = trial
        assert point is not None
        if point.misfit <= 1e-12:
            ends.append(bf.curvature.trace(newton(point, 1e-7, lambda each: False, max_iterations=40).layers, A))
    return ends


def bounds(A: MeasurementMap, b: np.ndarray, L: int, value: float) -> dict[str, float]:
    """Every bound on its own."""
    rng, two = np.random.default_rng(0), bf.flat_minimum(A, b)
    unit = A.at_unit_scale()
    y = best_multipliers(unit, b / A.scale, two.certificate.dual, L)
    nuclear = two.certificate.lower_bound / (4 * A.m) / A.scale
    units = A.scale**2
    found = {
        "multiplier": multiplier_bound(unit, b / A.scale, y, L),
        "isometry": isometry_bound(unit, nuclear, L, rng),
        "weighted": weighted_isometry_bound(unit, b / A.scale, two.certificate.dual, y, L),
    }
    layers = bf.flat_network(A, b, L, rng=0, bound="quick").layers
    found["lift"] = lifted_bound(unit, b / A.scale, two.certificate.dual, layers, rng)
    return {name: bound * units for name, bound in found.items()}


def main(count: int) -> None:
    for kind, d1, d2, m, L in PROBLEMS:
        began = time.process_time()
        A, b = problem(kind, d1, d2, m)
        ends = descents(A, b, L, count)
        least = min(ends)
        shares = {name: bound / least for name, bound in bounds(A, b, L, least).items()}
        said = " | ".join(f"{np.floor(1e5 * share) / 1e5:.5f}" if share else "-" for share in shares.values())
        print(
            f"| {kind} {d1} x {d2}, m {m}, L {L} | {len(ends)} | {least:.8g} | {np.median(ends):.5g} | {said} "
            f"| {time.process_time() - began:.0f} |",
            flush=True,
        )
        if max(shares.values()) > 1 + 1e-10:
            raise SystemExit("a bound exceeds the trace of a network that fits")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
