"""Options that more than one command takes, and what they stand for."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from balancedfact.commands._printable import printable

if TYPE_CHECKING:
    from balancedfact.io import Problem

_PLAIN_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")


def whole(text: str) -> int:
    """A whole number in plain digits: ``int`` would also read ``1_0``, blanks and the digits of other scripts.

    Examples
    --------
    >>> from balancedfact.commands._options import whole
    >>> whole("12")
    12
    """
    if not re.fullmatch("[+-]?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{printable(text[:60])!r} is no whole number; expected digits, such as 12")
    return int(text)


def real(text: str) -> float:
    """A number in plain digits, with a point and an exponent if need be.

    Examples
    --------
    >>> from balancedfact.commands._options import real
    >>> real("2.5"), real("1e-8")
    (2.5, 1e-08)
    """
    if not _PLAIN_NUMBER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{printable(text[:60])!r} is no number; expected one such as 2.5 or 1e-8")
    return float(text)


def seconds(text: str) -> float:
    """A length of time such as ``60`` or ``60s``, in seconds.

    Examples
    --------
    >>> from balancedfact.commands._options import seconds
    >>> seconds("90"), seconds("0.5s")
    (90.0, 0.5)
    """
    try:
        value = real(text.removesuffix("s"))
    except argparse.ArgumentTypeError:
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


def solution_file(place: Path, option: str = "SOLUTION") -> Path:
    """The file of a saved solution, which is given by itself or by its folder."""
    path = place / "solution.npz" if place.is_dir() else place
    if not path.is_file():
        raise ValueError(f"{option} is {str(path)!r}; expected a file that balancedfact solve wrote")
    return path
