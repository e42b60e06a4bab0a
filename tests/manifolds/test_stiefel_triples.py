import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.manifolds import BalancedPairs, Cost, StiefelTriples, TangentVector, check_manifold
from tests import bad_input

SIZES = st.integers(1, 5)
SHAPES = [(6, 5, 3), (4, 4, 4), (5, 3, 4), (3, 4, 1)]


def flat(point):
    return np.concatenate([np.ravel(part) for part in point])


def unflat(numbers, like):
    ends = np.cumsum([part.size for part in like])[:-1]
    return TangentVector(part.reshape(other.shape) for part, other in zip(np.split(numbers, ends), like, strict=True))


def product_of(numbers, shapes, merged):
    """The product of the pair, differentiable by autograd."""
    parts, start = [], 0
    for rows, columns in shapes:
        parts.append(anp.reshape(numbers[start : start + rows * columns], (rows, columns)))
        start += rows * columns
    B, C, D = parts
    S = (C + C.T) / 2 if merged else C @ C.T
    return B @ S @ D.T


def cost_of_the_product(f, merged):
    """A cost that is the same for all triples of a class, with derivatives by autograd."""

    def on(point):
        shapes = [part.shape for part in point]
        return lambda numbers: f(product_of(numbers, shapes, merged))

    return Cost(
        lambda point: float(on(point)(flat(point))),
        lambda point: unflat(autograd.grad(on(point))(flat(point)), point),
        lambda point, v: unflat(autograd.hessian_vector_product(on(point))(flat(point), flat(v)), point),
    )


def rotated(point, vector, Q, merged):
    """A triple and a vector at it, as another member of the class has them."""

    def turn(B, C, D):
        return [B @ Q, Q.T @ C @ Q if merged else Q.T @ C, D @ Q]

    return turn(*point), turn(*vector)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("sizes", SHAPES)
def test_it_is_what_optimizers_take_it_for(sizes, merged):
    M = np.random.default_rng(0).standard_normal(sizes[:2])
    cost = cost_of_the_product(lambda X: anp.sum((X - M) ** 2) + anp.sum(X**4) / 4, merged)
    report = check_manifold(StiefelTriples(*sizes, merged=merged), 0, cost=cost, quotient=True)
    assert report.ok, str(report)
    assert report.entries["retraction second order"].measured > 2.9


@pytest.mark.parametrize("merged", [False, True])
@given(SIZES, SIZES, SIZES, st.integers(0, 1000))
def test_all_of_a_class_are_one_point(merged, d1, d2, k, seed):
    rng = np.random.default_rng(seed)
    manifold = StiefelTriples(d1, d2, k, merged=merged, rng=seed)
    point = manifold.random_point()
    Q = np.linalg.qr(rng.standard_normal((manifold.rank,) * 2))[0]
    a, b = (manifold.random_tangent_vector(point) for _ in range(2))
    turned, a_turned = rotated(point, a, Q, merged)
    _, b_turned = rotated(point, b, Q, merged)
    products = [L @ R.T for L, R in (manifold.pair(point), manifold.pair(turned))]
    assert np.allclose(products[0], products[1], rtol=0, atol=1e-12 * (1 + np.abs(products[0]).max()))
    expected = manifold.inner_product(point, a, b)
    assert manifold.inner_product(turned, a_turned, b_turned) == pytest.approx(expected, rel=1e-8, abs=1e-8)
    length = 0.1 * np.sqrt(np.linalg.svd(point[1], compute_uv=False)[-1])
    there, _ = rotated(manifold.retraction(point, length * a), a, Q, merged)
    for one, other in zip(manifold.retraction(turned, TangentVector([length * part for part in a_turned])), there, strict=True):
        assert np.allclose(one, other, atol=1e-10 * (1 + np.abs(other).max()))


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("sizes", SHAPES)
def test_tangent_vectors_are_orthogonal_to_rotations(sizes, merged):
    manifold, rng = StiefelTriples(*sizes, merged=merged, rng=0), np.random.default_rng(1)
    B, C, D = point = manifold.random_point()
    omega = rng.standard_normal((manifold.rank,) * 2)
    omega -= omega.T
    rotation = [B @ omega, C @ omega - omega @ C if merged else -omega @ C, D @ omega]
    assert abs(manifold.inner_product(point, manifold.random_tangent_vector(point), rotation)) < 1e-12
    assert manifold.norm(point, manifold.projection(point, rotation)) < 1e-12


@pytest.mark.parametrize("sizes", SHAPES)
def test_its_dimension_is_that_of_the_pairs_or_of_their_products(sizes):
    d1, d2, k = sizes
    q = min(sizes)
    assert StiefelTriples(*sizes).dim == BalancedPairs(*sizes).dim
    assert StiefelTriples(*sizes, merged=True).dim == (d1 + d2 - q) * q  # matrices of rank q


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("sizes", [(6, 5, 3), (4, 4, 4), (3, 4, 1)])
def test_the_preconditioner_inverts_the_hessian_at_zero_distance(sizes, merged):
    manifold = StiefelTriples(*sizes, merged=merged, rng=3)
    point = manifold.random_point()
    P, _, Vt = np.linalg.svd(point[1], full_matrices=False)
    s = np.linspace(2.0, 0.5, manifold.rank)
    point[1] = P * s @ (P.T if merged else Vt)
    M = product_of(flat(point), [part.shape for part in point], merged)
    cost = cost_of_the_product(lambda X: anp.sum((X - M) ** 2), merged)
    gradient = cost.gradient(point)
    for seed in range(5):
        v = manifold.projection(point, unflat(np.random.default_rng(seed).standard_normal(flat(point).size), point))
        image = manifold.euclidean_to_riemannian_hessian(point, gradient, cost.hessian(point, v), v)
        back = manifold.preconditioner(point, image)
        # What rotates C from the right does not change the product: only the rest comes back.
        moved = [
            np.asarray(autograd.jacobian(lambda n: product_of(n, [p.shape for p in point], merged))(flat(point)) @ flat(each))
            for each in (v, back)
        ]
        assert np.allclose(moved[1], moved[0], atol=2e-4 * np.abs(moved[0]).max())
        if merged:
            assert np.allclose(flat(back), flat(v), atol=2e-4 * np.abs(flat(v)).max())


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("lost", [0, 1, 3])
def test_the_preconditioner_is_symmetric_and_positive_definite(lost, merged):
    manifold, q = StiefelTriples(6, 5, 3, merged=merged, rng=3), 3
    B, C, D = manifold.random_point()
    if lost:
        s = np.array([2.0, 1.0, 0.5])
        s[q - lost :] = 1e-12 if merged else 0.0
        C = np.diag(s if merged else np.sqrt(s))
    vectors = [manifold.random_tangent_vector([B, C, D]) for _ in range(20)]
    images = [manifold.preconditioner([B, C, D], v) for v in vectors]
    G = np.array([[manifold.inner_product([B, C, D], v, image) for image in images] for v in vectors])
    assert np.allclose(G, G.T, rtol=1e-6, atol=1e-9 * np.abs(G).max())
    assert np.diag(G).min() > 0
    for image in images[:3]:
        again = manifold.projection([B, C, D], image)
        assert manifold.norm([B, C, D], again - image) < 1e-8 * manifold.norm([B, C, D], image)


@pytest.mark.parametrize("merged", [False, True])
@given(SIZES, SIZES, SIZES, st.integers(0, 1000))
def test_nearest_has_the_pair_of_balanced_pairs(merged, d1, d2, k, seed):
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((d1, k)), rng.standard_normal((d2, k))
    manifold = StiefelTriples(d1, d2, k, merged=merged)
    point = manifold.nearest(A, B)
    L, R = BalancedPairs(d1, d2, k).nearest(A, B)
    found = manifold.pair(point)
    assert manifold.residual(point) < 1e-13
    assert np.allclose(found[0] @ found[1].T, L @ R.T, atol=1e-6 * (1 + np.abs(L).max()) ** 2)
    if not merged:
        assert np.allclose(found[0], L, atol=1e-10)
        assert np.allclose(found[1], R, atol=1e-10)


def test_a_merged_factor_is_made_definite():
    manifold = StiefelTriples(4, 3, 2, merged=True)
    B, S, D = manifold.nearest(np.eye(4, 2) * [1.0, 0.0], np.eye(3, 2) * [1.0, 0.0])
    assert np.allclose(S, np.diag([1.0, 1e-8]))
    assert manifold.residual([B, S, D]) == 0.0
    assert manifold.residual([B, -S, D]) == pytest.approx(1.0)
    assert manifold.residual([2 * B, S, D]) == pytest.approx(3.0)


@pytest.mark.parametrize("merged", [False, True])
def test_turned_triples_lead_down_from_the_local_minimum(merged, rng):
    """The point of Proposition 5, and random last columns, whose alignment with what is missing is slight."""
    M = np.diag([3.0, 2.0, 1.0])
    middle = np.diag([3.0, 1e-12]) if merged else np.diag([np.sqrt(3.0), 0.0])

    def cost(point):
        B, C, D = point
        return float(np.sum((B @ (C if merged else C @ C.T) @ D.T - M) ** 2))

    manifold = StiefelTriples(3, 3, 2, merged=merged, rng=0)
    full = cost_of_the_product(lambda X: anp.sum((X - M) ** 2), merged)

    def gradient(point):
        return manifold.euclidean_to_riemannian_gradient(point, full.gradient(point))

    for columns in ((1.0, -1.0), (0.0, 1.0)):
        last = np.array([0.0, columns[0], 1.0 - columns[0]]), np.array([0.0, columns[1], 0.0])
        point = [np.column_stack([np.eye(3, 1), last[0]]), middle, np.column_stack([np.eye(3, 1), last[1]])]
        here = cost(point)
        assert here == pytest.approx(5.0, rel=1e-9)
        turned = list(manifold.turned(point, 1e-4, gradient))
        assert all(manifold.residual(each) < 1e-12 for each in turned)
        assert min(cost(each) for each in turned) < here - 0.03
        assert cost(turned[-1]) < here  # the power iteration has found the missing singular pair at every size
    assert list(manifold.turned([point[0], np.eye(2), point[2]], 1e-4, gradient)) == []


@pytest.mark.parametrize("bad", bad_input.BAD_COUNT)
def test_bad_sizes_are_refused(bad):
    for name in ("d1", "d2", "k"):
        with pytest.raises(ValueError, match=name):
            StiefelTriples(**({"d1": 3, "d2": 3, "k": 2} | {name: bad}))
    with pytest.raises(ValueError, match="merged"):
        StiefelTriples(3, 3, 2, merged=1)


def test_draws_follow_the_seed():
    one, two, other = (StiefelTriples(4, 3, 2, rng=seed).random_point() for seed in (1, 1, 2))
    assert np.array_equal(flat(one), flat(two))
    assert not np.array_equal(flat(one), flat(other))
