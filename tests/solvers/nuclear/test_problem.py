import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.measurements import bernoulli_mask, gaussian
from balancedfact.solvers.nuclear._problem import NuclearProblem, Point, balanced, balanced_from_matrix
from tests.oracles import adjoint, forward
from tests.solvers.conic import ENSEMBLES, conic_minimum, explicit
from tests.solvers.points import frame_of

pytestmark = pytest.mark.filterwarnings("error")


def point(Z, y):
    return Point(*balanced_from_matrix(Z), y)


@given(
    st.sampled_from(sorted(ENSEMBLES)),
    st.sampled_from([0.0, 0.3]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-9, 1.0, 1e9]),
)
def test_any_dual_vector_and_any_matrix_are_on_either_side_of_the_optimum(name, penalty, seed, size):
    rng, problem = np.random.default_rng(seed), frame_of(name, True, penalty).problem
    optimum = normalised_optimum(name, penalty)
    Z = size * rng.standard_normal(problem.map.matrix_shape)
    y = size * rng.standard_normal(problem.map.m) + rng.choice([0.0, size]) * problem.b
    verdict = problem.judge(point(Z, y), rng)
    matrices = explicit(problem.map)
    assert verdict.lower <= optimum * (1 + 1e-9)
    assert np.linalg.norm(adjoint(matrices, verdict.y), 2) <= 1
    np.testing.assert_allclose(verdict.lower, problem.b @ verdict.y - problem.q * verdict.y @ verdict.y / 2, atol=1e-15)
    assert verdict.lower >= 0  # the vector is scaled to its best length, and turned round never
    error = forward(matrices, Z) - problem.b
    np.testing.assert_allclose(verdict.residual, np.linalg.norm(error) / np.linalg.norm(problem.b), rtol=1e-9)
    if penalty > 0:
        expected = np.linalg.norm(Z, "nuc") + error @ error / (2 * problem.q)
        np.testing.assert_allclose(verdict.value, expected, rtol=1e-9)
        assert verdict.value >= optimum * (1 - 1e-9)
    else:
        np.testing.assert_allclose(verdict.value, np.linalg.norm(Z, "nuc"), rtol=1e-9)


optima = {}


def normalised_optimum(name, penalty):
    """The optimum of a normalised problem: that of the norm-minimal one for the same map, in its own units."""
    if (name, penalty) not in optima:
        problem = frame_of(name, True, penalty).problem
        value, _ = conic_minimum(explicit(problem.map), problem.b, flat=False, penalty=problem.q)
        optima[name, penalty] = value / (problem.q if penalty > 0 else 2.0)
    return optima[name, penalty]


@pytest.mark.parametrize("name", ENSEMBLES)
@pytest.mark.parametrize("q", [0.0, 0.1, 1.0, 10.0])
def test_a_dual_vector_is_scaled_to_its_best_length(name, q, rng):
    normalised = frame_of(name, True, 0.0).problem
    problem = NuclearProblem(normalised.map, normalised.b, q)
    y = problem.b + 0.1 * rng.standard_normal(problem.map.m)
    Z = np.eye(*problem.map.matrix_shape)
    lower = problem.judge(point(Z, y), rng).lower
    norm = np.linalg.norm(adjoint(explicit(problem.map), y), 2)
    best = max(problem.b @ (t * y) - q * t**2 * y @ y / 2 for t in np.linspace(0, 1 / norm, 2001))
    np.testing.assert_allclose(lower, best, rtol=1e-5)
    assert lower >= best * (1 - 1e-12)
    for factor in (1e-3, 1e3):
        assert problem.judge(point(Z, factor * y), rng).lower == pytest.approx(lower, rel=1e-12)


def test_dual_vectors_that_prove_nothing_give_zero(rng):
    problem = frame_of("gaussian", True, 0.0).problem
    for y in (np.zeros(problem.map.m), -problem.b):
        verdict = problem.judge(point(np.eye(5, 6), y), rng)
        assert verdict.lower == 0
        np.testing.assert_array_equal(verdict.y, np.zeros(problem.map.m))


def test_the_sentence_says_how_the_bound_was_computed(rng):
    small = frame_of("gaussian", True, 0.0).problem
    assert "densely" in small.judge(point(np.eye(5, 6), small.b), rng).proof
    A = bernoulli_mask((800, 700), 0.01, rng)
    U, V = np.linalg.qr(rng.standard_normal((800, 2)))[0], np.linalg.qr(rng.standard_normal((700, 2)))[0]
    large = NuclearProblem(A, A.forward_factored(U, V), 0.0)
    y = large.b / np.linalg.norm(A.adjoint(large.b), 2)
    verdict = large.judge(Point(U, V, np.ones(2), y), rng)
    assert "randomised" in verdict.proof
    assert 0.5 * (large.b @ y) <= verdict.lower <= large.b @ y * (1 + 1e-12)


@pytest.mark.parametrize(("shape", "k"), [((5, 4), 2), ((5, 4), 7), ((1, 6), 3), ((6, 1), 1), ((50, 40), 5)])
def test_the_balanced_pair_of_a_product(shape, k, rng):
    L, R = rng.standard_normal((shape[0], k)), rng.standard_normal((shape[1], k))
    U, V, s = balanced(L, R)
    np.testing.assert_allclose(U @ V.T, L @ R.T, atol=1e-12 * k)
    np.testing.assert_allclose(U.T @ U, np.diag(s), atol=1e-11)
    np.testing.assert_allclose(V.T @ V, np.diag(s), atol=1e-11)
    expected = np.linalg.svd(L @ R.T, compute_uv=False)[: s.size]
    np.testing.assert_allclose(s, expected, atol=1e-11)
    assert U.shape[1] == min(k, *shape)


def test_the_balanced_pair_of_a_matrix_with_its_singular_values_lowered(rng):
    Z = rng.standard_normal((6, 4))
    singular = np.linalg.svd(Z, compute_uv=False)
    for threshold in (0.0, 0.5 * (singular[1] + singular[2]), 1.001 * singular[0]):
        L, R, s = balanced_from_matrix(Z, threshold)
        np.testing.assert_allclose(s, singular[singular > threshold] - threshold, atol=1e-12)
        np.testing.assert_allclose(L.T @ L, np.diag(s), atol=1e-12)
        np.testing.assert_allclose(R.T @ R, np.diag(s), atol=1e-12)
        # As the proximal map of the nuclear norm must.
        assert np.linalg.norm(Z - L @ R.T, 2) <= threshold + 1e-12
        assert np.vdot(Z - L @ R.T, L @ R.T) == pytest.approx(threshold * s.sum())
    assert balanced_from_matrix(np.zeros((3, 2)))[2].size == 0


def test_the_density_is_the_mean_square_of_all_weights(rng):
    A = gaussian(7, (4, 3), rng)
    assert NuclearProblem(A, np.ones(7), 0.0).density == pytest.approx(np.sum(A.matrices**2) / 12)
