"""Time and memory against the number of measurements, size, rank and depth, beside the operation counts.

Every point is measured in a process of its own. Exponents are slopes of least squares in logarithms, over the whole range; the
exponent beside them is that of the operation count over the same range, fitted in the same way, as counts are sums of powers.
Memory is what the process needed beyond the interpreter and its libraries, data included.

The passes of entry sampling are measured on one thread, in a matrix that stays the same while more of its entries are observed:
then the factors stay in the same cache, and theory says linear. In a matrix that grows with the entries they would leave one
cache after the other, and the time per entry would grow with it.

``python benchmarks/scaling.py [TITLE ...]`` measures all or the sweeps that are named, and keeps the last
results of the others; ``quick`` stops at the third value.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from harness import RESULTS, Solver, measured, peak, write

import balancedfact as bf

SEED = 0
SHAPE = (1000, 800)  # of the passes: few rows, so that even the fewest entries outweigh what every row costs
LANCZOS = 400  # steps of a certificate's bound on a norm

Count = Callable[[float], float]


class Sweep(NamedTuple):
    """A family of problems: `build` makes that of a value, `lines` are what it reports and how many operations each needs."""

    title: str
    variable: str
    values: list[int]
    build: Callable[[int], Solver]
    lines: dict[str, Count]
    threads: int | None = None


def loaded() -> float:
    """The memory in use once the compiled loops are loaded, before there are any data."""
    A = bf.measurements.Entries([0, 1], [1, 0], (2, 2))
    bf.flat_minimum(A, [1.0, 2.0], progress=False)
    L = np.ones((2, 2))
    A.pair_hessian(L, L, np.ones(2))(L, L)
    return peak()


def median_time(call: Callable[[], Any]) -> float:
    """Of at least three calls, after one to warm up, and of as many as half a second has room for."""
    call()
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < 0.5:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def passes(m: int, rank: int) -> Solver:
    """One Hessian product, one evaluation of the entries and one product of the residual with a factor."""
    before = loaded()
    rng = np.random.default_rng(SEED)
    rows, cols = (rng.integers(0, d, m) for d in SHAPE)  # an entry may be seen more than once
    order = np.argsort(rows, kind="stable")
    A = bf.measurements.Entries(rows[order], cols[order], SHAPE)
    L, R, dL, dR = (rng.standard_normal((d, rank)) for d in SHAPE * 2)
    y = rng.standard_normal(A.m)
    hessian, S = A.pair_hessian(L, R, y), A.adjoint_operator(y)

    def solve() -> dict[str, float]:
        found = {
            "Hessian product": median_time(lambda: hessian(dL, dR)),
            "entries of a factored matrix": median_time(lambda: A.forward_factored(L, R)),
            "sparse matrix times factor": median_time(lambda: S @ R),
        }
        return found | {"memory": peak() - before}

    return solve


def solved(A: bf.measurements.MeasurementMap, truth: tuple[np.ndarray, np.ndarray], before: float) -> Solver:
    b = A.forward_factored(*truth)

    def solve() -> dict[str, float]:
        start = time.perf_counter()
        found = bf.flat_minimum(A, b, progress=False)
        seconds = time.perf_counter() - start
        return {"flat_minimum": seconds, "memory": peak() - before, "gap": found.certificate.gap}

    return solve


def completion(d: int, rank: int, per_row: int) -> Solver:
    before, rng = loaded(), np.random.default_rng(SEED)
    A = bf.measurements.bernoulli_mask((d, d), per_row / d, rng)
    return solved(A, (rng.standard_normal((d, rank)), rng.standard_normal((d, rank))), before)


def sensing(m: int, d: int) -> Solver:
    before, rng = loaded(), np.random.default_rng(SEED)
    A = bf.measurements.gaussian(m, (d, d), rng)
    return solved(A, (rng.standard_normal((d, 2)), rng.standard_normal((d, 2))), before)


def trace(depth: int) -> Solver:
    """The second moments are formed once, outside the clock, as along a training curve."""
    before, rng = loaded(), np.random.default_rng(SEED)
    moment = bf.measurements.gaussian(600, (60, 60), rng).second_moment()
    layers = [rng.standard_normal((60, 60)) / np.sqrt(60) for _ in range(depth)]
    return lambda: {"trace": median_time(lambda: bf.curvature.trace(layers, moment)), "memory": peak() - before}


def induced(depth: int) -> Solver:
    before, rng = loaded(), np.random.default_rng(SEED)
    A = bf.measurements.gaussian(300, (30, 30), rng)
    M = rng.standard_normal((30, 30))
    return lambda: {"induced_regularizer": median_time(lambda: bf.induced_regularizer(M, A, depth)), "memory": peak() - before}


def superoperator(depth: float) -> float:
    """A row of a table of 1830 x 1830 second moments for each layer, and six products of 60 x 60 matrices."""
    return depth * (2 * 1830**2 + 6 * 2 * 60**3)


def newton_matrix(m: float, d: float) -> float:
    """Of the interior point, for each iteration: rotated measurements, their Gram matrix, its Cholesky factors."""
    return 4 * m * d**3 + m**2 * d**2 + m**3 / 3


def orbit(depth: float) -> float:
    """Second moments of 300 measurements of 30 x 30 matrices, and about forty products with them for each layer."""
    return 300 * (4 * 30**3 + 30**4) + depth * 40 * 2 * 465**2


READING = 4 * 1830**2  # a number read from memory costs about as much as four multiplications

PASSES = {
    "Hessian product": lambda m, k: 16 * m * k + 8 * sum(SHAPE) * k,  # the second term: factors put side by side
    "entries of a factored matrix": lambda m, k: 2 * m * k,
    "sparse matrix times factor": lambda m, k: 2 * m * k + SHAPE[0] * k,
}


def sweeps() -> list[Sweep]:
    decades = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000]
    of_m: dict[str, Count] = {name: partial(lambda m, count: count(m, 10), count=count) for name, count in PASSES.items()}
    of_k: dict[str, Count] = {name: partial(lambda k, count: count(1e6, k), count=count) for name, count in PASSES.items()}
    return [
        Sweep("passes over entries", "entries m", decades, partial(passes, rank=10), of_m, 1),
        Sweep("passes and rank", "columns k", [5, 10, 20, 40, 80], partial(passes, 1_000_000), of_k, 1),
        Sweep(
            "completion and size",
            "size d",
            [1000, 2000, 4000, 8000],
            partial(completion, rank=5, per_row=100),
            {"flat_minimum": lambda d: d * (100 * 5 + LANCZOS * 100)},
        ),
        Sweep(
            "completion and rank",
            "rank k",
            [2, 4, 8, 16],
            partial(completion, 2000, per_row=200),
            {"flat_minimum": lambda k: 2000 * 200 * (k + LANCZOS)},
        ),
        Sweep("sensing and m", "measurements m", [300, 600, 1200, 2400], partial(sensing, d=50),
              {"flat_minimum": lambda m: newton_matrix(m, 50)}),
        Sweep("sensing and size", "size d", [30, 45, 60, 90], partial(sensing, 600),
              {"flat_minimum": lambda d: newton_matrix(600, d)}),
        Sweep("trace and depth", "layers L", [2, 4, 8, 16, 32, 64], trace,
              {"trace": lambda depth: superoperator(depth) + READING}),
        Sweep("induced regularizer and depth", "layers L", [3, 6, 12, 24, 48], induced,
              {"induced_regularizer": orbit}),
    ]  # fmt: skip


def slope(x: list[float], y: list[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def sweep(what: Sweep, *, quick: bool) -> dict[str, Any]:
    values = [float(value) for value in (what.values[:3] if quick else what.values)]
    points = []
    for value in values:
        print(f"{what.title}: {value:g} ...", file=sys.stderr, flush=True)
        points.append(measured(partial(what.build, int(value)), 1, False, threads=what.threads))
    lines = {}
    for name, count in what.lines.items():
        seconds = [point[name] for point in points]
        lines[name] = {
            "seconds": seconds,
            "exponent": slope(values, seconds),
            "counted": [count(value) for value in values],
            "exponent_counted": slope(values, [count(value) for value in values]),
        }
    memory = [point["memory"] for point in points]
    return {
        "title": what.title,
        "variable": what.variable,
        "threads": what.threads or "default",
        "values": values,
        "lines": lines,
        "memory_MB": memory,
    }


def table(found: list[dict[str, Any]]) -> str:
    lines = [
        "| sweep | what | range | seconds at its end | exponent | by count | MB at both ends |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for each in found:
        first, last = each["values"][0], each["values"][-1]
        reach, memory = f"{each['variable']} = {first:,.0f} to {last:,.0f}", each["memory_MB"]
        for name, line in each["lines"].items():
            numbers = f"{line['seconds'][-1]:.3g} | {line['exponent']:.2f} | {line['exponent_counted']:.2f}"
            lines.append(f"| {each['title']} | {name} | {reach} | {numbers} | {memory[0]:.0f}, {memory[-1]:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    titles = set(sys.argv[1:]) - {"quick"}
    path = RESULTS / "scaling.json"
    known = {each["title"]: each for each in json.loads(path.read_text())["sweeps"]} if path.exists() else {}
    for each in sweeps():
        if not titles or each.title in titles:
            known[each.title] = sweep(each, quick="quick" in sys.argv)
    found = [known[each.title] for each in sweeps() if each.title in known]
    write("scaling", {"sweeps": found}, table(found))
