import numpy as np
import pytest

import balancedfact as bf
from balancedfact.certification.deep._multiplier import best_multipliers, multiplier_bound
from balancedfact.measurements import gaussian

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("depth", [3, 4, 6, 10])
def test_no_random_vector_is_better(depth, rng):
    A = gaussian(7, (4, 3), rng)
    b = A(rng.standard_normal((4, 3)))
    best = best_multipliers(A, b, np.zeros(7), depth)
    value = multiplier_bound(A, b, best, depth)
    others = [rng.standard_normal(7) for _ in range(300)]
    others += [best + 0.01 * np.linalg.norm(best) * rng.standard_normal(7) for _ in range(300)]
    assert value >= max(multiplier_bound(A, b, y, depth) for y in others) * (1 - 1e-4)


def test_three_layers_are_solved_exactly(rng):
    A = gaussian(8, (4, 5), rng)
    b = rng.standard_normal(8)
    best = best_multipliers(A, b, np.zeros(8), 3)
    G = A.whitened().map.gram
    # stationary: (b'y)^4 / (|y|^2 y'Gy)
    gradient = 4 * b / (b @ best) - 2 * best / (best @ best) - 2 * G @ best / (best @ G @ best)
    assert np.linalg.norm(gradient) < 1e-6 * np.linalg.norm(4 * b / (b @ best))


def test_the_start_is_never_lost(rng):
    A = gaussian(5, (3, 3), rng)
    b = rng.standard_normal(5)
    start = bf.flat_minimum(A, b, 5, rng=0).certificate.dual
    assert multiplier_bound(A, b, best_multipliers(A, b, start, 5), 5) >= multiplier_bound(A, b, start, 5)


@pytest.mark.slow
def test_one_singular_measurement_is_optimal(rng):
    A1 = rng.standard_normal((4, 2)) @ rng.standard_normal((2, 4))
    for depth in (3, 4, 7):
        solution = bf.flat_network(bf.measurements.Dense(A1[None]), [2.0], depth, rng=0)
        s = np.linalg.svd(A1, compute_uv=False)[:2]
        expected = 2 * depth * 2.0 ** (2 - 2 / depth) * np.sum(s ** (-2 / (depth - 2))) ** (2 / depth - 1)
        assert solution.status is bf.Status.OPTIMAL
        assert solution.value == pytest.approx(expected, rel=1e-6)
