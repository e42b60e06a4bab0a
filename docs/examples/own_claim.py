"""Claims of one's own: how the flat minimum depends on the units of the data, right and as a quick reader may have it."""

import numpy as np

import balancedfact as bf
from balancedfact.theorems import all_of, claim, equal, fails


def instance(rng):
    d1, d2 = rng.integers(2, 6, 2)
    matrices = rng.standard_normal((d1 * d2 // 2 + 1, d1, d2))
    return matrices, rng.standard_normal(len(matrices)), np.exp(rng.uniform(-3, 3))


@claim("Notes", "Units of the data", "With b in other units, c b, the flat value is |c| times what it was.", kind="exact")
def units_of_the_data(rng):
    matrices, b, c = instance(rng)
    A = bf.measurements.Dense(matrices)
    one, other = bf.flat_minimum(A, b), bf.flat_minimum(A, -c * b)
    return all_of(value=equal(other.value, c * one.value, rtol=1e-6), point=equal(other.matrix, -c * one.matrix, rtol=1e-3))


@claim("Notes", "Units, misread", "The flat value is quadratic in the data, as a sum of squares is.", kind="counterexample")
def units_misread(rng):
    matrices, b, c = instance(rng)
    A = bf.measurements.Dense(matrices)
    return fails(equal(bf.flat_minimum(A, c * b).value, c**2 * bf.flat_minimum(A, b).value, rtol=1e-3))
