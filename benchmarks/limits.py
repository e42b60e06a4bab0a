"""How far every hot loop is from the limits of the machine, on one thread and on two.

Three limits are measured in the same process: the bandwidth of memory (the triad ``a = b + s c`` on arrays that no cache
holds), the speed at which rows of a table of the same size as a factor can be read in random order, and the speed of a plain
product of large matrices. For each loop the bytes that must be streamed, the bytes of rows that must be gathered and the
operations are counted from the algorithm. Each count over its limit is a least time; the largest is the limit that binds, and
the fraction is that time over the time measured. Data that stay in a cache can be faster than memory: fractions above one.

``python benchmarks/limits.py`` needs about 2 GB; ``quick`` takes a twentieth of the entries.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from harness import apart, write
from scaling import median_time, newton_matrix, superoperator

import balancedfact as bf
from balancedfact.measurements._sampled import sampled_product

SEED, RANK = 0, 10
SHAPE, ENTRIES = (20_000, 10_000), 5_000_000
STEPS, RUNS = 2000, 640


@numba.njit(fastmath=True, nogil=True, cache=True)
def triad(a, b, c):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        a[i] = b[i] + 3.0 * c[i]


@numba.njit(fastmath=True, nogil=True, cache=True)
def gather(table, index):  # type: ignore[no-untyped-def]
    total = 0.0
    for e in range(index.size):
        row = table[index[e]]
        for j in range(row.size):
            total += row[j]
    return total


def together(threads: int, call: Callable[[int], Any]) -> Callable[[], Any]:
    """A call that runs `call` for every thread at once."""
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(call, range(threads)))


def limits(threads: int) -> dict[str, float]:
    """Bytes streamed and gathered per second, and operations of a product of large matrices per second."""
    rng = np.random.default_rng(SEED)
    size = 20_000_000
    arrays = [np.ones((threads, size // threads)) for _ in range(3)]
    stream = median_time(together(threads, lambda t: triad(*(array[t] for array in arrays))))
    table = rng.standard_normal((SHAPE[1], 2 * RANK))
    index = rng.integers(0, SHAPE[1], (threads, 2_000_000 // threads)).astype(np.int32)
    read = median_time(together(threads, lambda t: gather(table, index[t])))
    square = rng.standard_normal((2000, 2000))
    product = median_time(lambda: square @ square)
    return {"streamed": 3 * 8 * size / stream, "gathered": index.size * 16 * RANK / read, "operations": 2 * 2000**3 / product}


def loops(entries: int) -> Iterator[tuple[str, Callable[[], Any], dict[str, float]]]:
    """The name, a call, and its counts: bytes streamed, bytes of rows gathered, operations."""
    rng = np.random.default_rng(SEED)
    A = bf.measurements.bernoulli_mask(SHAPE, entries / np.prod(SHAPE), rng)
    m, k = A.m, RANK
    L, R, dL, dR = (rng.standard_normal((d, k)) for d in SHAPE * 2)
    y = rng.standard_normal(m)
    S, layout, ones = A.adjoint_operator(y), A._layout, np.ones(m)
    ours, theirs = np.hstack([dL, L]), np.hstack([R, dR])
    yield (
        "entry sampling: half of a Hessian product",
        lambda: layout.half_hessian(ones, y, k, ours, theirs),
        {"streamed": 20 * m + 24 * k * SHAPE[0], "gathered": 16 * k * m, "operations": 8 * k * m},
    )
    yield (
        "entry sampling: entries of a factored matrix",
        lambda: sampled_product(L, R, A.rows, A.cols),
        {"streamed": 24 * m + 8 * k * SHAPE[0], "gathered": 8 * k * m, "operations": 2 * k * m},
    )
    yield (
        "entry sampling: sparse matrix times factor",
        lambda: S @ R,
        {"streamed": 12 * m + 8 * k * SHAPE[0], "gathered": 8 * k * m, "operations": 2 * k * m},
    )
    v = rng.standard_normal(SHAPE[1])
    yield (
        "entry sampling: sparse matrix times vector",
        lambda: S @ v,
        {"streamed": 12 * m, "gathered": 8 * m, "operations": 2 * m},
    )
    basis, w = rng.standard_normal((400, SHAPE[1])), rng.standard_normal(SHAPE[1])
    yield (
        "Lanczos: one vector made orthogonal to 400",
        lambda: w - (basis @ w) @ basis,
        {"streamed": 2 * 8 * basis.size, "operations": 4 * basis.size},
    )
    G = bf.measurements.gaussian(600, (60, 60), rng)
    root = np.eye(120) + 0.05 * rng.standard_normal((120, 120))
    W = root @ root.T
    yield (
        "interior point: Newton matrix of 600 Gaussian measurements, 60 x 60",
        lambda: G.scaled_gram(W[:60, :60], W[:60, 60:], W[60:, 60:]),
        {"streamed": 3 * 8 * 600 * 60**2, "operations": newton_matrix(600, 60) - 600**3 / 3},
    )
    moment, layers = G.second_moment(), [rng.standard_normal((60, 60)) / 8 for _ in range(10)]
    yield (
        "trace of the Hessian of ten 60 x 60 layers, second moments formed",
        lambda: bf.curvature.trace(layers, moment),
        {"streamed": 8 * 1830**2, "operations": superoperator(10)},
    )
    yield regression(rng)


def regression(rng: np.random.Generator) -> tuple[str, Callable[[], Any], dict[str, float]]:
    """Each weight takes part in three products per step: readout back, features forward, update."""
    X, widths = rng.standard_normal((50, 5)), [5] * 10 + [1]
    start = bf.dynamics.gaussian_layers(widths, np.full(RUNS, 0.35), rng)
    A, y = bf.measurements.regression(X), 0.1 * rng.standard_normal(50)
    weights = sum(a * b for a, b in pairwise(widths))
    return (
        f"gradient descent: {STEPS} steps of {RUNS} regression networks",
        lambda: bf.dynamics.gradient_descent(start, A, y, step=0.02, iterations=STEPS, record=[0]),
        {"operations": STEPS * RUNS * (6 * weights + 2 * 5**2)},
    )


def whole_solve() -> float:
    """Seconds of a completion from start to certificate, once warm: a tenth of 4000 x 4000 entries, rank 10."""
    rng = np.random.default_rng(SEED)
    A = bf.measurements.bernoulli_mask((4000, 4000), 0.1, rng)
    b = A.forward_factored(*(rng.standard_normal((4000, RANK)) for _ in range(2)))
    bf.flat_minimum(A, b, progress=False)
    start = time.perf_counter()
    bf.flat_minimum(A, b, progress=False)
    return time.perf_counter() - start


def measure(threads: int, entries: int) -> dict[str, Any]:
    speeds = limits(threads)
    rows = []
    for name, call, counts in loops(entries):
        least = {kind: count / speeds[kind] for kind, count in counts.items()}
        binding = max(least, key=lambda kind: least[kind])
        row = {"name": name, "seconds": median_time(call), "binding": binding, "least": least}
        rows.append(row | {"fraction": least[binding] / row["seconds"]})
    rows.append({"name": "flat_minimum, 4000 x 4000", "seconds": whole_solve()})
    return {"threads": threads, "limits": speeds, "rows": rows}


WORDS = {"streamed": "memory bandwidth", "gathered": "rows in random order", "operations": "matrix product"}


def table(one: dict[str, Any], two: dict[str, Any]) -> str:
    lines = [
        "| loop | limit that binds | ms, 1 thread | ms, 2 threads | fraction on 1 | fraction on 2 | efficiency on 2 |",
        "|---|---|" + "---:|" * 5,
    ]
    for a, b in zip(one["rows"], two["rows"], strict=True):
        fractions = [f"{row['fraction']:.2f}" if "fraction" in row else "" for row in (a, b)]
        times = [f"{1e3 * row['seconds']:.3g}" for row in (a, b)]
        binding = WORDS.get(b.get("binding", ""), "")
        lines.append(f"| {' | '.join([a['name'], binding, *times, *fractions])} | {a['seconds'] / b['seconds'] / 2:.2f} |")
    lines += ["", "| limit | 1 thread | 2 threads |", "|---|---:|---:|"]
    for kind, word in WORDS.items():
        unit = "Gflop/s" if kind == "operations" else "GB/s"
        lines.append(f"| {word}, {unit} | {one['limits'][kind] / 1e9:.3g} | {two['limits'][kind] / 1e9:.3g} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    size = ENTRIES // 20 if "quick" in sys.argv else ENTRIES
    one, two = (apart(measure, threads, size, threads=threads) for threads in (1, 2))
    write("limits", {"one": one, "two": two}, table(one, two))
