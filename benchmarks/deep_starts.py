"""The flattest deep network from random layers alone, beside the default with its convex starts.

``python benchmarks/deep_starts.py [M DEPTH ...]`` writes ``benchmarks/results/deep_starts.md``, of all problems or anew of
those with `M` measurements and that depth; ``STARTS`` (20) in the environment counts the random starts. Gaussian measurements
of a 20 x 20 matrix of rank 3: with 100 the flattest network is another matrix than the truth, with 250 it is the truth,
isolated among the matrices of its rank. Times are of the processor, medians.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

import numpy as np
from harness import RESULTS, environment

import balancedfact as bf

SIZE, RANK, SEED = 20, 3, 0
HEAD = "| measurements | depth | starts | arrived | largest excess | rank | points | seconds a start | seconds, default |"
STORE = RESULTS / "deep_starts.json"
STARTS = int(os.environ.get("STARTS", 20))


def timed(*arguments: object, **options: object) -> tuple[bf.Solution, float]:
    begun = time.process_time()
    solution = bf.flat_network(*arguments, bound="quick", progress=False, **options)  # type: ignore[arg-type]
    return solution, time.process_time() - begun


def row(m: int, depth: int) -> str:
    """All starts of one problem."""
    rng = np.random.default_rng(SEED)
    A = bf.measurements.gaussian(m, (SIZE, SIZE), rng)
    b = A(rng.standard_normal((SIZE, RANK)) @ rng.standard_normal((RANK, SIZE)))
    known, reference = timed(A, b, depth, rng=SEED)
    found, seconds = zip(*(timed(A, b, depth, rng=seed, method="riemannian") for seed in range(STARTS)), strict=True)
    excess = [abs(each.value / known.value - 1) for each in found]
    arrived = sum(e <= 1e-8 and each.status.name == "STATIONARY" for e, each in zip(excess, found, strict=True))
    ranks = sorted({each.layers[0].shape[0] for each in found})
    points = statistics.median(len(each.history["value"]) for each in found)
    return (
        f"| {m} | {depth} | {STARTS} | {arrived} | {max(excess):.0e} | {', '.join(map(str, ranks))} | {points:g} "
        f"| {statistics.median(seconds):.1f} | {reference:.1f} |"
    )


def main(problems: list[tuple[int, int]]) -> None:
    """Measure rows, keep those that other runs have measured, and write the table of all."""
    for m, depth in problems:
        line = row(m, depth)
        print(line, flush=True)
        known = json.loads(STORE.read_text())["rows"] if STORE.exists() else {}
        known[f"{m}, {depth}"] = line
        STORE.write_text(json.dumps({"environment": environment(), "rows": known}, indent=2) + "\n")
        head = (
            "| measurements | depth | starts | arrived | largest excess | rank | points | seconds a start | seconds, default |"
        )
        lines = [head, "|" + "--:|" * 9, *(known[key] for key in sorted(known))]
        (RESULTS / "deep_starts.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(list(zip(numbers[::2], numbers[1::2], strict=True)) or [(100, 3), (100, 5), (250, 3), (250, 5)])
