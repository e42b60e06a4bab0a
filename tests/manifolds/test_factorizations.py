import itertools

import numpy as np
import pymanopt
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from pymanopt.optimizers import ConjugateGradient, TrustRegions

from balancedfact.manifolds import Factorizations, check_manifold
from tests import bad_input
from tests.manifolds import planted
from tests.manifolds.costs import isotropic_minimum, isotropic_trace, product


def matrix(rows, columns, rank, rng):
    return rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))


@st.composite
def problems(draw, most_layers=4):
    ends = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    rank = draw(st.integers(1, min(*ends)))
    hidden = draw(st.lists(st.integers(rank, rank + 2), min_size=1, max_size=most_layers - 1))
    seed = draw(st.integers(0, 1000))
    return matrix(ends[1], ends[0], rank, np.random.default_rng(seed)), [ends[0], *hidden, ends[1]], rank, seed


def flat(layers):
    return np.concatenate([np.ravel(part) for part in layers])


def unflat(numbers, shapes):
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1].astype(int)
    return [piece.reshape(shape) for piece, shape in zip(np.split(numbers, ends), shapes, strict=True)]


def derivative_of_product(layers):
    """The Jacobian of the product, one column per entry of the layers."""
    columns = []
    for unit in np.eye(flat(layers).size):
        V = unflat(unit, [layer.shape for layer in layers])
        columns.append(sum(product([*layers[:k], V[k], *layers[k + 1 :]]) for k in range(len(layers))).ravel())
    return np.array(columns).T


def orbit_directions(layers):
    """The velocities ``X_k W_k - W_k X_{k-1}`` of all unit matrices `X_k`, as columns."""
    columns = []
    for k in range(len(layers) - 1):
        for unit in np.eye(len(layers[k]) ** 2):
            X = unit.reshape(len(layers[k]), -1)
            velocity = [np.zeros_like(layer) for layer in layers]
            velocity[k], velocity[k + 1] = X @ layers[k], -layers[k + 1] @ X
            columns.append(flat(velocity))
    return np.array(columns).T


@given(problems())
def test_random_points_have_the_product_and_the_rank(problem):
    M, widths, rank, seed = problem
    manifold = Factorizations(M, widths, rng=seed)
    for layers in (manifold.random_point(), manifold.balanced_point()):
        assert [layer.shape for layer in layers] == list(zip(widths[1:], widths[:-1], strict=True))
        assert np.abs(product(layers) - M).max() < 1e-13 * max(1, np.abs(M).max())
        assert all(np.linalg.matrix_rank(layer, 1e-9) == rank for layer in layers)
        assert manifold.residual(layers) < 1e-12
    balanced = manifold.balanced_point()
    assert all(np.allclose(other.T @ other, one @ one.T) for one, other in itertools.pairwise(balanced))


@given(problems())
def test_tangent_space_is_that_of_the_orbit(problem):
    M, widths, rank, seed = problem
    manifold = Factorizations(M, widths, rng=seed)
    point = manifold.random_point()
    directions = orbit_directions(point)
    U, s, _ = np.linalg.svd(directions, full_matrices=False)
    basis = U[:, s > 1e-9 * s[0]]
    assert basis.shape[1] == manifold.dim
    for unit in np.eye(flat(point).size):
        vector = manifold.projection(point, unflat(unit, manifold.shapes))
        assert np.abs(flat(manifold.embedding(point, vector)) - basis @ (basis.T @ unit)).max() < 1e-7
    J = derivative_of_product(point)
    assert np.abs(J @ basis).max() < 1e-11 * np.abs(J).max()
    if max(widths[1:-1]) == rank:  # then they are all the directions that keep the product
        assert manifold.dim == J.shape[1] - np.linalg.matrix_rank(J, 1e-9 * np.linalg.norm(J))


@pytest.mark.slow
@settings(max_examples=20)
@given(problems(), st.integers(0, 30))
def test_passes_the_conformance_check(problem, seed):
    M, widths, *_ = problem
    report = check_manifold(Factorizations(M, widths, rng=seed), seed)
    assert report.ok, str(report)


@pytest.mark.few(5)
@planted.every_mistake
@pytest.mark.parametrize("widths", [[4, 2, 2, 3], pytest.param([4, 3, 2, 3], marks=pytest.mark.slow)])
def test_planted_mistakes_are_noticed(mistake, widths, rng):
    planted.assert_noticed(Factorizations, mistake, [matrix(3, 4, 2, rng), widths])


def test_the_metric_is_invariant(rng):
    """Starting elsewhere on the orbit, W_k -> H_k W_k H_{k-1}^{-1} with orthogonal H, changes no inner product of X."""
    M = matrix(4, 5, 3, rng)
    manifold = Factorizations(M, [5, 3, 3, 4], rng=rng)
    point, vector = manifold.random_point(), manifold.random_tangent_vector(manifold.random_point())
    other = manifold.random_point()
    moved = manifold.transport(point, other, vector)
    assert manifold.norm(other, moved) == pytest.approx(manifold.norm(point, vector), rel=1e-15)


def test_retraction_is_a_geodesic(rng):
    """The first variation of the energy of the path, among paths of invertible matrices with the same ends, vanishes."""
    X, bend = rng.standard_normal((2, 3, 3))
    manifold = Factorizations(np.eye(3), [3, 3, 3])
    times = np.linspace(0, 1, 801)
    path = np.array([manifold.retraction([np.eye(3), np.eye(3)], [t * X])[0] for t in times])

    def energy(size):
        bent = [scipy.linalg.expm(size * np.sin(np.pi * t) * bend) @ G for t, G in zip(times, path, strict=True)]
        steps = [(other - one) @ np.linalg.inv((one + other) / 2) for one, other in itertools.pairwise(bent)]
        return np.sum(np.square(steps)) * (len(times) - 1)

    assert energy(0.0) == pytest.approx(np.sum(X**2), rel=1e-4)
    assert abs(energy(1e-3) - energy(-1e-3)) / 2e-3 < 1e-3 * np.sum(X**2)
    assert abs(energy(1e-3) + energy(-1e-3) - 2 * energy(0.0)) / 1e-6 > 0.1  # it is not merely insensitive


@pytest.mark.slow
@pytest.mark.parametrize("widths", [[6, 3, 3, 3, 3, 5], [6, 5, 3, 4, 5, 5]])
def test_the_product_stays_exact_over_hundreds_of_steps(widths, rng):
    M = matrix(5, 6, 3, rng)
    manifold = Factorizations(M, widths, rng=rng)
    problem, point = problem_of(manifold), manifold.random_point()
    for _ in range(300):
        back = problem.riemannian_gradient(point) / problem.cost(point)
        point = manifold.retraction(point, 0.3 * manifold.random_tangent_vector(point) - 0.3 * back)
    size = np.prod([np.linalg.norm(layer, 2) for layer in point]) / np.linalg.norm(M, 2)
    assert size < 1e3  # else the product is not known that well
    assert np.linalg.norm(product(point) - M) < 1e-13 * np.linalg.norm(M)
    assert manifold.residual(point) < 1e-12


@pytest.mark.parametrize("widths", [[6, 3, 3, 5], [6, 5, 3, 5]])
def test_a_small_error_of_the_product_is_taken_out(widths, rng):
    manifold = Factorizations(matrix(5, 6, 3, rng), widths, rng=rng)
    point = manifold.random_point()
    off = [layer + 1e-8 * rng.standard_normal(layer.shape) for layer in point]
    again = manifold.retraction(off, manifold.zero_vector(off))
    assert np.linalg.norm(product(off) - manifold.M) > 1e-9 * np.linalg.norm(manifold.M)
    assert np.linalg.norm(product(again) - manifold.M) < 1e-14 * np.linalg.norm(manifold.M)
    assert np.abs(flat(again) - flat(point)).max() < 1e-6


def test_long_steps_are_cut(rng):
    manifold = Factorizations(matrix(4, 4, 2, rng), [4, 2, 2, 4], rng=rng)
    point, vector = manifold.random_point(), manifold.random_point()[1:2] * 2
    far = manifold.retraction(point, [1e9 * part for part in vector])
    assert np.isfinite(flat(far)).all()
    longest = max(np.linalg.norm(part) for part in vector)
    assert np.allclose(flat(far), flat(manifold.retraction(point, [8 / longest * part for part in vector])))


@pytest.mark.parametrize("scale", [1e-200, 1e-100, 1e100, 1e200])
def test_scales(scale, rng):
    M = scale * matrix(4, 5, 2, rng)
    manifold = Factorizations(M, [5, 2, 3, 4], rng=rng)
    assert manifold.rank == 2
    point = manifold.retraction(manifold.random_point(), manifold.random_tangent_vector(manifold.random_point()))
    assert np.abs(product(point) - M).max() < 1e-12 * scale
    assert manifold.residual(point) < 1e-12


def problem_of(manifold):
    return pymanopt.Problem(manifold, pymanopt.function.autograd(manifold)(isotropic_trace))


def spectrum(problem, point):
    """The eigenvalues of the Riemannian Hessian, on the matrices `X_k`."""
    manifold, rows = problem.manifold, []
    shapes = [part.shape for part in manifold.zero_vector(point)]
    for unit in np.eye(sum(a * b for a, b in shapes)):
        vector = manifold.to_tangent_space(point, unflat(unit, shapes))
        rows.append(flat(problem.riemannian_hessian(point, type(manifold.zero_vector(point))(vector))))
    return np.linalg.eigvalsh((np.array(rows) + np.array(rows).T) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [TrustRegions, ConjugateGradient])
@pytest.mark.parametrize(("depth", "wider"), [(2, 0), (2, 2), (3, 0), (3, 1), (5, 0), (10, 0)])
def test_the_isotropic_trace_reaches_its_minimum_from_far_starts(depth, wider, optimizer, rng):
    M = matrix(5, 7, 3, rng) * 3.0
    manifold = Factorizations(M, [7, *[3 + wider] * (depth - 1), 5], rng=depth)
    best = isotropic_minimum(M, depth)
    problem = problem_of(manifold)
    start = manifold.random_point()
    for _ in range(3):
        start = manifold.retraction(start, 2.0 * manifold.random_tangent_vector(start))
    result = optimizer(verbosity=0, max_iterations=600, min_gradient_norm=1e-6 * best).run(problem, initial_point=start)
    assert abs(result.cost - best) < 1e-8 * best
    assert np.linalg.norm(product(result.point) - M) < 1e-12 * np.linalg.norm(M)
    wide = manifold.embed(result.point, [7, *[6 + wider] * (depth - 1), 5])
    assert isotropic_trace(*wide) == pytest.approx(best, rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "starts"), [(2, 10), (3, 10), (5, 10), (10, 3)])
def test_every_start_reaches_the_minimum_and_the_hessian_is_well_conditioned(depth, starts):
    """At the minimum only the rotations of hidden layers cost nothing; the other directions have curvature of one order."""
    rng = np.random.default_rng(depth)
    M = matrix(9, 3, 3, rng) @ np.diag([1, 0.3, 0.05]) @ matrix(3, 12, 3, rng)
    manifold = Factorizations(M, [12, *[3] * (depth - 1), 9], rng=rng)
    problem, best = problem_of(manifold), isotropic_minimum(M, depth)
    for _ in range(starts):
        result = TrustRegions(verbosity=0, max_iterations=100, min_gradient_norm=1e-6 * best).run(
            problem, initial_point=manifold.random_point()
        )
        assert abs(result.cost - best) < 1e-8 * best
        assert result.iterations <= 25
    values = spectrum(problem, result.point)
    rotations = 3 * (depth - 1)
    assert np.abs(values[:rotations]).max() < 1e-6 * values[-1]
    assert values[-1] < 100 * depth * values[rotations]


@given(problems(), st.integers(0, 100))
def test_the_isotropic_trace_is_geodesically_convex(problem, seed):
    M, widths, *_ = problem
    manifold = Factorizations(M, widths, rng=seed)
    point = manifold.random_point()
    vector = manifold.random_tangent_vector(point)
    symmetric = type(vector)(part + part.T for part in vector)
    left, middle, right = (isotropic_trace(*manifold.retraction(point, t * symmetric)) for t in (-0.5, 0.0, 0.5))
    assert middle <= (left + right) / 2 * (1 + 1e-12)


def test_embedding_in_wider_layers(rng):
    manifold = Factorizations(matrix(4, 5, 2, rng), [5, 2, 3, 4], rng=rng)
    point = manifold.random_point()
    wide = manifold.embed(point, [5, 6, 3, 4])
    assert [layer.shape for layer in wide] == [(6, 5), (3, 6), (4, 3)]
    assert np.allclose(product(wide), manifold.M)
    assert Factorizations(manifold.M, [5, 6, 3, 4]).residual(wide) < 1e-12
    for widths in ([5, 1, 3, 4], [5, 6, 4], [5, 2, 3, 5]):
        with pytest.raises(ValueError, match="widths"):
            manifold.embed(point, widths)


def test_seeds_decide(rng):
    M = matrix(3, 4, 2, rng)
    points = [Factorizations(M, [4, 2, 3], rng=5).random_point() for _ in range(2)]
    assert np.array_equal(flat(points[0]), flat(points[1]))


@pytest.mark.parametrize("bad", bad_input.not_numbers((3, 4)) + bad_input.not_arrays(2))
def test_bad_matrices_are_refused(bad):
    with pytest.raises(ValueError, match="M "):
        Factorizations(bad, [4, 3, 3])


@pytest.mark.parametrize("bad", [[4, 3], [4, 1, 3], [4, 2, 1, 3], [4, 2, 4], [3, 2, 3], None, [4, 2.0, 3], [4, 0, 3]])
def test_bad_widths_are_refused(bad, rng):
    with pytest.raises(ValueError, match="widths"):
        Factorizations(matrix(3, 4, 2, rng), bad)


def test_zero_has_no_factorizations_of_its_rank():
    with pytest.raises(ValueError, match="M is zero"):
        Factorizations(np.zeros((3, 4)), [4, 2, 3])
