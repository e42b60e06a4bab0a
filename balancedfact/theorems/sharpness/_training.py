"""The end of gradient flow: Marion and Chizat 2024, sections 4 and 5."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import scipy.integrate

from balancedfact import closed_forms, dynamics, measurements
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal


def flow(start: list[np.ndarray], A: measurements.MeasurementMap, b: np.ndarray, **options: float) -> dynamics.Trajectory:
    """Gradient flow with all weights recorded."""
    with np.errstate(over="ignore", invalid="ignore"):  # trial steps that are far too long overflow, and are rejected
        return dynamics.gradient_flow(start, A, b, observe={"weights": naive.packed}, **options)  # type: ignore[arg-type]


def snapshots(run: dynamics.Trajectory) -> list[list[np.ndarray]]:
    """The layers at every record."""
    return [naive.unpacked(theta, [W.shape for W in run.layers]) for theta in run["weights"]]


def imbalances(layers: list[np.ndarray]) -> list[np.ndarray]:
    """``W_{k+1}' W_{k+1} - W_k W_k'``."""
    return [above.T @ above - below @ below.T for below, above in itertools.pairwise(layers)]


def smallness(layers: list[np.ndarray]) -> float:
    """The number epsilon of Lemma 2."""
    return float(3 * max(np.sum(W**2) for W in layers) + 2 * sum(np.linalg.norm(gap, 2) for gap in imbalances(layers)))


def small_start(rng: np.random.Generator, widths: list[int], scale: float) -> list[np.ndarray]:
    """Gaussian layers of which one is zero, so that the risk is that of the zero network and the gradient is not zero."""
    layers = dynamics.gaussian_layers(widths, scale, rng)
    layers[int(rng.integers(len(layers)))][:] = 0.0
    return layers


@claim(
    "MC",
    "Lemma 1",
    "Gradient flow conserves W_{k+1}'W_{k+1} - W_k W_k', for any measurements.",
    kind="exact",
    page="theory/sharpness_and_dynamics",
)
def conservation(rng: np.random.Generator) -> Outcome:
    widths = [int(d) for d in rng.integers(1, 5, rng.integers(3, 6))]
    A = measurements.gaussian(int(rng.integers(1, 8)), (widths[-1], widths[0]), rng)
    start = dynamics.gaussian_layers(widths, float(rng.uniform(0.1, 1.0)), rng)
    states = snapshots(flow(start, A, rng.standard_normal(A.m), t_final=float(rng.uniform(0.5, 5.0)), rtol=1e-9))
    first = np.concatenate([gap.ravel() for gap in imbalances(start)])
    size = max(np.sum(W**2) for W in states[-1])
    worst = max(float(np.linalg.norm(naive.packed(imbalances(state)) - first)) for state in states)
    moved = float(np.linalg.norm(naive.packed(states[-1]) - naive.packed(start)))
    return equal(worst, 0.0, rtol=1e-7, scale=size, moved=moved)


@claim(
    "MC",
    "Lemma 2",
    "Along the flow, with epsilon = 3 max|W_k(0)|^2 + 2 sum|W_k(0)W_k(0)' - W_{k+1}(0)'W_{k+1}(0)|_2: layers are within "
    "epsilon of rank one, their squared spectral norms within epsilon of each other, and <v_{k+1}, u_k>^2 >= 1 - "
    "epsilon/|W_{k+1}|_2^2.",
    kind="bound",
    page="theory/sharpness_and_dynamics",
)
def nearly_rank_one(rng: np.random.Generator) -> Outcome:
    L, d = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    problem = naive.regression(rng, d, 4 * d)
    start = dynamics.gaussian_layers([d, *[d] * (L - 1), 1], float(rng.uniform(0.05, 0.5)), rng)
    epsilon = smallness(start)
    rank, norms, turned = 0.0, 0.0, 0.0
    for state in snapshots(flow(start, problem.A, problem.targets, t_final=20.0)):
        factors = [np.linalg.svd(W) for W in state]
        tops = [s[0] ** 2 for _, s, _ in factors]
        rank = max(rank, *(np.sum(s[1:] ** 2) for _, s, _ in factors))
        norms = max(norms, max(tops) - min(tops))
        cosines = [(above[2][0] @ below[0][:, 0]) ** 2 for below, above in itertools.pairwise(factors)]
        turned = max(turned, *(top * (1 - cosine) for top, cosine in zip(tops[1:], cosines, strict=True)))
    return all_of(rank=at_most(rank, epsilon), norms=at_most(norms, epsilon), alignment=at_most(turned, epsilon))


@claim(
    "MC",
    "Theorem 3",
    "From a small start the gradient obeys |grad R|^2 >= 4 lambda |W_L...W_2|^2 (R - R_min), where the factor never falls "
    "below half of what it is at time one, so that the risk converges exponentially.",
    kind="empirical",
    page="theory/sharpness_and_dynamics",
)
def polyak_lojasiewicz(rng: np.random.Generator) -> Outcome:
    L, d = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    problem = naive.regression(rng, d, 5 * d, norm=float(rng.uniform(0.8, 2.0)))
    start = small_start(rng, [d, *rng.integers(1, 4, L - 1), 1], float(rng.uniform(0.1, 0.3)))
    run = flow(start, problem.A, problem.targets)
    ratios, factors, excesses = [], [], []
    for state in snapshots(run):
        off = naive.product(state)[0] - problem.w
        excesses.append(float(off @ problem.covariance @ off))
        factors.append(4 * problem.smallest * float(np.sum(naive.after(state, 1) ** 2)))
        squared = sum(np.sum(g**2) for g in naive.gradient(state, problem.matrices, problem.targets))
        ratios.append(squared / max(factors[-1] * excesses[-1], 1e-300))
    # From time one on, or the last record before it, until the risk has converged to rounding error.
    first = max(np.searchsorted(run.times, 1.0) - 1, 0)
    last = int(np.argmax(np.array(excesses) < 1e-12 * excesses[0]))
    first = min(first, last - 1)
    mu, times = min(factors[first:]), run.times[first:last]
    decay = np.array(excesses[first:last]) / (excesses[first] * np.exp(-mu * (times - times[0])))
    return all_of(
        inequality=at_least(min(ratios[first:last]), 1.0, rtol=1e-6, depth=L),
        constant=at_least(mu, 0.5 * factors[first]),
        decay=at_most(float(decay.max()), 1.0, rtol=1e-6),
        converges=at_most(excesses[-1], 1e-15 * excesses[0]),
    )


def _small_run(rng: np.random.Generator) -> tuple[naive.Regression, list[np.ndarray], float]:
    """The end of a flow that starts with 32 L^3 sqrt(epsilon) <= 1."""
    L, d = int(rng.integers(2, 4)), int(rng.integers(2, 4))
    problem = naive.regression(rng, d, 5 * d, norm=float(rng.uniform(1.0, 3.0)))
    start = small_start(rng, [d, *rng.integers(2, 4, L - 1), 1], 1.0)
    shrink = 1 / (32 * L**3 * np.sqrt(smallness(start)))
    start = [shrink * W for W in start]
    run = flow(start, problem.A, problem.targets, record=1e9)
    return problem, run.layers, smallness(start)


@claim(
    "MC",
    "Corollary 1",
    "From a start with 32 L^3 sqrt(epsilon) <= 1 the spectral norms of all layers end between (|w|/2)^(1/L) and (2|w|)^(1/L).",
    kind="bound",
    page="theory/sharpness_and_dynamics",
)
def spectral_norms(rng: np.random.Generator) -> Outcome:
    problem, layers, epsilon = _small_run(rng)
    L, size = len(layers), float(np.linalg.norm(problem.w))
    norms = [float(np.linalg.norm(W, 2)) for W in layers]
    return all_of(
        minimiser=equal(naive.product(layers)[0], problem.w, rtol=1e-6, depth=L, epsilon=epsilon),
        lower=at_least(min(norms), (size / 2) ** (1 / L)),
        upper=at_most(max(norms), (2 * size) ** (1 / L)),
        limit=equal(norms, [size ** (1 / L)] * L, rtol=L * float(np.sqrt(epsilon))),
    )


@claim(
    "MC",
    "Corollary 2",
    "From the same start the sharpness of the end is between S_min and 4 (Lambda/lambda) S_min.",
    kind="bound",
    page="theory/sharpness_and_dynamics",
)
def flat_end(rng: np.random.Generator) -> Outcome:
    problem, layers, epsilon = _small_run(rng)
    least = closed_forms.minimal_sharpness(problem.covariance, problem.w, len(layers))
    found = naive.top(naive.hessian(layers, problem.matrices, problem.targets))
    return all_of(
        lower=at_least(found, least, rtol=1e-6, depth=len(layers), epsilon=epsilon),
        upper=at_most(found, 4 * problem.largest / problem.smallest * least),
    )


@claim(
    "MC",
    "Lemma 3",
    "Products of residual layers I + (s/sqrt(Ld)) N_j + theta_j/L have singular values between two positive constants, "
    "for all theta of bounded norm, aligned ones too, whatever the depth and the width.",
    kind="empirical",
    page="theory/sharpness_and_dynamics",
)
def residual_products(rng: np.random.Generator) -> Outcome:
    s, radius = float(rng.uniform(0.2, 1.0)), float(rng.uniform(0.1, 0.5))
    largest, smallest = [], []
    for L, d in ((16, 8), (64, 8), (256, 8), (32, 32), (128, 32)):
        layers = dynamics.residual_layers(d, L, s, rng)
        high, low = 1.0, 1.0
        for sign in (-1.0, 0.0, 1.0):
            end = np.eye(d)
            for W in layers:
                # The worst direction so far: along or against the singular vector that is already the longest or shortest.
                U, _, _ = np.linalg.svd(end)
                u = U[:, 0] if sign > 0 else U[:, -1]
                end = (W + sign * radius / L * np.outer(u, u)) @ end
                values = np.linalg.svd(end, compute_uv=False)
                high, low = max(high, values[0]), min(low, values[-1])
        largest.append(float(high))
        smallest.append(float(low))
    # The constants of the smallest size serve for all; they may depend on s and the radius only.
    return all_of(
        upper=at_most(max(largest), 2.0 * np.exp(2 * s + radius), s=s, first=largest[0], last=largest[-1]),
        lower=at_least(min(smallest), 0.5 * np.exp(-2 * s - s**2 - radius), first=smallest[0], last=smallest[-1]),
    )


class Residual(NamedTuple):
    """Extremes over flows from residual starts of growing depth."""

    moved: list[float]  # max_k |theta_k| for each depth
    excess: list[float]  # final over initial excess risk
    ratios: list[float]  # sharpness of the end over (Lambda/lambda) S_min
    least: float  # sharpness of the end over S_min, at least


def _residual_runs(rng: np.random.Generator, outputs: bool) -> Residual:
    """Three flows at depth four, and one or two of much greater depth."""
    depths = (4, 4, 4, 16) if outputs else (4, 4, 4, 32, 32)
    d = int(rng.integers(3, 5) if outputs else rng.integers(5, 8))
    s = float(rng.uniform(0.2, 0.8))
    X = naive.regression(rng, d, 10 * d, spread=0.5).inputs
    covariance, n = X.T @ X / len(X), len(X)
    values = np.linalg.eigvalsh(covariance)
    p = rng.standard_normal(d)
    p = p / np.linalg.norm(p)
    step = rng.standard_normal((d if outputs else 1, d))
    # The initial excess risk is a twentieth of lambda^2 |p|^2 / Lambda, whatever the depth.
    step = step * np.sqrt(0.05 * values[0] ** 2 / values[-1] / np.sum((step @ covariance) * step))
    result = Residual([], [], [], np.inf)
    for L in depths:
        start = dynamics.residual_layers(d, L, s, rng)
        if outputs:
            goal = naive.product(start) + step
            # |Y - X W'|^2 / n over all outputs: the map divides by n d, so every measurement has weight sqrt(d).
            A = measurements.RankOne(np.sqrt(d) * np.tile(np.eye(d), (n, 1)), np.repeat(X, d, axis=0))
            b = np.sqrt(d) * (X @ goal.T).ravel()
        else:
            goal = p[None] @ naive.product(start) + step
            A, b = measurements.regression(X, p), X @ goal[0]
        layers = flow(start, A, b, record=1e9, stationarity=1e-9).layers
        off = (naive.product(layers) if outputs else p[None] @ naive.product(layers)) - goal
        result.excess.append(float(np.sum((off @ covariance) * off) / np.sum((step @ covariance) * step)))
        moves = zip(layers, start, strict=True)
        result.moved.append(L * max(float(np.linalg.norm(end - begin)) for end, begin in moves))
        if not outputs:
            # At zero loss the Hessian is 2 J' Sigma J, whose top is that of the d x d matrix of the definition.
            K = sum(np.sum((p @ naive.after(layers, k)) ** 2) * _gram(naive.before(layers, k - 1)) for k in range(1, L + 1))
            found = 2 * float(np.max(np.linalg.eigvals(covariance @ K).real))
            least = closed_forms.minimal_sharpness(covariance, goal[0], L)
            result.ratios.append(found / least * values[0] / values[-1])
            result = result._replace(least=min(result.least, found / least))
    return result


def _gram(B: np.ndarray) -> np.ndarray:
    return B.T @ B


@claim(
    "MC",
    "Theorem 4",
    "From a residual start with small excess risk the flow converges to a global minimiser, and the layers move by "
    "theta_k/L with |theta_k| bounded whatever the depth.",
    kind="empirical",
    page="theory/sharpness_and_dynamics",
)
def residual_convergence(rng: np.random.Generator) -> Outcome:
    return _bounded(_residual_runs(rng, outputs=False))


@claim(
    "MC",
    "Theorem 5",
    "The same for regression with several outputs and no readout.",
    kind="empirical",
    page="theory/sharpness_and_dynamics",
)
def several_outputs(rng: np.random.Generator) -> Outcome:
    return _bounded(_residual_runs(rng, outputs=True))


def _bounded(runs: Residual) -> Outcome:
    return all_of(
        converges=at_most(max(runs.excess), 1e-12),
        bounded=at_most(max(runs.moved[3:]), 5 * max(runs.moved[:3])),
        constant=at_most(max(runs.moved), 1.0),
    )


@claim(
    "MC",
    "Corollary 3",
    "From the same residual starts the sharpness of the end over S_min is at least one and at most a constant times "
    "Lambda/lambda, whatever the depth.",
    kind="empirical",
    page="theory/sharpness_and_dynamics",
)
def residual_sharpness(rng: np.random.Generator) -> Outcome:
    runs = _residual_runs(rng, outputs=False)
    return all_of(
        above=at_least(runs.least, 1.0, rtol=1e-6),
        bounded=at_most(max(runs.ratios[3:]), 5 * max(runs.ratios[:3])),
        constant=at_most(max(runs.ratios), 4.0),
    )


@claim(
    "MC",
    "Lemma 7",
    "If |grad R|^2 >= mu (R - R_min) the flow has R(t) - R_min <= (R(0) - R_min) e^(-mu t), and what it still has to go "
    "is at most 2 sqrt((R(t) - R_min)/mu): least squares of any rank, and x^2 + 3 sin(x)^2, which is not convex.",
    kind="bound",
    page="theory/sharpness_and_dynamics",
)
def exponential_convergence(rng: np.random.Generator) -> Outcome:
    d, n = int(rng.integers(2, 6)), int(rng.integers(2, 10))
    problem = naive.regression(rng, d, n)
    run = flow([rng.standard_normal((1, d))], problem.A, problem.targets, rtol=1e-10, stationarity=1e-14)
    mu, steps = 4 * problem.smallest, run["weights"]
    off = steps - problem.w
    excess = np.einsum("ti,ij,tj->t", off, problem.covariance, off)
    keep = excess > 1e-6 * excess[0]  # where the accuracy of the flow is beyond doubt
    decay = excess[keep] * np.exp(mu * run.times[keep]) / excess[0]
    to_go = np.linalg.norm(steps - steps[-1], axis=1)[keep] / (2 * np.sqrt(excess[keep] / mu))
    # x^2 + 3 sin^2 x obeys the inequality with mu = 1/16.
    times = np.linspace(0, 5, 60)
    path = scipy.integrate.solve_ivp(
        lambda t, x: -(2 * x + 3 * np.sin(2 * x)), (0, 5), [rng.uniform(-9, 9)], t_eval=times, rtol=1e-10, atol=1e-14
    ).y[0]
    value = path**2 + 3 * np.sin(path) ** 2
    return all_of(
        decay=at_most(float(decay.max()), 1.0, rtol=1e-6),
        iterates=at_most(float(to_go.max()), 1.0, rtol=1e-6),
        not_convex=at_most(float(np.max(value * np.exp(times / 16)) / value[0]), 1.0),
        path=at_most(float(np.max(np.abs(path) / np.sqrt(64 * value))), 1.0),
    )
