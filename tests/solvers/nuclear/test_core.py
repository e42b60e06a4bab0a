import numpy as np
import pytest

from balancedfact.measurements import bernoulli_mask, gaussian
from balancedfact.solvers.nuclear._core import core_steps

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("size", [1e-150, 1.0, 1e150])
@pytest.mark.parametrize("k", [1, 3])
def test_many_steps_minimise_over_the_core(k, size, rng):
    A = gaussian(40, (9, 7), rng)
    U, V = (np.linalg.qr(rng.standard_normal((d, k)))[0] for d in A.matrix_shape)
    b = rng.standard_normal(40)
    images = np.array([A(np.outer(u, v)) for u in U.T for v in V.T])  # of the unit cores, by definition
    q = 0.4 * np.linalg.norm((images @ b).reshape(k, k), 2)
    L, R, s = core_steps(A, size * b, size * q, (U, np.zeros((k, k)), V), rng, steps=2000)
    C = U.T @ L @ (V.T @ R).T / size
    np.testing.assert_allclose(U @ C @ V.T * size, L @ R.T, atol=1e-12 * size)
    # Optimality: the gradient is q times a subgradient of the nuclear norm.
    pull = (images @ (b - C.ravel() @ images)).reshape(k, k) / q
    assert np.linalg.norm(pull, 2) <= 1 + 1e-7
    np.testing.assert_allclose(np.sum(pull * C), np.linalg.norm(C, "nuc"), rtol=1e-7, atol=1e-9)
    for factor in (L, R):
        np.testing.assert_allclose(factor.T @ factor, np.diag(s), atol=1e-12 * size)


def test_a_few_steps_descend_from_any_start(rng):
    A = bernoulli_mask((30, 20), 0.3, rng)
    U, V = (np.linalg.qr(rng.standard_normal((d, 5)))[0] for d in A.matrix_shape)
    b, C, q = rng.standard_normal(A.m), np.diag(rng.uniform(1, 9, 5)), 0.2

    def value(X):
        return 0.5 * np.sum((A(X) - b) ** 2) + q * np.linalg.norm(X, "nuc")

    L, R, _ = core_steps(A, b, q, (U, C, V), rng)
    assert value(L @ R.T) < value(U @ C @ V.T)


def test_what_is_not_seen_or_not_there_gives_nothing(rng):
    A = gaussian(5, (4, 3), rng)
    none = np.zeros((4, 0)), np.zeros((0, 0)), np.zeros((3, 0))
    assert core_steps(A, np.ones(5), 1.0, none, rng)[0].shape == (4, 0)
    U, V = np.eye(4)[:, :2], np.eye(3)[:, :2]
    assert core_steps(A, np.zeros(5), 1.0, (U, np.zeros((2, 2)), V), rng)[0].shape == (4, 0)
