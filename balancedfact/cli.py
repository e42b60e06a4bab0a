"""The command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from balancedfact._version import __version__
from balancedfact.commands import ADD_PARSERS
from balancedfact.commands._printable import printable

_BAD_INPUT = 2
_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(_BAD_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit status: 0 where the command did what it was asked for, which for ``solve`` and ``check`` is a proof of
        optimality and for ``verify`` that every statement holds; 3 where ``solve`` has evidence but no proof; 1 for every
        other result; 2 for bad input or usage; 130 where the user stopped the command before there was a result.

    References
    ----------
    Guide :doc:`/guide/command_line`.

    Examples
    --------
    >>> from balancedfact.cli import main
    >>> main(["--version"])  # doctest: +ELLIPSIS
    balancedfact ...
    0
    """
    parser = _Parser(
        prog="balancedfact",
        description="Of all the factorizations that fit the data, find the flat one, and prove it.",
        epilog="example: balancedfact solve ratings.csv --penalty auto",
    )
    parser.add_argument("--version", action="version", version=f"balancedfact {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for add_parser in ADD_PARSERS:
        add_parser(subparsers)
    try:
        args = parser.parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("balancedfact: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (ValueError, OSError) as error:
        return _refuse(str(error))
    except MemoryError as error:
        return _refuse(f"not enough memory ({error})" if str(error) else "not enough memory")


def _refuse(reason: str) -> int:
    print(f"balancedfact: error: {printable(' '.join(reason.split()))}", file=sys.stderr)
    return _BAD_INPUT
