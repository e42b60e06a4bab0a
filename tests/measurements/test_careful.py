"""Sums with bounds on their rounding, against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancedfact.measurements import Entries, TwoWayEntries
from balancedfact.measurements._careful import careful_combination, careful_gram, careful_total, is_positive_definite
from tests import maps

UNIT = 2.0**-53


def exact(array):
    return np.vectorize(Fraction, otypes=[object])(array)


def floats(array):
    return np.vectorize(float, otypes=[float])(array)


def holds(found, truth, bound):
    """True if no entry errs by more than its bound, in exact arithmetic."""
    return bool(np.all(np.abs(exact(found) - truth) <= exact(np.broadcast_to(bound, np.shape(found)))))


@st.composite
def spread_cases(draw):
    """Draw a map with exact matrices, its factors and a dual vector, over a range of sizes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    d1, d2, m, k = (draw(st.integers(1, 4)) for _ in range(4))
    kind = draw(st.sampled_from(sorted(maps.BUILT_IN)))
    A, _ = maps.BUILT_IN[kind](rng, d1, d2, m, draw(st.sampled_from(maps.EDGES)))
    if kind == "rank_one":
        matrices = np.stack([np.outer(exact(u), exact(v)) for u, v in zip(A.left, A.right, strict=True)])
    else:
        matrices = exact(A.stack())

    def numbers(*shape):
        return rng.standard_normal(shape) * 10.0 ** rng.uniform(-6, 6, shape)

    return A, matrices, numbers(d1, k), numbers(d2, k), numbers(m), rng


@given(spread_cases())
@settings(max_examples=60, deadline=None)
def test_forward_and_adjoint_err_by_no_more_than_they_say(case):
    A, matrices, L, R, y, _ = case
    truth = np.array([np.sum(M * (exact(L) @ exact(R).T)) for M in matrices])
    found, bound = A.careful_forward(L, R)
    assert holds(found, truth, bound)
    sizes = np.array([np.sum(np.abs(M) * (np.abs(exact(L)) @ np.abs(exact(R)).T)) for M in matrices])
    # For entries the bound is with norms of rows, which are above the sum of the products.
    norms = np.linalg.norm(L, axis=1), np.linalg.norm(R, axis=1)
    reach = [np.sum(np.abs(floats(M)) * np.outer(*norms)) for M in matrices]
    assert np.all(bound <= 100 * UNIT * np.maximum(floats(sizes), reach))

    found, bound = A.careful_adjoint(y)
    assert holds(found, np.sum(matrices * exact(y)[:, None, None], axis=0), bound)
    assert np.all(bound <= 100 * UNIT * floats(np.sum(np.abs(matrices) * np.abs(exact(y))[:, None, None], axis=0)))


@given(spread_cases())
@settings(max_examples=40, deadline=None)
def test_gram_matrices_err_by_no_more_than_they_say(case):
    A, matrices, L, R, _, _ = case
    for side, T in enumerate((L, R)):
        moment = sum(M @ M.T if side == 0 else M.T @ M for M in matrices)
        truth = exact(T).T @ moment @ exact(T)
        found, bound = A.careful_gram(T, side)
        assert np.sum((exact(found) - truth) ** 2) <= Fraction(bound) ** 2
        reach = float(np.sqrt(float(np.trace(moment)))) * np.linalg.norm(T)
        assert bound <= 1000 * UNIT * reach**2


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=1500))
def test_a_total_errs_by_no_more_than_it_says(numbers):
    terms = np.array(numbers) * 1.1
    found, bound = careful_total(terms)
    assert abs(Fraction(found) - sum(map(Fraction, terms.tolist()))) <= Fraction(bound)
    assert bound <= 3000 * UNIT * np.abs(terms).sum()


def test_long_sums_are_bounded_too(rng):
    N, T, y = rng.standard_normal((1300, 3)), rng.standard_normal((3, 2)), rng.standard_normal(1300)
    G, error = careful_gram(N, 0.0, T)
    truth = exact(N @ np.eye(3)) @ exact(T)
    assert np.sum((exact(G) - truth.T @ truth) ** 2) <= Fraction(error) ** 2
    assert error <= 1e-12 * np.linalg.norm(G)
    S, spill = careful_combination(y, N.reshape(1300, 3, 1).transpose(1, 0, 2))
    assert holds(S[:, 0], exact(y) @ exact(N), spill[:, 0])


def projected(entries, y):
    """The residual of the effects in exact arithmetic, by elimination on the normal equations of one effect less per part."""
    rows, cols = entries.rows, entries.cols
    T = exact(np.hstack([np.eye(entries.matrix_shape[0])[rows], np.eye(entries.matrix_shape[1])[cols]]))
    basis = []  # orthogonal columns, by Gram and Schmidt without roots
    for column in T.T:
        left = column - sum((np.sum(column * q) / np.sum(q * q) * q for q in basis), np.zeros(len(y), dtype=object))
        if np.any(left != 0):
            basis.append(left)
    return y - sum((np.sum(y * q) / np.sum(q * q) * q for q in basis), np.zeros(len(y), dtype=object))


@pytest.mark.few(21)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.35, 0.7, 1.0])
@pytest.mark.parametrize("size", [1e-90, 1.0, 1e90])
def test_projections_err_by_no_more_than_they_say(seed, share, size):
    rng = np.random.default_rng(seed)
    rows, cols = np.nonzero(rng.random((5, 4)) < share)
    entries, L, R = Entries(rows, cols, (5, 4)), size * rng.standard_normal((5, 2)), rng.standard_normal((4, 2))
    A, factor = TwoWayEntries(entries, factor=-2.3), Fraction(-2.3)
    found, bound = A.careful_forward(L, R)
    values = (exact(L) @ exact(R).T)[rows, cols]
    assert holds(found, factor * projected(entries, values), bound)
    assert np.linalg.norm(bound) <= 2000 * UNIT * np.linalg.norm(floats(values))

    y = size * rng.standard_normal(A.m)
    found, bound = A.careful_adjoint(y)
    truth = exact(np.zeros((5, 4)))
    truth[rows, cols] = factor * projected(entries, exact(y))
    assert holds(found, truth, bound)
    assert np.linalg.norm(bound) <= 2000 * UNIT * np.linalg.norm(y)


@pytest.mark.parametrize("seed", range(4))
def test_projections_do_not_trust_the_pseudo_inverse(seed):
    """With an inverse that is off by a millionth, what the two passes leave in is most of the error."""
    rng = np.random.default_rng(seed)
    rows, cols = np.nonzero(rng.random((5, 4)) < 0.8)
    A, y = TwoWayEntries(Entries(rows, cols, (5, 4))), rng.standard_normal(rows.size)
    A.__dict__["_inverse"] = A._inverse * (1 + 1e-4 * rng.standard_normal((9, 9)))
    found, bound = A.careful_adjoint(y)
    truth = exact(np.zeros((5, 4)))
    truth[rows, cols] = projected(A.entries, exact(y))
    assert np.abs(floats(exact(found) - truth)).max() > 1e-11
    assert holds(found, truth, bound)
    assert np.linalg.norm(bound) <= 1e-5


def test_projections_do_not_form_the_measurements(monkeypatch, rng):
    A = TwoWayEntries(Entries(*np.nonzero(np.ones((60, 50))), (60, 50)))
    monkeypatch.setattr(TwoWayEntries, "stack", None)
    A.careful_adjoint(rng.standard_normal(A.m))
    A.careful_forward(rng.standard_normal((60, 2)), rng.standard_normal((50, 2)))


@pytest.mark.parametrize("n", [1, 4, 30])
def test_definite_matrices_are_told_from_others(n, rng):
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = np.linspace(1, 2, n)
    matrix = (Q * values) @ Q.T
    matrix = (matrix + matrix.T) / 2
    assert is_positive_definite(matrix, 0.0)
    assert is_positive_definite(matrix, 0.9)
    assert not is_positive_definite(matrix, 1.1)
    assert not is_positive_definite(matrix - np.eye(n), 0.0)  # singular up to rounding: not proved
    assert not is_positive_definite(-matrix, 0.0)
