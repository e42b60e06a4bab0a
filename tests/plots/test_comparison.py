"""The picture of a comparison shows every row, and only what is known."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from balancedfact import plots
from balancedfact.comparison import Comparison, ComparisonRow


def table(error=(0.5, 1e-20)):
    rows = [
        ComparisonRow(f"way {i}", 1e-20, 10.0 ** (2 * i), 1.0, 3.0 + i, 2.0, 1, 0.0, 1.0, 1.0, 1.0, error[i], 0.1, "", [])
        for i in range(2)
    ]
    return Comparison(rows, 2)


def test_rows_are_dots_relative_to_the_least():
    axes = plots.comparison(Figure().subplots(1, 5), table())
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["way 0", "way 1"]
    assert not any(label.get_text() for label in axes[1].get_yticklabels())
    dots = [ax.collections[0].get_offsets() for ax in axes]
    np.testing.assert_allclose(dots[0], [[1, 0], [100, 1]])
    np.testing.assert_allclose(dots[1], [[1, 0], [4 / 3, 1]])
    np.testing.assert_allclose(dots[3], [[0.5, 0], [np.finfo(float).eps, 1]])
    assert [ax.get_xscale() for ax in axes] == ["log", "linear", "linear", "log", "linear"]
    assert axes[0].yaxis_inverted()


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_axes_and_no_truth(count):
    axes = plots.comparison(np.atleast_1d(Figure().subplots(1, count)), table((np.nan, np.nan)))
    assert not any("truth" in ax.get_xlabel() for ax in axes)
