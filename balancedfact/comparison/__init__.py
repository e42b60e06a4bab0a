"""The comparison: every training rule and every solver beside the certified extremes, in one table."""

from balancedfact.comparison._compare import compare
from balancedfact.comparison._distance import aligned_distance
from balancedfact.comparison._table import Comparison, ComparisonRow

__all__ = ["Comparison", "ComparisonRow", "aligned_distance", "compare"]
