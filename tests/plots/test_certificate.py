from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from balancedfact import plots
from balancedfact._spectrum import RANK_CUT, numerical_rank, product_singular_values
from balancedfact.solution import Certificate, Solution, Status


def solution(layers=None, *, final_gap=1e-9, **history):
    layers = [np.ones((1, 2)), np.ones((3, 1))] if layers is None else layers
    series = {name: np.asarray(values, dtype=float) for name, values in history.items()}
    return Solution(layers, 5.0, Status.OPTIMAL, "", Certificate(0.0, 5.0, final_gap), series)


@pytest.fixture
def ax():
    return Figure(layout="constrained").subplots()


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("widths", [(4, 6), (6, 3, 5), (3, 9, 4), (5, 2, 7, 3), (4, 4, 4, 4, 4)])
def test_singular_values_of_a_product(widths):
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((b, a)) for a, b in pairwise(widths)]
    product = np.linalg.multi_dot(layers[::-1]) if len(layers) > 1 else layers[0]
    found = product_singular_values(layers)
    assert found.size == min(widths)
    np.testing.assert_allclose(found, np.linalg.svd(product, compute_uv=False)[: min(widths)], rtol=1e-12)


def test_the_product_is_never_formed():
    thin = np.ones((1, 200_000))
    np.testing.assert_allclose(product_singular_values([thin, thin.T]), [200_000.0])


def test_numerical_rank():
    assert numerical_rank(np.array([2.0, 1.0, 3 * RANK_CUT, RANK_CUT])) == 3
    assert numerical_rank(np.zeros(3)) == 0


def test_singular_values_are_drawn_with_the_rank(ax):
    left, right = np.linalg.qr(np.random.default_rng(0).standard_normal((2, 9, 3)))[0]
    layers = [right.T, left * [4.0, 1.0, 1e-9]]
    assert plots.singular_values(ax, solution(layers)) is ax
    points, cut = ax.lines
    np.testing.assert_array_equal(points.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(points.get_ydata(), [4.0, 1.0, 1e-9], rtol=1e-6)
    np.testing.assert_allclose(cut.get_ydata(), 4.0 * RANK_CUT)
    assert labels(ax) == ["$10^{-6}$ of the largest"]
    assert ax.get_yscale() == "log"
    assert (ax.get_title(), ax.get_xlabel()) == ("rank 2", "index")
    assert ax.get_ylabel() == "singular value (units of the data)"


def test_exactly_zero_singular_values_stay_on_the_picture(ax):
    plots.singular_values(ax, solution([np.diag([2.0, 0.0]), np.eye(2)]))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [2.0, 2e-16])


def test_no_cut_is_drawn_where_nothing_is_cut(ax):
    plots.singular_values(ax, solution())
    assert len(ax.lines) == 1
    assert ax.get_legend() is None


def test_zero_solution(ax):
    plots.singular_values(ax, solution([np.zeros((1, 2)), np.zeros((3, 1))]))
    assert ax.texts[0].get_text() == "all singular values are zero"
    assert ax.get_title() == "rank 0"
    ax.figure.draw_without_rendering()


def test_gap_history(ax):
    drawn = solution(iteration=[0, 1, 2], gap=[0.5, 1e-3, 0.0], feasibility=[1.0, 1e-2, 1e-30])
    assert plots.gap_history(ax, drawn) is ax
    gap, residual = ax.lines
    np.testing.assert_array_equal(gap.get_xdata(), [0, 1, 2])
    np.testing.assert_allclose(gap.get_ydata(), [0.5, 1e-3, 1e-16])
    np.testing.assert_allclose(residual.get_ydata(), [1.0, 1e-2, 1e-16])
    assert labels(ax) == ["relative gap", "relative residual"]
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("iteration", "relative size")


def test_gap_in_the_title(ax):
    plots.gap_history(ax, solution(final_gap=3e-9, iteration=[0], feasibility=[1.0]))
    assert ax.get_title() == "final gap 3.0e-09"


def test_without_a_bound_only_the_residual_is_drawn(ax):
    drawn = solution(final_gap=np.nan, iteration=[0, 1], gap=[np.nan, np.nan], feasibility=[1.0, 1e-2])
    plots.gap_history(ax, drawn)
    assert labels(ax) == ["relative residual"]
    assert ax.get_title() == "no final gap: optimal"


def test_value_history(ax):
    plots.value_history(ax, solution(iteration=[0, 1, 2], value=[9.0, 6.0, 5.0], lower_bound=[-1.0, np.nan, 4.9]))
    value, bound = ax.lines
    np.testing.assert_array_equal(value.get_ydata(), [9.0, 6.0, 5.0])
    np.testing.assert_array_equal(bound.get_ydata(), [np.nan, np.nan, 4.9])
    assert labels(ax) == ["value", "lower bound"]
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("iteration", "objective", "final value 5")


@pytest.mark.parametrize("draw", [plots.gap_history, plots.value_history])
def test_empty_history(ax, draw):
    draw(ax, solution())
    assert ax.texts[0].get_text() == "no iterations were needed"
    assert not ax.lines
    ax.figure.draw_without_rendering()


def test_one_iteration_has_whole_ticks(ax):
    plots.gap_history(ax, solution(iteration=[3], feasibility=[0.5]))
    ax.figure.draw_without_rendering()
    np.testing.assert_array_equal(ax.get_xticks(), np.round(ax.get_xticks()))
