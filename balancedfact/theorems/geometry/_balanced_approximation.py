"""The balanced pair whose product is nearest to a matrix: least value, saddles, local minima."""

from __future__ import annotations

import numpy as np

from balancedfact import manifolds, solvers
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import orthonormal, sizes
from balancedfact.theorems._outcome import Outcome, all_of, at_least, equal
from balancedfact.theorems.geometry._instances import balanced_near, balanced_pair


@claim(
    "CS282",
    "Section 5, balanced approximation",
    "The least |L R^T - M|^2 over balanced pairs of width k is the sum of the squared singular values of M after the first k.",
    kind="exact",
    page="theory/balanced_geometry",
)
def riemannian_approximation(rng: np.random.Generator) -> Outcome:
    d1, d2 = sizes(rng, 2, 3, 6)
    k = int(rng.integers(1, min(d1, d2)))
    M = rng.standard_normal((d1, d2))
    tail = float(np.sum(np.linalg.svd(M, compute_uv=False)[k:] ** 2))
    solution = solvers.balanced_approximation(M, k, method="riemannian", rng=rng)
    L, R = solution.pair
    scale = float(np.sum(M**2))
    return all_of(
        value=equal(np.sum((L @ R.T - M) ** 2), tail, scale=scale, rtol=1e-7),
        balanced=equal(L.T @ L, R.T @ R, rtol=1e-7),
        proven=equal(solution.certificate.lower_bound, tail, scale=scale),
    )


@claim(
    "New",
    "Balanced approximation, value",
    "The least |LR' - M|^2 over balanced pairs of k columns is that of the truncated singular value decomposition: no "
    "balanced pair is below it, and one attains it.",
    kind="exact",
    page="theory/balanced_geometry",
)
def balanced_approximation(rng: np.random.Generator) -> Outcome:
    d1, d2, k = int(rng.integers(2, 7)), int(rng.integers(2, 7)), int(rng.integers(1, 5))
    M = rng.standard_normal((d1, d2))
    rest = float(np.sum(np.linalg.svd(M, compute_uv=False)[k:] ** 2))
    size = float(np.sum(M**2))
    solution = solvers.balanced_approximation(M, k)
    L, R = solution.pair
    below = min(np.sum((P @ Q.T - M) ** 2) for P, Q in (balanced_pair(rng, d1, d2, k) for _ in range(20)))
    near = [balanced_near(rng, L, R) for _ in range(10)]
    return all_of(
        random=at_least(float(below), rest),
        near=at_least(min(float(np.sum((P @ Q.T - M) ** 2)) for P, Q in near), rest, rtol=1e-9 * size / max(rest, 1e-9 * size)),
        attained=equal(np.sum((L @ R.T - M) ** 2), rest, scale=size, k=k),
        value=equal(solution.value, rest, scale=size),
        balanced=equal(L.T @ L, R.T @ R),
    )


@claim(
    "New",
    "Rank-deficient stationary pairs are strict saddles",
    "At a stationary balanced pair of |LR' - M|^2 whose factors share a null vector n, moving along (u n', v n') with the "
    "leading singular vectors of M - LR' stays balanced and has second derivative -4|M - LR'|_op.",
    kind="exact",
    page="theory/balanced_geometry",
)
def strict_saddle(rng: np.random.Generator) -> Outcome:
    d1, d2 = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    k = int(rng.integers(1, min(d1, d2) + 1))
    M = rng.standard_normal((d1, d2))
    U, s, Vt = np.linalg.svd(M)
    # Stationary: any choice of fewer than k singular triples of M, in any basis of the columns.
    kept = rng.permutation(min(d1, d2))[: int(rng.integers(0, k))]
    Q = orthonormal(rng, k, k)
    L, R = U[:, kept] * np.sqrt(s[kept]) @ Q[:, : kept.size].T, Vt[kept].T * np.sqrt(s[kept]) @ Q[:, : kept.size].T
    E, n = L @ R.T - M, Q[:, -1]
    left, values, right = np.linalg.svd(-E)
    # The objective along the curve, by the second difference of a polynomial of degree four in t.
    pairs = {t: (L + t * np.outer(left[:, 0], n), R + t * np.outer(right[0], n)) for t in (-2, -1, 0, 1, 2)}
    f = {t: float(np.sum((P @ S.T - M) ** 2)) for t, (P, S) in pairs.items()}
    second = (-f[2] + 16 * f[1] - 30 * f[0] + 16 * f[-1] - f[-2]) / 12
    slope = manifolds.BalancedPairs(d1, d2, k).euclidean_to_riemannian_gradient((L, R), (2 * E @ R, 2 * E.T @ L))
    return all_of(
        stationary=equal(naive.packed(slope), 0 * naive.packed(slope), scale=float(np.sum(M**2)), k=k, rank=kept.size),
        balanced=equal(pairs[2][0].T @ pairs[2][0], pairs[2][1].T @ pairs[2][1]),
        curvature=equal(second, -4 * values[0], rtol=1e-8, scale=float(np.sum(M**2)) + values[0]),
    )


@claim(
    "New",
    "Local minima of the Stiefel parametrisation",
    "With the first k-1 singular pairs of M and last columns b, d with b'Md < 0, the triple with "
    "CC' = diag(s_1, ..., s_(k-1), 0) is a local minimum of |BCC'D' - M|^2, above the global one by s_k^2.",
    kind="bound",
    page="theory/balanced_geometry",
)
def stiefel_local_minimum(rng: np.random.Generator) -> Outcome:
    d1, d2 = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    k = int(rng.integers(1, min(d1, d2) + 1))
    M = rng.standard_normal((d1, d2))
    U, s, Vt = np.linalg.svd(M)
    signs = np.append(np.ones(k - 1), -1.0)
    point = [U[:, :k], np.diag(np.sqrt(np.append(s[: k - 1], 0.0))), Vt[:k].T * signs]
    manifold = manifolds.stiefel_product(d1, d2, k)

    def cost(B: np.ndarray, C: np.ndarray, D: np.ndarray) -> float:
        return float(np.sum((B @ C @ C.T @ D.T - M) ** 2))

    # Near: what is moved may not turn the sign of the last diagonal entry of B'MD.
    radius = 0.05 * s[k - 1] / s[0]
    steps = [[radius * rng.standard_normal(part.shape) for part in point] for _ in range(20)]
    near = [manifold.retraction(point, manifold.projection(point, step)) for step in steps]
    here = cost(*point)
    return all_of(
        value=equal(here, float(np.sum(s[k - 1 :] ** 2)), scale=float(np.sum(s**2))),
        lowest=at_least(min(cost(*each) for each in near), here),
    )
