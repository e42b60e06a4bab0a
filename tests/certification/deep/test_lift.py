import numpy as np
import pytest

import balancedfact as bf
from balancedfact.certification.deep._lift import Lift, lifted_bound
from balancedfact.measurements import Entries, gaussian

pytestmark = pytest.mark.filterwarnings("error")


def lift_of(rng, shape, m):
    A = gaussian(m, shape, rng)
    stack = A.whitened().map.rotated(*(np.eye(d) for d in shape))
    E = rng.standard_normal(shape)
    return Lift(stack, np.tensordot(stack, E, 2)), stack, E


def network(rng, E):
    """Whitened layers of three with product `E` in the gauge where the outer terms are 1: both block matrices."""
    d1, d2 = E.shape
    B1 = rng.standard_normal((4, d2))
    B2 = rng.standard_normal((4, 4)) @ B1
    C1, C2 = E @ np.linalg.pinv(B1), E @ np.linalg.pinv(B2)
    first, last = np.sqrt(d2 * np.sum(C1**2)), np.sqrt(d1 * np.sum(B2**2))
    C1, B1, C2, B2 = C1 / first, B1 * first, C2 * last, B2 / last
    return [np.block([[C @ C.T, E], [E.T, B.T @ B]]) for C, B in ((C1, B1), (C2, B2))]


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)])
def test_networks_are_in_the_span(shape, rng):
    d1, d2 = shape
    lift, stack, E = lift_of(rng, shape, 5)
    X1, X2 = network(rng, E)
    product = np.kron(X1, X2)
    c = lift.coefficients(product)
    np.testing.assert_allclose(lift.lifted(c), product, atol=1e-9 * np.linalg.norm(product))
    t = np.einsum("iab,icd,ac,bd->", stack, stack, X2[:d1, :d1], X1[d1:, d1:]) / len(stack)
    assert np.vdot(lift.objective, c) == pytest.approx(t)
    moments = c[lift.e, lift.e] / lift.moment_scale
    assert moments[0, 0] == pytest.approx(1)
    np.testing.assert_allclose(moments, moments.T, atol=1e-9)
    np.testing.assert_allclose(moments, np.outer(moments[0], moments[0]), atol=1e-8 * np.linalg.norm(moments))
    np.testing.assert_allclose(lift.symmetrised(c, 3.0), c, atol=1e-9 * np.linalg.norm(c))


@pytest.mark.parametrize("shape", [(3, 3), (2, 4)])
def test_any_dual_is_a_bound(shape, rng):
    lift, _, E = lift_of(rng, shape, 5)
    for _ in range(10):
        X1, X2 = network(rng, E)
        t = np.vdot(lift.objective, lift.coefficients(np.kron(X1, X2)))
        roots = [rng.standard_normal((n, n)) for n in (lift.n**2, lift.k)]
        level, negative = lift.dual(*(size * root @ root.T for size, root in zip((0.01, 0.1), roots, strict=True)))
        assert level - negative * np.trace(X1) * np.trace(X2) <= t * (1 + 1e-9)


def test_three_layers_are_proved_optimal():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((3, 1)) @ rng.standard_normal((1, 3))
    A = gaussian(6, (3, 3), rng)
    solution = bf.flat_network(A, A(truth), 3, rng=0)
    assert solution.status is bf.Status.OPTIMAL
    assert 0 < solution.certificate.gap < 1e-3
    assert "moments" in solution.message


def test_no_network_is_below_the_bound(rng):
    A = gaussian(7, (3, 4), rng)
    for rank in (1, 3):
        E = rng.standard_normal((3, rank)) @ rng.standard_normal((rank, 4))
        b = A(E)
        found = bf.flat_network(A, b, 3, rng=rng, bound="quick")
        y = bf.flat_minimum(A, b).certificate.dual
        bound = lifted_bound(A, b, y, found.value, rng, work=8e7)
        assert bound <= found.value
        # A worse network known beforehand leaves the bound valid.
        assert lifted_bound(A, b, y, 2 * found.value, rng, work=8e7) <= found.value * (1 + 1e-9)


def test_no_isometry_no_bound(rng):
    A = Entries([0, 0, 1], [0, 1, 1], (2, 2))
    assert lifted_bound(A, np.ones(3), np.ones(3), 10.0, rng) == 0
    few = gaussian(2, (4, 4), rng)
    assert lifted_bound(few, np.ones(2), np.ones(2), 10.0, rng) == 0
