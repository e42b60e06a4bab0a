"""What is wrong with an answer of the solvers, judged from the definitions."""

import signal
import warnings

import mpmath as mp
import numpy as np

import balancedfact as bf

from .exact import Exact, consistent, matrix
from .quick import confirmed

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


def judge(case, *, by_both=False):
    """What is wrong with the answer to a problem, or ``None``; and its verdict.

    In 60 digits, where a quick enclosure does not confirm the answer already; with `by_both` always.
    """
    solution = solve(case)
    if isinstance(solution, str):
        return solution, "none"
    name = solution.status.name
    numbers = [solution.value, *(np.abs(layer).max(initial=0) for layer in solution.layers)]
    if name == "OPTIMAL":
        if not np.isfinite([*numbers, solution.certificate.lower_bound, solution.certificate.gap]).all():
            return "OPTIMAL that is not finite", name
        said = solution.value, solution.certificate.dual, solution.certificate.lower_bound
        if not by_both and confirmed(case, *solution.pair, *said, tol=_TOL, fits=_FITS):
            return None, name
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


def deserves(case):
    """Whether the problem is consistent and so moderately scaled that its answer should be ``OPTIMAL``."""
    return case.built_consistent and case.spread >= 1e-6 and case.kind != "vandermonde"
