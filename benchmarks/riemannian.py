"""Riemannian search under measurements, from random starts, beside the convex solver that `flat_minimum` chooses.

Run ``python benchmarks/riemannian.py`` for 20 starts, or with another number; ``results/riemannian.md`` has a row for each
problem, written as soon as it is done. Exact data of low rank; processor time of one process, for the convex solver the best of
two runs; excess is the value over the certified one, less one. ``--penalties N`` solves `N` random penalised problems with all
kinds of map instead, penalties over five decades; ``--penalties N FIRST`` those from number `FIRST` on.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from harness import write

import balancedfact as bf
from balancedfact.measurements import Entries, MeasurementMap, RankOne

PROBLEMS = [
    ("Gaussian", 20, 20, 250, 2),
    ("entries", 200, 150, 9000, 3),
    ("rank one", 100, 100, 3000, 3),
    ("entries", 2000, 1500, 300_000, 5),
    ("Gaussian", 60, 60, 1200, 2),
    ("Gaussian", 60, 60, 600, 2),
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
    """A row for each problem."""
    titles = [
        "problem",
        "convex",
        "s",
        "starts",
        "optimal",
        "excess at most",
        "gap at most",
        "s, median",
        "ratio",
        "ratio at most",
    ]
    lines, rows = ["| " + " | ".join(titles) + " |", "|---|---|" + "---:|" * 8], []
    for kind, d1, d2, m, rank in PROBLEMS:
        A, b = problem(kind, d1, d2, m, rank)
        convex, base = min((timed(lambda: bf.flat_minimum(A, b)) for _ in range(2)), key=lambda run: run[1])
        runs = [timed(lambda: bf.flat_minimum(A, b, method="riemannian", rng=seed)) for seed in range(count)]
        optimal = sum(found.status is bf.Status.OPTIMAL for found, _ in runs)
        excess = max(found.value / convex.value - 1 for found, _ in runs)
        gap, seconds = max(found.certificate.gap for found, _ in runs), [taken for _, taken in runs]
        name = f"{kind}, {d1} x {d2}, {m}, rank {rank}"
        rows.append({"name": name, "convex": convex.method, "base": base, "optimal": optimal, "excess": excess, "gap": gap})
        rows[-1]["seconds"] = seconds
        middle = statistics.median(seconds)
        lines.append(
            f"| {name} | {convex.method} | {base:.2f} | {count} | {optimal} | {excess:.0e} | {gap:.0e} | {middle:.2f}"
            f" | {middle / base:.2f} | {max(seconds) / base:.2f} |"
        )
        write("riemannian", {"rows": rows}, "\n".join(lines) + "\n")


def penalties(count: int, first: int = 0) -> None:
    """Open gaps and ratios of time over random penalised problems."""
    ratios, opened = [], 0
    for number in range(first, first + count):
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
    print(f"{opened} of {count} from number {first} on with an open gap")
    print(f"ratio of time: median {np.median(ratios):.1f}, largest {max(ratios):.0f}")


if __name__ == "__main__":
    options = sys.argv[1:]
    if options[:1] == ["--penalties"]:
        penalties(*(int(each) for each in options[1:]))
    else:
        starts(int(options[0]) if options else 20)
