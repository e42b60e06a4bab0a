import numpy as np
import pytest

from balancedfact.certification.deep._lift import Gauge, Lift
from balancedfact.measurements import gaussian

pytestmark = pytest.mark.filterwarnings("error")


def outer_gauges(d1, d2):
    return Gauge(np.eye(d1), np.zeros((d2, d2)), 1 / d2), Gauge(np.zeros((d1, d1)), np.eye(d2), 1 / d1)


def lift_of(rng, shape, m):
    A = gaussian(m, shape, rng)
    stack = A.whitened().map.rotated(*(np.eye(d) for d in shape))
    E = rng.standard_normal(shape)
    return Lift(stack, np.tensordot(stack, E, 2), outer_gauges(*shape)), stack, E


def boxed(rng, shape, m, sides=(True, True)):
    """A lift with boxes at some places, and random places in their gauges and boxes, from any layers with product `E`."""
    d1, d2 = shape
    stack, E = rng.standard_normal((m, d1, d2)), rng.standard_normal(shape)
    F, G = (root @ root.T + np.eye(len(root)) for root in (rng.standard_normal((d1, d1)), rng.standard_normal((d2, d2))))
    places, gauges = [], []
    for inner, outer in zip(sides, outer_gauges(d1, d2), strict=True):
        B = rng.standard_normal((5, d2))
        C = E @ np.linalg.pinv(B)
        X = [C @ C.T, B.T @ B]
        if inner:
            s = np.sqrt(np.sum(G * X[1]) / np.sum(F * X[0]))
            size = s * np.sum(F * X[0])
            gauges.append(Gauge(F, -G, 0.0, (0.7 * size, 1.4 * size)))
        else:
            s = outer.level / np.sum(outer.left * X[0]) if outer.left.any() else np.sum(outer.right * X[1]) / outer.level
            gauges.append(outer)
        places.append(np.block([[s * X[0], E], [E.T, X[1] / s]]))
    return Lift(stack, np.tensordot(stack, E, 2), tuple(gauges)), stack, places


BOXES = [(True, True), (True, False), (False, True)]


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


def multipliers(rng, lift):
    roots = [rng.standard_normal(image.shape) for image in lift.images(lift.objective)]
    return [rng.uniform(0.01, 0.1) * root @ root.T for root in roots]


@pytest.mark.parametrize("shape", [(3, 3), (2, 4)])
def test_any_dual_is_a_bound(shape, rng):
    lift, _, E = lift_of(rng, shape, 5)
    for _ in range(10):
        X1, X2 = network(rng, E)
        t = np.vdot(lift.objective, lift.coefficients(np.kron(X1, X2)))
        level, negative = lift.dual(multipliers(rng, lift))
        assert level - negative * np.trace(X1) * np.trace(X2) <= t * (1 + 1e-9)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4)])
def test_too_large_a_dual_is_a_bound_by_its_negative_part(shape, rng):
    lift, _, E = lift_of(rng, shape, 5)
    networks = [network(rng, E) for _ in range(200)]
    t, traces = min(
        (np.vdot(lift.objective, lift.coefficients(np.kron(X1, X2))), np.trace(X1) * np.trace(X2)) for X1, X2 in networks
    )
    lift.least(300, traces, np.inf, lambda: False)
    penalty, _, scaled = lift.state
    levels = []
    for factor in (1.0, 3.0, 1e2, 1e4):
        level, negative = lift.dual([-factor * penalty * u for u in scaled])
        assert level - negative * traces <= t * (1 + 1e-9)
        levels.append(level)
    assert levels[-1] > t  # which no bound is without its negative part


@pytest.mark.parametrize("sides", BOXES)
@pytest.mark.parametrize("shape", [(3, 3), (2, 4)])
def test_places_in_their_boxes_are_feasible(shape, sides, rng):
    lift, stack, (X1, X2) = boxed(rng, shape, 5, sides)
    d1, d2 = shape
    product = np.kron(X1, X2)
    c = lift.coefficients(product)
    np.testing.assert_allclose(lift.lifted(c), product, atol=1e-9 * np.linalg.norm(product))
    images = lift.images(c)
    assert len(images) == 2 + 2 * sum(sides) + 4 * all(sides)
    for image in images:
        np.testing.assert_allclose(image, image.T, atol=1e-9 * np.linalg.norm(image))
        assert np.linalg.eigvalsh(image)[0] >= -1e-9 * np.linalg.norm(image)
    # The first product is that of the lower end of a box with the other place.
    other = X2 if sides[0] else X1
    assert abs(np.vdot(images[2], other)) == pytest.approx(np.linalg.norm(images[2]) * np.linalg.norm(other))
    t = np.einsum("iab,icd,ac,bd->", stack, stack, X2[:d1, :d1], X1[d1:, d1:]) / len(stack)
    for _ in range(10):
        level, negative = lift.dual(multipliers(rng, lift))
        assert level - negative * np.trace(X1) * np.trace(X2) <= t * (1 + 1e-9)


@pytest.mark.parametrize("sides", BOXES)
def test_a_place_outside_its_box_is_not(sides, rng):
    lift, _, (X1, X2) = boxed(rng, (3, 2), 4, sides)
    c = lift.coefficients(np.kron(X1, X2))
    found = sizes(lift, c)
    for factor in (0.3, 1.5):  # both boxes above, or below, what the places have
        lift.enclose(
            [None if not side else (factor * size, 2 * factor * size) for side, size in zip(sides, found, strict=True)]
        )
        assert min(float(np.linalg.eigvalsh(image)[0]) for image in lift.images(c)[2:]) < 0


def sizes(lift, c):
    """The sizes of both places, from the first row and the first column of the coefficients."""
    return [float(line[lift.k] / line[0] * lift.norms[j][0] * lift.of_size[j]) for j, line in enumerate((c[:, 0], c[0]))]


@pytest.mark.parametrize("sides", BOXES)
def test_the_least_squares_of_a_step(sides, rng):
    lift = boxed(rng, (2, 3), 4, sides)[0]
    target = lift.adjoint([rng.standard_normal(image.shape) for image in lift.images(lift.objective)])
    c = lift.nearest(target)
    moments = c[lift.e, lift.e] / lift.moment_scale
    assert moments[0, 0] == pytest.approx(1)
    np.testing.assert_allclose(moments, moments.T, atol=1e-12 * np.abs(moments).max())

    def misfit(c):
        return sum(float(np.sum(image**2)) for image in lift.images(c)) / 2 - float(np.vdot(target, c))

    for _ in range(5):
        step = lift.symmetrised(rng.standard_normal(c.shape))
        step[0, 0] = 0.0
        assert misfit(c + step) > misfit(c)
        assert (misfit(c + step) - misfit(c - step)) == pytest.approx(0, abs=1e-9 * abs(misfit(c + step)))


def test_the_adjoint(rng):
    lift = boxed(rng, (2, 3), 4)[0]
    c = rng.standard_normal(lift.objective.shape)
    parts = [rng.standard_normal(image.shape) for image in lift.images(c)]
    assert np.vdot(lift.adjoint(parts), c) == pytest.approx(
        sum(np.vdot(P, Y) for P, Y in zip(parts, lift.images(c), strict=True))
    )
