"""Sharpness of minimisers, and lemmas on the risk and on Gaussian layers: Marion and Chizat 2024, section 3, appendix A."""

from __future__ import annotations

import numpy as np
import scipy.stats

from balancedfact import closed_forms, curvature, dynamics, measurements
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal


@claim(
    "MC",
    "Theorem 1",
    "The least sharpness of the networks of depth L that solve a regression is between 2L|w|^(2-2/L) a and 2|w|^(2-2/L) "
    "sqrt((2L-1) Lambda^2 + (L-1)^2 a^2), also for singular covariances.",
    kind="bound",
    page="theory/sharpness_and_dynamics",
)
def least_sharpness(rng: np.random.Generator) -> Outcome:
    L, d, n = int(rng.integers(2, 7)), int(rng.integers(2, 5)), int(rng.integers(2, 12))
    problem = naive.regression(rng, d, n, norm=float(np.exp(rng.uniform(-1, 1))))
    size = np.linalg.norm(problem.w) ** (2 - 2 / L)
    lower = 2 * L * size * problem.a
    upper = 2 * size * np.sqrt((2 * L - 1) * problem.largest**2 + (L - 1) ** 2 * problem.a**2)
    flattest = closed_forms.flattest_regression_layers(problem.covariance, problem.w, [d, *[1] * L])
    value = naive.top(naive.hessian(flattest, problem.matrices, problem.targets))
    return all_of(
        lower=at_least(closed_forms.minimal_sharpness(problem.covariance, problem.w, L), lower, depth=L),
        upper=at_most(value, upper),
        package=equal(closed_forms.sharpness_bounds(problem.covariance, problem.w, L), (lower, upper)),
    )


@claim(
    "MC",
    "Theorem 2, every minimiser",
    "At any minimiser the sharpness is at least 2|w|^2 a sum_k 1/|W_k|^2, and at least 2L|w|^(2-2/L) a.",
    kind="bound",
    page="theory/sharpness_and_dynamics",
)
def every_minimiser(rng: np.random.Generator) -> Outcome:
    L, d, n = int(rng.integers(2, 5)), int(rng.integers(2, 4)), int(rng.integers(2, 8))
    problem = naive.regression(rng, d, n)
    # Any minimiser: its product may differ from w in the null space of the covariance.
    unseen = rng.standard_normal(d)
    unseen = unseen - np.linalg.pinv(problem.inputs) @ (problem.inputs @ unseen)
    layers = naive.minimiser(rng, problem.w + unseen, [d, *rng.integers(1, 4, L - 1), 1])
    dense = naive.top(naive.hessian(layers, problem.matrices, problem.targets))
    found = float(closed_forms.regression_sharpness(layers, problem.covariance, problem.w))
    energy, size = problem.a * (problem.w @ problem.w), np.linalg.norm(problem.w)
    return all_of(
        package=equal(found, dense, rtol=1e-8),
        layers=at_least(found, 2 * energy * sum(1 / np.sum(W**2) for W in layers)),
        uniform=at_least(found, 2 * L * size ** (2 - 2 / L) * problem.a),
    )


@claim(
    "MC",
    "Theorem 2, arbitrarily sharp minimisers",
    "Scaling W_j by c and W_k by 1/c leaves the network a minimiser, whose sharpness is at least 2|w|^2 a / (c^2 |W_j|^2).",
    kind="bound",
    page="theory/sharpness_and_dynamics",
)
def arbitrarily_sharp(rng: np.random.Generator) -> Outcome:
    L, d, n = int(rng.integers(2, 6)), int(rng.integers(2, 5)), int(rng.integers(5, 12))
    problem = naive.regression(rng, d, n)
    layers = naive.minimiser(rng, problem.w, [d, *rng.integers(1, 4, L - 1), 1])
    j, k = rng.permutation(L)[:2]
    norm, parts = np.sum(layers[j] ** 2), {}
    for power in (1, 2, 3):
        c = 10.0**-power
        scaled = [W * (c if i == j else 1 / c if i == k else 1.0) for i, W in enumerate(layers)]
        energy = problem.a * (problem.w @ problem.w)
        sharp = curvature.sharpness(scaled, problem.A, problem.targets)
        parts[f"c=1e-{power}"] = at_least(sharp, 2 * energy / (c**2 * norm))
        parts[f"risk 1e-{power}"] = equal(naive.loss(scaled, problem.matrices, problem.targets), problem.floor, rtol=1e-8)
    return all_of(**parts)


@claim(
    "MC",
    "Theorem 2, large depth",
    "The two bounds on the least sharpness meet as the depth grows: their ratio is 1 + O(1/L).",
    kind="empirical",
    page="theory/sharpness_and_dynamics",
)
def large_depth(rng: np.random.Generator) -> Outcome:
    d = int(rng.integers(2, 6))
    problem = naive.regression(rng, d, 3 * d)
    size, excess = np.linalg.norm(problem.w), []
    depths = (10, 100, 1000, 10_000, 100_000)
    for L in depths:
        ratio = closed_forms.minimal_sharpness(problem.covariance, problem.w, L) / (2 * L * size ** (2 - 2 / L) * problem.a)
        excess.append(L * (ratio - 1))
    limit = (problem.largest / problem.a) ** 2 - 1
    return all_of(
        bounded=at_most(max(excess), (1 + 1e-3) * limit, least=min(excess)),
        settles=equal(excess[-1], excess[-2], rtol=0.02, scale=1 + limit),
    )


@claim(
    "MC",
    "One-dimensional example",
    "f(x) = w_L ... w_1 x with all weights one and data of unit variance has sharpness 2L.",
    kind="exact",
    page="theory/sharpness_and_dynamics",
)
def one_dimension(rng: np.random.Generator) -> Outcome:
    L, n = int(rng.integers(1, 9)), int(rng.integers(1, 6))
    x = rng.standard_normal(n)
    x = x * np.sqrt(n / np.sum(x**2))
    layers = [np.ones((1, 1))] * L
    A = measurements.regression(x[:, None])
    return all_of(
        package=equal(curvature.sharpness(layers, A, x), 2 * L, depth=L),
        dense=equal(naive.top(naive.hessian(layers, x[:, None, None], x)), 2 * L),
    )


@claim(
    "MC",
    "Critical step size",
    "Gradient descent whose step exceeds 2/S_min leaves every minimiser, and with a smaller one stays at the flattest.",
    kind="empirical",
    page="theory/sharpness_and_dynamics",
)
def critical_step(rng: np.random.Generator) -> Outcome:
    L, d = int(rng.integers(2, 6)), int(rng.integers(2, 5))
    problem = naive.regression(rng, d, 4 * d, norm=1.0)
    critical = 2 / closed_forms.minimal_sharpness(problem.covariance, problem.w, L)
    flattest = closed_forms.flattest_regression_layers(problem.covariance, problem.w, [d, *[d] * (L - 1), 1])
    start = [W + 1e-4 * rng.standard_normal(W.shape) for W in flattest]
    descent = dynamics.regression_descent(
        [np.stack([W, W]) for W in start], problem.covariance, problem.w, step=[1.1 * critical, 0.9 * critical], iterations=2000
    )

    # The excess risk, from the definition, over its value at the start; infinite where the run overflowed.
    def excess(layers: list[np.ndarray]) -> float:
        off = naive.product(layers)[0] - problem.w
        return float(off @ problem.covariance @ off)

    ends = [np.inf if lost >= 0 else excess([W[i] for W in descent.layers]) for i, lost in enumerate(descent.diverged)]
    above, below = min(ends[0], 1e300), ends[1]
    return all_of(leaves=at_least(above, 100 * excess(start), depth=L), stays=at_most(below, 1e-4 * excess(start)))


@claim(
    "MC",
    "Lemma 6, chi-square",
    "For a matrix N of independent standard Gaussian entries |Nh|^2/|h|^2 has the chi-square distribution of d degrees of "
    "freedom: the empirical distribution is within the Dvoretzky-Kiefer-Wolfowitz bound of level 1e-9.",
    kind="bound",
    page="theory/sharpness_and_dynamics",
)
def chi_square(rng: np.random.Generator) -> Outcome:
    N, h = _perturbations(rng)
    found = np.sum((N @ h) ** 2, axis=1) / (h @ h)
    return _within_distribution(found, scipy.stats.chi2(h.size).cdf, h.size)


@claim(
    "MC",
    "Lemma 6, normal",
    "For the same N, h'Nh/|h|^2 is standard normal: the empirical distribution is within the bound of level 1e-9.",
    kind="bound",
    page="theory/sharpness_and_dynamics",
)
def standard_normal(rng: np.random.Generator) -> Outcome:
    N, h = _perturbations(rng)
    return _within_distribution(N @ h @ h / (h @ h), scipy.stats.norm().cdf, h.size)


def _perturbations(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The matrices N of residual layers, with a fixed vector."""
    d, L, scale, runs = int(rng.integers(1, 7)), 10, float(rng.uniform(0.1, 2.0)), 800
    layers = dynamics.residual_layers(d, L, np.full(runs, scale), rng)
    N = np.concatenate([(W - np.eye(d)) * np.sqrt(L * d) / scale for W in layers])
    return N, rng.standard_normal(d)


def _within_distribution(sample: np.ndarray, cdf, d: int) -> Outcome:  # type: ignore[no-untyped-def]
    distance = scipy.stats.kstest(sample, cdf).statistic
    return at_most(float(distance), float(np.sqrt(np.log(2 / 1e-9) / (2 * sample.size))), dimension=d)


@claim(
    "MC",
    "Lemma 8",
    "The excess risk is (w - w*)' Sigma (w - w*), and the squared gradient in w is between 4 lambda and 4 Lambda times "
    "it, also for singular covariances.",
    kind="exact",
    page="theory/sharpness_and_dynamics",
)
def excess_risk(rng: np.random.Generator) -> Outcome:
    d, n = int(rng.integers(2, 7)), int(rng.integers(2, 12))
    problem = naive.regression(rng, d, n)
    w = problem.w + np.exp(rng.uniform(-3, 3)) * rng.standard_normal(d)
    excess = naive.loss([w[None]], problem.matrices, problem.targets) - problem.floor
    squared = float(np.sum(curvature.loss_gradient([w[None]], problem.A, problem.targets)[0] ** 2))
    off = w - problem.w
    # The excess is a difference of risks, so rounding errors are relative to these.
    risk = excess + problem.floor
    return all_of(
        identity=equal(excess, off @ problem.covariance @ off, scale=risk),
        smallest=at_least(squared, 4 * problem.smallest * excess, rtol=1e-9 * risk / excess),
        largest=at_most(squared, 4 * problem.largest * excess, rtol=1e-9 * risk / excess),
    )
