"""Small measurement maps, often degenerate, each with the list of its matrices."""

import numpy as np
from hypothesis import strategies as st

from balancedfact.measurements import Dense, Entries, MeasurementMap, RankOne
from balancedfact.measurements._base import Congruence, Selected


class Minimal(MeasurementMap):
    """A map with the four methods that a subclass must supply, and nothing else."""

    def __init__(self, matrices):
        self.matrices = np.array(matrices)
        self.m = len(self.matrices)
        self.matrix_shape = self.matrices.shape[1:]

    def _forward(self, X):
        return np.einsum("ipq,pq->i", self.matrices, X)

    def _adjoint(self, y):
        return np.einsum("i,ipq->pq", y, self.matrices)

    def _left_moment(self, P):
        return np.einsum("ipq,qr,isr->ps", self.matrices, P, self.matrices)

    def _right_moment(self, Q):
        return np.einsum("iqp,qr,irs->ps", self.matrices, Q, self.matrices)


def dense(rng, d1, d2, m, edge, scale=1.0):
    matrices = scale * rng.standard_normal((m, d1, d2))
    if edge == "zero":
        matrices[:] = 0
    elif edge == "repeated":
        matrices[:] = matrices[0]
    elif edge == "unseen":  # a common null space on either side
        u, v = rng.standard_normal(d1), rng.standard_normal(d2)
        matrices = matrices - np.einsum("p,r,irq->ipq", u, u, matrices) / (u @ u)
        matrices = matrices - np.einsum("ipr,r,q->ipq", matrices, v, v) / (v @ v)
    elif edge == "sparse":
        matrices = matrices * (rng.random(matrices.shape) < 0.2)
    return Dense(matrices), list(matrices)


def rank_one(rng, d1, d2, m, edge, scale=1.0):
    left, right = scale * rng.standard_normal((m, d1)), rng.standard_normal((m, d2))
    if edge == "zero":
        left[:] = 0
    elif edge == "repeated":
        right[:] = right[0]
    elif edge == "unseen":
        left[:, 0], right[:, -1] = 0, 0
    elif edge == "sparse":
        left[0], right[-1] = 0, 0
    return RankOne(left, right), [np.outer(u, v) for u, v in zip(left, right, strict=True)]


def entries(rng, d1, d2, m, edge, scale=1.0):
    rows, cols = rng.integers(0, d1, m), rng.integers(0, d2, m)
    weights = scale * rng.standard_normal(m)
    if edge == "zero":
        weights[:] = 0
    elif edge == "repeated":
        rows[:], cols[:] = rows[0], cols[0]
    elif edge == "unseen":
        rows[:] = d1 - 1
    elif edge == "sparse":
        weights[::2] = 0
    matrices = []
    for row, col, weight in zip(rows, cols, weights, strict=True):
        matrix = np.zeros((d1, d2))
        matrix[row, col] = weight
        matrices.append(matrix)
    return Entries(rows, cols, (d1, d2), weights), matrices


def minimal(rng, d1, d2, m, edge):
    _, matrices = dense(rng, d1, d2, m, edge)
    return Minimal(matrices), matrices


def congruence(rng, d1, d2, m, edge):
    inner, matrices = minimal(rng, 3, 4, m, edge)
    P, Q = rng.standard_normal((3, d1)), rng.standard_normal((4, d2))
    return Congruence(inner, P, Q), [P.T @ A @ Q for A in matrices]


def selected(rng, d1, d2, m, edge):
    inner, matrices = minimal(rng, d1, d2, m, edge)
    index, weights = rng.integers(0, m, m), rng.standard_normal(m)
    return Selected(inner, index, weights), [w * matrices[i] for i, w in zip(index, weights, strict=True)]


BUILT_IN = {"dense": dense, "rank_one": rank_one, "entries": entries}
DERIVED = {"minimal": minimal, "congruence": congruence, "selected": selected}
EDGES = ("none", "zero", "repeated", "unseen", "sparse")


@st.composite
def cases(draw, *builders, largest=5, most=7, edges=EDGES):
    """Draw ``(map, matrices, generator)``."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    d1, d2 = draw(st.integers(1, largest), label="d1"), draw(st.integers(1, largest), label="d2")
    m, edge = draw(st.integers(1, most), label="m"), draw(st.sampled_from(edges), label="edge")
    return *draw(st.sampled_from(builders))(rng, d1, d2, m, edge), rng
