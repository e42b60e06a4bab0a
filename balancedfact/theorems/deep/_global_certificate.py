"""The bounds from weighted isometries and from the lift on the trace of every network that fits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from balancedfact import curvature, measurements, solvers
from balancedfact.certification.deep._lift import Gauge, Lift
from balancedfact.certification.deep._lifted_bound import lifted_bound
from balancedfact.certification.deep._weighted_isometry import weighted_isometry_bound
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import orbit
from balancedfact.theorems._outcome import Outcome, all_of, at_most


@claim(
    "New",
    "Flattest deep network, weighted isometries",
    "If T + N_j - aa' - X_jX_j' x K_(j-1)'K_(j-1) is positive definite for the middle layers, with X_jK_j = A*(y_j), X_1 = I, "
    "K_(L-1) = I, N_j odd under partial transposition and a = A*(y_0), no network of depth L that fits has half a trace below "
    "L (d_1 d_2)^(1/L) (V_0^(1/(L-2)) + V_1^(1/(L-2)))^(1-2/L), V_0 = (b'y_0)^(2L-2) / (sum_k s_k(a)^(2/(L-2)))^(L-2) and "
    "V_1 = prod_j (b'y_j)^2, in whitened coordinates.",
    kind="bound",
    page="theory/global_certificate",
)
def weighted_isometries(rng: np.random.Generator) -> Outcome:
    depth, (d1, d2) = int(rng.integers(3, 6)), (3, int(rng.integers(2, 5)))
    m = d1 * d2 + 2
    A = measurements.Dense(rng.standard_normal((m, d1, d2)))
    M = rng.standard_normal((d1, 2)) @ rng.standard_normal((2, d2))
    b = A(M)
    fitting = [curvature.trace(orbit(rng, M, 2, depth, spread), A) for spread in (0.1, 0.5, 1.0)]
    flattest = naive.trace(solvers.induced_regularizer(M, A, depth).layers, A.stack())
    least = min(flattest, *fitting)

    # The theorem, from its own definition, with weights drawn at random and scaled until the inequalities hold.
    roots = [np.linalg.inv(D) for D in (A.D1, A.D2)]
    white = np.einsum("pq,iqr,rs->ips", roots[0], A.stack(), roots[1])
    rows = white.reshape(m, -1)
    T, solution = rows.T @ rows / m, np.linalg.lstsq(rows @ rows.T, b, rcond=None)[0]
    ys = [solution + 0.1 * np.linalg.norm(solution) * rng.standard_normal(m) / np.sqrt(m) for _ in range(depth - 1)]
    Z = [np.tensordot(y, white, 1) for y in ys]
    X = [np.eye(d1), *(rng.standard_normal((d1, d1)) for _ in range(depth - 3)), Z[-1]]
    K = [Z[0], *(np.linalg.solve(X[j], Z[j]) for j in range(1, depth - 2)), np.eye(d2)]
    N = rng.standard_normal((d1, d2, d1, d2))
    N = N + N.transpose(2, 3, 0, 1)
    N = ((N - N.transpose(0, 3, 2, 1)) / 2).reshape(T.shape)
    N *= 0.3 * np.linalg.eigvalsh(T)[0] / np.linalg.norm(N, 2)
    y_0 = solution / np.linalg.norm(solution)
    a = np.tensordot(y_0, white, 1)
    inverse = np.linalg.inv(np.linalg.cholesky(T + N))

    def needed(weight: np.ndarray) -> float:
        return float(np.linalg.eigvalsh(inverse @ weight @ inverse.T)[-1])

    split = 0.4 / needed(np.outer(a, a))
    product = [0.4 / needed(np.kron(X[j + 1] @ X[j + 1].T, K[j].T @ K[j])) for j in range(depth - 2)]
    sigma, n = np.linalg.svd(a, compute_uv=False), depth - 2
    V_0 = split**n * (b @ y_0) ** (2 * depth - 2) / np.sum(sigma ** (2 / n)) ** n
    V_1 = np.prod(product) * np.prod([(b @ y) ** 2 for y in ys])
    bound = 2 * depth * (d1 * d2) ** (1 / depth) * (V_0 ** (1 / n) + V_1 ** (1 / n)) ** (1 - 2 / depth)

    found = weighted_isometry_bound(A, b, solution, solution, depth, work=3e6)
    return all_of(any_weights=at_most(float(bound), least, depth=depth), solver=at_most(found, least, depth=depth))


@claim(
    "New",
    "Flattest deep network, lift of three layers",
    "In the gauge d_2 tr Q_1 = d_1 tr P_2 = 1, t = <T, Q_2 x P_1>, any S and any Y >= 0 whose adjoint misses the objective by "
    "r prove t >= lambda + min(0, lambda_min(S + lift(r))) tr X_1 tr X_2, and half the trace is at least 3 t^(1/3).",
    kind="bound",
    page="theory/global_certificate",
)
def lift_of_three_layers(rng: np.random.Generator) -> Outcome:
    d1, d2 = int(rng.integers(2, 4)), int(rng.integers(2, 4))
    m = d1 + d2 - 1 + int(rng.integers(0, 2)) * (min(d1, d2) > 2)
    A = measurements.Dense(rng.standard_normal((m, d1, d2)))
    E = rng.standard_normal((d1, 2)) @ rng.standard_normal((2, d2))
    b = A(E)
    white = np.einsum("pq,iqr,rs->ips", np.linalg.inv(A.D1), A.stack(), np.linalg.inv(A.D2))
    W1, W2, W3 = orbit(rng, E, 2, 3, 0.5)
    C, B = [A.D1 @ W3 @ W2, A.D1 @ W3], [W1 @ A.D2, W2 @ W1 @ A.D2]
    scales = np.sqrt(d2 * np.sum(C[0] ** 2)), np.sqrt(d1 * np.sum(B[1] ** 2))
    C, B = [C[0] / scales[0], C[1] * scales[1]], [B[0] * scales[0], B[1] / scales[1]]
    X1, X2 = (np.block([[c @ c.T, c @ b], [b.T @ c.T, b.T @ b]]) for c, b in zip(C, B, strict=True))
    t = float(np.sum(np.einsum("pq,irq,rs->ips", B[0], white, C[1]) ** 2)) / m
    first, last = Gauge(np.eye(d1), np.zeros((d2, d2)), 1 / d2), Gauge(np.zeros((d1, d1)), np.eye(d2), 1 / d1)
    lift = Lift(white, b, (first, last))
    level, negative = lift.dual(_multipliers(rng, lift))
    traces = float(np.trace(X1) * np.trace(X2))
    trace = curvature.trace([W1, W2, W3], A)
    dual = solvers.flat_minimum(A, b).certificate.dual
    found = lifted_bound(A, b, dual, [W1, W2, W3], rng, work=2.4e7)
    flattest = solvers.induced_regularizer(E, A, 3).value
    return all_of(
        any_dual=at_most(level - negative * traces, t),
        means=at_most(6 * t ** (1 / 3), trace),
        solver=at_most(found, flattest),
    )


@claim(
    "New",
    "Flattest deep network, lifts at any depth",
    "With every place scaled to <F, Q_j> = <G, P_j>, the first to d_2 tr Q_1 = 1 and the last to d_1 tr P_(L-1) = 1, half the "
    "trace is at least L (prod_j T_j)^(1/L) over the middle layers, T_j = <T, Q_j x P_(j-1)>; where <F, Q> of both places is "
    "in a box, any multipliers >= 0 whose adjoint misses the objective of the lift by r prove "
    "T_j >= lambda + min(0, lambda_min(S + lift(r))) tr X_(j-1) tr X_j.",
    kind="bound",
    page="theory/global_certificate",
)
def lifts_at_any_depth(rng: np.random.Generator) -> Outcome:
    depth, d1, d2 = int(rng.integers(4, 7)), 2, int(rng.integers(2, 4))
    m = d1 * d2 - 1
    A = measurements.Dense(rng.standard_normal((m, d1, d2)))
    E = rng.standard_normal((d1, 2)) @ rng.standard_normal((2, d2))
    b = A(E)
    layers = orbit(rng, E, 2, depth, 0.5)
    white = np.einsum("pq,iqr,rs->ips", np.linalg.inv(A.D1), A.stack(), np.linalg.inv(A.D2))
    F, G = (root @ root.T + np.eye(len(root)) for root in (rng.standard_normal((d1, d1)), rng.standard_normal((d2, d2))))
    places = []
    for j in range(1, depth):
        C = A.D1 @ naive.product(layers[j:])
        B = naive.product(layers[:j]) @ A.D2
        size = np.sum(F * (C @ C.T)) / np.sum(G * (B.T @ B)) if 1 < j < depth - 1 else 0.0
        size = d2**2 * np.sum(C**2) ** 2 if j == 1 else 1 / (d1**2 * np.sum(B**2) ** 2) if j == depth - 1 else size
        C, B = C / size**0.25, B * size**0.25
        places.append(np.block([[C @ C.T, C @ B], [B.T @ C.T, B.T @ B]]))
    T = np.array([np.einsum("iab,icd,ac,bd->", white, white, Y[:d1, :d1], X[d1:, d1:]) for X, Y in pairwise(places)]) / m
    half = naive.trace(layers, A.stack()) / 2

    gauges, at = [], int(rng.integers(1, depth - 3)) if depth > 4 else 1
    pair = places[at : at + 2] if depth > 4 else places[:2]
    for X in pair:
        inner = X is not places[0]
        size = float(np.sum(F * X[:d1, :d1]))
        box = (size * rng.uniform(0.5, 1), size * rng.uniform(1, 2))
        gauges.append(Gauge(F, -G, 0.0, box) if inner else Gauge(np.eye(d1), np.zeros((d2, d2)), 1 / d2))
    lift = Lift(white, b, (gauges[0], gauges[1]))
    level, negative = lift.dual(_multipliers(rng, lift))
    t = np.einsum("iab,icd,ac,bd->", white, white, pair[1][:d1, :d1], pair[0][d1:, d1:]) / m
    A = measurements.Dense(rng.standard_normal((3, 2, 2)))
    b = A(np.outer(*rng.standard_normal((2, 2))))
    network = solvers.flat_network(A, b, 4, rng=0, bound="quick")
    dual = solvers.flat_minimum(A, b).certificate.dual
    found = lifted_bound(A, b, dual, network.layers, rng, work=4.1e7)
    return all_of(
        means=at_most(float(depth * np.prod(T) ** (1 / depth)), float(half), depth=depth),
        any_dual=at_most(float(level - negative * np.trace(pair[0]) * np.trace(pair[1])), float(t), depth=depth),
        solver=at_most(found, network.value),
    )


def _multipliers(rng: np.random.Generator, lift: Lift) -> list[np.ndarray]:
    """Random positive semidefinite multipliers of the size of the objective."""
    roots = [rng.standard_normal(image.shape) for image in lift.images(lift.objective)]
    return [float(np.linalg.norm(lift.objective)) / len(root) ** 2 * root @ root.T for root in roots]
