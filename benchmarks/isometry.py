"""Isometry constants of random ensembles for rank one and two, and what Theorem 1 of Gatmiry et al. 2023 makes of them.

`delta_attained` and `delta_proven` enclose the constant; `delta_all` is that of all matrices, from the extreme eigenvalues.
`ratio_low` and `ratio_high` are the extremes of (trace of the Hessian) / 2 R over a hundred random networks of depth three,
which must lie between `least_proven` and `most_proven` of rank one. A run takes about two minutes on one core.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from harness import Solver, run

import balancedfact as bf

DEPTH, NETWORKS, SEED = 3, 100, 0


def enclosure(ensemble: str, size: int, m: int, rank: int, iterations: int | None) -> Solver:
    A = getattr(bf.measurements, ensemble)(m, (size, size), rng=SEED)

    def solve() -> dict[str, float]:
        found = bf.measurements.isometry_constant(A, rank, iterations=iterations, rng=SEED)
        low, high = found.delta
        result = {"delta_attained": low, "delta_proven": high, "delta_all": unrestricted(A)}
        result |= {"least_proven": found.smallest[0], "least_attained": found.smallest[1]}
        result |= {"most_attained": found.largest[0], "most_proven": found.largest[1]}
        if rank == 1:
            ratios = trace_ratios(A)
            assert found.smallest[0] <= ratios.min() <= ratios.max() <= found.largest[1]
            result |= {"ratio_low": ratios.min(), "ratio_high": ratios.max()}
        return result

    return solve


def unrestricted(A: bf.measurements.MeasurementMap) -> float:
    stack = A.rotated(*map(np.eye, A.matrix_shape)).reshape(A.m, -1) / np.sqrt(A.m)
    wide = A.m < stack.shape[1]
    values = np.linalg.eigvalsh(stack @ stack.T if wide else stack.T @ stack)
    return float(max(values[-1] - 1, 1 - (0.0 if wide else values[0])))


def trace_ratios(A: bf.measurements.MeasurementMap) -> np.ndarray:
    rng, d = np.random.default_rng(SEED), A.matrix_shape[0]
    ratios = []
    for _ in range(NETWORKS):
        layers = [rng.standard_normal((d, d)) for _ in range(DEPTH)]
        ratios.append(bf.curvature.trace(layers, A) / (2 * bf.curvature.isotropic_trace(layers)))
    return np.array(ratios)


CASES: list[tuple[str, int, int, int, int | None]] = [
    ("gaussian", 10, 100, 1, None),
    ("gaussian", 10, 100, 2, None),
    ("gaussian", 10, 1000, 1, None),
    ("gaussian", 10, 1000, 2, None),
    ("bernoulli", 10, 300, 1, None),
    ("bernoulli", 10, 300, 2, None),
    ("bilinear", 10, 300, 1, None),
    ("bilinear", 10, 300, 2, None),
    ("gaussian", 20, 600, 1, 60),
    ("gaussian", 20, 600, 2, 60),
    ("gaussian", 20, 2000, 1, 60),
    ("gaussian", 20, 2000, 2, 60),
]


def measure(task: str, cases: list[tuple[str, int, int, int, int | None]]) -> None:
    contenders = {
        f"{kind} {d} x {d}, m = {m}, rank {rank}": (partial(enclosure, kind, d, m, rank, steps), 1, False)
        for kind, d, m, rank, steps in cases
    }
    run(task, contenders)


if __name__ == "__main__":
    measure("isometry", CASES)
