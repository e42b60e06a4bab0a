"""What rigorous certificates cost: the share of processor time that a solve spends on its final certificate.

The final certificate computes residual, value, bound and gap anew from the numbers that are returned, with a bound on all
rounding; without it a solve would end with the plain numbers of its last step. Each row is a problem of the benchmarks
``completion``, ``sensing`` and ``rank_one``, or one like it in a smaller size, solved on one thread. ``added`` is what the
certificate took over the rest of the solve. ``python benchmarks/certification.py`` takes about a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from completion import SMALL, Task
from completion import problem as completion_problem
from harness import measured, write
from sensing import problem as sensing_problem

import balancedfact as bf
from balancedfact.solvers.nuclear._frame import Frame
from balancedfact.solvers.nuclear._hold_out import largest_penalty

REPEATS = 3
Solve = Callable[[], bf.Solution]


def completion(task: Task) -> Solve:
    A, b, _, _ = completion_problem(task)
    return lambda: bf.flat_minimum(A, b)


def noisy(A: bf.measurements.MeasurementMap, b: np.ndarray, rng: np.random.Generator) -> Solve:
    """Noise of a tenth, and the penalty that just suppresses it, as in ``rank_one``."""
    noise = 0.1 * np.std(b) * rng.standard_normal(A.m)
    penalty = 1.1 * largest_penalty(A, noise, rng)
    return lambda: bf.flat_minimum(A, b + noise, penalty=penalty, tol=1e-4)


def noisy_completion(task: Task) -> Solve:
    A, b, _, _ = completion_problem(task)
    return noisy(A, b, np.random.default_rng(1))


def sensing() -> Solve:
    A, b, _ = sensing_problem()
    return lambda: bf.flat_minimum(A, b)


def rank_one(noise: bool) -> Solve:
    """The benchmark ``rank_one`` at 200 x 200 with 8000 measurements."""
    rng = np.random.default_rng(0)
    A = bf.measurements.RankOne(*(rng.standard_normal((8000, 200)) for _ in range(2)))
    b = A.forward_factored(*(rng.standard_normal((200, 5)) for _ in range(2)))
    if not noise:
        return lambda: bf.flat_minimum(A, b)
    return noisy(A, b, rng)


ROWS: dict[str, Callable[[], Solve]] = {
    "completion 200 x 150, a quarter of the entries": partial(completion, Task((200, 150), 5, 0.25)),
    "completion 200 x 150, noisy": partial(noisy_completion, Task((200, 150), 5, 0.25)),
    "completion 2000 x 1500, a tenth": partial(completion, SMALL),
    "completion 2000 x 1500, noisy": partial(noisy_completion, SMALL),
    "sensing 60 x 60, 600 Gaussian": sensing,
    "rank-one 200 x 200, 8000 measurements": partial(rank_one, False),
    "rank-one 200 x 200, noisy": partial(rank_one, True),
}


def shares(build: Callable[[], Solve]) -> Callable[[], dict[str, float]]:
    """Solve once and return the processor time of the whole and of the final certificate, and the gap reached."""
    solve, plain, spent = build(), Frame.certified, 0.0

    def certified(*arguments):  # type: ignore[no-untyped-def]
        nonlocal spent
        began = time.process_time()
        try:
            return plain(*arguments)
        finally:
            spent += time.process_time() - began

    def once() -> dict[str, float]:
        nonlocal spent
        spent, Frame.certified = 0.0, certified  # type: ignore[method-assign]
        began = time.process_time()
        try:
            solution = solve()
        finally:
            Frame.certified = plain  # type: ignore[method-assign]
        whole = time.process_time() - began
        return {"whole": whole, "certificate": spent, "gap": solution.certificate.gap}

    def several() -> dict[str, float]:
        once()  # compiles loops
        found = [once() for _ in range(REPEATS)]
        middle = sorted(found, key=lambda each: each["certificate"] / each["whole"])[REPEATS // 2]
        return middle | {"added": middle["certificate"] / (middle["whole"] - middle["certificate"])}

    return several


if __name__ == "__main__":
    rows = []
    for name, build in ROWS.items():
        row = {"name": name} | measured(partial(shares, build), 1, False, threads=1)
        rows.append(row)
        print(row, flush=True)
    lines = ["| problem | processor seconds of a solve | of its certificate | added | gap |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {row['name']} | {row['whole']:.3g} | {row['certificate']:.2g} | {row['added']:.1%} | {row['gap']:.1e} |"
        for row in rows
    ]
    write("certification", {"rows": rows}, "\n".join(lines) + "\n")
