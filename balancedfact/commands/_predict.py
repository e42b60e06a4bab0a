"""``balancedfact predict``: entries of a solved model, by the names of their rows and columns."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from balancedfact.commands._options import solution_file


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to those of the command line."""
    parser = subparsers.add_parser(
        "predict",
        help="predict entries from a saved solution",
        description="Predict entries from a saved solution. PAIRS is a table of rows and columns, by the names that the data "
        "had. Prints row, column, value and known as CSV. known is 0 where the row or the column was not among the data; the "
        "value is then the mean plus the offset of the other one, or 0 for a solution without offsets.",
        epilog="example: balancedfact predict ratings-flat/solution.npz pairs.csv --out predictions.csv",
    )
    parser.add_argument("solution", metavar="SOLUTION", type=Path, help="solution.npz of balancedfact solve, or its folder")
    parser.add_argument("pairs", metavar="PAIRS", type=Path, help="a table of rows and columns")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the table there instead of printing it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Predict and print or write; the exit status."""
    from balancedfact._files import write_text
    from balancedfact.data._predictions import predictions, read_pairs
    from balancedfact.solution import Solution

    text = predictions(Solution.load(solution_file(args.solution)), read_pairs(args.pairs))
    if args.out is None:
        print(text, end="")
    else:
        write_text(args.out, text)
    return 0
