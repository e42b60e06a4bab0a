import autograd
import autograd.numpy as anp
import numpy as np
import pytest

from balancedfact.solvers.riemannian._triple_distance import TripleDistance


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("sizes", [(5, 4, 2), (3, 3, 3), (4, 6, 1)])
def test_value_and_derivatives_are_those_of_the_definition(sizes, merged, rng):
    """On orthonormal factors the values agree; the derivatives are those of the function that its formula extends it to."""
    d1, d2, q = sizes
    M = rng.standard_normal((d1, d2))
    B, D = (np.linalg.qr(rng.standard_normal((d, q)))[0] for d in (d1, d2))
    C = rng.standard_normal((q, q))
    C = C @ C.T if merged else C
    found = TripleDistance(M, merged, lambda L, R: float(np.sum((L @ R.T - M) ** 2)))

    def square(C):
        return (C + C.T) / 2 if merged else C @ C.T

    assert found.value(B, C, D) == pytest.approx(np.sum((B @ square(C) @ D.T - M) ** 2), rel=1e-12)

    def extended(numbers):
        B = anp.reshape(numbers[: d1 * q], (d1, q))
        C = anp.reshape(numbers[d1 * q : (d1 + q) * q], (q, q))
        D = anp.reshape(numbers[(d1 + q) * q :], (d2, q))
        return np.sum(M**2) - 2 * anp.sum((B.T @ M @ D) * square(C)) + anp.sum(square(C) ** 2)

    def flat(parts):
        return np.concatenate([part.ravel() for part in parts])

    U, V, W = rng.standard_normal((d1, q)), rng.standard_normal((q, q)), rng.standard_normal((d2, q))
    V = V + V.T if merged else V
    x, v = flat([B, C, D]), flat([U, V, W])
    assert np.allclose(flat(found.gradient(B, C, D)), autograd.grad(extended)(x), atol=1e-12)
    assert np.allclose(flat(found.hessian(B, C, D, U, V, W)), autograd.hessian_vector_product(extended)(x, v), atol=1e-12)


def test_a_small_value_keeps_its_digits(rng):
    B, D = (np.linalg.qr(rng.standard_normal((d, 2)))[0] for d in (6, 5))
    S, E = np.diag([2.0, 1.0]), rng.standard_normal((6, 5))
    M = B @ S @ D.T + 1e-10 * E
    found = TripleDistance(M, True, lambda L, R: float(np.sum((L @ R.T - M) ** 2)))
    assert found.value(B, S, D) == pytest.approx(1e-20 * np.sum(E**2), rel=1e-4)
