"""Brute-force minimisation of the trace of the Hessian over the factorizations of a matrix."""

import autograd
import autograd.numpy as anp
import numpy as np
from scipy.optimize import minimize


def trace_of(layers, stack):
    """(2/m) sum_ij |B_{j-1} A_i^T C_j|^2, from the definition; `stack` holds the A_i."""
    before, after = [anp.eye(layers[0].shape[1])], [anp.eye(layers[-1].shape[0])]
    for layer in layers[:-1]:
        before.append(anp.dot(layer, before[-1]))
    for layer in layers[:0:-1]:
        after.append(anp.dot(after[-1], layer))
    total = 0.0
    for B, C in zip(before, after[::-1], strict=True):
        total = total + anp.sum(anp.einsum("pa,iba,bq->ipq", B, stack, C) ** 2)
    return 2 / len(stack) * total


def cut(theta, shapes):
    arrays, start = [], 0
    for rows, cols in shapes:
        arrays.append(anp.reshape(theta[start : start + rows * cols], (rows, cols)))
        start += rows * cols
    return arrays


def least_trace(M, stack, depth, width, rng):
    """Minimise over all factorizations of `M` whose hidden widths are `width`: its rank, or more if it has full column rank.

    All layers but the last are free (the first within the row space of `M`); the last is what they leave open.
    """
    U, s, Vt = np.linalg.svd(M)
    rank = np.count_nonzero(s > 1e-10 * s[0])
    row_space = Vt[:rank] if width == rank else np.eye(M.shape[1])
    shapes = [(width, len(row_space)), *[(width, width)] * (depth - 2), (M.shape[0], width)]

    def layers_of(theta):
        first, *middle, rest = cut(theta, shapes)
        layers = [anp.dot(first, row_space), *middle]
        product = first
        for layer in middle:
            product = anp.dot(layer, product)
        inverse = anp.linalg.inv(anp.dot(product.T, product))
        last = anp.dot(anp.dot(anp.dot(M, row_space.T), inverse), product.T)
        free = anp.eye(width) - anp.dot(anp.dot(product, inverse), product.T)
        return [*layers, last + anp.dot(rest, free)]

    def start():
        near = [np.eye(*shape) * np.linalg.norm(M, 2) ** (1 / depth) for shape in shapes]
        return np.concatenate([(W + 0.3 * rng.standard_normal(W.shape)).ravel() for W in near])

    value_and_gradient = autograd.value_and_grad(lambda theta: trace_of(layers_of(theta), stack))
    options = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 50}
    found = minimize(value_and_gradient, start(), jac=True, method="L-BFGS-B", options=options)
    layers = [np.asarray(layer) for layer in layers_of(found.x)]
    return found.fun, layers


def random_layers(M, depth, width, rng, spread=1.0):
    """Some factorization of `M` of hidden width `width`, at least its rank."""
    U, s, Vt = np.linalg.svd(M, full_matrices=False)
    rank = np.count_nonzero(s > 1e-10 * s[0])
    first, last = np.zeros((width, M.shape[1])), np.zeros((M.shape[0], width))
    first[:rank], last[:, :rank] = np.sqrt(s[:rank, None]) * Vt[:rank], U[:, :rank] * np.sqrt(s[:rank])
    frames = [np.eye(width) + spread * rng.standard_normal((width, width)) for _ in range(depth - 1)]
    middle = [frames[j] @ np.linalg.inv(frames[j - 1]) for j in range(1, depth - 1)]
    return [frames[0] @ first, *middle, last @ np.linalg.inv(frames[-1])]
