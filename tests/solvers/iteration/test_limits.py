"""Budgets, callbacks that stop and Ctrl-C: one way to end every search, with a true certificate."""

import time

import numpy as np
import pytest
from rich.status import Status as Spinner

import balancedfact as bf
from balancedfact.solution import Status
from balancedfact.solvers.iteration._limits import Stopped, check_time
from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.nuclear import _certified
from tests.solvers.conic import example, reference

A, _, B = example("gaussian")
M = np.random.default_rng(0).standard_normal((5, 6))


def solve_sphere(**options):
    import autograd.numpy as anp
    import pymanopt

    manifold = pymanopt.manifolds.Sphere(6)
    diagonal = np.arange(6.0)

    @pymanopt.function.autograd(manifold)
    def cost(x):
        return anp.sum(diagonal * x**2)

    return bf.riemannian_minimum(pymanopt.Problem(manifold, cost), rng=0, **options)


SOLVES = {
    "flat": lambda **o: bf.flat_minimum(A, B, rng=0, **o),
    "flat factored": lambda **o: bf.flat_minimum(A, B, rng=0, method="factored", **o),
    "flat splitting": lambda **o: bf.flat_minimum(A, B, rng=0, method="splitting", tol=1e-14, **o),
    "flat riemannian": lambda **o: bf.flat_minimum(A, B, rng=0, method="riemannian", tol=1e-14, **o),
    "penalised": lambda **o: bf.flat_minimum(A, B, penalty=0.3, rng=0, **o),
    "norm": lambda **o: bf.norm_minimum(A, B, rng=0, **o),
    "network": lambda **o: bf.flat_network(A, B, 3, rng=0, bound="quick", **o),
    "induced": lambda **o: bf.induced_regularizer(M, A, 4, **o),
    "factorization": lambda **o: bf.flattest_factorization(M, [6, 5, 5, 5], A, rng=0, **o),
    "sharpness": lambda **o: bf.minimal_sharpness(M, A, 3, **o),
    "sharpness of networks": lambda **o: bf.flattest_sharpness(A, B, 2, rng=0, **o),
    "norm network": lambda **o: bf.norm_minimum(A, B, depth=3, rng=0, **o),
    "weight decay": lambda **o: bf.norm_minimum(A, B, depth=3, penalty=0.5, **o),
    "balanced": lambda **o: bf.balanced_approximation(M, 3, method="riemannian", rng=0, **o),
    "sphere": solve_sphere,
}
EACH = pytest.mark.parametrize("name", SOLVES)


@EACH
def test_iterations_are_records(name):
    solution = SOLVES[name](limits=bf.Limits(iterations=1))
    assert solution.status is Status.LIMIT
    assert not solution.status.ok
    assert not solution.status.proved
    assert "limit on iterations" in solution.message
    assert solution.history["iteration"].tolist() == [0.0]


@pytest.mark.few(2)
@EACH
def test_a_callback_stops(name):
    def truthful(record):
        return record["iteration"] >= 1 or 1  # no other answer stops, so that a callback may return what it likes

    def raising(record):
        if record["iteration"] >= 1:
            raise StopIteration

    for callback in (truthful, raising):
        solution = SOLVES[name](callback=callback)
        assert solution.status is Status.LIMIT
        assert "callback" in solution.message
        assert solution.history["iteration"].size == 2


@EACH
def test_time_is_kept(name):
    solution = SOLVES[name](limits=bf.Limits(seconds=1e-9))
    assert solution.status is Status.LIMIT
    assert "seconds" in solution.message


@EACH
def test_a_callback_that_cannot_be_called_is_refused(name):
    with pytest.raises(ValueError, match=r"callback is 3; expected a function"):
        SOLVES[name](callback=3)
    with pytest.raises(ValueError, match=r"limits is 3; expected bf\.Limits"):
        SOLVES[name](limits=3)


def test_the_certificate_of_a_limit_is_true():
    optimum = reference("gaussian", True, 0.3)[0]
    for iterations in range(1, 8):
        solution = bf.flat_minimum(A, B, penalty=0.3, rng=0, limits=bf.Limits(iterations=iterations))
        assert solution.certificate.lower_bound <= optimum * (1 + 1e-9) <= solution.value * (1 + 2e-9)


def test_a_limit_that_comes_with_the_proof_is_no_limit():
    full = bf.flat_minimum(A, B, penalty=0.3, rng=0, method="splitting", tol=1e-4)
    count = full.history["gap"].size
    same = bf.flat_minimum(A, B, penalty=0.3, rng=0, method="splitting", tol=1e-4, limits=bf.Limits(iterations=count))
    assert full.status is same.status is Status.OPTIMAL


def test_an_interrupt_in_the_set_up_or_at_the_end(monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_certified, "Frame", interrupted)
        for penalty in (0.0, 0.5):
            solution = bf.flat_minimum(A, B, penalty=penalty)
            assert solution.status is Status.INTERRUPTED
            assert solution.value == pytest.approx(0.5 * (B @ B) if penalty else 0.0)
            assert solution.certificate.lower_bound == 0
    certified, calls = _certified.Frame.certified, []

    def once(*args):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return certified(*args)

    monkeypatch.setattr(_certified.Frame, "certified", once)
    solution = bf.flat_minimum(A, B)
    assert solution.status is Status.INTERRUPTED
    assert solution.certificate.gap <= 1e-8


@pytest.mark.parametrize("bad", [0, -1, np.nan, np.inf, "1", True])
def test_bad_limits_are_refused(bad):
    with pytest.raises(ValueError, match="seconds is"):
        bf.Limits(seconds=bad)
    with pytest.raises(ValueError, match="iterations is"):
        bf.Limits(iterations=bad)


def test_an_inner_search_leaves_the_end_to_the_outer_one():
    with Log(progress=False, limits=bf.Limits(seconds=1e-9)) as outer, Log(progress=False) as inner:
        check_time()
    assert outer.ended[0] is Status.LIMIT
    assert inner.ended[0] is Status.LIMIT
    check_time()  # no deadline is left behind
    passed_on = []
    with Log(progress=False) as outer:
        try:
            with Log(progress=False, limits=bf.Limits(iterations=1)) as inner:
                inner.write("", {})
        except Stopped as stop:
            passed_on.append(stop)
    assert len(passed_on) == 1
    assert outer.ended is None


@pytest.mark.slow
def test_a_long_solve_ends_soon_after_its_time():
    rng = np.random.default_rng(0)
    mask = bf.measurements.bernoulli_mask((400, 300), 0.2, rng)
    b = rng.standard_normal(mask.m)
    bf.flat_minimum(mask, b, penalty=0.5, limits=bf.Limits(iterations=1))  # compiles
    start = time.perf_counter()
    solution = bf.flat_minimum(mask, b, penalty=0.02, tol=1e-12, rng=0, limits=bf.Limits(seconds=0.3))
    assert solution.status is Status.LIMIT
    assert time.perf_counter() - start < 4
    assert 0 <= solution.certificate.lower_bound <= solution.value


@pytest.mark.parametrize(("seconds", "shown"), [(None, "0 s"), (500.0, "at most 500 s left")])
def test_progress_tells_time_left_only_where_it_is_known(seconds, shown, monkeypatch):
    lines = []
    monkeypatch.setattr(Spinner, "update", lambda self, text: lines.append(text))
    with Log(progress=True, limits=bf.Limits(seconds=seconds)) as log:
        log.write("gap 1e-3", {})
    assert lines == [f"iteration 1  gap 1e-3  {shown}"]
