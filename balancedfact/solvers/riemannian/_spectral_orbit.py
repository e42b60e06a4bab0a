r"""The factorizations of a matrix in the frame of its singular vectors, where its sizes cost a search nothing.

For :math:`M = U\Sigma V^\top` of rank `r` the layers of hidden width `r` are :math:`G_1\Sigma^{1/2}V^\top`,
:math:`G_kG_{k-1}^{-1}`, :math:`U\Sigma^{1/2}G_{L-1}^{-1}`. Modulo rotations of the hidden spaces they are a product of cones of
positive-definite matrices :math:`P_k = G_k^\top G_k`, on which

.. math::

    R(W) &= d_0\operatorname{tr}(P_1^{-1}\Sigma)
            + \sum_{k=2}^{L-1}\operatorname{tr}(P_{k-1}\Sigma)\operatorname{tr}(P_k^{-1}\Sigma)
            + d_L\operatorname{tr}(P_{L-1}\Sigma), \\
    \sum_k\|W_k\|_F^2 &= \operatorname{tr}(P_1\Sigma) + \sum_{k=2}^{L-1}\operatorname{tr}(P_kP_{k-1}^{-1})
            + \operatorname{tr}(P_{L-1}^{-1}\Sigma)

are geodesically convex, and chains as in `balancedfact.solvers.fibre`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import EPS, frobenius, magnitude, product
from balancedfact._validate import as_layers
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.fibre._chain import Chain, ChainPoint, FewMatrices, SelfAdjoint, quickly_factored
from balancedfact.solvers.fibre._chain_newton import Run, minimise
from balancedfact.solvers.fibre._fibre import place_of
from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.riemannian._search import CLOSED

SEARCH = "riemannian"
_CONVEX = "a bound by geodesic convexity at the point that was reached"
_SAME_PRODUCT = 1e-8  # relative distance from the matrix up to which given layers are layers of it


class SpectralOrbit:
    """The factorizations of `M`, not zero, with given widths, for the isotropic trace or, if `light`, the sum of squares.

    Attributes
    ----------
    size : float
        What `M` is divided by, so that its singular values `s` have the sum one.
    units : float
        The value for `M` over that for ``M / size``.
    """

    def __init__(self, M: np.ndarray, widths: list[int], light: bool = False) -> None:
        self.M, self.widths, self.light, self.depth = M, widths, light, len(widths) - 1
        size = magnitude(M)
        U, s, Vt = np.linalg.svd(M / size, full_matrices=False)
        rank = int(np.count_nonzero(s > max(M.shape) * EPS * s[0]))
        if min(widths[1:-1]) < rank:
            raise ValueError(f"widths has a hidden width of {min(widths[1:-1])}; expected at least {rank}, the rank of M")
        self.size = size * float(s.sum())
        self.s, root = s[:rank] / s.sum(), np.sqrt(s[:rank] / s.sum())
        self.hi, self.lo, self.inverse = U[:, :rank] * root, root[:, None] * Vt[:rank], Vt[:rank].T / root
        share = self.size ** ((1 if light else self.depth - 1) / self.depth)
        self.units = share * share

    def chain(self) -> Chain:
        s, ends, rank = self.s, np.diag(self.s), len(self.s)
        if self.light:  # its places come in the opposite order
            direct = quickly_factored(rank, self.depth)
            return Chain(ends, FewMatrices(np.eye(rank)[None]) if direct else SelfAdjoint(np.array), ends, self.depth)
        coupling = SelfAdjoint(lambda H: (np.diagonal(H, axis1=-2, axis2=-1) @ s)[..., None, None] * ends)
        return Chain(self.widths[0] * ends, coupling, self.widths[-1] * ends, self.depth)

    def random(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Random layers at the width of the rank, for the matrix divided by `size`."""
        from balancedfact.manifolds import Factorizations  # pymanopt is imported only by those who use it

        orbit = Factorizations(np.diag(self.s), [len(self.s)] * (self.depth + 1), rng=rng).random_point()
        root = np.sqrt(self.s)
        return [orbit[0] @ (self.lo / root[:, None]), *orbit[1:-1], (self.hi / root) @ orbit[-1]]

    def descend(self, start: Sequence[np.ndarray], tol: float, log: Log) -> Run:
        """Search from layers, which need be right up to their scales only."""
        G, inverse = place_of(start, self.inverse)
        if self.light:
            G, inverse = G[::-1], inverse[::-1]
        chain = self.chain()
        return minimise(chain, max(tol, 16 * self.depth * EPS), log, self.units.__mul__, ChainPoint(chain, G, inverse))

    def layers(self, run: Run) -> tuple[list[np.ndarray], float]:
        """Layers of `M` with the given widths, and the relative error of their product."""
        G, inverse = run.point.G, run.point.inverse
        if self.light:
            G, inverse = G[::-1], inverse[::-1]
        layers = [G[0] @ self.lo, *(G[1:] @ inverse[:-1]), self.hi @ inverse[-1]]
        target = self.M / self.size
        feasibility = frobenius(product(layers) - target) / frobenius(target)
        share = self.size ** (1 / self.depth)
        shapes = zip(layers, self.widths[1:], self.widths[:-1], strict=True)
        widened = [np.pad(share * W, ((0, rows - W.shape[0]), (0, columns - W.shape[1]))) for W, rows, columns in shapes]
        return widened, feasibility

    def concluded(
        self,
        layers: list[np.ndarray],
        value: float,
        feasibility: float,
        run: Run,
        log: Log,
        known: float,
        source: str,
        balance: float,
    ) -> Solution:
        """The solution of a search, with the larger of the bound that it proved and the one that is known from `source`."""
        proved = self.units * run.point.lower
        bound, proof = (proved, f"{_CONVEX}; {source} gives the same") if proved > known else (known, source)
        gap = max(1 - bound / value, 0.0)
        certificate = Certificate(
            feasibility, min(bound, value), gap, stationarity=run.point.stationarity, balance=balance, proof=proof
        )
        if log.ended is not None:
            status, message = log.ended
        elif gap <= CLOSED:
            status = Status.OPTIMAL
            message = f"Optimal: no factorization of the matrix is better by more than a relative {gap:.1e}."
        else:
            status, message = Status.GAP_OPEN, f"The descent ended, by rounding errors, at a relative gap of {gap:.1e}."
        return Solution(layers, value, status, message, certificate, log.history, SEARCH)


def of_nothing(widths: list[int], proof: str) -> Solution:
    """The layers of a matrix that is zero."""
    layers = [np.zeros((rows, columns)) for rows, columns in zip(widths[1:], widths[:-1], strict=True)]
    certificate = Certificate(0.0, 0.0, 0.0, stationarity=0.0, balance=0.0, proof=proof)
    return Solution(layers, 0.0, Status.OPTIMAL, "M is zero, and so are the layers.", certificate, {}, "closed form")


def as_factorization(initial: Sequence[ArrayLike], M: np.ndarray, depth: int) -> list[np.ndarray]:
    """Layers given to start from, if they multiply to `M`."""
    layers = as_layers(initial, M.shape, name="initial")
    if len(layers) != depth:
        raise ValueError(f"initial has {len(layers)} layers; expected {depth}")
    size, sizes = magnitude(M), [magnitude(W) for W in layers]
    with np.errstate(over="ignore", invalid="ignore"):
        error = frobenius(product([W / s for W, s in zip(layers, sizes, strict=True)]) * (np.prod(sizes) / size) - M / size)
    if not error <= _SAME_PRODUCT * frobenius(M / size):
        raise ValueError(f"initial multiplies to a matrix at a relative {error / frobenius(M / size):.1e} from M; expected M")
    return layers
