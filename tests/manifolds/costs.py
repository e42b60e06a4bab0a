"""Costs that users might bring, for automatic differentiation."""

import autograd.numpy as anp
import numpy as np


def product(layers):
    result = layers[0]
    for layer in layers[1:]:
        result = anp.dot(layer, result)
    return result


def isotropic_trace(*layers):
    """R(W), the sum over j of |W_L ... W_{j+1}|^2 |W_{j-1} ... W_1|^2."""
    ends, total = (layers[0].shape[1], layers[-1].shape[0]), 0.0
    for j in range(len(layers)):
        before = anp.sum(product(layers[:j]) ** 2) if j else ends[0]
        after = anp.sum(product(layers[j + 1 :]) ** 2) if j + 1 < len(layers) else ends[1]
        total = total + before * after
    return total


def isotropic_minimum(M, depth):
    """The least R(W) over all layers with the product M (Gatmiry et al. 2023, Lemma 4)."""
    return depth * (M.shape[0] * M.shape[1]) ** (1 / depth) * np.linalg.norm(M, "nuc") ** (2 - 2 / depth)


def trace(matrices):
    """The trace of the Hessian of (1/m) |A(E) - b|^2 for a stack of matrices of shape (m, d_L, d_0)."""

    def cost(*layers):
        total = 0.0
        for j in range(len(layers)):
            stack = matrices
            if j:
                stack = anp.einsum("ipq,rq->ipr", stack, product(layers[:j]))
            if j + 1 < len(layers):
                stack = anp.einsum("ipq,pr->irq", stack, product(layers[j + 1 :]))
            total = total + anp.sum(stack**2)
        return 2 * total / len(matrices)

    return cost


def huber(targets, width=0.3):
    """The smooth robust distance of layers from targets, sum of w^2 (sqrt(1 + (x / w)^2) - 1)."""

    def cost(*layers):
        return sum(
            anp.sum(width**2 * (anp.sqrt(1 + ((layer - target) / width) ** 2) - 1))
            for layer, target in zip(layers, targets, strict=True)
        )

    return cost


def weighted(targets, weights):
    """The sum of squared distances of the entries of layers from targets, with a weight for every entry."""

    def cost(*layers):
        return sum(
            anp.sum(weight * (layer - target) ** 2) for layer, target, weight in zip(layers, targets, weights, strict=True)
        )

    return cost
