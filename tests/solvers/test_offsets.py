"""Row and column offsets, with a certificate that holds whatever the solver did."""

import cvxpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.measurements import Entries, bernoulli_mask, gaussian
from balancedfact.solvers.nuclear._descent import _Objective
from balancedfact.solvers.nuclear._frame import Frame
from tests import maps

pytestmark = pytest.mark.filterwarnings("error")

SOLVERS = {"flat": bf.flat_minimum, "norm": bf.norm_minimum}


def ratings(rng, shape=(9, 7), probability=0.6, noise=0.3):
    """Ratings with a mean, offsets and a matrix of rank one."""
    A = bernoulli_mask(shape, probability, rng)
    X = 3 + rng.standard_normal(shape[0])[:, None] + rng.standard_normal(shape[1])
    X = X + np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]))
    return A, A(X) + noise * rng.standard_normal(A.m)


def mean_of(A, b):
    ones = A(np.ones(A.matrix_shape))
    return ones @ b / (ones @ ones) if ones.any() else 0.0


def objective(A, b, flat, penalty, offset_penalty, X, alpha, beta):
    """From the definition."""
    D1, D2 = (A.D1, A.D2) if flat else (np.eye(len(X)), np.eye(X.shape[1]))
    error = A(X + mean_of(A, b) + alpha[:, None] + beta) - b
    squares = alpha @ alpha + beta @ beta
    return 0.5 * error @ error + penalty * np.linalg.norm(D1 @ X @ D2, "nuc") + 0.5 * offset_penalty * squares


def bound(A, b, flat, penalty, offset_penalty, y):
    """The dual objective of a vector, from the definition, with the norm that must be at most the penalty."""
    S = A.adjoint(y)
    white = np.linalg.pinv(A.D1) @ S @ np.linalg.pinv(A.D2) if flat else S
    sums = S.sum(axis=1) @ S.sum(axis=1) + S.sum(axis=0) @ S.sum(axis=0)
    centred = b - mean_of(A, b) * A(np.ones(A.matrix_shape))
    return centred @ y - y @ y / 2 - sums / (2 * offset_penalty), np.linalg.norm(white, 2)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("offset_penalty", [0.1, 1.0, 30.0])
def test_the_minimum_is_that_of_a_conic_solver(name, offset_penalty, rng):
    A, b = ratings(rng)
    flat = name == "flat"
    penalty = 0.3 * np.linalg.norm(A.adjoint(b - b.mean()), 2) * (1 / np.sqrt(np.max(A.D1) * np.max(A.D2)) if flat else 1)
    solution = SOLVERS[name](A, b, penalty=penalty, offset_penalty=offset_penalty, tol=1e-10, rng=0)
    assert solution.status.ok, solution
    X, (mean, alpha, beta) = solution.matrix, solution.offsets
    assert mean == pytest.approx(mean_of(A, b), rel=1e-13)
    value = objective(A, b, flat, penalty, offset_penalty, X, alpha, beta)
    assert solution.value == pytest.approx(value, rel=1e-12)
    lower, norm = bound(A, b, flat, penalty, offset_penalty, solution.certificate.dual)
    assert norm <= penalty * (1 + 1e-12)
    assert solution.certificate.lower_bound == pytest.approx(lower, rel=1e-12)

    d1, d2 = A.matrix_shape
    Y, a, c = cvxpy.Variable((d1, d2)), cvxpy.Variable((d1, 1)), cvxpy.Variable((1, d2))
    mask = np.zeros((d1, d2))
    mask[A.rows, A.cols] = 1
    data = np.zeros((d1, d2))
    data[A.rows, A.cols] = b - mean
    D1, D2 = (A.D1, A.D2) if flat else (np.eye(d1), np.eye(d2))
    total = Y + a @ np.ones((1, d2)) + np.ones((d1, 1)) @ c
    cost = cvxpy.sum_squares(cvxpy.multiply(mask, total) - data) / 2 + penalty * cvxpy.normNuc(D1 @ Y @ D2)
    cost = cost + offset_penalty / 2 * (cvxpy.sum_squares(a) + cvxpy.sum_squares(c))
    best = cvxpy.Problem(cvxpy.Minimize(cost)).solve(solver="CLARABEL")
    assert solution.value == pytest.approx(best, rel=1e-6)
    np.testing.assert_allclose(alpha, a.value[:, 0], atol=1e-3)
    np.testing.assert_allclose(beta, c.value[0], atol=1e-3)


@pytest.mark.slow
@given(maps.cases(maps.entries), st.sampled_from([1e-3, 0.3, 3.0, 1e3]), st.sampled_from([1e-2, 1.0, 1e4]))
def test_no_point_is_below_the_bound(case, fraction, offset_penalty):
    A, _, rng = case
    b = rng.standard_normal(A.m)
    penalty = fraction * max(1.0, float(np.abs(A.weights).max()))
    solution = bf.flat_minimum(A, b, penalty=penalty, offset_penalty=offset_penalty, tol=1e-7, rng=0)
    X, (_, alpha, beta) = solution.matrix, solution.offsets
    tol = 1e-9 * (b @ b)
    assert solution.value == pytest.approx(objective(A, b, True, penalty, offset_penalty, X, alpha, beta), abs=tol)
    for scale in (0.0, 0.9, 1.1):
        others = [
            (scale * X, alpha, beta),
            (X, scale * alpha, beta),
            (X, alpha, scale * beta),
            (X + 0.1 * scale * rng.standard_normal(X.shape), alpha, beta),
        ]
        for other in others:
            assert objective(A, b, True, penalty, offset_penalty, *other) >= solution.certificate.lower_bound - tol
    if solution.value <= 1e-24 * (b @ b):  # the squares of rounding errors
        assert solution.status is bf.Status.OPTIMAL or "rounding" in solution.message, solution
    else:
        assert solution.certificate.gap <= 1e-5, solution


def test_offsets_of_great_weight_are_none_at_all(rng):
    A, b = ratings(rng)
    heavy = bf.flat_minimum(A, b, penalty=2.0, offset_penalty=1e12, tol=1e-10, rng=0)
    none = bf.flat_minimum(A, b - b.mean(), penalty=2.0, tol=1e-10, rng=0)
    np.testing.assert_allclose(heavy.matrix, none.matrix, atol=1e-6)
    assert heavy.value == pytest.approx(none.value, rel=1e-8)
    assert np.abs(heavy.offsets.rows).max() < 1e-8


def test_a_penalty_that_leaves_offsets_alone(rng):
    A, b = ratings(rng)
    solution = bf.flat_minimum(A, b, penalty=1e6, offset_penalty=1e-6, tol=1e-8, rng=0)
    assert solution.status.ok
    np.testing.assert_array_equal(solution.matrix, np.zeros(A.matrix_shape))
    d1, d2 = A.matrix_shape  # two-way means, by least squares
    design = np.zeros((A.m, d1 + d2))
    design[np.arange(A.m), A.rows] = design[np.arange(A.m), d1 + A.cols] = 1
    fit = design @ np.linalg.lstsq(design, b - b.mean(), rcond=None)[0] + b.mean()
    np.testing.assert_allclose(solution.predict(A.rows, A.cols), fit, atol=1e-4)


@pytest.mark.few(1)
@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150])
def test_the_scale_of_the_data_carries_over(scale, rng):
    A, b = ratings(rng)
    one = bf.flat_minimum(A, b, penalty=2.0, offset_penalty=1.0, tol=1e-10, rng=0)
    other = bf.flat_minimum(A, scale * b, penalty=2.0 * scale, offset_penalty=1.0, tol=1e-10, rng=0)
    assert other.certificate.feasibility == pytest.approx(one.certificate.feasibility, rel=1e-6)
    np.testing.assert_allclose(other.offsets.rows / scale, one.offsets.rows, atol=1e-6)
    np.testing.assert_allclose(other.matrix / scale, one.matrix, atol=1e-6)


def test_unobserved_rows_and_columns_are_predicted_by_what_is_known(rng):
    A = Entries([0, 0, 2, 2, 3], [1, 2, 1, 2, 2], (5, 4))
    b = np.array([1.0, 2.0, 3.0, 4.5, 2.0])
    solution = bf.flat_minimum(A, b, penalty=0.1, offset_penalty=0.5, rng=0)
    assert solution.status.ok
    mean, rows, cols = solution.offsets
    assert rows[[1, 4]].tolist() == [0, 0]
    assert cols[[0, 3]].tolist() == [0, 0]
    np.testing.assert_allclose(solution.predict([1, 4, 1], [1, 2, 0]), [mean + cols[1], mean + cols[2], mean])
    everything = solution.matrix + mean + rows[:, None] + cols
    np.testing.assert_allclose(solution.predict(*np.indices((5, 4)).reshape(2, -1)), everything.ravel(), atol=1e-14)


@pytest.mark.slow
def test_weights_weigh_offsets_too(rng):
    A, b = ratings(rng)
    twice = Entries(np.tile(A.rows, 2), np.tile(A.cols, 2), A.matrix_shape)
    root = Entries(A.rows, A.cols, A.matrix_shape, np.full(A.m, np.sqrt(2.0)))
    # D1 and D2 of the two maps differ by the number of measurements under the root: the fourth root of 2 each.
    one = bf.flat_minimum(twice, np.tile(b, 2), penalty=2.0, offset_penalty=1.0, tol=1e-11, rng=0)
    other = bf.flat_minimum(root, np.sqrt(2.0) * b, penalty=1.0, offset_penalty=1.0, tol=1e-11, rng=0)
    assert one.offsets.mean == pytest.approx(other.offsets.mean)
    np.testing.assert_allclose(one.offsets.rows, other.offsets.rows, atol=1e-5)
    np.testing.assert_allclose(one.matrix, other.matrix, atol=1e-5)


def test_the_derivatives_with_offsets_are_those_of_the_objective(rng):
    A, b = ratings(rng)
    problem = Frame(A, b, 2.0, flat=True, offset_penalty=0.7).problem
    model = _Objective(problem.map, problem.b, problem.q, problem.density, problem.offsets)
    d1, d2 = problem.map.matrix_shape
    x = rng.standard_normal((d1, 3)), rng.standard_normal((d2, 3))
    v = rng.standard_normal((d1, 3)), rng.standard_normal((d2, 3))

    def at(t):
        moved = x[0] + t * v[0], x[1] + t * v[1]
        residual, value = model.evaluate(moved)
        slope = model.slope(moved, residual)
        return value, sum(np.vdot(a, c) for a, c in zip(slope, v, strict=True))

    # The objective is a polynomial of degree four along a line: differences of fourth order are exact.
    steps = np.array([-2, -1, 1, 2])
    weights = np.array([1, -8, 8, -1]) / 12
    values = [at(float(t)) for t in steps]
    _, slope = at(0.0)
    assert slope == pytest.approx(weights @ [value for value, _ in values], rel=1e-10)
    residual, _ = model.evaluate(x)
    product = model.hessian(x, residual)(*v)
    curvature = sum(np.vdot(a, c) for a, c in zip(product, v, strict=True))
    assert curvature == pytest.approx(weights @ [slope for _, slope in values], rel=1e-10)


def test_offsets_survive_a_file(tmp_path, rng):
    A, b = ratings(rng)
    solution = bf.flat_minimum(A, b, penalty=2.0, offset_penalty=1.0, rng=0)
    solution.save(tmp_path / "s.npz")
    loaded = bf.Solution.load(tmp_path / "s.npz")
    np.testing.assert_array_equal(loaded.predict(A.rows, A.cols), solution.predict(A.rows, A.cols))
    assert loaded.offsets.mean == solution.offsets.mean


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, "1", True])
def test_a_bad_weight_is_refused(bad, rng):
    A, b = ratings(rng)
    with pytest.raises(ValueError, match=r"^offset_penalty is "):
        bf.flat_minimum(A, b, penalty=1.0, offset_penalty=bad)


def test_offsets_need_entries_noise_and_two_factors(rng):
    A, b = ratings(rng)
    with pytest.raises(ValueError, match=r"penalty is 0; expected a penalty > 0"):
        bf.flat_minimum(A, b, offset_penalty=1.0)
    with pytest.raises(ValueError, match=r"A is Dense; expected Entries"):
        bf.flat_minimum(gaussian(5, (3, 4), 0), np.ones(5), penalty=1.0, offset_penalty=1.0)
    with pytest.raises(ValueError, match=r"expected None, offsets are for depth 2"):
        bf.flat_minimum(A, b, depth=3, offset_penalty=1.0)
    with pytest.raises(ValueError, match=r"method is RiemannianSearch.*no place for offsets"):
        bf.flat_minimum(A, b, penalty=1.0, offset_penalty=1.0, method="riemannian")
