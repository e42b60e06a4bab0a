"""Flat minima recover: the ensembles of Ding et al. 2022 and of the course report."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from balancedfact import closed_forms, curvature, measurements, solvers
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import hessian_traces, hiding, low_rank, nuclear, orthonormal, rescalings, root, sizes
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal


@claim(
    "DDF",
    "Recovery from restricted isometry",
    "If X -> A(D1^-1 X D2^-1), suitably scaled, satisfies (2, delta)-RIP with delta < 1/sqrt(2) (the constant is that of Cai "
    "and Zhang), the flat solution for b = A(M) is M, for every M of rank one.",
    kind="bound",
    page="theory/isometry",
)
def isometry_recovery(rng: np.random.Generator) -> Outcome:
    shape = (4, int(rng.integers(4, 6)))
    for unseen in (2, 2, 1, 1, 0):
        matrices = hiding(rng, shape, unseen)
        D1, D2 = rescalings(matrices)
        rescaled = measurements.Dense(np.linalg.solve(D1, matrices) @ np.linalg.inv(D2))
        delta = measurements.isometry_constant(rescaled, 2, starts=2, iterations=40, rng=0).scaled_delta[1]
        if delta < 0.5**0.5:
            break
    A, errors = measurements.Dense(matrices), []
    for _ in range(3):
        M = low_rank(rng, *shape, 1)
        errors.append(np.linalg.norm(solvers.flat_minimum(A, A(M)).matrix - M) / np.linalg.norm(M))
    return all_of(hypothesis=at_most(delta, 0.5**0.5), recovery=at_most(max(errors), 1e-5, unseen=unseen))


def _recovery(
    rng: np.random.Generator, ensemble: Callable[..., measurements.MeasurementMap], share: int, dimensions: tuple[int, ...]
) -> Outcome:
    """Exact recovery from ``share * r (d1 + d2)`` measurements, with the near norm-minimality and near balance that follow."""
    errors, norms, imbalances, kappas = [], [], [], []
    for d in dimensions:
        d1, d2, rank = d, d + 2, 1
        M = low_rank(rng, d1, d2, rank)
        A = ensemble(share * rank * (d1 + d2), (d1, d2), rng)
        spectra = np.concatenate([np.linalg.eigvalsh(A.D1), np.linalg.eigvalsh(A.D2)])
        L, R = solvers.flat_minimum(A, A(M)).pair
        errors.append(np.linalg.norm(L @ R.T - M) / np.linalg.norm(M))
        square = (spectra.max() / spectra.min()) ** 2
        norms.append((np.sum(L**2) + np.sum(R**2)) / (square * 2 * nuclear(M)))
        imbalances.append(nuclear(L.T @ L - R.T @ R) / (2 * (square - 1) * nuclear(M)))
        kappas.append(square**0.5)
    return all_of(
        recovery=at_most(
            max(errors), 1e-5, least_share=share * (2 * dimensions[-1] + 2) / (dimensions[-1] * (dimensions[-1] + 2))
        ),
        norm_minimal=at_most(max(norms), 1.0, rtol=1e-5),
        balanced=at_most(max(imbalances), 1.0, rtol=1e-5),
        condition=at_most(max(kappas[1:]), 1.5 * kappas[0]),
    )


@claim(
    "DDF",
    "Recovery, Gaussian sensing",
    "From m >= c r (d1 + d2) Gaussian measurements every flat solution is the truth, nearly norm-minimal and nearly balanced: "
    "c = 4, growing sizes.",
    kind="empirical",
    page="theory/isometry",
)
def gaussian_sensing(rng: np.random.Generator) -> Outcome:
    return _recovery(rng, measurements.gaussian, 4, (11, 15, 19))


@claim(
    "CS282",
    "Section 4.1, bilinear sensing",
    "From m >= c r (d1 + d2) bilinear Gaussian measurements every flat solution is the truth, nearly norm-minimal and nearly "
    "balanced: c = 6, growing sizes.",
    kind="empirical",
    page="theory/isometry",
)
def bilinear_sensing(rng: np.random.Generator) -> Outcome:
    return _recovery(rng, measurements.bilinear, 6, (14, 18, 22))


def incoherence(M: np.ndarray, rank: int) -> float:
    """The least `mu` with ``|U|_{2,inf} <= sqrt(mu r / d1)`` and the same for `V`."""
    U, _, Vt = np.linalg.svd(M)
    left, right = np.sum(U[:, :rank] ** 2, axis=1).max(), np.sum(Vt[:rank] ** 2, axis=0).max()
    return float(max(left * M.shape[0], right * M.shape[1]) / rank)


@claim(
    "CS282",
    "Section 4.2, weak recovery for completion",
    "For incoherent truths and entries seen with probability p of the order of log(d)/d the flat solution has a small relative "
    "error: mu = 1, p = 3 log(d)/d, growing sizes, mean error at most 0.2; a coherent truth of the same rank is lost.",
    kind="empirical",
    page="theory/two_factors",
)
def completion(rng: np.random.Generator) -> Outcome:
    errors, coherent, incoherences = [], [], []
    for d in (10, 15, 20):
        A, unseen = _mask(rng, d, 3 * np.log(d) / d)
        M = np.outer(rng.choice([-1.0, 1.0], d), rng.choice([-1.0, 1.0], d))
        spike = np.zeros((d, d))
        spike[unseen] = 1
        errors.append(np.linalg.norm(solvers.flat_minimum(A, A(M)).matrix - M) / d)
        coherent.append(np.linalg.norm(solvers.flat_minimum(A, A(spike)).matrix - spike))
        incoherences.append((incoherence(M, 1), incoherence(spike, 1) / d))
    return all_of(
        incoherence=equal(incoherences, np.ones((3, 2))),
        recovery=at_most(float(np.mean(errors)), 0.2),
        coherence_matters=at_least(float(min(coherent)), 0.5),
    )


def _mask(rng: np.random.Generator, d: int, p: float) -> tuple[measurements.Entries, tuple[int, int]]:
    """Entries seen with probability `p`, drawn until every row and column has one, and an entry that is not."""
    while True:
        A = measurements.bernoulli_mask((d, d), p, rng)
        seen = A.adjoint(np.ones(A.m)) > 0
        if seen.any(axis=0).all() and seen.any(axis=1).all() and not seen.all():
            row, column = rng.permutation(np.argwhere(~seen))[0]
            return A, (int(row), int(column))


@claim(
    "DDF",
    "Robust PCA",
    "For Y = M + S with M incoherent and few corrupted entries, the pair of least scaled trace 2 (|L|^2 + |R|^2) with "
    "|Y - L R^T|_1 <= |S|_1 has the product M: rank one, 4 % corrupted, growing sizes.",
    kind="empirical",
    page="theory/two_factors",
)
def robust_pca(rng: np.random.Generator) -> Outcome:
    errors, traces = [], []
    for d in (12, 18, 24):
        M = np.outer(rng.choice([-1.0, 1.0], d), rng.choice([-1.0, 1.0], d))
        S = np.where(rng.permutation(d * d).reshape(d, d) < 0.04 * d * d, rng.choice([-3.0, 3.0], (d, d)), 0.0)
        # If M and S minimise |X|_* + |Y - X|_1 / sqrt(d), M has the least nuclear norm of all X with |Y - X|_1 <= |S|_1.
        X = _principal_component_pursuit(M + S, 1 / np.sqrt(d))
        errors.append(np.linalg.norm(X - M) / np.linalg.norm(M))
        L, R = closed_forms.balanced_pair(M)
        rows, columns = np.divmod(np.arange(d * d), d)
        everything = measurements.Entries(rows, columns, (d, d))
        traces.append(curvature.scaled_trace(L, R, everything) / (4 * nuclear(M)))
    return all_of(recovery=at_most(max(errors), 1e-4), trace=equal(traces, np.ones(3)))


def _principal_component_pursuit(Y: np.ndarray, weight: float) -> np.ndarray:
    """The minimiser of ``|X|_* + weight * |Y - X|_1``, by alternating directions."""
    X, dual, step = np.zeros_like(Y), np.zeros_like(Y), Y.size / (4 * np.abs(Y).sum())
    for _ in range(1000):
        S = _shrunk(Y - X + dual / step, weight / step)
        U, s, Vt = np.linalg.svd(Y - S + dual / step, full_matrices=False)
        X = (U * _shrunk(s, 1 / step)) @ Vt
        dual = dual + step * (Y - X - S)
        if np.linalg.norm(Y - X - S) < 1e-9 * np.linalg.norm(Y):
            break
    return X


def _shrunk(values: np.ndarray, by: float) -> np.ndarray:
    return np.asarray(np.sign(values) * np.maximum(np.abs(values) - by, 0))


def _quadratic(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, the square of ``D^2 = mean of |x_i|^2 x_i x_i^T``'s root, and weights of one hidden layer."""
    d, k = sizes(rng, 2, 2, 4)
    x = rng.standard_normal((2 * d + 2, d))
    squares = root(sum(np.sum(row**2) * np.outer(row, row) for row in x) / len(x))
    return x, squares, rng.standard_normal((d, k))


def _hidden_layer_loss(x: np.ndarray, b: np.ndarray, weights: np.ndarray, signs: np.ndarray) -> float:
    """``sum_i (sum_j s_j <w_j, x_i>^2 - b_i)^2``."""
    return float(sum((signs @ (weights.T @ row) ** 2 - target) ** 2 for row, target in zip(x, b, strict=True)))


def _layer_trace(x: np.ndarray, weights: np.ndarray, signs: np.ndarray) -> float:
    """The trace of the Hessian of a hidden layer's loss at weights that fit, by differences."""
    b = np.array([signs @ (weights.T @ row) ** 2 for row in x])
    return hessian_traces(lambda arrays: _hidden_layer_loss(x, b, arrays[0], signs), [weights])[0]


@claim(
    "DDF",
    "Covariance estimation, trace",
    "For the loss sum (x_i^T L L^T x_i - b_i)^2 the trace of the Hessian at zero loss is 8m tr(D L L^T D) with "
    "D^2 = mean of |x_i|^2 x_i x_i^T; all factorizations are equally flat.",
    kind="exact",
    page="theory/curvature",
)
def covariance_trace(rng: np.random.Generator) -> Outcome:
    x, D, L = _quadratic(rng)
    k = L.shape[1]
    A = measurements.RankOne(x, x)
    formula = 8 * len(x) * nuclear(D @ L @ L.T @ D)
    turned = L @ orthonormal(rng, k, k)
    return all_of(
        trace=equal(_layer_trace(x, L, np.ones(k)), formula, rtol=1e-7),
        turned=equal(_layer_trace(x, turned, np.ones(k)), formula, rtol=1e-7),
        flat_pairs=equal(2 * len(L) * curvature.scaled_trace(L, L, A), formula),
    )


@claim(
    "DDF",
    "Quadratic activation, flat value",
    "For hidden units with output weights +-1 and sum_j s_j w_j w_j^T = X symmetric, the least trace of the Hessian at zero "
    "loss is 8m |D X D|_*, with the same D.",
    kind="exact",
    page="theory/curvature",
)
def quadratic_activation_value(rng: np.random.Generator) -> Outcome:
    x, D, W = _quadratic(rng)
    signs = rng.choice([-1.0, 1.0], W.shape[1])
    X = (W * signs) @ W.T
    values, vectors = np.linalg.eigh(D @ X @ D)
    flat = np.linalg.solve(D, vectors * np.sqrt(np.abs(values)))
    A, least = measurements.RankOne(x, x), 8 * len(x) * nuclear(D @ X @ D)
    L, R = closed_forms.flat_pair(X, A)
    return all_of(
        product=equal((flat * np.sign(values)) @ flat.T, X),
        attained=equal(_layer_trace(x, flat, np.sign(values)), least, rtol=1e-7),
        others=at_least(_layer_trace(x, W, signs), least, rtol=1e-7),
        flat_pairs=equal(2 * len(X) * curvature.scaled_trace(L, R, A), least, rtol=1e-8),
    )


def _symmetric_recovery(rng: np.random.Generator, signs: list[float], share: int) -> Outcome:
    """Recovery of ``sum s_j u_j u_j^T`` from ``share * r * d`` Gaussian inputs.

    The pairs ``(L, R)`` include products that are not symmetric. The data cannot tell such a product from its transpose; the
    mean of both is no sharper, and it is what the model with equal factors can represent.
    """
    errors = []
    for d in (10, 14, 18):
        factors = rng.standard_normal((d, len(signs)))
        M, x = (factors * signs) @ factors.T, rng.standard_normal((share * len(signs) * d, d))
        A = measurements.RankOne(x, x)
        X = solvers.flat_minimum(A, A(M)).matrix
        errors.append(np.linalg.norm((X + X.T) / 2 - M) / np.linalg.norm(M))
    return at_most(max(errors), 1e-5)


@claim(
    "DDF",
    "Quadratic activation, free factors",
    "With units of both signs, pairs (L, R) in place of the symmetric model do not determine the flat solution: for orthogonal "
    "units of equal strength under D, adding the skew matrix of their plane changes neither data nor scaled trace.",
    kind="exact",
    page="theory/two_factors",
)
def free_factors(rng: np.random.Generator) -> Outcome:
    d = sizes(rng, 1, 2, 5)[0]
    x = rng.standard_normal((2 * d + 2, d))
    A, t = measurements.RankOne(x, x), rng.uniform(-1, 1)
    u, v = orthonormal(rng, d, 2).T
    inverse = np.linalg.inv(A.D1)
    M, skew = inverse @ (np.outer(u, u) - np.outer(v, v)) @ inverse, inverse @ (np.outer(u, v) - np.outer(v, u)) @ inverse
    traces = [curvature.scaled_trace(*closed_forms.flat_pair(X, A), A) for X in (M, M + t * skew)]
    return all_of(
        data=equal(A(M + t * skew), A(M)),
        value=equal(traces[1], traces[0]),
        different=at_least(float(np.linalg.norm(t * skew)), 1e-9 * float(np.linalg.norm(M))),
    )


@claim(
    "DDF",
    "Covariance estimation, recovery",
    "From m >= c r d Gaussian x_i the flat solution is the covariance L L^T: r = 1, c = 4, growing sizes.",
    kind="empirical",
    page="theory/isometry",
)
def covariance_recovery(rng: np.random.Generator) -> Outcome:
    return _symmetric_recovery(rng, [1.0], 4)


@claim(
    "DDF",
    "Quadratic activation, recovery",
    "From m >= c r d Gaussian inputs the flat solution is the truth: one unit of either sign, c = 3, growing sizes.",
    kind="empirical",
    page="theory/isometry",
)
def quadratic_activation_recovery(rng: np.random.Generator) -> Outcome:
    return _symmetric_recovery(rng, [1.0, -1.0], 3)
