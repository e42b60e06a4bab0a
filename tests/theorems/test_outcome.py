"""When a comparison holds, and by how much."""

import numpy as np
import pytest

from balancedfact.theorems import Outcome
from balancedfact.theorems._outcome import all_of, at_least, at_most, equal, fails

# equal


@pytest.mark.parametrize("right", [1.0, 1.0 + 1e-10, 1.0 - 1e-10])
def test_equal_numbers_hold(right):
    outcome = equal(1.0, right)
    assert outcome.holds
    assert outcome.slack >= 0


@pytest.mark.parametrize("right", [1.0 + 1e-8, -1.0, 0.0, 2.0])
def test_different_numbers_do_not(right):
    outcome = equal(1.0, right)
    assert not outcome.holds
    assert outcome.slack < 0


def test_equal_is_relative_to_the_larger_side():
    assert equal(1e-150, 1e-150 * (1 + 1e-10)).holds
    assert not equal(1e-150, 2e-150).holds
    assert not equal(0.0, 1e-150).holds
    assert equal(0.0, 0.0).holds


def test_equal_reports_deviation_and_sides():
    outcome = equal([3.0, 4.0], [3.0, 4.5], rtol=1e-2, unknowns=7.0)
    assert outcome.details == {"left": 5.0, "right": np.hypot(3, 4.5), "deviation": 0.5 / np.hypot(3, 4.5), "unknowns": 7.0}
    assert outcome.slack == 1 - outcome.details["deviation"] / 1e-2


def test_equal_relative_to_a_scale():
    assert equal(1e-12, -1e-12, scale=1.0).holds
    assert not equal(1e-12, -1e-12).holds


def test_equal_refuses_to_broadcast():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(\); expected one"):
        equal([1.0, 1.0], 1.0)


# at_most, at_least


@pytest.mark.parametrize(("value", "bound", "slack"), [(1.0, 2.0, 0.5), (2.0, 2.0, 0.0), (-3.0, -2.0, 0.5), (-1.0, 0.0, 1.0)])
def test_a_value_below_its_bound_holds(value, bound, slack):
    for outcome in (at_most(value, bound), at_least(-value, -bound)):
        assert outcome.holds
        assert outcome.slack == slack


@pytest.mark.parametrize(
    ("value", "bound", "slack"), [(3.0, 2.0, -0.5), (-1.0, -2.0, -0.5), (1.0, 0.0, -1.0), (1e-300, 0.0, -1e-300)]
)
def test_a_value_above_its_bound_does_not(value, bound, slack):
    for outcome in (at_most(value, bound), at_least(-value, -bound)):
        assert not outcome.holds
        assert outcome.slack == slack


def test_rounding_is_allowed_and_shows_no_negative_slack():
    for outcome in (at_most(1 + 1e-10, 1.0), at_least(1 - 1e-10, 1.0)):
        assert outcome == Outcome(True, 0.0, outcome.details)
    assert not at_most(1 + 1e-10, 1.0, rtol=1e-12).holds


@pytest.mark.parametrize("compare", [equal, at_most, at_least])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_not_finite_never_holds(compare, value):
    for outcome in (compare(value, 1.0), compare(1.0, value)):
        assert not outcome.holds
        assert outcome.slack == -np.inf
        assert not fails(outcome).holds
        assert not all_of(good=equal(1.0, 1.0), bad=outcome).holds
        assert all_of(good=equal(1.0, 1.0), bad=outcome).slack == -np.inf


# fails, all_of


def test_a_counterexample_holds_when_the_printed_statement_fails():
    assert fails(at_most(3.0, 2.0), depth=3.0) == Outcome(True, 0.5, {"value": 3.0, "bound": 2.0, "depth": 3.0})


@pytest.mark.parametrize("printed", [at_most(1.0, 2.0), at_most(2.0, 2.0), equal(1.0, 1.0)])
def test_a_counterexample_fails_when_the_printed_statement_holds(printed):
    outcome = fails(printed)
    assert not outcome.holds
    assert outcome.slack < 0


def test_all_parts_must_hold():
    outcome = all_of(first=at_most(1.0, 2.0), second=at_most(3.0, 2.0))
    assert outcome == Outcome(False, -0.5, {"first value": 1.0, "first bound": 2.0, "second value": 3.0, "second bound": 2.0})
    assert all_of(first=at_most(1.0, 2.0), second=at_most(1.5, 2.0)) == Outcome(
        True, 0.25, {"first value": 1.0, "first bound": 2.0, "second value": 1.5, "second bound": 2.0}
    )


def test_no_parts_are_refused():
    with pytest.raises(ValueError, match="parts are none; expected at least one comparison"):
        all_of()
