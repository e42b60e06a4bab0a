"""The Hessian at every point: its trace and sharpness off minimisers, its rank in regression."""

from __future__ import annotations

import itertools

import numpy as np

from balancedfact import closed_forms, curvature, measurements
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._outcome import Outcome, all_of, at_most, equal


def _network(rng: np.random.Generator, most: int = 40) -> tuple[list[np.ndarray], measurements.MeasurementMap, np.ndarray]:
    """Random layers with at most so many entries, and Gaussian measurements with their matrices."""
    while True:
        widths = [int(d) for d in rng.integers(1, 5, rng.integers(3, 6))]
        if sum(a * b for a, b in itertools.pairwise(widths)) <= most:
            break
    matrices = rng.standard_normal((int(rng.integers(1, 9)), widths[-1], widths[0]))
    return naive.gaussian_layers(rng, widths), measurements.Dense(matrices), matrices


@claim(
    "New",
    "Trace formula off minimisers",
    "The trace of the Hessian is (2/m) sum_j sum_i |B_(j-1) A_i' C_j|^2 at every point, whatever the data, not only at "
    "zero loss.",
    kind="exact",
    page="theory/curvature",
)
def trace_everywhere(rng: np.random.Generator) -> Outcome:
    layers, A, matrices = _network(rng)
    b = 10 * rng.standard_normal(A.m)
    dense = float(np.trace(naive.hessian(layers, matrices, b)))
    return equal(curvature.trace(layers, A), dense, loss=naive.loss(layers, matrices, b))


@claim(
    "New",
    "Sharpness through AKA*",
    "Where the gradient in the end-to-end matrix vanishes, at zero loss or in noisy regression, the sharpness is (2/m) "
    "lambda_max(AKA*) with K(Y) = sum_j C_j C_j' Y B_(j-1)' B_(j-1).",
    kind="exact",
    page="theory/curvature",
)
def sharpness_at_minima(rng: np.random.Generator) -> Outcome:
    layers, A, matrices = _network(rng)
    b = np.array([np.sum(M * naive.product(layers)) for M in matrices])
    problem = naive.regression(rng, int(rng.integers(1, 4)), 8)
    fit = naive.minimiser(rng, problem.w, [problem.w.size, *rng.integers(1, 4, 2), 1])
    return all_of(
        zero_loss=equal(_through_kernel(layers, matrices), curvature.sharpness(layers, A, b), rtol=1e-8),
        hessian=equal(curvature.sharpness(layers, A, b), naive.top(naive.hessian(layers, matrices, b)), rtol=1e-8),
        noisy=equal(
            _through_kernel(fit, problem.matrices), naive.top(naive.hessian(fit, problem.matrices, problem.targets)), rtol=1e-8
        ),
        package=equal(_through_kernel(fit, problem.matrices), curvature.sharpness(fit, problem.A, problem.targets), rtol=1e-8),
    )


def _through_kernel(layers: list[np.ndarray], matrices: np.ndarray) -> float:
    kernel = np.zeros((len(matrices), len(matrices)))
    for j in range(1, len(layers) + 1):
        B, C = naive.before(layers, j - 1), naive.after(layers, j)
        kernel += [[np.sum(P * (C @ C.T @ Q @ B.T @ B)) for Q in matrices] for P in matrices]
    return 2 / len(matrices) * naive.top(kernel)


@claim(
    "New",
    "Sharpness off minimisers",
    "Everywhere the sharpness differs from (2/m) lambda_max(AKA*) by at most (2 sum_(j<k) beta_jk^2)^(1/2), with beta_jk "
    "= |C_k' G B_(j-1)'|_2 |W_(k-1)...W_(j+1)|_2.",
    kind="bound",
    page="theory/curvature",
)
def residual_term(rng: np.random.Generator) -> Outcome:
    layers, A, matrices = _network(rng)
    b = np.array([np.sum(M * naive.product(layers)) for M in matrices])
    b = b + np.exp(rng.uniform(-6, 2)) * rng.standard_normal(A.m)
    residual = np.array([np.sum(M * naive.product(layers)) for M in matrices]) - b
    G = 2 / len(matrices) * np.tensordot(residual, matrices, 1)
    beta = 0.0
    for k in range(2, len(layers) + 1):
        for j in range(1, k):
            between = naive.product([np.eye(layers[j - 1].shape[0]), *layers[j : k - 1]])
            outer = naive.after(layers, k).T @ G @ naive.before(layers, j - 1).T
            beta += 2 * (np.linalg.norm(outer, 2) * np.linalg.norm(between, 2)) ** 2
    found = curvature.sharpness(layers, A, b)
    dense = naive.top(naive.hessian(layers, matrices, b))
    return all_of(
        weyl=at_most(abs(dense - _through_kernel(layers, matrices)), float(np.sqrt(beta))),
        package=equal(found, dense, rtol=1e-7),
    )


@claim(
    "New",
    "Rank of the regression Hessian",
    "Everywhere the Hessian of univariate regression has at most sum_k (d_k + d_(k-1) - 1) nonzero eigenvalues, those of "
    "a matrix of that order.",
    kind="exact",
    page="theory/sharpness_and_dynamics",
)
def compressed_hessian(rng: np.random.Generator) -> Outcome:
    d, n = int(rng.integers(1, 5)), int(rng.integers(1, 8))
    problem = naive.regression(rng, d, n)
    widths = [d, *(int(w) for w in rng.integers(1, 5, rng.integers(1, 3))), 1]
    layers = naive.gaussian_layers(rng, widths)
    values = np.linalg.eigvalsh(naive.hessian(layers, problem.matrices, problem.targets))
    rank = int(np.count_nonzero(np.abs(values) > 1e-10 * np.abs(values).max()))
    order = sum(above + below - 1 for below, above in itertools.pairwise(widths))
    found = closed_forms.regression_sharpness(layers, problem.covariance, problem.w)
    return all_of(rank=at_most(rank, order), sharpness=equal(found, values[-1], rtol=1e-8))
