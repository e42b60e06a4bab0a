"""The bound from weighted isometries on the trace of every network that fits."""

from __future__ import annotations

import numpy as np

from balancedfact import curvature, measurements, solvers
from balancedfact.solvers.deep._weighted_isometry import weighted_isometry_bound
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import Outcome, all_of, at_most, claim
from balancedfact.theorems._draw import orbit


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

    found = weighted_isometry_bound(A, b, solution, solution, depth, work=3e7)
    return all_of(any_weights=at_most(float(bound), least, depth=depth), solver=at_most(found, least, depth=depth))
