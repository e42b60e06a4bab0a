"""One legend for all panels of a figure, outside of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def legend_below(figure: Figure, columns: int = 6) -> None:
    """Name every labelled curve of the figure once, below its panels."""
    named = {label: curve for ax in figure.axes for curve, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(len(named), columns), fontsize="small")
