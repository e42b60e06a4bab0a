import numpy as np
import pymanopt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pymanopt.optimizers import ConjugateGradient, TrustRegions

import balancedfact as bf
from balancedfact.manifolds import Factorizations, ZeroLoss, check_manifold
from balancedfact.measurements import Dense, Entries, RankOne
from tests import bad_input
from tests.manifolds import planted
from tests.manifolds.costs import product
from tests.maps import Minimal


def flat(layers):
    return np.concatenate([np.ravel(part) for part in layers])


def unflat(numbers, shapes):
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1].astype(int)
    return [piece.reshape(shape) for piece, shape in zip(np.split(numbers, ends), shapes, strict=True)]


def jacobian(layers, matrices):
    """The derivative of the measurements of the product, one column per entry of the layers."""
    columns = []
    for unit in np.eye(flat(layers).size):
        V = unflat(unit, [layer.shape for layer in layers])
        change = sum(product([*layers[:k], V[k], *layers[k + 1 :]]) for k in range(len(layers)))
        columns.append([np.sum(A * change) for A in matrices])
    return np.array(columns).T


def projection_matrix(manifold, point):
    return np.array([flat(manifold.projection(point, unflat(unit, manifold.shapes))) for unit in np.eye(flat(point).size)]).T


def measurements(kind, m, d1, d2, rng):
    if kind == "entries":
        places = rng.choice(d1 * d2, m, replace=False)
        rows, cols = np.unravel_index(places, (d1, d2))
        weights = rng.uniform(0.5, 2, m)
        matrices = np.zeros((m, d1, d2))
        matrices[np.arange(m), rows, cols] = weights
        return Entries(rows, cols, (d1, d2), weights), matrices
    if kind == "rank one":
        left, right = rng.standard_normal((m, d1)), rng.standard_normal((m, d2))
        return RankOne(left, right), np.einsum("ip,iq->ipq", left, right)
    matrices = rng.standard_normal((m, d1, d2))
    return (Minimal if kind == "minimal" else Dense)(matrices), matrices


KINDS = ["dense", "rank one", "entries", "minimal"]


@st.composite
def problems(draw):
    """Measurements of a matrix that layers of the drawn widths can have, not more than determine it."""
    widths = draw(st.lists(st.integers(1, 4), min_size=3, max_size=5))
    d0, dL, p = widths[0], widths[-1], min(widths)
    m = draw(st.integers(1, max(1, p * (d0 + dL - p) - 1)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    A, matrices = measurements(draw(st.sampled_from(KINDS)), min(m, d0 * dL), dL, d0, rng)
    return A, matrices, A(rng.standard_normal((dL, p)) @ rng.standard_normal((p, d0))), widths, rng


def regular(manifold, point):
    values = np.linalg.eigvalsh(manifold.gram(point))[-manifold._rank :]
    return values[0] > 1e-4 * values[-1]


@given(problems())
def test_points_fit_and_projections_are_onto_the_null_space_of_the_jacobian(problem):
    A, matrices, b, widths, rng = problem
    manifold = ZeroLoss(A, b, widths, rng=rng)
    point = manifold.random_point()
    assert [layer.shape for layer in point] == list(zip(widths[1:], widths[:-1], strict=True))
    assert np.linalg.norm(A(product(point)) - b) < 1e-12 * np.linalg.norm(b)
    assert manifold.residual(point) < 1e-12
    assume(regular(manifold, point))
    J = jacobian(point, matrices)
    expected = np.eye(J.shape[1]) - np.linalg.pinv(J, rcond=1e-9) @ J
    assert np.abs(projection_matrix(manifold, point) - expected).max() < 1e-9
    assert manifold.dim == round(np.trace(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_gram_matrix_is_that_of_the_jacobian(kind, rng):
    A, matrices = measurements(kind, 7, 4, 5, rng)
    manifold = ZeroLoss(A, rng.standard_normal(7), [5, 3, 6, 4], rng=rng)
    layers = [rng.standard_normal(shape) for shape in manifold.shapes]
    J = jacobian(layers, [matrix / np.linalg.norm(matrix) for matrix in matrices])
    assert np.allclose(manifold.gram(layers), J @ J.T, rtol=1e-11)


@pytest.mark.slow
@settings(max_examples=20)
@given(problems(), st.integers(0, 30))
def test_passes_the_conformance_check(problem, seed):
    A, _, b, widths, _ = problem
    manifold = ZeroLoss(A, b, widths, rng=seed)
    point = manifold.random_point()
    assume(regular(manifold, point))
    report = check_manifold(manifold, seed, point=point)
    assert report.ok, str(report)


@pytest.mark.few(5)
@planted.every_mistake
@pytest.mark.parametrize("widths", [[4, 2, 2, 3], pytest.param([4, 4, 3], marks=pytest.mark.slow)])
def test_planted_mistakes_are_noticed(mistake, widths, rng):
    A = bf.measurements.gaussian(6, (3, 4), rng=rng)
    planted.assert_noticed(ZeroLoss, mistake, [A, A(rng.standard_normal((3, 2)) @ rng.standard_normal((2, 4))), widths])


def test_more_measurements_than_the_rank_leaves_free_give_the_factorizations(rng):
    """Then the end-to-end matrix is determined, the Gram matrix has one rank on all of the set, and nothing is singular."""
    M = rng.standard_normal((4, 2)) @ rng.standard_normal((2, 5))
    A = bf.measurements.gaussian(16, (4, 5), rng=rng)
    manifold, other = ZeroLoss(A, A(M), [5, 2, 2, 4], rng=1), Factorizations(M, [5, 2, 2, 4], rng=1)
    assert manifold.dim == other.dim
    point = other.random_point()
    images = [flat(other.embedding(point, other.projection(point, unflat(unit, other.shapes)))) for unit in np.eye(22)]
    assert np.abs(projection_matrix(manifold, point) - np.array(images).T).max() < 1e-9
    report = check_manifold(manifold, 0, point=point)
    assert report.ok, str(report)


def test_dependent_measurements_are_left_out(rng):
    matrices = rng.standard_normal((5, 3, 4))
    b = np.array([np.sum(matrix * np.ones((3, 4))) for matrix in matrices])
    whole = np.concatenate([matrices, [matrices[0] - 2e3 * matrices[3], np.zeros((3, 4)), 7 * matrices[2]]])
    data = np.concatenate([b, [b[0] - 2e3 * b[3], 0.0, 7 * b[2]]])
    manifold, alone = ZeroLoss(Dense(whole), data, [4, 3, 3], rng=2), ZeroLoss(Dense(matrices), b, [4, 3, 3])
    assert manifold.dim == alone.dim
    point = manifold.random_point()
    assert np.allclose(Dense(whole)(product(point)), data)
    assert np.allclose(projection_matrix(manifold, point), projection_matrix(alone, point), atol=1e-11)
    for k, change in ((5, 1.0), (6, 1e-3), (7, 1e-3)):
        with pytest.raises(ValueError, match="b "):
            ZeroLoss(Dense(whole), data + change * np.eye(8)[k], [4, 3, 3])


def test_data_of_too_high_a_rank_are_refused_when_a_point_is_wanted(rng):
    A = bf.measurements.gaussian(12, (3, 4), rng=rng)
    manifold = ZeroLoss(A, A(rng.standard_normal((3, 4))), [4, 1, 3], rng=rng)
    with pytest.raises(ValueError, match="b was not fitted"):
        manifold.random_point()


def test_zero_data(rng):
    A = bf.measurements.gaussian(5, (3, 4), rng=rng)
    report = check_manifold(ZeroLoss(A, np.zeros(5), [4, 3, 3]), 0)
    assert report.ok, str(report)


@pytest.mark.parametrize("scale", [1e-100, 1e100])
@pytest.mark.parametrize("kind", ["dense", "rank one", "entries"])
def test_scales_cancel(scale, kind, rng):
    _, matrices = measurements(kind, 5, 3, 4, rng)
    b = rng.standard_normal(5)
    for A, data, size in ((Dense(scale * matrices), scale * b, 1.0), (Dense(matrices), scale**2 * b, scale)):
        manifold, plain = ZeroLoss(A, data, [4, 3, 3], rng=3), ZeroLoss(Dense(matrices), b, [4, 3, 3], rng=3)
        one, other = manifold.random_point(), plain.random_point()
        assert np.allclose(flat(one) / size, flat(other), rtol=1e-9)
        V = plain.random_tangent_vector(other)
        moved = manifold.retraction(one, size * manifold.projection(one, V))
        assert np.allclose(flat(moved) / size, flat(plain.retraction(other, V)), rtol=1e-8)


def low_rank_point(rng, d=5, rank=1):
    """Layers of rank one that fit more measurements than matrices of rank one have degrees of freedom: a singular point."""
    A = bf.measurements.gaussian(14, (d, d), rng=rng)
    Q = [np.linalg.qr(rng.standard_normal((d, rank)))[0] for _ in range(4)]
    point = [2.0 * Q[k + 1] @ Q[k].T for k in range(3)]
    return ZeroLoss(A, A(product(point)), [d] * 4, rng=rng), point


def test_nothing_fails_at_a_singular_point(rng):
    manifold, point = low_rank_point(rng)
    values = np.linalg.eigvalsh(manifold.gram(point))
    assert np.count_nonzero(values > 1e-12 * values[-1]) == 9 < manifold.b.size
    P = projection_matrix(manifold, point)
    assert np.abs(P @ P - P).max() < 1e-12
    J = jacobian(point, manifold.A.matrices)
    assert np.abs(P - (np.eye(J.shape[1]) - np.linalg.pinv(J, rcond=1e-9) @ J)).max() < 1e-10
    vector = manifold.random_tangent_vector(point)
    moved = manifold.retraction(point, 0.1 * vector)
    assert manifold.residual(moved) < 1e-12
    g, h = ([rng.standard_normal(shape) for shape in manifold.shapes] for _ in range(2))
    assert np.isfinite(flat(manifold.euclidean_to_riemannian_hessian(point, g, h, vector))).all()
    # A direction that leads along the set, turning the layers against one another, is followed.
    X = rng.standard_normal((5, 5))
    along = [X @ point[0], -point[1] @ X, np.zeros((5, 5))]
    assert np.allclose(flat(manifold.projection(point, along)), flat(along), atol=1e-11)


def test_a_step_without_a_way_back_is_halved(rng):
    manifold = ZeroLoss(Dense(np.ones((1, 1, 1))), np.ones(1), [1, 1, 1])
    point = [np.array([[1.0]]), np.array([[1.0]])]
    for length in (1e3, 1e150, np.inf):
        vector = type(manifold.zero_vector(point))([np.array([[length]]), np.array([[-length]])])
        moved = manifold.retraction(point, vector)
        assert np.isfinite(flat(moved)).all()
        assert manifold.residual(moved) < 1e-11


def trace_problem(manifold, A):
    depth = manifold.depth

    @pymanopt.function.numpy(manifold)
    def cost(*layers):
        return bf.curvature.trace(layers, A)

    @pymanopt.function.numpy(manifold)
    def gradient(*layers):
        return bf.curvature.trace_gradient(layers, A)

    @pymanopt.function.numpy(manifold)
    def hessian(*both):
        return bf.curvature.trace_hessian_vector_product(both[:depth], both[depth:], A)

    return pymanopt.Problem(manifold, cost, euclidean_gradient=gradient, euclidean_hessian=hessian)


@pytest.mark.parametrize("optimizer", [TrustRegions, ConjugateGradient])
@pytest.mark.parametrize(
    ("d", "m", "rank"),
    [(8, 40, 1), *(pytest.param(20, 150, 2, marks=pytest.mark.slow, id="the size of the theory chapter"),)],
)
def test_the_flattest_layers_recover_the_truth_at_a_singular_point(d, m, rank, optimizer):
    rng = np.random.default_rng(1)
    truth = rng.standard_normal((d, rank)) @ rng.standard_normal((rank, d))
    A = bf.measurements.gaussian(m, (d, d), rng=rng)
    manifold = ZeroLoss(A, A(truth), [d, d, d, d], rng=1)
    problem, start = trace_problem(manifold, A), manifold.random_point()
    tol = 1e-9 * problem.cost(start)
    result = optimizer(verbosity=0, max_iterations=150, min_gradient_norm=tol, min_step_size=0.0).run(
        problem, initial_point=start
    )
    assert np.linalg.norm(product(result.point) - truth) < 1e-6 * np.linalg.norm(truth)
    assert np.linalg.norm(A(product(result.point)) - A(truth)) < 1e-11 * np.linalg.norm(A(truth))
    before, after = (np.linalg.eigvalsh(manifold.gram(point))[[0, -1]] for point in (start, result.point))
    assert before[0] > 1e-4 * before[1]
    assert after[0] < 1e-7 * after[1]


@pytest.mark.slow
def test_newton_steps_converge_quadratically_at_a_regular_minimum():
    """Few measurements: the flattest layers are regular, and three steps gain six digits or more."""
    A = bf.measurements.gaussian(4, (3, 4), rng=0)
    manifold = ZeroLoss(A, np.arange(1.0, 5.0), [4, 3, 3], rng=0)
    problem, norms, point = trace_problem(manifold, A), [], manifold.random_point()
    for steps in range(1, 20):
        result = TrustRegions(verbosity=0, max_iterations=steps, min_gradient_norm=0.0).run(problem, initial_point=point)
        norms.append(manifold.norm(result.point, problem.riemannian_gradient(result.point)))
    values = np.linalg.eigvalsh(manifold.gram(result.point))
    assert values[0] > 1e-2 * values[-1]
    close = next(k for k, norm in enumerate(norms) if norm < 1e-2 * norms[0])
    assert norms[close + 3] < 1e-8 * norms[0]


def test_seeds_decide(rng):
    A = bf.measurements.gaussian(4, (3, 4), rng=rng)
    points = [ZeroLoss(A, np.ones(4), [4, 2, 3], rng=5).random_point() for _ in range(2)]
    assert np.array_equal(flat(points[0]), flat(points[1]))


@pytest.mark.parametrize("bad", bad_input.bad((4,)))
def test_bad_data_are_refused(bad):
    with pytest.raises(ValueError, match="b "):
        ZeroLoss(bf.measurements.gaussian(4, (3, 3), rng=0), bad, [3, 3, 3])


@pytest.mark.parametrize("bad", [[4, 3], [4, 2, 4], [3, 2, 3], None, [4, 2.0, 3], [4, 0, 3]])
def test_bad_widths_are_refused(bad):
    with pytest.raises(ValueError, match="widths"):
        ZeroLoss(bf.measurements.gaussian(4, (3, 4), rng=0), np.ones(4), bad)


@pytest.mark.parametrize("bad", [None, np.ones((4, 3, 3)), "A"])
def test_what_is_no_measurement_map_is_refused(bad):
    with pytest.raises(ValueError, match="A is"):
        ZeroLoss(bad, np.ones(4), [3, 3, 3])


def test_measurements_by_zero_are_refused():
    with pytest.raises(ValueError, match="A has no measurement"):
        ZeroLoss(Dense(np.zeros((2, 3, 3))), np.zeros(2), [3, 3, 3])
