"""The set of balanced pairs: what the course report asks about it."""

from __future__ import annotations

import numpy as np

from balancedfact import solvers
from balancedfact.theorems._claim import Outcome, all_of, at_least, claim, equal, fails
from balancedfact.theorems._draw import orthonormal, sizes

BALANCED = "theory/balanced_geometry"


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
    page=BALANCED,
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
    page=BALANCED,
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
    page=BALANCED,
)
def equivalence_printed(rng: np.random.Generator) -> Outcome:
    from balancedfact.manifolds import factors_of, pair_of

    L, R = _balanced(rng)
    L1, R1 = pair_of(*factors_of(L, R))
    missed = np.linalg.norm(L - L1) + np.linalg.norm(R - R1)
    return fails(at_least(missed, 1e-6 * (np.linalg.norm(L) + np.linalg.norm(R))))


@claim(
    "CS282",
    "Section 5, balanced approximation",
    "The least |L R^T - M|^2 over balanced pairs of width k is the sum of the squared singular values of M after the first k.",
    kind="exact",
    page=BALANCED,
)
def balanced_approximation(rng: np.random.Generator) -> Outcome:
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
