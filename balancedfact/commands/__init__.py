"""The subcommands of ``balancedfact``, one to a file; each adds its parser and names the function that runs it."""

from balancedfact.commands import _compare, _example, _reproduce, _solve, _verify

ADD_PARSERS = (_solve.add_parser, _compare.add_parser, _reproduce.add_parser, _verify.add_parser, _example.add_parser)

__all__ = ["ADD_PARSERS"]
