"""Robust and weighted costs of users converge on every manifold, with first- and second-order optimizers of pymanopt."""

import autograd.numpy as anp
import numpy as np
import pymanopt
import pytest
from pymanopt.optimizers import ConjugateGradient, TrustRegions

import balancedfact as bf
from balancedfact.manifolds import (
    BalancedLayers,
    BalancedPairs,
    Factorizations,
    RescaledBalancedPairs,
    ZeroLoss,
    stiefel_product,
)
from tests.manifolds.costs import huber, product, weighted

D1, D2, K = 7, 6, 3


def of_pairs(rng):
    """Costs of the product of a pair, with a few gross errors in the data, and its Gram matrix."""
    M = rng.standard_normal((D1, K)) @ rng.standard_normal((K, D2)) + 10.0 * (rng.random((D1, D2)) < 0.05)
    weights = rng.uniform(0.1, 1.0, M.shape)
    robust, squares = huber([M]), weighted([M], [weights])
    return {"robust": lambda L, R: robust(anp.dot(L, R.T)), "weighted": lambda L, R: squares(anp.dot(L, R.T))}


def composed(costs, pair_of):
    def of(cost):
        def of_parts(*parts):
            return cost(*pair_of(*parts))

        return of_parts

    return {name: of(cost) for name, cost in costs.items()}


def balanced_pairs(rng):
    return BalancedPairs(D1, D2, K, rng=rng), of_pairs(rng)


def rescaled_balanced_pairs(rng):
    A = bf.measurements.gaussian(80, (D1, D2), rng=rng)
    return RescaledBalancedPairs(A.D1, A.D2, K, rng=rng), of_pairs(rng)


def products_of_stiefel(rng):
    return stiefel_product(D1, D2, K), composed(of_pairs(rng), lambda B, C, D: (anp.dot(B, C), anp.dot(D, C)))


def balanced_layers(rng):
    return BalancedLayers([D2, K, 5, D1], rng=rng), composed(of_pairs(rng), lambda *W: (product(W), np.eye(D2)))


def of_layers(manifold, rng):
    """Costs of the layers themselves, whose product is fixed or restricted."""
    targets = [rng.standard_normal(shape) for shape in manifold.shapes]
    weights = [rng.uniform(0.1, 1.0, shape) for shape in manifold.shapes]
    return manifold, {"robust": huber(targets), "weighted": weighted(targets, weights)}


def factorizations(rng):
    M = rng.standard_normal((D1, K)) @ rng.standard_normal((K, D2))
    return of_layers(Factorizations(M, [D2, K, 4, D1], rng=rng), rng)


def zero_loss(rng):
    A = bf.measurements.gaussian(20, (D1, D2), rng=rng)
    return of_layers(ZeroLoss(A, A(rng.standard_normal((D1, D2))), [D2, 6, 7, D1], rng=rng), rng)


MANIFOLDS = [balanced_pairs, rescaled_balanced_pairs, products_of_stiefel, balanced_layers, factorizations, zero_loss]


@pytest.mark.slow
@pytest.mark.parametrize("build", MANIFOLDS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("kind", ["robust", "weighted"])
@pytest.mark.parametrize("optimizer", [TrustRegions, ConjugateGradient])
def test_converges(build, kind, optimizer):
    rng = np.random.default_rng(0)
    np.random.seed(0)  # noqa: NPY002, what the product of Stiefel manifolds draws from
    manifold, costs = build(rng)
    problem = pymanopt.Problem(manifold, pymanopt.function.autograd(manifold)(costs[kind]))
    start = manifold.random_point()
    slope = manifold.norm(start, problem.riemannian_gradient(start))
    solver = optimizer(verbosity=0, max_iterations=3000, min_gradient_norm=1e-7 * slope, min_step_size=0.0)
    result = solver.run(problem, initial_point=start)
    assert manifold.norm(result.point, problem.riemannian_gradient(result.point)) <= 1e-7 * slope
    assert result.cost < problem.cost(start)
    if hasattr(manifold, "residual"):
        assert manifold.residual(result.point) < 1e-12
    # No direction goes down: what is found is a minimum, not merely a stationary point.
    nearby = [manifold.retraction(result.point, 1e-3 * manifold.random_tangent_vector(result.point)) for _ in range(20)]
    assert min(map(problem.cost, nearby)) >= result.cost * (1 - 1e-9)
