"""Certificates against exact arithmetic, forged files and contradictions."""

from dataclasses import replace

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.certification import _pair
from balancedfact.measurements import Dense, Entries, RankOne, _careful, gaussian


def vandermonde(columns):
    rng = np.random.default_rng(0)
    A = RankOne(rng.standard_normal((14, 3)), np.vander(np.linspace(0, 1, 14), columns))
    return A, A(rng.standard_normal((3, 1)) @ rng.standard_normal((1, columns)))


@pytest.mark.parametrize("columns", [5, 9, 11, 13])
@pytest.mark.parametrize("penalty", [0.0, 1e-3])
def test_no_bound_exceeds_the_exact_one_on_ill_conditioned_features(columns, penalty):
    A, b = vandermonde(columns)
    solution = bf.flat_minimum(A, b, penalty=penalty, rng=0)
    exact = solution.verify(A, b, rigorous=True)
    assert solution.certificate.lower_bound <= exact.lower_bound
    if solution.status is bf.Status.OPTIMAL:
        assert exact.gap <= 1e-8
    else:
        open_gap = solution.certificate.gap > 1e-8 and "may still be better" in solution.message
        assert open_gap or "rounding" in solution.message or "not reached" in solution.message


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_exact_and_rounded_certificates_agree_on_ordinary_data(flat, penalty, rng):
    A = gaussian(14, (4, 3), rng)
    b = A(rng.standard_normal((4, 3)))
    solution = (bf.flat_minimum if flat else bf.norm_minimum)(A, b, penalty=penalty, rng=0)
    for exact in (solution.verify(A, b, rigorous=True), bf.certify(A, b, solution.matrix, flat=flat, penalty=penalty)):
        assert exact.gap <= 1e-8
        np.testing.assert_allclose(exact.value, solution.value, rtol=1e-9)
        np.testing.assert_allclose(exact.lower_bound, solution.certificate.lower_bound, rtol=1e-8)


@pytest.mark.parametrize("flat", [True, False])
def test_exact_and_rounded_certificates_agree_with_offsets(flat, rng):
    rows, cols = np.nonzero(rng.random((7, 6)) < 0.7)
    A = bf.measurements.Entries(rows, cols, (7, 6))
    b = 3 + rng.standard_normal(7)[rows] + rng.standard_normal(6)[cols] + 0.1 * rng.standard_normal(A.m)
    solve = bf.flat_minimum if flat else bf.norm_minimum
    solution = solve(A, b, penalty=0.3, offset_penalty=0.7, tol=1e-9)
    exact = solution.verify(A, b, rigorous=True)
    assert exact.value == pytest.approx(solution.value, rel=1e-11)
    assert exact.lower_bound == pytest.approx(solution.certificate.lower_bound, rel=1e-9)
    assert solution.certificate.lower_bound <= exact.lower_bound * (1 + 1e-15)
    assert 0 <= exact.gap <= solution.certificate.gap * (1 + 1e-9)


@pytest.mark.parametrize("factor", [1.0, 1e-6])  # a datum, and one below the share of the matrix that is seen
def test_the_worst_datum_is_the_largest_relative_miss(factor, rng):
    A = bf.measurements.Dense(rng.standard_normal((6, 4, 3)))
    L, R = rng.standard_normal((4, 2)), rng.standard_normal((3, 2))
    X = L @ R.T
    b = A(X) + 1e-3 * rng.standard_normal(6)
    b[2] *= factor
    found = bf.certify(A, b, (L, R), np.zeros(6)).worst_datum
    misses = [
        abs(np.sum(M * X) - datum) / max(abs(datum), 1e-3 * np.linalg.norm(X) * np.linalg.norm(M))
        for M, datum in zip(A.stack(), b, strict=True)
    ]
    assert found == pytest.approx(max(misses), rel=1e-9)
    assert bf.certify(A, b, (L, R), np.zeros(6), rigorous=True).worst_datum == pytest.approx(max(misses), rel=1e-9)


@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_miss_that_is_not_a_number_is_the_worst_in_whatever_part_it_lies(monkeypatch, rng, place):
    monkeypatch.setattr(_careful, "NUMBERS_AT_ONCE", 3)
    A = gaussian(8, (3, 2), rng)
    L, R = rng.standard_normal((3, 1)), rng.standard_normal((2, 1))
    b = A(L @ R.T)
    misses = np.full(8, 0.5)
    misses[place] = 2.0
    sizes = np.maximum(np.abs(b), 1e-3 * np.linalg.norm(L @ R.T) * A.row_norms)
    np.testing.assert_allclose(_pair._worst_datum(A, b, (L, R), misses.copy()), np.max(misses / sizes), rtol=1e-12)
    misses[place] = np.nan
    assert np.isnan(_pair._worst_datum(A, b, (L, R), misses))


def test_tiny_directions_are_seen_in_every_kind_of_map():
    D = np.zeros((2, 2, 2))
    D[0, 0, 0], D[1, 1, 1] = 1, 1e-8
    for penalty, expected in ((0.01, 0.002496875025), (0.0, 2.00000002)):
        for A in (Dense(D), Entries([0, 1], [0, 1], (2, 2), [1, 1e-8])):
            solution = bf.flat_minimum(A, [1.0, 1.0], penalty=penalty)
            assert solution.status is bf.Status.OPTIMAL
            np.testing.assert_allclose(solution.value, expected, rtol=1e-9)


def test_infeasible_is_a_proof_or_it_is_not_claimed():
    A = Dense([[[1, 0], [0, 1]], [[1, 1e-7], [0, 1]]])
    assert bf.norm_minimum(A, A(np.ones((2, 2)))).status is bf.Status.OPTIMAL
    A = Entries([0, 1, 1], [0, 1, 1], (2, 2), [1.0, 0.1, 0.3])
    solution = bf.flat_minimum(A, [1e10, 1.0, 2.0])
    assert solution.status is bf.Status.INFEASIBLE
    assert solution.certificate.excluded_norm == np.inf
    assert solution.verify(A, [1e10, 1.0, 2.0]).excluded_norm == np.inf
    assert solution.verify(A, A(np.ones((2, 2)))).excluded_norm < 1e17


def test_a_forged_verdict_does_not_survive_the_data(tmp_path):
    A, b = Entries([0, 0, 1], [0, 1, 0], (2, 2)), np.array([1.0, 2.0, 3.0])
    solution = bf.flat_minimum(A, b)
    solution.save(tmp_path / "true.npz")
    found = bf.Solution.load(tmp_path / "true.npz", A, b)
    assert found.status is bf.Status.OPTIMAL
    assert "not checked" in bf.Solution.load(tmp_path / "true.npz").message
    forged = [2 * solution.layers[0], solution.layers[1]]
    replace(solution, layers=forged).save(tmp_path / "forged.npz")
    assert bf.Solution.load(tmp_path / "forged.npz", A, b).status is not bf.Status.OPTIMAL
    dual = replace(solution.certificate, dual=10 * solution.certificate.dual, lower_bound=1e9)
    replace(solution, certificate=dual).save(tmp_path / "bound.npz")
    assert bf.Solution.load(tmp_path / "bound.npz", A, b).certificate.lower_bound <= solution.value
    with pytest.raises(ValueError, match=r"^b is None; expected both A and b"):
        bf.Solution.load(tmp_path / "true.npz", A)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"A": 3}, "^A is int"),
        ({"candidate": np.ones((3, 2))}, "^candidate has shape"),
        ({"y": np.ones(3)}, "^y has shape"),
        ({"depth": 3, "penalty": 1.0}, "^penalty is 1.0 at depth 3"),
        ({"depth": 3, "candidate": [np.eye(2), np.eye(2)]}, "^candidate has 2 layers"),
        ({"depth": 1}, "^depth is 1"),
        ({"rigorous": 1}, "^rigorous is 1"),
        ({"flat": None}, "^flat is None"),
        ({"offset_penalty": 1.0}, "^offset_penalty is 1.0"),
    ],
)
def test_bad_input_is_named(arguments, message):
    call = {"A": Entries([0, 1], [0, 1], (2, 2)), "b": np.ones(2), "candidate": np.eye(2)} | arguments
    with pytest.raises(ValueError, match=message):
        bf.certify(**call)
