"""Balanced layers: their parametrisation and dimension, and gradient flow between them."""

from __future__ import annotations

import itertools

import numpy as np

from balancedfact import dynamics, manifolds, measurements
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import orthonormal
from balancedfact.theorems._outcome import Outcome, all_of, equal
from balancedfact.theorems.geometry._instances import skew


@claim(
    "New",
    "Form and dimension of balanced layers",
    "Layers are balanced exactly if W_k = Q_k S Q_(k-1)' with Q_k orthonormal of q = min d_k columns and one "
    "positive-semidefinite S; those of rank q are a manifold of dimension q sum d_k - (L+1)q(q+1)/2 + q.",
    kind="exact",
    page="theory/deep_manifolds",
)
def balanced_layers(rng: np.random.Generator) -> Outcome:
    widths = [int(d) for d in rng.integers(1, 5, rng.integers(3, 5))]
    q, depth = min(widths), len(widths) - 1
    manifold = manifolds.BalancedLayers(widths, rng=rng)
    layers = list(manifold.random_point())
    # All layers of balanced networks have the same singular values, and every product of layers is that power of S.
    values = [np.linalg.svd(W, compute_uv=False)[:q] for W in layers]
    frames, S = [orthonormal(rng, d, q) for d in widths], rng.standard_normal((q, q))
    S = S @ S.T + 0.1 * np.eye(q)
    made = [above @ S @ below.T for below, above in itertools.pairwise(frames)]
    velocities = []
    for k, d in enumerate(widths):
        for i, j in itertools.combinations(range(d), 2):
            turned = [skew(d, i, j) @ Q if n == k else 0 * Q for n, Q in enumerate(frames)]
            moves = [turned[n + 1] @ S @ frames[n].T + frames[n + 1] @ S @ turned[n].T for n in range(depth)]
            velocities.append(naive.packed(moves))
    for i, j in itertools.combinations_with_replacement(range(q), 2):
        E = np.outer(np.eye(q)[i], np.eye(q)[j])
        velocities.append(naive.packed([above @ (E + E.T) @ below.T for below, above in itertools.pairwise(frames)]))
    count = q * sum(widths) - (depth + 1) * q * (q + 1) / 2 + q
    return all_of(
        point=equal(_imbalance(layers), 0.0, scale=max(np.sum(W**2) for W in layers)),
        values=equal(values, [values[0]] * depth, rtol=1e-7),
        power=equal(np.linalg.svd(naive.product(layers), compute_uv=False)[:q], values[0] ** depth, rtol=1e-7),
        made=equal(_imbalance(made), 0.0, scale=float(np.sum(S**2))),
        kept=equal(naive.packed(list(manifold.retraction(made, [0 * W for W in made]))), naive.packed(made), rtol=1e-8),
        rank=equal(manifold.dim, np.linalg.matrix_rank(np.array(velocities), tol=1e-9)),
        formula=equal(manifold.dim, count),
    )


def _imbalance(layers: list[np.ndarray]) -> float:
    return max(float(np.linalg.norm(above.T @ above - below @ below.T)) for below, above in itertools.pairwise(layers))


@claim(
    "New",
    "Flow of balanced starts",
    "From balanced layers gradient flow stays balanced, and its end-to-end matrix follows dE/dt = -sum_j (EE')^((L-j)/L) "
    "grad l(E) (E'E)^((j-1)/L), whatever the hidden widths.",
    kind="exact",
    page="theory/sharpness_and_dynamics",
)
def balanced_flow(rng: np.random.Generator) -> Outcome:
    d0, dL, depth = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(2, 5))
    M = rng.standard_normal((dL, d0))
    A = measurements.gaussian(int(rng.integers(1, 7)), (dL, d0), rng)
    b, t = rng.standard_normal(A.m), float(rng.uniform(0.1, 2.0))
    hidden = min(d0, dL) + rng.integers(0, 3, depth - 1)
    start = dynamics.balanced_layers(M, [d0, *hidden, dL], rng)
    run = dynamics.gradient_flow(start, A, b, t_final=t, rtol=1e-10)
    closed = dynamics.balanced_flow(M, A, b, depth, t_final=t, rtol=1e-10)
    size = max(float(np.sum(W**2)) for W in run.layers)
    # The equation itself at the start, with matrix powers of E E' and E'E and the chain rule over the layers.
    E = naive.product(start)
    slope = 2 / A.m * A.adjoint(A(E) - b)
    terms = [_power(E, (depth - j) / depth) @ slope @ _power(E.T, (j - 1) / depth) for j in range(1, depth + 1)]
    moved = np.zeros_like(E)
    for j in range(1, depth + 1):
        C, B = naive.after(start, j), naive.before(start, j - 1)
        moved -= C @ C.T @ slope @ B.T @ B
    return all_of(
        balanced=equal(_imbalance(run.layers), 0.0, rtol=1e-7, scale=size),
        product=equal(closed.matrix, naive.product(run.layers), rtol=1e-7, depth=depth),
        equation=equal(-sum(terms), moved, rtol=1e-7),
    )


def _power(E: np.ndarray, exponent: float) -> np.ndarray:
    """A power of ``E E'``, from the singular values of `E`: roots of rounding errors of the square would not be small."""
    if exponent == 0:
        return np.eye(len(E))
    U, s, _ = np.linalg.svd(E, full_matrices=False)
    return U * s ** (2 * exponent) @ U.T
