"""Training near weights that fit: stability of SGD in the mean square, the drift of label noise, the edge of stability."""

from __future__ import annotations

import itertools

import numpy as np

from balancedfact import dynamics, measurements
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._outcome import Outcome, all_of, at_least, equal

PAGE = "theory/sharpness_and_dynamics"


def fitted(rng: np.random.Generator) -> tuple[measurements.Dense, np.ndarray, list[np.ndarray], np.ndarray]:
    """Measurements, data, layers that fit them, and the derivatives of the measurements in the weights, one a row."""
    widths = [int(d) for d in rng.integers(2, 4, 3)]
    A = measurements.gaussian(int(rng.integers(2, 5)), (widths[-1], widths[0]), rng)
    layers = naive.gaussian_layers(rng, widths)
    b = np.array([np.sum(M * naive.product(layers)) for M in A.matrices])
    # With one measurement and the residual -1/2 the gradient of the squared error is minus its derivative.
    pairs = zip(A.matrices, b, strict=True)
    rows = [-naive.packed(naive.gradient(layers, M[None], np.array([value + 0.5]))) for M, value in pairs]
    return A, b, layers, np.array(rows)


@claim(
    "New",
    "Mean-square stability of SGD",
    "At weights that fit, the covariance of the deviation under SGD with batches of B measurements, with or without "
    "replacement, does not grow if and only if the step is at most 2/lambda, lambda the largest eigenvalue of "
    "lambda (HY+YH)/2 = (1-p) HYH + p mean(H_i Y H_i).",
    kind="exact",
    page=PAGE,
)
def stability(rng: np.random.Generator) -> Outcome:
    A, b, layers, J = fitted(rng)
    batch, replacement = int(rng.integers(1, min(3, A.m) + 1)), bool(rng.integers(2))
    found = dynamics.stability_threshold(layers, A, b, batch=batch, replacement=replacement)
    seen = np.linalg.svd(J, full_matrices=False)[2]
    each = [2 * np.outer(seen @ g, seen @ g) for g in J]
    drawn = list(itertools.product(each, repeat=batch) if replacement else itertools.combinations(each, batch))

    def growth(step: float) -> float:
        """The spectral radius of the map of covariances, averaged over all batches."""
        moves = [np.eye(len(seen)) - step * sum(some) / batch for some in drawn]
        return float(np.abs(np.linalg.eigvals(sum(np.kron(M, M) for M in moves) / len(moves))).max())

    return all_of(
        at_the_threshold=equal(growth(found), 1.0, rtol=1e-8, step=found, batch=batch),
        beyond=at_least(growth(1.01 * found), 1.0),
        below=at_least(1.0, growth(0.99 * found)),
    )


@claim(
    "New",
    "Drift of equal label noise",
    "Noise of variance s^2 on all labels, with full batches and step eta, drives weights that fit along -eta s^2/(2m) times "
    "the projected gradient of the trace of the Hessian.",
    kind="exact",
    page=PAGE,
)
def drift(rng: np.random.Generator) -> Outcome:
    A, b, layers, J = fitted(rng)
    step, variance, time = float(rng.uniform(0.01, 0.1)), float(rng.uniform(0.1, 1.0)), 1e-5
    covariance = variance * np.eye(A.m)
    options = {"step": step, "rtol": 1e-10, "observe": ()}
    ends = [
        dynamics.label_noise_flow(layers, A, b, t_final=t, label_noise=covariance, **options).layers  # type: ignore[arg-type]
        for t in (0.0, time / (step * variance))
    ]
    moved = (naive.packed(ends[1]) - naive.packed(ends[0])) * step * variance / time
    theta, shapes, h = naive.packed(layers), [W.shape for W in layers], 1e-5

    def trace(at: np.ndarray) -> float:
        return naive.trace(naive.unpacked(at, shapes), A.matrices)

    slope = [(trace(theta + h * e) - trace(theta - h * e)) / (2 * h) for e in np.eye(theta.size)]
    tangent = np.eye(theta.size) - np.linalg.pinv(J) @ J
    expected = -step * variance / (2 * A.m) * tangent @ np.array(slope)
    return equal(moved, expected, rtol=1e-3, scale=float(np.linalg.norm(expected)))


@claim(
    "New",
    "Descent from above the edge of stability",
    "Descent whose step is beyond the edge 2/sharpness of a minimum by a small factor of 1 + eps ends, from a start beside it, "
    "below the edge by about as much as it began above.",
    kind="empirical",
    page=PAGE,
)
def edge(rng: np.random.Generator) -> Outcome:
    X = rng.standard_normal((10, 2))
    w = rng.standard_normal(2)
    A, b = measurements.regression(X), X @ (w / np.linalg.norm(w))
    start = [1.2 * np.eye(2) + 0.2 * rng.standard_normal((2, 2)), 0.3 * rng.standard_normal((1, 2))]
    bottom = dynamics.gradient_flow(start, A, b, stationarity=1e-13).layers
    values, vectors = np.linalg.eigh(naive.hessian(bottom, A.right[:, None], b))
    mirrored = []
    for eps in (0.02, 0.005):
        theta = naive.packed(bottom) + 0.1 * eps * vectors[:, -1]
        layers = naive.unpacked(theta, [W.shape for W in bottom])
        step, steps = 2 * (1 + eps) / values[-1], int(60 / eps)
        end = dynamics.gradient_descent(layers, A, b, step=step, iterations=steps, record=[0], observe=()).layers
        mirrored.append((naive.top(naive.hessian(end, A.right[:, None], b)) * step / 2 - 1) / eps)
    # The deviation from -1 is of the order of eps, and smaller for the smaller one.
    return all_of(
        shrinks=at_least(0.6 * abs(mirrored[0] + 1) + 0.02, abs(mirrored[1] + 1), first=mirrored[0], second=mirrored[1]),
        below=at_least(-0.5, mirrored[1]),
    )
