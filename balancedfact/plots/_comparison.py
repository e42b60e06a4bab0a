"""The ways to a factorization, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from balancedfact.plots._given import as_axes, as_comparison
from balancedfact.plots._style import FLOOR, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from balancedfact.comparison import Comparison

_PANELS = {
    "trace": "trace of the Hessian / least",
    "sharpness": "sharpness / least",
    "nuclear_norm": "nuclear norm / least",
    "error": "distance to the truth",
    "fit": "residual",
    "distance": "distance from the certified layers",
}


def comparison(axes: Sequence[Axes], table: Comparison) -> Sequence[Axes]:
    """Draw the rows of a comparison as dots, one quantity to each of the axes.

    Trace, sharpness and nuclear norm are drawn relative to the least of the table.

    Parameters
    ----------
    axes : sequence of matplotlib.axes.Axes
        Axes side by side, for trace, sharpness, nuclear norm, distance to the truth, residual and distance from the certified
        layers, in this order, without those that are not known; fewer axes show the first of these.
    table : Comparison
        What `balancedfact.compare` returned.

    Returns
    -------
    sequence of matplotlib.axes.Axes
        The axes it was given.

    Raises
    ------
    ValueError
        If `axes` is no sequence of axes, or `table` no `Comparison`.

    See Also
    --------
    balancedfact.compare : The function that computes the table.
    comparison_map : Trace against distance, in one picture.

    References
    ----------
    Guide :doc:`/guide/compare`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> from matplotlib.figure import Figure
    >>> A = bf.measurements.gaussian(12, (4, 3), rng=0)
    >>> axes = bf.plots.comparison(Figure().subplots(1, 2), bf.compare(A, A(np.ones((4, 3))), rng=0))
    >>> [label.get_text() for label in axes[0].get_yticklabels()][0]
    'analytic'
    """
    try:
        panels = [as_axes(ax, f"axes[{k}]") for k, ax in enumerate(axes)]
    except TypeError:
        raise ValueError(f"axes is {axes!r}; expected a list of matplotlib axes") from None
    names = [row.method for row in as_comparison(table).rows]
    positions = np.arange(len(names))
    quantities = [name for name in _PANELS if not all(np.isnan(getattr(row, name)) for row in table.rows)]
    for index, (ax, name) in enumerate(zip(panels, quantities, strict=False)):
        values = np.array([getattr(row, name) for row in table.rows])
        if name in ("error", "fit", "distance"):
            values = np.maximum(values, np.finfo(float).eps)
        else:
            values = values / np.nanmin(values)
        ax.scatter(values, positions, color=PALETTE["blue"], zorder=3)
        ax.set(xscale="log" if np.nanmax(values) > 10 * np.nanmin(values) else "linear")
        ax.set(xlabel=_PANELS[name], ylim=(len(names) - 0.5, -0.5))
        ax.set_yticks(positions, names if index == 0 else [""] * len(names))
        ax.tick_params(axis="y", length=0)
    return axes


def comparison_map(ax: Axes, table: Comparison) -> Axes:
    """Draw where every way of a comparison ends: its distance from the certified layers, and its trace relative to theirs.

    The vertical axis shows the absolute value of the excess of the trace. Both axes are logarithmic, and values below 1e-16 are
    drawn at 1e-16.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    table : Comparison
        What `balancedfact.compare` returned.

    Returns
    -------
    matplotlib.axes.Axes
        The axes it was given. Filled dots fit the data to a relative residual of 1e-6, open ones do not.

    Raises
    ------
    ValueError
        If `ax` is no axes, or `table` no `Comparison`.

    See Also
    --------
    balancedfact.compare : The function that computes the table.
    comparison : One quantity to each of several axes.

    References
    ----------
    Guide :doc:`/guide/compare`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> from matplotlib.figure import Figure
    >>> A = bf.measurements.gaussian(12, (4, 3), rng=0)
    >>> ax = bf.plots.comparison_map(Figure().subplots(), bf.compare(A, A(np.ones((4, 3))), rng=0))
    >>> ax.get_xscale(), ax.get_yscale()
    ('log', 'log')
    """
    as_axes(ax)
    for row in as_comparison(table).rows:
        x, y = max(row.distance, FLOOR), max(abs(row.excess), FLOOR)
        face = PALETTE["blue"] if row.fit <= 1e-6 else "none"
        ax.scatter(x, y, facecolor=face, edgecolor=PALETTE["blue"], zorder=3)
        ax.annotate(row.method, (x, y), xytext=(4, 3), textcoords="offset points", fontsize="x-small")
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel=_PANELS["distance"], ylabel="trace above the certified one, relative")
    return ax
