r"""Flat pairs under measurements by Riemannian search: an augmented Lagrangian on rescaled-balanced pairs.

In the normalised problem `D1` and `D2` are identities, and the isometry of `RescaledBalancedPairs` with `BalancedPairs` has
been applied: over balanced pairs, where :math:`\tfrac12(\|L\|^2 + \|R\|^2)` is the nuclear norm of the product, trust regions
solve

.. math:: \min_{L^\top L = R^\top R} \tfrac12(\|L\|^2 + \|R\|^2) + \tfrac1{2(q+t)}\|b + ty - \mathcal A(LR^\top)\|^2

for a multiplier `y`, which then becomes ``(b + t y - A(L R.T)) / (q + t)``; `t` falls where that does not bring
``b - A(L R.T)`` closer to ``q y`` fast enough. For ``q = 0`` this is the augmented Lagrangian of the data with the parameter
``1 / t``, and in general the proximal-point method on the dual problem (Rockafellar 1976). The multiplier is the dual vector of
the certificate.

The geometry is that of the balanced pairs modulo rotations. A tangent vector of the pair ``(U s^(1/2), V s^(1/2))`` is
horizontal if it does not rotate the pair; balancing the moved pair, which keeps its product, is the retraction, and agrees with
the step up to third order in the objective. Conjugate gradients see the closed-form inverse of the Hessian for an isometry
(`balancedfact.solvers.nuclear._descent`), restricted to horizontal vectors.

The rank goes up and down: padded with zero columns, a pair that is too narrow has negative curvature exactly when
:math:`\|\mathcal A^*(y)\| > 1` (the edge of the manifold, docs/theory/balanced_geometry.md), and the search leaves it there; a
column whose best length is zero goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from balancedfact.solvers.nuclear._active_core import active_core
from balancedfact.solvers.nuclear._algorithm import NO_OFFSETS, Algorithm
from balancedfact.solvers.nuclear._columns import leading
from balancedfact.solvers.nuclear._factored import interpolating
from balancedfact.solvers.nuclear._problem import NuclearProblem, Pair, Point, balanced
from balancedfact.solvers.nuclear._rank_rounds import rank_rounds

_START_WIDTH = 8  # of a random pair; wider ones only take longer to become narrow
_FIRST_SHARE = 0.2  # of the penalty at which the zero matrix is optimal: the first q + t
# What a step of the multiplier should leave of the residual, and by how much `t` falls where it leaves more.
_SLOW, _FALL = 0.5, 10.0
_MOST_FALLS = 4  # below, rounding of the residual would show in the multiplier
_MOST_STALLS = 2  # steps of the multiplier in a row, after these, that leave the residual as it was
_COARSE_START, _FINE_END = 1e-2, 1e-11  # relative gradients of the searches


@dataclass(frozen=True)
class RiemannianSearch(Algorithm):
    """An augmented Lagrangian on rescaled-balanced pairs, by trust regions from a random pair.

    It makes no use of convexity, and arrives at the same value as the other algorithms. It is here for comparison, and to be
    built upon by those who study the manifold itself.

    See Also
    --------
    Factored : Second-order descent on factors.
    balancedfact.manifolds.RescaledBalancedPairs : The manifold it searches.
    select_method : The choice where no method is named; this one is never chosen.

    References
    ----------
    Liu, Shen, Zhou (CS282 report); Absil, Baker, Gallivan 2007 for trust regions; Rockafellar 1976 for the multipliers.

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
        """Yield a point after every step of the multiplier."""
        return augmented_lagrangian(problem, rng, max_rank=max_rank, initial=initial)


def augmented_lagrangian(
    problem: NuclearProblem, rng: np.random.Generator, *, max_rank: int | None = None, initial: Pair | None = None
) -> Iterator[Point]:
    """Yield a point after every step of the multiplier, and for exact data the same moved onto them."""
    A, b, q = problem.map, problem.b, problem.q
    limit = min(A.matrix_shape) if max_rank is None else min(max_rank, *A.matrix_shape)
    norm = float(np.linalg.norm(b))
    L, R = _random_pair(problem, limit, rng) if initial is None else [part[:, :limit] for part in balanced(*initial)[:2]]
    empty = np.zeros((len(L), 0)), np.zeros((len(R), 0))
    largest = float(leading(A.adjoint_for_many(b), 1, *empty, rng, tol=1e-3)[1][0])
    t, y = max(_FIRST_SHARE * largest - q, 0.0), np.zeros(A.m)
    accuracy, before, falls, stalls = _COARSE_START, 1.0, 0, 0
    while True:
        found = rank_rounds(replace(problem, b=b + t * y, q=q + t), L, R, accuracy, limit, rng, horizontal=True)
        L, R, s, y = found[:4]
        off = float(np.linalg.norm(b - A.forward_factored(L, R) - q * y)) / norm
        if s.size > 0:
            yield Point(L, R, s, y)
            if q == 0:
                yield interpolating(problem, L, R, y)
        if accuracy <= _FINE_END and off <= _FINE_END:
            return
        if found.stuck and q > 0 and limit == min(A.matrix_shape):
            yield from active_core(problem, L, R, y, rng)
        if t == 0:
            accuracy = max(0.1 * accuracy, _FINE_END)
            continue
        if off > _SLOW * before and falls < _MOST_FALLS:
            t, falls = t / _FALL, falls + 1
        elif falls == _MOST_FALLS:
            stalls = stalls + 1 if off > 0.9 * before else 0
            if stalls == _MOST_STALLS:
                return
        accuracy, before = max(min(accuracy, 0.1 * off), _FINE_END), off


def _random_pair(problem: NuclearProblem, limit: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A balanced Gaussian pair whose measurements are as large as the data."""
    d1, d2 = problem.map.matrix_shape
    width = min(_START_WIDTH, limit)
    L, R, _ = balanced(rng.standard_normal((d1, width)), rng.standard_normal((d2, width)))
    size = float(np.linalg.norm(problem.map.forward_factored(L, R)))
    root = np.sqrt(np.linalg.norm(problem.b) / size) if size > 0 else 1.0
    return root * L, root * R
