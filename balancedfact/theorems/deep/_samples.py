"""Random measurements and random samples: Gatmiry et al. 2023, with the constants that they leave unnamed."""

from __future__ import annotations

import numpy as np

from balancedfact import measurements, solvers
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import low_rank, nuclear, sizes
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal
from balancedfact.theorems.deep._isometry import flattest


@claim(
    "GLCRMJ",
    "Theorem 3",
    "For m Gaussian measurements the error of the flattest solution is O((d_0 + d_L)/m |M|_*^2 log^3 m): "
    "without the logarithm and with the constant 2 it holds as the sizes grow, and not for the least Frobenius norm.",
    kind="empirical",
    page="theory/induced_regularizer",
)
def theorem_3(rng: np.random.Generator) -> Outcome:
    flat, frobenius = [], []
    for d in (6, 10, 14):
        for share in (1, 2, 4):
            M = np.outer(rng.standard_normal(d), rng.standard_normal(d))
            A = measurements.gaussian(min(share * 2 * d, d * d - 1), M.shape, rng)
            b, unit = A(M), 2 * d / A.m * nuclear(M) ** 2
            flat.append(float(np.sum((solvers.flat_minimum(A, b).matrix - M) ** 2)) / unit)
            frobenius.append(float(np.sum((_least_frobenius(A, b) - M) ** 2)) / unit)
    return all_of(flattest=at_most(max(flat), 2.0), beaten=at_most(flat[-1], 0.1 * frobenius[-1]))


def _least_frobenius(A: measurements.MeasurementMap, b: np.ndarray) -> np.ndarray:
    """The solution of least Frobenius norm, from the rows of the map."""
    d1, d2 = A.matrix_shape
    rows = np.array([A.adjoint(unit).ravel() for unit in np.eye(A.m)])
    return np.asarray(np.linalg.lstsq(rows, b, rcond=None)[0].reshape(d1, d2))


@claim(
    "GLCRMJ",
    "Theorem 4",
    "With n Gaussian measurements the solution of least Frobenius norm has the expected squared error "
    "(1 - min(n, d_0 d_L)/(d_0 d_L)) |M|^2: the mean of 300 draws is within five standard errors.",
    kind="empirical",
    page="theory/induced_regularizer",
)
def theorem_4(rng: np.random.Generator) -> Outcome:
    M = rng.standard_normal(sizes(rng, 2, 2, 4))
    n, N, draws = int(rng.integers(1, M.size)), M.size, 300
    errors = []
    for _ in range(draws):
        A = measurements.gaussian(n, M.shape, rng)
        errors.append(np.sum((_least_frobenius(A, A(M)) - M) ** 2) / np.sum(M**2))
    # The relative error is the squared length of a projection of a unit vector: a beta variable.
    deviation = np.sqrt(2 * n * (N - n) / (N**2 * (N + 2)) / draws)
    full = measurements.gaussian(N, M.shape, rng)
    return all_of(
        mean=at_most(abs(float(np.mean(errors)) - (1 - n / N)), 5 * float(deviation), mean=float(np.mean(errors))),
        enough=equal(_least_frobenius(full, full(M)), M, rtol=1e-6),
    )


@claim(
    "GLCRMJ",
    "Theorem 6",
    "A bounded smooth loss of a hypothesis with zero training loss is O(H log^3 n R_n^2 + B log(1/p)/n): for entries of a "
    "matrix and nuclear balls, without the logarithm, the ratio is at most 1 as n grows.",
    kind="empirical",
    page="theory/induced_regularizer",
)
def theorem_6(rng: np.random.Generator) -> Outcome:
    d, ratios = 16, []
    M = np.outer(rng.choice([-1.0, 1.0], d), rng.choice([-1.0, 1.0], d))
    for n in (64, 128, 256, 512):
        entries = rng.integers(d, size=(2, n))
        seen = np.zeros((d, d), dtype=bool)
        seen[tuple(entries)] = True
        complexity = np.mean([_signed_count(rng, entries, d) for _ in range(10)])
        for direction in (-M, rng.standard_normal((d, d)), np.outer(rng.standard_normal(d), rng.standard_normal(d))):
            h = _on_the_sphere(M, np.where(seen, 0.0, direction), 3 * nuclear(M))
            largest = (np.abs(h - M).max() + 1) ** 2
            bound = 2 * (3 * nuclear(M) * complexity) ** 2 + largest * np.log(1 / 0.1) / n
            ratios.append(float(np.mean((h - M) ** 2)) / bound)
    return at_most(max(ratios), 1.0)


def _signed_count(rng: np.random.Generator, entries: np.ndarray, d: int) -> float:
    """``|(1/n) sum eps_i A_i|`` for one draw of the signs: the supremum over the unit nuclear ball, by duality."""
    total = np.zeros((d, d))
    np.add.at(total, tuple(entries), rng.choice([-1.0, 1.0], entries.shape[1]) / entries.shape[1])
    return float(np.linalg.norm(total, 2))


def _on_the_sphere(M: np.ndarray, unseen: np.ndarray, radius: float) -> np.ndarray:
    """``M + t * unseen`` with the nuclear norm `radius`, by bisection; it has the same entries as `M` where `unseen` is 0."""
    if not unseen.any():
        return M
    low, high = 0.0, 2 * radius / nuclear(unseen)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if nuclear(M + middle * unseen) < radius else (low, middle)
    return M + low * unseen


@claim(
    "GLCRMJ",
    "Corollary 1",
    "From n of the order of d_0 + d_L Gaussian measurements, |E|_* of the flattest solution is at most 3 times the least: "
    "n = 3 (d_0 + d_L), growing sizes.",
    kind="empirical",
    page="theory/induced_regularizer",
)
def corollary_1(rng: np.random.Generator) -> Outcome:
    ratios = []
    for d, depth in ((7, 2), (7, 3), (10, 2), (13, 2)):
        A = measurements.gaussian(6 * d, (d, d), rng)
        b = A(low_rank(rng, d, d, d))
        E, least, flat = flattest(A, b, depth, rng)
        ratios.append(nuclear(E) / least if flat.holds else np.nan)
    return all_of(upper=at_most(max(ratios), 3.0), lower=at_least(min(ratios), 1.0, rtol=1e-7))


def _isometry_constants(rng: np.random.Generator, ensemble: str, share: int, rank: int = 1) -> list[float]:
    """Proven constants for ``share * rank * (d_0 + d_L)`` measurements of growing matrices."""
    constants = []
    for d in (3, 4, 5, 6):
        A = getattr(measurements, ensemble)(share * rank * 2 * d, (d, d), rng)
        constants.append(measurements.isometry_constant(A, rank, starts=2, iterations=30, rng=0).delta[1])
    return constants


def _examples(rng: np.random.Generator, ensemble: str) -> Outcome:
    few, many = _isometry_constants(rng, ensemble, 16), _isometry_constants(rng, ensemble, 64)
    rate = at_most(float(np.mean(many)), 0.7 * float(np.mean(few)))
    return all_of(few=at_most(max(few), 0.95), many=at_most(max(many), 0.5), rate=rate)


@claim(
    "GLCRMJ",
    "Example 1",
    "From n >= C(delta) r (d_0 + d_L) on, Gaussian matrices satisfy (r, delta)-RIP: rank one, growing sizes, "
    "n/(d_0 + d_L) = 16 and 64, delta below 0.95 and 0.5.",
    kind="empirical",
    page="theory/isometry",
)
def example_1(rng: np.random.Generator) -> Outcome:
    return _examples(rng, "gaussian")


@claim(
    "GLCRMJ",
    "Example 2",
    "The same for matrices of independent signs.",
    kind="empirical",
    page="theory/isometry",
)
def example_2(rng: np.random.Generator) -> Outcome:
    return _examples(rng, "bernoulli")
