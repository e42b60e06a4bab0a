"""Completion of a 2000 x 1500 matrix of rank 5 from a tenth of its entries, in process and sharded over two worker processes.

All on one machine, so the second contender pays for the messages and gains no memory: the numbers say what a round trip costs.
`round_trips` counts the times that this process waits for the shards, `MB_sent` and `MB_received` the arrays that travel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from harness import Solver, run

import balancedfact as bf
from balancedfact.measurements._shards import Shards

SHAPE, RANK, DENSITY, SEED = (2000, 1500), 5, 0.1, 0


def problem() -> tuple[bf.measurements.Entries, np.ndarray]:
    rng = np.random.default_rng(SEED)
    A = bf.measurements.bernoulli_mask(SHAPE, DENSITY, rng)
    return A, A.forward_factored(*(rng.standard_normal((size, RANK)) for size in SHAPE))


def in_process() -> Solver:
    A, b = problem()

    def solve() -> dict[str, float]:
        return {"certified_gap": bf.flat_minimum(A, b, rng=SEED).certificate.gap}

    return solve


def two_workers() -> Solver:
    from distributed import Client, LocalCluster

    threads = {"NUMBA_NUM_THREADS": "1"}
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, env=threads)
    client = Client(cluster)
    A, b = problem()
    X = bf.flat_minimum(A, b, rng=SEED).matrix

    def solve() -> dict[str, float]:
        with traffic() as count:
            solution = bf.flat_minimum(bf.measurements.Sharded.from_map(A, client), b, rng=SEED)
        difference = np.linalg.norm(solution.matrix - X) / np.linalg.norm(X)
        return {"certified_gap": solution.certificate.gap, "difference": difference} | count

    return solve


@contextmanager
def traffic() -> Iterator[dict[str, float]]:
    """Counts what goes to the shards and comes back."""
    count = {"round_trips": 0.0, "MB_sent": 0.0, "MB_received": 0.0}
    submit, ask = Shards._submit, Shards.ask

    def counting_submit(self: Shards, task: Any, function: Any, common: Any, each: Any) -> Any:
        count["MB_sent"] += (len(self) * nbytes(common) + nbytes(each)) / 1e6
        return submit(self, task, function, common, each)

    def counting_ask(self: Shards, *arguments: Any, **options: Any) -> Any:
        found = ask(self, *arguments, **options)
        count["round_trips"] += 1
        count["MB_received"] += nbytes(found) / 1e6
        return found

    Shards._submit, Shards.ask = counting_submit, counting_ask  # type: ignore[method-assign]
    try:
        yield count
    finally:
        Shards._submit, Shards.ask = submit, ask  # type: ignore[method-assign]


def nbytes(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return sum(nbytes(each) for each in value)
    return getattr(value, "nbytes", 0)


if __name__ == "__main__":
    run("cluster", {"in process": (in_process, 5, True), "two workers": (two_workers, 3, True)})
