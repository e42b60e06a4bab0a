import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymanopt.manifolds import Euclidean

from balancedfact.manifolds import BalancedPairs, RescaledBalancedPairs
from balancedfact.solvers.riemannian._tangent_spectrum import extreme_curvature


def curvature_of(values, seed=0, steps=150, flat=1e-7):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    H = (Q * values) @ Q.T
    np.random.seed(seed)  # noqa: NPY002, pymanopt draws the start from the global state
    found = extreme_curvature(Euclidean(len(values)), np.zeros(len(values)), lambda x, v: H @ v, steps=steps, flat=flat)
    return found, H


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.integers(0, 100))
def test_what_holds_for_every_start(values, seed):
    """Ritz values are within the spectrum and within their residuals of eigenvalues; which ones, no start can promise."""
    values = np.array(values)
    found, H = curvature_of(values, seed)
    top, off = np.abs(values).max(), np.abs(values - found.least).min()
    assert values.min() - 1e-12 * top <= found.least
    assert abs(found.least) <= found.largest <= top * (1 + 1e-12)
    if found.direction is None:
        assert found.least >= -1e-7 * found.largest
        assert off <= 1.1e-5 * found.largest + 1e-300
        assert np.abs(np.abs(values) - found.largest).min() <= 1.1e-3 * found.largest + 1e-300
    else:
        assert found.least < 0
        assert off <= max(-1.1e-2 * found.least, 1e-5 * found.largest)
        assert np.linalg.norm(found.direction) == pytest.approx(1)
        assert found.direction @ H @ found.direction < 0


def test_what_holds_for_nearly_every_start():
    """The smallest eigenvalue and the largest, each to a hundredth; of a clearly negative one its sign."""
    rng, missed = np.random.default_rng(0), 0
    for seed in range(400):
        values = rng.uniform(-1 if seed % 2 else 0.1, 5, rng.integers(1, 13))
        found, _ = curvature_of(values, seed)
        if values.min() < -0.01:
            missed += found.direction is None
        elif values.min() > 0.01:
            missed += abs(found.least / values.min() - 1) > 1e-2 or abs(found.largest / values.max() - 1) > 1e-2
    assert missed <= 4


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_a_hessian_of_any_size(scale):
    values = np.array([-3.0, 1.0, 2.0, 4.0, 5.0])
    known, found = curvature_of(values)[0], curvature_of(scale * values)[0]
    assert found.least == pytest.approx(scale * known.least, rel=1e-9)
    assert found.largest == pytest.approx(scale * known.largest, rel=1e-9)
    np.testing.assert_allclose(found.direction, known.direction, rtol=1e-7, atol=1e-9)


def test_the_direction_has_a_part_in_every_negative_direction():
    values = np.array([-3.0, -2.9, -2.8, 1.0, 4.0, 5.0])
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    H = (Q * values) @ Q.T
    np.random.seed(1)  # noqa: NPY002
    d = extreme_curvature(Euclidean(6), np.zeros(6), lambda x, v: H @ v, steps=100, flat=1e-7).direction
    parts = np.abs(Q.T @ d)
    assert parts[:3].min() > 0.02
    assert np.linalg.norm(parts[3:]) < 0.3


def test_flat_directions_are_not_negative():
    found, _ = curvature_of(np.array([-1e-9, 0.0, 1.0, 2.0]))
    assert found.direction is None
    found, _ = curvature_of(np.zeros(3))
    assert (found.least, found.largest, found.ratio) == (0.0, 0.0, 0.0)


def test_few_steps_suffice_for_a_clear_eigenvalue_among_many():
    values = np.linspace(0, 1, 400)
    values[100] = -0.05
    found, _ = curvature_of(values, steps=60)
    assert found.direction is not None
    assert found.ratio == pytest.approx(-0.05, rel=0.05)


def test_other_inner_products_count():
    """The eigenvalues are those in the metric of the manifold: rescaling is an isometry and does not change them."""
    rng = np.random.default_rng(2)
    D1, D2 = np.diag([1.0, 2.0, 5.0, 9.0]), np.diag([3.0, 1.0, 0.5])
    M = rng.standard_normal((4, 3))

    def hessian_of(manifold, L0, R0):
        def product(x, v):
            (L, R), (U, V) = x, v
            E = (L0 @ L) @ (R0 @ R).T - M
            dE = (L0 @ U) @ (R0 @ R).T + (L0 @ L) @ (R0 @ V).T
            gradient = [2 * L0.T @ E @ (R0 @ R), 2 * R0.T @ E.T @ (L0 @ L)]
            hessian = [2 * L0.T @ (dE @ R0 @ R + E @ R0 @ V), 2 * R0.T @ (dE.T @ L0 @ L + E.T @ L0 @ U)]
            return manifold.euclidean_to_riemannian_hessian(x, gradient, hessian, v)

        return product

    plain, scaled = BalancedPairs(4, 3, 2, rng=0), RescaledBalancedPairs(D1, D2, 2, rng=0)
    x = plain.random_point()
    y = type(x)([np.linalg.solve(D1, x[0]), np.linalg.solve(D2, x[1])])
    one = extreme_curvature(plain, x, hessian_of(plain, np.eye(4), np.eye(3)), steps=100, flat=1e-7)
    other = extreme_curvature(scaled, y, hessian_of(scaled, D1, D2), steps=100, flat=1e-7)
    assert one.least == pytest.approx(other.least, rel=2e-2)
    assert one.largest == pytest.approx(other.largest, rel=2e-2)


@given(st.integers(0, 200))
def test_a_preconditioner_changes_the_metric_and_not_the_signs(seed):
    """The values are those of ``P^(1/2) H P^(1/2)``, which are few where `P` is near the inverse of `H`."""
    rng = np.random.default_rng(seed)
    n = 8
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = np.logspace(-6, 3, n)
    values[0] = -1e-6 if seed % 2 else 1e-6
    H, P = (Q * values) @ Q.T, (Q * (1 + rng.random(n)) / np.abs(values)) @ Q.T
    root = (Q * np.sqrt(np.diag(Q.T @ P @ Q))) @ Q.T
    expected = np.linalg.eigvalsh(root @ H @ root)
    np.random.seed(seed)  # noqa: NPY002
    manifold, x = Euclidean(n), np.zeros(n)
    plain = extreme_curvature(manifold, x, lambda x, v: H @ v, steps=100, flat=1e-7)
    found = extreme_curvature(manifold, x, lambda x, v: H @ v, steps=100, flat=1e-7, preconditioner=lambda x, v: P @ v)
    assert plain.direction is None  # -1e-6 beside 1e3 is lost without it
    assert (found.direction is not None) == (seed % 2 == 1)
    if seed % 2 == 0:
        assert found.largest == pytest.approx(np.abs(expected).max(), rel=1e-3)
        assert found.least == pytest.approx(expected[0], rel=1e-2)
    else:  # it ends as soon as a value is clearly negative
        assert expected[0] - 1e-9 <= found.least < 0
        assert found.direction @ H @ found.direction < 0
        assert np.linalg.norm(found.direction) == pytest.approx(1)
