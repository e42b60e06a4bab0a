"""Parts that the panels of figures share: one legend outside of them, a magnified corner, intervals of shares, plain ticks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import NullLocator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Place = tuple[float, float, float, float]  # left, bottom, width and height, in parts of the axes
    Window = tuple[float, float]

MARKERS = "os^Dv"  # of the series of one panel, so that those on one line are told apart
_QUANTILE = 1.96  # of the normal distribution: intervals of 95 %


def legend_below(figure: Figure, columns: int = 6) -> None:
    """Name every labelled curve of the figure once, below its panels."""
    named = {label: curve for ax in figure.axes for curve, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(len(named), columns), fontsize="small")


def magnified(ax: Axes, place: Place, x: Window, y: Window, draw: Callable[[Axes], None]) -> Axes:
    """Draw once more, into an inset at `place`, what merges in the window `x` times `y`, which a frame marks in the axes."""
    inset = ax.inset_axes(place)
    draw(inset)
    inset.set(xlim=x, ylim=y, xlabel="", ylabel="", title="", yscale="log")
    plain_ticks(inset, "y", np.linspace(*y, 3))
    inset.tick_params(labelsize="x-small")
    ax.indicate_inset((x[0], y[0], x[1] - x[0], y[1] - y[0]), edgecolor="0.4")
    return inset


def plain_ticks(ax: Axes, axis: str, values: Sequence[float] | np.ndarray) -> None:
    """Ticks at these values, written as plain numbers of three digits, and no others."""
    which = {"x": ax.xaxis, "y": ax.yaxis}[axis]
    which.set_ticks(list(values), [f"{value:.3g}" for value in values])
    which.set_minor_locator(NullLocator())


def share(happened: np.ndarray) -> tuple[float, float, float]:
    """The share of runs in which something happened, and how far its 95 % interval (Wilson) reaches down and up."""
    n, mean = happened.size, float(np.mean(happened))
    width = 1 + _QUANTILE**2 / n
    middle = (mean + _QUANTILE**2 / (2 * n)) / width
    half = _QUANTILE * np.sqrt(mean * (1 - mean) / n + _QUANTILE**2 / (4 * n**2)) / width
    return mean, max(mean - middle + half, 0.0), max(middle + half - mean, 0.0)
