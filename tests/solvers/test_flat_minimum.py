import tracemalloc
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.curvature import scaled_trace
from balancedfact.measurements import Dense, Entries, RankOne, bernoulli_mask, bilinear, gaussian
from balancedfact.measurements._sampled import sampled_product
from balancedfact.solution import Status
from tests.bad_input import BAD_COUNT, BAD_RNG, bad
from tests.maps import BUILT_IN, DERIVED, Minimal, cases
from tests.oracles import adjoint, forward
from tests.solvers.conic import (
    ENSEMBLES,
    conic_minimum,
    dual_bound,
    example,
    pseudo_inverses,
    reference,
    rescalings,
    spread,
)

pytestmark = pytest.mark.filterwarnings("error")

# Data of this size are reached to rounding error, and the gap is as small as the arithmetic allows.
TIGHT = 1e-13


def low_rank(rng, shape, rank):
    return rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))


def assert_proved(solution, matrices, b, *, penalty=0.0, tol=1e-8, rounding=1.0):
    """The value, the feasibility, the lower bound and the balance are what they are called, from the definitions.

    `rounding` is by how much rounding errors of the oracle and of the solver are larger than for well-conditioned measurements.
    """
    D1, D2 = rescalings(matrices)
    L, R = solution.pair
    error, m = forward(matrices, L @ R.T) - b, len(matrices)
    flatness = np.sum((D1 @ L) ** 2) + np.sum((D2 @ R) ** 2)
    value = 0.5 * error @ error + penalty * flatness / 2 if penalty > 0 else 2 * m * flatness
    np.testing.assert_allclose(solution.value, value, rtol=1e-12 * rounding)
    certificate = solution.certificate
    bound, norm = dual_bound(matrices, b, certificate.dual, flat=True, penalty=penalty)
    assert norm <= 1 + 1e-12 * rounding
    lost = 1.1 * certificate.rounding  # what the certificate does not claim, because rounding may have added it
    np.testing.assert_allclose(certificate.lower_bound, bound, rtol=1e-12 * rounding + lost)
    np.testing.assert_allclose(certificate.gap, abs(value - bound) / value, atol=1e-12 * rounding + lost)
    assert abs(certificate.feasibility - np.linalg.norm(error) / np.linalg.norm(b)) <= 1e-13 * rounding
    if certificate.gap > tol:  # a tolerance that is finer than the bound on rounding
        assert solution.status is Status.GAP_OPEN
        assert "rounding" in solution.message
        assert tol < 1e-10
        assert certificate.gap - certificate.rounding <= tol
    else:
        assert solution.status is Status.OPTIMAL
    assert penalty > 0 or certificate.feasibility <= 1e-13 * max(rounding, 10)
    left, right = L.T @ D1 @ D1 @ L, R.T @ D2 @ D2 @ R
    np.testing.assert_allclose(left, right, atol=1e-12 * rounding * np.abs(left).max())
    assert certificate.balance <= 1e-12


# Against a generic conic solver


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_value_and_matrix_are_those_of_a_conic_solver(name, penalty):
    A, matrices, b = example(name)
    value, X = reference(name, True, penalty)
    solution = bf.flat_minimum(A, b, penalty=penalty, tol=TIGHT, rng=0)
    np.testing.assert_allclose(solution.value, value, rtol=1e-6)
    assert np.linalg.norm(solution.matrix - X) <= 1e-6 * np.linalg.norm(X)
    assert_proved(solution, matrices, b, penalty=penalty, tol=TIGHT)


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_default_tolerance_is_kept_and_not_wasted(name, penalty):
    A, matrices, b = example(name)
    solution = bf.flat_minimum(A, b, penalty=penalty, rng=0)
    assert_proved(solution, matrices, b, penalty=penalty)
    np.testing.assert_allclose(solution.value, reference(name, True, penalty)[0], rtol=2e-8)


@pytest.mark.slow
@given(cases(*BUILT_IN.values(), *DERIVED.values()), st.sampled_from([0.0, 0.1]), st.booleans())
def test_degenerate_maps(case, penalty, consistent):
    A, matrices, rng = case
    size = max(abs(matrix).max() for matrix in matrices)
    assume(size > 1e-10 or size == 0)  # else nothing but rounding errors is left of what was to be unseen
    assume(size == 0 or spread(matrices) < 1e3)
    b = A(rng.standard_normal(A.matrix_shape)) if consistent else rng.standard_normal(A.m)
    solution = bf.flat_minimum(A, b, penalty=penalty, rng=0)
    rows = np.reshape(matrices, (A.m, -1))
    rank = np.linalg.matrix_rank(rows, tol=1e-9)
    if penalty == 0 and np.linalg.matrix_rank(np.column_stack([rows, b]), tol=1e-9) > rank:
        assert_contradiction(solution, matrices, b)
    elif A.uncertain:
        assert solution.status is Status.GAP_OPEN
        assert "rounding" in solution.message or "not reached" in solution.message
    elif solution.value > 0 and size > 0:
        assert_proved(solution, matrices, b, penalty=penalty, rounding=100 * spread(matrices) ** 4)
    else:
        assert solution.status is Status.OPTIMAL
        assert not np.any(b) or size == 0


def test_a_map_with_the_four_methods_only():
    A, matrices, b = example("gaussian")
    for penalty in (0.0, 0.3):
        solution = bf.flat_minimum(Minimal(matrices), b, penalty=penalty, tol=TIGHT, rng=0)
        assert_proved(solution, matrices, b, penalty=penalty, tol=TIGHT)
        np.testing.assert_allclose(solution.matrix, bf.flat_minimum(A, b, penalty=penalty, tol=TIGHT, rng=0).matrix, atol=1e-6)


# What the solution is


@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_value_is_the_scaled_trace_of_the_pair(name):
    A, _, b = example(name)
    solution = bf.flat_minimum(A, b, rng=0)
    np.testing.assert_allclose(solution.value, scaled_trace(*solution.pair, A), rtol=1e-14)
    L, R = bf.closed_forms.flat_pair(solution.matrix, A)
    np.testing.assert_allclose(solution.value, scaled_trace(L, R, A), rtol=1e-12)


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_dual_matrix_maps_the_factors_to_each_other(name, penalty):
    A, matrices, b = example(name)
    solution = bf.flat_minimum(A, b, penalty=penalty, tol=TIGHT, rng=0)
    (D1, D2), (E1, E2) = rescalings(matrices), pseudo_inverses(matrices, flat=True)
    S = E1 @ adjoint(matrices, solution.certificate.dual) @ E2 / (penalty or 1.0)
    L, R = D1 @ solution.pair[0], D2 @ solution.pair[1]
    deviation = max(np.linalg.norm(S @ R - L), np.linalg.norm(S.T @ L - R)) / np.linalg.norm(L)
    assert deviation <= 1e-6
    assert deviation <= 3 * solution.certificate.stationarity + 1e-12
    assert solution.certificate.stationarity <= 1e-6


@pytest.mark.parametrize("name", ENSEMBLES)
def test_with_a_penalty_the_residual_is_the_dual_vector(name):
    A, _, b = example(name)
    solution = bf.flat_minimum(A, b, penalty=0.3, tol=TIGHT, rng=0)
    np.testing.assert_allclose(solution.certificate.dual, b - A(solution.matrix), atol=1e-6 * np.abs(b).max())


def test_no_other_factorization_that_fits_is_flatter(rng):
    A, _, b = example("gaussian")
    solution = bf.flat_minimum(A, b, rng=0)
    rows = np.reshape(A.matrices, (A.m, -1))
    unseen = np.linalg.svd(rows)[2][A.m :]
    for size in (1e-4, 1e-2, 1.0):
        X = solution.matrix + size * (rng.standard_normal(len(unseen)) @ unseen).reshape(5, 6)
        np.testing.assert_allclose(A(X), b, atol=1e-10)
        assert scaled_trace(*bf.closed_forms.flat_pair(X, A), A) > solution.value
        assert scaled_trace(*bf.closed_forms.balanced_pair(X), A) > solution.value


@pytest.mark.parametrize(
    ("A", "rank"),
    [
        (gaussian(110, (12, 10), rng=0), 2),
        (gaussian(100, (12, 10), rng=0), 3),
        (bilinear(110, (12, 10), rng=0), 2),
        (bernoulli_mask((40, 30), 0.5, rng=0), 2),
    ],
    ids=["gaussian 2", "gaussian 3", "bilinear 2", "mask 2"],
)
def test_the_truth_is_recovered_from_enough_measurements(A, rank, rng):
    truth = low_rank(rng, A.matrix_shape, rank)
    solution = bf.flat_minimum(A, A(truth), rng=0)
    assert solution.status is Status.OPTIMAL
    assert np.linalg.norm(solution.matrix - truth) <= 1e-8 * np.linalg.norm(truth)
    assert [layer.shape for layer in solution.layers] == [(rank, A.matrix_shape[1]), (A.matrix_shape[0], rank)]
    np.testing.assert_allclose(solution.value, scaled_trace(*bf.closed_forms.flat_pair(truth, A), A), rtol=1e-8)


def test_too_few_measurements_are_fitted_by_something_flatter_than_the_truth(rng):
    A = gaussian(40, (12, 10), rng)
    truth = low_rank(rng, (12, 10), 3)
    solution = bf.flat_minimum(A, A(truth), rng=0)
    assert solution.status is Status.OPTIMAL
    assert solution.value < 0.95 * scaled_trace(*bf.closed_forms.flat_pair(truth, A), A)
    assert np.linalg.norm(solution.matrix - truth) > 0.1 * np.linalg.norm(truth)


def test_the_penalised_path_tends_to_the_interpolating_solution():
    A, _, b = example("bilinear")
    limit = bf.flat_minimum(A, b, tol=1e-10, rng=0)
    for penalty in (1e-3, 1e-5, 1e-7):
        solution = bf.flat_minimum(A, b, penalty=penalty, tol=1e-10, rng=0)
        # To first order the value is the penalty times the least nuclear norm.
        np.testing.assert_allclose(solution.value, penalty * limit.value / (4 * A.m), rtol=10 * penalty)
        assert np.linalg.norm(solution.matrix - limit.matrix) <= 10 * penalty * np.linalg.norm(limit.matrix) + 1e-4


def test_a_weighted_trace_norm_for_entries(rng):
    # Salakhutdinov and Srebro 2010: the flat completion minimises the nuclear norm weighted by the roots of the counts.
    A = bernoulli_mask((7, 6), 0.6, rng)
    solution = bf.flat_minimum(A, A(low_rank(rng, (7, 6), 3)), rng=0)
    rows, cols = np.bincount(A.rows, minlength=7), np.bincount(A.cols, minlength=6)
    weighted = np.sqrt(rows)[:, None] * solution.matrix * np.sqrt(cols)
    np.testing.assert_allclose(solution.value, 4 * np.linalg.norm(weighted, "nuc") / np.sqrt(7 * 6), rtol=1e-10)


def test_a_measurement_listed_twice_changes_the_rescalings_but_not_the_fit(rng):
    A = bernoulli_mask((7, 6), 0.7, rng)
    b = A(low_rank(rng, (7, 6), 3))
    index = np.concatenate([np.arange(A.m), [0, 1, 2, 2]])
    twice = A.select(index)
    solution = bf.flat_minimum(twice, b[index], tol=TIGHT, rng=0)
    matrices = np.zeros((index.size, 7, 6))
    matrices[np.arange(index.size), A.rows[index], A.cols[index]] = 1
    assert_proved(solution, list(matrices), b[index], tol=TIGHT)
    value, X = conic_minimum(list(matrices)[: A.m], b, flat=True)
    assert np.linalg.norm(solution.matrix - X) > 1e-3 * np.linalg.norm(X)


# Degenerate problems


def test_zero_data_give_the_zero_matrix():
    for A in (*MAPS.values(), Minimal(np.ones((2, 3, 4)))):
        for penalty in (0.0, 1.0):
            solution = bf.flat_minimum(A, np.zeros(A.m), penalty=penalty, rng=0)
            assert solution.status is Status.OPTIMAL
            assert (solution.value, solution.certificate.lower_bound, solution.certificate.gap) == (0.0, 0.0, 0.0)
            assert solution.certificate.feasibility == 0.0
            np.testing.assert_array_equal(solution.matrix, np.zeros(A.matrix_shape))


MAPS = {
    "dense": gaussian(14, (6, 5), rng=0),
    "rank-one": bilinear(14, (6, 5), rng=0),
    "entries": bernoulli_mask((6, 5), 0.5, rng=0),
    "unobserved": Entries([0, 0, 1, 1, 3, 3], [0, 1, 0, 2, 1, 2], (6, 5)),
}


@pytest.mark.parametrize("kind", ["dense", "rank-one", "entries", "minimal"])
def test_measurements_by_the_zero_matrix(kind, rng):
    zero = {
        "dense": Dense(np.zeros((2, 3, 4))),
        "rank-one": RankOne(np.zeros((2, 3)), np.ones((2, 4))),
        "entries": Entries([0, 1], [1, 2], (3, 4), [0.0, 0.0]),
        "minimal": Minimal(np.zeros((2, 3, 4))),
    }[kind]
    fits = bf.flat_minimum(zero, np.zeros(2))
    assert (fits.status, fits.value) == (Status.OPTIMAL, 0.0)
    np.testing.assert_array_equal(fits.matrix, np.zeros((3, 4)))
    misfits = bf.flat_minimum(zero, np.array([1.0, -3.0]))
    assert misfits.status is Status.INFEASIBLE
    np.testing.assert_array_equal(misfits.certificate.dual != 0, [False, True])
    assert misfits.certificate.dual @ [1.0, -3.0] > 0
    penalised = bf.flat_minimum(zero, np.array([1.0, -3.0]), penalty=2.0)
    assert penalised.status is Status.OPTIMAL
    np.testing.assert_allclose([penalised.value, penalised.certificate.lower_bound], 5.0)


def test_a_zero_matrix_among_others_is_left_out(rng):
    A, matrices, b = example("gaussian")
    more = Dense([*matrices, np.zeros((5, 6))])
    solution = bf.flat_minimum(more, [*b, 0.0], tol=TIGHT, rng=0)
    assert_proved(solution, [*matrices, np.zeros((5, 6))], np.append(b, 0.0), tol=TIGHT)
    assert solution.certificate.dual[-1] == 0
    contradictory = bf.flat_minimum(more, [*b, 1e-3])
    assert_contradiction(contradictory, [*matrices, np.zeros((5, 6))], np.append(b, 1e-3))
    with_penalty = bf.flat_minimum(more, [*b, 1e-3], penalty=0.3, tol=TIGHT, rng=0)
    assert_proved(with_penalty, [*matrices, np.zeros((5, 6))], np.append(b, 1e-3), penalty=0.3, tol=TIGHT)


@pytest.mark.parametrize("kind", ["dense", "rank-one", "minimal", "entries"])
def test_more_measurements_than_entries_leave_one_matrix(kind, rng):
    if kind == "entries":
        rows, cols = np.divmod(np.concatenate([np.arange(12), rng.integers(0, 12, 8)]), 4)
        A = Entries(rows, cols, (3, 4), rng.uniform(0.5, 2.0, 20))
    else:
        A = {"dense": gaussian(20, (3, 4), rng), "rank-one": bilinear(20, (3, 4), rng)}.get(kind)
        A = Minimal(gaussian(20, (3, 4), rng).matrices) if A is None else A
    X = rng.standard_normal((3, 4))
    solution = bf.flat_minimum(A, A(X), rng=0)
    assert solution.status is Status.OPTIMAL
    np.testing.assert_allclose(solution.matrix, X, atol=1e-10)
    np.testing.assert_allclose(solution.value, scaled_trace(*bf.closed_forms.flat_pair(X, A), A), rtol=1e-9)


def dependent(rng):
    """Measurements of which the last two follow from the others: by multiplication and by addition."""
    base = rng.standard_normal((8, 4, 5))
    return [*base, -3.0 * base[1], base[0] + 2 * base[3] - base[6]]


def test_dependent_measurements_that_agree(rng):
    matrices = dependent(rng)
    X = low_rank(rng, (4, 5), 2)
    b = forward(matrices, X)
    for A in (Dense(matrices), Minimal(matrices)):
        solution = bf.flat_minimum(A, b, tol=TIGHT, rng=0)
        assert_proved(solution, matrices, b, tol=TIGHT)
    # The same data again: the fit is the same, but the measurements repeated count more in the rescalings.
    value, _ = conic_minimum(matrices, b, flat=True)
    np.testing.assert_allclose(solution.value, value, rtol=1e-6)


def assert_contradiction(solution, matrices, b):
    y = solution.certificate.dual
    weight = sum(abs(weight) * np.linalg.norm(A) for weight, A in zip(y, matrices, strict=True))
    assert solution.status is Status.INFEASIBLE
    assert np.linalg.norm(adjoint(matrices, y)) <= 1e-9 * weight
    assert b @ y > 0
    assert b @ y > 1e-6 * np.abs(b) @ np.abs(y)
    assert (solution.value, solution.certificate.lower_bound) == (np.inf, np.inf)
    assert solution.certificate.feasibility == 1.0
    assert np.isnan(solution.certificate.gap)
    np.testing.assert_array_equal(solution.matrix, np.zeros(matrices[0].shape))
    assert "contradict" in solution.message
    assert "penalty" in solution.message


@pytest.mark.parametrize("wrong", [0, 1, 8, 9])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_dependent_measurements_that_contradict_one_another(rng, wrong, size):
    matrices = dependent(rng)
    b = forward(matrices, rng.standard_normal((4, 5)))
    b[wrong] += size
    A = Dense(matrices)
    solution = bf.flat_minimum(A, b)
    assert_contradiction(solution, matrices, b)
    assert_proved(bf.flat_minimum(A, b, penalty=1.0, tol=1e-10, rng=0), matrices, b, penalty=1.0, tol=1e-10)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_entries_seen_twice(sign, rng):
    rows, cols, weights = [0, 1, 2, 1, 0, 1], [0, 1, 1, 0, 0, 1], [1.0, 2.0, 1.0, 1.0, 3.0, -0.5]
    A = Entries(rows, cols, (3, 2), weights)
    matrices = np.zeros((6, 3, 2))
    matrices[np.arange(6), rows, cols] = weights
    X = rng.standard_normal((3, 2))
    b = A(X)
    assert_proved(bf.flat_minimum(A, b, tol=TIGHT, rng=0), list(matrices), b, tol=TIGHT)
    b[4] += sign
    solution = bf.flat_minimum(A, b)
    assert_contradiction(solution, list(matrices), b)
    np.testing.assert_array_equal(solution.certificate.dual != 0, [True, False, False, False, True, False])
    assert_proved(bf.flat_minimum(A, b, penalty=0.1, tol=TIGHT, rng=0), list(matrices), b, penalty=0.1, tol=TIGHT)


def test_an_entry_of_weight_zero():
    A = Entries([0, 1, 1], [0, 0, 1], (2, 2), [1.0, 2.0, 0.0])
    solution = bf.flat_minimum(A, [1.0, 4.0, 0.0])
    assert solution.status is Status.OPTIMAL
    np.testing.assert_allclose(solution.matrix, [[1.0, 0.0], [2.0, 0.0]], atol=1e-12)
    assert "No measurement sees 1 column:" in solution.message
    solution = bf.flat_minimum(A, [1.0, 4.0, 1.0])
    assert solution.status is Status.INFEASIBLE
    np.testing.assert_array_equal(solution.certificate.dual, [0.0, 0.0, 1.0])


@pytest.mark.parametrize("penalty", [0.0, 0.05])
def test_unobserved_rows_and_columns_are_zero_and_named(penalty, rng):
    A = Entries([0, 0, 1, 1, 3, 3], [0, 1, 0, 3, 1, 3], (5, 6))
    b = A(low_rank(rng, (5, 6), 2))
    solution = bf.flat_minimum(A, b, penalty=penalty, rng=0)
    assert solution.status is Status.OPTIMAL
    assert "No measurement sees 2 rows and 3 columns:" in solution.message
    L, R = solution.pair
    np.testing.assert_array_equal(L[[2, 4]], 0)
    np.testing.assert_array_equal(R[[2, 4, 5]], 0)
    seen = Entries([0, 0, 1, 1, 2, 2], [0, 1, 0, 2, 1, 2], (3, 3))
    # The rescalings divide by the size of the matrix, which is larger with the unobserved rows and columns.
    shrink = np.sqrt(3 * 3 / (5 * 6))
    smaller = bf.flat_minimum(seen, b, penalty=penalty * shrink, rng=0)
    assert "No measurement" not in smaller.message
    units = 1.0 if penalty else shrink
    np.testing.assert_allclose(solution.value, smaller.value * units, rtol=1e-7)
    np.testing.assert_allclose(solution.matrix[np.ix_([0, 1, 3], [0, 1, 3])], smaller.matrix, atol=2e-4)


def test_unseen_directions_of_dense_measurements(rng):
    # Left and right null spaces that are not aligned with the axes.
    P = np.linalg.qr(rng.standard_normal((6, 4)))[0]
    Q = np.linalg.qr(rng.standard_normal((5, 3)))[0]
    A = Dense([P @ M @ Q.T for M in rng.standard_normal((7, 4, 3))])
    b = A(rng.standard_normal((6, 5)))
    solution = bf.flat_minimum(A, b, tol=TIGHT, rng=0)
    # Rounding hides whether they are quite unseen, and a bound that holds for both is that of the zero matrix.
    assert solution.status is Status.GAP_OPEN
    assert "rounding" in solution.message
    assert solution.certificate.lower_bound == 0
    assert "No measurement sees 2 left directions and 2 right directions:" in solution.message
    np.testing.assert_allclose(P @ P.T @ solution.matrix @ Q @ Q.T, solution.matrix, atol=1e-12)


def test_one_measurement_has_a_closed_solution(rng):
    # With A1 = U diag(s) V.T of full rank, D1^-1 A1 D2^-1 = sqrt(d1 d2) U diag(1 / s) V.T: the least nuclear norm of a Z with
    # inner product b is |b| over the norm of that matrix.
    matrix = rng.standard_normal((4, 4))
    A, cost = Dense(matrix[None]), np.linalg.svd(matrix)[1][-1] / 4
    for b in (2.5, -2.5):
        solution = bf.flat_minimum(A, [b], rng=0)
        assert_proved(solution, [matrix], np.array([b]))
        np.testing.assert_allclose(solution.value, 4 * 2.5 * cost, rtol=1e-8)
    # With a penalty: the least of (t - b)^2 / 2 + penalty * cost * t over t, the measurement of the solution.
    solution = bf.flat_minimum(A, [2.5], penalty=2.0, rng=0)
    t = 2.5 - 2.0 * cost
    np.testing.assert_allclose(A(solution.matrix), [t], rtol=1e-6)
    np.testing.assert_allclose(solution.value, (t - 2.5) ** 2 / 2 + 2.0 * cost * t, rtol=1e-8)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("penalty", [0.0, 0.2])
def test_matrices_with_one_row_or_column(shape, penalty, rng):
    last = [0, *[shape[0] * shape[1] - 1] * 2]
    for A in (gaussian(3, shape, rng), bilinear(3, shape, rng), Entries(*np.divmod(last, shape[1]), shape)):
        matrices = [np.reshape(A.rmatvec(unit), shape) for unit in np.eye(3)]
        b = A(rng.standard_normal(shape))
        solution = bf.flat_minimum(A, b, penalty=penalty, tol=1e-10, rng=0)
        assert_proved(solution, matrices, b, penalty=penalty, tol=1e-10)
        np.testing.assert_allclose(solution.value, conic_minimum(matrices, b, flat=True, penalty=penalty)[0], rtol=1e-6)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_from_the_threshold_of_the_penalty_on_zero_is_optimal(name):
    A, matrices, b = example(name)
    E1, E2 = pseudo_inverses(matrices, flat=True)
    threshold = np.linalg.norm(E1 @ adjoint(matrices, b) @ E2, 2)
    for factor in (1 + 1e-9, 2.0, 1e6):
        solution = bf.flat_minimum(A, b, penalty=factor * threshold, rng=0)
        assert (solution.status, solution.message) == (Status.OPTIMAL, "The zero matrix is optimal.")
        np.testing.assert_array_equal(solution.matrix, np.zeros(A.matrix_shape))
        np.testing.assert_allclose([solution.value, solution.certificate.lower_bound], b @ b / 2, rtol=1e-13)
        np.testing.assert_allclose(solution.certificate.dual, b, rtol=1e-13)
        assert solution.certificate.feasibility == 1.0
    for factor in (1 - 1e-14, 1.0, 1 + 1e-14):
        solution = bf.flat_minimum(A, b, penalty=factor * threshold, rng=0)
        assert solution.status is Status.OPTIMAL
        assert np.linalg.norm(solution.matrix) <= 1e-11 * np.linalg.norm(b)
        np.testing.assert_allclose(solution.value, b @ b / 2, rtol=1e-13)
    below = bf.flat_minimum(A, b, penalty=0.99 * threshold, rng=0)
    assert_proved(below, matrices, b, penalty=0.99 * threshold)
    assert np.linalg.norm(below.matrix) > 1e-4 * np.linalg.norm(b)


@pytest.mark.parametrize("name", ["dense", "entries"])
def test_a_penalty_lost_in_rounding_is_no_error(name, rng):
    A = MAPS[name].select(np.tile(np.arange(14), 3)[: 3 * MAPS[name].m])
    b = rng.standard_normal(A.m)  # contradictory
    with np.errstate(all="ignore"):
        solution = bf.flat_minimum(A, b, penalty=1e-18, rng=0)
    assert solution.status in (Status.OPTIMAL, Status.GAP_OPEN)
    rows = np.array([A.rmatvec(unit) for unit in np.eye(A.m)])
    best = np.linalg.norm(rows @ np.linalg.lstsq(rows, b, rcond=None)[0] - b)
    # How close rounding lets it come depends on the linear algebra that NumPy was built with: 1e-14 here, 0.02 there.
    np.testing.assert_allclose(np.linalg.norm(A(solution.matrix) - b), best, rtol=0.05)
    assert solution.certificate.lower_bound <= best**2 / 2 <= solution.value * (1 + 1e-12)


@pytest.mark.slow
def test_a_tolerance_beyond_rounding_leaves_the_gap_open():
    A, matrices, b = example("gaussian")
    solution = bf.flat_minimum(A, b, tol=1e-300, rng=0)
    assert solution.status is Status.GAP_OPEN
    assert not solution.status.ok
    assert solution.certificate.gap <= 1e-12
    assert "may still be better by up to a relative" in solution.message


# Scales


def scaled(A, factor):
    if isinstance(A, Dense):
        return Dense(factor * A.matrices)
    if isinstance(A, RankOne):
        return RankOne(factor * A.left, A.right)
    if isinstance(A, Entries):
        return Entries(A.rows, A.cols, A.matrix_shape, factor * A.weights)
    return Minimal(factor * A.matrices)


SCALED_MAPS = MAPS | {"minimal": Minimal(MAPS["dense"].matrices)}


@cache
def at_scale_one(name, penalty):
    A = SCALED_MAPS[name]
    b = A(low_rank(np.random.default_rng(3), (6, 5), 2))
    return b, bf.flat_minimum(A, b, penalty=penalty, rng=0)


@pytest.mark.few(10)
@pytest.mark.parametrize("data", [1e-120, 1e-30, 1.0, 1e120])
@pytest.mark.parametrize("measurements", [1e-120, 1e-40, 1.0, 1e40, 1e120])
@pytest.mark.parametrize("name", SCALED_MAPS)
def test_every_scale(name, measurements, data):
    A = SCALED_MAPS[name]
    for penalty in (0.0, 0.3):
        # D1 X D2 grows like the measurements times the data, and so does the scaled trace.
        weight, value = penalty * data / measurements, data * (data if penalty else measurements)
        if not 1e-200 < value < 1e200 or weight > 1e200:
            continue
        b, expected = at_scale_one(name, penalty)
        solution = bf.flat_minimum(scaled(A, measurements), data * b, penalty=weight, rng=0)
        assert solution.status is Status.OPTIMAL
        np.testing.assert_allclose(solution.value / value, expected.value, rtol=2e-8)
        np.testing.assert_allclose(solution.certificate.lower_bound / value, expected.certificate.lower_bound, rtol=2e-8)
        np.testing.assert_allclose(solution.matrix * (measurements / data), expected.matrix, atol=1e-3)


# Options


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_same_seed_gives_the_same_bits(name, penalty):
    A, _, b = example(name)
    one, two = (bf.flat_minimum(A, b, penalty=penalty, rng=5) for _ in range(2))
    three = bf.flat_minimum(A, b, penalty=penalty, rng=np.random.default_rng(5))
    for other in (two, three):
        np.testing.assert_array_equal(one.matrix, other.matrix)
        np.testing.assert_array_equal(one.certificate.dual, other.certificate.dual)
        assert one.value == other.value


def test_lists_and_integers_are_data():
    A = Entries([0, 0, 1], [0, 1, 0], (2, 2))
    from_list, from_array = bf.flat_minimum(A, [1, 2, 3]), bf.flat_minimum(A, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(from_list.matrix, from_array.matrix)
    # The weighted matrix is [[2, 2 sqrt(2)], [3 sqrt(2), x]], of squared nuclear norm 30 + x^2 + 2 |2 x - 12|.
    np.testing.assert_allclose(from_list.matrix, [[1, 2], [3, 2]], atol=1e-3)
    np.testing.assert_allclose(from_list.value, 4 * np.sqrt(30 + 4 + 16) / 2, rtol=1e-8)


def test_the_arguments_are_not_changed(rng):
    A, _, b = example("bernoulli_mask")
    weights, data = A.weights.copy(), b.copy()
    pair = rng.standard_normal((6, 2)), rng.standard_normal((5, 2))
    copies = [factor.copy() for factor in pair]
    bf.flat_minimum(A, b, rng=0, initial=pair)
    np.testing.assert_array_equal(A.weights, weights)
    np.testing.assert_array_equal(b, data)
    for factor, copy in zip(pair, copies, strict=True):
        np.testing.assert_array_equal(factor, copy)


@pytest.mark.parametrize("b", bad((14,)))
def test_bad_data_are_refused(b):
    with pytest.raises(ValueError, match=r"^b "):
        bf.flat_minimum(example("gaussian")[0], b)


@pytest.mark.parametrize("A", [None, np.eye(3), "map", [np.eye(3)], Dense])
def test_what_is_no_map_is_refused(A):
    with pytest.raises(ValueError, match=r"^A is \w+; expected a measurement map"):
        bf.flat_minimum(A, np.ones(3))


@pytest.mark.parametrize("depth", [*BAD_COUNT, 1, 2.5, -2])
def test_other_depths_are_refused(depth):
    A, _, b = example("gaussian")
    with pytest.raises(ValueError, match=r"^depth is "):
        bf.flat_minimum(A, b, depth)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("penalty", [-1e-300, -1.0, np.nan, np.inf, "x", None, True, 1j, [1.0]]),
        ("tol", [0.0, -1e-8, np.nan, np.inf, "x", None, True]),
        ("max_rank", [value for value in BAD_COUNT if value is not None]),
        ("rng", BAD_RNG),
    ],
)
def test_bad_options_are_refused_by_name(name, values):
    A, _, b = example("gaussian")
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} is "):
            bf.flat_minimum(A, b, **{name: value})


@pytest.mark.parametrize("L", bad((5, 2)))
def test_a_bad_start_is_refused(L):
    A, _, b = example("gaussian")
    with pytest.raises(ValueError, match=r"^initial\[[01]\] (has|is|and initial\[1\] have)"):
        bf.flat_minimum(A, b, initial=(L, np.ones((6, 2))))


@pytest.mark.parametrize("initial", [(np.ones((5, 2)),), 3, np.ones((5, 2)), (1, 2, 3)])
def test_a_start_that_is_no_pair_is_refused(initial):
    A, _, b = example("gaussian")
    with pytest.raises(ValueError, match=r"^initial(\[[01]\])? "):
        bf.flat_minimum(A, b, initial=initial)


# Large


@pytest.mark.slow
def test_a_large_completion_forms_no_dense_matrix(monkeypatch):
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((3000, 3)), rng.standard_normal((2500, 3))
    A = bernoulli_mask((3000, 2500), 0.03, rng)
    b = A.forward_factored(U, V)
    sampled_product(U, V, A.rows[:1], A.cols[:1])  # compiled now, not while memory is measured, as what the solver calls is
    small = bernoulli_mask((60, 50), 0.5, 1)
    bf.flat_minimum(small, small.forward_factored(U[:60], V[:50]), method="factored", rng=0)

    def refuse(*_):
        raise AssertionError("a dense 3000 x 2500 matrix was formed")

    monkeypatch.setattr(Entries, "_adjoint", refuse)
    monkeypatch.setattr(Entries, "_forward", refuse)
    tracemalloc.start()
    solution = bf.flat_minimum(A, b, rng=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.75 * 8 * 3000 * 2500
    assert solution.status is Status.OPTIMAL
    assert solution.certificate.gap <= 1e-8
    assert "randomised Lanczos" in solution.certificate.proof
    L, R = solution.pair
    assert L.shape[1] == 3
    rows, cols = rng.integers(0, 3000, 10_000), rng.integers(0, 2500, 10_000)
    truth = np.einsum("ij,ij->i", U[rows], V[cols])
    np.testing.assert_allclose(np.einsum("ij,ij->i", L[rows], R[cols]), truth, atol=1e-8)
    np.testing.assert_allclose(solution.value, scaled_trace(*solution.pair, A), rtol=1e-12)
