"""The least sharpness over all networks that fit, beside that of the flattest network in the sense of the trace.

Gaussian measurements of a ``d x d`` matrix of rank 2, one instance each. "Weighted trace" is the least trace, as far as the
search found, for the weights of the measurements at the end: what the lower bound could reach with them. Processor seconds.

    python benchmarks/flattest_sharpness.py                  # the table of the theory page "Several outputs, any measurements"
    python benchmarks/flattest_sharpness.py 6 20 3           # d, m, L of one row
"""

from __future__ import annotations

import sys
import time

import numpy as np

import balancedfact as bf

ROWS = [(4, 8, 2), (6, 20, 2), (10, 60, 2), (4, 8, 3), (6, 20, 3)]


def row(d: int, m: int, L: int) -> None:
    """Print one row."""
    rng = np.random.default_rng(0)
    A = bf.measurements.gaussian(m, (d, d), rng)
    b = A(rng.standard_normal((d, 2)) @ rng.standard_normal((2, d)))
    flat = bf.flat_minimum(A, b, L, rng=0)
    started = time.process_time()
    least = bf.flattest_sharpness(A, b, L, rng=0)
    seconds = time.process_time() - started
    Y = least.certificate.dual
    rotated = bf.measurements.Dense(np.array([A.adjoint(y) for y in Y.T]))
    weighted = bf.flat_minimum(rotated, Y.T @ b, L, rng=0).value * (d if L == 2 else Y.shape[1]) / m
    other = bf.curvature.sharpness(flat.layers, A, b)
    print(
        f"| {d} | {m} | {L} | {least.value:.4f} | {other / least.value:.3f} | {1 - least.certificate.gap:.9f} "
        f"| {weighted / least.value:.4f} | {least.status.name} | {seconds:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    print("| $d$ | $m$ | $L$ | least sharpness | flattest network | proved | weighted trace | status | seconds |")
    print("|--:|--:|--:|--:|--:|--:|--:|---|--:|")
    given = tuple(int(word) for word in sys.argv[1:])
    for d, m, L in [given] if given else ROWS:
        row(d, m, L)
