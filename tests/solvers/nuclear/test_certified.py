"""What `flat_minimum` and `norm_minimum` share: the choice of algorithms, rank limits, starts, callbacks and interrupts."""

import numpy as np
import pytest
from scipy.optimize import minimize

import balancedfact as bf
from balancedfact.curvature import scaled_trace
from balancedfact.measurements import Dense, Entries, bernoulli_mask, bilinear, gaussian
from balancedfact.solution import Status
from balancedfact.solvers._methods import as_method
from balancedfact.solvers.nuclear import _certified, _interior_point, _splitting
from balancedfact.solvers.nuclear._frame import Frame
from balancedfact.solvers.nuclear._problem import NuclearProblem
from balancedfact.solvers.nuclear._selection import suitable
from tests.solvers.conic import ENSEMBLES, dual_bound, example, reference

pytestmark = pytest.mark.filterwarnings("error")

SOLVERS = pytest.mark.parametrize("solve", [bf.flat_minimum, bf.norm_minimum])
PENALTIES = pytest.mark.parametrize("penalty", [0.0, 0.3])
METHODS = pytest.mark.parametrize("method", ["interior-point", "splitting", "factored"])


def only(monkeypatch, method):
    monkeypatch.setattr(_certified, "suitable", lambda problem: [as_method(method)])


# The choice of algorithms


class Size(Dense):
    """A map of a given size without the memory that it would take."""

    def __init__(self, m, shape):
        self.m, self.matrix_shape = m, shape


class EntriesSize(Entries):
    def __init__(self, m, shape):
        self.m, self.matrix_shape = m, shape


def test_algorithms_are_chosen_by_size_and_structure():
    def chosen(A, q=0.0):
        return [each.name for each in suitable(NuclearProblem(A, np.zeros(0), q))]

    assert chosen(Size(500, (30, 30)))[0] == "interior-point"
    assert "splitting" in chosen(Size(500, (30, 30)))
    assert chosen(EntriesSize(900, (60, 50)))[0] == "interior-point"
    assert chosen(EntriesSize(2000, (60, 50))) == ["factored", "dual Newton", "interior-point", "splitting"]
    assert chosen(EntriesSize(2000, (60, 50)), 1.0)[0] == "interior-point"
    assert "interior-point" not in chosen(EntriesSize(3000, (60, 50)))
    assert "splitting" in chosen(EntriesSize(30_000, (200, 200)))
    assert chosen(EntriesSize(200_000, (20_000, 20_000))) == ["factored"]
    assert chosen(Size(8000, (30, 30))) == ["factored"]


@pytest.mark.few(5)
@METHODS
@PENALTIES
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_every_algorithm_alone_gives_the_same_optimum(name, flat, penalty, method, monkeypatch):
    only(monkeypatch, method)
    A, _, b = example(name)
    solve = bf.flat_minimum if flat else bf.norm_minimum
    solution = solve(A, b, penalty=penalty, tol=1e-6, rng=0)
    assert solution.method == method
    assert solution.status is Status.OPTIMAL
    assert solution.certificate.gap <= 1e-6
    np.testing.assert_allclose(solution.value, reference(name, flat, penalty)[0], rtol=1e-6)


def test_the_next_algorithm_takes_over_where_one_stops_short(monkeypatch):
    A, _, b = example("gaussian")
    monkeypatch.setattr(_interior_point, "interior_point", lambda problem, **options: iter(()))
    solution = bf.flat_minimum(A, b, rng=0)
    assert (solution.status, solution.method) == (Status.OPTIMAL, "splitting")

    def singular(problem, **options):
        raise np.linalg.LinAlgError("Matrix is not positive definite")
        yield

    monkeypatch.setattr(_interior_point, "interior_point", singular)
    monkeypatch.setattr(_splitting, "splitting", singular)
    solution = bf.flat_minimum(A, b, tol=1e-6, rng=0)
    assert (solution.status, solution.method) == (Status.OPTIMAL, "factored")


def test_the_verdict_is_the_gap_against_the_tolerance(monkeypatch):
    monkeypatch.setattr(_certified, "_polish", lambda watch: None)
    A, _, b = example("bilinear")
    verdicts = []
    for steps in range(1, 14):
        solution = bf.flat_minimum(A, b, tol=1e-6, rng=0, method=bf.solvers.InteriorPoint(max_iterations=steps))
        assert solution.status is (Status.OPTIMAL if solution.certificate.gap <= 1e-6 else Status.GAP_OPEN)
        assert solution.certificate.feasibility <= 1e-9
        verdicts.append(solution.status.ok)
    assert verdicts == sorted(verdicts)
    assert set(verdicts) == {False, True}


@METHODS
@PENALTIES
def test_solutions_have_no_more_columns_than_their_rank(method, penalty, monkeypatch, rng):
    only(monkeypatch, method)
    truth = rng.standard_normal((12, 2)) @ rng.standard_normal((2, 10))
    A = gaussian(90, (12, 10), rng)
    solution = bf.flat_minimum(A, A(truth), penalty=penalty, rng=0)
    values = np.linalg.svd(solution.matrix, compute_uv=False)
    assert solution.pair[0].shape[1] == np.count_nonzero(values > 1e-6 * values[0])


# Rank limits


@SOLVERS
@PENALTIES
def test_a_limit_that_the_solution_meets_changes_nothing(solve, penalty):
    A, _, b = example("gaussian")
    free = solve(A, b, penalty=penalty, rng=0)
    rank = free.pair[0].shape[1]
    for limit in (rank, rank + 1, 100):
        limited = solve(A, b, penalty=penalty, max_rank=limit, rng=0)
        assert limited.status is Status.OPTIMAL
        np.testing.assert_array_equal(limited.matrix, free.matrix)


@pytest.mark.few(1)
@SOLVERS
@PENALTIES
def test_a_limit_below_the_rank_of_the_solution(solve, penalty):
    A, matrices, b = example("gaussian")
    free = solve(A, b, penalty=penalty, rng=0)
    assert free.pair[0].shape[1] == 3
    limited = solve(A, b, penalty=penalty, max_rank=2, rng=0)
    assert limited.status is Status.RANK_LIMITED
    assert not limited.status.ok
    assert [layer.shape for layer in limited.layers] == [(2, 6), (5, 2)]
    assert "rank 2 or less" in limited.message
    assert limited.value > free.value * (1 + 1e-6)
    # The bound is that of the convex problem, and a good one.
    np.testing.assert_allclose(limited.certificate.lower_bound, free.value, rtol=1e-7)
    np.testing.assert_allclose(limited.certificate.gap, 1 - limited.certificate.lower_bound / limited.value)
    bound, norm = dual_bound(matrices, b, limited.certificate.dual, flat=solve is bf.flat_minimum, penalty=penalty)
    assert norm <= 1 + 1e-10
    np.testing.assert_allclose(bound, limited.certificate.lower_bound)
    if penalty == 0:
        assert limited.certificate.feasibility <= 1e-12
    else:
        assert limited.certificate.stationarity <= 10  # of the convex problem, which the pair does not solve


@pytest.mark.slow
def test_within_the_limit_the_best_of_many_random_starts_is_found():
    # Data of nearly rank 2, so that the problem within the limit is a benign one.
    rng = np.random.default_rng(1)
    A = gaussian(16, (5, 6), rng)
    b = A(rng.standard_normal((5, 2)) @ rng.standard_normal((2, 6)) + 0.1 * rng.standard_normal((5, 6)))
    rows, S1, S2 = np.reshape(A.matrices, (16, -1)), A.D1 @ A.D1, A.D2 @ A.D2

    def objective(x, penalty):
        L, R = x[:10].reshape(5, 2), x[10:].reshape(6, 2)
        error = rows @ (L @ R.T).ravel() - b
        back = (rows.T @ error).reshape(5, 6)
        value = 0.5 * error @ error + penalty / 2 * (np.vdot(L, S1 @ L) + np.vdot(R, S2 @ R))
        return value, np.concatenate([(back @ R + penalty * S1 @ L).ravel(), (back.T @ L + penalty * S2 @ R).ravel()])

    def best(penalties):
        ends = []
        for _ in range(15):
            x = rng.standard_normal(22)
            for penalty in penalties:
                x = minimize(objective, x, (penalty,), jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "maxiter": 2000}).x
            ends.append(x)
        return min(ends, key=lambda x: objective(x, penalties[-1])[0])

    x = best([0.3])
    solution = bf.flat_minimum(A, b, penalty=0.3, max_rank=2, rng=0)
    assert solution.status is Status.RANK_LIMITED
    np.testing.assert_allclose(solution.value, objective(x, 0.3)[0], rtol=1e-6)
    x = best([1e-1, 1e-3, 1e-5])
    solution = bf.flat_minimum(A, b, max_rank=2, rng=0)
    assert solution.status is Status.RANK_LIMITED
    np.testing.assert_allclose(solution.value, scaled_trace(x[:10].reshape(5, 2), x[10:].reshape(6, 2), A), rtol=1e-3)


@SOLVERS
def test_a_limit_that_excludes_every_fit(solve):
    A, _, b = example("gaussian")
    solution = solve(A, b, max_rank=1, rng=0)
    assert solution.status is Status.RANK_EXCLUDED
    assert [layer.shape for layer in solution.layers] == [(1, 6), (5, 1)]
    assert solution.certificate.feasibility > 1e-3
    residual = np.linalg.norm(A(solution.matrix) - b) / np.linalg.norm(b)
    np.testing.assert_allclose(solution.certificate.feasibility, residual)
    assert np.isnan(solution.certificate.gap)
    assert "No matrix of rank 1 or less" in solution.message
    # The bound on what any rank could do still holds.
    np.testing.assert_allclose(solution.certificate.lower_bound, solve(A, b, rng=0).value, rtol=1e-7)


@METHODS
def test_data_of_low_rank_are_found_within_their_rank(method, monkeypatch, rng):
    only(monkeypatch, method)
    truth = rng.standard_normal((9, 2)) @ rng.standard_normal((2, 8))
    A = bernoulli_mask((9, 8), 0.6, rng)
    solution = bf.flat_minimum(A, A(truth), max_rank=2, rng=0)
    assert solution.status in (Status.OPTIMAL, Status.RANK_LIMITED)
    assert solution.pair[0].shape[1] == 2
    assert solution.certificate.feasibility <= 1e-12
    assert solution.value <= scaled_trace(*bf.closed_forms.flat_pair(truth, A), A) * (1 + 1e-3)


@pytest.mark.parametrize("limit", [1, 2])
def test_thin_matrices_have_no_rank_to_limit(limit, rng):
    A = gaussian(3, (1, 6), rng)
    assert bf.flat_minimum(A, rng.standard_normal(3), max_rank=limit, rng=0).status is Status.OPTIMAL
    zero = bf.flat_minimum(A, np.zeros(3), max_rank=limit)
    assert (zero.status, zero.value) == (Status.OPTIMAL, 0.0)


# Starts


@pytest.mark.slow
@SOLVERS
@PENALTIES
@METHODS
def test_any_start_leads_to_the_solution(solve, penalty, method, monkeypatch, rng):
    only(monkeypatch, method)
    A, _, b = example("bernoulli_mask")
    expected = reference("bernoulli_mask", solve is bf.flat_minimum, penalty)[0]
    starts = {
        "zero": (np.zeros((6, 2)), np.zeros((5, 2))),
        "deficient": (np.ones((6, 3)), np.ones((5, 3))),
        "random": (rng.standard_normal((6, 2)), rng.standard_normal((5, 2))),
        "wide": (rng.standard_normal((6, 9)), rng.standard_normal((5, 9))),
        "huge": (1e200 * rng.standard_normal((6, 2)), 1e200 * rng.standard_normal((5, 2))),
        "tiny": (1e-200 * rng.standard_normal((6, 2)), 1e-150 * rng.standard_normal((5, 2))),
        "lists": ([[1], [2], [3], [4], [5], [6]], [[1], [2], [3], [4], [5]]),
    }
    for name, start in starts.items():
        solution = solve(A, b, penalty=penalty, tol=1e-6, rng=0, initial=start)
        assert solution.status is Status.OPTIMAL, name
        np.testing.assert_allclose(solution.value, expected, rtol=2e-6, err_msg=name)


@SOLVERS
def test_a_start_at_the_solution_saves_work(solve, monkeypatch):
    A, _, b = example("bernoulli_mask")
    for method in ("splitting", "factored"):
        only(monkeypatch, method)
        cold = solve(A, b, penalty=0.3, rng=0)
        warm = solve(A, b, penalty=0.3, rng=0, initial=cold.pair)
        assert warm.history["gap"].size < cold.history["gap"].size
        np.testing.assert_allclose(warm.value, cold.value, rtol=2e-8)
        assert warm.history["gap"][0] < cold.history["gap"][0]


def test_a_start_in_unseen_directions_is_no_start(rng):
    A = Entries([0, 1, 1], [0, 0, 1], (4, 3))
    for columns in (1, 3):
        L, R = np.zeros((4, columns)), np.zeros((3, columns))
        L[2:], R[2:] = 1.0, 1.0
        assert bf.flat_minimum(A, [1.0, 2.0, 3.0], initial=(L, R)).status is Status.OPTIMAL


# Callbacks and interrupts


COLUMNS = ["iteration", "seconds", "value", "lower_bound", "gap", "feasibility", "rank"]


@SOLVERS
@PENALTIES
@METHODS
def test_the_callback_sees_every_record(solve, penalty, method, monkeypatch):
    only(monkeypatch, method)
    A, _, b = example("bilinear")
    records = []
    solution = solve(A, b, penalty=penalty, rng=0, callback=records.append)
    assert [list(record) for record in records] == [COLUMNS] * len(records)
    assert [record["iteration"] for record in records] == list(range(len(records)))
    assert list(solution.history) == COLUMNS
    for name in COLUMNS:
        np.testing.assert_array_equal(solution.history[name], [record[name] for record in records])
    assert (np.diff(solution.history["seconds"]) >= 0).all()
    assert (np.diff(solution.history["lower_bound"]) >= 0).all()
    # In the user's units: the best of them are the numbers of the solution.
    np.testing.assert_allclose(solution.history["lower_bound"][-1], solution.certificate.lower_bound, rtol=1e-10)
    np.testing.assert_allclose(solution.history["value"][-1], solution.value, rtol=1e-10)
    np.testing.assert_allclose(solution.history["feasibility"][-1], solution.certificate.feasibility, rtol=0.2, atol=1e-9)


@SOLVERS
@PENALTIES
@METHODS
@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interrupt_returns_the_best_point_so_far(solve, penalty, method, after, monkeypatch):
    only(monkeypatch, method)
    A, matrices, b = example("bernoulli_mask")
    records = []

    def callback(record):
        records.append(record)
        if len(records) > after:
            raise KeyboardInterrupt

    solution = solve(A, b, penalty=penalty, tol=1e-12, rng=0, callback=callback)
    flat = solve is bf.flat_minimum
    optimum = reference("bernoulli_mask", flat, penalty)[0]
    assert solution.status is Status.INTERRUPTED
    assert not solution.status.ok
    assert solution.message.startswith("Interrupted")
    assert len(solution.history["gap"]) == after + 1
    if penalty == 0:
        fitting = [record["value"] for record in records if record["feasibility"] <= 1e-10]
        if method != "factored" or fitting:  # the factored path fits the data once its rank suffices
            assert solution.certificate.feasibility <= 1e-10
            np.testing.assert_allclose(solution.value, min(fitting))
    else:
        np.testing.assert_allclose(solution.value, min(record["value"] for record in records))
    if penalty > 0 or solution.certificate.feasibility <= 1e-10:
        assert solution.value >= optimum * (1 - 1e-9)
    assert solution.certificate.lower_bound <= optimum * (1 + 1e-9)
    bound, norm = dual_bound(matrices, b, solution.certificate.dual, flat=flat, penalty=penalty)
    assert norm <= 1 + 1e-10
    np.testing.assert_allclose(bound, solution.certificate.lower_bound, atol=1e-12)


@METHODS
def test_an_interrupt_keeps_to_the_rank_limit(method, monkeypatch):
    only(monkeypatch, method)
    A, _, b = example("bernoulli_mask")

    def callback(record):
        raise KeyboardInterrupt

    for penalty in (0.0, 0.3):
        solution = bf.flat_minimum(A, b, penalty=penalty, max_rank=2, rng=0, callback=callback)
        assert solution.status is Status.INTERRUPTED
        assert solution.pair[0].shape[1] <= 2
        residual = np.linalg.norm(A(solution.matrix) - b) / np.linalg.norm(b)
        np.testing.assert_allclose(solution.certificate.feasibility, residual)
        if penalty == 0 and residual > 1e-9:
            assert np.isnan(solution.certificate.gap)


def test_an_interrupt_before_any_point(monkeypatch):
    def interrupted(problem, **options):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(_interior_point, "interior_point", interrupted)
    A, _, b = example("gaussian")
    solution = bf.flat_minimum(A, b)
    assert solution.status is Status.INTERRUPTED
    np.testing.assert_array_equal(solution.matrix, np.zeros((5, 6)))
    assert (solution.certificate.feasibility, solution.certificate.lower_bound, solution.history) == (1.0, 0.0, {})
    assert np.isnan(solution.certificate.gap)


def test_other_errors_of_the_callback_are_the_users():
    def callback(record):
        raise RuntimeError("mine")

    A, _, b = example("gaussian")
    with pytest.raises(RuntimeError, match="mine"):
        bf.flat_minimum(A, b, callback=callback)


@SOLVERS
def test_progress_does_not_touch_stdout(solve, capsys):
    A, _, b = example("gaussian")
    quiet = solve(A, b, rng=0, progress=False)
    assert capsys.readouterr() == ("", "")
    shown = solve(A, b, rng=0, progress=True)
    assert capsys.readouterr().out == ""
    np.testing.assert_array_equal(shown.matrix, quiet.matrix)


def test_progress_is_shown_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    A, _, b = example("gaussian")
    bf.flat_minimum(A, b, rng=0, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "solving" in captured.err or "gap" in captured.err


def test_solutions_survive_a_file(tmp_path):
    A, _, b = example("bilinear")
    for options in ({}, {"penalty": 0.3}, {"max_rank": 1}):
        solution = bf.flat_minimum(A, b, rng=0, **options)
        solution.save(tmp_path / "solution.npz")
        again = bf.Solution.load(tmp_path / "solution.npz")
        np.testing.assert_array_equal(again.matrix, solution.matrix)
        assert (again.status, again.value) == (solution.status, solution.value)
        assert again.message == f"(not checked: read from a file without its data) {solution.message}"


def test_frames_of_both_problems_are_those_of_the_units(rng):
    # A wrong factor between scaled trace and nuclear norm would change every lower bound.
    A = bilinear(12, (4, 5), rng)
    b = rng.standard_normal(12)
    assert Frame(A, b, 0.0, flat=True).weight == 4 * 12
    assert Frame(A, b, 0.0, flat=False).weight == 2


@pytest.mark.few(1)
@SOLVERS
@pytest.mark.parametrize("penalty", [1e-100, 1e-300, 5e-324])
def test_penalties_of_next_to_nothing_raise_nothing(solve, penalty, rng):
    A = gaussian(8, (3, 3), rng)
    solution = solve(A, A(np.outer([1.0, 2.0, 3.0], [1.0, 1.0, 2.0])), penalty=penalty)
    assert solution.status in (Status.OPTIMAL, Status.GAP_OPEN)
    assert np.linalg.norm(A(solution.matrix) - A(np.outer([1.0, 2.0, 3.0], [1.0, 1.0, 2.0]))) < 1e-6
