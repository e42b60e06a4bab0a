"""Preconditioners of layers against dense inverses of Hessians from automatic differentiation."""

import autograd
import autograd.numpy as anp
import numpy as np
import pymanopt
import pytest

import balancedfact as bf
from balancedfact.manifolds import BalancedLayers, Factorizations, TangentVector, ZeroLoss
from balancedfact.manifolds._trace_blocks import trace_blocks
from tests.manifolds import costs
from tests.manifolds.test_balanced_layers import flat, unflat


def riemannian_hessian(manifold, point, cost, vector):
    """That of automatic derivatives."""
    sizes = np.cumsum([part.size for part in point])[:-1]

    def of_numbers(numbers):
        return cost(*[piece.reshape(part.shape) for piece, part in zip(anp.split(numbers, sizes), point, strict=True)])

    x, velocity = flat(point), flat(manifold.embedding(point, vector))
    gradient, hessian = autograd.grad(of_numbers)(x), autograd.make_hvp(of_numbers)(x)[0](velocity)
    return manifold.euclidean_to_riemannian_hessian(point, unflat(gradient, point), unflat(hessian, point), vector)


def change_of_the_product(layers, vector):
    total = 0.0
    for k in range(len(layers)):
        total = total + costs.product([*layers[:k], vector[k], *layers[k + 1 :]])
    return total


def low_rank(rng, shape, rank, condition=1.0):
    U, V = (np.linalg.qr(rng.standard_normal((d, rank)))[0] for d in shape)
    return 3 * (U * np.geomspace(1, 1 / condition, rank)) @ V.T


def zero_loss(kind="dense", widths=(5, 4, 4, 4), rank=None, seed=0):
    rng = np.random.default_rng(seed)
    shape = widths[-1], widths[0]
    A = bf.measurements.gaussian(13, shape, rng) if kind == "dense" else bf.measurements.bernoulli_mask(shape, 0.6, rng)
    if kind == "rank one":
        A = bf.measurements.bilinear(12, shape, rng)
    return ZeroLoss(A, A(low_rank(rng, shape, rank or min(shape))), list(widths), rng=seed)


def orbit(widths, rank=3, seed=0):
    return Factorizations(low_rank(np.random.default_rng(seed), (widths[-1], widths[0]), rank, 10.0), widths, rng=seed)


MANIFOLDS = {
    "pairs": BalancedLayers([5, 3, 4], rng=0),
    "balanced": BalancedLayers([4, 3, 5, 3, 4], rng=0),
    "square": BalancedLayers([3, 3, 3, 3], rng=0),
    "orbit": orbit([5, 3, 3, 4]),
    "wide orbit": orbit([5, 4, 3, 6, 4]),
    "dense": zero_loss(),
    "entries": zero_loss("entries"),
    "rank one": zero_loss("rank one"),
}


@pytest.mark.parametrize("name", MANIFOLDS)
def test_it_is_symmetric_positive_definite_and_tangent(name):
    manifold = MANIFOLDS[name]
    point = manifold.random_point()
    vectors = [manifold.random_tangent_vector(point) for _ in range(manifold.dim)]
    images = [manifold.preconditioner(point, v) for v in vectors]
    gram = np.array([[manifold.inner_product(point, v, image) for image in images] for v in vectors])
    own = np.array([[manifold.inner_product(point, v, w) for w in vectors] for v in vectors])
    np.testing.assert_allclose(gram, gram.T, atol=1e-9 * np.abs(gram).max())
    roots = np.linalg.inv(np.linalg.cholesky(own + 1e-12 * np.eye(len(own))))
    assert np.linalg.eigvalsh(roots @ (gram + gram.T) @ roots.T).min() > 0
    for image in images[:3]:
        again = manifold.to_tangent_space(point, image)
        assert manifold.norm(point, again - image) < 1e-9 * manifold.norm(point, image)


@pytest.mark.parametrize("widths", [[5, 3, 4], [4, 3, 5, 3, 4], [3, 3, 3, 3], [2, 6, 6, 6, 3], [3, 1, 2]])
def test_on_balanced_layers_it_inverts_the_hessian_at_zero_distance(widths):
    manifold = BalancedLayers(widths, rng=1)
    point = manifold.random_point()
    M = costs.product(point)
    for _ in range(3):
        v = manifold.random_tangent_vector(point)
        image = riemannian_hessian(manifold, point, lambda *W: anp.sum((costs.product(W) - M) ** 2), v)
        back = manifold.preconditioner(point, image)
        one, other = (change_of_the_product(point, each) for each in (v, back))
        np.testing.assert_allclose(other, one, atol=1e-6 * np.abs(one).max())


def test_what_leaves_the_product_is_divided_by_the_largest_curvature():
    manifold = BalancedLayers([4, 3, 3, 5], rng=2)
    point = manifold.random_point()
    turn = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 0]])
    v = TangentVector([turn @ point[0], -point[1] @ turn, np.zeros((5, 3))])
    assert np.abs(change_of_the_product(point, v)).max() < 1e-14
    image = manifold.preconditioner(point, v)
    ratio = manifold.norm(point, image) / manifold.norm(point, v)
    for part, original in zip(image, v, strict=True):
        np.testing.assert_allclose(part, ratio * original, atol=1e-9 * ratio)
    rows = [manifold.random_tangent_vector(point) for _ in range(manifold.dim)]
    basis = np.linalg.qr(np.array([flat(row) for row in rows]).T)[0]
    jacobian = [change_of_the_product(point, unflat(column, point)).ravel() for column in basis.T]
    assert 1 / ratio == pytest.approx(2 * np.linalg.norm(np.array(jacobian), 2) ** 2, rel=0.5)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_balanced_layers_that_lost_rank(rank):
    manifold = BalancedLayers([4, 3, 5], rng=3)
    Q = [np.linalg.qr(np.random.default_rng(d).standard_normal((d, 3)))[0] for d in (4, 3, 5)]
    s = np.array([2.0, 1.0, 0.5]) * (np.arange(3) < rank)
    point = [Q[1] * s @ Q[0].T, Q[2] * s @ Q[1].T]
    vectors = [manifold.random_tangent_vector(point) for _ in range(5)]
    images = [manifold.preconditioner(point, v) for v in vectors]
    gram = np.array([[manifold.inner_product(point, v, image) for image in images] for v in vectors])
    np.testing.assert_allclose(gram, gram.T, atol=1e-9 * np.abs(gram).max())
    assert np.linalg.eigvalsh(gram).min() > 0


@pytest.mark.parametrize("widths", [[5, 3, 4], [5, 3, 3, 4], [4, 3, 3, 3, 3, 3, 6]])
def test_on_factorizations_it_inverts_the_hessian_of_the_isotropic_trace_along_symmetric_vectors(widths):
    """At any point, with the antisymmetric part of the image left out, which vanishes at the flattest."""
    manifold = orbit(widths)
    point = manifold.random_point()

    def symmetric(v):
        return TangentVector([(part + part.T) / 2 for part in v])

    for _ in range(3):
        v = symmetric(manifold.random_tangent_vector(point))
        back = manifold.preconditioner(point, symmetric(riemannian_hessian(manifold, point, costs.isotropic_trace, v)))
        assert manifold.norm(point, back - v) < 1e-9 * manifold.norm(point, v)


@pytest.mark.parametrize("widths", [[5, 3, 4], [4, 3, 2, 5], [4, 3, 6, 3, 3, 4]])
def test_blocks_are_those_of_the_hessian_of_the_isotropic_trace(widths, monkeypatch):
    monkeypatch.setattr("balancedfact.manifolds._trace_blocks._BLOCK_FLOOR", 1e-13)
    rng = np.random.default_rng(1)
    layers = [rng.standard_normal(shape) for shape in zip(widths[1:], widths[:-1], strict=True)]
    for k, (layer, block) in enumerate(zip(layers, trace_blocks(layers), strict=True)):

        def alone(numbers, k=k, layer=layer):
            return costs.isotropic_trace(*layers[:k], numbers.reshape(layer.shape), *layers[k + 1 :])

        H, V = autograd.hessian(alone)(layer.ravel()), rng.standard_normal(layer.shape)
        np.testing.assert_allclose(block.inverse((H @ V.ravel()).reshape(V.shape)), V, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["dense", "entries", "rank one"])
def test_on_zero_loss_it_is_the_inverse_of_the_blocks_on_the_tangent_space(kind):
    manifold = zero_loss(kind)
    point = manifold.random_point()
    eye = np.eye(flat(point).size)
    P = np.array([flat(manifold.projection(point, unflat(unit, point))) for unit in eye])
    blocks = trace_blocks(point)
    inverse = [flat([block.inverse(part) for block, part in zip(blocks, unflat(unit, point), strict=True)]) for unit in eye]
    expected = np.linalg.pinv(P @ np.linalg.inv(np.array(inverse)) @ P, rcond=1e-10)
    found = [flat(manifold.preconditioner(point, unflat(column, point))) for column in P]
    np.testing.assert_allclose(np.array(found), expected, atol=1e-9 * np.abs(expected).max())


def products_taken(manifold, cost, start):
    """Hessian products without and with the preconditioner, and the values."""
    counts, values = [], []
    for preconditioner in (None, manifold.preconditioner):
        function = pymanopt.function.autograd(manifold)(cost)
        problem = pymanopt.Problem(manifold, function, preconditioner=preconditioner)
        found = bf.riemannian_minimum(problem, initial=start, rng=0, progress=False)
        assert found.status is bf.Status.STATIONARY
        counts.append(found.history["hessian_products"][-1])
        values.append(found.value)
    return counts, values


def test_fewer_products_on_balanced_layers():
    M = low_rank(np.random.default_rng(0), (8, 10), 3, 100.0)
    manifold = BalancedLayers([10, 3, 3, 8], rng=0)
    counts, values = products_taken(manifold, lambda *W: anp.sum((costs.product(W) - M) ** 2), manifold.random_point())
    assert counts[1] < counts[0] / 3
    assert max(values) < 1e-10


def test_fewer_products_on_factorizations():
    manifold = Factorizations(low_rank(np.random.default_rng(0), (6, 7), 3, 1000.0), [7, 3, 3, 6], rng=0)
    counts, values = products_taken(manifold, costs.isotropic_trace, manifold.random_point())
    assert counts[1] < counts[0] / 3
    assert values == pytest.approx([costs.isotropic_minimum(manifold.M, 3)] * 2, rel=1e-10)


@pytest.mark.slow
def test_fewer_products_on_zero_loss_from_layers_of_different_length():
    manifold = zero_loss(widths=(5, 4, 4, 4))
    start = manifold.random_point()
    start[0], start[-1] = 30 * start[0], start[-1] / 30
    counts, values = products_taken(manifold, costs.isotropic_trace, start)
    assert counts[1] < counts[0] / 3
    assert values[0] == pytest.approx(values[1], rel=1e-8)


def test_the_unit_of_the_cost_does_not_change_the_first_step():
    """The trust region is measured in the metric of the preconditioner, which has the unit of the cost."""
    manifold = orbit([5, 3, 3, 4])
    start = manifold.random_point()

    def taken(unit):
        cost = pymanopt.function.autograd(manifold)(lambda *W: unit * costs.isotropic_trace(*W))
        problem = pymanopt.Problem(
            manifold, cost, preconditioner=lambda point, vector: manifold.preconditioner(point, vector) / unit
        )
        return len(bf.riemannian_minimum(problem, initial=start, rng=0, progress=False).history["value"])

    counts = [taken(unit) for unit in (1.0, 1e12, 1e-12)]
    assert max(counts) <= min(counts) + 1
