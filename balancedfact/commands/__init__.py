"""The subcommands of ``balancedfact``, one to a file; each adds its parser and names the function that runs it."""

from balancedfact.commands import _check, _compare, _example, _predict, _reproduce, _solve, _verify

ADD_PARSERS = tuple(command.add_parser for command in (_solve, _predict, _check, _compare, _reproduce, _verify, _example))

__all__ = ["ADD_PARSERS"]
