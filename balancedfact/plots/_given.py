"""The door of the pictures: axes, solutions and tables are what they are called, or are refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from balancedfact._validate import as_array, as_kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from balancedfact.comparison import Comparison
    from balancedfact.solution import Solution


def as_axes(ax: Any, name: str = "ax") -> Axes:
    """Return `ax` if one can draw on it."""
    from matplotlib.axes import Axes  # a third of a second, which whoever has axes has spent

    return as_kind(ax, name, Axes, "matplotlib axes to draw on")


def as_solution(solution: Any) -> Solution:
    """Return `solution` if it is one."""
    from balancedfact.solution import Solution

    return as_kind(solution, "solution", Solution, "a Solution, such as bf.flat_minimum returns")


def as_comparison(table: Any) -> Comparison:
    """Return `table` if it is a comparison."""
    from balancedfact.comparison import Comparison

    return as_kind(table, "table", Comparison, "a Comparison, such as bf.compare returns")


def as_title(title: Any) -> str:
    """Return `title` if it is a text."""
    return as_kind(title, "title", str, "a text")


def as_value_range(value_range: Any) -> tuple[float, float] | None:
    """The ends of a colour scale in rising order, or ``None``."""
    if value_range is None:
        return None
    low, high = as_array(value_range, "value_range", shape=(2,))
    if np.isnan(high - low) or low > high:
        raise ValueError(f"value_range is {value_range!r}; expected the lower end first")
    return float(low), float(high)
