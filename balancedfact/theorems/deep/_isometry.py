"""Measurements that nearly preserve the norms of low-rank matrices: Gatmiry et al. 2023 for deep networks."""

from __future__ import annotations

import numpy as np

from balancedfact import closed_forms, curvature, measurements, solvers
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import isotropic, layers_of, low_rank, near_isometry, nuclear, root, sides, sizes
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal, fails


def _isometry(rng: np.random.Generator, below: float = 0.5) -> tuple[measurements.MeasurementMap, float]:
    """A map with a proven ``(1, delta)`` restricted isometry property."""
    d1, d2 = sizes(rng, 2, 3, 5)
    return near_isometry(rng, (d1, d2), 1, below, unseen=1 if below < 0.4 else 2)


def _nuclear_form(M: np.ndarray, depth: int) -> float:
    """``L (d_0 d_L)^(1/L) |M|_*^(2 - 2/L)``, the least isotropic trace."""
    return float(depth * (M.shape[0] * M.shape[1]) ** (1 / depth) * nuclear(M) ** (2 - 2 / depth))


def _within(value: float, centre: float, delta: float) -> Outcome:
    return all_of(lower=at_least(value, (1 - delta) * centre), upper=at_most(value, (1 + delta) * centre, delta=delta))


@claim(
    "GLCRMJ",
    "Lemma 3",
    "Under (1, delta)-RIP the trace of the Hessian lies between 2 (1 - delta) R(W) and 2 (1 + delta) R(W).",
    kind="bound",
    page="theory/induced_regularizer",
)
def lemma_3(rng: np.random.Generator) -> Outcome:
    A, delta = _isometry(rng)
    layers = layers_of(rng, [A.matrix_shape[1], *sizes(rng, 2, 1, 5), A.matrix_shape[0]])
    return _within(curvature.trace(layers, A), 2 * isotropic(layers), delta)


@claim(
    "GLCRMJ",
    "Lemma 3, as printed",
    "The bounds are printed without the factor 2; below delta = 1/3 the upper one fails for every network.",
    kind="counterexample",
    page="theory/induced_regularizer",
)
def lemma_3_printed(rng: np.random.Generator) -> Outcome:
    A, delta = _isometry(rng, below=0.32)
    layers = layers_of(rng, [A.matrix_shape[1], *sizes(rng, 2, 1, 5), A.matrix_shape[0]])
    return fails(_within(curvature.trace(layers, A), isotropic(layers), delta))


@claim(
    "GLCRMJ",
    "Appendix A, Equations 28 and 29, as printed",
    "d_0 and d_L are swapped against Equation 10: (1/n) sum |A_i^T W_L..W_2|^2 is near d_0 |W_L..W_2|^2, not d_L times it.",
    kind="counterexample",
    page="theory/induced_regularizer",
)
def appendix_a_printed(rng: np.random.Generator) -> Outcome:
    shape = (3, int(rng.integers(7, 9))) if rng.integers(2) else (int(rng.integers(7, 9)), 3)
    A, delta = near_isometry(rng, shape, 1, 0.32, unseen=1)
    layers = layers_of(rng, [shape[1], *sizes(rng, 2, 1, 5), shape[0]])
    (left, _), *_, (_, right) = sides(layers)
    first = float(np.trace(left.T @ A.left_moment(np.eye(shape[1])) @ left)) / A.m
    last = float(np.trace(right @ A.right_moment(np.eye(shape[0])) @ right.T)) / A.m
    norms = float(np.sum(left**2)), float(np.sum(right**2))
    return all_of(
        first=_within(first, shape[1] * norms[0], delta),
        last=_within(last, shape[0] * norms[1], delta),
        printed_first=fails(_within(first, shape[0] * norms[0], delta)),
        printed_last=fails(_within(last, shape[1] * norms[1], delta)),
    )


@claim(
    "GLCRMJ",
    "Lemma 5",
    "Under (2, delta)-RIP, |(1/n) sum <A_i, M>^2 - |M|^2| <= 2 delta |M|_*^2 for every M.",
    kind="bound",
    page="theory/isometry",
)
def lemma_5(rng: np.random.Generator) -> Outcome:
    A, delta = near_isometry(rng, (4, int(rng.integers(4, 6))), 2, 0.9, unseen=1)
    _, _, Vt = np.linalg.svd(np.array([A(unit.reshape(A.matrix_shape)) for unit in np.eye(4 * A.matrix_shape[1])]).T)
    worst = Vt[-1].reshape(A.matrix_shape)  # of full rank: the RIP says nothing about it directly
    M = worst + rng.uniform() * rng.standard_normal(A.matrix_shape) / 4
    deviation = abs(np.sum(A(M) ** 2) / A.m - np.sum(M**2))
    return at_most(deviation, 2 * delta * nuclear(M) ** 2, delta=delta)


@claim(
    "GLCRMJ",
    "Theorem 1, induced regularizer",
    "Under (1, delta)-RIP, F(M) is 2L (d_0 d_L)^(1/L) |M|_*^(2 - 2/L) up to the factors 1 - delta and 1 + delta.",
    kind="bound",
    page="theory/induced_regularizer",
)
def theorem_1(rng: np.random.Generator) -> Outcome:
    A, delta = _isometry(rng)
    depth, M = int(rng.integers(2, 6)), low_rank(rng, *A.matrix_shape, int(rng.integers(1, 4)))
    found = solvers.induced_regularizer(M, A, depth)
    return all_of(
        bounds=_within(found.value, 2 * _nuclear_form(M, depth), delta),
        attained=equal(curvature.trace(found.layers, A), found.value),
    )


@claim(
    "GLCRMJ",
    "Theorem 1, induced regularizer, as printed",
    "The bounds on F(M) are printed without the factor 2; below delta = 1/3 the upper one fails for every matrix.",
    kind="counterexample",
    page="theory/induced_regularizer",
)
def theorem_1_printed(rng: np.random.Generator) -> Outcome:
    A, delta = _isometry(rng, below=0.32)
    depth, M = int(rng.integers(2, 6)), low_rank(rng, *A.matrix_shape, int(rng.integers(1, 4)))
    return fails(_within(solvers.induced_regularizer(M, A, depth).value, _nuclear_form(M, depth), delta))


def flattest(
    A: measurements.MeasurementMap, b: np.ndarray, depth: int, rng: np.random.Generator
) -> tuple[np.ndarray, float, Outcome]:
    """The product of a flattest network, the least nuclear norm of a solution, and what the theorem uses of flatness.

    The proofs compare a flattest network with one network only, the flattest on the solution of least nuclear norm.
    """
    flattest, least = solvers.flat_minimum(A, b, depth, rng=rng), solvers.norm_minimum(A, b)
    compared = solvers.induced_regularizer(least.matrix, A, depth).value
    trace = curvature.trace(flattest.layers, A) if depth > 2 else solvers.induced_regularizer(flattest.matrix, A, 2).value
    return flattest.matrix, least.certificate.lower_bound / 2, at_most(trace, compared, rtol=1e-7)


@claim(
    "GLCRMJ",
    "Theorem 1, nuclear norm",
    "Under (1, delta)-RIP the flattest E has |E|_* <= ((1 + delta)/(1 - delta))^(L/(2(L - 1))) times the least nuclear norm, "
    "hence the printed (1 + delta)/(1 - delta).",
    kind="bound",
    page="theory/induced_regularizer",
)
def theorem_1_nuclear(rng: np.random.Generator) -> Outcome:
    A, delta = _isometry(rng)
    depth = int(rng.integers(2, 4))
    E, least, flat = flattest(A, A(rng.standard_normal(A.matrix_shape)), depth, rng)
    ratio, exponent = (1 + delta) / (1 - delta), depth / (2 * (depth - 1))
    return all_of(
        flat=flat,
        proof=at_most(nuclear(E), ratio**exponent * least, rtol=1e-7, depth=depth, unseen=E.size - A.m),
        printed=at_most(nuclear(E), ratio * least, rtol=1e-7, delta=delta),
    )


@claim(
    "GLCRMJ",
    "Theorem 2",
    "Under (2, delta)-RIP and b = A(M), the flattest E has |E - M|^2 <= 8 delta / (1 - delta)^2 |M|_*^2.",
    kind="bound",
    page="theory/induced_regularizer",
)
def theorem_2(rng: np.random.Generator) -> Outcome:
    A, delta = near_isometry(rng, (4, int(rng.integers(4, 6))), 2, 0.9, unseen=1)
    M = rng.standard_normal(A.matrix_shape)
    E, _, flat = flattest(A, A(M), int(rng.integers(2, 4)), rng)
    bound = 8 * delta / (1 - delta) ** 2 * nuclear(M) ** 2
    return all_of(flat=flat, error=at_most(float(np.sum((E - M) ** 2)), bound, delta=delta, unseen=E.size - A.m))


@claim(
    "GLCRMJ",
    "Corollary 1, proven isometry",
    "Under (1, 1/2)-RIP, |E|_* of the flattest solution is at most 3 times the least nuclear norm of a solution.",
    kind="bound",
    page="theory/induced_regularizer",
)
def corollary_1_isometry(rng: np.random.Generator) -> Outcome:
    A, delta = _isometry(rng, below=0.5)
    E, least, flat = flattest(A, A(rng.standard_normal(A.matrix_shape)), 2, rng)
    return all_of(
        flat=flat,
        upper=at_most(nuclear(E), 3 * least, delta=delta),
        lower=at_least(nuclear(E), least, rtol=1e-7),
    )


def _table_1(rng: np.random.Generator, factor: float) -> dict[str, Outcome]:
    """Its three rows, `F(M)/L` against what is printed times a factor."""
    A, delta = _isometry(rng, below=0.32)
    depth, M = int(rng.integers(2, 6)), low_rank(rng, *A.matrix_shape, int(rng.integers(1, 4)))
    regularizer = solvers.induced_regularizer
    left = root(A.left_moment(np.eye(M.shape[1])) / A.m)
    two = nuclear(left @ M @ root(A.right_moment(np.eye(M.shape[0])) / A.m))
    A1, M1 = rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    power = np.linalg.svd(np.linalg.matrix_power(A1.T @ M1, depth - 1) @ A1.T, compute_uv=False)
    one = regularizer(M1, measurements.Dense(A1[None]), depth).value / depth
    return {
        "isometry": _within(regularizer(M, A, depth).value / depth, factor * _nuclear_form(M, depth) / depth, delta),
        "two_layers": equal(regularizer(M, A, 2).value / 2, factor * two),
        "one_measurement": equal(one, factor * float(np.sum(power ** (2 / depth))), rtol=1e-5),
        "closed_form": equal(closed_forms.two_layer_minimum(M, A) / 2, factor * two),
    }


@claim(
    "GLCRMJ",
    "Table 1",
    "F(M)/L in the three settings, RIP, two layers and a single measurement, is twice what the table prints.",
    kind="exact",
    page="theory/induced_regularizer",
)
def table_1(rng: np.random.Generator) -> Outcome:
    return all_of(**_table_1(rng, 2.0))


@claim(
    "GLCRMJ",
    "Table 1, as printed",
    "F(M)/L in the three settings as printed, without the factor 2.",
    kind="counterexample",
    page="theory/induced_regularizer",
)
def table_1_printed(rng: np.random.Generator) -> Outcome:
    return all_of(**{row: fails(outcome) for row, outcome in _table_1(rng, 1.0).items()})
