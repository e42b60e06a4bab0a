"""The ways to a factorization, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from balancedfact.plots._style import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from balancedfact.comparison import Comparison

_PANELS = {
    "trace": "trace of the Hessian / least",
    "sharpness": "sharpness / least",
    "nuclear_norm": "nuclear norm / least",
    "error": "distance to the truth",
    "fit": "residual",
}


def comparison(axes: Sequence[Axes], table: Comparison) -> Sequence[Axes]:
    """Draw the rows of a comparison as dots, one quantity to each of the axes.

    Parameters
    ----------
    axes : sequence of matplotlib.axes.Axes
        Axes side by side, for trace, sharpness, nuclear norm, distance to the truth (skipped where none is known) and residual,
        in this order; fewer axes show the first of these.
    table : Comparison
        What `balancedfact.compare` returned.

    Returns
    -------
    sequence of matplotlib.axes.Axes
        The axes it was given.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> from matplotlib.figure import Figure
    >>> A = bf.measurements.gaussian(12, (4, 3), rng=0)
    >>> axes = bf.plots.comparison(Figure().subplots(1, 2), bf.compare(A, A(np.ones((4, 3))), rng=0))
    >>> [label.get_text() for label in axes[0].get_yticklabels()][0]
    'analytic'
    """
    names = [row.method for row in table.rows]
    positions = np.arange(len(names))
    known = not all(np.isnan(row.error) for row in table.rows)
    quantities = [name for name in _PANELS if known or name != "error"]
    for index, (ax, name) in enumerate(zip(axes, quantities, strict=False)):
        values = np.array([getattr(row, name) for row in table.rows])
        if name in ("error", "fit"):
            values = np.maximum(values, np.finfo(float).eps)
        else:
            values = values / np.nanmin(values)
        ax.scatter(values, positions, color=PALETTE["blue"], zorder=3)
        ax.set(xscale="log" if np.nanmax(values) > 10 * np.nanmin(values) else "linear")
        ax.set(xlabel=_PANELS[name], ylim=(len(names) - 0.5, -0.5))
        ax.set_yticks(positions, names if index == 0 else [""] * len(names))
        ax.tick_params(axis="y", length=0)
    return axes
