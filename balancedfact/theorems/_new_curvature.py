"""What is new on the Hessian: traces and sharpness off minimisers, the least sharpness, the rank-one limit."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.optimize

from balancedfact import closed_forms, curvature, dynamics, measurements
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import Outcome, all_of, at_least, at_most, claim, equal

HESSIAN, SHARPNESS = "theory/curvature", "theory/sharpness_and_dynamics"


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
    page=HESSIAN,
)
def trace_everywhere(rng: np.random.Generator) -> Outcome:
    layers, A, matrices = _network(rng)
    b = 10 * rng.standard_normal(A.m)
    dense = float(np.trace(naive.hessian(layers, matrices, b)))
    return equal(curvature.trace(layers, A), dense, loss=naive.loss(layers, matrices, b))


@claim(
    "New",
    "Scaled trace off minimisers",
    "The scaled trace of the Hessian of |A(LR') - b|^2 is 2m(|D_1 L|^2 + |D_2 R|^2) at every pair, whatever the data.",
    kind="exact",
    page="theory/two_factors",
)
def scaled_trace_everywhere(rng: np.random.Generator) -> Outcome:
    d1, d2, k, m = (int(n) for n in rng.integers(1, 5, 4))
    matrices = rng.standard_normal((m, d1, d2))
    L, R = rng.standard_normal((d1, k)), rng.standard_normal((d2, k))
    # Layers R' and L of the loss with 1/m; the Hessian of the loss without it is m times as large.
    diagonal = m * np.diag(naive.hessian([R.T, L], matrices, rng.standard_normal(m)))
    dense = np.sum(diagonal[R.size :]) / d1 + np.sum(diagonal[: R.size]) / d2
    return equal(curvature.scaled_trace(L, R, measurements.Dense(matrices)), dense)


@claim(
    "New",
    "Sharpness through AKA*",
    "Where the gradient in the end-to-end matrix vanishes, at zero loss or in noisy regression, the sharpness is (2/m) "
    "lambda_max(AKA*) with K(Y) = sum_j C_j C_j' Y B_(j-1)' B_(j-1).",
    kind="exact",
    page=HESSIAN,
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
    page=HESSIAN,
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
    page=SHARPNESS,
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


@claim(
    "New",
    "Exact minimal sharpness, lower bound",
    "No network of any hidden widths that solves a regression is less sharp than 2 min_s lambda_max(s Sigma + (L-1) "
    "s^(-1/(L-1)) Sigma^(1/2) w w' Sigma^(1/2)).",
    kind="bound",
    page=SHARPNESS,
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
    page=SHARPNESS,
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
    page=SHARPNESS,
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
    page=SHARPNESS,
)
def white_data(rng: np.random.Generator) -> Outcome:
    L, d, variance = int(rng.integers(2, 20)), int(rng.integers(1, 6)), float(np.exp(rng.uniform(-2, 2)))
    w = rng.standard_normal(d)
    value = 2 * L * variance * np.linalg.norm(w) ** (2 - 2 / L)
    return all_of(
        least=equal(closed_forms.minimal_sharpness(variance * np.eye(d), w, L), value, depth=L),
        limit=equal(closed_forms.rank_one_limit_sharpness(variance * np.eye(d), w, L), value),
    )


@claim(
    "New",
    "Sharpness of the rank-one limit",
    "The layers c u_k v_k' with c = |w|^(1/L), u_k = v_(k+1), v_1 along w solve the regression, are balanced, and have "
    "sharpness 2c^(2L-2) lambda_max(Sigma + (L-1) Sigma^(1/2) v_1 v_1' Sigma^(1/2)).",
    kind="exact",
    page=SHARPNESS,
)
def limit_sharpness(rng: np.random.Generator) -> Outcome:
    L, d, n = int(rng.integers(2, 5)), int(rng.integers(1, 4)), int(rng.integers(2, 8))
    problem = naive.regression(rng, d, n)
    layers = closed_forms.rank_one_limit(problem.w, [d, *rng.integers(1, 4, L - 1), 1])
    gaps = [above.T @ above - below @ below.T for below, above in itertools.pairwise(layers)]
    found = closed_forms.rank_one_limit_sharpness(problem.covariance, problem.w, L)
    dense = naive.top(naive.hessian(layers, problem.matrices, problem.targets))
    return all_of(
        sharpness=equal(found, dense, rtol=1e-8, depth=L),
        product=equal(naive.product(layers)[0], problem.w),
        balance=equal(naive.packed(gaps), 0 * naive.packed(gaps), scale=float(np.linalg.norm(problem.w))),
        not_flattest=at_least(found, closed_forms.minimal_sharpness(problem.covariance, problem.w, L)),
    )


@claim(
    "New",
    "Rank-one limit, rate",
    "Gradient flow from a start of scale sigma ends within O(sigma^2) of the rank-one limit's sharpness, and with layers "
    "misaligned by O(sigma^4).",
    kind="empirical",
    page=SHARPNESS,
)
def limit_rate(rng: np.random.Generator) -> Outcome:
    L, d = int(rng.integers(2, 4)), int(rng.integers(2, 5))
    problem = naive.regression(rng, d, 5 * d, norm=1.0)
    unit = dynamics.gaussian_layers([d, *[d] * (L - 1), 1], 1.0, rng)
    limit = closed_forms.rank_one_limit_sharpness(problem.covariance, problem.w, L)
    off, turned = [], []
    scales = (0.04, 0.01, 0.0025)
    for scale in scales:
        run = dynamics.gradient_flow([scale * W for W in unit], problem.A, problem.targets, rtol=1e-10, record=1e9)
        sharp = naive.top(naive.hessian(run.layers, problem.matrices, problem.targets))
        off.append(abs(sharp / limit - 1) / scale**2)
        turned.append(float(1 - run["alignment"][-1].min()) / scale**4)
    return all_of(
        sharpness=at_most(max(off[1:]), 4 * off[0] + 2, first=off[0], last=off[-1], depth=L),
        alignment=at_most(max(turned[1:]), 4 * turned[0] + 2, first=turned[0], last=turned[-1]),
    )
