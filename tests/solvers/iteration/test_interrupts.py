"""Ctrl-C at any moment after the arguments are checked, in the set-up and in the last steps too, returns what there is."""

import contextvars
import sys
from pathlib import Path

import numpy as np
import pytest

import balancedfact as bf
from balancedfact import dynamics
from balancedfact.solvers.iteration import _log
from balancedfact.solvers.iteration._log import Log

PACKAGE = str(Path(bf.__file__).parent)
A = bf.measurements.gaussian(12, (4, 3), rng=0)
M = np.random.default_rng(0).standard_normal((4, 3))
B = A(M)
LAYERS = dynamics.gaussian_layers([3, 3, 4], 0.5, rng=1)

SOLVES = {
    "flat": lambda: bf.flat_minimum(A, B, rng=0),
    "splitting": lambda: bf.flat_minimum(A, B, rng=0, method="splitting"),
    "factored": lambda: bf.flat_minimum(A, B, rng=0, method="factored"),
    "rounded data": lambda: bf.norm_minimum(A, np.round(B, 3), rng=0),
    "network": lambda: bf.flat_network(A, B, 3, rng=0, bound="quick"),
    "norm network": lambda: bf.norm_minimum(A, B, depth=3, rng=0),
    "weight decay": lambda: bf.norm_minimum(A, B, depth=3, penalty=0.1, rng=0),
    "induced": lambda: bf.induced_regularizer(M, A, 4),
    "sharpness": lambda: bf.minimal_sharpness(M, A, 3),
    "sharpness of networks": lambda: bf.flattest_sharpness(A, B, 2, tol=0.1, rng=0),
    "factorization": lambda: bf.flattest_factorization(M, [3, 3, 4], A, rng=0),
    "balanced": lambda: bf.balanced_approximation(M, 2, method="riemannian", rng=0),
    "closed form": lambda: bf.balanced_approximation(M, 2, rng=0),
    "descent": lambda: dynamics.gradient_descent(LAYERS, A, B, step=0.01, iterations=50, record=10),
    "sgd": lambda: dynamics.sgd(LAYERS, A, B, step=0.01, iterations=50, record=10, batch=5, rng=0),
    "perceptron": lambda: dynamics.perceptron_descent(
        [np.eye(3), np.ones((1, 3))], M, B[:4], step=0.01, iterations=20, record=2
    ),
    "flow": lambda: dynamics.gradient_flow(LAYERS, A, B, t_final=1.0),
    "edge": lambda: dynamics.edge_flow(LAYERS, A, B, step=0.1, t_final=0.3),
    "central": lambda: dynamics.central_flow(LAYERS, A, B, step=0.1, t_final=0.3),
    "label noise": lambda: dynamics.label_noise_flow(LAYERS, A, B, step=0.01, t_final=0.1, label_noise=0.1),
    "balanced flow": lambda: dynamics.balanced_flow(M, A, B, depth=3, t_final=0.1),
}
# What takes no time: the log itself, and putting together what is returned.
GLUE = {"_log.py", "_trajectory.py", "_certificate.py", "_observables.py", "_limits.py", "_validate.py", "_finished.py"}


def run(solve, at=np.inf):
    """Run with an interrupt at a call of the package, counted from the moment at which the log is first used."""
    calls, begun = 0, False

    def count(frame, event, argument):
        nonlocal calls, begun
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(PACKAGE) or frame.f_back is None:  # compiled functions have no caller
            return
        if path.endswith("_log.py") and frame.f_code.co_name in ("insist", "__enter__"):
            begun = True
        caller = frame.f_back.f_code.co_filename
        if begun and not {Path(path).name, Path(caller).name} & GLUE:
            calls += 1
            if calls == at:
                raise KeyboardInterrupt

    def watched():
        sys.setprofile(count)
        try:
            return solve()
        finally:
            sys.setprofile(None)

    return contextvars.copy_context().run(watched), calls


@pytest.mark.few(1)
@pytest.mark.parametrize("name", SOLVES)
def test_an_interrupt_at_any_call(name):
    solve = SOLVES[name]
    solve()  # compiles, and fills what the map keeps
    whole, calls = run(solve)
    assert whole.status is not bf.Status.INTERRUPTED
    for share in (0.0, 0.01, 0.1, 0.4, 0.8):
        found, _ = run(solve, at=1 + int(share * calls))
        assert found.status is bf.Status.INTERRUPTED
        assert not found.status.ok
        assert "Interrupted" in found.message
        assert len(found.layers) == len(whole.layers)


def test_before_there_is_a_point_nothing_is_claimed(monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("balancedfact.solvers.fibre._induced_regularizer.Fibre", interrupted)
    monkeypatch.setattr("balancedfact.solvers.riemannian._spectral_orbit.SpectralOrbit.__init__", interrupted)
    monkeypatch.setattr("balancedfact.solvers.fibre._minimal_sharpness._Seen", interrupted)
    for solve, shapes in (
        (lambda: bf.induced_regularizer(M, A, 3, widths=[3, 5, 4, 4]), [(5, 3), (4, 5), (4, 4)]),
        (lambda: bf.flattest_factorization(M, [3, 5, 4], A), [(5, 3), (4, 5)]),
        (lambda: bf.minimal_sharpness(M, A, 3), [(1, 3), (1, 1), (4, 1)]),
    ):
        solution = solve()
        assert solution.status is bf.Status.INTERRUPTED
        assert [layer.shape for layer in solution.layers] == shapes
        assert (solution.value, solution.certificate.feasibility) == (np.inf, 1.0)
        assert np.isnan(solution.certificate.gap)
        assert str(solution)


def test_a_norm_minimal_network_that_is_stopped_has_as_many_layers_as_asked_for():
    for iterations in (1, 3):
        solution = bf.norm_minimum(A, B, depth=4, rng=0, limits=bf.Limits(iterations=iterations))
        assert solution.status is bf.Status.LIMIT
        assert len(solution.layers) == 4
        np.testing.assert_allclose(solution.value, sum(np.sum(layer**2) for layer in solution.layers))
    contradictory = bf.measurements.Dense(np.stack([np.eye(3), np.eye(3)]))
    assert len(bf.norm_minimum(contradictory, [1.0, 2.0], depth=4).layers) == 4


def test_where_nobody_would_see_the_status_an_interrupt_is_passed_on(monkeypatch):
    """A gradient, a unit of an experiment, an instance of a claim and an estimator have no status to return."""
    from balancedfact.estimators import FlatImputer
    from balancedfact.experiments import _runner
    from balancedfact.theorems import Claim, equal

    def solved(*arguments):
        bf.induced_regularizer(M, A, 3)
        return []

    def instance(rng):
        solved()
        return equal(0.0, 0.0)

    filled = np.where(np.random.default_rng(0).random((6, 5)) < 0.7, 1.0, np.nan)
    calls = [
        lambda: bf.induced_regularizer_gradient(M, A, 3),
        lambda: _runner._work(solved, {}, {}, np.random.default_rng(0)),
        lambda: Claim("Mine", "C", "S", "exact", "", instance).check(0),
        lambda: FlatImputer(penalty=0.1).fit(filled),
        lambda: bf.complete(filled, 0.1),
    ]
    for call in calls:
        call()
        with pytest.raises(KeyboardInterrupt):
            run(call, at=3)
    assert bf.complete(filled, 0.1, return_solution=True)[1].status is bf.Status.OPTIMAL


def test_an_interrupt_while_a_search_is_entered_does_not_change_the_next_ones():
    """At every line, however early: nothing is held as running that is not."""
    log = Log(limits=bf.Limits(seconds=1e6))
    passed, before = 0, sys.gettrace()  # that of coverage, which would see nothing more

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename != _log.__file__ or frame.f_code.co_name not in ("__enter__", "insist", "_inside"):
            return None
        left -= event == "line"
        if left < 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    for use in (log.__enter__, lambda: log.insist(int)):
        for lines in range(20):
            left = lines
            sys.settrace(trace)
            try:
                use()
            except KeyboardInterrupt:
                passed += 1
                assert (_log._WITHIN.get(), _log._DEADLINE.get(), log._entered) == (False, np.inf, [])
            finally:
                sys.settrace(before)
                _log._WITHIN.set(False)
                _log._DEADLINE.set(np.inf)
                log._entered.clear()
    assert passed > 8
