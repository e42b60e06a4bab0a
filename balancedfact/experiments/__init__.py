"""Worked examples on real data, run by the command line."""

from balancedfact.experiments._elevation import ELEVATION
from balancedfact.experiments._scan import SCAN

EXAMPLES = {"elevation": ELEVATION, "scan": SCAN}

__all__ = ["EXAMPLES"]
