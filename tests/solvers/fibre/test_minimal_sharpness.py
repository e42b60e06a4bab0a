import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import balancedfact as bf
from tests.oracles import hessian


def instance(seed, d1, d2, rank, m):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2)), bf.measurements.gaussian(m, (d1, d2), rng)


def top(layers, A, M):
    """The largest eigenvalue of the dense Hessian."""
    return np.linalg.eigvalsh(hessian(layers, A.rotated(*map(np.eye, A.matrix_shape)), A(M)))[-1]


CASES = [(2, 3, 2, 2, 6), (3, 3, 2, 1, 3), (3, 3, 3, 2, 8), (4, 2, 3, 2, 12), (5, 4, 4, 2, 20), (3, 4, 1, 1, 1)]


@pytest.mark.parametrize(("L", "d1", "d2", "rank", "m"), CASES)
def test_value_is_attained_and_the_gap_closes(L, d1, d2, rank, m):
    M, A = instance(L, d1, d2, rank, m)
    solution = bf.minimal_sharpness(M, A, L)
    np.testing.assert_allclose(solution.matrix, M, atol=1e-11 * np.linalg.norm(M))
    assert top(solution.layers, A, M) == pytest.approx(solution.value, rel=1e-10)
    assert solution.status is bf.Status.OPTIMAL
    assert solution.certificate.gap <= 1e-8


@pytest.mark.slow
@given(st.integers(0, 10**6), st.integers(2, 4))
@settings(max_examples=15)
def test_no_factorization_is_less_sharp_than_the_bound(seed, L):
    M, A = instance(seed, 3, 2, 2, 5)
    bound = bf.minimal_sharpness(M, A, L, tol=1e-6).certificate.lower_bound
    rng = np.random.default_rng(seed)
    layers = bf.closed_forms.schatten_layers(M, [2, *[3] * (L - 1), 3])
    for j in range(L - 1):
        G = np.eye(3) + 0.2 * rng.standard_normal((3, 3))
        layers[j], layers[j + 1] = G @ layers[j], layers[j + 1] @ np.linalg.inv(G)
    assert top(layers, A, M) >= bound * (1 - 1e-9)


@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize(("outputs", "inputs", "n"), [(1, 3, 4), (2, 3, 4), (3, 2, 5)])
def test_regressions_have_the_closed_form(outputs, inputs, n, L):
    rng = np.random.default_rng(L)
    X, M = rng.standard_normal((n, inputs)), rng.standard_normal((outputs, inputs))
    A = bf.measurements.RankOne(np.tile(np.eye(outputs), (n, 1)), np.repeat(X, outputs, axis=0))
    expected = bf.closed_forms.minimal_sharpness(X.T @ X / n, M, L) / outputs
    solution = bf.minimal_sharpness(M, A, L)
    assert solution.value == pytest.approx(expected, rel=1e-8)
    assert solution.certificate.lower_bound == pytest.approx(expected, rel=1e-8)


def test_the_dual_vectors_prove_the_bound():
    M, A = instance(0, 4, 4, 2, 10)
    solution = bf.minimal_sharpness(M, A, 3)
    Y = solution.certificate.dual
    assert np.sum(Y**2) == pytest.approx(1, rel=1e-12)
    rotated = bf.measurements.Dense(np.array([A.adjoint(y) for y in Y.T]))
    bound = bf.induced_regularizer(M, rotated, 3).certificate.lower_bound * Y.shape[1] / A.m
    assert bound == pytest.approx(solution.certificate.lower_bound, rel=1e-10)


def test_the_best_single_vector_bounds_from_below():
    M, A = instance(1, 3, 3, 2, 3)
    value, rng = bf.minimal_sharpness(M, A, 3).value, np.random.default_rng(0)
    for y in rng.standard_normal((50, 3)):
        bound = bf.closed_forms.single_measurement_minimum(M, A.adjoint(y / np.linalg.norm(y)), 3) / A.m
        assert bound <= value * (1 + 1e-9)


@pytest.mark.parametrize("power", [-100, 100])
def test_extreme_scales(power):
    M, A = instance(2, 3, 2, 2, 5)
    far = bf.measurements.Dense(A.rotated(np.eye(3), np.eye(2)) * 10.0**power)
    ratio = bf.minimal_sharpness(M * 10.0**-power, far, 3).value / bf.minimal_sharpness(M, A, 3).value
    assert ratio == pytest.approx(10.0 ** (2 * power - power * 4 / 3), rel=1e-9)


def test_zero_and_what_is_not_seen():
    _, A = instance(0, 3, 2, 1, 4)
    zero = bf.minimal_sharpness(np.zeros((3, 2)), A, 3)
    assert zero.value == 0
    assert zero.status is bf.Status.OPTIMAL
    unseen = bf.measurements.Entries([0, 1], [0, 0], (3, 2))
    M = np.array([[1.0, 0.0], [2.0, 0.0], [5.0, 0.0]])
    solution = bf.minimal_sharpness(M, unseen, 2)
    assert solution.certificate.lower_bound <= solution.value
    assert np.isfinite(solution.value)


def test_callback_and_bad_input():
    M, A = instance(0, 3, 2, 1, 4)
    seen = []
    solution = bf.minimal_sharpness(M, A, 2, callback=seen.append)
    assert [record["value"] for record in seen] == list(solution.history["value"])
    with pytest.raises(ValueError, match="M has shape"):
        bf.minimal_sharpness(M.T, A, 2)
    with pytest.raises(ValueError, match="depth"):
        bf.minimal_sharpness(M, A, 1)
    with pytest.raises(ValueError, match="A is list"):
        bf.minimal_sharpness(M, [], 2)


@pytest.mark.parametrize("held", [1, 300])
def test_second_derivatives_held_in_pieces_are_those_held_at_once(held, monkeypatch):
    M, A = instance(3, 4, 3, 2, 9)
    whole = bf.minimal_sharpness(M, A, 3)
    monkeypatch.setattr("balancedfact.solvers.fibre._soft_maximum._DERIVATIVES_HELD", held)
    parts = bf.minimal_sharpness(M, A, 3)
    assert len(parts.history["value"]) == len(whole.history["value"])
    np.testing.assert_allclose(parts.history["value"], whole.history["value"], rtol=1e-10)


def test_measurements_read_in_pieces_are_those_read_at_once(monkeypatch):
    M, A = instance(4, 4, 3, 2, 9)
    whole = bf.minimal_sharpness(M, A, 3)
    monkeypatch.setattr("balancedfact.solvers.fibre._chain.ENTRIES_AT_ONCE", 30)
    np.testing.assert_allclose(bf.minimal_sharpness(M, A, 3).value, whole.value, rtol=1e-9)
