"""The published figures, one declaration each."""

from balancedfact.experiments.figures._depth import FIGURE_2
from balancedfact.experiments.figures._sweep import FIGURE_1, FIGURE_3, FIGURE_4, FIGURE_5
from balancedfact.experiments.figures._underdetermined import FIGURE_6

FIGURES = {each.name: each for each in (FIGURE_1, FIGURE_2, FIGURE_3, FIGURE_4, FIGURE_5, FIGURE_6)}

__all__ = ["FIGURES"]
