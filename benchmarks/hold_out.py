"""Noisy completion from the data alone: the penalty by hold-out, then the certified solve.

The problem is the largest of ``soft_impute.py``: 20,000 x 10,000, rank 10, five million entries, noise of a tenth.
`error_on_new_data` is the root mean square error on new noisy data over the noise; 1 would be perfect knowledge of the matrix.
"""

from __future__ import annotations

import time

import numpy as np
from harness import Solver, run
from soft_impute import SIZES, Problem

import balancedfact as bf
from balancedfact.solvers import select_penalty


def chosen() -> Solver:
    problem = Problem(SIZES["soft_impute_20000"])
    A, b = problem.A, problem.b

    def solve() -> dict[str, float]:
        start = time.perf_counter()
        path = select_penalty(A, b, tol=1e-3, rng=0)
        seconds = time.perf_counter() - start
        solution = bf.flat_minimum(A, b, penalty=path.penalty, tol=1e-3)
        return {
            "certified_gap": solution.certificate.gap,
            "error_on_new_data": float(np.hypot(problem.hidden_error(*solution.pair), 1)),
            "rank": solution.pair[0].shape[1],
            "seconds_choosing": seconds,
        }

    return solve


if __name__ == "__main__":
    run("hold_out", {"balancedfact, penalty by hold-out": (chosen, 1, False)})
