"""``balancedfact reproduce``: the published figures, each leaving its data, its picture and its provenance."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from balancedfact._formats import PICTURES
from balancedfact.commands._options import whole


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to those of the command line."""
    parser = subparsers.add_parser(
        "reproduce",
        help="reproduce the figures of the papers and of the documentation",
        description="Reproduce the figures of the papers and of the documentation. Each leaves FIGURE.csv, FIGURE.png and "
        "FIGURE.json (provenance) in DIR. A run that was stopped or killed goes on where it was when the same command is given "
        "again.",
        epilog="example: balancedfact reproduce mc-1 mc-2 --scale quick --out figures",
    )
    parser.add_argument("figures", metavar="FIGURE", nargs="*", help="which figures; all by default, --list shows them")
    parser.add_argument("--list", action="store_true", help="list the figures and what they show")
    parser.add_argument(
        "--scale",
        choices=("paper", "quick"),
        default="quick",
        help="the published numbers of steps and repetitions, or fewer (default: quick)",
    )
    parser.add_argument("--workers", metavar="N", type=whole, help="number of processes (default: one per core)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="run on the workers of this Dask scheduler instead")
    parser.add_argument("--pictures", choices=PICTURES, default="png", help="format of the pictures (default: png)")
    parser.add_argument("--redraw", action="store_true", help="run nothing: draw from the tables that are in DIR")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("figures"), help="where to write (default: figures)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reproduce the figures; return the exit status."""
    from balancedfact._executors import dask_cluster, process_pool
    from balancedfact.experiments._runner import redraw, reproduce
    from balancedfact.experiments.figures import FIGURES

    if args.list:
        for figure in FIGURES.values():
            print(f"{figure.name:<10} {figure.source}: {figure.caption}")
        return 0
    unknown = [name for name in args.figures if name not in FIGURES]
    if unknown:
        raise ValueError(f"FIGURE is {unknown[0]!r}; expected one of {', '.join(FIGURES)}")
    if args.workers is not None and args.workers < 1:
        raise ValueError(f"--workers is {args.workers}; expected at least 1")
    if args.workers is not None and args.scheduler is not None:
        raise ValueError("--workers and --scheduler exclude one another; the scheduler has workers of its own")
    if args.redraw:
        for name in args.figures or [name for name in FIGURES if (args.out / f"{name}.csv").is_file()]:
            redraw(FIGURES[name], args.out, pictures=args.pictures)
            print(f"{name:<10} {args.out / name}.{args.pictures}", flush=True)
        return 0
    where = process_pool(args.workers) if args.scheduler is None else dask_cluster(args.scheduler)
    with where as executor:
        for name in args.figures or FIGURES:
            started = time.perf_counter()
            reproduce(FIGURES[name], args.scale, args.out, executor, pictures=args.pictures)
            seconds = time.perf_counter() - started
            print(f"{name:<10} {seconds:7.1f} s  {args.out / name}.csv, .{args.pictures}, .json", flush=True)
    return 0
