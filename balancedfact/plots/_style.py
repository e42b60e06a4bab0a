"""One look for every figure of the package."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from cycler import cycler

FLOOR = 1e-16  # rounding, relative to one: what is smaller is drawn here on a logarithmic axis

PALETTE = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "orange": "#E69F00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "grey": "#666666",
}
"""Colours that stay apart for colour-blind readers and in grey print (Okabe and Ito 2008)."""

_STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=[colour for name, colour in PALETTE.items() if name != "grey"]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "font.size": 10.0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "figure.dpi": 100.0,
    "savefig.dpi": 160.0,
}


def style() -> AbstractContextManager[None]:
    """The settings of the package's figures, as a context manager: only figures made inside have them.

    See Also
    --------
    singular_values, gap_history : Pictures to draw inside the context.

    References
    ----------
    Guide :doc:`/guide/own_figure`.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from balancedfact import plots
    >>> with plots.style():
    ...     ax = Figure(layout="constrained").subplots()
    >>> ax.spines["top"].get_visible()
    False
    """
    return matplotlib.rc_context(_STYLE)
