"""The factorizations of a given matrix, in coordinates that separate what the measurements see of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from balancedfact._linalg import EPS, frobenius, magnitude, product
from balancedfact.curvature import trace
from balancedfact.measurements import MeasurementMap
from balancedfact.solvers.fibre._chain import Chain, ChainPoint, FewMatrices, affordable, compress, few_matrices, stacks
from balancedfact.solvers.fibre._chain_newton import WELL_CONDITIONED, Ending, minimise
from balancedfact.solvers.iteration._log import Log

# Relative to the largest: cosines between unseen directions that are zero up to the errors with which these are known, and
# matrices lo @ A_i.T @ hi that are.
_ORTHOGONAL, _UNCOUPLED = 1e-9, 1e-12
# Relative residual that layers on their way to infinity may have.
_FEASIBLE = 1e-10


class Place(NamedTuple):
    """The point ``P_j = G_j.T @ G_j`` and the inverses of the `G_j`."""

    G: np.ndarray
    inverse: np.ndarray


class FibreMinimum(NamedTuple):
    """Value, lower bound, layers and direction of the minimum restricted to the seen subspace (the core)."""

    point: Place
    value: float
    lower: float
    stationarity: float
    verdict: Ending
    history: dict[str, np.ndarray]
    moderate: Place
    direction: np.ndarray


class Fibre:
    """A matrix factored as ``hi @ lo``, and all its other factorizations.

    The coordinates are ordered: those whose column of `hi` is unseen while their row of `lo` is seen; the core, on which the
    problem is a chain of positive-definite matrices; those unseen on both sides; those whose row of `lo` alone is unseen. The
    cost of the first kind vanishes as they shrink, that of the last as they grow. The core is scaled so that the identity
    solves the problem of depth 2.
    """

    def __init__(self, M: np.ndarray, A: MeasurementMap, depth: int) -> None:
        self.A, self.depth, self.matrix, self.shape = A, depth, M, M.shape
        self.unit = A.at_unit_scale()
        size = magnitude(M)
        U, s, Vt = np.linalg.svd(M / size, full_matrices=False)
        self.size = size * (s[0] or 1.0)
        noise = max(M.shape) * EPS
        keep = s > noise * s[0]
        self.rank = int(np.count_nonzero(keep))
        U, V, root = U[:, keep], Vt[keep].T, np.sqrt(s[keep] / (s[0] or 1.0))
        basis, dual, self.blocks = _separated(_kernel(A.rescale_left(U), noise), _kernel(A.rescale_right(V), noise), root)
        self.hi, self.lo = (U * root) @ basis, dual.T @ (V * root).T
        self.core = slice(self.blocks[0], self.blocks[0] + self.blocks[1])
        if self.blocks[1]:
            left = np.asarray(np.linalg.qr(A.rescale_left(self.hi[:, self.core]), mode="r"))
            right = np.asarray(np.linalg.qr(A.rescale_right(self.lo[self.core].T), mode="r"))
            W, sigma, _ = np.linalg.svd(left @ right.T)
            self.hi[:, self.core] = self.hi[:, self.core] @ np.linalg.solve(left, W * np.sqrt(sigma))
            self.lo[self.core] = (W / np.sqrt(sigma)).T @ (left @ self.lo[self.core])

    def value(self, f: float) -> float:
        """The trace of the Hessian that belongs to the value `f` of the chain."""
        root = np.sqrt(f) * np.sqrt(2 / self.A.m) * self.A.scale * self.size ** (1 - 1 / self.depth)
        return float(root**2)

    def minimum(self, tol: float, log: Log, start: Sequence[np.ndarray] | None = None, units: float = 1.0) -> FibreMinimum:
        """The minimum on the core, from layers of the matrix, up to their scales, or else from those of depth two.

        `units` multiply the values that the log shows.
        """
        hi, lo, N = self.hi[:, self.core], self.lo[self.core], self.depth - 1
        r = hi.shape[1]
        if r == 0:
            nowhere = Place(np.zeros((N, 0, 0)), np.zeros((N, 0, 0)))
            return FibreMinimum(nowhere, 0.0, 0.0, 0.0, Ending.MINIMUM, {}, nowhere, nowhere.G)
        (d1, d2), m = self.shape, self.A.m
        seen_left, seen_right = self.A.rescale_left(hi), self.A.rescale_right(lo.T)
        first, last = m * d2 * seen_left.T @ seen_left, m * d1 * seen_right.T @ seen_right
        inner = self.unit.congruence(hi, lo.T)
        chain = Chain(first, compress(inner, self.depth), last, self.depth)
        if N > 1 and self._uncoupled(chain, hi, lo):
            everywhere = Place(*np.broadcast_to(np.eye(r), (2, N, r, r)))
            growth = np.append(1.0, -np.ones(N - 1))[:, None, None] * np.eye(r)
            return FibreMinimum(everywhere, 0.0, 0.0, np.nan, Ending.UNATTAINED, {}, everywhere, growth)

        tol = max(tol, 16 * self.depth * EPS)
        begin = None if start is None else ChainPoint(chain, *place_of(start, np.linalg.pinv(self.lo)[:, self.core]))
        run = minimise(chain, tol, log, lambda f: units * self.value(f), begin)
        doubtful = run.verdict in (Ending.UNATTAINED, Ending.STALLED) or run.point.spread > WELL_CONDITIONED
        if doubtful and not log.ended and not isinstance(chain.coupling, FewMatrices) and N > 1 and affordable(r, self.depth):
            # Moments have lost the small parts of ill-conditioned points: once more, with the matrices themselves.
            run = minimise(Chain(first, few_matrices(inner), last, self.depth), tol, log, lambda f: units * self.value(f))
        point = moderate = run.point
        direction = np.empty(0)
        if run.verdict is Ending.UNATTAINED:
            moderate = run.moderate
            direction = moderate.towards(point)
        place, reached = Place(point.G, point.inverse), Place(moderate.G, moderate.inverse)
        return FibreMinimum(place, point.value, point.lower, point.stationarity, run.verdict, run.history, reached, direction)

    def _uncoupled(self, chain: Chain, hi: np.ndarray, lo: np.ndarray) -> bool:
        """Tell whether every matrix ``lo @ A_i.T @ hi`` is zero, to rounding error."""
        identity = np.eye(chain.size)[None]
        energy = np.trace(chain.coupling.framed(identity, identity).forward(identity)[0])
        largest = min(np.linalg.norm(lo, 2) ** 2 * np.trace(chain.first), np.linalg.norm(hi, 2) ** 2 * np.trace(chain.last))
        return bool(energy <= _UNCOUPLED**2 * largest)

    def layers(self, minimum: FibreMinimum, hidden: list[int]) -> tuple[list[np.ndarray], float, float]:
        """Layers that attain the minimum, or come close to an infimum that none attain, their value, and their residual."""
        direction, value = self.direction(minimum), minimum.value
        layers = self._layers(minimum.moderate, direction, 1.0)
        if direction.size:
            # The further out the closer to the infimum, until rounding errors take over: those of the data, and those that
            # moments bring into the trace of the layers.
            tried = [layers, *[self._layers(minimum.moderate, direction, 2.0**power) for power in range(3, 28, 3)]]
            values = np.array([self._energy(layers) for layers in tried])
            doubt = abs([self.A.m / 2 * trace([*layers], self.unit) for layers in tried] - values)
            residuals = np.array([self._residual(layers) for layers in tried])
            best = np.argmin(np.where(residuals <= max(_FEASIBLE, residuals[0]), values + doubt, np.inf))
            layers, value = tried[best], values[best]
        widths = [self.shape[1], *hidden, self.shape[0]]
        share = self.size ** (1 / self.depth)
        padded = [
            np.pad(share * layer, [(0, rows - layer.shape[0]), (0, cols - layer.shape[1])])
            for layer, rows, cols in zip(layers, widths[1:], widths, strict=False)
        ]
        return padded, self.value(value), self._residual(layers)

    def _layers(self, place: Place, direction: np.ndarray, far: float) -> list[np.ndarray]:
        """The layers of a point of the core moved by ``2 * log(far)`` in a direction; they multiply to ``M / size``."""
        G, inverse = (np.broadcast_to(np.eye(self.rank), (self.depth - 1, self.rank, self.rank)).copy() for _ in range(2))
        G[:, self.core, self.core], inverse[:, self.core, self.core] = place
        if direction.size:
            values, vectors = np.linalg.eigh(direction / np.abs(direction).max())
            power = far ** values[:, None, :]
            G = (vectors * power) @ vectors.transpose(0, 2, 1) @ G
            inverse = inverse @ (vectors / power) @ vectors.transpose(0, 2, 1)
        return [G[0] @ self.lo, *(G[1:] @ inverse[:-1]), self.hi @ inverse[-1]]

    def _residual(self, layers: list[np.ndarray]) -> float:
        """Distance of the product of the layers from the matrix, relative to it."""
        target = self.matrix / self.size
        return frobenius(product(layers) - target) / (frobenius(target) or 1.0)

    def _energy(self, layers: list[np.ndarray]) -> float:
        """The sum of the squares that make up the trace, none of which is the difference of larger numbers."""
        before, after = [layers[0]], [layers[-1]]
        for layer, other in zip(layers[1:-1], layers[-2:0:-1], strict=True):
            before.append(layer @ before[-1])
            after.append(after[-1] @ other)
        # Unseen parts are large far out, and a moment sees its own rounding errors times their squares: they are left out.
        left, right = self._seen(after[-1], self.A.left_root), self._seen(before[-1].T, self.A.right_root)
        total = self.unit.energy(left, None) + self.unit.energy(None, right)
        for B, C in zip(before[:-1], after[-2::-1], strict=True):
            total += sum(float(np.sum(stack**2)) for stack in stacks(self.unit.congruence(C, B.T)))
        return total

    def direction(self, minimum: FibreMinimum) -> np.ndarray:
        """The direction, normalised, in which the layers diverge; empty where they do not."""
        shrunk, _, _, grown = self.blocks
        H = np.zeros((self.depth - 1, self.rank, self.rank))
        H[:] = np.diag(np.concatenate([-np.ones(shrunk), np.zeros(self.rank - shrunk - grown), np.ones(grown)]))
        if np.any(minimum.direction):
            # What the core does may cost the other blocks: they go further.
            H[:, self.core, self.core] = minimum.direction / (3 if shrunk or grown else 1) / np.abs(minimum.direction).max()
        size = np.linalg.norm(H)
        return H / size if size > 0 else np.empty(0)

    def gradient(self, minimum: FibreMinimum) -> np.ndarray:
        """The derivative of the value along the matrices of the rank of the core, as a matrix of that tangent space."""
        if self.blocks[1] == 0:
            return np.zeros(self.shape)
        hi, lo = self.hi[:, self.core], self.lo[self.core]
        hi, lo = self._seen(hi, self.A.left_root), self._seen(lo.T, self.A.right_root).T
        before = [np.eye(self.shape[1]), *[(G @ lo).T @ (G @ lo) for G in minimum.point.G]]
        after = [*[(hi @ inverse) @ (hi @ inverse).T for inverse in minimum.point.inverse], np.eye(self.shape[0])]
        by_hi, by_lo = np.zeros_like(hi), np.zeros_like(lo)
        for G, inverse, B, C in zip(*minimum.point, before[:-1], after[1:], strict=True):
            by_hi += 2 * self.unit.left_moment_matrix(B) @ hi @ (inverse @ inverse.T)
            by_lo += 2 * (G.T @ G) @ lo @ self.unit.right_moment_matrix(C)
        Q1, R1 = np.linalg.qr(hi)
        Q2, R2 = np.linalg.qr(lo.T)
        across = np.linalg.solve(R2.T, by_hi.T).T
        gradient = (across - Q1 @ (Q1.T @ across)) @ Q2.T + Q1 @ np.linalg.solve(R1.T, by_lo)
        root = np.sqrt(2 / self.A.m) * self.A.scale * self.size ** (0.5 - 1 / self.depth)
        return root * (root * gradient)

    def _seen(self, X: np.ndarray, moment_root: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """The part of the columns of `X` on which some measurement depends."""
        values, vectors = moment_root
        if values.all():
            return X
        seen = vectors[:, values > 0]
        return seen @ (seen.T @ X)


def place_of(layers: Sequence[np.ndarray], inverse: np.ndarray) -> Place:
    """The point of layers up to their scales, for a right inverse of `lo` (some of its columns: on these coordinates)."""
    G, B = [], inverse
    for layer in layers[:-1]:
        B = layer @ B
        B = B / magnitude(B)
        G.append(np.linalg.qr(B)[1])
    return Place(np.array(G), np.linalg.inv(G))


def _kernel(X: np.ndarray, noise: float) -> np.ndarray:
    """An orthonormal basis of the vectors that `X` sends to zero, relative to the largest that it does not, as columns."""
    _, s, Vt = np.linalg.svd(X)
    return Vt[np.count_nonzero(s > noise * np.max(s, initial=0.0)) :].T


def _separated(left: np.ndarray, right: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """A basis of the hidden space, its dual basis, and the sizes of its four blocks.

    `left` spans what ``U * root`` hides from the left, `right` what ``V * root`` hides from the right, both before the weights.
    """
    r, a, b = root.size, left.shape[1], right.shape[1]
    if a == b == 0:
        return np.eye(r), np.eye(r), (0, r, 0, 0)
    unseen_left = np.linalg.qr(left / root[:, None])[0]
    unseen_right = np.linalg.qr(right / root[:, None])[0]
    X, s, Yt = np.linalg.svd(unseen_left.T @ unseen_right)
    paired = int(np.count_nonzero(s > _ORTHOGONAL))
    shrunk, free = unseen_left @ X[:, paired:], unseen_left @ X[:, :paired]
    grown = unseen_right @ Yt[paired:].T
    core = _kernel(np.column_stack([unseen_right, shrunk]).T, _ORTHOGONAL)
    basis = np.column_stack([shrunk, core, free, grown])
    return basis, np.linalg.inv(basis).T, (a - paired, core.shape[1], paired, b - paired)
