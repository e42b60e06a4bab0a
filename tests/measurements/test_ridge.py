import numpy as np
import pytest

from balancedfact.measurements import Entries, _sampled, gaussian

pytestmark = pytest.mark.filterwarnings("error")


def naive(rows, size, cols, weights, b, theirs, shift, scales):
    """Every row's normal equations, entry by entry, with the penalty of each unknown as it is defined."""
    k = theirs.shape[1]
    out = np.zeros((size, k))
    for i in range(size):
        penalties = np.full(k, shift)
        penalties[-1] = shift / scales[i] ** 2
        H, g = np.diag(penalties), np.zeros(k)
        for e in np.flatnonzero(rows == i):
            H += weights[e] ** 2 * np.outer(theirs[cols[e]], theirs[cols[e]])
            g += weights[e] * b[e] * theirs[cols[e]]
        out[i] = np.linalg.solve(H, g)
    return out


@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("presorted", [True, False])
@pytest.mark.parametrize("spread", [1.0, 1e4])
@pytest.mark.parametrize("seed", range(2))
def test_half_steps_solve_the_normal_equations_of_every_row(k, presorted, spread, seed):
    rng = np.random.default_rng(seed)
    shape, m = (12, 7), 60  # rows with none, few and many entries, some measured twice
    rows, cols = np.minimum(rng.geometric(0.25, m), 12) - 1, rng.integers(0, 7, m)
    if presorted:
        order = np.lexsort([cols, rows])
        rows, cols = rows[order], cols[order]
    weights = spread ** rng.uniform(-1, 0, m) * rng.choice([-1.0, 1.0], m)
    weights[0] = 0.0
    b, shift = rng.standard_normal(m), 0.3
    left, right = Entries(rows, cols, shape, weights).half_steps(shift)
    L, R = (rng.standard_normal((d, k)) for d in shape)
    for scales in (None, rng.uniform(0.1, 3, 12)):
        expected = naive(rows, 12, cols, weights, b, R, shift, np.ones(12) if scales is None else scales)
        np.testing.assert_allclose(left(b, R, scales), expected, rtol=1e-9, atol=1e-10)
    for scales in (None, rng.uniform(0.1, 3, 7)):
        expected = naive(cols, 7, rows, weights, b, L, shift, np.ones(7) if scales is None else scales)
        np.testing.assert_allclose(right(b, L, scales), expected, rtol=1e-9, atol=1e-10)


def test_the_number_of_threads_does_not_change_a_digit(rng, monkeypatch):
    A = Entries(rng.integers(0, 300, 40_000), rng.integers(0, 200, 40_000), (300, 200))
    b, R = rng.standard_normal(A.m), rng.standard_normal((200, 12))
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(_sampled, "cores", lambda threads=threads: threads)
        found.append(A.half_steps(0.1)[0](b, R))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_without_columns_nothing_is_solved_and_other_maps_have_no_half_steps(rng):
    A = Entries([0, 1], [1, 0], (2, 3))
    assert A.half_steps(1.0)[0](np.ones(2), np.zeros((3, 0))).shape == (2, 0)
    assert gaussian(4, (3, 2), rng).half_steps(1.0) is None
