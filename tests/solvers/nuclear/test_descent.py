from itertools import pairwise

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

import balancedfact as bf
from balancedfact.measurements import Dense, Entries, _pair_gram, bernoulli_mask, bilinear, gaussian
from balancedfact.solvers.nuclear import _descent
from balancedfact.solvers.nuclear._descent import _dense_preconditioner, _Objective, _preconditioner, descend
from balancedfact.solvers.nuclear._problem import OffsetTerms, balanced
from tests.maps import Minimal
from tests.oracles import unpacked
from tests.solvers.conic import explicit

pytestmark = pytest.mark.filterwarnings("error")

MAPS = {
    "dense": gaussian(18, (5, 4), rng=0),
    "rank-one": bilinear(18, (5, 4), rng=1),
    "entries": bernoulli_mask((5, 4), 0.9, rng=2),
    "minimal": Minimal(gaussian(18, (5, 4), rng=3).matrices),
}


def flat_vector(pair):
    return np.concatenate([pair[0].ravel(), pair[1].ravel()])


def objective(A, b, q, shapes):
    """The objective of the descent as a function of all entries of the factors, from its definition."""
    rows = np.reshape(explicit(A), (A.m, -1))

    def value(theta):
        L, R = unpacked(theta, shapes)
        error = anp.dot(rows, anp.ravel(anp.dot(L, R.T))) - b
        return 0.5 * anp.sum(error**2) + 0.5 * q * anp.sum(theta**2)

    def measured(theta):
        L, R = unpacked(theta, shapes)
        return anp.dot(rows, anp.ravel(anp.dot(L, R.T)))

    return value, measured


def density(A):
    return float(np.sum(A.row_norms**2)) / (A.matrix_shape[0] * A.matrix_shape[1])


def skew(k):
    for i in range(k):
        for j in range(i):
            K = np.zeros((k, k))
            K[i, j], K[j, i] = 1, -1
            yield K


class Stop(Exception):
    pass


@pytest.mark.parametrize("q", [0.0, 0.7])
@pytest.mark.parametrize("name", MAPS)
def test_the_model_has_the_gradient_and_the_hessian_of_the_objective(name, q, rng, monkeypatch):
    A = MAPS[name]
    b = rng.standard_normal(A.m)
    start = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
    model = {}

    def capture(hessian, slope, radius, *, accuracy, max_products, precondition):
        model.update(hessian=hessian, precondition=precondition, slope=slope)
        raise Stop

    monkeypatch.setattr(_descent, "trust_region_step", capture)
    with pytest.raises(Stop):
        descend(A, b, q, *start, density=density(A), watch=lambda *at: model.update(at=at[:2]))
    L, R = model["at"]
    np.testing.assert_allclose(L @ R.T, start[0] @ start[1].T, atol=1e-13)
    np.testing.assert_allclose(L.T @ L, R.T @ R, atol=1e-12)
    value, measured = objective(A, b, q, [(5, 3), (4, 3)])
    theta = flat_vector((L, R))
    gradient = autograd.grad(value)(theta)
    np.testing.assert_allclose(model["slope"].ravel(), gradient, atol=1e-12 * np.abs(gradient).max())
    if q > 0:
        expected = autograd.hessian(value)(theta)
    else:  # to be interpolated: the part of the residual is left out
        jacobian = autograd.jacobian(measured)(theta)
        expected = jacobian.T @ jacobian
    columns = [model["hessian"](unit.reshape(9, 3)).ravel() for unit in np.eye(theta.size)]
    np.testing.assert_allclose(np.transpose(columns), expected, atol=1e-11 * np.abs(expected).max())
    columns = [model["precondition"](unit.reshape(9, 3)).ravel() for unit in np.eye(theta.size)]
    np.testing.assert_allclose(columns, np.transpose(columns), atol=1e-12 * np.abs(columns).max())
    assert np.linalg.eigvalsh(columns)[0] > 0


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (3, 4)])
@pytest.mark.parametrize("q", [0.7, 0.02])
def test_the_preconditioner_inverts_the_hessian_of_an_isometry(q, shape, rng):
    # At a minimiser of |X - M|^2 / 2 + q (|L|^2 + |R|^2) / 2 for a matrix M that is low-rank beyond the penalty.
    truth, R, s = balanced(rng.standard_normal((shape[0], 3)), rng.standard_normal((shape[1], 3)))
    M = truth @ np.diag((s + q) / s) @ R.T
    A = Entries(*np.divmod(np.arange(M.size), shape[1]), shape)
    curved = A.pair_hessian(truth, R, A(M - truth @ R.T))
    inverse = _preconditioner(truth, R, s, 1.0, q)
    for _ in range(3):
        step = rng.standard_normal(truth.shape), rng.standard_normal(R.shape)
        G, H = curved(*step)
        once = inverse((G + q * step[0], H + q * step[1]))
        G, H = curved(*once)
        again = inverse((G + q * once[0], H + q * once[1]))
        # A projection along the rotations (L X, R X), X skew, which the objective does not see.
        np.testing.assert_allclose(flat_vector(again), flat_vector(once), atol=1e-5 * np.abs(flat_vector(step)).max())
        gone = flat_vector(step) - flat_vector(once)
        rotations = [flat_vector((truth @ K, R @ K)) for K in skew(3)]
        left = gone - np.transpose(rotations) @ np.linalg.lstsq(np.transpose(rotations), gone, rcond=None)[0]
        np.testing.assert_allclose(left, 0, atol=1e-5 * np.abs(flat_vector(step)).max())


@pytest.mark.parametrize("q", [0.7, 0.02])
def test_horizontal_steps_neither_rotate_nor_unbalance(q, rng):
    L, R, s = balanced(rng.standard_normal((6, 3)), rng.standard_normal((5, 3)))
    inverse = _preconditioner(L, R, s, 1.3, q, horizontal=True)
    columns = []
    for unit in np.eye(33):
        step = inverse((unit[:18].reshape(6, 3), unit[18:].reshape(5, 3)))
        columns.append(flat_vector(step))
        change = L.T @ step[0] + step[0].T @ L - R.T @ step[1] - step[1].T @ R  # of L'L - R'R
        np.testing.assert_allclose(change, 0, atol=1e-6 * np.linalg.norm(columns[-1]))
        rotations = np.array([flat_vector((L @ K, R @ K)) for K in skew(3)])
        np.testing.assert_allclose(rotations @ columns[-1], 0, atol=1e-6 * np.linalg.norm(columns[-1]))
    np.testing.assert_allclose(columns, np.transpose(columns), atol=1e-12 * np.abs(columns).max())
    values = np.linalg.eigvalsh(columns)
    assert np.count_nonzero(values > 1e-6 * values[-1]) == 33 - 9  # 3 rotations and 6 ways to unbalance
    assert values[0] > -1e-9 * values[-1]


def naive_hessian(target, x, residual):
    """The matrix of the Hessian, one unit vector at a time."""
    product, first = target.hessian(x, residual), x[0].size
    units = np.eye(first + x[1].size)
    return np.array([flat_vector(product(e[:first].reshape(x[0].shape), e[first:].reshape(x[1].shape))) for e in units])


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
@pytest.mark.parametrize("q", [0.0, 0.7])
@pytest.mark.parametrize(("k", "with_offsets"), [(1, False), (3, False), (6, False), (0, True), (3, True)])
def test_the_matrix_of_the_hessian_is_that_of_its_products(name, scale, q, k, with_offsets, rng):
    A = MAPS[name].select(np.arange(MAPS[name].m), np.full(MAPS[name].m, scale))
    residual = rng.standard_normal(A.m) / scale
    terms = OffsetTerms(*(rng.standard_normal(d) for d in (5, 4)), *(rng.uniform(1, 2, d) for d in (5, 4)))
    target = _Objective(A, np.zeros(A.m), q, 1.0, terms if with_offsets else None)
    L, R, a, c = (rng.standard_normal(shape) for shape in ((5, k), (4, k), 5, 4))
    x = target.joined(L, R, (a, c))
    expected = naive_hessian(target, x, residual)
    found = target.hessian_matrix(x, residual)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14 * A.m * np.abs(expected).max())
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("kind", ["dense", "rank-one"])
def test_the_matrix_of_the_hessian_is_summed_over_blocks_of_measurements(kind, monkeypatch, rng):
    A = MAPS[kind]
    L, R = rng.standard_normal((5, 2)), rng.standard_normal((4, 2))
    whole = A.pair_gram(L, R)
    monkeypatch.setattr(_pair_gram, "_NUMBERS_AT_ONCE", 18 * 4 + 1)  # four of eighteen measurements, two in the last block
    np.testing.assert_allclose(A.pair_gram(L, R), whole, atol=1e-13 * np.abs(whole).max())


def test_the_dense_preconditioner_is_the_inverse_of_the_hessian(rng):
    target = _Objective(MAPS["dense"], np.zeros(18), 0.3, 1.0, None)
    x, residual = (rng.standard_normal((5, 2)), rng.standard_normal((4, 2))), np.zeros(18)
    curved, precondition = target.hessian(x, residual), _dense_preconditioner(target.hessian_matrix(x, residual), x)
    for _ in range(3):
        step = rng.standard_normal((5, 2)), rng.standard_normal((4, 2))
        np.testing.assert_allclose(flat_vector(precondition(curved(*step))), flat_vector(step), atol=1e-9)


@pytest.mark.parametrize("name", MAPS)
def test_the_descent_ends_at_a_stationary_point_faster_than_linearly(name, rng):
    A = MAPS[name]
    b = A(rng.standard_normal((5, 2)) @ rng.standard_normal((2, 4)))
    L, R = rng.standard_normal((5, 2)), rng.standard_normal((4, 2))
    value, _ = objective(A, b, 0.5, [(5, 2), (4, 2)])
    seen = []
    end = descend(A, b, 0.5, L, R, density=density(A), watch=lambda L, R, r: seen.append((flat_vector((L, R)), r)))
    norms = [np.linalg.norm(autograd.grad(value)(theta)) for theta, _ in seen]
    assert norms[-1] <= 1e-11 * norms[0]
    np.testing.assert_allclose(end.gradient_norm, norms[-1], atol=1e-13 * norms[0])
    np.testing.assert_allclose(end.residual, b - A(end.L @ end.R.T), atol=1e-13)
    np.testing.assert_array_equal(seen[-1][0], flat_vector((end.L, end.R)))
    values = [value(theta) for theta, _ in seen]
    assert all(after <= before * (1 + 1e-13) for before, after in pairwise(values))
    fast = [after / before for before, after in pairwise(norms) if 1e-9 * norms[0] < before < 1e-2 * norms[0]]
    assert min(fast) <= 1e-2
    assert len(norms) <= 60


@pytest.mark.parametrize("name", MAPS)
def test_wide_enough_factors_end_at_the_global_minimum(name, rng):
    A = MAPS[name]
    b = A(rng.standard_normal((5, 2)) @ rng.standard_normal((2, 4)))
    best = bf.norm_minimum(A, b, penalty=0.5, rng=0)
    for seed in range(5):
        start = np.random.default_rng(seed)
        L, R = start.standard_normal((5, 4)), start.standard_normal((4, 4))
        end = descend(A, b, 0.5, L, R, density=density(A))
        found = objective(A, b, 0.5, [(5, 4), (4, 4)])[0](flat_vector((end.L, end.R)))
        np.testing.assert_allclose(found, best.value, rtol=1e-7)


@pytest.mark.parametrize("name", MAPS)
def test_the_descent_leaves_a_saddle(name, rng):
    # A stationary pair of one column is a saddle among pairs of four when the solution is of higher rank.
    A = MAPS[name]
    b = A(rng.standard_normal((5, 2)) @ rng.standard_normal((2, 4)))
    low = descend(A, b, 0.1, rng.standard_normal((5, 1)), rng.standard_normal((4, 1)), density=density(A))
    L = np.hstack([low.L, 1e-7 * rng.standard_normal((5, 3))])
    R = np.hstack([low.R, 1e-7 * rng.standard_normal((4, 3))])
    value, _ = objective(A, b, 0.1, [(5, 4), (4, 4)])
    saddle = flat_vector((L, R))
    assert np.linalg.norm(autograd.grad(value)(saddle)) <= 1e-5
    assert np.linalg.eigvalsh(autograd.hessian(value)(saddle))[0] < -0.01
    end = descend(A, b, 0.1, L, R, density=density(A))
    found = value(flat_vector((end.L, end.R)))
    assert found < 0.9 * value(saddle)
    np.testing.assert_allclose(found, bf.norm_minimum(A, b, penalty=0.1, rng=0).value, rtol=1e-7)


@pytest.mark.parametrize("name", MAPS)
def test_data_of_low_rank_are_interpolated(name, rng):
    A = MAPS[name]
    truth = rng.standard_normal((5, 2)) @ rng.standard_normal((2, 4))
    b = A(truth)
    U, s, Vt = np.linalg.svd(truth)
    near = U[:, :2] * s[:2] + 0.05 * rng.standard_normal((5, 2)), Vt[:2].T + 0.05 * rng.standard_normal((4, 2))
    end = descend(A, b, 0.0, *near, density=density(A))
    assert np.linalg.norm(end.residual) <= 1e-13 * np.linalg.norm(b)
    if name != "entries":
        np.testing.assert_allclose(end.L @ end.R.T, truth, atol=1e-10)
    loose = descend(A, b, 0.0, *near, density=density(A), residual_tol=1e-3 * np.linalg.norm(b))
    assert 1e-9 * np.linalg.norm(b) < np.linalg.norm(loose.residual) <= 1e-3 * np.linalg.norm(b)


def test_data_that_no_pair_fits_are_fitted_best(rng):
    A = MAPS["dense"]
    b = rng.standard_normal(A.m)
    L, R = rng.standard_normal((5, 4)), rng.standard_normal((4, 4))
    end = descend(A, b, 0.0, L, R, density=density(A))
    rows = np.reshape(A.matrices, (A.m, -1))  # fewer measurements than entries: everything is fitted
    np.testing.assert_allclose(rows @ (end.L @ end.R.T).ravel(), b, atol=1e-10)
    more = gaussian(30, (5, 4), rng)
    b = rng.standard_normal(30)
    end = descend(more, b, 0.0, L, R, density=density(more))
    rows = np.reshape(more.matrices, (30, -1))
    least = np.linalg.norm(rows @ np.linalg.lstsq(rows, b, rcond=None)[0] - b)
    np.testing.assert_allclose(np.linalg.norm(end.residual), least, rtol=1e-8)


def test_tolerances_and_budget_end_the_descent(rng):
    A = MAPS["rank-one"]
    b = A(rng.standard_normal((5, 4)))
    L, R = rng.standard_normal((5, 2)), rng.standard_normal((4, 2))
    full = descend(A, b, 0.3, L, R, density=density(A))
    loose = descend(A, b, 0.3, L, R, density=density(A), gradient_tol=1e-2)
    assert full.gradient_norm < 1e-9 < loose.gradient_norm <= 1e-2
    calls = []
    short = descend(A, b, 0.3, L, R, density=density(A), max_products=5, watch=lambda *_: calls.append(None))
    assert len(calls) <= 6
    assert short.gradient_norm > loose.gradient_norm
    at_once = descend(A, b, 0.3, L, R, density=density(A), gradient_tol=1e9)
    np.testing.assert_allclose(at_once.L @ at_once.R.T, L @ R.T, atol=1e-13)
    again = descend(A, b, 0.3, full.L, full.R, density=density(A))
    np.testing.assert_allclose(again.L @ again.R.T, full.L @ full.R.T, atol=1e-10)


@pytest.mark.parametrize("seed", [1, 11])
def test_a_misfit_that_does_not_fall_ends_the_descent_to_zero_misfit(seed, monkeypatch):
    """Measurements that all but depend on one another: rank one fits to seven digits, and no step gains more."""
    rng, misfits = np.random.default_rng(seed), []
    base, mix = rng.standard_normal((2, 4, 4)), rng.integers(-2, 3, (6, 2)).astype(float)
    A = Dense(np.tensordot(mix, base, 1) + 1e-6 * rng.standard_normal((6, 4, 4)))
    b = A(rng.standard_normal((4, 4)))
    start = rng.standard_normal((4, 1)), rng.standard_normal((4, 1))

    def fitted():
        misfits.clear()
        note = {"watch": lambda L, R, residual: misfits.append(residual @ residual)}
        end = descend(A, b, 0.0, *start, density=1.0, residual_tol=1e-14 * np.linalg.norm(b), **note)
        return len(misfits), np.linalg.norm(end.residual)

    steps, misfit = fitted()
    monkeypatch.setattr(_descent, "_FRUITLESS", 10**6)
    more, best = fitted()
    assert steps <= 40 < 100 < more
    assert misfit <= 1.001 * best


def test_entries_of_very_uneven_weights_end_in_an_answer():
    """Found by attack: nothing of the slope was left after the preconditioner, and zero was divided by zero."""
    A = Entries([4, 3, 1], [1, 0, 1], (5, 2), [1.2592939077399265e-08, 0.44305473275769264, 3.5396239826245726e-10])
    solution = bf.flat_minimum(A, [0.4107419241062063, 0.6562468838462021, 5.0625704764829314e-11], rng=0)
    assert solution.status in (bf.Status.OPTIMAL, bf.Status.GAP_OPEN)
    assert solution.certificate.lower_bound <= solution.value * (1 + 1e-12)
