"""Singular values of a product in decimal arithmetic."""

from decimal import Decimal, localcontext

import numpy as np


def exact_log2_singular_values(factors):
    """Base-2 logarithms for ``factors[-1] @ ... @ factors[0]`` from the formed product, by one-sided Jacobi rotations."""
    spread = sum(min(np.log10(np.linalg.cond(factor)), 16) for factor in factors)
    with localcontext() as context:
        context.prec = 60 + int(1.2 * spread)
        product = as_decimals(factors[0])
        for factor in factors[1:]:
            product = times(as_decimals(factor), product)
        columns = orthogonalised([list(column) for column in zip(*product, strict=True)])
        squares = sorted((dot(column, column) for column in columns), reverse=True)
        return np.array([float(square.ln() / Decimal(2).ln() / 2) for square in squares])


def as_decimals(X):
    return [[Decimal(float(value)) for value in row] for row in X]


def dot(u, v):
    return sum(a * b for a, b in zip(u, v, strict=True))


def times(X, Y):
    columns = list(zip(*Y, strict=True))
    return [[dot(row, column) for column in columns] for row in X]


def orthogonalised(columns):
    """The columns times a rotation, orthogonal to 15 digits; they must be linearly independent."""
    for _ in range(40):
        rotated = False
        for p in range(len(columns)):
            for q in range(p + 1, len(columns)):
                u, v = columns[p], columns[q]
                a, b, c = dot(u, u), dot(v, v), dot(u, v)
                if c * c <= a * b * Decimal(10) ** -30:
                    continue
                rotated = True
                z = (b - a) / (2 * c)
                t = (1 if z >= 0 else -1) / (abs(z) + (1 + z * z).sqrt())
                cosine = 1 / (1 + t * t).sqrt()
                columns[p] = [cosine * (x - t * y) for x, y in zip(u, v, strict=True)]
                columns[q] = [cosine * (t * x + y) for x, y in zip(u, v, strict=True)]
        if not rotated:
            return columns
    raise AssertionError("the rotations did not converge")
