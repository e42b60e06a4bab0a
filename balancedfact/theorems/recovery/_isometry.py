"""Isometry constants, enclosed from both sides."""

from __future__ import annotations

import numpy as np

from balancedfact import measurements
from balancedfact.theorems._claim import claim
from balancedfact.theorems._outcome import Outcome, all_of, at_most, equal


@claim(
    "New",
    "Isometry enclosure",
    "The semidefinite relaxation bounds |A(X)|^2/(m|X|^2) over all matrices of a rank, and is exact for rank one and "
    "matrices with two rows or columns.",
    kind="bound",
    page="theory/isometry",
)
def isometry_enclosure(rng: np.random.Generator) -> Outcome:
    d1, d2, rank = 2, int(rng.integers(2, 4)), 1
    if rng.uniform() < 0.5:
        d1, d2, rank = 3, 3, int(rng.integers(1, 3))
    matrices = rng.standard_normal((int(rng.integers(2, 15)), d1, d2))
    T = sum(np.outer(P, P) for P in matrices) / len(matrices)
    enclosure = measurements.isometry_constant(measurements.Dense(matrices), rank, starts=5, rng=rng)
    values = []
    for sign in (1, -1):
        for _ in range(5):
            # Alternate between the two sides: with U orthonormal the form in V is a Rayleigh quotient.
            V = rng.standard_normal((d2, rank))
            for turn in range(60):
                basis = np.linalg.qr(V)[0]
                lifted = np.kron(np.eye(d1), basis) if turn % 2 == 0 else np.kron(basis, np.eye(d2))
                vector = lifted @ np.linalg.eigh(sign * lifted.T @ T @ lifted)[1][:, -1]
                X = vector.reshape(d1, d2)
                U, _, Vt = np.linalg.svd(X)
                V = U[:, :rank] if turn % 2 == 0 else Vt[:rank].T
            values.append(float(vector @ T @ vector))
    parts = {
        "largest": at_most(max(values), enclosure.largest[1], rank=rank),
        # The difference to the largest value has the rounding of a form whose smallest value may be zero.
        "smallest": at_most(max(values) - min(values), max(values) - enclosure.smallest[0]),
    }
    if rank == 1 and d1 == 2:
        ends = [enclosure.smallest, enclosure.largest]
        parts["exact"] = equal([low for low, _ in ends], [high for _, high in ends], rtol=1e-3, scale=enclosure.largest[1])
    return all_of(**parts)
