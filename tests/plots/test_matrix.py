import numpy as np
import pytest
from matplotlib.figure import Figure

from balancedfact import plots
from balancedfact.measurements import Entries, gaussian


@pytest.fixture
def ax():
    return Figure(layout="constrained").subplots()


def colour_bar(ax):
    return next(other for other in ax.figure.axes if other is not ax)


def shown(ax):
    return ax.images[0].get_array()


def test_recovered_matrix_is_drawn_as_it_is(ax):
    matrix = np.arange(6.0).reshape(2, 3)
    assert plots.recovered_matrix(ax, matrix) is ax
    np.testing.assert_array_equal(shown(ax), matrix)
    assert not np.ma.getmaskarray(shown(ax)).any()
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("recovered", "column", "row")
    assert colour_bar(ax).get_ylabel() == "entry value"
    assert ax.images[0].get_clim() == (0.0, 5.0)


def test_mask_leaves_entries_white(ax):
    mask = np.array([[True, False], [False, True]])
    plots.recovered_matrix(ax, [[1.0, 9.0], [9.0, 2.0]], mask, title="part")
    np.testing.assert_array_equal(np.ma.getmaskarray(shown(ax)), ~mask)
    assert ax.images[0].get_clim() == (1.0, 2.0)
    assert ax.get_title() == "part"


def test_a_mask_that_hides_all_can_be_drawn(ax):
    plots.recovered_matrix(ax, np.ones((2, 2)), np.zeros((2, 2), dtype=bool))
    assert np.ma.getmaskarray(shown(ax)).all()
    ax.figure.draw_without_rendering()


def test_limits_are_kept_and_the_bar_says_what_lies_beyond(ax):
    plots.recovered_matrix(ax, [[-1.0, 0.5, 3.0]], value_range=(0.0, 1.0))
    assert ax.images[0].get_clim() == (0.0, 1.0)
    assert ax.images[0].colorbar.extend == "both"


@pytest.mark.parametrize(("limits", "extend"), [((-1.0, 1.0), "max"), ((0.0, 3.0), "min"), ((-2.0, 3.0), "neither")])
def test_colour_bar_ends(ax, limits, extend):
    plots.recovered_matrix(ax, [[-1.0, 0.5, 3.0]], value_range=limits)
    assert ax.images[0].colorbar.extend == extend


def test_constant_matrix_has_a_scale(ax):
    plots.recovered_matrix(ax, np.full((2, 2), 7.0))
    assert ax.images[0].get_clim() == (6.5, 7.5)


def test_ticks_are_whole_rows_and_columns(ax):
    plots.recovered_matrix(ax, np.ones((1, 3)))
    ax.figure.draw_without_rendering()
    for ticks in (ax.get_xticks(), ax.get_yticks()):
        np.testing.assert_array_equal(ticks, np.round(ticks))


def test_observed_leaves_the_hidden_white(ax):
    A = Entries([0, 1, 1], [1, 0, 2], (2, 3))
    assert plots.observed(ax, A, [3.0, 0.0, 5.0]) is ax
    hidden = np.array([[True, False, True], [False, True, False]])
    np.testing.assert_array_equal(np.ma.getmaskarray(shown(ax)), hidden)
    np.testing.assert_array_equal(shown(ax).compressed(), [3.0, 0.0, 5.0])
    assert ax.get_title() == "observed"


def test_observed_averages_repeats_and_divides_weights_out(ax):
    A = Entries([0, 0, 0, 1], [0, 0, 1, 1], (2, 2), [1.0, 1.0, 2.0, 0.0])
    plots.observed(ax, A, [1.0, 4.0, 6.0, 9.0])
    np.testing.assert_array_equal(shown(ax).filled(np.nan), [[2.5, 3.0], [np.nan, np.nan]])


def test_refusals(ax):
    with pytest.raises(ValueError, match="A is a Dense; expected Entries"):
        plots.observed(ax, gaussian(2, (2, 2), rng=0), np.ones(2))
    with pytest.raises(ValueError, match="b has shape"):
        plots.observed(ax, Entries([0], [0], (1, 1)), np.ones(2))
    with pytest.raises(ValueError, match="matrix has 1 NaN"):
        plots.recovered_matrix(ax, [[np.nan]])
    with pytest.raises(ValueError, match="mask has dtype float64"):
        plots.recovered_matrix(ax, [[1.0]], [[1.0]])
    with pytest.raises(ValueError, match=r"mask has dtype bool and shape \(1, 2\)"):
        plots.recovered_matrix(ax, [[1.0]], [[True, True]])
