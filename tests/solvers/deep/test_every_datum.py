"""A datum that is small beside the others is missed where it is missed by much of itself."""

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.measurements import Dense, gaussian
from balancedfact.solution import Status

SEARCHES = {
    "least sharpness, two layers": lambda A, b: bf.flattest_sharpness(A, b, 2, rng=0),
    "least trace, three layers": lambda A, b: bf.flat_network(A, b, 3, rng=0, bound="quick"),
    "least trace, from random layers": lambda A, b: bf.flat_network(A, b, 3, rng=0, bound="quick", method="riemannian"),
    "least squares, three layers": lambda A, b: bf.norm_minimum(A, b, depth=3),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("spread", [1e3, 1e12])
def test_no_network_that_misses_a_datum_passes(search, spread, rng):
    sizes = np.geomspace(1, 1 / spread, 6)
    A = Dense(sizes[:, None, None] * gaussian(6, (3, 4), rng).matrices)
    truth = np.outer(rng.standard_normal(3), rng.standard_normal(4))
    b = A(truth)
    solution = SEARCHES[search](A, b)
    miss = np.abs(A(solution.matrix) - b)
    scale = np.maximum(np.abs(b), 1e-3 * A.row_norms * np.linalg.norm(solution.matrix))
    worst = solution.certificate.worst_datum
    assert worst >= 0.99 * np.max(miss / scale) - 1e-13
    if spread == 1e3:
        assert worst < 1e-9
    if worst > 1e-7:
        assert solution.status is Status.GAP_OPEN
        assert np.isnan(solution.certificate.gap)
        assert solution.message.startswith("The data were not reached: relative residual ")
