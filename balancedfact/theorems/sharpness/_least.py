"""The least sharpness of a network that solves a regression: value, bound, dual form."""

from __future__ import annotations

import numpy as np
import scipy.optimize

from balancedfact import closed_forms
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal


@claim(
    "New",
    "Exact minimal sharpness, lower bound",
    "No network of any hidden widths that solves a regression is less sharp than 2 min_s lambda_max(s Sigma + (L-1) "
    "s^(-1/(L-1)) Sigma^(1/2) w w' Sigma^(1/2)).",
    kind="bound",
    page="theory/sharpness_and_dynamics",
)
def least_sharpness(rng: np.random.Generator) -> Outcome:
    L, d, n = int(rng.integers(2, 5)), int(rng.integers(2, 4)), int(rng.integers(2, 8))
    problem = naive.regression(rng, d, n)
    least = closed_forms.minimal_sharpness(problem.covariance, problem.w, L)
    flattest = closed_forms.flattest_regression_layers(problem.covariance, problem.w, [d, *rng.integers(1, 4, L - 1), 1])
    found = []
    for size in (0.0, 1e-2, 1e-1, None):
        layers = naive.minimiser(rng, problem.w, [W.shape[1] for W in flattest] + [1])
        if size is not None:
            # A nearby minimiser: perturb all layers, then restore the product in the first one.
            layers = [W + size * V for W, V in zip(flattest, layers, strict=True)]
            a = naive.product(layers[1:])[0]
            layers[0] = layers[0] + np.outer(a, problem.w - layers[0].T @ a) / (a @ a)
        found.append(naive.top(naive.hessian(layers, problem.matrices, problem.targets)))
    return all_of(
        bound=at_least(min(found), least, rtol=1e-7, depth=L),
        attained=equal(found[0], least, rtol=1e-8),
        network=equal(naive.product(flattest)[0], problem.w),
    )


@claim(
    "New",
    "Exact minimal sharpness, value",
    "Minimising the sharpness over all weights of width two that solve a regression ends at that value.",
    kind="exact",
    page="theory/sharpness_and_dynamics",
)
def least_sharpness_by_search(rng: np.random.Generator) -> Outcome:
    problem = naive.regression(rng, 2, 8, norm=float(rng.uniform(0.5, 2)))
    L = int(rng.integers(2, 4))
    values, vectors = np.linalg.eigh(problem.covariance)
    root = vectors * np.sqrt(values) @ vectors.T

    def sharpness(theta: np.ndarray) -> float:
        layers = naive.unpacked(theta, [(2, 2)] * (L - 1) + [(1, 2)])
        a = naive.product(layers[1:])[0]
        layers[0] = layers[0] + np.outer(a, problem.w - layers[0].T @ a) / (a @ a)
        K = sum(np.sum(naive.after(layers, k) ** 2) * _gram(naive.before(layers, k - 1)) for k in range(1, L + 1))
        return 2 * naive.top(root @ K @ root)

    best = np.inf
    for _ in range(2):
        start = naive.packed(naive.minimiser(rng, problem.w, [2] * L + [1]))
        for _ in range(2):  # restarts free a simplex that has collapsed
            end = scipy.optimize.minimize(sharpness, start, method="Nelder-Mead", options={"maxfev": 500, "adaptive": True})
            start, best = end.x, min(best, end.fun)
    least = closed_forms.minimal_sharpness(problem.covariance, problem.w, L)
    return all_of(never_below=at_least(best, least), reached=equal(best, least, rtol=1e-6, depth=L))


def _gram(B: np.ndarray) -> np.ndarray:
    return B.T @ B


@claim(
    "New",
    "Exact minimal sharpness, dual form",
    "S_min = 2L max over unit vectors y of (y' Sigma y)^(1/L) |y' Sigma^(1/2) w|^(2-2/L): every unit vector gives a lower "
    "bound.",
    kind="exact",
    page="theory/sharpness_and_dynamics",
)
def dual_sharpness(rng: np.random.Generator) -> Outcome:
    L, d = int(rng.integers(2, 9)), int(rng.integers(2, 6))
    problem = naive.regression(rng, d, 3 * d)
    values, vectors = np.linalg.eigh(problem.covariance)
    root = vectors * np.sqrt(values) @ vectors.T

    def bound(y: np.ndarray) -> float:
        y = y / np.linalg.norm(y)
        return float(2 * L * (y @ problem.covariance @ y) ** (1 / L) * abs(y @ root @ problem.w) ** (2 - 2 / L))

    starts = [root @ problem.w, *rng.standard_normal((5, d))]
    best = max(-scipy.optimize.minimize(lambda y: -np.log(bound(y)), y, tol=1e-10).fun for y in starts)
    least = closed_forms.minimal_sharpness(problem.covariance, problem.w, L)
    return all_of(
        weak=at_most(max(bound(y) for y in starts), least, depth=L),
        strong=equal(np.exp(best), least, rtol=1e-7),
        published=at_least(bound(root @ problem.w), 2 * L * np.linalg.norm(problem.w) ** (2 - 2 / L) * problem.a),
    )


@claim(
    "New",
    "Exact minimal sharpness, white data",
    "With white data the least sharpness is 2L|w|^(2-2/L), and the rank-one limit has it.",
    kind="exact",
    page="theory/sharpness_and_dynamics",
)
def white_data(rng: np.random.Generator) -> Outcome:
    L, d, variance = int(rng.integers(2, 20)), int(rng.integers(1, 6)), float(np.exp(rng.uniform(-2, 2)))
    w = rng.standard_normal(d)
    value = 2 * L * variance * np.linalg.norm(w) ** (2 - 2 / L)
    return all_of(
        least=equal(closed_forms.minimal_sharpness(variance * np.eye(d), w, L), value, depth=L),
        limit=equal(closed_forms.rank_one_limit_sharpness(variance * np.eye(d), w, L), value),
    )
