import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from scipy.optimize import minimize

import balancedfact as bf
from tests.oracles import unpacked

shrinkage, schatten = bf.closed_forms.schatten_shrinkage, bf.closed_forms.schatten_value


def instance(seed, d1=4, d2=3, m=10, rank=2):
    rng = np.random.default_rng(seed)
    A = bf.measurements.gaussian(m, (d1, d2), rng)
    return A, A(rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))) + 0.2 * rng.standard_normal(m)


def objective(A, b, penalty, shapes):
    """The loss with weight decay of the entries of all layers, straight from its definition."""
    matrices = A.rotated(*map(np.eye, A.matrix_shape))

    def value(theta):
        E = np.eye(A.matrix_shape[1])
        for W in unpacked(theta, shapes):
            E = anp.dot(W, E)
        misfit = anp.tensordot(matrices, E, 2) - b
        return anp.sum(misfit**2) / 2 + penalty / 2 * anp.sum(theta**2)

    return value


@pytest.mark.few(2)
@pytest.mark.parametrize("L", [3, 4, 6])
@pytest.mark.parametrize("penalty", [0.05, 0.3, 1.0, 3.0])
def test_full_observation_is_shrinkage(L, penalty):
    Y = np.random.default_rng(L).standard_normal((5, 4))
    A = bf.measurements.Entries(*np.nonzero(np.ones((5, 4))), (5, 4))
    solution = bf.norm_minimum(A, A(Y), depth=L, penalty=penalty)
    E = shrinkage(Y, penalty, L)
    expected = np.sum((E - Y) ** 2) / 2 + penalty / 2 * schatten(E, L)
    assert solution.value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(solution.matrix, E, atol=1e-9)
    assert solution.certificate.lower_bound <= expected * (1 + 1e-12)
    assert solution.status is bf.Status.OPTIMAL


@pytest.mark.few(1)
@pytest.mark.parametrize(("L", "penalty"), [(3, 0.1), (3, 5.0), (4, 1.0)])
def test_first_and_second_order_are_those_of_automatic_differentiation(L, penalty):
    A, b = instance(L)
    solution = bf.norm_minimum(A, b, depth=L, penalty=penalty)
    assert solution.status.ok
    theta = np.concatenate([W.ravel() for W in solution.layers])
    value = objective(A, b, penalty, [W.shape for W in solution.layers])
    assert value(theta) == pytest.approx(solution.value, rel=1e-12)
    assert np.linalg.norm(autograd.grad(value)(theta)) <= 1e-7 * penalty * np.linalg.norm(theta)
    curvatures = np.linalg.eigvalsh(autograd.hessian(value)(theta))
    assert curvatures[0] >= -1e-8 * curvatures[-1]


@pytest.mark.few(1)
@pytest.mark.parametrize("L", [3, 4])
def test_descents_from_random_layers_end_above_the_bound_and_the_value(L):
    A, b = instance(10 + L)
    solution = bf.norm_minimum(A, b, depth=L, penalty=2.0)
    shapes = [(3, 3)] * (L - 1) + [(4, 3)]
    value, rng = objective(A, b, 2.0, shapes), np.random.default_rng(L)
    for _ in range(4):
        start = 0.7 * rng.standard_normal(sum(rows * columns for rows, columns in shapes))
        found = minimize(autograd.value_and_grad(value), start, jac=True, method="BFGS", options={"maxiter": 300}).fun
        assert solution.certificate.lower_bound < found
        assert solution.value <= found * (1 + 1e-9)


@pytest.mark.parametrize(("L", "seed"), [(3, 0), (4, 1), (7, 2)])
def test_a_matrix_of_rank_one_is_proved_where_the_nuclear_norm_finds_it_too(L, seed):
    rng = np.random.default_rng(seed)
    A = bf.measurements.gaussian(40, (4, 3), rng)
    b = A(np.outer(rng.standard_normal(4), rng.standard_normal(3))) + 0.01 * rng.standard_normal(40)
    top = np.linalg.norm(A.adjoint_matrix(b), 2)
    convex = bf.norm_minimum(A, b, penalty=0.05 * top, tol=1e-12)
    t = np.linalg.norm(convex.matrix, "nuc")
    assert np.linalg.matrix_rank(convex.matrix, tol=1e-8 * t) == 1
    penalty = 0.05 * top * t ** (1 - 2 / L)
    solution = bf.norm_minimum(A, b, depth=L, penalty=penalty)
    assert solution.status is bf.Status.OPTIMAL
    assert solution.certificate.gap < 1e-9
    np.testing.assert_allclose(solution.matrix, convex.matrix, atol=1e-6 * t)
    shapes = [(3, 3)] * (L - 1) + [(4, 3)]
    value = objective(A, b, penalty, shapes)
    for scale in (0.5, 0.9):
        start = scale * rng.standard_normal(sum(rows * columns for rows, columns in shapes))
        found = minimize(autograd.value_and_grad(value), start, jac=True, method="BFGS", options={"maxiter": 60}).fun
        assert solution.certificate.lower_bound <= found * (1 + 1e-12)


def test_a_large_penalty_proves_the_collapse():
    A, b = instance(0, rank=1, m=12)
    collapsed = bf.norm_minimum(A, b, depth=3, penalty=1e3)
    assert collapsed.status is bf.Status.OPTIMAL
    assert not collapsed.matrix.any()
    assert collapsed.value == pytest.approx(b @ b / 2, rel=1e-12)
    assert len(collapsed.layers) == 3


def test_stationary_points_of_other_ranks_are_said():
    threshold, local = bf.closed_forms.collapse_threshold(0.5, 3)
    full = bf.measurements.Entries([0, 0, 1, 1], [0, 1, 0, 1], (2, 2))
    between = (threshold + local) / 2  # rank two is a minimum, and rank one is better
    solution = bf.norm_minimum(full, [3.0, 0.0, 0.0, between], depth=3, penalty=0.5)
    assert np.linalg.matrix_rank(solution.matrix) == 1
    solution = bf.norm_minimum(full, [3.0, 0.0, 0.0, 1.2 * threshold], depth=3, penalty=0.5)
    assert np.linalg.matrix_rank(solution.matrix) == 2
    assert "other ranks" in solution.message


@pytest.mark.parametrize("power", [-100, 100])
def test_extreme_scales(power):
    A, b = instance(3)
    known = bf.norm_minimum(A, b, depth=3, penalty=1.0)
    far = bf.measurements.Dense(A.matrices * 10.0**power)
    scaled = bf.norm_minimum(far, b, depth=3, penalty=10.0 ** (power * 2 / 3))
    assert scaled.value == pytest.approx(known.value, rel=1e-9)
    assert scaled.certificate.lower_bound == pytest.approx(known.certificate.lower_bound, rel=1e-6)


@pytest.mark.parametrize("power", [-150, 150])
def test_extreme_data(power):
    A, b = instance(3)
    known, share = bf.norm_minimum(A, b, depth=3, penalty=1.0), 10.0**power
    scaled = bf.norm_minimum(A, share * b, depth=3, penalty=share ** (4 / 3))
    assert scaled.value == pytest.approx(known.value * share**2, rel=1e-9)
    assert scaled.certificate.gap == pytest.approx(known.certificate.gap, rel=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("share", "penalty"),
    [
        (1e-200, 1e-300),
        pytest.param(1.0, 1e-40, marks=pytest.mark.slow),
        pytest.param(1e200, 1.0, marks=pytest.mark.slow),
        pytest.param(1.0, 1e-300, marks=pytest.mark.slow),
    ],
)
def test_values_and_penalties_beyond_numbers_prove_nothing(share, penalty):
    A, b = instance(3)
    solution = bf.norm_minimum(A, share * b, depth=3, penalty=penalty)
    assert solution.status is bf.Status.GAP_OPEN
    assert not solution.certificate.gap <= 1e-3


def test_the_heaviest_penalty_proves_the_collapse_without_a_search():
    A, b = instance(3)
    seen = []
    solution = bf.norm_minimum(A, b, depth=3, penalty=1e300, callback=seen.append)
    assert (solution.status, seen) == (bf.Status.OPTIMAL, [])
    assert not solution.matrix.any()
    assert solution.value == pytest.approx(b @ b / 2, rel=1e-12)


def test_limits_callbacks_zero_data_and_bad_input():
    A, b = instance(4)
    limited = bf.norm_minimum(A, b, depth=3, penalty=1.0, limits=bf.Limits(iterations=2))
    assert limited.status is bf.Status.LIMIT
    assert limited.certificate.lower_bound <= limited.value
    seen = []
    bf.norm_minimum(A, b, depth=3, penalty=1.0, callback=seen.append)
    assert seen[-1]["smoothing"] < seen[0]["smoothing"]
    zero = bf.norm_minimum(A, 0 * b, depth=3, penalty=1.0)
    assert (zero.value, zero.status) == (0, bf.Status.OPTIMAL)
    with pytest.raises(ValueError, match="penalty"):
        bf.norm_minimum(A, b, depth=3, penalty=-1.0)
    with pytest.raises(ValueError, match="max_rank is 2 at depth 3"):
        bf.norm_minimum(A, b, depth=3, penalty=1.0, max_rank=2)
    with pytest.raises(ValueError, match="method is 'no such'"):
        bf.norm_minimum(A, b, depth=3, penalty=1.0, method="no such")
