"""``balancedfact example``: worked examples, each leaving its data and pictures in a folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to those of the command line."""
    parser = subparsers.add_parser(
        "example",
        help="run a worked example, or list them",
        description="Run a worked example and write its data and pictures into a folder. Without a name, list the examples.",
        epilog="example: balancedfact example",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the example to run; without it the examples are listed")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where to write (default: NAME in the current folder)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run or list the examples; return the exit status."""
    from balancedfact.experiments import EXAMPLES

    if args.name is None:
        width = max(map(len, EXAMPLES))
        for name, example in EXAMPLES.items():
            print(f"{name:<{width}}  {example.summary}")
        return 0
    if args.name not in EXAMPLES:
        raise ValueError(f"NAME is {args.name!r}; expected one of {', '.join(EXAMPLES)}")
    return EXAMPLES[args.name](args.out or Path(args.name))
