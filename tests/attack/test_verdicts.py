"""No false proof: every verdict on random problems, held against 60-digit arithmetic from the definitions."""

import signal
import warnings
from collections import Counter

import mpmath as mp
import numpy as np
import pytest

import balancedfact as bf

from .exact import Exact, consistent, matrix
from .problems import draw

pytestmark = pytest.mark.attack

_TOL = 1e-8
_FITS = 1e-6  # the miss of a datum that no OPTIMAL may exceed, relative as in `Exact.missed`
_SECONDS = 20  # of processor time: other work on the machine does not count


class TooSlow(BaseException):
    pass


def _alarm(*_):
    raise TooSlow


def solve(case):
    """The solution, or in words how the solver failed."""
    function = bf.flat_minimum if case.flat else bf.norm_minimum
    before = signal.signal(signal.SIGPROF, _alarm)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return function(case.map(), case.b, penalty=case.penalty, tol=_TOL, rng=0, progress=False)
    except TooSlow:
        return f"takes more than {_SECONDS} s of processor time"
    except Exception as error:
        return f"raises {type(error).__name__}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def judge(case):
    """What is wrong with the answer to a problem, or ``None``; and its verdict."""
    solution = solve(case)
    if isinstance(solution, str):
        return solution, "none"
    name = solution.status.name
    numbers = [solution.value, *(np.abs(layer).max(initial=0) for layer in solution.layers)]
    if name == "OPTIMAL":
        if not np.isfinite([*numbers, solution.certificate.lower_bound, solution.certificate.gap]).all():
            return "OPTIMAL that is not finite", name
        exact = Exact(case.stack(), case.b, flat=case.flat, penalty=case.penalty)
        left, right = (matrix(each) for each in solution.pair)
        X = left * right.T
        value = exact.value(X)
        if not case.penalty and exact.missed(X) > _FITS:
            return "OPTIMAL that misses a datum", name
        if abs(value - mp.mpf(solution.value)) > 1e-7 * max(value, mp.mpf(solution.value)):
            return "OPTIMAL of another value", name
        # Least rounding of the reported numbers themselves is granted, nothing else.
        proved = exact.bound(solution.certificate.dual) if value > 0 else mp.mpf(0)
        if value - proved > 1.01 * _TOL * value:
            return "OPTIMAL whose dual vector does not prove it", name
        if mp.mpf(solution.certificate.lower_bound) - proved > 1e-11 * abs(proved) and solution.certificate.lower_bound > 0:
            return "OPTIMAL whose lower bound is more than its dual vector proves", name
    if name == "INFEASIBLE":
        claimed = solution.certificate.excluded_norm
        if case.built_consistent or (np.isinf(claimed) and consistent(case.stack(), case.b)):
            return "INFEASIBLE on consistent data", name
        if not claimed > 0 or Exact(case.stack(), case.b).excluded(solution.certificate.dual) < claimed:
            return "INFEASIBLE that excludes less than it says", name
    return None, name


def shrink(case, wrong):
    """Fewer measurements with shorter numbers that go wrong in the same way."""
    k = 0
    while case.b.size > 1 and k < case.b.size:
        smaller = case.only(np.delete(np.arange(case.b.size), k))
        if judge(smaller)[0] == wrong:
            case = smaller
        else:
            k += 1
    return case


def test_verdicts(size, seed):
    count = max(1, int(400 * size))
    found, verdicts, deserved, lost = {}, Counter(), 0, 0
    tally = Counter()
    for index in range(count):
        case = draw(seed, index)
        wrong, name = judge(case)
        verdicts[name] += 1
        if case.built_consistent and case.spread >= 1e-6 and case.kind != "vandermonde":
            deserved += 1
            lost += name != "OPTIMAL"
        if wrong is not None:
            tally[wrong] += 1
            found.setdefault(wrong, index)
    print(
        f"{count} solves from seed {seed}: {dict(verdicts)}; {lost} of {deserved} deserved OPTIMAL lost; wrong: {dict(tally)}"
    )
    reports = [
        f"{wrong} ({tally[wrong]} of {count}), first draw({seed}, {index}):\n{shrink(draw(seed, index), wrong).script()}"
        for wrong, index in list(found.items())[:3]
    ]
    assert not found, "\n\n".join([f"{dict(tally)}", *reports])
    assert lost <= 0.02 * deserved + 3 * np.sqrt(0.02 * deserved)


@pytest.mark.parametrize("scale", [1e-120, 1e-90, 1e-30, 1e30, 1e90])
def test_stationary_at_every_scale(scale, size, seed):
    """The problem scaled is the same problem: its trace is the square of the scale times that at scale one."""
    for index in range(max(1, int(2 * size))):
        rng = np.random.default_rng([seed, index])
        stack, M = rng.standard_normal((14, 3, 4)), rng.standard_normal((3, 4))
        plain = bf.flattest_factorization(M, [4, 3, 3, 3], bf.measurements.Dense(stack), rng=0)
        scaled = bf.flattest_factorization(M, [4, 3, 3, 3], bf.measurements.Dense(stack * scale), rng=0)
        if scaled.status.ok:
            assert scaled.value / scale / scale == pytest.approx(plain.value, rel=1e-5)


def test_the_checker_itself():
    """Problems whose answers are known in closed form, and one wrong answer to each."""
    exact = Exact(np.eye(2)[:, :, None] * np.eye(2)[:, None, :], [3.0, 4.0], flat=False)
    X = matrix(np.diag([3.0, 4.0]))
    for found, known in ((exact.value(X), 14), (exact.bound([1.0, 1.0]), 14), (exact.bound([1.0, 0.5]), 10)):
        assert abs(found - known) < mp.mpf(10) ** -50
    assert exact.missed(matrix(np.diag([3.0, 4.0 + 2**-20]))) == mp.mpf(2) ** -22
    one = Exact([[[2.0, 0.0], [0.0, 0.0]]], [6.0])  # D1 = diag(2/sqrt2, 0) = D2: 4 * |2 * 3|
    assert abs(one.value(matrix([[3.0, 5.0], [7.0, 1.0]])) - 24) < mp.mpf(10) ** -50
    assert abs(one.bound([0.25]) - 24) < mp.mpf(10) ** -50
    assert abs(Exact([[[1.0]]], [3.0], flat=False, penalty=1.0).bound([7.0]) - mp.mpf(5) / 2) < mp.mpf(10) ** -50
    twice = Exact([[[1.0, 0.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, 0.5]]], [1.0, 3.0])  # A*((-2, 1)) = diag(0, 0.5), b.y = 1
    assert abs(twice.excluded([-2.0, 1.0]) - 2) < mp.mpf(10) ** -50
    assert twice.excluded([2.0, -1.0]) == 0
    assert consistent([[[1.0]], [[2.0]]], [1.0, 2.0])
    assert not consistent([[[1.0]], [[2.0]]], [1.0, 2.0 + 2**-50])
