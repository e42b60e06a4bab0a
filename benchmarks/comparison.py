"""All ways on one problem: the time of `compare` on 60 x 40 matrices of rank 3 of which 980 entries are known.

Run ``python benchmarks/comparison.py`` for four problems, or with another number; processor time of one process with all its
threads. ``results/comparison.md`` has a row for each problem, written as soon as it is done.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from harness import write

import balancedfact as bf
from balancedfact.measurements import Entries

SHAPE, RANK, KNOWN = (60, 40), 3, 980


def main(count: int) -> None:
    lines, rows = ["| problem | rows | left out | seconds | longest row |", "|---:|---:|---|---:|---|"], []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        truth = rng.standard_normal((SHAPE[0], RANK)) @ rng.standard_normal((RANK, SHAPE[1]))
        A = Entries(*np.unravel_index(rng.choice(truth.size, KNOWN, replace=False), SHAPE), SHAPE)
        start = time.process_time()
        table = bf.compare(A, A(truth), truth=truth, rng=seed)
        taken = time.process_time() - start
        longest = max(table.rows, key=lambda row: row.seconds).method
        rows.append({"seed": seed, "rows": len(table.rows), "skipped": table.skipped, "seconds": taken, "longest": longest})
        lines.append(f"| {seed} | {len(table.rows)} | {'; '.join(table.skipped) or 'none'} | {taken:.1f} | {longest} |")
        write("comparison", {"rows": rows}, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 4)
