"""The flattest deep factorizations of a matrix: width independence, convexity, certificate, gradient."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize

from balancedfact import curvature, measurements, solvers
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import in_other_bases, instance, orbit
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal


@claim(
    "New",
    "Width independence, lower bound",
    "The least trace of the Hessian over the factorizations of width rank(M) bounds the trace of all wider ones from "
    "below, and padding attains it.",
    kind="bound",
    page="theory/induced_regularizer",
)
def wider_is_no_flatter(rng: np.random.Generator) -> Outcome:
    M, matrices = instance(rng)
    depth, extra = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    A = measurements.Dense(matrices)
    least = solvers.induced_regularizer(M, A, depth)
    widths = [M.shape[1], *[2 + extra] * (depth - 1), M.shape[0]]
    padded = solvers.induced_regularizer(M, A, depth, widths=widths).layers
    # Noise in the padding that the product does not see, then arbitrary changes of basis.
    noisy = [W.copy() for W in padded]
    noisy[0][2:] = rng.uniform(0, 0.5) * rng.standard_normal((extra, M.shape[1]))
    groups = [scipy.linalg.expm(0.2 * rng.standard_normal((2 + extra, 2 + extra))) for _ in range(depth - 1)]
    inverses = [np.eye(M.shape[1]), *(np.linalg.inv(G) for G in groups)]
    wide = [G @ W @ inverse for G, W, inverse in zip([*groups, np.eye(M.shape[0])], noisy, inverses, strict=True)]
    return all_of(
        product=equal(naive.product(wide), M, depth=depth),
        bound=at_least(naive.trace(wide, matrices), least.value),
        padded=equal(naive.trace(padded, matrices), least.value),
    )


@claim(
    "New",
    "Width independence, search",
    "Minimising the trace over all factorizations with hidden widths above the rank ends at the value for width rank(M).",
    kind="exact",
    page="theory/induced_regularizer",
)
def wide_search(rng: np.random.Generator) -> Outcome:
    depth, width = int(rng.integers(2, 4)), int(rng.integers(2, 4))
    M, matrices = rng.standard_normal((2, 3)), rng.standard_normal((8, 2, 3))
    shapes = [(width, 3), *[(width, width)] * (depth - 2), (2, width)]

    def layers_of(theta: Any, anp: Any) -> list[Any]:
        # M has full row rank: layers 2 to L are free, and the first one is any solution of C_1 W_1 = M.
        parts, start = [], 0
        for rows, cols in shapes:
            parts.append(anp.reshape(theta[start : start + rows * cols], (rows, cols)))
            start += rows * cols
        C = naive.product(parts[1:])
        gap = anp.dot(C.T, anp.linalg.solve(anp.dot(C, C.T), M - anp.dot(C, parts[0])))
        return [parts[0] + gap, *parts[1:]]

    found = _searched(layers_of, naive.packed(naive.gaussian_layers(rng, [3, *[width] * (depth - 1), 2])), matrices)
    least = solvers.induced_regularizer(M, measurements.Dense(matrices), depth).value
    return equal(found, least, rtol=1e-6, depth=depth, width=width)


@claim(
    "New",
    "Stationary factorizations are global minima",
    "From random factorizations of width rank(M) a local search always ends at the same trace of the Hessian, the induced "
    "regularizer.",
    kind="exact",
    page="theory/induced_regularizer",
)
def stationary_is_global(rng: np.random.Generator) -> Outcome:
    M, matrices = instance(rng)
    depth = int(rng.integers(2, 5))
    U, s, Vt = np.linalg.svd(M)
    lo, hi = np.sqrt(s[:2, None]) * Vt[:2], U[:, :2] * np.sqrt(s[:2])

    def layers_of(theta: Any, anp: Any) -> list[Any]:
        groups = [anp.reshape(theta[4 * j : 4 * j + 4], (2, 2)) for j in range(depth - 1)]
        middle = [anp.dot(above, anp.linalg.inv(below)) for below, above in itertools.pairwise(groups)]
        return [anp.dot(groups[0], lo), *middle, anp.dot(hi, anp.linalg.inv(groups[-1]))]

    ends = []
    for _ in range(2):
        start = [scipy.linalg.expm(0.7 * rng.standard_normal((2, 2))).ravel() for _ in range(depth - 1)]
        ends.append(_searched(layers_of, np.concatenate(start), matrices))
    least = solvers.induced_regularizer(M, measurements.Dense(matrices), depth).value
    return equal(ends, [least] * 2, rtol=1e-6, depth=depth)


def _searched(layers_of: Callable[[Any, Any], list[Any]], start: np.ndarray, matrices: np.ndarray) -> float:
    """The trace where a quasi-Newton search over the parameters ends, from its definition and automatic derivatives."""
    import autograd
    import autograd.numpy as anp

    def log_trace(theta: Any) -> Any:
        W = layers_of(theta, anp)
        total = 0.0
        for j in range(len(W)):
            outer = anp.einsum("pa,mab,qb->mpq", _chain(W[j + 1 :], anp, True), matrices, _chain(W[:j], anp, False))
            total = total + anp.sum(outer**2)
        return anp.log(2 / len(matrices) * total)

    def _chain(W: list[Any], anp: Any, above: bool) -> Any:
        if not W:
            return np.eye(matrices.shape[1] if above else matrices.shape[2])
        end = W[0]
        for layer in W[1:]:
            end = anp.dot(layer, end)
        return end.T if above else end

    end = scipy.optimize.minimize(autograd.value_and_grad(log_trace), start, jac=True, method="BFGS", options={"gtol": 1e-7})
    return float(np.exp(end.fun))


@claim(
    "New",
    "Geodesic convexity",
    "Along the geodesics P_j(t) = G_j' exp(t H_j) G_j of the product of positive-definite cones the trace of the Hessian "
    "and its logarithm are convex.",
    kind="bound",
    page="theory/induced_regularizer",
)
def geodesic_convexity(rng: np.random.Generator) -> Outcome:
    M, matrices = instance(rng, rank=int(rng.integers(1, 4)))
    rank, depth = int(np.linalg.matrix_rank(M)), int(rng.integers(2, 6))
    A = measurements.Dense(matrices)
    U, s, Vt = np.linalg.svd(M)
    ends = [np.sqrt(s[:rank, None]) * Vt[:rank], U[:, :rank] * np.sqrt(s[:rank])]
    groups = [scipy.linalg.expm(0.5 * rng.standard_normal((rank, rank))) for _ in range(depth - 1)]
    turns = [_symmetric(rng.standard_normal((rank, rank))) for _ in groups]

    def value(t: float) -> float:
        return curvature.trace(
            in_other_bases(ends, [scipy.linalg.expm(t / 2 * H) @ G for H, G in zip(turns, groups, strict=True)]), A
        )

    h = 1e-2
    f = np.array([value(t) for t in (-1.0, 0.0, 1.0, -h, h)])
    g = np.log(f)
    return all_of(
        midpoint=at_most(f[1], (f[0] + f[2]) / 2, depth=depth, rank=rank),
        second=at_least((f[3] + f[4]) / f[1] - 2, 0.0, rtol=1e-12),
        logarithm=at_least((g[0] + g[2]) / 2 - g[1], 0.0, rtol=1e-12),
        log_second=at_least(g[3] + g[4] - 2 * g[1], 0.0, rtol=1e-12),
    )


def _symmetric(X: np.ndarray) -> np.ndarray:
    return (X + X.T) / 2


@claim(
    "New",
    "Certificate at every point",
    "At any factorization of width rank(M), sum_j ((L-j) tr(grad_j)_+ + j tr(grad_j)_-) bounds how far its trace is above "
    "the least.",
    kind="bound",
    page="theory/induced_regularizer",
)
def certificate(rng: np.random.Generator) -> Outcome:
    M, matrices = instance(rng, rank=int(rng.integers(1, 4)))
    rank, depth = int(np.linalg.matrix_rank(M)), int(rng.integers(2, 5))
    A = measurements.Dense(matrices)
    solved = solvers.induced_regularizer(M, A, depth)
    parts: dict[str, Outcome] = {"solver": at_most(solved.value - solved.certificate.lower_bound, 1e-10 * solved.value)}
    for name, spread in (("near", 1e-2), ("far", 0.5)):
        turns = [scipy.linalg.expm(spread * rng.standard_normal((rank, rank))) for _ in range(depth - 1)]
        inverses = [np.eye(M.shape[1]), *(np.linalg.inv(G) for G in turns)]
        best = zip([*turns, np.eye(M.shape[0])], solved.layers, inverses, strict=True)
        layers = [G @ W @ inverse for G, W, inverse in best]
        terms = [[naive.before(layers, j - 1) @ P.T @ naive.after(layers, j) for P in matrices] for j in range(1, depth + 1)]
        gap = 0.0
        for j in range(1, depth):
            # P_j stands in term j + 1, its inverse in term j.
            slope = sum(T @ T.T for T in terms[j]) - sum(T.T @ T for T in terms[j - 1])
            values = np.linalg.eigvalsh(slope)
            gap += (depth - j) * np.sum(np.maximum(values, 0)) + j * np.sum(np.maximum(-values, 0))
        found = naive.trace(layers, matrices)
        parts[name] = at_most(found - solved.value, float(2 / len(matrices) * gap), above=found / solved.value - 1)
    return all_of(**parts)


@claim(
    "New",
    "Homogeneity",
    "F(cM) = |c|^(2-2/L) F(M), and <grad F(M), M> = (2 - 2/L) F(M).",
    kind="exact",
    page="theory/induced_regularizer",
)
def homogeneity(rng: np.random.Generator) -> Outcome:
    M, matrices = instance(rng)
    depth, c = int(rng.integers(2, 7)), -float(np.exp(rng.uniform(-5, 5)))
    A = measurements.Dense(matrices)
    value, slope = solvers.induced_regularizer_gradient(M, A, depth)
    return all_of(
        scaled=equal(solvers.induced_regularizer(c * M, A, depth).value, abs(c) ** (2 - 2 / depth) * value, depth=depth),
        euler=equal(np.sum(slope * M), (2 - 2 / depth) * value),
    )


@claim(
    "New",
    "Gradient of the induced regularizer",
    "Along matrices of constant rank F is differentiable, with the gradient that holding the minimising P fixed gives.",
    kind="exact",
    page="theory/induced_regularizer",
)
def induced_gradient(rng: np.random.Generator) -> Outcome:
    d1, d2 = (int(d) for d in rng.integers(2, 5, 2))
    left, right, U, V = (rng.standard_normal((d, 2)) for d in (d1, d2, d1, d2))
    matrices, depth, h = rng.standard_normal((2 * d1 * d2, d1, d2)), int(rng.integers(2, 5)), 1e-3
    A = measurements.Dense(matrices)
    _, slope = solvers.induced_regularizer_gradient(left @ right.T, A, depth)
    # A central difference of fourth order; the logarithm, since values vary over many sizes.
    f = {t: solvers.induced_regularizer((left + t * h * U) @ (right + t * h * V).T, A, depth).value for t in (-2, -1, 1, 2)}
    difference = (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * h)
    moved = U @ right.T + left @ V.T
    return equal(np.sum(slope * moved), difference, rtol=1e-6, scale=float(np.linalg.norm(slope) * np.linalg.norm(moved)))


@claim(
    "New",
    "Parts seen from one side",
    "F(M) = F(Q_1 M Q_2) with the projections on what the measurements see: what only one side sees costs nothing, as an "
    "infimum.",
    kind="exact",
    page="theory/induced_regularizer",
)
def seen_from_one_side(rng: np.random.Generator) -> Outcome:
    M, matrices = instance(rng)
    depth = int(rng.integers(2, 5))
    Q = np.eye(len(M)) - np.outer(v := rng.standard_normal(len(M)), v) / (v @ v)
    A = measurements.Dense(Q @ matrices)
    whole, seen = solvers.induced_regularizer(M, A, depth), solvers.induced_regularizer(Q @ M, A, depth)
    return all_of(
        value=equal(whole.value, seen.value, rtol=1e-5, depth=depth),
        product=equal(naive.product(whole.layers), M, rtol=1e-6),
        bound=at_least(naive.trace(orbit(rng, M, 2, depth), Q @ matrices), seen.value),
    )
