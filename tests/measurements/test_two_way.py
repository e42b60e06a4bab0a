"""Entries with free effects projected out, against least squares on the definition."""

import numpy as np
import pytest

from balancedfact.measurements import Entries, TwoWayEntries, check_measurements


def instance(seed, shape=(5, 4), share=0.7):
    rng = np.random.default_rng(seed)
    rows, cols = np.nonzero(rng.random(shape) < share)
    return Entries(rows, cols, shape), rng


def dummies(entries):
    """The matrix that gives an entry the effects of its row and its column."""
    d1, d2 = entries.matrix_shape
    return np.hstack([np.eye(d1)[entries.rows], np.eye(d2)[entries.cols]])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])  # in several parts, ragged, full
def test_it_is_the_residual_of_least_squares(seed, share):
    entries, rng = instance(seed, share=share)
    X, T = rng.standard_normal(entries.matrix_shape), dummies(entries)
    y = entries(X)
    residual = y - T @ np.linalg.lstsq(T, y, rcond=None)[0]
    A = TwoWayEntries(entries, factor=-2.5)
    np.testing.assert_allclose(A(X), -2.5 * residual, atol=1e-13)
    alpha, beta = A.effects(y)
    np.testing.assert_allclose(np.concatenate([alpha, beta]), np.linalg.lstsq(T, y, rcond=None)[0], atol=1e-12)


@pytest.mark.parametrize(("shape", "share"), [((5, 4), 0.7), ((3, 6), 1.0), ((4, 4), 0.3), ((1, 5), 1.0)])
def test_it_conforms(shape, share):
    entries, _ = instance(1, shape, share)
    report = check_measurements(TwoWayEntries(entries, factor=3.0), rng=0)
    assert report.ok, str(report)


def test_gram_solver_inverts():
    entries, rng = instance(2)
    A = TwoWayEntries(entries, factor=2.0)
    rhs = rng.standard_normal(A.m)
    found = A.gram_solver(0.3)(rhs)
    np.testing.assert_allclose(A.gram @ found + 0.3 * found, rhs, atol=1e-12)


def test_what_it_cannot_be_is_refused():
    with pytest.raises(ValueError, match="entries holds an entry twice"):
        TwoWayEntries(Entries([0, 0], [1, 1], (2, 2)))
    with pytest.raises(ValueError, match="entries is list"):
        TwoWayEntries([1, 2])
