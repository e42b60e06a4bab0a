"""What this package establishes on the flattest deep factorizations of a matrix, and of data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize

import balancedfact as bf
from balancedfact import closed_forms, curvature, manifolds, measurements
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import Outcome, all_of, at_least, at_most, claim, equal

PAGE = "theory/induced_regularizer"


def _instance(rng: np.random.Generator, rank: int = 2, m: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of this rank and shape at most 4 x 4, and enough Gaussian measurement matrices to see all of it."""
    d1, d2 = (int(d) for d in rng.integers(rank, 5, 2))
    M = rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))
    return M, rng.standard_normal((int(rng.integers(d1 * d2, 2 * d1 * d2)) if m is None else m, d1, d2))


def _orbit(rng: np.random.Generator, M: np.ndarray, rank: int, depth: int, spread: float = 0.5) -> list[np.ndarray]:
    """A random factorization of width `rank`: ``G_1 lo, G_j G_(j-1)^-1, hi G_(L-1)^-1``."""
    U, s, Vt = np.linalg.svd(M)
    groups = [scipy.linalg.expm(spread * rng.standard_normal((rank, rank))) for _ in range(depth - 1)]
    return _moved([np.sqrt(s[:rank, None]) * Vt[:rank], U[:, :rank] * np.sqrt(s[:rank])], groups)


def _moved(ends: list[np.ndarray], groups: list[np.ndarray]) -> list[np.ndarray]:
    lo, hi = ends
    middle = [above @ np.linalg.inv(below) for below, above in zip(groups, groups[1:], strict=False)]
    return [groups[0] @ lo, *middle, hi @ np.linalg.inv(groups[-1])]


@claim(
    "New",
    "Width independence, lower bound",
    "The least trace of the Hessian over the factorizations of width rank(M) bounds the trace of all wider ones from below, and "
    "padding attains it.",
    kind="bound",
    page=PAGE,
)
def wider_is_no_flatter(rng: np.random.Generator) -> Outcome:
    M, matrices = _instance(rng)
    depth, extra = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    A = measurements.Dense(matrices)
    least = bf.induced_regularizer(M, A, depth)
    widths = [M.shape[1], *[2 + extra] * (depth - 1), M.shape[0]]
    padded = bf.induced_regularizer(M, A, depth, widths=widths).layers
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
    page=PAGE,
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
    least = bf.induced_regularizer(M, measurements.Dense(matrices), depth).value
    return equal(found, least, rtol=1e-6, depth=depth, width=width)


@claim(
    "New",
    "Stationary factorizations are global minima",
    "From random factorizations of width rank(M) a local search always ends at the same trace of the Hessian, the induced regularizer.",
    kind="exact",
    page=PAGE,
)
def stationary_is_global(rng: np.random.Generator) -> Outcome:
    M, matrices = _instance(rng)
    depth = int(rng.integers(2, 5))
    U, s, Vt = np.linalg.svd(M)
    lo, hi = np.sqrt(s[:2, None]) * Vt[:2], U[:, :2] * np.sqrt(s[:2])

    def layers_of(theta: Any, anp: Any) -> list[Any]:
        groups = [anp.reshape(theta[4 * j : 4 * j + 4], (2, 2)) for j in range(depth - 1)]
        middle = [anp.dot(above, anp.linalg.inv(below)) for below, above in zip(groups, groups[1:], strict=False)]
        return [anp.dot(groups[0], lo), *middle, anp.dot(hi, anp.linalg.inv(groups[-1]))]

    ends = []
    for _ in range(2):
        start = [scipy.linalg.expm(0.7 * rng.standard_normal((2, 2))).ravel() for _ in range(depth - 1)]
        ends.append(_searched(layers_of, np.concatenate(start), matrices))
    least = bf.induced_regularizer(M, measurements.Dense(matrices), depth).value
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
    "Along the geodesics P_j(t) = G_j' exp(t H_j) G_j of the product of positive-definite cones the trace of the Hessian and its "
    "logarithm are convex.",
    kind="bound",
    page=PAGE,
)
def geodesic_convexity(rng: np.random.Generator) -> Outcome:
    M, matrices = _instance(rng, rank=int(rng.integers(1, 4)))
    rank, depth = int(np.linalg.matrix_rank(M)), int(rng.integers(2, 6))
    A = measurements.Dense(matrices)
    U, s, Vt = np.linalg.svd(M)
    ends = [np.sqrt(s[:rank, None]) * Vt[:rank], U[:, :rank] * np.sqrt(s[:rank])]
    groups = [scipy.linalg.expm(0.5 * rng.standard_normal((rank, rank))) for _ in range(depth - 1)]
    turns = [_symmetric(rng.standard_normal((rank, rank))) for _ in groups]

    def value(t: float) -> float:
        return curvature.trace(_moved(ends, [scipy.linalg.expm(t / 2 * H) @ G for H, G in zip(turns, groups, strict=True)]), A)

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
    "At any factorization of width rank(M), sum_j ((L-j) tr(grad_j)_+ + j tr(grad_j)_-) bounds how far its trace is above the least.",
    kind="bound",
    page=PAGE,
)
def certificate(rng: np.random.Generator) -> Outcome:
    M, matrices = _instance(rng, rank=int(rng.integers(1, 4)))
    rank, depth = int(np.linalg.matrix_rank(M)), int(rng.integers(2, 5))
    A = measurements.Dense(matrices)
    solved = bf.induced_regularizer(M, A, depth)
    parts: dict[str, Outcome] = {"solver": at_most(solved.value - solved.certificate.lower_bound, 1e-10 * solved.value)}
    for name, spread in (("near", 1e-2), ("far", 0.5)):
        turns = [scipy.linalg.expm(spread * rng.standard_normal((rank, rank))) for _ in range(depth - 1)]
        inverses = [np.eye(M.shape[1]), *(np.linalg.inv(G) for G in turns)]
        best = zip([*turns, np.eye(M.shape[0])], solved.layers, inverses, strict=True)
        layers = [G @ W @ inverse for G, W, inverse in best]
        terms = [
            [naive.before(layers, j - 1) @ P.T @ naive.after(layers, j) for P in matrices] for j in range(1, depth + 1)
        ]
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
    page=PAGE,
)
def homogeneity(rng: np.random.Generator) -> Outcome:
    M, matrices = _instance(rng)
    depth, c = int(rng.integers(2, 7)), -float(np.exp(rng.uniform(-5, 5)))
    A = measurements.Dense(matrices)
    value, slope = bf.induced_regularizer_gradient(M, A, depth)
    return all_of(
        scaled=equal(bf.induced_regularizer(c * M, A, depth).value, abs(c) ** (2 - 2 / depth) * value, depth=depth),
        euler=equal(np.sum(slope * M), (2 - 2 / depth) * value),
    )


@claim(
    "New",
    "Gradient of the induced regularizer",
    "Along matrices of constant rank F is differentiable, with the gradient that holding the minimising P fixed gives.",
    kind="exact",
    page=PAGE,
)
def induced_gradient(rng: np.random.Generator) -> Outcome:
    d1, d2 = (int(d) for d in rng.integers(2, 5, 2))
    left, right, U, V = (rng.standard_normal((d, 2)) for d in (d1, d2, d1, d2))
    matrices, depth, h = rng.standard_normal((2 * d1 * d2, d1, d2)), int(rng.integers(2, 5)), 1e-3
    A = measurements.Dense(matrices)
    _, slope = bf.induced_regularizer_gradient(left @ right.T, A, depth)
    # A central difference of fourth order; the logarithm, since values vary over many sizes.
    f = {t: bf.induced_regularizer((left + t * h * U) @ (right + t * h * V).T, A, depth).value for t in (-2, -1, 1, 2)}
    difference = (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * h)
    moved = U @ right.T + left @ V.T
    return equal(np.sum(slope * moved), difference, rtol=1e-6, scale=float(np.linalg.norm(slope) * np.linalg.norm(moved)))


@claim(
    "New",
    "Two layers",
    "At depth two F(M) = 4|D M D'|_* with D^2 = (1/m) sum A_i A_i' and D'^2 = (1/m) sum A_i'A_i.",
    kind="exact",
    page="theory/deep_closed_forms",
)
def two_layers(rng: np.random.Generator) -> Outcome:
    M, matrices = _instance(rng, rank=int(rng.integers(1, 4)))
    A = measurements.Dense(matrices)
    D = scipy.linalg.sqrtm(sum(P @ P.T for P in matrices) / len(matrices)).real
    E = scipy.linalg.sqrtm(sum(P.T @ P for P in matrices) / len(matrices)).real
    value = 4 * np.linalg.norm(D @ M @ E, "nuc")
    solved = bf.induced_regularizer(M, A, 2)
    return all_of(
        solver=equal(solved.value, value),
        closed=equal(closed_forms.two_layer_minimum(M, A), value),
        layers=equal(naive.trace(solved.layers, matrices), value),
    )


@claim(
    "New",
    "One measurement",
    "For one measurement F(M) = 2L|(A'M)^(L-1) A'|_(S_2/L)^(2/L), which bounds the trace of every factorization from below.",
    kind="exact",
    page="theory/deep_closed_forms",
)
def one_measurement(rng: np.random.Generator) -> Outcome:
    d, depth = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    M, A1 = rng.standard_normal((2, d, d))
    power = np.linalg.matrix_power(A1.T @ M, depth - 1) @ A1.T
    value = 2 * depth * float(np.sum(np.linalg.svd(power, compute_uv=False) ** (2 / depth)))
    solved = bf.induced_regularizer(M, measurements.Dense(A1[None]), depth)
    return all_of(
        closed=equal(closed_forms.single_measurement_minimum(M, A1, depth), value, rtol=1e-6, depth=depth),
        solver=equal(solved.value, value, rtol=1e-6),
        bound=at_least(naive.trace(_orbit(rng, M, d, depth), A1[None]), value, rtol=1e-6),
    )


@claim(
    "New",
    "Separated sides of any shape",
    "For X and Y of any shape with rank(XMY) = rank(M) the least sum_j |X C_j|^2 |B_(j-1) Y|^2 is L(|X||Y|)^(2/L) |XMY|_*^(2-2/L).",
    kind="exact",
    page="theory/deep_closed_forms",
)
def separated_sides(rng: np.random.Generator) -> Outcome:
    d1, d2, rank, depth = int(rng.integers(2, 5)), int(rng.integers(2, 5)), int(rng.integers(1, 3)), int(rng.integers(2, 6))
    M = rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))
    X, Y = rng.standard_normal((int(rng.integers(rank, 6)), d1)), rng.standard_normal((d2, int(rng.integers(rank, 6))))
    sizes = np.linalg.norm(X) * np.linalg.norm(Y)
    value = depth * sizes ** (2 / depth) * np.linalg.norm(X @ M @ Y, "nuc") ** (2 - 2 / depth)

    def cost(layers: list[np.ndarray]) -> float:
        sides = ((X @ naive.after(layers, j), naive.before(layers, j - 1) @ Y) for j in range(1, depth + 1))
        return float(sum(np.sum(left**2) * np.sum(right**2) for left, right in sides))

    best = closed_forms.kronecker_layers(M, X, Y, [d2, *(rank + rng.integers(0, 3, depth - 1)), d1])
    return all_of(
        formula=equal(closed_forms.kronecker_minimum(M, X, Y, depth), value, depth=depth),
        attained=equal(cost(best), value),
        product=equal(naive.product(best), M),
        bound=at_least(cost(_orbit(rng, M, rank, depth)), value),
    )


@claim(
    "New",
    "Flattest deep network, lower bound",
    "For any y, no network of depth L that fits has a trace below (2L/m)(b'y)^(2-2/L) |y|^(4/L-2) (sum_k t_k^(2/(L-2)))^(2/L-1), t the "
    "singular values of (sum A_i A_i')^(-1/2) A*(y) (sum A_i'A_i)^(-1/2): no isometry is needed.",
    kind="bound",
    page=PAGE,
)
def multiplier_bound(rng: np.random.Generator) -> Outcome:
    M, matrices = _instance(rng, m=int(rng.integers(1, 5)))
    depth, m = int(rng.integers(3, 5)), len(matrices)
    A, b = measurements.Dense(matrices), np.array([np.sum(P * M) for P in matrices])
    left, right = sum(P @ P.T for P in matrices), sum(P.T @ P for P in matrices)

    def bound(y: np.ndarray) -> float:
        if b @ y <= 0:
            return 0.0
        weights = [_inverse_root(left), np.tensordot(y, matrices, 1), _inverse_root(right)]
        t = np.linalg.svd(weights[0] @ weights[1] @ weights[2], compute_uv=False)
        size = np.sum(t ** (2 / (depth - 2))) ** (1 - 2 / depth) * np.linalg.norm(y) ** (2 - 4 / depth)
        return float(2 * depth / m * (b @ y) ** (2 - 2 / depth) / size)

    solved = bf.flat_minimum(A, b, depth, rng=rng)
    fitting = [naive.trace(_orbit(rng, M, 2, depth, spread), matrices) for spread in (0.1, 0.5)]
    best = max(bound(y) for y in [b, *rng.standard_normal((20, m))])
    return all_of(
        any_vector=at_most(best, min(solved.value, *fitting), depth=depth, m=m),
        solver=at_most(solved.certificate.lower_bound, min(naive.trace(solved.layers, matrices), *fitting)),
        dual=equal(solved.certificate.lower_bound, bound(solved.certificate.dual), rtol=1e-4),
    )


def _inverse_root(square: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(square)
    keep = values > 1e-12 * values[-1]
    return vectors[:, keep] / np.sqrt(values[keep]) @ vectors[:, keep].T


@claim(
    "New",
    "Trace between the isometry constants",
    "At every network the trace of the Hessian is between 2 s R(W) and 2 l R(W), with s and l the extremes of |A(X)|^2/(m|X|^2) "
    "over matrices of rank one.",
    kind="bound",
    page="theory/isometry",
)
def between_isometry_constants(rng: np.random.Generator) -> Outcome:
    widths = [int(d) for d in rng.integers(2, 4, rng.integers(3, 5))]
    matrices = rng.standard_normal((int(rng.integers(4, 30)), widths[-1], widths[0]))
    enclosure = measurements.isometry_constant(measurements.Dense(matrices), 1, starts=2, iterations=30, rng=rng)
    layers = naive.gaussian_layers(rng, widths)
    sizes = [np.sum(naive.after(layers, j) ** 2) * np.sum(naive.before(layers, j - 1) ** 2) for j in range(1, len(widths))]
    found, R = naive.trace(layers, matrices), float(sum(sizes))
    return all_of(
        lower=at_least(found, 2 * enclosure.smallest[0] * R),
        upper=at_most(found, 2 * enclosure.largest[1] * R),
        surrogate=equal(curvature.isotropic_trace(layers), R),
    )


@claim(
    "New",
    "Factorizations of least rank are one orbit",
    "Two factorizations whose hidden widths are rank(M) differ by invertible changes of basis of the hidden spaces, and form a "
    "manifold of dimension rank(M)^2 for each hidden layer.",
    kind="exact",
    page="theory/deep_manifolds",
)
def one_orbit(rng: np.random.Generator) -> Outcome:
    M, _ = _instance(rng)
    depth = int(rng.integers(2, 5))
    manifold = manifolds.Factorizations(M, [M.shape[1], *[2] * (depth - 1), M.shape[0]], rng=rng)
    first, second = manifold.random_point(), _orbit(rng, M, 2, depth)
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
