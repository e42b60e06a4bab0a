"""Pictures of problems and solutions: every function draws on the axes it is given and returns them."""

from balancedfact.plots._certificate import gap_history, singular_values, value_history
from balancedfact.plots._comparison import comparison, comparison_map
from balancedfact.plots._matrix import observed, recovered_matrix
from balancedfact.plots._style import PALETTE, style

__all__ = [
    "PALETTE",
    "comparison",
    "comparison_map",
    "gap_history",
    "observed",
    "recovered_matrix",
    "singular_values",
    "style",
    "value_history",
]
