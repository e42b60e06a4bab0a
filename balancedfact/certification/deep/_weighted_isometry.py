r"""A lower bound from weighted isometries: how strongly the measurements see the matrices that a fit cannot avoid.

In whitened coordinates let `T` be the form :math:`\langle X,TX\rangle = \frac1m\|\tilde{\mathcal A}(X)\|^2`, of order
``d1 * d2``. Choose for each hidden place `j = 1, ..., L-1` a vector `y_j` and a factorization
:math:`\tilde{\mathcal A}^*(y_j) = X_jK_j`, with `X_1 = I` and `K_{L-1} = I`, and for each layer `j = 2, ..., L-1` a symmetric
`N_j` that changes sign under partial transposition. If, with a matrix `a = A^*(y_0)` common to all layers,

.. math:: T + N_j\ \succ\ aa^\top + X_jX_j^\top\otimes K_{j-1}^\top K_{j-1},\qquad 1<j<L,

then with :math:`V_0 = (b^\top y_0)^{2L-2}/(\sum_k\sigma_k(a)^{2/(L-2)})^{L-2}` and :math:`V_1 = \prod_j(b^\top y_j)^2`

.. math:: \operatorname{tr}\nabla^2\mathcal L(W)\ \ge\ 2L\,(d_1d_2)^{1/L}\,\bigl(V_0^{1/(L-2)} + V_1^{1/(L-2)}\bigr)^{1-2/L}.

The proof is in the theory page "A global certificate". All unknowns are sought at once: the logarithm of the bound plus a
logarithmic barrier of the matrix inequalities is climbed by L-BFGS while the weight of the barrier decreases. Where `S` is the
difference of the two sides, the Hessian of the barrier by `N` is the odd part of :math:`S^{-1}NS^{-1}`, and the odd part of
:math:`SNS` preconditions it. A step costs a Cholesky factorization, an inverse and four products for each middle layer, no
eigenvalues. Whatever the search did, the inequalities are checked at the end, with a margin for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from scipy.linalg.lapack import dpotri

from balancedfact._linalg import EPS
from balancedfact.certification.deep._climb import descend_in_domain
from balancedfact.certification.deep._white import well_whitened
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._isometry_bounds import rounding

BARRIER_WORK, _MOST_EVALUATIONS = 5e12, 1000.0  # evaluations of the barrier times order^3 and layers; most evaluations
_MOST_NUMBERS = 4e7  # in the matrices N
_STAGES, _BARRIER_SHRINK = 8, 2.5  # weights of the barrier, and the factor between them
_LEAST_GAIN = 3e-7  # of the logarithm in one step, below which a stage ends: progress is slow, and 1e-5 is far too early
_OFTEN = 1000  # order up to which every stage is proved
_BLIND = 1e-8  # least eigenvalue below which the measurements count as blind to a matrix of rank one
_PART = 2.0  # of the step in N, for the other unknowns
_INFLATION = 1e-9  # of the weights, so that rounding in a factorization cannot make them too small
_WORST = 1e4  # condition number of a factor beyond which that is not certain


class Weights(NamedTuple):
    """The unknowns: `odd` (L-2 matrices N), `scale` of the split multiplier, `y` (L-1 vectors), `factors` (X_2 to X_{L-2}).

    Each `N` is given by its coordinates, of shape ``(d1 (d1 - 1) / 2, d2 (d2 - 1) / 2)``; see `Barrier.odd`.
    """

    odd: np.ndarray
    scale: float
    y: np.ndarray
    factors: np.ndarray


class Barrier:
    """The bound and its matrix inequalities as functions of the unknowns.

    Parameters
    ----------
    stack : numpy.ndarray, shape (m, d1, d2)
        Whitened measurements.
    b : numpy.ndarray, shape (m,)
        Their data.
    split : numpy.ndarray, shape (m,)
        The vector `y_0`, up to its length.
    depth : int
        At least 3.
    """

    def __init__(self, stack: np.ndarray, b: np.ndarray, split: np.ndarray, depth: int) -> None:
        self.stack, self.b, self.depth = stack, b, depth
        m, d1, d2 = stack.shape
        self.m, self.shape, self.order, self.middle = m, (d1, d2), d1 * d2, depth - 2
        rows = stack.reshape(m, -1) / np.sqrt(m)
        self.T = rows.T @ rows
        self.error = 2 * EPS * (m + 8) * float(np.vdot(rows, rows))
        # The multiplier of unit length, for which T - a a' is still positive semidefinite at scale 1.
        unit = split / (np.linalg.norm(split) * np.sqrt(m)) if np.any(split) else np.zeros(m)
        a = self.adjoint(unit)
        along, sigma = float(b @ unit), np.linalg.svd(a, compute_uv=False)
        self.a = a.ravel()
        self.split = 0.0
        if along > 0:
            sigma = sigma + 8 * max(d1, d2) * EPS * sigma[0]
            self.split = along ** (2 + 2 / self.middle) / float(np.sum(sigma ** (2 / self.middle)))
        (a, c), (b, d) = np.triu_indices(d1, 1), np.triu_indices(d2, 1)
        self.pairs_of_indices = a[:, None], c[:, None], b, d  # a < c in the first space, b < d in the second
        self.evaluations = 0
        self.slacks: list[np.ndarray] = []  # the differences at the last point of `climbed`

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        return np.tensordot(y, self.stack, 1)

    def forward(self, X: np.ndarray) -> np.ndarray:
        return np.tensordot(self.stack, X, 2)

    def sizes(self) -> list[tuple[int, ...]]:
        d1, d2 = self.shape
        odd = (self.middle, d1 * (d1 - 1) // 2, d2 * (d2 - 1) // 2)
        return [odd, (1,), (self.depth - 1, self.m), (self.depth - 3, d1, d1)]

    def unpacked(self, x: np.ndarray) -> Weights:
        ends = np.cumsum([int(np.prod(size)) for size in self.sizes()])[:-1]
        N, scale, y, factors = (part.reshape(size) for part, size in zip(np.split(x, ends), self.sizes(), strict=True))
        return Weights(N, float(scale[0]), y, factors)

    def packed(self, weights: Weights) -> np.ndarray:
        parts = (weights.odd, np.array([weights.scale]), weights.y, weights.factors)
        return np.concatenate([np.ravel(part) for part in parts])

    def odd(self, coordinates: np.ndarray) -> np.ndarray:
        """The symmetric matrix with these coordinates, which changes sign under partial transposition, exactly so.

        It is a combination of products of an antisymmetric matrix of order `d1` and one of order `d2`, of unit length.
        """
        (d1, d2), (a, c, b, d) = self.shape, self.pairs_of_indices
        four = np.zeros((d1, d2, d1, d2))
        half = coordinates / 2
        four[a, b, c, d] = four[c, d, a, b] = half
        four[a, d, c, b] = four[c, b, a, d] = -half
        return four.reshape(self.order, self.order)

    def coordinates(self, M: np.ndarray) -> np.ndarray:
        """The adjoint of `odd`, for a symmetric matrix."""
        (d1, d2), (a, c, b, d) = self.shape, self.pairs_of_indices
        four = M.reshape(d1, d2, d1, d2)
        return four[a, b, c, d] - four[a, d, c, b]

    def logarithm(self, weights: Weights) -> tuple[float, float]:
        """The logarithms of the two terms inside the bound; minus infinity where one vanishes."""
        along = weights.y @ self.b
        ratio = 2 / self.middle
        product = ratio * float(np.sum(np.log(along))) if np.all(along > 0) else -np.inf
        share = self.split * weights.scale**2
        return (np.log(share) if share > 0 else -np.inf), product

    def pairs(self, weights: Weights) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The factors `X_j` and `K_j` of each place."""
        Z = [self.adjoint(y) for y in weights.y]
        (d1, d2), last = self.shape, self.depth - 2
        X = [np.eye(d1), *weights.factors, Z[last]]
        K = [Z[0], *(np.linalg.solve(X[j], Z[j]) for j in range(1, last)), np.eye(d2)]
        return X, K

    def slack(self, j: int, weights: Weights, left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
        """The terms of the inequality of middle layer `j`, counted from 0; the first may be written to."""
        a = weights.scale * self.a
        return [self.odd(weights.odd[j]), self.T, np.kron(-left, right), np.multiply.outer(-a, a)]

    def climbed(self, x: np.ndarray, mu: float) -> tuple[float, np.ndarray] | None:
        """The negative logarithm of the bound less `mu` times the barrier, and its gradient."""
        weights = self.unpacked(x)
        along = weights.y @ self.b
        if np.any(along <= 0):
            return None
        first, second = self.logarithm(weights)
        value = float(np.logaddexp(first, second))
        of_split, of_product = np.exp(first - value), np.exp(second - value)
        X, K = self.pairs(weights)
        gradient = Weights(np.empty_like(weights.odd), 0.0, np.zeros_like(weights.y), np.zeros_like(weights.factors))
        scale, gX, gK = (2 * of_split / weights.scale if self.split > 0 else 0.0), [], []
        (d1, d2), total, self.slacks = self.shape, 0.0, []
        for j in range(self.middle):
            left, right = X[j + 1] @ X[j + 1].T, K[j].T @ K[j]
            S, *parts = self.slack(j, weights, left, right)
            for part in parts:
                S += part
            self.slacks.append(S.copy())
            inverse = self._inverse(S)
            if inverse is None:
                return None
            total += inverse[0]
            G = inverse[1]
            gradient.odd[j] = mu * self.coordinates(G)
            four = G.reshape(d1, d2, d1, d2)
            gX.append(-2 * mu * np.einsum("abcd,bd->ac", four, right, optimize=True) @ X[j + 1])
            gK.append(-2 * mu * K[j] @ np.einsum("abcd,ac->bd", four, left, optimize=True))
            scale -= 2 * mu * weights.scale * float(self.a @ G @ self.a)
        last = self.depth - 2
        for place in range(self.depth - 1):
            if place == 0:
                gZ = gK[0]
            elif place == last:
                gZ = gX[-1]
            else:
                gZ = np.linalg.solve(X[place].T, gK[place])
                gradient.factors[place - 1] = gX[place - 1] - gZ @ K[place].T
            gradient.y[place] = self.forward(gZ) + of_product * (2 / self.middle) * self.b / along[place]
        return -(value + mu * total), -self.packed(gradient._replace(scale=scale))

    def preconditioned(self, x: np.ndarray, q: np.ndarray, mu: float) -> np.ndarray:
        """A vector over the Hessian of the barrier at `x`, approximately; near the last point of `climbed`."""
        at, along = self.unpacked(x), self.unpacked(q)
        odd = [self.coordinates(S @ self.odd(N) @ S) for S, N in zip(self.slacks, along.odd, strict=False)]
        # What is scaled by a small part changes the logarithm of the determinant by about that times the order.
        small = _PART / (self.order * self.middle)
        y = small * np.sum(at.y**2, axis=1)[:, None] * along.y
        factors = small * np.sum(at.factors**2, axis=(1, 2))[:, None, None] * along.factors
        return self.packed(Weights(np.array(odd), small * at.scale**2 * along.scale, y, factors)) / mu

    def _inverse(self, S: np.ndarray) -> tuple[float, np.ndarray] | None:
        """The logarithm of the determinant and the inverse; ``None`` where `S` is not positive definite."""
        self.evaluations += 1
        try:
            C = scipy.linalg.cholesky(S, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            return None
        logarithm = 2 * float(np.sum(np.log(np.diag(C))))
        G = np.tril(dpotri(C, lower=1, overwrite_c=1)[0])
        return logarithm, G + np.tril(G, -1).T

    def visible(self, budget: float, stop: Callable[[], bool]) -> tuple[np.ndarray, float]:
        """Coordinates of an `N` with a positive least eigenvalue of ``T + N``, if one was found, and that eigenvalue."""
        shape, shift, least = self.sizes()[0][1:], 1.0, -np.inf
        N = np.zeros(shape)
        while self.evaluations < budget and not stop():

            def barrier(x: np.ndarray, shift: float = shift) -> tuple[float, np.ndarray] | None:
                S = self.T + self.odd(x.reshape(shape))
                S[np.diag_indices(self.order)] += shift
                inverse = self._inverse(S)
                return None if inverse is None else (-inverse[0], -self.coordinates(inverse[1]).ravel())

            if barrier(N.ravel()) is None:  # rounding of `T` is more than the shift
                break
            before = least
            N = descend_in_domain(barrier, N.ravel(), 15, tol=1e-3, stop=stop).reshape(shape)
            least = float(np.linalg.eigvalsh(self.T + self.odd(N))[0])
            if least > -_BLIND or least - before < 1e-4:
                break
            shift = max(min(shift / 1.5, -1.3 * least), -1.05 * least)
        return N, least

    def proved(self, weights: Weights) -> float:
        """The logarithm inside the bound of `weights`; minus infinity if the inequalities are not proved."""
        X, K = self.pairs(weights)
        if any(np.linalg.cond(factor) > _WORST for factor in X[1:-1]):
            return -np.inf
        for j in range(self.middle):
            left, right = X[j + 1] @ X[j + 1].T, K[j].T @ K[j]
            left, right = (W + _INFLATION * np.linalg.norm(W) * np.eye(len(W)) for W in (left, right))
            parts = self.slack(j, weights, left, right)
            margin = rounding(*parts) + self.error
            if not np.linalg.eigvalsh(np.sum(parts, axis=0))[0] > margin:
                return -np.inf
        return float(np.logaddexp(*self.logarithm(weights)))


def weighted_isometry_bound(
    A: MeasurementMap,
    b: np.ndarray,
    y: np.ndarray,
    split: np.ndarray,
    depth: int,
    *,
    work: float = BARRIER_WORK,
    most: float = _MOST_EVALUATIONS,
    gain: float = _LEAST_GAIN,
    stop: Callable[[], bool] = lambda: False,
) -> float:
    """The bound on the trace, for a map of ordinary scale that sees every direction; 0 where it is not proved.

    Parameters
    ----------
    A : MeasurementMap
    b : numpy.ndarray, shape (m,)
    y : numpy.ndarray, shape (m,)
        Where the search begins: the dual vector of two layers.
    split : numpy.ndarray, shape (m,)
        A vector with a good multiplier bound.
    depth : int
        At least 3.
    work : float
        Evaluations times their order cubed.
    most, gain : float
        Evaluations at most, and what a step has to gain for a stage to go on.
    stop : callable
        Ends the search early; what was found until then is still proved.
    """
    order = A.shape[1]
    if (depth - 2) * order**2 > _MOST_NUMBERS or A.of_entries:
        return 0.0
    whitened = well_whitened(A)
    if whitened is None:
        return 0.0
    (white, stretch), (d1, d2) = whitened, A.matrix_shape
    stack = white.map.rotated(np.eye(d1), np.eye(d2))
    size = float(np.linalg.norm(b))
    barrier = Barrier(stack, b / size, split, depth)
    budget = min(work / order**3, most)
    N, least = barrier.visible(budget / 3, stop)
    if least <= _BLIND:
        return 0.0
    weights = _start(barrier, N, least, y)
    if weights is None:
        return 0.0
    x, best = barrier.packed(weights), barrier.proved(weights)
    each = max(int((budget - barrier.evaluations / barrier.middle) / _STAGES), 1)
    memory = 20 if x.size < 1e6 else 8 if x.size < 4e6 else 4
    mu = 4.0 / order
    for stage in range(_STAGES):
        climbed, metric = (lambda x, mu=mu: barrier.climbed(x, mu)), (lambda x, q, mu=mu: barrier.preconditioned(x, q, mu))
        x = descend_in_domain(climbed, x, each, tol=gain, memory=memory, precondition=metric, stop=stop)
        mu /= _BARRIER_SHRINK
        if order <= _OFTEN or stage == _STAGES - 1 or stop():  # late stages may be too close to the boundary to be proved
            best = max(best, barrier.proved(barrier.unpacked(x)))
        if stop():
            break
    # What the outer layers see, d2 and d1 up to rounding, and what rounding in the whitening can change besides.
    moments = A.left_moment_matrix(np.eye(d2)), A.right_moment_matrix(np.eye(d1))
    factors = (np.eye(d) @ W for d, W in zip((d1, d2), (white.left, white.right), strict=True))  # they may be sparse
    seen = (W.T @ moment @ W / A.m for W, moment in zip(factors, moments, strict=True))
    ends = [min(max(float(np.linalg.eigvalsh(moment)[0]), 0.0), d) for moment, d in zip(seen, (d2, d1), strict=True)]
    margin = 1 - 64 * EPS * order * stretch**2
    outer = float(np.prod(ends)) ** (1 / depth) * margin
    return max(2 * depth * outer * np.exp(best * (1 - 2 / depth)) * size ** (2 - 2 / depth), 0.0)


def _start(barrier: Barrier, N: np.ndarray, least: float, y: np.ndarray) -> Weights | None:
    """Feasible weights: one `y` at every place, its matrix factored by powers of its singular values."""
    if not float(barrier.b @ y) > 0:
        return None
    Z = barrier.adjoint(y)
    U, s, _ = np.linalg.svd(Z)
    y = y / s[0]
    floored = np.full(barrier.shape[0], 0.3)
    floored[: s.size] = np.maximum(s / s[0], 0.3)
    exponents = [(place - 1) / (barrier.depth - 2) for place in range(2, barrier.depth - 1)]
    factors = np.array([(U * floored**power) @ U.T for power in exponents])
    factors = factors.reshape(len(exponents), barrier.shape[0], barrier.shape[0])
    size = (least / 2) ** (1 / 4)
    for _ in range(60):
        scaled = Weights(
            np.repeat(N[None], barrier.middle, axis=0),
            0.3 * size if barrier.split > 0 else 0.0,
            np.array([size * y, *(size**2 * y for _ in exponents), size * y]),
            size * factors,
        )
        if barrier.climbed(barrier.packed(scaled), 1.0) is not None:
            return scaled
        size *= 0.8
    return None
