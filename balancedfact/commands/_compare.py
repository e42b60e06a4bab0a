"""``balancedfact compare``: every way to a factorization of the data in a file, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from balancedfact._validate import as_count
from balancedfact.commands._options import add_table_options, problem_of, seconds, whole


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to those of the command line."""
    parser = subparsers.add_parser(
        "compare",
        help="compare all ways to a factorization of the data in a file",
        description="Compare closed forms, the certified solver, a Riemannian search, gradient flow, gradient descent and its "
        "variants, sharpness-aware minimisation, SGD and label-noise SGD on the problem in FILE. Prints a table "
        "and writes comparison.json and comparison.png.",
        epilog="example: balancedfact compare problem.npz --depth 3 --out comparison",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the problem, as for balancedfact solve")
    parser.add_argument("--depth", metavar="N", type=whole, default=2, help="number of layers (default: 2)")
    parser.add_argument("--seed", metavar="S", type=whole, default=0, help="seed of all randomness (default: 0)")
    parser.add_argument(
        "--methods",
        metavar="NAME",
        nargs="+",
        help="rows of the table, by their names, such as certified SGD 'descent, large step' (default: all)",
    )
    parser.add_argument("--limit", metavar="SECONDS", type=seconds, help="time for all rows together, such as 60 or 60s")
    add_table_options(parser)
    parser.add_argument("--out", metavar="DIR", type=Path, help="where to write (default: name of FILE + -comparison, here)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare, write and print; the exit status."""
    as_count(args.depth, "--depth", least=2)
    as_count(args.seed, "--seed", least=0)
    from matplotlib.figure import Figure

    import balancedfact as bf
    from balancedfact._files import write_json, write_picture

    problem = problem_of(args)
    table = bf.compare(
        problem.A, problem.b, args.depth, truth=problem.truth, methods=args.methods, rng=args.seed, limits=bf.Limits(args.limit)
    )
    print(table)
    print(f"\n{table.legend}\n")
    out = args.out or Path(f"{args.file.stem}-comparison")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "comparison.json", table.to_dict())
    with bf.plots.style():
        figure = Figure(figsize=(13, 9), layout="constrained")
        panels = 5 if problem.truth is not None else 4
        grid = figure.add_gridspec(2, panels, height_ratios=(1, 1.1))
        bf.plots.comparison([figure.add_subplot(grid[0, i]) for i in range(panels)], table)
        bf.plots.comparison_map(figure.add_subplot(grid[1, :]), table)
        write_picture(out / "comparison.png", figure)
    print(f"files  {out}: comparison.json, comparison.png")
    return 0
