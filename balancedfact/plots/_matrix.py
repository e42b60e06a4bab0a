"""Matrices as images: what was observed and what was recovered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from balancedfact._validate import as_array, as_regular
from balancedfact.measurements import MeasurementMap
from balancedfact.plots._given import as_axes, as_title, as_value_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def recovered_matrix(
    ax: Axes,
    matrix: ArrayLike,
    mask: ArrayLike | None = None,
    title: str = "recovered",
    *,
    value_range: tuple[float, float] | None = None,
) -> Axes:
    """Draw a matrix as an image with a colour bar. The image fills the axes: their shape is the caller's choice.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    matrix : array_like, shape (d1, d2)
        The matrix.
    mask : array_like of bool, shape (d1, d2), optional
        The entries to draw; the others stay white. By default all are drawn.
    title : str
        The title.
    value_range : tuple of float, optional
        The values at the two ends of the colour scale, to compare images; by default the range of what is drawn.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`.

    Raises
    ------
    ValueError
        If an argument is malformed, such as a `matrix` with values that are not finite.

    See Also
    --------
    observed : The picture of the observed entries.
    singular_values : The picture of the spectrum.

    References
    ----------
    Guide :doc:`/guide/tables`.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from balancedfact import plots
    >>> ax = plots.recovered_matrix(Figure().subplots(), np.outer([1.0, 2.0], [1.0, 2.0, 3.0]))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('column', 'row')
    """
    values = as_array(matrix, "matrix", ndim=2)
    if mask is not None:
        shown = as_regular(mask, "mask")
        if shown.dtype != np.bool_ or shown.shape != values.shape:
            raise ValueError(f"mask has dtype {shown.dtype} and shape {shown.shape}; expected booleans of shape {values.shape}")
        values = np.where(shown, values, np.nan)
    return _image(ax, values, title, value_range)


def observed(
    ax: Axes, A: MeasurementMap, b: ArrayLike, title: str = "observed", *, value_range: tuple[float, float] | None = None
) -> Axes:
    """Draw the observed entries of a matrix as an image; hidden entries are white.

    An entry that was observed more than once is drawn with its mean, a weighted one with its weight divided out.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    A : Entries, or another map of single entries
        Which entries were observed.
    b : array_like, shape (m,)
        The data.
    title : str
        The title.
    value_range : tuple of float, optional
        The values at the two ends of the colour scale, to compare images; by default the range of what is drawn.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`.

    Raises
    ------
    ValueError
        If `A` does not measure single entries, `b` does not fit it, or another argument is malformed.

    See Also
    --------
    recovered_matrix : The picture of a whole matrix.

    References
    ----------
    Guide :doc:`/guide/tables`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> from matplotlib.figure import Figure
    >>> A = bf.measurements.Entries([0, 1], [1, 0], (2, 2))
    >>> ax = bf.plots.observed(Figure().subplots(), A, [3.0, 4.0])
    >>> print(ax.images[0].get_array())
    [[-- 3.0]
     [4.0 --]]
    """
    if not (isinstance(A, MeasurementMap) and A.of_entries):
        raise ValueError(f"A is a {type(A).__name__}; expected Entries, or another map of single entries")
    entries = A.as_entries()
    values = as_array(b, "b", shape=(A.m,))
    seen = entries.weights != 0
    cells = np.ravel_multi_index((entries.rows[seen], entries.cols[seen]), A.matrix_shape)
    size = A.matrix_shape[0] * A.matrix_shape[1]
    total, count = np.bincount(cells, values[seen] / entries.weights[seen], size), np.bincount(cells, minlength=size)
    mean = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
    return _image(ax, mean.reshape(A.matrix_shape), title, value_range)


def _image(ax: Axes, values: np.ndarray, title: str, value_range: tuple[float, float] | None) -> Axes:
    as_axes(ax), as_title(title)
    given = as_value_range(value_range)
    shown = np.ma.masked_invalid(values)
    least, most = (float(shown.min()), float(shown.max())) if shown.count() else (0.0, 1.0)
    low, high = given or (least, most)
    if low == high:  # a constant image has one colour, in the middle of the scale
        low, high = low - 0.5, high + 0.5
    # Every pixel shows one entry: a smoothed image would fade sparse observations and blur the line between seen and hidden.
    image = ax.imshow(shown, cmap="viridis", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((least < low, most > high), "neither")
    ax.figure.colorbar(image, ax=ax, label="entry value", extend=extend)
    ax.set(xlabel="column", ylabel="row", title=title)
    ax.grid(False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    return ax
