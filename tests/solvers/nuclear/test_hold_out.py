import numpy as np
import pytest

import balancedfact as bf
from balancedfact.measurements import Dense, Entries, RankOne, bernoulli_mask, bilinear, gaussian
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers import select_penalty
from balancedfact.solvers.nuclear import _hold_out
from balancedfact.solvers.nuclear._hold_out import _Walk, largest_penalty


def noisy(noise, *, seed=0, shape=(18, 15), rank=1, p=0.6):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
    A = bernoulli_mask(shape, p, rng)
    return A, A(truth) + noise * rng.standard_normal(A.m), truth


MAPS = {
    "dense": gaussian(20, (5, 6), rng=0),
    "rank-one": bilinear(20, (5, 6), rng=0),
    "entries": bernoulli_mask((5, 6), 0.6, rng=0),
    "unobserved": Entries([0, 0, 2], [1, 3, 1], (4, 5), [1.0, -2.0, 0.5]),
    "tiny": Dense(1e-80 * gaussian(9, (3, 4), rng=1).matrices),
    "huge": RankOne(1e80 * np.ones((2, 3)), np.array([[1.0, 2.0], [3.0, 4.0]])),
}


@pytest.mark.parametrize("name", MAPS)
def test_largest_penalty_is_the_norm_of_the_whitened_adjoint(name):
    A = MAPS[name]
    b = np.random.default_rng(2).standard_normal(A.m)
    expected = np.linalg.norm(np.linalg.pinv(A.D1, rcond=1e-10) @ A.adjoint(b) @ np.linalg.pinv(A.D2, rcond=1e-10), 2)
    np.testing.assert_allclose(largest_penalty(A, b, np.random.default_rng(0)), expected, rtol=1e-9)


def test_largest_penalty_of_a_large_map():
    A = bernoulli_mask((900, 800), 0.01, rng=0)
    b = np.random.default_rng(1).standard_normal(A.m)
    white = A.whitened()
    expected = np.linalg.norm(white.map.adjoint(b), 2)
    np.testing.assert_allclose(largest_penalty(A, b, np.random.default_rng(0)), expected, rtol=1e-9)
    assert largest_penalty(A, 0 * b, np.random.default_rng(0)) == 0.0


@pytest.mark.parametrize("shape", [(3, 60_000), (60_000, 3)])
def test_largest_penalty_of_a_long_map(shape):
    A = bernoulli_mask(shape, 0.5, rng=0)
    b = np.random.default_rng(1).standard_normal(A.m)
    expected = np.linalg.norm(A.whitened().map.adjoint(b), 2)
    np.testing.assert_allclose(largest_penalty(A, b, np.random.default_rng(0)), expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["dense", "rank-one", "entries"])
def test_the_solution_vanishes_exactly_from_the_largest_penalty_on(name):
    A = MAPS[name]
    b = np.random.default_rng(2).standard_normal(A.m)
    largest = largest_penalty(A, b, np.random.default_rng(0))
    above = bf.flat_minimum(A, b, penalty=1.001 * largest, rng=0).matrix
    below = bf.flat_minimum(A, b, penalty=0.95 * largest, rng=0).matrix
    assert np.linalg.norm(above) <= 1e-6 * np.linalg.norm(b)
    assert np.linalg.norm(below) > 1e-3 * np.linalg.norm(b)


def test_the_same_strength_is_proportional_to_the_number_of_measurements():
    A, b, _ = noisy(0.3)
    twice = Entries(np.tile(A.rows, 2), np.tile(A.cols, 2), A.matrix_shape)
    once = bf.flat_minimum(A, b, penalty=2.0, rng=0)
    again = bf.flat_minimum(twice, np.tile(b, 2), penalty=4.0, rng=0)
    np.testing.assert_allclose(again.matrix, once.matrix, atol=1e-5)


@pytest.fixture(scope="module")
def walked():
    """A problem with noise, a path on it and what its callback saw."""
    problem, records = noisy(0.5), []
    path = select_penalty(*problem[:2], fraction=0.25, count=8, tol=1e-6, rng=3, callback=records.append)
    return problem, path, records


@pytest.mark.slow
def test_the_choice_is_nearly_as_good_as_knowing_the_truth(walked):
    (A, b, truth), path, _ = walked
    end = path.penalties[0] * 1e-4
    errors = {
        penalty: np.linalg.norm(bf.flat_minimum(A, b, penalty=penalty, tol=1e-5, rng=0).matrix - truth)
        for penalty in [*path.penalties, end]
    }
    assert errors[path.penalty] <= 1.3 * min(errors.values())
    assert errors[path.penalty] < 0.8 * errors[end]


def test_errors_are_those_of_the_measurements_held_out(walked):
    (A, b, _), path, _ = walked
    order = np.random.default_rng(3).permutation(A.m)
    held = round(0.25 * A.m)
    test, train = np.sort(order[:held]), np.sort(order[held:])
    np.testing.assert_allclose(path.errors[0], np.sqrt(np.mean(b[test] ** 2)))
    for k in (1, 2):
        share = path.penalties[k] * train.size / A.m
        X = bf.flat_minimum(A.select(train), b[train], penalty=share, rng=0).matrix
        np.testing.assert_allclose(path.errors[k], np.sqrt(np.mean((A.select(test)(X) - b[test]) ** 2)), rtol=1e-3)


def test_callback_sees_the_path(walked):
    _, path, records = walked
    assert [record["iteration"] for record in records] == list(range(path.errors.size))
    found = sorted(((record["penalty"], record["error"]) for record in records), reverse=True)
    np.testing.assert_array_equal(found, np.column_stack([path.penalties, path.errors]))


def test_same_seed_same_choice(walked):
    (A, b, _), path, _ = walked
    again = select_penalty(A, b, fraction=0.25, count=8, tol=1e-6, rng=3)
    np.testing.assert_array_equal(again.errors, path.errors)
    assert again.penalty == path.penalty


def test_path_falls_geometrically_from_the_largest_penalty():
    A, b, _ = noisy(0.0)
    path = select_penalty(A, b, count=5, rng=0)
    np.testing.assert_allclose(path.penalties / path.penalties[0], 10.0 ** -np.arange(path.penalties.size))
    assert path.penalties.size > 5  # the error still falls at the end of the grid
    assert path.errors[-1] <= 1e-4 * path.errors[0]
    assert "free of noise" in path.message
    assert path.penalty == path.penalties[path.errors.argmin()]
    assert path.penalty <= 1e-2 * path.penalties[0]  # nothing is gained by a fit that is worse than the data are


def walked_through(errors, ranks, *, count=12, edges=None, one_standard_error=False):
    """What a path chooses that meets these errors, and how many of them it wanted to see."""
    walk = _Walk(1.0, count)
    for k, (error, rank) in enumerate(zip(errors, ranks, strict=True)):
        if walk.ended:
            break
        walk.record([np.array([0.9, 1.1]) * error**2], rank, 0.0 if edges is None else edges[k])
    return walk.chosen(one_standard_error), walk


def test_the_path_ends_once_the_error_has_clearly_risen():
    path, walk = walked_through([5, 3, 2, 2.1, 2.2, 2.3, 2.4], [0, 1, 2, 3, 4, 5, 6])
    assert walk.ended
    np.testing.assert_array_equal(path.errors, [5, 3, 2, 2.1, 2.2, 2.3])
    assert path.penalty == path.penalties[2]


@pytest.mark.parametrize(
    ("errors", "ranks"),
    [
        ([2, 2, 2, 2, 2, 2, 1.9, 1.5, 1.2], [0, 0, 0, 0, 0, 0, 1, 2, 3]),  # flat at rank zero
        ([2, 2.05, 2.1, 2.15, 2.2, 2.1, 1.9, 1.5, 1.2], [0, 1, 1, 2, 3, 4, 5, 6, 7]),  # the first cost more than they bring
        ([2, 1.9, 1.95, 1.97, 1.96, 1.95, 1.94, 1.5, 1.2], [0, 1, 2, 3, 4, 5, 6, 7, 8]),  # a hump on the way down
    ],
)
def test_the_path_goes_on_where_the_error_may_still_fall(errors, ranks):
    path, walk = walked_through(errors, ranks)
    assert not walk.ended
    assert path.errors.size == len(errors)
    assert path.penalty == path.penalties[-1]
    assert "last one tried" in path.message


def test_the_path_goes_on_beyond_the_grid_while_the_error_falls():
    errors = [*2.0 ** -np.arange(8), 2.0**-7 * 0.995, 1.0]
    path, walk = walked_through(errors, range(len(errors)), count=4)
    assert walk.ended
    assert path.errors.size == 9
    np.testing.assert_allclose(path.penalties, (1e-4) ** (np.arange(9) / 3))
    _, endless = walked_through(0.9 ** np.arange(100.0), range(100), count=4)
    assert endless.ended
    assert len(endless.errors) == 12


def test_below_the_noise_edge_the_steps_are_smaller_and_the_first_rise_ends_the_path():
    path, walk = walked_through([5, 4, 3, 2.9, 2.95, 1], [0, 1, 2, 3, 4, 5], count=5, edges=[0.0, 0.05, 0.05, 0.05, 0.05, 0.05])
    assert walk.ended
    np.testing.assert_allclose(path.penalties, [1, 0.1, 0.05, 0.05 * 0.1**0.25, 0.05 * 0.1**0.5])


@pytest.mark.parametrize("best", [0.9, 0.03, 0.004])
def test_the_best_is_looked_for_between_penalties_too(best):
    walk, tried = _Walk(1.0, 5), 0
    while not walk.ended or walk.refined():
        error = 1.0 + np.log(walk.penalty / best) ** 2
        walk.record([np.full(4, error**2)], 3 if walk.errors else 0, 0.0)
        tried += 1
    path = walk.chosen(False)
    assert tried == path.penalties.size == len(set(path.penalties))
    assert list(path.penalties) == sorted(path.penalties, reverse=True)
    assert abs(np.log(path.penalty / best)) <= np.log(10) / 8 + 1e-9  # half of a quarter of a step of the grid


def test_one_standard_error():
    # Of two squares 10 % on either side of their mean the standard error is 10 %, that of the root 5 %.
    errors, ranks = [5, 3, 2.09, 2.0, 2.3, 2.4, 2.5], range(7)
    best, _ = walked_through(errors, ranks)
    simple, _ = walked_through(errors, ranks, one_standard_error=True)
    np.testing.assert_allclose(best.standard_errors, 0.05 * best.errors)
    assert best.penalty == best.penalties[3]
    assert simple.penalty == simple.penalties[2]
    assert "one standard error" in simple.message


def test_zero_may_be_the_best():
    path, walk = walked_through([2, 2.3, 2.5, 2.7, 3.0], range(5))
    assert walk.ended
    assert path.penalty == path.penalties[0]
    assert "no matrix but zero" in path.message


@pytest.mark.slow
def test_folds_hold_out_every_measurement_once():
    A, b, _ = noisy(0.5, shape=(9, 8))
    path = select_penalty(A, b, folds=3, count=3, rng=0)
    np.testing.assert_allclose(path.errors[0], np.sqrt(np.mean(b**2)))
    order = np.random.default_rng(0).permutation(A.m)
    means = [np.mean(b[part] ** 2) for part in np.array_split(order, 3)]
    deviation = np.std(means, ddof=1) / np.sqrt(3) / (2 * path.errors[0])
    np.testing.assert_allclose(path.standard_errors[0], deviation)


@pytest.mark.parametrize("name", ["dense", "rank-one"])
def test_other_measurements(name):
    A = MAPS[name]
    path = select_penalty(A, A(np.ones(A.matrix_shape)), count=4, rng=0)
    assert path.errors.size <= 12
    assert path.errors.min() < path.errors[0]


def test_interrupted_solve_ends_the_choice(monkeypatch):
    A, b, _ = noisy(0.5)
    stopped = Solution([np.ones((1, 24)), np.ones((30, 1))], 1.0, Status.INTERRUPTED, "", Certificate(1.0))
    monkeypatch.setattr(_hold_out, "flat_minimum", lambda *_, **__: stopped)
    with pytest.raises(KeyboardInterrupt):
        select_penalty(A, b, rng=0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"fraction": 0.0}, "fraction is 0.0"),
        ({"fraction": 1.0}, "fraction is 1.0"),
        ({"count": 1}, "count is 1"),
        ({"folds": 0}, "folds is 0"),
        ({"folds": 10_000}, "folds is 10000; expected at most"),
        ({"one_standard_error": 1}, "one_standard_error is 1"),
        ({"tol": 0.0}, "tol is 0.0"),
        ({"rng": -1}, "rng is -1"),
    ],
)
def test_bad_options(options, match):
    A, b, _ = noisy(0.5)
    with pytest.raises(ValueError, match=match):
        select_penalty(A, b, **options)


def test_bad_data():
    A, b, _ = noisy(0.5)
    with pytest.raises(ValueError, match="b has shape"):
        select_penalty(A, b[1:])
    with pytest.raises(ValueError, match="b is zero"):
        select_penalty(A, 0 * b, rng=0)
    with pytest.raises(ValueError, match="A has 1 measurement"):
        select_penalty(Entries([0], [0], (1, 1)), [1.0])


@pytest.mark.slow
def test_the_path_of_a_large_matrix_ends_at_the_noise_edge(monkeypatch, rng):
    monkeypatch.setattr(_hold_out, "MODERATE", 100)
    A = bernoulli_mask((150, 120), 0.3, rng)
    truth = rng.standard_normal((150, 2)) @ rng.standard_normal((2, 120))
    noise = 0.3 * rng.standard_normal(A.m)
    records = []
    path = select_penalty(A, A(truth) + noise, rng=rng, callback=records.append)
    edge = largest_penalty(A, noise, rng)
    assert 0.2 * edge < path.penalties[-1] < 1.4 * edge
    rise = int(np.argmax(np.diff([record["error"] for record in records]) > 0))
    later = [record["penalty"] for record in records[rise + 2 :]]
    assert min(later, default=np.inf) > path.penalties[-1]  # the first rise ends it; what follows lies between others
    assert path.errors[-1] > path.errors.min()
    assert path.errors.min() < 0.4


@pytest.mark.slow
def test_offsets_are_part_of_the_prediction(rng):
    A = bernoulli_mask((40, 30), 0.4, rng)
    X = 5 + 2 * rng.standard_normal(40)[:, None] + rng.standard_normal(30)
    b = A(X) + 0.1 * rng.standard_normal(A.m)
    path = select_penalty(A, b, offset_penalty=0.1, rng=0)
    assert path.errors[0] < 0.3  # there is no matrix yet
    assert select_penalty(A, b, rng=0).errors[0] > 3
    with pytest.raises(ValueError, match=r"^offset_penalty is 0"):
        select_penalty(A, b, offset_penalty=0.0)


@pytest.mark.slow
def test_limits_choose_among_what_was_tried():
    rng = np.random.default_rng(5)
    A = bf.measurements.bernoulli_mask((40, 30), 0.5, rng)
    b = A(rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))) + 0.3 * rng.standard_normal(A.m)
    whole = select_penalty(A, b, rng=0)
    three = select_penalty(A, b, rng=0, limits=bf.Limits(iterations=3))
    np.testing.assert_array_equal(three.errors, whole.errors[np.isin(whole.penalties, three.penalties)])
    assert three.penalties.size == 3
    assert three.message.endswith("a smaller one may do better, more time tries more.")
    none = select_penalty(A, b, rng=0, offset_penalty=1.0, limits=bf.Limits(seconds=1e-6))
    assert none.penalties.size == 1
    with pytest.raises(ValueError, match="limits is 3"):
        select_penalty(A, b, limits=3)


def test_path_as_a_data_frame():
    pytest.importorskip("pandas")
    A = bf.measurements.bernoulli_mask((12, 10), 0.7, rng=0)
    path = select_penalty(A, A(np.ones((12, 10))) + np.random.default_rng(0).standard_normal(A.m), count=3, rng=0)
    frame = path.to_pandas()
    np.testing.assert_array_equal(frame.index, path.penalties)
    np.testing.assert_array_equal(frame["error"], path.errors)
