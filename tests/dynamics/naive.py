"""Training loops written from the definition."""

import numpy as np


def products(layers):
    """``B_0, ..., B_L`` and ``C_0, ..., C_L``."""
    before = [np.eye(layers[0].shape[1])]
    for layer in layers:
        before.append(layer @ before[-1])
    after = [np.eye(layers[-1].shape[0])]
    for layer in layers[::-1]:
        after.append(after[-1] @ layer)
    return before, after[::-1]


def gradients(layers, matrices, b, index=None, noise=None):
    """Of the mean of ``(<A_i, E> - b_i + noise_i)^2`` over the measurements in `index`, all by default."""
    index = range(len(matrices)) if index is None else index
    noise = np.zeros(len(index)) if noise is None else noise
    before, after = products(layers)
    G = np.zeros_like(matrices[0])
    for i, xi in zip(index, noise, strict=True):
        G = G + 2 / len(index) * (np.sum(matrices[i] * before[-1]) - b[i] + xi) * matrices[i]
    return [after[k + 1].T @ G @ before[k].T for k in range(len(layers))]


def descend(layers, matrices, b, step, iterations):
    for _ in range(iterations):
        layers = [layer - step * gradient for layer, gradient in zip(layers, gradients(layers, matrices, b), strict=True)]
    return layers


def loss(layers, matrices, b):
    E = products(layers)[0][-1]
    return np.mean([(np.sum(A * E) - target) ** 2 for A, target in zip(matrices, b, strict=True)])


def deviation(found, expected):
    """The largest difference of an entry, relative to the largest entry if that is above one."""
    size = max(1.0, *(np.abs(layer).max() for layer in expected))
    return max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)) / size


def run(layers, r):
    return [layer[r] for layer in layers]
