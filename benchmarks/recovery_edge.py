"""How few exact entries determine a matrix that the search at its rank finds: 1000 x 1000, rank 5, log-spaced singular values.

For each condition number and oversampling, entries over the parameters ``r (d1 + d2 - r)`` of a matrix of that rank, the
number of instances found to a relative error of 1e-6, the median time and the median error. Entries are drawn uniformly,
and drawn again until every row and column has as many as the rank; fewer determine nothing. At an oversampling of 1.3 one draw
in some thousand does, at 1.2 one in millions, which is why no case is below.

``python benchmarks/recovery_edge.py``, or with fewer instances ``python benchmarks/recovery_edge.py 10``.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
from harness import write

import balancedfact as bf
from balancedfact.solvers.nuclear._at_rank import at_rank
from balancedfact.solvers.nuclear._frame import Frame

SIZE, RANK, INSTANCES, FOUND = 1000, 5, 50, 1e-6
CASES = [(10.0, rho) for rho in (1.3, 1.4, 1.5, 1.7, 2.0, 3.0, 4.0)] + [(1e5, rho) for rho in (1.4, 1.6, 1.9, 2.2, 3.0, 4.0)]


def instance(condition: float, oversampling: float, seed: int) -> tuple[bf.measurements.Entries, np.ndarray, np.ndarray]:
    """The entries and the two factors of the matrix."""
    rng = np.random.default_rng(seed)
    count = int(oversampling * RANK * (2 * SIZE - RANK))
    fewest = 0
    while fewest < RANK:
        places = np.sort(rng.choice(SIZE * SIZE, count, replace=False))
        fewest = min(np.bincount(side, minlength=SIZE).min() for side in np.divmod(places, SIZE))
    U, V = (np.linalg.qr(rng.standard_normal((SIZE, RANK)))[0] for _ in range(2))
    return bf.measurements.Entries(*np.divmod(places, SIZE), (SIZE, SIZE)), U * np.logspace(0, -np.log10(condition), RANK), V


def error_and_seconds(condition: float, oversampling: float, seed: int) -> tuple[float, float]:
    A, L, R = instance(condition, oversampling, seed)
    start = time.perf_counter()
    frame = Frame(A, A.forward_factored(L, R), 0.0, flat=True)
    point = at_rank(frame.problem, RANK, np.random.default_rng(0))
    seconds = time.perf_counter() - start
    P, Q = frame.size * np.asarray(frame.white.left @ point.L), np.asarray(frame.white.right @ point.R)
    # The norm of a product of factors is that of the triangles of their factorizations.
    triangles = [np.linalg.qr(each)[1] for each in (np.hstack([P, -L]), np.hstack([Q, R]))]
    return float(np.linalg.norm(triangles[0] @ triangles[1].T) / np.linalg.norm(L)), seconds


if __name__ == "__main__":
    instances = int(sys.argv[1]) if len(sys.argv) > 1 else INSTANCES
    rows, lines = [], ["| condition | oversampling | found | median error | median s |", "|---:|---:|---:|---:|---:|"]
    for condition, oversampling in CASES:
        measured = [error_and_seconds(condition, oversampling, seed) for seed in range(instances)]
        errors, seconds = zip(*measured, strict=True)
        found = sum(error <= FOUND for error in errors)
        median, typical = statistics.median(errors), statistics.median(seconds)
        rows.append({"condition": condition, "oversampling": oversampling, "found": found, "of": instances, "seconds": typical})
        lines.append(f"| {condition:g} | {oversampling:g} | {found} of {instances} | {median:.1e} | {typical:.1f} |")
        print(lines[-1], file=sys.stderr, flush=True)
    write("recovery_edge", {"rows": rows}, "\n".join(lines) + "\n")
