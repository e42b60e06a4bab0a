import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.measurements import Dense, Entries, bernoulli_mask, gaussian
from balancedfact.solution import Status
from tests.bad_input import BAD_RNG, bad
from tests.maps import BUILT_IN, DERIVED, Minimal, cases
from tests.oracles import adjoint, forward
from tests.solvers.conic import ENSEMBLES, dual_bound, example, reference

pytestmark = pytest.mark.filterwarnings("error")

TIGHT = 1e-13


def assert_proved(solution, matrices, b, *, penalty=0.0, tol=1e-8):
    """The value, the feasibility, the lower bound and the balance are what they are called, from the definitions."""
    L, R = solution.pair
    error, norms = forward(matrices, L @ R.T) - b, np.sum(L**2) + np.sum(R**2)
    value = 0.5 * error @ error + penalty * norms / 2 if penalty > 0 else norms
    np.testing.assert_allclose(solution.value, value, rtol=1e-10)
    certificate = solution.certificate
    bound, norm = dual_bound(matrices, b, certificate.dual, flat=False, penalty=penalty)
    assert norm <= 1 + 1e-11
    np.testing.assert_allclose(certificate.lower_bound, bound, rtol=1e-10)
    np.testing.assert_allclose(certificate.gap, abs(value - bound) / value, atol=1e-10)
    assert abs(certificate.feasibility - np.linalg.norm(error) / np.linalg.norm(b)) <= 1e-11
    assert solution.status is Status.OPTIMAL
    assert certificate.gap <= tol
    assert penalty > 0 or certificate.feasibility <= 1e-11
    left, right = L.T @ L, R.T @ R
    np.testing.assert_allclose(left, right, atol=1e-12 * np.abs(left).max())
    assert certificate.balance <= 1e-12


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_value_and_matrix_are_those_of_a_conic_solver(name, penalty):
    A, matrices, b = example(name)
    value, X = reference(name, False, penalty)
    solution = bf.norm_minimum(A, b, penalty=penalty, tol=TIGHT, rng=0)
    np.testing.assert_allclose(solution.value, value, rtol=1e-6)
    assert np.linalg.norm(solution.matrix - X) <= 1e-6 * np.linalg.norm(X)
    assert_proved(solution, matrices, b, penalty=penalty, tol=TIGHT)
    units = 1.0 if penalty else 2.0
    misfit = penalty and np.sum((A(solution.matrix) - b) ** 2) / 2
    np.testing.assert_allclose(solution.value, misfit + (penalty or 1.0) * units * np.linalg.norm(solution.matrix, "nuc"))


@given(cases(*BUILT_IN.values(), *DERIVED.values()), st.sampled_from([0.0, 0.1]), st.booleans())
def test_degenerate_maps(case, penalty, consistent):
    A, matrices, rng = case
    size = max(abs(matrix).max() for matrix in matrices)
    assume(size > 1e-10 or size == 0)  # else nothing but rounding errors is left of what was to be unseen
    b = A(rng.standard_normal(A.matrix_shape)) if consistent else rng.standard_normal(A.m)
    solution = bf.norm_minimum(A, b, penalty=penalty, rng=0)
    rows = np.reshape([matrix / (np.linalg.norm(matrix) or 1.0) for matrix in matrices], (A.m, -1))
    data = b / [np.linalg.norm(matrix) or 1.0 for matrix in matrices]
    rank = np.linalg.matrix_rank(rows, tol=1e-9)
    if penalty == 0 and np.linalg.matrix_rank(np.column_stack([rows, data]), tol=1e-9) > rank:
        y = solution.certificate.dual
        assert solution.status is Status.INFEASIBLE
        assert b @ y > 0
        assert np.linalg.norm(adjoint(matrices, y)) <= 1e-9 * np.abs(y) @ [np.linalg.norm(A) for A in matrices]
    elif np.linalg.norm(adjoint(matrices, b), 2) > penalty:
        assert_proved(solution, matrices, b, penalty=penalty)
    else:
        assert solution.status is Status.OPTIMAL
        np.testing.assert_array_equal(solution.matrix, np.zeros(A.matrix_shape))


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_dual_matrix_maps_the_factors_to_each_other(name, penalty):
    A, matrices, b = example(name)
    solution = bf.norm_minimum(A, b, penalty=penalty, tol=TIGHT, rng=0)
    S = adjoint(matrices, solution.certificate.dual) / (penalty or 1.0)
    L, R = solution.pair
    deviation = max(np.linalg.norm(S @ R - L), np.linalg.norm(S.T @ L - R)) / np.linalg.norm(L)
    assert deviation <= 3 * solution.certificate.stationarity + 1e-12
    assert solution.certificate.stationarity <= 1e-6


@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_pair_is_the_balanced_pair_of_its_product(name):
    A, _, b = example(name)
    solution = bf.norm_minimum(A, b, rng=0)
    L, R = solution.pair
    expected = bf.closed_forms.balanced_pair(solution.matrix, rank=L.shape[1])
    np.testing.assert_allclose(L @ L.T, expected[0] @ expected[0].T, atol=1e-10 * np.abs(L).max() ** 2)
    np.testing.assert_allclose(R @ R.T, expected[1] @ expected[1].T, atol=1e-10 * np.abs(R).max() ** 2)


def test_the_truth_is_recovered_from_enough_measurements(rng):
    truth = rng.standard_normal((12, 2)) @ rng.standard_normal((2, 10))
    A = gaussian(100, truth.shape, rng)
    solution = bf.norm_minimum(A, A(truth), rng=0)
    assert np.linalg.norm(solution.matrix - truth) <= 1e-8 * np.linalg.norm(truth)
    np.testing.assert_allclose(solution.value, 2 * np.linalg.norm(truth, "nuc"), rtol=1e-9)


def test_flat_and_norm_minimal_agree_where_the_rescalings_are_multiples_of_the_identity(rng):
    # Every row and every column is seen twice.
    cyclic = Entries([0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 0], (3, 3))
    b = rng.standard_normal(6)
    flat, norm = (solve(cyclic, b, tol=TIGHT, rng=0) for solve in (bf.flat_minimum, bf.norm_minimum))
    np.testing.assert_allclose(cyclic.D1, np.sqrt(2 / 18) * np.eye(3), atol=1e-14)
    np.testing.assert_allclose(flat.matrix, norm.matrix, atol=1e-5)
    np.testing.assert_allclose(flat.value, 4 * 6 * (2 / 18) * norm.value / 2, rtol=1e-10)


def test_flat_and_norm_minimal_differ_where_rows_are_seen_unevenly(rng):
    rows, cols = np.nonzero(rng.random((9, 8)) < np.linspace(0.2, 1.0, 9)[:, None])
    A = Entries(rows, cols, (9, 8))
    b = A(rng.standard_normal((9, 3)) @ rng.standard_normal((3, 8)))
    flat, norm = bf.flat_minimum(A, b, rng=0), bf.norm_minimum(A, b, rng=0)
    assert np.linalg.norm(flat.matrix - norm.matrix) > 0.01 * np.linalg.norm(norm.matrix)
    assert np.linalg.norm(norm.matrix, "nuc") < 0.999 * np.linalg.norm(flat.matrix, "nuc")
    trace = bf.curvature.scaled_trace(*bf.closed_forms.flat_pair(norm.matrix, A), A)
    assert flat.value < 0.999 * trace


def test_the_theorem_of_near_equivalence(rng):
    # Ding et al. 2022: a flat pair has at most kappa^2 times the least norm of a pair that fits.
    A = bernoulli_mask((8, 7), 0.6, rng)
    b = A(rng.standard_normal((8, 2)) @ rng.standard_normal((2, 7)))
    flat, norm = bf.flat_minimum(A, b, rng=0), bf.norm_minimum(A, b, rng=0)
    values = np.concatenate([np.diag(A.D1), np.diag(A.D2)])
    kappa = values.max() / values.min()
    L, R = flat.pair
    assert norm.value <= np.sum(L**2) + np.sum(R**2) <= kappa**2 * norm.value
    assert np.linalg.norm(L.T @ L - R.T @ R, "nuc") <= 2 * (kappa**2 - 1) * norm.value / 2


def test_one_measurement_has_a_closed_solution(rng):
    matrix = rng.standard_normal((4, 5))
    solution = bf.norm_minimum(Dense(matrix[None]), [3.0])
    np.testing.assert_allclose(solution.value, 2 * 3.0 / np.linalg.norm(matrix, 2), rtol=1e-8)
    # With a penalty: the least of (t - b)^2 / 2 + penalty t / |A1|, at t = b - penalty / |A1|.
    solution, cost = bf.norm_minimum(Dense(matrix[None]), [3.0], penalty=2.0), 2.0 / np.linalg.norm(matrix, 2)
    np.testing.assert_allclose(solution.value, cost**2 / 2 + cost * (3.0 - cost), rtol=1e-8)


def test_everything_measured_is_soft_thresholding(rng):
    X = rng.standard_normal((5, 4))
    A = Entries(*np.divmod(np.arange(20), 4), (5, 4))
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    for penalty in (0.1, s[1], 0.5 * (s[1] + s[2])):
        shrunk = np.maximum(s - penalty, 0)
        solution = bf.norm_minimum(A, X.ravel(), penalty=penalty, tol=1e-12, rng=0)
        np.testing.assert_allclose(solution.matrix, (U * shrunk) @ Vt, atol=1e-5)
        np.testing.assert_allclose(solution.value, np.sum((s - shrunk) ** 2) / 2 + penalty * shrunk.sum(), rtol=1e-10)


def test_zero_measurements_and_unobserved_entries(rng):
    A = Entries([0, 1, 1], [0, 0, 2], (3, 4), [1.0, 0.0, 2.0])
    solution = bf.norm_minimum(A, [2.0, 0.0, 4.0])
    assert solution.status is Status.OPTIMAL
    assert "No measurement" not in solution.message  # the nuclear norm says that the rest is zero
    np.testing.assert_allclose(solution.matrix[[0, 1], [0, 2]], [2.0, 2.0])
    np.testing.assert_allclose(solution.value, 8.0, rtol=1e-8)
    for zero in (Dense(np.zeros((2, 3, 4))), Entries([0, 1], [0, 0], (3, 4), [0.0, 0.0]), Minimal(np.zeros((2, 3, 4)))):
        solution = bf.norm_minimum(zero, [0.0, 0.0])
        assert (solution.status, solution.value) == (Status.OPTIMAL, 0.0)
        assert bf.norm_minimum(zero, [0.0, 1.0]).status is Status.INFEASIBLE
        np.testing.assert_allclose(bf.norm_minimum(zero, [0.0, 1.0], penalty=1.0).value, 0.5)


@pytest.mark.few(6)
@pytest.mark.parametrize("measurements", [1e-120, 1e-40, 1e40, 1e120])
@pytest.mark.parametrize("data", [1e-120, 1.0, 1e80])
@pytest.mark.parametrize("name", ["gaussian", "bernoulli_mask"])
def test_every_scale(name, data, measurements):
    A, matrices, b = example(name)
    for penalty in (0.0, 0.3):
        weight = penalty * data * measurements
        value = data * (data if penalty else 1 / measurements)
        if not 1e-200 < value < 1e200 or (penalty and weight < 1e-200):
            continue
        expected = bf.norm_minimum(A, b, penalty=penalty, rng=0)
        solution = bf.norm_minimum(A.select(np.arange(A.m), np.full(A.m, measurements)), data * b, penalty=weight, rng=0)
        assert solution.status is Status.OPTIMAL
        np.testing.assert_allclose(solution.value / value, expected.value, rtol=2e-8)
        np.testing.assert_allclose(solution.matrix * (measurements / data), expected.matrix, atol=1e-3)


@pytest.mark.parametrize("b", bad((14,)))
def test_bad_data_are_refused(b):
    with pytest.raises(ValueError, match=r"^b "):
        bf.norm_minimum(example("gaussian")[0], b)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("penalty", [-1.0, np.nan, "x"]),
        ("tol", [0.0, -1.0, np.nan]),
        ("max_rank", [0, 2.5]),
        ("rng", BAD_RNG),
        ("A", [None, 3]),
    ],
)
def test_bad_options_are_refused_by_name(name, values):
    A, _, b = example("gaussian")
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} is "):
            bf.norm_minimum(**({"A": A, "b": b} | {name: value}))
