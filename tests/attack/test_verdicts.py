"""No false proof: every verdict on random problems, held against 60-digit arithmetic from the definitions."""

from collections import Counter

import mpmath as mp
import numpy as np
import pytest

import balancedfact as bf

from .exact import Exact, consistent, matrix
from .judge import deserves, judge, shrink
from .problems import draw

pytestmark = pytest.mark.attack


def test_verdicts(size, seed):
    count = max(1, int(400 * size))
    found, verdicts, deserved, lost = {}, Counter(), 0, 0
    tally = Counter()
    for index in range(count):
        case = draw(seed, index)
        wrong, name = judge(case)
        verdicts[name] += 1
        if deserves(case):
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


@pytest.mark.parametrize(("seed", "index"), [(131, 590), (131, 2543)])
def test_what_went_wrong_once(seed, index):
    """A division of zero by zero; a search that took 30 s for a matrix of 4 x 3."""
    assert judge(draw(seed, index), by_both=True)[0] is None


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
