"""The flattest deep network against the minimum-nuclear-norm interpolator, in the published setting and smaller ones.

Measurements with independent standard normal entries of a ``d x d`` matrix ``M1 @ M2 / d`` of rank 3 with Gaussian
factors (Gatmiry et al. 2023; theirs is d = 60, m = 600). For every seed and depth: the least trace of the Hessian over all
networks that fit, the trace of the flattest network of the minimum-nuclear-norm interpolator, and how far the two matrices are
from one another and from the truth. Depth 3 and more starts from the two convex problems and two random ones; up to d = 30
also from random layers. Times are of the processor.

    python benchmarks/deep_flat.py run 60 600 --seeds 5   # appends to benchmarks/results/deep_flat.jsonl, skips what is there
    python benchmarks/deep_flat.py bound 60 600 --seeds 5 # the best lower bound of each; appends to deep_flat_bounds.jsonl
    python benchmarks/deep_flat.py table                  # writes benchmarks/results/deep_flat.md and deep_flat_bounds.md
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

import balancedfact as bf

RESULTS = Path(__file__).parent / "results"
ROWS, TABLE = RESULTS / "deep_flat.jsonl", RESULTS / "deep_flat.md"
BOUND_ROWS, BOUND_TABLE = RESULTS / "deep_flat_bounds.jsonl", RESULTS / "deep_flat_bounds.md"
DEPTHS = (2, 3, 5, 10)
RANK = 3
LARGEST_BEST = 30  # sizes up to which every bound is tried
RANDOM_LAYERS = 30  # sizes up to which random layers of large width are one more start


def instance(d: int, m: int, seed: int) -> tuple[bf.measurements.MeasurementMap, np.ndarray]:
    """The measurements and the truth."""
    rng = np.random.default_rng(seed)
    A = bf.measurements.gaussian(m, (d, d), rng)
    return A, rng.standard_normal((d, RANK)) @ rng.standard_normal((RANK, d)) / d


def measured(d: int, m: int, seed: int, depth: int) -> dict[str, float | str]:
    """One row."""
    A, truth = instance(d, m, seed)
    b = A(truth)
    nuclear = bf.norm_minimum(A, b, tol=1e-9)
    N = nuclear.matrix
    at_nuclear = bf.induced_regularizer(N, A, depth).value
    rng = np.random.default_rng(seed)
    width = min(d // 2, 20)
    widths = [d, *[width] * (depth - 1), d]
    initial = [rng.standard_normal(shape) for shape in zip(widths[1:], widths, strict=False)]
    started = time.process_time()
    flat = bf.flat_minimum(A, b, depth, rng=seed, initial=initial if depth > 2 and d <= RANDOM_LAYERS else None)
    seconds = time.process_time() - started
    E, size = flat.matrix, float(np.linalg.norm(truth))
    value = bf.curvature.trace(flat.layers, A)
    ends = {}
    if depth > 2:  # the last value of every start
        ends = {int(s): float(v) for s, v in zip(flat.history["start"], flat.history["value"], strict=True)}
    certificate = flat.certificate
    return {
        "d": d, "m": m, "seed": seed, "depth": depth, "seconds": seconds, "status": flat.status.name,
        "trace": value,
        "trace_at_nuclear": at_nuclear,
        "trace_at_truth": bf.induced_regularizer(truth, A, depth).value,
        "rank": flat.layers[0].shape[0],
        "rank_nuclear": nuclear.layers[0].shape[0],
        "nuclear": float(np.linalg.norm(E, "nuc")), "nuclear_least": float(np.linalg.norm(N, "nuc")),
        "nuclear_truth": float(np.linalg.norm(truth, "nuc")),
        "between": float(np.linalg.norm(E - N)) / size,
        "error": float(np.linalg.norm(E - truth)) / size, "error_nuclear": float(np.linalg.norm(N - truth)) / size,
        "starts": len(ends) or 1, "worst_end": max(ends.values()) / value - 1 if ends else 0.0,
        "stationarity": certificate.stationarity, "feasibility": certificate.feasibility, "curvature": certificate.curvature,
        "fibre_gap": certificate.fibre_gap, "bound": certificate.lower_bound / flat.value,
    }  # fmt: skip


def rows(path: Path = ROWS) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def bound(d: int, m: int, seeds: range, depths: list[int]) -> None:
    """Store the largest proved lower bound, as a share of the trace that the search found; the quick one of large matrices."""
    done = {(row["d"], row["m"], row["seed"], row["depth"]) for row in rows(BOUND_ROWS)}
    for seed in seeds:
        for depth in depths:
            if (d, m, seed, depth) in done:
                continue
            A, truth = instance(d, m, seed)
            started = time.process_time()
            solution = bf.flat_network(A, A(truth), depth, rng=seed, bound="best" if d <= LARGEST_BEST else "quick")
            row = {
                "d": d, "m": m, "seed": seed, "depth": depth, "seconds": time.process_time() - started, "trace": solution.value,
                "share": solution.certificate.lower_bound / solution.value, "proof": solution.certificate.proof,
                "status": solution.status.name,
            }  # fmt: skip
            with BOUND_ROWS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def run(d: int, m: int, seeds: range, depths: list[int]) -> None:
    done = {(row["d"], row["m"], row["seed"], row["depth"]) for row in rows()}
    for seed in seeds:
        for depth in depths:
            if (d, m, seed, depth) not in done:
                row = measured(d, m, seed, depth)
                with ROWS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print({k: row[k] for k in ("d", "seed", "depth", "seconds", "status", "trace", "rank", "between")}, flush=True)


def spread(values: list[float], digits: int) -> str:
    """Mean and standard error of the mean."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):.{digits}f} ± {error:.{digits}f}"


def table() -> None:
    groups: dict[tuple[int, int, int], list[dict]] = defaultdict(list)
    for row in rows():
        groups[row["d"], row["m"], row["depth"]].append(row)
    lines = [
        "| d | m | depth | seeds | trace saved (%) | nuclear norm added (%) | distance (%) | rank, flat / nuclear "
        "| error, flat | error, nuclear | better than nuclear | starts agreeing | processor seconds |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (d, m, depth), group in sorted(groups.items()):
        better = sum(row["error"] < row["error_nuclear"] for row in group)
        agree = sum(row["worst_end"] < 1e-9 for row in group)
        lines.append(
            f"| {d} | {m} | {depth} | {len(group)} "
            f"| {spread([100 * (1 - row['trace'] / row['trace_at_nuclear']) for row in group], 3)} "
            f"| {spread([100 * (row['nuclear'] / row['nuclear_least'] - 1) for row in group], 3)} "
            f"| {spread([100 * row['between'] for row in group], 2)} "
            f"| {np.mean([row['rank'] for row in group]):.1f} / {np.mean([row['rank_nuclear'] for row in group]):.1f} "
            f"| {spread([row['error'] for row in group], 4)} | {spread([row['error_nuclear'] for row in group], 4)} "
            f"| {better} of {len(group)} | {agree} of {len(group)} "
            f"| {np.median([row['seconds'] for row in group]):.1f} |"
        )
    TABLE.write_text("\n".join(lines) + "\n")
    print(TABLE.read_text())


def bound_table() -> None:
    before, groups = defaultdict(list), defaultdict(list)
    for row in rows():
        before[row["d"], row["m"], row["depth"]].append(row["bound"])
    for row in rows(BOUND_ROWS):
        groups[row["d"], row["m"], row["depth"]].append(row)
    lines = [
        "| $d$ | $m$ | $L$ | instances | bound at the multipliers | best bound | least | largest | which | processor seconds |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|---|--:|",
    ]
    for (d, m, depth), group in sorted(groups.items()):
        shares = [row["share"] for row in group]
        ways = sorted({row["proof"].removeprefix("the bound follows from ").split(",")[0].split(";")[0] for row in group})
        lines.append(
            f"| {d} | {m} | {depth} | {len(group)} | {np.mean(before[d, m, depth]):.3f} | {np.mean(shares):.3f} "
            f"| {min(shares):.3f} | {max(shares):.3f} | {', '.join(ways)} "
            f"| {np.median([row['seconds'] for row in group]):.0f} |"
        )
    BOUND_TABLE.write_text("\n".join(lines) + "\n")
    print(BOUND_TABLE.read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, depths in (("run", DEPTHS), ("bound", DEPTHS[1:])):
        runner = commands.add_parser(command)
        runner.add_argument("d", type=int)
        runner.add_argument("m", type=int)
        runner.add_argument("--seeds", type=int, default=5)
        runner.add_argument("--first", type=int, default=0)
        runner.add_argument("--depths", type=int, nargs="+", default=list(depths))
    commands.add_parser("table")
    arguments = parser.parse_args()
    if arguments.command == "table":
        table()
        bound_table()
    else:
        measure = run if arguments.command == "run" else bound
        measure(arguments.d, arguments.m, range(arguments.first, arguments.first + arguments.seeds), arguments.depths)
