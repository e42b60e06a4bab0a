import numpy as np
import pytest

from balancedfact.solution import Status
from balancedfact.solvers.iteration._conjugate_gradients import conjugate_gradients, trust_region_step
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Log


def trial_problem(rng, eigenvalues):
    """A quadratic model in 10 unknowns, shaped 5 x 2, with a preconditioner, as matrices and as operators."""
    Q = np.linalg.qr(rng.standard_normal((10, 10)))[0]
    H = (Q * eigenvalues) @ Q.T
    root = rng.standard_normal((10, 10))
    P = root @ root.T + np.eye(10)

    def operator(matrix):
        return lambda x: (matrix @ x.ravel()).reshape(5, 2)

    return H, P, rng.standard_normal(10), operator(H), operator(P)


@pytest.mark.parametrize("scale", [1e-60, 1.0, 1e60])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_equations_are_solved(preconditioned, scale, rng):
    H, _, target, operator, precondition = trial_problem(rng, np.linspace(0.5, 5.0, 10))
    more = {"precondition": precondition} if preconditioned else {}
    x, products = conjugate_gradients(operator, scale * target.reshape(5, 2), accuracy=1e-13, max_products=50, **more)
    np.testing.assert_allclose(x.ravel(), scale * np.linalg.solve(H, target), rtol=1e-9)
    assert products <= 14


def test_equations_of_a_singular_operator_have_the_solution_of_least_norm(rng):
    H, _, _, operator, _ = trial_problem(rng, np.r_[np.zeros(4), np.linspace(1.0, 5.0, 6)])
    target = H @ rng.standard_normal(10)
    x, products = conjugate_gradients(operator, target.reshape(5, 2), accuracy=1e-12, max_products=50)
    np.testing.assert_allclose(x.ravel(), np.linalg.pinv(H, rcond=1e-10) @ target, atol=1e-9)
    assert products <= 8


def test_zero_and_flat_targets_and_budgets_end_at_once(rng):
    _, _, target, operator, _ = trial_problem(rng, np.linspace(0.5, 5.0, 10))
    nothing = conjugate_gradients(operator, np.zeros((5, 2)), accuracy=1e-12, max_products=50)
    assert not nothing.x.any()
    assert nothing.products == 0
    flat = conjugate_gradients(lambda x: -x, target.reshape(5, 2), accuracy=1e-12, max_products=50)
    assert not flat.x.any()
    assert flat.products == 1
    assert conjugate_gradients(operator, target.reshape(5, 2), accuracy=1e-12, max_products=3).products == 3


def test_both_notice_that_time_is_up(rng):
    _, _, target, operator, _ = trial_problem(rng, np.linspace(0.5, 5.0, 10))
    for call in (conjugate_gradients, lambda *a, **k: trust_region_step(*a, 1.0, **k)):
        with Log(progress=False, limits=Limits(seconds=1e-9)) as log:
            call(operator, target.reshape(5, 2), accuracy=1e-12, max_products=50)
        assert log.ended[0] is Status.LIMIT


@pytest.mark.parametrize("radius", [np.inf, 1e6, 2.0, 1e-3])
@pytest.mark.parametrize("lowest", [0.5, -0.5, -50.0])
def test_a_step_of_the_trust_region(radius, lowest, rng):
    H, P, slope, hessian, precondition = trial_problem(rng, np.linspace(lowest, 5.0, 10))
    accuracy = 1e-4
    step, decrease, products, length, limited = trust_region_step(
        hessian, slope.reshape(5, 2), radius, accuracy=accuracy, max_products=200, precondition=precondition
    )
    x = step.ravel()
    np.testing.assert_allclose(decrease, -(slope @ x + x @ H @ x / 2), rtol=1e-6)
    np.testing.assert_allclose(length, np.sqrt(x @ np.linalg.solve(P, x)), rtol=1e-6)
    assert decrease > 0
    assert length <= radius * (1 + 1e-9)
    # At least as good as the best step along the preconditioned gradient.
    along = -P @ slope
    most = radius / np.sqrt(-slope @ along)
    curvature = along @ H @ along
    t = min(most, -(slope @ along) / curvature) if curvature > 0 else most
    if np.isfinite(t):
        assert decrease >= -(t * slope @ along + t**2 * curvature / 2) * (1 - 1e-9)
    if lowest > 0 and radius > 1e3:
        np.testing.assert_allclose(x, -np.linalg.solve(H, slope), rtol=1e-3, atol=1e-3)
        assert products <= 12
        assert not limited
    elif np.isfinite(radius) and lowest < 0:
        np.testing.assert_allclose(length, radius, rtol=1e-9)
        assert limited


def test_a_step_with_a_projection_stays_in_its_range(rng):
    H, _, slope, hessian, _ = trial_problem(rng, np.linspace(0.5, 5.0, 10))
    basis = np.linalg.qr(rng.standard_normal((10, 6)))[0]
    found = trust_region_step(
        hessian,
        slope.reshape(5, 2),
        np.inf,
        accuracy=1e-12,
        max_products=50,
        precondition=lambda x: (basis @ (basis.T @ x.ravel())).reshape(5, 2),
    )
    expected = -basis @ np.linalg.solve(basis.T @ H @ basis, basis.T @ slope)
    np.testing.assert_allclose(found.x.ravel(), expected, atol=1e-10)
    np.testing.assert_allclose(found.length, np.linalg.norm(expected))


def test_a_step_survives_products_that_round_below_zero(rng):
    """Rounding makes ``<r, z>`` negative once a projection has left nothing of `r`; no root may be taken of it."""
    basis = np.linalg.qr(rng.standard_normal((10, 4)))[0]
    slope, signs = basis @ rng.standard_normal(4), iter([1.0, -1.0])
    products = []

    def precondition(r):
        z = next(signs) * (basis @ (basis.T @ r))
        products.append(r @ z)
        return z

    step = trust_region_step(lambda x: 3 * x, slope, np.inf, accuracy=0.0, max_products=20, precondition=precondition)
    assert products[-1] < 0
    assert np.isfinite(step.length)
    np.testing.assert_allclose(step.x, -slope / 3, atol=1e-12)


def test_a_step_keeps_to_its_budget(rng):
    _, _, slope, hessian, precondition = trial_problem(rng, np.geomspace(1e-4, 5.0, 10))
    for budget in (1, 3):
        found = trust_region_step(
            hessian, slope.reshape(5, 2), np.inf, accuracy=1e-6, max_products=budget, precondition=precondition
        )
        assert found.products == budget


@pytest.mark.parametrize("radius", [1.0, np.inf])
def test_no_step_where_the_preconditioner_sees_nothing_of_the_slope(radius):
    """Zero over zero would be the length of the step otherwise."""
    found = trust_region_step(
        lambda x: 3 * x, np.ones(4), radius, accuracy=0.1, max_products=5, precondition=lambda r: np.zeros_like(r)
    )
    assert (found.decrease, found.products, found.length, found.limited) == (0.0, 0, 0.0, False)
    np.testing.assert_array_equal(found.x, np.zeros(4))
