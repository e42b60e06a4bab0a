"""The set of balanced pairs: its parametrisation, its dimension, the nearest balanced pair."""

from __future__ import annotations

import itertools

import numpy as np

from balancedfact import manifolds
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import orthonormal, sizes
from balancedfact.theorems._outcome import Outcome, all_of, at_least, equal, fails
from balancedfact.theorems.geometry._instances import balanced_near, balanced_pair, skew


def _balanced(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A balanced pair of any width, with factors of any rank."""
    d1, d2, k = sizes(rng, 3, 1, 6)
    rank = int(rng.integers(1, min(d1, d2, k) + 1))
    root_of_gram = rng.standard_normal((rank, k))
    return orthonormal(rng, d1, rank) @ root_of_gram, orthonormal(rng, d2, rank) @ root_of_gram


@claim(
    "CS282",
    "Section 5, parametrisation",
    "Every balanced pair is (B C, D C) with orthonormal columns of B and of D, also when it is wider than the matrix.",
    kind="exact",
    page="theory/balanced_geometry",
)
def parametrisation(rng: np.random.Generator) -> Outcome:
    from balancedfact.manifolds import factors_of

    L, R = _balanced(rng)
    B, C, D = factors_of(L, R)
    eye, scale = np.eye(len(C)), float(np.linalg.norm(L) + np.linalg.norm(R))
    return all_of(
        left=equal(B @ C, L, scale=scale),
        right=equal(D @ C, R, scale=scale),
        left_orthonormal=equal(B.T @ B, eye),
        right_orthonormal=equal(D.T @ D, eye),
    )


@claim(
    "CS282",
    "Section 5, R = B D, as printed",
    "The parametrisation is printed as L = B C, R = B D with B^T B = D^T D = I, 'which can ensure' L^T L = R^T R.",
    kind="counterexample",
    page="theory/balanced_geometry",
)
def parametrisation_printed(rng: np.random.Generator) -> Outcome:
    d = sizes(rng, 1, 3, 6)[0]  # both matrices are B times a square one, so the sizes must agree
    k = int(rng.integers(2, d + 1))
    B, D, C = orthonormal(rng, d, k), orthonormal(rng, k, k), rng.standard_normal((k, k))
    L, R = B @ C, B @ D
    return fails(equal(L.T @ L, R.T @ R, rtol=1e-3))


@claim(
    "CS282",
    "Section 5, equivalence, as printed",
    "Minimising |L R^T - M|^2 over the parametrised balanced pairs is said not to be equivalent to the original problem.",
    kind="counterexample",
    page="theory/balanced_geometry",
)
def equivalence_printed(rng: np.random.Generator) -> Outcome:
    from balancedfact.manifolds import factors_of, pair_of

    L, R = _balanced(rng)
    L1, R1 = pair_of(*factors_of(L, R))
    missed = np.linalg.norm(L - L1) + np.linalg.norm(R - R1)
    return fails(at_least(missed, 1e-6 * (np.linalg.norm(L) + np.linalg.norm(R))))


@claim(
    "New",
    "Stiefel parametrisation",
    "The balanced pairs are exactly the (BC, DC) with B and D orthonormal of min(d_1, d_2, k) columns: none is lost, of "
    "any rank, also for k > min(d_1, d_2), and triples of one pair of full rank differ by an orthogonal matrix.",
    kind="exact",
    page="theory/balanced_geometry",
)
def stiefel_parametrisation(rng: np.random.Generator) -> Outcome:
    d1, d2, k = (int(n) for n in rng.integers(1, 7, 3))
    q = min(d1, d2, k)
    L, R = balanced_pair(rng, d1, d2, k)
    B, C, D = manifolds.factors_of(L, R)
    B2, C2, D2 = orthonormal(rng, d1, q), rng.standard_normal((q, k)), orthonormal(rng, d2, q)
    L2, R2 = manifolds.pair_of(B2, C2, D2)
    B3, C3, D3 = manifolds.factors_of(L2, R2)
    turn = B2.T @ B3
    return all_of(
        left=equal(B @ C, L, rtol=1e-7, d1=d1, d2=d2, k=k),
        right=equal(D @ C, R, rtol=1e-7),
        orthonormal=equal([B.T @ B, D.T @ D], [np.eye(q)] * 2),
        balanced=equal(L2.T @ L2, R2.T @ R2),
        fibre=equal(naive.packed([B2 @ turn, D2 @ turn, turn.T @ C2]), naive.packed([B3, D3, C3]), rtol=1e-6),
        turn=equal(turn.T @ turn, np.eye(q), rtol=1e-6),
    )


@claim(
    "New",
    "Nearest balanced pair",
    "With the singular value decomposition AB' = P Sigma Q' and O = PQ', the pair ((A + OB)/2, (B + O'A)/2) is balanced, "
    "and no balanced pair is nearer to (A, B).",
    kind="exact",
    page="theory/balanced_geometry",
)
def nearest_pair(rng: np.random.Generator) -> Outcome:
    d1, d2 = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    if rng.uniform() < 0.3:
        d2 = d1
    # For factors of one height also more columns than rows.
    k = int(rng.integers(1, min(d1, d2) + (3 if d1 == d2 else 1)))
    A, B = rng.standard_normal((d1, k)), rng.standard_normal((d2, k))
    L, R = manifolds.BalancedPairs(d1, d2, k).nearest(A, B)
    P, _, Qt = np.linalg.svd(A @ B.T, full_matrices=False)
    turn = P[:, :k] @ Qt[:k]

    def squared(pair: tuple[np.ndarray, np.ndarray]) -> float:
        return float(np.sum((pair[0] - A) ** 2) + np.sum((pair[1] - B) ** 2))

    others = [balanced_near(rng, L, R) for _ in range(20)] + [balanced_pair(rng, d1, d2, k) for _ in range(20)]
    # A search: exact minimisation over B and D, then over C, in turn from random starts.
    ends = [squared(_alternated(rng, A, B)) for _ in range(2)]
    return all_of(
        formula=equal(naive.packed([L, R]), naive.packed([(A + turn @ B) / 2, (B + turn.T @ A) / 2]), rtol=1e-7),
        balanced=equal(L.T @ L, R.T @ R),
        nearest=at_least(min(squared(pair) for pair in others), squared((L, R))),
        search=at_least(min(ends), squared((L, R))),
    )


def _alternated(rng: np.random.Generator, A: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    q = min(*A.shape, len(B))
    X, Y = orthonormal(rng, len(A), q), orthonormal(rng, len(B), q)
    for _ in range(300):
        C = (X.T @ A + Y.T @ B) / 2
        X, Y = (U @ Vt for U, _, Vt in (np.linalg.svd(Z @ C.T, full_matrices=False) for Z in (A, B)))
    C = (X.T @ A + Y.T @ B) / 2
    return X @ C, Y @ C


@claim(
    "New",
    "Dimension of the balanced pairs",
    "The balanced pairs of rank q = min(d_1, d_2, k) are a manifold of dimension (d_1 + d_2 + k)q - q(3q+1)/2.",
    kind="exact",
    page="theory/balanced_geometry",
)
def dimension_of_pairs(rng: np.random.Generator) -> Outcome:
    d1, d2, k = (int(n) for n in rng.integers(1, 6, 3))
    q = min(d1, d2, k)
    B, C, D = orthonormal(rng, d1, q), rng.standard_normal((q, k)), orthonormal(rng, d2, q)
    # The rank of the derivative of (B, C, D) -> (BC, DC), turning B and D by skew matrices.
    velocities = []
    for i, j in itertools.combinations(range(d1), 2):
        velocities.append(naive.packed([skew(d1, i, j) @ B @ C, 0 * D @ C]))
    for i, j in itertools.combinations(range(d2), 2):
        velocities.append(naive.packed([0 * B @ C, skew(d2, i, j) @ D @ C]))
    velocities += [naive.packed([B @ E, D @ E]) for E in np.eye(q * k).reshape(-1, q, k)]
    manifold = manifolds.BalancedPairs(d1, d2, k)
    return all_of(
        rank=equal(manifold.dim, np.linalg.matrix_rank(np.array(velocities), tol=1e-9), d1=d1, d2=d2, k=k),
        formula=equal(manifold.dim, (d1 + d2 + k) * q - q * (3 * q + 1) / 2),
    )
