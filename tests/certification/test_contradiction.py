"""What a dual vector excludes, against the definition in exact arithmetic."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from balancedfact.certification._contradiction import excluded_norm
from balancedfact.measurements import Dense, Entries
from tests import maps


def exact_limit(matrices, b, y):
    """The square of ``b.y / |A*(y)|_F`` where ``b.y`` is positive, infinite where the sum vanishes, and zero elsewhere."""
    b, y = ([Fraction(x) for x in each.tolist()] for each in (b, y))
    along = sum(x * z for x, z in zip(b, y, strict=True))
    total = sum(M * z for M, z in zip(np.vectorize(Fraction, otypes=[object])(matrices), y, strict=True))
    reach = np.sum(total * total)
    if along <= 0:
        return Fraction(0)
    return float("inf") if reach == 0 else along**2 / reach


@given(maps.cases(maps.dense, maps.entries), st.integers(-8, 8), st.integers(-8, 8))
@settings(max_examples=80, deadline=None)
def test_no_more_is_excluded_than_the_definition_says(case, p, q):
    A, matrices, rng = case
    b, y = 10.0**p * rng.standard_normal(A.m), 10.0**q * rng.standard_normal(A.m)
    limit, found = exact_limit(np.array(matrices), b, y), excluded_norm(A, b, y)
    if limit == float("inf"):
        assert found > 0
        return
    assert found == 0 or Fraction(found) ** 2 <= limit
    if limit > 0 and abs(b @ y) > 1e-8 * np.abs(b) @ np.abs(y):
        assert found >= 0.999 * float(limit) ** 0.5


@given(maps.cases(maps.dense, maps.entries, maps.rank_one))
@settings(deadline=None)
def test_no_matrix_that_fits_is_excluded(case):
    A, _, rng = case
    X = rng.standard_normal(A.matrix_shape)
    b = A(X)
    if b.any():
        # The data are rounded, so that a matrix within rounding of X is what fits.
        assert excluded_norm(A, b, rng.standard_normal(A.m)) <= np.linalg.norm(X, "nuc") * (1 + 1e-8)


def test_two_data_for_one_entry_exclude_all_and_nearly_one_entry_exclude_many():
    twice = Entries([0, 0], [1, 1], (2, 2))
    assert excluded_norm(twice, np.array([1.0, 2.0]), np.array([-1.0, 1.0])) == np.inf
    assert excluded_norm(twice, np.array([1.0, 2.0]), np.array([1.0, -1.0])) == 0
    matrices = np.zeros((2, 2, 2))
    matrices[:, 0, 0], matrices[1, 1, 1] = 1.0, 2.0**-30
    found = excluded_norm(Dense(matrices), np.array([1.0, 2.0]), np.array([-1.0, 1.0]))
    assert 2.0**30 * (1 - 1e-11) <= found <= 2.0**30
