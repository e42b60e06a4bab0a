"""Random instances for the claims, and slow computations from the definitions to compare the package with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import scipy.linalg

from balancedfact.measurements import Dense, MeasurementMap, isometry_constant

_STENCIL = ((-2.0, -1 / 12), (-1.0, 4 / 3), (0.0, -5 / 2), (1.0, 4 / 3), (2.0, -1 / 12))


def sizes(rng: np.random.Generator, count: int, low: int = 2, high: int = 6) -> list[int]:
    """Random sizes from `low` to `high`."""
    return [int(size) for size in rng.integers(low, high + 1, count)]


def low_rank(rng: np.random.Generator, d1: int, d2: int, rank: int) -> np.ndarray:
    """A Gaussian matrix of the given rank."""
    return rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))


def orthonormal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Random orthonormal columns, or rows if there are more columns than rows."""
    Q = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))[0]
    return Q if rows >= columns else Q.T


def definite(rng: np.random.Generator, order: int) -> np.ndarray:
    """A symmetric positive definite matrix with eigenvalues between 1/2 and 2."""
    Q = orthonormal(rng, order, order)
    return (Q * 2.0 ** rng.uniform(-1, 1, order)) @ Q.T


def layers_of(rng: np.random.Generator, widths: list[int]) -> list[np.ndarray]:
    """Gaussian layers of the given widths."""
    return [rng.standard_normal(shape) for shape in zip(widths[1:], widths, strict=False)]


def factorization(rng: np.random.Generator, M: np.ndarray, depth: int, width: int) -> list[np.ndarray]:
    """Random layers that multiply to `M`, all hidden widths equal to `width`, which is at least the rank of `M`."""
    U, s, Vt = np.linalg.svd(M, full_matrices=False)
    rank = min(width, s.size)
    layers = [np.sqrt(s[:rank, None]) * Vt[:rank], *[np.eye(rank)] * (depth - 2), U[:, :rank] * np.sqrt(s[:rank])]
    for j in range(depth - 1):
        up = rng.standard_normal((width, rank))
        layers[j], layers[j + 1] = up @ layers[j], layers[j + 1] @ np.linalg.pinv(up)
    return layers


def product(layers: list[np.ndarray]) -> np.ndarray:
    """``W_L ... W_1``."""
    result = layers[0]
    for layer in layers[1:]:
        result = layer @ result
    return result


def sides(layers: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the products to the left and right of each layer: ``W_L ... W_{j+1}`` and ``W_{j-1} ... W_1``."""
    for j in range(len(layers)):
        right, left = np.eye(layers[0].shape[1]), np.eye(layers[-1].shape[0])
        for layer in layers[:j]:
            right = layer @ right
        for layer in layers[:j:-1]:
            left = left @ layer
        yield left, right


def isotropic(layers: list[np.ndarray]) -> float:
    """``R(W)``, the sum over the layers of ``|C_j|^2 |B_{j-1}|^2``."""
    return float(sum(np.sum(left**2) * np.sum(right**2) for left, right in sides(layers)))


def nuclear(X: np.ndarray) -> float:
    """The sum of the singular values."""
    return float(np.sum(np.linalg.svd(X, compute_uv=False)))


def rescalings(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``D1`` and ``D2`` of the measurements, from the definition."""
    m, d1, d2 = matrices.shape
    return root(sum(A @ A.T for A in matrices) / (m * d2)), root(sum(A.T @ A for A in matrices) / (m * d1))


def root(P: np.ndarray) -> np.ndarray:
    """The square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(P)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def loss(matrices: np.ndarray, b: np.ndarray, X: np.ndarray) -> float:
    """``|A(X) - b|^2``."""
    return float(sum((np.sum(A * X) - entry) ** 2 for A, entry in zip(matrices, b, strict=True)))


def second_derivative(f: Callable[[float], float]) -> float:
    """Second derivative at 0, exact for a polynomial of degree at most five."""
    return sum(weight * f(t) for t, weight in _STENCIL)


def coordinates(arrays: list[np.ndarray]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yield all unit directions in the space of the arrays, each with the index of the array it changes."""
    for which, array in enumerate(arrays):
        for entry in np.ndindex(*array.shape):
            direction = [np.zeros_like(other) for other in arrays]
            direction[which][entry] = 1.0
            yield which, direction


def hessian_traces(f: Callable[[list[np.ndarray]], float], arrays: list[np.ndarray]) -> list[float]:
    """The trace of the Hessian of a polynomial of degree at most five in each entry, for each array apart."""
    traces = [0.0] * len(arrays)
    for which, direction in coordinates(arrays):
        traces[which] += second_derivative(lambda t: f([a + t * e for a, e in zip(arrays, direction, strict=True)]))
    return traces


def hiding(rng: np.random.Generator, shape: tuple[int, int], unseen: int) -> np.ndarray:
    """Matrices that measure only the complement of `unseen` random ones with nearly equal singular values, almost evenly."""
    d1, d2 = shape
    kept = d1 * d2 - unseen
    kernel = [(orthonormal(rng, d1, d2) + 0.05 * rng.standard_normal(shape)).ravel() for _ in range(unseen)]
    basis = np.linalg.qr(np.column_stack([*kernel, rng.standard_normal((d1 * d2, kept))]))[0][:, unseen:]
    return ((orthonormal(rng, kept, kept) * rng.uniform(0.97, 1.03, kept)) @ basis.T).reshape(kept, d1, d2)


def near_isometry(
    rng: np.random.Generator, shape: tuple[int, int], rank: int, below: float, unseen: int
) -> tuple[MeasurementMap, float]:
    """Measurements that leave a few directions unseen, and a proven isometry constant of theirs, less than `below`.

    Should a combination of the unseen matrices be too close to low rank, others are drawn, ever fewer of them.
    """
    for attempt in range(2 * unseen + 20):
        matrices = hiding(rng, shape, max(unseen - attempt // 2, 0))
        enclosure = isometry_constant(Dense(matrices), rank, starts=2, iterations=40, rng=0)
        delta = enclosure.scaled_delta[1] * (1 + 1e-12)
        if delta < below:
            return Dense(np.sqrt(2 / (enclosure.largest[1] + enclosure.smallest[0])) * matrices), delta
    raise RuntimeError(f"no measurements of {shape} matrices with an isometry constant below {below} were found")


def instance(rng: np.random.Generator, rank: int = 2, m: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of this rank and shape at most 4 x 4, and enough Gaussian measurement matrices to see all of it."""
    d1, d2 = (int(d) for d in rng.integers(rank, 5, 2))
    M = rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))
    return M, rng.standard_normal((int(rng.integers(d1 * d2, 2 * d1 * d2)) if m is None else m, d1, d2))


def orbit(rng: np.random.Generator, M: np.ndarray, rank: int, depth: int, spread: float = 0.5) -> list[np.ndarray]:
    """A random factorization of width `rank`: ``G_1 lo, G_j G_(j-1)^-1, hi G_(L-1)^-1``."""
    U, s, Vt = np.linalg.svd(M)
    groups = [scipy.linalg.expm(spread * rng.standard_normal((rank, rank))) for _ in range(depth - 1)]
    return in_other_bases([np.sqrt(s[:rank, None]) * Vt[:rank], U[:, :rank] * np.sqrt(s[:rank])], groups)


def in_other_bases(ends: list[np.ndarray], groups: list[np.ndarray]) -> list[np.ndarray]:
    """The layers ``G_1 lo, G_j G_(j-1)^-1, hi G_(L-1)^-1`` for `ends` ``lo, hi`` and the changes of basis `groups`."""
    lo, hi = ends
    middle = [above @ np.linalg.inv(below) for below, above in itertools.pairwise(groups)]
    return [groups[0] @ lo, *middle, hi @ np.linalg.inv(groups[-1])]
