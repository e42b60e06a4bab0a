"""Flat, balanced and norm-minimal pairs: the statements of Ding et al. 2022 and of the course report."""

from __future__ import annotations

import numpy as np

from balancedfact import closed_forms, curvature, measurements
from balancedfact.theorems._claim import Outcome, claim, equal


@claim(
    "DDF",
    "Flat value of a matrix",
    "Among the pairs with product X the least scaled trace is 4m |D1 X D2|_*, attained by the flat pair.",
    kind="exact",
    page="theory/two_factors",
)
def flat_value(rng: np.random.Generator) -> Outcome:
    d1, d2, k = rng.integers(2, 7, 3)
    A = measurements.gaussian(int(d1 * d2), (int(d1), int(d2)), rng)
    X = rng.standard_normal((d1, k)) @ rng.standard_normal((k, d2))
    L, R = closed_forms.flat_pair(X, A)
    return equal(curvature.scaled_trace(L, R, A), 4 * A.m * np.linalg.norm(A.D1 @ X @ A.D2, "nuc"))
