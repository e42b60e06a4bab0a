"""Small problems that once ended in a false verdict, an exception or a warning."""

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.measurements import Dense, Entries, gaussian


def test_a_gradient_that_underflows_is_not_small():
    M, plain = np.random.default_rng(0).standard_normal((3, 4)), gaussian(14, (3, 4), 0)
    expected = bf.flattest_factorization(M, [4, 3, 3, 3], plain, rng=0).value
    for scale in (1e-120, 1e-90, 1e90):
        found = bf.flattest_factorization(M, [4, 3, 3, 3], Dense(plain.matrices * scale), rng=0)
        assert found.status is bf.Status.OPTIMAL
        assert found.value / scale / scale == pytest.approx(expected, rel=1e-9)
        assert found.certificate.stationarity > 0


def test_measurements_of_nothing_make_every_factorization_flattest():
    found = bf.flattest_factorization(np.ones((2, 2)), [2, 1, 2], Dense(np.zeros((1, 2, 2))))
    assert (found.status, found.value, found.certificate.gap) == (bf.Status.OPTIMAL, 0.0, 0.0)


def test_numbers_of_a_solution_that_vanishes_are_numbers():
    found = bf.norm_minimum(Dense([[[0.1]]]), [0.1], penalty=0.1 * 0.1)
    assert found.status is bf.Status.OPTIMAL
    assert np.isfinite([found.certificate.balance, found.certificate.stationarity]).all()


@pytest.mark.parametrize("size", [1.0, 1e-300])
def test_offsets_that_leave_nothing_to_the_matrix(size):
    A, b = Entries([0, 1, 2], [0, 1, 2], (3, 3)), size * np.array([1.0, 2.0, 3.0])
    found = bf.norm_minimum(A, b, penalty=1e-3 * size, offset_penalty=1e6)
    assert found.status in (bf.Status.OPTIMAL, bf.Status.GAP_OPEN)
    np.testing.assert_allclose(found.predict(A.rows, A.cols) / size, [1, 2, 3], rtol=0.01)


@pytest.mark.parametrize("tiny", [1e-14, 1e-8])
def test_a_small_datum_is_fitted_or_said_to_be_missed(tiny):
    A = Entries([0, 1], [0, 1], (2, 2), [1.0, tiny])
    found = bf.flat_minimum(A, [1.0, 4 * tiny])
    missed = abs(found.matrix[1, 1] - 4) > 1e-6
    assert found.status is (bf.Status.GAP_OPEN if missed else bf.Status.OPTIMAL)
    assert ("not reached" in found.message) == missed
    assert (found.certificate.worst_datum > 1e-7) == missed


def test_overflow_is_never_optimal():
    A = gaussian(9, (4, 3), 1)
    found = bf.flat_minimum(A, 1e200 * A(np.ones((4, 3))), penalty=1e200)
    assert found.status is not bf.Status.OPTIMAL
