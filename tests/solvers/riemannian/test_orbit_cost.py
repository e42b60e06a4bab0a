import autograd
import autograd.numpy as anp
import numpy as np
import pytest

from balancedfact.curvature import isotropic_trace
from balancedfact.solvers.riemannian._orbit_cost import OrbitCost


def brute(P, Q, W):
    """The formula, with every product formed anew."""
    L = len(W)

    def product(layers):
        E = layers[0]
        for layer in layers[1:]:
            E = anp.dot(layer, E)
        return E

    total = anp.sum(anp.dot(P, product(W[1:])) * product(W[1:])) + anp.sum(anp.dot(product(W[:-1]), Q) * product(W[:-1]))
    for j in range(2, L):
        total = total + anp.sum(product(W[j:]) ** 2) * anp.sum(product(W[: j - 1]) ** 2)
    return total


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
def test_derivatives(depth, rng):
    r = 3
    P, Q = (X @ X.T for X in rng.standard_normal((2, r, r)))
    W, V = rng.standard_normal((2, depth, r, r))
    cost = OrbitCost(P, Q)

    def function(x):
        return brute(P, Q, list(x))

    gradient = autograd.grad(function)
    assert cost.value(*W) == pytest.approx(function(W), rel=1e-12)
    np.testing.assert_allclose(cost.gradient(*W), gradient(W), rtol=1e-10, atol=1e-10)
    expected = autograd.grad(lambda x: anp.sum(gradient(x) * V))(W)
    np.testing.assert_allclose(cost.hessian(*W, *V), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_it_is_the_isotropic_trace_of_the_layers_of_a_long_matrix(depth, rng):
    rows, columns, r = 7, 5, 2
    U, V = np.linalg.qr(rng.standard_normal((rows, r)))[0], np.linalg.qr(rng.standard_normal((columns, r)))[0]
    W = list(rng.standard_normal((depth, r, r)))
    layers = [W[0] @ V.T, *W[1:-1], U @ W[-1]]
    cost = OrbitCost(columns * np.eye(r), rows * np.eye(r))
    assert cost.value(*W) == pytest.approx(isotropic_trace(layers), rel=1e-12)
