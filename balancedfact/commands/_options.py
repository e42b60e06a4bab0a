"""Options that more than one command takes, and what they stand for."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from balancedfact.io import Problem

PICTURES = ("png", "svg", "pdf")


def seconds(text: str) -> float:
    """A length of time such as ``60`` or ``60s``, in seconds.

    Examples
    --------
    >>> from balancedfact.commands._options import seconds
    >>> seconds("90"), seconds("0.5s")
    (90.0, 0.5)
    """
    try:
        value = float(text.strip().removesuffix("s"))
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; expected seconds above 0, such as 60 or 60s")
    return value


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a table is to be read."""
    parser.add_argument("--columns", metavar="ROW,COLUMN,VALUE", help="columns of a table, by name or position")
    parser.add_argument("--format", choices=("triplets", "matrix"), help="what a table is, if it is in doubt")
    parser.add_argument("--header", choices=("yes", "no"), help="whether the first line names the columns, if it is in doubt")


def problem_of(args: argparse.Namespace) -> Problem:
    """The problem in the file, read as the options say."""
    from balancedfact.io import read_problem

    header = None if args.header is None else args.header == "yes"
    return read_problem(args.file, columns=args.columns, format=args.format, header=header)


def solution_file(place: Path) -> Path:
    """The file of a saved solution, which is given by itself or by its folder."""
    path = place / "solution.npz" if place.is_dir() else place
    if not path.is_file():
        raise ValueError(f"SOLUTION is {str(path)!r}; expected a file that balancedfact solve wrote")
    return path
