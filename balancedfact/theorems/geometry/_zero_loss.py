"""The factorizations of a matrix and the networks of zero loss: where these sets are manifolds, and where not."""

from __future__ import annotations

import itertools

import numpy as np

from balancedfact import manifolds, measurements
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import instance, orbit
from balancedfact.theorems._outcome import Outcome, all_of, at_least, equal


@claim(
    "New",
    "Layers of a fixed product",
    "If the least width is rank(M) = r, all layers with product M are a manifold of codimension r(d_0 + d_L - r); if all "
    "widths are larger, the derivative of the product loses rank at layers of rank r.",
    kind="exact",
    page="theory/deep_manifolds",
)
def fixed_product(rng: np.random.Generator) -> Outcome:
    widths = [int(d) for d in rng.integers(1, 5, rng.integers(3, 5))]
    r, units = min(widths), np.eye(widths[-1] * widths[0]).reshape(-1, widths[-1], widths[0])
    codimension = r * (widths[0] + widths[-1] - r)
    wider = [d + 1 for d in widths]
    thin = [rng.standard_normal((above, r)) @ rng.standard_normal((r, below)) for below, above in itertools.pairwise(wider)]
    wide_units = np.eye(wider[-1] * wider[0]).reshape(-1, wider[-1], wider[0])
    ranks = [
        np.linalg.matrix_rank(_jacobian(layers, matrices), tol=1e-9)
        for layers, matrices in (
            (naive.gaussian_layers(rng, widths), units),
            (thin, wide_units),
            (naive.gaussian_layers(rng, wider), wide_units),
        )
    ]
    return all_of(
        regular=equal(ranks[0], codimension, rank=r),
        singular=equal(ranks[1], r * (wider[0] + wider[-1] - r)),
        loses=at_least(ranks[2], ranks[1] + 1),
    )


@claim(
    "New",
    "Singular points of zero loss",
    "The derivative J of the measurements has JJ' = AKA*, of rank at most r(d_0 + d_L - r) at layers of rank r: layers "
    "that recover a matrix of low rank from more measurements are a singular point of the zero-loss set.",
    kind="exact",
    page="theory/deep_manifolds",
)
def singular_points(rng: np.random.Generator) -> Outcome:
    d, depth = int(rng.integers(2, 4)), int(rng.integers(2, 4))
    r, widths = int(rng.integers(1, d)), [d] * (depth + 1)
    matrices = rng.standard_normal((r * (2 * d - r) + int(rng.integers(0, 2)), d, d))
    matrices /= np.linalg.norm(matrices, axis=(1, 2), keepdims=True)  # the manifold scales measurements to norm one
    layers = [rng.standard_normal((d, r)) @ rng.standard_normal((r, d)) for _ in range(depth)]
    A, full = measurements.Dense(matrices), naive.gaussian_layers(rng, widths)
    ranks = [np.linalg.matrix_rank(_jacobian(W, matrices), tol=1e-9) for W in (layers, full)]
    manifold = manifolds.ZeroLoss(A, A(naive.product(full)), widths)
    J = _jacobian(full, matrices)
    return all_of(
        gram=equal(manifold.gram(full), J @ J.T),
        deficient=equal(ranks[0], min(len(matrices), r * (2 * d - r)), m=len(matrices), rank=r),
        regular=equal(ranks[1], len(matrices)),
    )


def _jacobian(layers: list[np.ndarray], matrices: np.ndarray) -> np.ndarray:
    """The derivatives of <A_i, W_L...W_1> in every entry, from unit changes."""
    columns = []
    for k, W in enumerate(layers):
        for E in np.eye(W.size).reshape(-1, *W.shape):
            moved = naive.product([*layers[:k], E, *layers[k + 1 :]])
            columns.append([np.sum(P * moved) for P in matrices])
    return np.array(columns).T


@claim(
    "New",
    "Factorizations of least rank are one orbit",
    "Two factorizations whose hidden widths are rank(M) differ by invertible changes of basis of the hidden spaces, and "
    "form a manifold of dimension rank(M)^2 for each hidden layer.",
    kind="exact",
    page="theory/deep_manifolds",
)
def one_orbit(rng: np.random.Generator) -> Outcome:
    M, _ = instance(rng)
    depth = int(rng.integers(2, 5))
    manifold = manifolds.Factorizations(M, [M.shape[1], *[2] * (depth - 1), M.shape[0]], rng=rng)
    first, second = manifold.random_point(), orbit(rng, M, 2, depth)
    groups = [naive.before(second, j) @ np.linalg.pinv(naive.before(first, j)) for j in range(1, depth)]
    inverses = [np.eye(M.shape[1]), *(np.linalg.inv(G) for G in groups)]
    chain = zip([*groups, np.eye(M.shape[0])], first, inverses, strict=True)
    moved = [G @ W @ inverse for G, W, inverse in chain]
    velocities = []
    for j in range(depth - 1):
        for E in np.eye(4).reshape(4, 2, 2):
            tangent = [np.zeros_like(W) for W in first]
            tangent[j], tangent[j + 1] = E @ first[j], -first[j + 1] @ E
            velocities.append(naive.packed(tangent))
    return all_of(
        orbit=equal(naive.packed(moved), naive.packed(second), rtol=1e-7, depth=depth),
        dimension=equal(manifold.dim, np.linalg.matrix_rank(np.array(velocities))),
        count=equal(manifold.dim, 4 * (depth - 1)),
    )
