"""Minimisation of curvature over the factorizations of a matrix, from the definitions and from random starts."""

from itertools import pairwise

import autograd
import autograd.numpy as anp
import numpy as np
from scipy.optimize import minimize

from tests.oracles import unpacked


def outer_products(layers):
    """(B_{j-1}, C_j) for each layer j."""
    for j in range(len(layers)):
        B, C = anp.eye(layers[0].shape[1]), anp.eye(layers[-1].shape[0])
        for layer in layers[:j]:
            B = anp.dot(layer, B)
        for layer in layers[:j:-1]:
            C = anp.dot(C, layer)
        yield B, C


def separated(X, Y):
    """The cost sum_j |X C_j|^2 |B_{j-1} Y|^2."""
    return lambda layers: sum(anp.sum(anp.dot(X, C) ** 2) * anp.sum(anp.dot(B, Y) ** 2) for B, C in outer_products(layers))


def hessian_trace(matrices):
    """The cost (2/m) sum_j sum_i |B_{j-1} A_i^T C_j|^2."""

    def cost(layers):
        total = 0.0
        for B, C in outer_products(layers):
            total = total + sum(anp.sum(anp.dot(anp.dot(B, A.T), C) ** 2) for A in matrices)
        return 2 / len(matrices) * total

    return cost


def narrow_chart(M, rank, depth):
    """All factorizations of M with hidden widths equal to its rank: shapes of the parameters, and the layers they give."""
    U, s, Vt = np.linalg.svd(M)
    H, K = U[:, :rank] * s[:rank], Vt[:rank]

    def layers(gauges):
        middle = [anp.dot(after, anp.linalg.inv(before)) for before, after in pairwise(gauges)]
        return [anp.dot(gauges[0], K), *middle, anp.dot(H, anp.linalg.inv(gauges[-1]))]

    return [(rank, rank)] * (depth - 1), layers


def wide_chart(M, widths):
    """The factorizations of M whose first L - 1 layers have a product of full column rank, dense among all of them."""
    shapes = [*zip(widths[1:-1], widths[:-2], strict=True), (widths[-1], widths[-2])]

    def layers(parameters):
        *inner, free = parameters
        B = inner[0]
        for layer in inner[1:]:
            B = anp.dot(layer, B)
        inverse = anp.linalg.solve(anp.dot(B.T, B), B.T)
        return [*inner, anp.dot(M - anp.dot(free, B), inverse) + free]

    return shapes, layers


def least(cost, chart, seed, starts=3):
    """The least cost found in the chart."""
    shapes, layers = chart
    rng = np.random.default_rng(seed)

    def objective(theta):
        return anp.log(cost(layers(unpacked(theta, shapes))))

    found = []
    for _ in range(starts):
        start = np.concatenate([(np.eye(*shape) + 0.3 * rng.standard_normal(shape)).ravel() for shape in shapes])
        result = minimize(autograd.value_and_grad(objective), start, jac=True, method="BFGS", options={"gtol": 1e-9})
        found.append(np.exp(result.fun))
    return min(found)
