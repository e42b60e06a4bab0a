"""The flattest factorization of a given matrix, by Riemannian search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import EPS, frobenius, magnitude, product
from balancedfact._pymanopt_draws import pymanopt_draws
from balancedfact._validate import as_array, as_number, as_rng, as_widths
from balancedfact.curvature import isotropic_trace, scaled_trace, trace, trace_gradient, trace_hessian_vector_product
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback, Log
from balancedfact.solvers.iteration._nothing import nothing
from balancedfact.solvers.riemannian._orbit_cost import OrbitCost
from balancedfact.solvers.riemannian._search import CLOSED, Search

_ORBIT_POINTS = 1000  # points of a search


def flattest_factorization(
    M: ArrayLike,
    widths: Sequence[int],
    A: MeasurementMap | None = None,
    *,
    tol: float = 1e-8,
    rng: int | np.random.Generator | None = None,
    limits: Limits | None = None,
    callback: Callback | None = None,
    progress: bool | None = None,
) -> Solution:
    r"""Find the flattest factorization of a given matrix by a search over all of its factorizations.

    Over the layers with :math:`W_L\cdots W_1 = M` it minimises

    - without measurements, the isotropic trace :math:`R(W)`;
    - with measurements and two layers, the scaled trace :math:`2m(\|D_1L\|_F^2 + \|D_2R\|_F^2)`;
    - with measurements and more layers, the trace of the Hessian,

    by trust regions on `balancedfact.manifolds.Factorizations`, from a random point. For the first two there are closed forms
    (`balancedfact.closed_forms`): here one can see that a search which knows nothing of them arrives at the same value.

    Parameters
    ----------
    M : array_like, shape (d_L, d_0)
        The matrix.
    widths : list of int
        :math:`d_0, \dots, d_L`, the hidden ones at least the rank of `M`.
    A : MeasurementMap, optional
        Measurements of matrices of the shape of `M`.
    tol : float
        Relative gradient at which to stop, see `balancedfact.riemannian_minimum`.
    rng : int or numpy.random.Generator, optional
        The random point to start from.
    limits : Limits, optional
        Time and iterations after which to stop, with the best point and ``Status.LIMIT``.
    callback : callable, optional
        Called with the newest record of `Solution.history`; returning ``True`` or raising ``StopIteration`` stops the search
        as a limit does.
    progress : bool, optional
        Show value and gradient. By default on a terminal only.

    Returns
    -------
    Solution
        With `value` the function above. Where the least value is known it is the `lower_bound`, and the status is
        ``Status.OPTIMAL`` if the gap is at most 1e-9; the trace of the Hessian at depth 3 or more has no such bound, and
        ``Status.STATIONARY`` says all. ``Status.UNATTAINED`` where measurements do not see some part of `M` from one side, so
        that the infimum is not attained. `feasibility` is the relative error of the product. ``KeyboardInterrupt`` ends the
        search with the best point so far and ``Status.INTERRUPTED``.

    Raises
    ------
    ValueError
        If an argument is malformed or a hidden width is below the rank of `M`.

    See Also
    --------
    induced_regularizer : The same with a proof.
    balancedfact.manifolds.Factorizations : The set over which it minimises.

    Notes
    -----
    **Width.** Projecting hidden layers on what they pass on keeps the product and lowers each of the three functions, so a
    flattest factorization has layers of rank :math:`r = \operatorname{rank}M`. The search runs at width `r`, where the
    factorizations are one orbit of :math:`GL(r)^{L-1}`, and the result is padded with zeros; at larger widths
    the set of all factorizations is singular at its flattest points. The first two functions are searched on the diagonal
    matrix of singular values, at a cost that does not depend on the sizes of `M`.

    **All stationary points are global minima**: the functions are geodesically convex on the orbit. There is no saddle to
    escape from, and 100 of 100 random starts should arrive.

    **Bounds**: :math:`R(W)\ge L(d_0d_L)^{1/L}\|M\|_*^{2-2/L}`, and the scaled trace is at least :math:`4m\|D_1MD_2\|_*`.

    References
    ----------
    Gatmiry et al. 2023, Lemma 4 (with the constants corrected); Ding et al. 2022.

    Chapters :doc:`/theory/deep_manifolds` and :doc:`/theory/induced_regularizer`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> M = np.outer([1.0, 2.0, 2.0], [3.0, 4.0])
    >>> solution = bf.flattest_factorization(M, [2, 1, 1, 3], rng=0)
    >>> print(f"{solution.value:.9f} {3 * 6 ** (1 / 3) * 15 ** (4 / 3):.9f}", solution.status.ok)
    201.663213595 201.663213595 True
    """
    M = as_array(M, "M", ndim=2)
    sizes = as_widths(widths, M.shape)
    if A is not None and (not isinstance(A, MeasurementMap) or A.matrix_shape != M.shape):
        found = f"measures shape {A.matrix_shape}" if isinstance(A, MeasurementMap) else f"is {type(A).__name__}"
        raise ValueError(f"A {found}; expected a measurement map of shape {M.shape}, that of M")
    tol = as_number(tol, "tol", above=0.0)
    generator = as_rng(rng)
    if not np.any(M):
        layers = [np.zeros((rows, columns)) for rows, columns in zip(sizes[1:], sizes[:-1], strict=True)]
        certificate = Certificate(0.0, 0.0, 0.0, stationarity=0.0, proof="no factorization has a negative trace")
        return Solution(layers, 0.0, Status.OPTIMAL, "M is zero, and so are the layers.", certificate, {}, "closed form")
    log = Log(callback, progress, limits)
    orbit = search = None
    with pymanopt_draws(generator), log:
        size = magnitude(M)
        U, s, Vt = np.linalg.svd(M / size, full_matrices=False)
        rank = int(np.count_nonzero(s > max(M.shape) * EPS * s[0]))
        if min(sizes[1:-1]) < rank:
            raise ValueError(f"widths has a hidden width of {min(sizes[1:-1])}; expected at least {rank}, the rank of M")
        # Of nuclear norm one, so that layers are of ordinary size.
        size *= float(s.sum())
        s = s[:rank] / s.sum()
        orbit = _Orbit(U[:, :rank], s, Vt[:rank], sizes, A)
        search = Search(orbit.problem(), tol, _ORBIT_POINTS, log, orbit.units(size))
        search.run(search.manifold.random_point())
    if orbit is None or search is None or search.point is None:
        return nothing(sizes, log, "riemannian")
    return log.insist(orbit.solution, search, M, size)


class _Orbit:
    """The factorizations of ``U diag(s) Vt`` at hidden width ``rank M``, and the function on them.

    For the trace of the Hessian the layers are those of that matrix; for the other two, those of ``diag(s)``.
    """

    def __init__(self, U: np.ndarray, s: np.ndarray, Vt: np.ndarray, widths: list[int], A: MeasurementMap | None) -> None:
        self.U, self.s, self.Vt, self.widths, self.A = U, s, Vt, widths, A
        self.depth, r = len(widths) - 1, len(s)
        self.whole = A is not None and self.depth > 2
        self.bound = self.weight = np.nan
        self.attained = True
        if self.whole and A is not None:
            self.weight = A.scale * A.scale  # the squares of a gradient of the map itself might vanish or overflow
        elif A is None:
            self.weight = 1.0
            self.ends = widths[0] * np.eye(r), widths[-1] * np.eye(r)
            self.bound = self.depth * float(widths[0] * widths[-1]) ** (1 / self.depth)
        elif self.depth == 2:
            self.weight = 2 * A.m * A.scale**2
            left, right = A.rescale_left(U), A.rescale_right(Vt.T)
            self.ends = left.T @ left, right.T @ right
            core = (np.linalg.qr(left)[1] * s) @ np.linalg.qr(right)[1].T
            self.bound = 2 * float(np.linalg.svd(core, compute_uv=False).sum())
            spread = [np.linalg.svd(X, compute_uv=False) for X in (left, right)]
            blind = not (left.any() or right.any())  # all traces are zero
            self.attained = blind or all(len(x) == r and x[-1] > 1e-13 * x[0] for x in spread)

    def units(self, size: float) -> float:
        """The user's value per unit of the function searched."""
        power = size ** (1 - 1 / self.depth)
        return power * power * self.weight

    def problem(self) -> Any:
        from pymanopt import Problem
        from pymanopt.function import numpy as function

        from balancedfact.manifolds import Factorizations

        r, depth = len(self.s), self.depth
        if self.whole:
            assert self.A is not None
            moment = self.A.at_unit_scale().second_moment()
            manifold = Factorizations((self.U * self.s) @ self.Vt, [self.widths[0], *[r] * (depth - 1), self.widths[-1]])

            def value(*W: np.ndarray) -> float:
                return trace(list(W), moment)

            def gradient(*W: np.ndarray) -> list[np.ndarray]:
                return trace_gradient(W, moment)

            def hessian(*WV: np.ndarray) -> list[np.ndarray]:
                return trace_hessian_vector_product(WV[:depth], WV[depth:], moment)
        else:
            cost = OrbitCost(*self.ends)
            manifold = Factorizations(np.diag(self.s), [r] * (depth + 1))

            def value(*W: np.ndarray) -> float:
                return cost.value(*W)

            def gradient(*W: np.ndarray) -> list[np.ndarray]:
                return cost.gradient(*W)

            def hessian(*WV: np.ndarray) -> list[np.ndarray]:
                return cost.hessian(*WV)

        wrapped = [function(manifold)(one) for one in (value, gradient, hessian)]
        return Problem(manifold, wrapped[0], euclidean_gradient=wrapped[1], euclidean_hessian=wrapped[2])

    def solution(self, search: Search, M: np.ndarray, size: float) -> Solution:
        layers = [np.array(layer) for layer in search.point]
        if not self.whole:
            layers[0], layers[-1] = layers[0] @ self.Vt, self.U @ layers[-1]
        feasibility = frobenius(product(layers) - M / size) / frobenius(M / size)
        lower = self.bound * self.units(size)
        root = size ** (1 / self.depth)
        padded = []
        for layer, rows, columns in zip(layers, self.widths[1:], self.widths[:-1], strict=True):
            padded.append(np.zeros((rows, columns)))
            padded[-1][: layer.shape[0], : layer.shape[1]] = root * layer
        found, gap, balance = search.certificate(), np.nan, np.nan
        if not self.whole:
            gap = max(search.value - self.bound, 0.0) / search.value if search.value > 0 else 0.0
        if self.depth == 2:
            P, Q = self.ends
            low, high = search.point[0] @ Q @ search.point[0].T, search.point[1].T @ P @ search.point[1]
            balance = float(np.linalg.norm(low - high) / np.linalg.norm(low + high)) if np.any(low + high) else 0.0
        status, message = search.verdict()
        proof = (
            "Gatmiry et al., Lemma 4" if self.A is None else "Ding et al.: no factorization of M is below 4 m nuclear(D1 M D2)"
        )
        if self.whole:
            proof = "stationary points are global minima, by geodesic convexity; no numerical bound"
        if not search.log.ended and not self.attained:
            status = Status.UNATTAINED
            message = f"The measurements do not see all of M, so that the least value may not be attained. {message}"
        elif not search.log.ended and gap <= CLOSED:
            status, message = Status.OPTIMAL, f"Optimal: no factorization is flatter by more than a relative {gap:.1e}."
        certificate = Certificate(
            feasibility,
            lower,
            gap,
            stationarity=found.stationarity,
            balance=balance,
            curvature=found.curvature,
            proof=proof,
        )
        if self.A is None:
            value = isotropic_trace(padded)
        else:
            value = trace(padded, self.A) if self.whole else scaled_trace(padded[1], padded[0].T, self.A)
        return Solution(padded, value, status, message, certificate, search.log.history, "riemannian")
