import numpy as np
import pytest

from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.nuclear._problem import Point, balanced_from_matrix
from balancedfact.solvers.nuclear._watch import Watch
from tests.solvers.points import frame_of

pytestmark = pytest.mark.filterwarnings("error")


def watch_of(penalty=0.0, *, tol=1e-8, callback=None, progress=False):
    frame = frame_of("gaussian", True, penalty)
    return Watch(frame.problem, frame.units, tol, np.random.default_rng(0), Log(callback, progress))


def fitting(problem, size, rng):
    """A matrix that fits the data of a problem, the farther from the least one the larger `size` is."""
    rows = np.array([problem.map.rmatvec(unit) for unit in np.eye(problem.map.m)])
    unseen = np.linalg.svd(rows)[2][problem.map.m :]
    x = np.linalg.pinv(rows) @ problem.b + size * (rng.standard_normal(len(unseen)) @ unseen)
    return x.reshape(problem.map.matrix_shape)


def point(Z, y):
    return Point(*balanced_from_matrix(Z), y)


def test_the_best_pair_and_the_best_dual_vector_are_kept_apart(rng):
    watch = watch_of()
    problem = watch.problem
    near, far = fitting(problem, 0.1, rng), fitting(problem, 5.0, rng)
    good, bad = problem.b, problem.b + 3 * rng.standard_normal(problem.map.m)
    first = point(far, good)
    watch.judge(first)
    assert watch.point.L is first.L
    second = point(near, bad)
    watch.judge(second)
    assert watch.point.L is second.L
    assert watch.value == pytest.approx(np.linalg.norm(near, "nuc"))
    expected = problem.judge(first, rng)
    assert watch.lower == expected.lower
    np.testing.assert_array_equal(watch.y, expected.y)
    assert watch.gap == pytest.approx((watch.value - watch.lower) / watch.value)
    watch.judge(point(far, bad))
    assert watch.point.L is second.L


def test_a_pair_that_fits_is_better_than_one_that_does_not(rng):
    watch = watch_of()
    problem = watch.problem
    fits = fitting(problem, 1.0, rng)
    close, distant = 1.001 * fits, 0.5 * fits
    watch.judge(point(distant, problem.b))
    assert not watch.feasible
    assert watch.gap == np.inf
    assert not watch.closed
    watch.judge(point(close, problem.b))  # fits better, though it is larger
    assert watch.residual == pytest.approx(1e-3)
    watch.judge(point(distant, problem.b))
    assert watch.residual == pytest.approx(1e-3)
    watch.judge(point(fits, problem.b))
    assert watch.feasible
    watch.judge(point(0.9 * fits, problem.b))  # smaller, but it does not fit
    assert watch.value == pytest.approx(np.linalg.norm(fits, "nuc"))


def test_with_a_penalty_the_value_alone_decides(rng):
    watch = watch_of(0.3)
    problem = watch.problem
    watch.judge(point(fitting(problem, 1.0, rng), problem.b))
    assert watch.feasible
    zero = point(np.zeros((5, 6)), problem.b)
    watch.judge(zero)
    small = problem.judge(zero, rng).value
    assert watch.value == min(small, watch.log.records[0]["value"] / watch.units)


def test_the_gap_must_close_to_half_the_tolerance():
    watch = watch_of(tol=0.4)
    watch.value, watch.residual, watch.lower = 1.0, 0.0, 0.79
    assert not watch.closed
    watch.lower = 0.81
    assert watch.closed
    watch.residual = 1e-3
    assert not watch.closed


def test_points_are_followed_until_the_gap_is_closed(rng):
    watch, seen = watch_of(tol=3.0), []
    fits = fitting(watch.problem, 0.1, rng)

    def points():
        for Z in (0.5 * fits, fits, fits, fits):
            seen.append(Z)
            yield point(Z, watch.problem.b)

    assert watch.follow(points())
    assert len(seen) == 2
    assert not watch_of(tol=1e-8).follow([point(fits, watch.problem.b)])


def test_a_polished_point_is_preferred_unless_it_opens_the_gap(rng):
    watch = watch_of()
    problem = watch.problem
    Z = fitting(problem, 0.1, rng)
    watch.judge(point(Z, problem.b))
    old = watch.point
    watch.prefer(point(10 * fitting(problem, 5.0, rng), problem.b))
    assert watch.point.L is old.L
    watch.prefer(point(fitting(problem, 500.0, rng), problem.b))
    assert watch.point.L is old.L
    slightly_larger = point(Z + 1e-6 * (fitting(problem, 0.1, rng) - Z), problem.b)
    watch.prefer(slightly_larger)
    assert watch.point.L is slightly_larger.L
    assert watch.value == pytest.approx(slightly_larger.s.sum())


def test_a_pair_is_forgotten_and_the_bound_is_not(rng):
    watch = watch_of()
    watch.judge(point(fitting(watch.problem, 0.1, rng), watch.problem.b))
    lower = watch.lower
    watch.forget_pair()
    assert (watch.point, watch.value, watch.lower, watch.feasible) == (None, np.inf, lower, False)


def test_records_are_in_the_users_units(rng):
    seen = []
    watch = watch_of(callback=seen.append)
    assert watch.log.history == {}
    for size in (5.0, 1.0, 3.0):
        watch.judge(point(fitting(watch.problem, size, rng), watch.problem.b))
    history = watch.log.history
    columns = ["iteration", "seconds", "value", "lower_bound", "gap", "feasibility", "rank"]
    assert list(history) == columns
    np.testing.assert_array_equal(history["iteration"], [0, 1, 2])
    assert (np.diff(history["seconds"]) >= 0).all()
    assert (np.diff(history["lower_bound"]) >= 0).all()
    np.testing.assert_allclose(history["value"].min(), watch.units * watch.value)
    np.testing.assert_allclose(history["lower_bound"][-1], watch.units * watch.lower)
    np.testing.assert_allclose(history["gap"], 1 - history["lower_bound"] / history["value"])
    np.testing.assert_array_equal(history["rank"], [5, 5, 5])
    for k, record in enumerate(seen):
        assert all(type(number) is float for number in record.values())
        assert {name: values[k] for name, values in history.items()} == record
    seen[0]["value"] = -1.0  # the callback's own copy
    assert watch.log.history["value"][0] > 0


def test_progress_goes_to_stderr_only(rng, capsys):
    watch = watch_of(progress=True)
    with watch.log:
        watch.judge(point(fitting(watch.problem, 1.0, rng), watch.problem.b))
    captured = capsys.readouterr()
    assert captured.out == ""
    watch = watch_of(progress=None)
    with watch.log:  # stderr is no terminal here
        watch.judge(point(fitting(watch.problem, 1.0, rng), watch.problem.b))
    assert capsys.readouterr() == ("", "")


def test_progress_ends_with_an_error(capsys):
    log = Log(progress=True)
    with pytest.raises(RuntimeError, match="stop"), log:
        raise RuntimeError("stop")
    assert not log._spinner._live.is_started
