"""How close the lower bounds on the flattest deep network come, for Gaussian measurements of a matrix of low rank.

python benchmarks/deep_bounds.py                 # the table of the theory page "A global certificate", without d = 60
python benchmarks/deep_bounds.py 60 600 3 3 5    # d, m, rank and depths of one row
"""

from __future__ import annotations

import sys
import time

import numpy as np

import balancedfact as bf
from balancedfact.certification.deep._bounds import isometry_bound
from balancedfact.certification.deep._multiplier import best_multipliers, multiplier_bound

ROWS = [
    (4, 9, 2, (3, 4, 5)),
    (5, 14, 2, (3, 4, 5)),
    (6, 20, 2, (3, 4, 5, 10, 60)),
    (8, 36, 2, (3, 5)),
    (12, 120, 2, (3, 5, 10)),
    (20, 200, 3, (3, 5)),
    (30, 300, 3, (3,)),
]


def row(d: int, m: int, rank: int, depth: int) -> None:
    """Print one row."""
    rng = np.random.default_rng(0)
    A = bf.measurements.gaussian(m, (d, d), rng)
    truth = rng.standard_normal((d, rank)) @ rng.standard_normal((rank, d)) / d
    b = A(truth)
    found = bf.flat_network(A, b, depth, rng=0, bound="quick")
    nuclear = bf.flat_minimum(A, b).certificate.lower_bound / (4 * m)
    multipliers = found.certificate.dual
    before = max(multiplier_bound(A, b, multipliers, depth), isometry_bound(A, nuclear, depth, rng)) / found.value
    alone = multiplier_bound(A, b, best_multipliers(A, b, multipliers, depth), depth) / found.value
    started = time.process_time()
    best = bf.flat_network(A, b, depth, rng=0)
    seconds = time.process_time() - started
    share = 1 - best.certificate.gap
    print(f"| {d} | {m} | {rank} | {depth} | {before:.3f} | {alone:.3f} | {share:.3f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    print("| $d$ | $m$ | rank | $L$ | before | multiplier bound | best bound | processor seconds |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    given = [int(word) for word in sys.argv[1:]]
    for d, m, rank, depths in [(*given[:3], given[3:])] if given else ROWS:
        for depth in depths:
            row(d, m, rank, depth)
