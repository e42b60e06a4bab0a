import numpy as np
import pytest
import scipy.linalg

from balancedfact.dynamics._exponential import _Krylov, _phi, exponential_step


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_phi_functions(order):
    """phi_k(z) is the last entry of the first row of the exponential of [[z, 1, 0, ...], [0, 0, 1, ...], ...]."""
    for z in (-1e4, -30.0, -1.01, -1.0, -0.99, -1e-3, 0.0, 1e-9, 0.5, 1.0, 1.5, 5.0):
        block = np.diag(np.ones(order), 1)
        block[0, 0] = z
        assert _phi(order, np.array([z]))[0] == pytest.approx(scipy.linalg.expm(block)[0, -1], rel=1e-11)


def test_krylov_functions(rng):
    Q = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    values = np.r_[-np.geomspace(1e-3, 1e4, 6), np.zeros(24)]
    J, v = (Q * values) @ Q.T, rng.standard_normal(30)
    space = _Krylov(lambda x: J @ x, v, 1.0, 1e-12)
    assert space.converged
    assert len(space.basis) <= 8  # the rank, and the null space
    np.testing.assert_allclose(space.phi(3, 1.0), Q @ (_phi(3, values) * (Q.T @ v)), atol=1e-10)
    assert not _Krylov(lambda x: 0 * x, np.zeros(3), 1.0, 1e-12).phi(1, 1.0).any()


def test_exact_on_linear_problems(rng):
    root = rng.standard_normal((8, 8))
    J, shift, u = -1e3 * root @ root.T, rng.standard_normal(8), rng.standard_normal(8)
    shift = J @ shift

    def field(x):
        return J @ x - shift

    found, error = exponential_step(u, field(u), field, lambda x: J @ x, 0.7, 1e-12)
    rest = np.linalg.solve(J, shift)
    np.testing.assert_allclose(found, rest + scipy.linalg.expm(0.7 * J) @ (u - rest), atol=1e-8)
    assert np.abs(error).max() < 1e-9


def test_order_four(rng):
    """For u' = -u^3 + J u, against a fine solution; the estimate bounds the error of a lower order."""
    root = rng.standard_normal((5, 5))
    J, u = -root @ root.T, rng.standard_normal(5)

    def field(x):
        return J @ x - x**3

    exact = scipy.integrate.solve_ivp(lambda t, x: field(x), (0, 0.4), u, method="DOP853", rtol=3e-14, atol=1e-15).y[:, -1]
    errors = []
    for steps in (4, 8, 16):
        x = u
        for _ in range(steps):
            x, _ = exponential_step(x, field(x), field, lambda v, x=x: J @ v - 3 * x**2 * v, 0.4 / steps, 1e-15)
        errors.append(np.abs(x - exact).max())
    assert errors[0] / errors[1] > 12
    assert errors[1] / errors[2] > 12
