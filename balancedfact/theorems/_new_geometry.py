"""What is new on balanced pairs and layers, and on the sets of factorizations and of zero loss."""

from __future__ import annotations

import itertools

import numpy as np

import balancedfact as bf
from balancedfact import dynamics, manifolds, measurements
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import Outcome, all_of, at_least, at_most, claim, equal

PAIRS, LAYERS = "theory/balanced_geometry", "theory/deep_manifolds"


def _orthonormal(rng: np.random.Generator, rows: int, cols: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((rows, cols)))[0]


def _balanced_pair(rng: np.random.Generator, d1: int, d2: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """A balanced pair of random rank, made from L and a Gram matrix without the package."""
    rank = int(rng.integers(1, min(d1, d2, k) + 1))
    L = rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, k))
    values, vectors = np.linalg.eigh(L.T @ L)
    return L, _orthonormal(rng, d2, rank) * np.sqrt(values[-rank:]) @ vectors[:, -rank:].T


@claim(
    "New",
    "Stiefel parametrisation",
    "The balanced pairs are exactly the (BC, DC) with B and D orthonormal of min(d_1, d_2, k) columns: none is lost, of "
    "any rank, also for k > min(d_1, d_2), and triples of one pair of full rank differ by an orthogonal matrix.",
    kind="exact",
    page=PAIRS,
)
def stiefel_parametrisation(rng: np.random.Generator) -> Outcome:
    d1, d2, k = (int(n) for n in rng.integers(1, 7, 3))
    q = min(d1, d2, k)
    L, R = _balanced_pair(rng, d1, d2, k)
    B, C, D = manifolds.factors_of(L, R)
    B2, C2, D2 = _orthonormal(rng, d1, q), rng.standard_normal((q, k)), _orthonormal(rng, d2, q)
    L2, R2 = manifolds.pair_of(B2, C2, D2)
    B3, C3, D3 = manifolds.factors_of(L2, R2)
    turn = B2.T @ B3
    return all_of(
        left=equal(B @ C, L, rtol=1e-7, d1=d1, d2=d2, k=k),
        right=equal(D @ C, R, rtol=1e-7),
        orthonormal=equal([B.T @ B, D.T @ D], [np.eye(q)] * 2),
        balanced=equal(L2.T @ L2, R2.T @ R2),
        fibre=equal(np.hstack([(B2 @ turn).ravel(), (D2 @ turn).ravel(), (turn.T @ C2).ravel()]), _flat(B3, D3, C3), rtol=1e-6),
        turn=equal(turn.T @ turn, np.eye(q), rtol=1e-6),
    )


def _flat(*arrays: np.ndarray) -> np.ndarray:
    return np.hstack([array.ravel() for array in arrays])


@claim(
    "New",
    "Balanced approximation, value",
    "The least |LR' - M|^2 over balanced pairs of k columns is that of the truncated singular value decomposition: no "
    "balanced pair is below it, and one attains it.",
    kind="exact",
    page=PAIRS,
)
def balanced_approximation(rng: np.random.Generator) -> Outcome:
    d1, d2, k = int(rng.integers(2, 7)), int(rng.integers(2, 7)), int(rng.integers(1, 5))
    M = rng.standard_normal((d1, d2))
    rest = float(np.sum(np.linalg.svd(M, compute_uv=False)[k:] ** 2))
    size = float(np.sum(M**2))
    solution = bf.balanced_approximation(M, k)
    L, R = solution.pair
    below = min(np.sum((P @ Q.T - M) ** 2) for P, Q in (_balanced_pair(rng, d1, d2, k) for _ in range(20)))
    near = [_balanced_near(rng, L, R) for _ in range(10)]
    return all_of(
        random=at_least(float(below), rest),
        near=at_least(min(float(np.sum((P @ Q.T - M) ** 2)) for P, Q in near), rest, rtol=1e-9 * size / max(rest, 1e-9 * size)),
        attained=equal(np.sum((L @ R.T - M) ** 2), rest, scale=size, k=k),
        value=equal(solution.value, rest, scale=size),
        balanced=equal(L.T @ L, R.T @ R),
    )


def _balanced_near(rng: np.random.Generator, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A balanced pair close to a balanced one: both rows are turned and the columns mixed alike."""
    spread = 10 ** rng.uniform(-4, -1)
    turns = [np.linalg.qr(np.eye(len(X)) + spread * rng.standard_normal((len(X), len(X))))[0] for X in (L, R)]
    mix = np.eye(L.shape[1]) + spread * rng.standard_normal((L.shape[1], L.shape[1]))
    return turns[0] @ L @ mix, turns[1] @ R @ mix


@claim(
    "New",
    "Rank-deficient stationary pairs are strict saddles",
    "At a stationary balanced pair of |LR' - M|^2 whose factors share a null vector n, moving along (u n', v n') with the "
    "leading singular vectors of M - LR' stays balanced and has second derivative -4|M - LR'|_op.",
    kind="exact",
    page=PAIRS,
)
def strict_saddle(rng: np.random.Generator) -> Outcome:
    d1, d2 = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    k = int(rng.integers(1, min(d1, d2) + 1))
    M = rng.standard_normal((d1, d2))
    U, s, Vt = np.linalg.svd(M)
    # Stationary: any choice of fewer than k singular triples of M, in any basis of the columns.
    kept = rng.permutation(min(d1, d2))[: int(rng.integers(0, k))]
    Q = _orthonormal(rng, k, k)
    L, R = U[:, kept] * np.sqrt(s[kept]) @ Q[:, : kept.size].T, Vt[kept].T * np.sqrt(s[kept]) @ Q[:, : kept.size].T
    E, n = L @ R.T - M, Q[:, -1]
    left, values, right = np.linalg.svd(-E)
    # The objective along the curve, by the second difference of a polynomial of degree four in t.
    pairs = {t: (L + t * np.outer(left[:, 0], n), R + t * np.outer(right[0], n)) for t in (-2, -1, 0, 1, 2)}
    f = {t: float(np.sum((P @ S.T - M) ** 2)) for t, (P, S) in pairs.items()}
    second = (-f[2] + 16 * f[1] - 30 * f[0] + 16 * f[-1] - f[-2]) / 12
    slope = manifolds.BalancedPairs(d1, d2, k).euclidean_to_riemannian_gradient((L, R), (2 * E @ R, 2 * E.T @ L))
    return all_of(
        stationary=equal(_flat(*slope), 0 * _flat(*slope), scale=float(np.sum(M**2)), k=k, rank=kept.size),
        balanced=equal(pairs[2][0].T @ pairs[2][0], pairs[2][1].T @ pairs[2][1]),
        curvature=equal(second, -4 * values[0], rtol=1e-8, scale=float(np.sum(M**2)) + values[0]),
    )


@claim(
    "New",
    "Local minima of the Stiefel parametrisation",
    "With the first k-1 singular pairs of M and last columns b, d with b'Md < 0, the triple with "
    "CC' = diag(s_1, ..., s_(k-1), 0) is a local minimum of |BCC'D' - M|^2, above the global one by s_k^2.",
    kind="bound",
    page=PAIRS,
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


@claim(
    "New",
    "Nearest balanced pair",
    "With the singular value decomposition AB' = P Sigma Q' and O = PQ', the pair ((A + OB)/2, (B + O'A)/2) is balanced, "
    "and no balanced pair is nearer to (A, B).",
    kind="exact",
    page=PAIRS,
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

    others = [_balanced_near(rng, L, R) for _ in range(20)] + [_balanced_pair(rng, d1, d2, k) for _ in range(20)]
    # A search: exact minimisation over B and D, then over C, in turn from random starts.
    ends = [squared(_alternated(rng, A, B)) for _ in range(2)]
    return all_of(
        formula=equal(_flat(L, R), _flat((A + turn @ B) / 2, (B + turn.T @ A) / 2), rtol=1e-7),
        balanced=equal(L.T @ L, R.T @ R),
        nearest=at_least(min(squared(pair) for pair in others), squared((L, R))),
        search=at_least(min(ends), squared((L, R))),
    )


def _alternated(rng: np.random.Generator, A: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    q = min(*A.shape, len(B))
    X, Y = _orthonormal(rng, len(A), q), _orthonormal(rng, len(B), q)
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
    page=PAIRS,
)
def dimension_of_pairs(rng: np.random.Generator) -> Outcome:
    d1, d2, k = (int(n) for n in rng.integers(1, 6, 3))
    q = min(d1, d2, k)
    B, C, D = _orthonormal(rng, d1, q), rng.standard_normal((q, k)), _orthonormal(rng, d2, q)
    # The rank of the derivative of (B, C, D) -> (BC, DC), turning B and D by skew matrices.
    velocities = []
    for i, j in itertools.combinations(range(d1), 2):
        velocities.append(_flat(_skew(d1, i, j) @ B @ C, 0 * D @ C))
    for i, j in itertools.combinations(range(d2), 2):
        velocities.append(_flat(0 * B @ C, _skew(d2, i, j) @ D @ C))
    velocities += [_flat(B @ E, D @ E) for E in np.eye(q * k).reshape(-1, q, k)]
    manifold = manifolds.BalancedPairs(d1, d2, k)
    return all_of(
        rank=equal(manifold.dim, np.linalg.matrix_rank(np.array(velocities), tol=1e-9), d1=d1, d2=d2, k=k),
        formula=equal(manifold.dim, (d1 + d2 + k) * q - q * (3 * q + 1) / 2),
    )


def _skew(d: int, i: int, j: int) -> np.ndarray:
    return np.outer(np.eye(d)[i], np.eye(d)[j]) - np.outer(np.eye(d)[j], np.eye(d)[i])


@claim(
    "New",
    "Form and dimension of balanced layers",
    "Layers are balanced exactly if W_k = Q_k S Q_(k-1)' with Q_k orthonormal of q = min d_k columns and one "
    "positive-semidefinite S; those of rank q are a manifold of dimension q sum d_k - (L+1)q(q+1)/2 + q.",
    kind="exact",
    page=LAYERS,
)
def balanced_layers(rng: np.random.Generator) -> Outcome:
    widths = [int(d) for d in rng.integers(1, 5, rng.integers(3, 5))]
    q, depth = min(widths), len(widths) - 1
    manifold = manifolds.BalancedLayers(widths, rng=rng)
    layers = list(manifold.random_point())
    # All layers of balanced networks have the same singular values, and every product of layers is that power of S.
    values = [np.linalg.svd(W, compute_uv=False)[:q] for W in layers]
    frames, S = [_orthonormal(rng, d, q) for d in widths], rng.standard_normal((q, q))
    S = S @ S.T + 0.1 * np.eye(q)
    made = [above @ S @ below.T for below, above in itertools.pairwise(frames)]
    velocities = []
    for k, d in enumerate(widths):
        for i, j in itertools.combinations(range(d), 2):
            turned = [_skew(d, i, j) @ Q if n == k else 0 * Q for n, Q in enumerate(frames)]
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


@claim(
    "New",
    "Layers of a fixed product",
    "If the least width is rank(M) = r, all layers with product M are a manifold of codimension r(d_0 + d_L - r); if all "
    "widths are larger, the derivative of the product loses rank at layers of rank r.",
    kind="exact",
    page=LAYERS,
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
    page=LAYERS,
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
    "Certificate of a flat pair",
    "For any y, 4m b'y / max(1, |D_1^(-1) A*(y) D_2^(-1)|_op) bounds the scaled trace of every pair that fits from below, "
    "and the flat minimum meets its bound.",
    kind="bound",
    page="theory/two_factors",
)
def flat_certificate(rng: np.random.Generator) -> Outcome:
    d1, d2, m = int(rng.integers(2, 5)), int(rng.integers(2, 5)), int(rng.integers(1, 7))
    matrices = rng.standard_normal((m, d1, d2))
    rank = min(d1, d2)
    L, R = rng.standard_normal((d1, rank)), rng.standard_normal((d2, rank))
    A, b = measurements.Dense(matrices), np.array([np.sum(P * (L @ R.T)) for P in matrices])
    # D_1 and D_2 may be singular; the bound only needs what they see.
    left, right = sum(P @ P.T for P in matrices) / (m * d2), sum(P.T @ P for P in matrices) / (m * d1)

    def bound(y: np.ndarray) -> float:
        seen = naive.inverse_root(left) @ np.tensordot(y, matrices, 1) @ naive.inverse_root(right)
        return float(4 * m * (b @ y) / max(1.0, np.linalg.norm(seen, 2)))

    scaled = 2 * m * (np.trace(L.T @ left @ L) + np.trace(R.T @ right @ R))
    solution = bf.flat_minimum(A, b)
    return all_of(
        any_vector=at_most(max(bound(y) for y in rng.standard_normal((20, m))), min(scaled, solution.value)),
        dual=equal(bound(solution.certificate.dual), solution.value, rtol=1e-6),
        fits=equal(A(solution.matrix), b, rtol=1e-6),
    )
