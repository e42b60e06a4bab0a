r"""Flat pairs under measurements by Riemannian search: an augmented Lagrangian on rescaled-balanced pairs.

In the normalised problem `D1` and `D2` are identities, and the isometry of `RescaledBalancedPairs` with `BalancedPairs` has
been applied: over balanced pairs, where :math:`\tfrac12(\|L\|^2 + \|R\|^2)` is the nuclear norm of the product,

.. math:: \min_{L^\top L = R^\top R} \tfrac12(\|L\|^2 + \|R\|^2) + y^\top(b - \mathcal A(LR^\top))
          + \tfrac\rho2\|b - \mathcal A(LR^\top)\|^2

is solved by trust regions, ``y`` moves by ``rho`` times the residual, and `rho` grows where the residual does not fall fast
enough. The multiplier is the dual vector of the certificate. A penalty ``q`` is ``y = 0`` and ``rho = 1 / q``, to which `rho`
grows.

Too narrow a pair is seen in the same way as any saddle: padded with zero columns it has negative curvature exactly when
:math:`\|\mathcal A^*(y)\| > 1` (the edge of the manifold, docs/theory/balanced_geometry.md), and the search leaves it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from balancedfact._linalg import FITTED
from balancedfact._pymanopt_draws import pymanopt_draws
from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.nuclear._algorithm import NO_OFFSETS, Algorithm
from balancedfact.solvers.nuclear._problem import NuclearProblem, Pair, Point, balanced
from balancedfact.solvers.riemannian._search import Search

_PENALTY_GROWTH = 5.0  # of rho, where the residual fell by less than this
_STALLS = 3  # searches after which the residual has hardly fallen: the data are out of reach for the width
_FIRST, _LAST = 1e-3, 1e-11  # relative gradients of the searches
_MOST_STRICT = 1e-3  # by how much relative gradients follow rho at most
_POINTS = 500  # at most, per search


@dataclass(frozen=True)
class RiemannianSearch(Algorithm):
    """An augmented Lagrangian on rescaled-balanced pairs, by trust regions from a random pair.

    It is here to be compared and to be built upon: it knows nothing of convexity and arrives at the same value.

    See Also
    --------
    Factored : Second-order descent on factors.
    balancedfact.manifolds.RescaledBalancedPairs : The manifold it searches.
    select_method : The choice between them.

    References
    ----------
    Liu, Shen, Zhou (CS282 report); Absil, Baker, Gallivan 2007 for trust regions.

    Guide :doc:`/guide/riemannian`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(20, (4, 3), rng=0)
    >>> solution = bf.flat_minimum(A, A(np.ones((4, 3))), method=bf.solvers.RiemannianSearch(), rng=0)
    >>> solution.status.name, bool(np.allclose(solution.matrix, 1.0))
    ('OPTIMAL', True)
    """

    name, low_rank = "riemannian", True

    def suits(self, problem: NuclearProblem) -> str | None:
        """Refuse offsets."""
        return None if problem.offsets is None else NO_OFFSETS

    def points(
        self, problem: NuclearProblem, rng: np.random.Generator, *, max_rank: int | None = None, initial: Pair | None = None
    ) -> Iterator[Point]:
        """Yield a point after every search."""
        return augmented_lagrangian(problem, rng, max_rank=max_rank, initial=initial)


def augmented_lagrangian(
    problem: NuclearProblem,
    rng: np.random.Generator,
    *,
    max_rank: int | None = None,
    initial: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[Point]:
    """Yield a point after every search, at widths that double up to `max_rank` as long as they are asked for."""
    d1, d2 = problem.map.matrix_shape
    limit = min(d1, d2) if max_rank is None else min(max_rank, d1, d2)
    # Half as many again as it takes to fit data in general position; a pair that is too narrow converges slowly.
    width = next((k for k in range(1, limit) if k * (d1 + d2 - k) >= problem.map.m), limit)
    width = min(width + (width + 1) // 2, limit)
    norm = float(np.linalg.norm(problem.b))
    if initial is None:
        L, R = rng.standard_normal((d1, width)), rng.standard_normal((d2, width))
        root = np.sqrt(norm / np.linalg.norm(problem.map.forward_factored(L, R)))
        L, R = root * L, root * R
    else:
        L, R, _ = (part[..., :limit] for part in balanced(*initial))
        width = L.shape[1]
    lagrangian = _Lagrangian(problem)
    while True:
        for L, R, y in _at_one_width(lagrangian, L, R, rng):  # noqa: B020, the last pair is where the next width begins
            L_, R_, s = balanced(L, R)
            keep = s > np.finfo(float).eps * s[0]
            yield Point(L_[:, keep], R_[:, keep], s[keep], y)
        if width == limit:
            return
        more = min(2 * width, limit) - width
        width += more
        L, R = np.pad(L, ((0, 0), (0, more))), np.pad(R, ((0, 0), (0, more)))


def _at_one_width(
    lagrangian: _Lagrangian, L: np.ndarray, R: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    norm, tol, before = float(np.linalg.norm(lagrangian.b)), _FIRST, np.inf
    problem, penalised = lagrangian.problem(L.shape[1]), lagrangian.q > 0
    first = lagrangian.restart()
    stalls = 0
    while stalls < _STALLS:
        last = tol == _LAST
        # The scale of the gradient grows with rho.
        search = Search(problem, tol * max(first / lagrangian.rho, _MOST_STRICT), _POINTS, Log(progress=False))
        search.second_order = last or before == np.inf
        with pymanopt_draws(rng):
            search.run(search.manifold.nearest(L, R))
        L, R = search.point
        residual = lagrangian.b - lagrangian.map.forward_factored(L, R)
        y, size = lagrangian.y + lagrangian.rho * residual, float(np.linalg.norm(residual))
        if not penalised or last:
            yield L, R, y
        if last and (penalised or size <= FITTED * norm):
            return
        if penalised:
            last = _PENALTY_GROWTH * lagrangian.rho >= 1 / lagrangian.q
            lagrangian.rho = 1 / lagrangian.q if last else _PENALTY_GROWTH * lagrangian.rho
            tol = _LAST if last else _FIRST
        else:
            lagrangian.y = y
            stalls += size > 0.7 * before
            if size > before / _PENALTY_GROWTH:
                lagrangian.rho *= _PENALTY_GROWTH
            tol = max(_LAST, min(0.1 * tol, 0.1 * size / norm))
        before = size


class _Lagrangian:
    """The function of a pair, with what its Hessian needs at the newest point."""

    def __init__(self, problem: NuclearProblem) -> None:
        self.map, self.b, self.q = problem.map, problem.b, problem.q
        self.y, self.rho = np.zeros(problem.map.m), 1.0
        self._at: tuple[Any, ...] = ()

    def restart(self) -> float:
        """Set `rho` to ten times the least at which with ``y = 0`` some pair is not zero, or thereabouts; return it."""
        S = self.map.adjoint_operator(self.b)
        v = np.ones(self.map.matrix_shape[1])
        for _ in range(5):
            v = S.T @ (S @ v)
            v /= np.linalg.norm(v)
        self.rho = 10 / float(np.linalg.norm(S @ v))
        if self.q > 0:
            self.rho = min(self.rho, 1 / self.q)
        return self.rho

    def _parts(self, L: np.ndarray, R: np.ndarray) -> tuple[Any, ...]:
        if not self._at or self._at[0] is not L or self._at[1] is not R or self._at[2] != self.rho or self._at[3] is not self.y:
            residual = self.b - self.map.forward_factored(L, R)
            self._at = L, R, self.rho, self.y, residual, self.map.adjoint_operator(self.y + self.rho * residual)
        return self._at[4:]

    def value(self, L: np.ndarray, R: np.ndarray) -> float:
        residual, _ = self._parts(L, R)
        size = 0.5 * (np.vdot(L, L) + np.vdot(R, R))
        return float(size + self.y @ residual + 0.5 * self.rho * (residual @ residual))

    def gradient(self, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, S = self._parts(L, R)
        return L - S @ R, R - S.T @ L

    def hessian(self, L: np.ndarray, R: np.ndarray, U: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, S = self._parts(L, R)
        moved = self.map.adjoint_operator(self.rho * self.map.forward_factored(np.hstack([U, L]), np.hstack([R, V])))
        return U - S @ V + moved @ R, V - S.T @ U + moved.T @ L

    def problem(self, width: int) -> Any:
        """The problem on balanced pairs of this width, for pymanopt."""
        from pymanopt import Problem
        from pymanopt.function import numpy as function

        from balancedfact.manifolds import BalancedPairs

        d1, d2 = self.map.matrix_shape
        manifold = BalancedPairs(d1, d2, width)
        cost, gradient, hessian = (function(manifold)(one) for one in (self.value, self.gradient, self.hessian))
        return Problem(manifold, cost, euclidean_gradient=gradient, euclidean_hessian=hessian)
