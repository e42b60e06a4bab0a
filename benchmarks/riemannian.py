"""Riemannian search under measurements, from random starts, beside the convex solver that `flat_minimum` chooses.

Run ``python benchmarks/riemannian.py``, with a number of starts if two are not enough; it prints rows of a table. Exact data of
low rank; processor time, the best of two runs of the convex solver; excess is the value over the certified one, less one.
``--penalties N`` solves `N` random penalised problems with all kinds of map instead, penalties over five decades.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

import balancedfact as bf
from balancedfact.measurements import Entries, MeasurementMap, RankOne

PROBLEMS = [
    ("Gaussian", 20, 20, 250, 2),
    ("Gaussian", 60, 60, 600, 2),
    ("Gaussian", 60, 60, 1200, 2),
    ("entries", 200, 150, 9000, 3),
    ("entries", 2000, 1500, 300_000, 5),
    ("rank one", 100, 100, 3000, 3),
]


def problem(kind: str, d1: int, d2: int, m: int, rank: int, seed: int = 0) -> tuple[MeasurementMap, np.ndarray]:
    """A map of a kind, and the data of a random matrix of low rank."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))
    A: MeasurementMap
    if kind == "Gaussian":
        A = bf.measurements.gaussian(m, (d1, d2), rng)
    elif kind == "rank one":
        A = RankOne(rng.standard_normal((m, d1)), rng.standard_normal((m, d2)))
    else:
        places = rng.choice(d1 * d2, m, replace=False)
        A = Entries(places // d2, places % d2, (d1, d2))
    return A, A(truth)


def timed(solve: Callable[[], bf.Solution]) -> tuple[bf.Solution, float]:
    """The solution and the processor time that it took."""
    start = time.process_time()
    return solve(), time.process_time() - start


def starts(count: int) -> None:
    """Rows for exact data, one a start."""
    print("| problem | convex | s | Riemannian, s | ratio | status | excess | gap |\n|---|---|---|---|---|---|---|---|")
    for kind, d1, d2, m, rank in PROBLEMS:
        A, b = problem(kind, d1, d2, m, rank)
        convex, base = min((timed(lambda: bf.flat_minimum(A, b)) for _ in range(2)), key=lambda run: run[1])
        for seed in range(count):
            found, taken = timed(lambda: bf.flat_minimum(A, b, method="riemannian", rng=seed))
            numbers = f"{taken:.2f} | {taken / base:.2f} | {found.status.value} | {found.value / convex.value - 1:.0e}"
            name = f"{kind}, {d1} x {d2}, {m}, rank {rank}"
            print(f"| {name} | {convex.method} | {base:.2f} | {numbers} | {found.certificate.gap:.0e} |", flush=True)


def penalties(count: int) -> None:
    """Open gaps and ratios of time over random penalised problems."""
    ratios, opened = [], 0
    for number in range(count):
        rng = np.random.default_rng(number)
        d1, d2, rank = (int(n) for n in (*rng.integers(4, 30, 2), rng.integers(1, 4)))
        m = min(int(rng.integers(d1 + d2, max(d1 + d2 + 1, d1 * d2 // 2 + 5))), d1 * d2)
        A, b = problem(("Gaussian", "entries", "rank one")[number % 3], d1, d2, m, rank, number)
        b = b + rng.choice([0.0, 0.01, 0.1, 0.5]) * np.std(b) * rng.standard_normal(m)
        penalty = float(10 ** rng.uniform(-4, 1) * np.linalg.norm(b) / np.sqrt(m))
        convex, base = timed(lambda: bf.flat_minimum(A, b, penalty=penalty))
        found, taken = timed(lambda: bf.flat_minimum(A, b, penalty=penalty, method="riemannian", rng=number))
        ratios.append(taken / base)
        if found.status is not bf.Status.OPTIMAL and convex.status is bf.Status.OPTIMAL:
            opened += 1
            print(f"problem {number}: {A}, penalty {penalty:.2g}, gap {found.certificate.gap:.1e}", flush=True)
    print(f"{opened} of {count} with an open gap; ratio of time: median {np.median(ratios):.1f}, largest {max(ratios):.0f}")


if __name__ == "__main__":
    options = sys.argv[1:]
    if options[:1] == ["--penalties"]:
        penalties(int(options[1]))
    else:
        starts(int(options[0]) if options else 2)
