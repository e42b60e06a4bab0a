import itertools
import time
from functools import cache

import cvxpy as cp
import numpy as np
import pytest
import scipy.linalg
from scipy.optimize import minimize

import balancedfact as bf
from balancedfact.solvers.deep._smooth_sharpness import SharpPoint, bending, jacobian
from tests.oracles import hessian


def instance(seed, d1, d2, m):
    rng = np.random.default_rng(seed)
    return bf.measurements.gaussian(m, (d1, d2), rng), rng.standard_normal(m)


def top(layers, A, b):
    """The largest eigenvalue of the dense Hessian."""
    return np.linalg.eigvalsh(hessian(layers, A.rotated(*map(np.eye, A.matrix_shape)), b))[-1]


def programme(A, b):
    """The least sharpness of two layers as a semidefinite programme, straight from its definition."""
    matrices = A.rotated(*map(np.eye, A.matrix_shape))
    d1, d2 = A.matrix_shape
    Z, t = cp.Variable((d1 + d2, d1 + d2), PSD=True), cp.Variable()
    P, Q, E = Z[:d1, :d1], Z[d1:, d1:], Z[:d1, d1:]
    seen = [[cp.trace(X.T @ P @ Y) + cp.trace(X @ Q @ Y.T) for Y in matrices] for X in matrices]
    constraints = [cp.trace(X.T @ E) == value for X, value in zip(matrices, b, strict=True)]
    problem = cp.Problem(cp.Minimize(t), [*constraints, t * np.eye(A.m) - cp.bmat(seen) >> 0])
    return 2 / A.m * problem.solve(solver=cp.CLARABEL)


@pytest.mark.parametrize(("d1", "d2", "m"), [(2, 2, 2), (3, 2, 4), (2, 4, 6), (3, 3, 5), (4, 1, 2)])
def test_two_layers_equal_the_semidefinite_programme(d1, d2, m):
    A, b = instance(d1 + 7 * m, d1, d2, m)
    solution = bf.flattest_sharpness(A, b, 2, rng=0)
    assert solution.value == pytest.approx(programme(A, b), rel=1e-5)
    assert top(solution.layers, A, b) == pytest.approx(solution.value, rel=1e-10)
    assert solution.status is bf.Status.OPTIMAL
    assert solution.certificate.gap <= 1e-7
    assert solution.certificate.feasibility <= 1e-12


@pytest.mark.parametrize("seed", range(2))
def test_the_gap_closes_at_two_layers(seed):
    A, b = instance(seed, 5, 4, 12)
    solution = bf.flattest_sharpness(A, b, 2, rng=0)
    assert solution.certificate.gap <= 1e-7
    other = bf.flat_minimum(A, b)
    assert solution.value < bf.curvature.sharpness(other.layers, A, b)


def brute_force(A, b, depth, starts, rng):
    """The least sharpness over the factorizations, of every matrix that fits, by a search without derivatives."""
    rows = A.rotated(*map(np.eye, A.matrix_shape)).reshape(A.m, -1)
    first, kernel = np.linalg.lstsq(rows, b, rcond=None)[0], scipy.linalg.null_space(rows)

    def value(z, tol):
        return bf.minimal_sharpness((first + kernel @ z).reshape(A.matrix_shape), A, depth, tol=tol).value

    def search(z, tol, xatol, fatol):
        options = {"xatol": xatol, "fatol": fatol, "maxfev": 400}
        return minimize(value, z, (tol,), method="Nelder-Mead", options=options)

    ends = [search(rng.standard_normal(kernel.shape[1]) * np.linalg.norm(first), 1e-3, 1e-2, 1e-2) for _ in range(starts)]
    return search(min(ends, key=lambda end: end.fun).x, 1e-6, 1e-5, 1e-9).fun  # the simplex starts anew


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "d1", "d2", "m", "L"), [(0, 2, 2, 2, 3), (1, 3, 2, 4, 3), (2, 2, 3, 5, 4), (3, 2, 2, 3, 5)])
def test_more_layers_equal_brute_force(seed, d1, d2, m, L):
    A, b = instance(seed, d1, d2, m)
    solution = bf.flattest_sharpness(A, b, L, rng=0)
    least = brute_force(A, b, L, 3, np.random.default_rng(seed))
    assert solution.value <= least * (1 + 1e-6)
    assert solution.certificate.lower_bound <= least * (1 + 1e-8)
    assert top(solution.layers, A, b) == pytest.approx(solution.value, rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("d1", "m", "L"), [(2, 2, 3), (3, 4, 3), (3, 4, 4)])
def test_no_matrix_nearby_is_less_sharp_and_none_is_below_the_bound(d1, m, L):
    A, b = instance(L, d1, 2, m)
    solution = bf.flattest_sharpness(A, b, L, rng=0)
    assert solution.status.ok
    assert solution.certificate.lower_bound <= solution.value
    rng = np.random.default_rng(L)
    kernel = scipy.linalg.null_space(A.rotated(np.eye(d1), np.eye(2)).reshape(m, -1))
    for size in (1e-4, 1e-2, 1.0):
        for z in rng.standard_normal((4, kernel.shape[1])):
            E = solution.matrix + size * (kernel @ z).reshape(d1, 2)
            near = bf.minimal_sharpness(E, A, L, tol=1e-9)
            assert near.value >= solution.value * (1 - 1e-7)


@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize("n", [2, 4])
def test_regressions_have_the_closed_form_whatever_the_data_leave_open(n, L):
    rng = np.random.default_rng(n)
    X, M = rng.standard_normal((n, 3)), rng.standard_normal((2, 3))
    A = bf.measurements.RankOne(np.tile(np.eye(2), (n, 1)), np.repeat(X, 2, axis=0))
    solution = bf.flattest_sharpness(A, A(M), L, rng=0)
    assert solution.value == pytest.approx(bf.closed_forms.minimal_sharpness(X.T @ X / n, M, L) / 2, rel=1e-7)
    assert solution.status is bf.Status.OPTIMAL
    assert solution.certificate.gap <= 1e-5


@pytest.mark.parametrize("L", [2, 3])
def test_one_measurement_and_determined_matrices_are_proved(L):
    A, b = instance(0, 3, 2, 1)
    one = bf.flattest_sharpness(A, b, L, rng=0)
    assert one.value == pytest.approx(bf.flat_minimum(A, b, L, rng=0).value * (np.sqrt(6) if L == 2 else 1), rel=1e-9)
    A, _ = instance(1, 3, 2, 6)
    M = np.arange(6.0).reshape(3, 2) - 2
    known = bf.flattest_sharpness(A, A(M), L, rng=0)
    assert known.value == pytest.approx(bf.minimal_sharpness(M, A, L).value, rel=1e-7)
    for solution in (one, known):
        assert solution.status is bf.Status.OPTIMAL
        assert solution.certificate.gap <= 1e-7


def test_the_dual_vectors_prove_the_bound():
    A, b = instance(3, 3, 3, 5)
    solution = bf.flattest_sharpness(A, b, 2, rng=0)
    Y = solution.certificate.dual
    assert np.sum(Y**2) == pytest.approx(1, rel=1e-12)
    rotated = bf.measurements.Dense(np.array([A.adjoint(y) for y in Y.T]))
    pair = bf.flat_minimum(rotated, Y.T @ b, tol=1e-10)
    assert pair.certificate.lower_bound * 3 / A.m == pytest.approx(solution.certificate.lower_bound, rel=1e-8)


@pytest.mark.parametrize("L", [2, 3, 4])
def test_derivatives_are_those_of_differences(L):
    A, b = instance(L, 3, 2, 4)
    rng = np.random.default_rng(L)
    layers = [rng.standard_normal(shape) for shape in zip([2] * (L - 1) + [3], [2] * L, strict=True)]
    point = SharpPoint(A.matrices, b, layers, 0.7)
    direction = rng.standard_normal(point.x.size)

    def moved(t):
        return SharpPoint(A.matrices, b, point._shaped(point.x + t * direction), point.beta)

    gradient, second = point._expansion()
    h = 1e-5
    assert (moved(h).value - moved(-h).value) / (2 * h) == pytest.approx(gradient @ direction, rel=1e-6)
    change = (moved(h)._expansion()[0] - moved(-h)._expansion()[0]) / (2 * h)
    np.testing.assert_allclose(change, second @ direction, rtol=1e-5, atol=1e-6 * np.abs(change).max())
    y = rng.standard_normal(4)
    slopes = (jacobian(A.matrices, moved(h).layers) - jacobian(A.matrices, moved(-h).layers)).T @ y / (2 * h)
    np.testing.assert_allclose(slopes, bending(A.adjoint(y), layers) @ direction, rtol=1e-5, atol=1e-7)


@cache
def at_scale_one():
    A, b = instance(2, 2, 2, 2)
    return (A, b), bf.flattest_sharpness(A, b, 2, rng=0)


@pytest.mark.slow
@pytest.mark.parametrize("power", [-150, pytest.param(140, marks=pytest.mark.slow)])
def test_extreme_scales(power):
    (A, b), known = at_scale_one()
    far = bf.measurements.Dense(A.matrices * 10.0**power)
    for solution, exponent in (
        (bf.flattest_sharpness(far, b, 2, rng=0), power),
        (bf.flattest_sharpness(A, b * 10.0**power, 2, rng=0), power),
    ):
        assert solution.value / known.value == pytest.approx(10.0**exponent, rel=1e-7)
        assert solution.status is bf.Status.OPTIMAL


def test_what_is_not_seen_and_zero_data():
    entries = bf.measurements.Entries([0, 1, 1], [0, 0, 1], (4, 3))
    solution = bf.flattest_sharpness(entries, [1.0, 2.0, 3.0], 2, rng=0)
    assert solution.status is bf.Status.OPTIMAL
    assert not solution.matrix[2:].any()
    A, b = instance(0, 3, 2, 4)
    zero = bf.flattest_sharpness(A, 0 * b, 3)
    assert (zero.value, zero.status) == (0, bf.Status.OPTIMAL)
    unseen = bf.flattest_sharpness(bf.measurements.Dense(np.zeros((1, 2, 2))), [1.0], 2)
    assert unseen.status is bf.Status.INFEASIBLE


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize(("of_map", "of_data"), [(1.0, 1.0), (1e100, 1.0), (1.0, 1e-150), (1e-60, 1e200)])
def test_contradictions_are_proved_to_anyone_in_the_units_of_the_data(depth, of_map, of_data, tmp_path):
    A, b = instance(0, 3, 2, 4)
    twice = bf.measurements.Dense(np.concatenate([A.matrices, 3 * A.matrices[:1]]) * of_map)
    b = np.append(b, 3 * b[0] + 1) * of_data
    found = bf.flattest_sharpness(twice, b, depth)
    assert found.status is bf.Status.INFEASIBLE
    assert [len(W) for W in found.layers] == [1] * (depth - 1) + [3]
    y = found.certificate.dual
    assert b @ y > 0
    reach = sum(abs(each) * np.linalg.norm(M / of_map) for each, M in zip(y, twice.matrices, strict=True))
    least = b @ y / of_map / reach / 1e-12
    assert found.certificate.excluded_norm > least > 1e6 * np.abs(b).max() / of_map
    assert found.certificate.excluded_norm == found.verify(twice, b).excluded_norm
    assert f"nuclear norm up to {found.certificate.excluded_norm:.3g} fits" in found.message
    found.save(tmp_path / "none.npz")
    assert bf.Solution.load(tmp_path / "none.npz", twice, b).status is bf.Status.INFEASIBLE
    b[-1] = 3 * b[0]
    assert bf.Solution.load(tmp_path / "none.npz", twice, b).status is bf.Status.GAP_OPEN


def test_the_same_seed_gives_the_same_network_callbacks_and_bad_input():
    A, b = instance(5, 3, 2, 4)
    seen = []
    first, second = (bf.flattest_sharpness(A, b, 2, rng=4, callback=call) for call in (seen.append, None))
    assert first.value == second.value
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert [record["value"] for record in seen] == list(first.history["value"])
    with pytest.raises(ValueError, match="b has shape"):
        bf.flattest_sharpness(A, b[1:], 2)
    with pytest.raises(ValueError, match="depth"):
        bf.flattest_sharpness(A, b, 1)
    with pytest.raises(ValueError, match="A is list"):
        bf.flattest_sharpness([], b, 2)
    with pytest.raises(ValueError, match="gap_tol"):
        bf.flattest_sharpness(A, b, 2, gap_tol=-1.0)


@pytest.mark.few(1)
@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.6])
def test_a_limit_on_seconds_leaves_a_network_that_fits_or_says_that_there_is_none(depth, share, monkeypatch):
    """Whenever time is up; the clock counts the looks at it."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    A, b = instance(3, 2, 2, 3)
    bf.flattest_sharpness(A, b, depth, rng=0)
    solution = bf.flattest_sharpness(A, b, depth, rng=0, limits=bf.Limits(seconds=share * next(ticks)))
    if share < 0.5:  # a beginning that is cut short may leave time for the rest
        assert solution.status is bf.Status.LIMIT
    if share > 0.02:
        assert np.linalg.norm(A(solution.matrix) - b) <= 1e-10 * np.linalg.norm(b)
        assert top(solution.layers, A, b) == pytest.approx(solution.value, rel=1e-10)
        assert solution.certificate.lower_bound <= solution.value
    else:
        assert solution.value == np.inf or top(solution.layers, A, b) == pytest.approx(solution.value, rel=1e-10)
