from itertools import pairwise

import numpy as np
import pytest

from balancedfact.curvature._zero_loss import DeepProblem, ZeroLossPoint
from balancedfact.measurements import gaussian
from balancedfact.solvers.deep._zero_loss_newton import newton
from tests.oracles import trace_terms

pytestmark = pytest.mark.filterwarnings("error")

WIDTHS = [(4, 2, 3), (3, 3, 3, 4), (5, 2, 2, 2, 4)]


def example(widths, m=5, seed=0):
    rng = np.random.default_rng(seed)
    A = gaussian(m, (widths[-1], widths[0]), rng)
    layers = [rng.standard_normal(shape) for shape in zip(widths[1:], widths, strict=False)]
    product = layers[0]
    for layer in layers[1:]:
        product = layer @ product
    return ZeroLossPoint(DeepProblem(A, A, A(product), len(widths) - 1), layers), rng


@pytest.mark.parametrize("widths", WIDTHS)
def test_value_and_linearisation(widths):
    point, rng = example(widths)
    matrices = list(point.problem.map.matrices)
    np.testing.assert_allclose(point.value, sum(trace_terms(point.layers, matrices)), rtol=1e-12)
    assert point.misfit <= 1e-15
    v = rng.standard_normal(point.x.size)
    w = point.projected(v)
    h = 1e-6
    ahead, behind = (ZeroLossPoint(point.problem, point._shaped(point.x + t * w)) for t in (h, -h))
    assert np.linalg.norm(ahead.residual - behind.residual) / (2 * h) <= 1e-7
    np.testing.assert_allclose((ahead.value - behind.value) / (2 * h), point.slope @ v, rtol=1e-6)
    np.testing.assert_allclose(point.projected(w), w, atol=1e-12)
    rest = point.gradient - point.slope
    S = point.problem.map.adjoint(point.multipliers())
    pulled = [C.T @ S @ B.T for C, B in zip(point.after[1:], point.before[:-1], strict=True)]
    np.testing.assert_allclose(np.concatenate([part.ravel() for part in pulled]), rest, atol=1e-9 * np.abs(rest).max())


@pytest.mark.parametrize("widths", WIDTHS)
def test_hessian_is_the_derivative_of_the_slope(widths):
    point, rng = example(widths)
    v = point.projected(rng.standard_normal(point.x.size))
    v /= np.linalg.norm(v)
    h = 1e-5
    ahead, behind = point.moved(h * v), point.moved(-h * v)
    assert max(ahead.misfit, behind.misfit) <= 1e-13
    difference = point.projected(ahead.slope - behind.slope) / (2 * h)
    found = point.hessian(v)
    np.testing.assert_allclose(found, difference, atol=1e-6 * np.linalg.norm(found))


@pytest.mark.parametrize("widths", [(4, 2, 3), (5, 2, 2, 2, 4)])
def test_the_gauge_changes_neither_product_nor_trace(widths):
    point, _ = example(widths)
    for direction in point.gauge():
        ahead, behind = (ZeroLossPoint(point.problem, point._shaped(point.x + t * direction)) for t in (1e-5, -1e-5))
        assert np.abs(ahead.matrix - behind.matrix).max() <= 1e-8 * np.abs(point.matrix).max()
        assert abs(ahead.value - behind.value) <= 1e-7 * point.value
    assert len(point.gauge()) == (len(widths) - 2)
    assert np.linalg.matrix_rank(point.gauge()) == len(widths) - 2


def test_newton_converges_and_the_curvature_is_that_of_the_dense_hessian():
    point, rng = example((5, 2, 2, 5), m=8)
    seen = []
    end = newton(point, 1e-12, lambda each: bool(seen.append(each)))
    assert end.stationarity <= 1e-10
    assert end.misfit <= 1e-13
    values = [each.value for each in seen]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(values))
    found, direction = end.curvature(rng)
    size = end.x.size
    dense = np.stack([end.hessian(end.projected(unit)) for unit in np.eye(size)])
    np.testing.assert_allclose(dense, dense.T, atol=1e-8 * np.abs(dense).max())
    basis = np.linalg.qr(np.concatenate([end._jacobian[0].T, end.gauge()]).T, mode="complete")[0]
    basis = basis[:, 8 + len(end.gauge()) :]
    inner = np.linalg.eigvalsh(basis.T @ dense @ basis)
    np.testing.assert_allclose(found, inner[0] / np.abs(inner).max(), rtol=2e-2)
    assert np.linalg.norm(basis @ (basis.T @ direction)) >= (1 - 1e-8) * np.linalg.norm(direction)


def test_the_direction_has_the_curvature():
    point, rng = example((4, 3, 3, 4), m=6, seed=3)
    found, direction = point.curvature(rng)
    quotient = direction @ point.hessian(direction) / (direction @ direction)
    largest = max(abs(np.linalg.eigvalsh(np.stack([point.hessian(point.projected(e)) for e in np.eye(point.x.size)]))))
    np.testing.assert_allclose(quotient / largest, found, rtol=2e-2)


def test_multipliers_near_a_ray_where_they_are_not_unique():
    point, rng = example((4, 1, 1, 4), m=12)
    assert point.freedom <= 0
    near = rng.standard_normal(12)
    one, two = point.multipliers(), point.multipliers(near)
    assert np.linalg.norm(one - two) > 1e-3
    S = point.problem.map.adjoint(two - one)
    pulled = [C.T @ S @ B.T for C, B in zip(point.after[1:], point.before[:-1], strict=True)]
    assert max(np.abs(part).max() for part in pulled) <= 1e-9 * np.abs(point.gradient).max()
    np.testing.assert_allclose(point.multipliers(one), one, atol=1e-9 * np.abs(one).max())


def test_a_step_that_cannot_be_led_back_is_refused():
    point, rng = example((3, 1, 1, 3), m=9)
    assert point.moved(10 * rng.standard_normal(point.x.size)) is None


@pytest.mark.parametrize(("widths", "m"), [((4, 1, 1, 4), 12), ((4, 2, 3), 5), ((5, 3, 2, 4), 16)])
def test_the_decomposition_of_the_jacobian(widths, m):
    point, rng = example(widths, m=m)
    basis, to_multipliers, to_step = point._jacobian
    A, stack = point.problem.map, []
    for row in np.eye(m):
        S = A.adjoint(row)
        stack.append(np.concatenate([(C.T @ S @ B.T).ravel() for C, B in zip(point.after[1:], point.before[:-1], strict=True)]))
    J = np.array(stack)
    rank = np.linalg.matrix_rank(J)
    assert basis.shape == (J.shape[1], rank)
    np.testing.assert_allclose(basis @ basis.T, np.linalg.pinv(J) @ J, atol=1e-10)
    r, g = rng.standard_normal(m), rng.standard_normal(J.shape[1])
    np.testing.assert_allclose(to_step(r), np.linalg.pinv(J, rcond=1e-10) @ r, atol=1e-8)
    np.testing.assert_allclose(to_multipliers(basis.T @ g), np.linalg.pinv(J.T, rcond=1e-10) @ g, atol=1e-8)
