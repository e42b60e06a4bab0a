r"""The geodesically convex problem behind the induced regularizer: a chain of positive-definite matrices.

For positive-definite ``r x r`` matrices :math:`P_1, \dots, P_N`, :math:`N = L - 1`,

.. math:: f(P) = \operatorname{tr}(P_1^{-1} S) + \sum_{j=2}^{N} \sum_i \operatorname{tr}(P_{j-1} K_i P_j^{-1} K_i^\top)
          + \operatorname{tr}(P_N T).

Along every geodesic of the product of positive-definite cones each term is a sum of exponentials with positive weights, so `f`
and its logarithm are geodesically convex. A point carries factors ``P_j = G_j.T @ G_j``, and everything is expressed in the
frame that they define, where the geodesics are ``G_j.T @ expm(t * H_j) @ G_j`` with symmetric `H_j`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from balancedfact._memory import ENTRIES_AT_ONCE
from balancedfact._packing import Packing
from balancedfact.measurements import MeasurementMap

# How often the coupling is applied per layer in a typical solve, which decides how it is stored.
_TYPICAL_USES = 100
# Multiplications per Newton step up to which factoring its matrix is as fast as conjugate gradients, and is affordable.
_QUICKLY_FACTORED, _AFFORDABLE = 1e6, 1e9


class Coupling(Protocol):
    r"""The matrices `K_i` between neighbours, in a form that suits their number."""

    def framed(self, G: np.ndarray, inverse: np.ndarray) -> Framed:
        """The coupling by the matrices ``G_j @ K_i @ inverse_j``, for stacks `G` and `inverse`."""


class Framed(Protocol):
    """The coupling in the bases (`G_j`, `inverse_j`) of one iterate."""

    def forward(self, H: np.ndarray) -> np.ndarray:
        """The matrices ``sum_i K_i @ H_j @ K_i.T``, shape ``(n, r, r)``."""

    def backward(self, H: np.ndarray) -> np.ndarray:
        """The matrices ``sum_i K_i.T @ H_j @ K_i``, shape ``(n, r, r)``."""


class FewMatrices:
    """The matrices `K_i` themselves, at most ``r**2`` of them; nothing is squared before it stands in its frame."""

    def __init__(self, stack: np.ndarray) -> None:
        self.stack = stack

    def framed(self, G: np.ndarray, inverse: np.ndarray) -> FramedMatrices:
        return FramedMatrices(G[:, None] @ self.stack @ inverse[:, None])


class FramedMatrices:
    """A stack of matrices, shape ``(n, q, r, r)``."""

    def __init__(self, K: np.ndarray) -> None:
        self.K = K

    def forward(self, H: np.ndarray) -> np.ndarray:
        return (self.K @ H[:, None] @ self.K.transpose(0, 1, 3, 2)).sum(axis=1)

    def backward(self, H: np.ndarray) -> np.ndarray:
        return (self.K.transpose(0, 1, 3, 2) @ H[:, None] @ self.K).sum(axis=1)

    def operators(self, space: Packing) -> np.ndarray:
        """The matrices of `forward` in the coordinates of symmetric matrices."""
        n, q, r, _ = self.K.shape
        flat = self.K.reshape(n, q, r * r)
        product = (flat.transpose(0, 2, 1) @ flat).reshape(n, r, r, r, r)  # [a, b, c, d]: sum of K[a, b] K[c, d]
        a, c, b, d = space.rows[:, None], space.cols[:, None], space.rows, space.cols
        return (product[:, a, b, c, d] + product[:, a, d, c, b]) * (space.weights[:, None] / 2 * space.weights)


class ManyMatrices:
    """The matrices ``K_i.T`` in whatever structure their measurement map has."""

    def __init__(self, map: MeasurementMap) -> None:
        self.map = map

    def framed(self, G: np.ndarray, inverse: np.ndarray) -> FramedMoments:
        return FramedMoments(self, G, inverse)

    def forward(self, Q: np.ndarray) -> np.ndarray:
        return np.array([self.map.right_moment_matrix(q) for q in Q]).reshape(Q.shape)

    def backward(self, P: np.ndarray) -> np.ndarray:
        return np.array([self.map.left_moment_matrix(p) for p in P]).reshape(P.shape)


class OneOperator:
    """The coupling as one matrix that acts on the coordinates of symmetric matrices: its cost does not depend on `m`."""

    def __init__(self, matrix: np.ndarray, space: Packing) -> None:
        self.matrix, self.space = matrix, space

    def framed(self, G: np.ndarray, inverse: np.ndarray) -> FramedMoments:
        return FramedMoments(self, G, inverse)

    def forward(self, Q: np.ndarray) -> np.ndarray:
        return self.space.unpack(self.space.pack(Q) @ self.matrix.T)

    def backward(self, P: np.ndarray) -> np.ndarray:
        return self.space.unpack(self.space.pack(P) @ self.matrix)


class SelfAdjoint:
    """A coupling that is its own adjoint, and that a formula gives for a stack of symmetric matrices at a time."""

    def __init__(self, apply: Callable[[np.ndarray], np.ndarray]) -> None:
        self.apply = apply

    def framed(self, G: np.ndarray, inverse: np.ndarray) -> FramedMoments:
        return FramedMoments(self, G, inverse)

    def forward(self, Q: np.ndarray) -> np.ndarray:
        return self.apply(Q)

    def backward(self, P: np.ndarray) -> np.ndarray:
        return self.apply(P)


class FramedMoments:
    """A coupling known by its moments, between congruences."""

    def __init__(self, moments: ManyMatrices | OneOperator | SelfAdjoint, G: np.ndarray, inverse: np.ndarray) -> None:
        self.moments, self.G, self.inverse = moments, G, inverse

    def forward(self, H: np.ndarray) -> np.ndarray:
        return self.G @ self.moments.forward(self.inverse @ H @ _transposed(self.inverse)) @ _transposed(self.G)

    def backward(self, H: np.ndarray) -> np.ndarray:
        return _transposed(self.inverse) @ self.moments.backward(_transposed(self.G) @ H @ self.G) @ self.inverse


def stacks(map: MeasurementMap, U: np.ndarray | None = None, V: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """The matrices ``U.T @ A_i @ V`` of a map, `A_i` itself by default, a limited number of them at a time."""
    d1, d2 = map.matrix_shape
    U, V = np.eye(d1) if U is None else U, np.eye(d2) if V is None else V
    chunk = max(1, ENTRIES_AT_ONCE // (d1 * d2))
    for start in range(0, map.m, chunk):
        part = map if map.m <= chunk else map.select(np.arange(start, min(start + chunk, map.m)))
        yield part.rotated(U, V)


def few_matrices(map: MeasurementMap) -> FewMatrices:
    """At most ``r**2`` matrices with the same second moments as all `m`: the triangular factor of their entries."""
    size = map.matrix_shape[0]
    rows = np.empty((0, size**2))
    for stack in stacks(map):
        rows = np.concatenate([rows, stack.transpose(0, 2, 1).reshape(len(stack), -1)])
        if len(rows) > size**2:
            rows = np.asarray(np.linalg.qr(rows, mode="r"))
    return FewMatrices(rows.reshape(-1, size, size))


def one_operator(map: MeasurementMap) -> OneOperator:
    """The sum of the congruences with the matrices ``K_i``."""
    size = map.matrix_shape[0]
    space = Packing(size)
    total = np.zeros((space.size,) * 2)
    for stack in stacks(map):
        K = np.ascontiguousarray(stack.transpose(0, 2, 1))
        for a in range(size):  # product[b, c, d] = sum_i K_i[a, b] K_i[c, d], for the rows (a, c >= a)
            product = (K[:, a].T @ K[:, a:].reshape(len(K), -1)).reshape(size, size - a, size)
            total[space.place[a, a:]] += (product[space.rows, :, space.cols] + product[space.cols, :, space.rows]).T
    return OneOperator(total * (space.weights[:, None] / 2 * space.weights), space)


def affordable(size: int, depth: int) -> bool:
    """Tell whether the Newton matrix of the chain can be factored, if need be."""
    return _factoring(size, depth) <= _AFFORDABLE


def quickly_factored(size: int, depth: int) -> bool:
    """Tell whether factoring the Newton matrix of the chain is as fast as conjugate gradients."""
    return _factoring(size, depth) <= _QUICKLY_FACTORED


def _factoring(size: int, depth: int) -> float:
    return (depth - 1) * (size * (size + 1) / 2) ** 3


def compress(map: MeasurementMap, depth: int) -> Coupling:
    """The coupling in the form that takes the least time."""
    r, m = map.matrix_shape[0], map.m
    if depth == 2:  # no middle terms
        return ManyMatrices(map)
    if quickly_factored(r, depth):
        return few_matrices(map)
    each = map.moment_cost
    uses = _TYPICAL_USES * depth
    return one_operator(map) if m * r**4 / 2 + uses * r**4 / 4 < uses * 2 * each else ManyMatrices(map)


class Chain:
    """The data of the problem: the two ends, the coupling between neighbours, and the number of layers."""

    def __init__(self, first: np.ndarray, coupling: Coupling, last: np.ndarray, depth: int) -> None:
        self.first, self.coupling, self.last, self.depth = first, coupling, last, depth
        self.size = len(first)

    def start(self) -> ChainPoint:
        """The identity at every place."""
        identity = np.broadcast_to(np.eye(self.size), (self.depth - 1, self.size, self.size))
        return ChainPoint(self, identity.copy(), identity.copy())


class ChainPoint:
    """A point of the chain in its own frame.

    Multiplying the `P_j` by numbers is minimised over exactly: it makes all `L` terms equal to their geometric mean. The frame
    is rotated so that ``ahead + behind`` is diagonal.

    Attributes
    ----------
    G, inverse : numpy.ndarray, shape (N, r, r)
        ``P_j = G_j.T @ G_j`` and the inverses of the `G_j`.
    near : Framed
        The coupling in this frame.
    ahead, behind : numpy.ndarray, shape (N, r, r)
        The derivative of `f` along ``H_j`` is ``tr(ahead_j @ H_j) - tr(behind_j @ H_j)``: the parts from the term in which
        `P_j` stands, and from that in which its inverse does.
    value : float
        `f` at this point.
    """

    def __init__(self, chain: Chain, G: np.ndarray, inverse: np.ndarray) -> None:
        self.chain = chain
        identity = np.broadcast_to(np.eye(chain.size), (chain.depth - 2, chain.size, chain.size))
        near = chain.coupling.framed(G[:-1], inverse[1:])
        ahead = np.concatenate([near.forward(identity), G[-1:] @ chain.last @ _transposed(G[-1:])])
        behind = np.concatenate([_transposed(inverse[:1]) @ chain.first @ inverse[:1], near.backward(identity)])
        terms = np.append(np.trace(behind, axis1=1, axis2=2), np.trace(ahead[-1]))
        with np.errstate(divide="ignore"):
            logs = np.log(np.maximum(terms, 0.0))
        mean = logs.mean()
        self.value = chain.depth * float(np.exp(mean))
        if not np.isfinite(mean):  # a term has left the range of floating point, or drowned in rounding errors
            self.value = np.inf
            return
        half = np.exp(np.cumsum(logs[:-1] - mean) / 2)[:, None, None]
        weight = np.exp(mean - logs)[:, None, None]
        behind, ahead = _symmetric(behind) * weight[:-1], _symmetric(ahead) * weight[1:]
        self.curvature, rotation = np.linalg.eigh(ahead + behind)
        turned = _transposed(rotation)
        self.G, self.inverse = turned @ G * half, inverse @ rotation / half
        self.ahead, self.behind = _symmetric(turned @ ahead @ rotation), _symmetric(turned @ behind @ rotation)
        self.gradient = self.ahead - self.behind
        self.near = chain.coupling.framed(self.G[:-1], self.inverse[1:])

    @property
    def lower(self) -> float:
        r"""The lower bound :math:`f - \frac L2\sum_j\|\nabla_j\|_*`, or zero; it relies on the `L` terms being equal."""
        slopes = np.linalg.eigvalsh(self.gradient)
        return max(self.value - self.chain.depth / 2 * float(np.abs(slopes).sum()), 0.0)

    @property
    def gap(self) -> float:
        """The relative gap between value and lower bound."""
        return 1.0 - self.lower / self.value

    @property
    def stationarity(self) -> float:
        """The norm of the geodesic gradient of the logarithm of `f`."""
        return float(np.linalg.norm(self.gradient)) / self.value

    @property
    def spread(self) -> float:
        """The largest logarithm of the condition number of a `P_j`, within a factor that depends on `r` alone."""
        size = np.linalg.norm(self.G, axis=(1, 2)) * np.linalg.norm(self.inverse, axis=(1, 2))
        return 2 * float(np.log(size.max() / self.chain.size))

    def towards(self, other: ChainPoint) -> np.ndarray:
        """The velocity with which a geodesic reaches the other point in unit time."""
        between = other.G @ self.inverse
        values, vectors = np.linalg.eigh(_transposed(between) @ between)
        return vectors * np.log(values)[:, None, :] @ _transposed(vectors)

    def moved(self, H: np.ndarray) -> ChainPoint:
        """The end of the geodesic that leaves this point with velocity `H`."""
        values, vectors = np.linalg.eigh(H)
        half = np.exp(values / 2)[:, None, :]
        forward, back = vectors * half @ _transposed(vectors), vectors / half @ _transposed(vectors)
        return ChainPoint(self.chain, forward @ self.G, self.inverse @ back)


def _transposed(X: np.ndarray) -> np.ndarray:
    return X.transpose(0, 2, 1)


def _symmetric(X: np.ndarray) -> np.ndarray:
    return (X + _transposed(X)) / 2
