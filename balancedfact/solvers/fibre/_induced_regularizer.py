"""The flattest factorization of a given matrix: the induced regularizer of deep matrix factorization, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_array, as_count, as_depth, as_number
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.fibre._chain_newton import Ending
from balancedfact.solvers.fibre._fibre import Fibre, FibreMinimum
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback, Log, interrupts_pass
from balancedfact.solvers.iteration._nothing import nothing

_NEWTON_ON_CONES = "Newton on a chain of cones"
_PROOF_OF_TRACE = (
    "The problem is geodesically convex, so its stationary points are global minima; away from them the bound is the value "
    "less L/2 times the nuclear norms of the geodesic gradient. Rigorous up to rounding errors."
)


def induced_regularizer(
    M: ArrayLike,
    A: MeasurementMap,
    depth: int,
    *,
    tol: float = 1e-12,
    widths: Sequence[int] | None = None,
    limits: Limits | None = None,
    callback: Callback | None = None,
) -> Solution:
    r"""Find the flattest factorization of a given matrix: the global minimum of the trace of the Hessian.

    Over all factorizations :math:`M = W_L\cdots W_1`, of any hidden widths,

    .. math:: F(M) = \min \operatorname{tr}\nabla^2\mathcal L(W), \qquad
              \mathcal L(W) = \tfrac1m\|\mathcal A(W_L\cdots W_1) - b\|^2,

    which does not depend on `b`, nor on the hidden widths once these are at least the rank of `M`. Minimising the trace over
    the weights that fit data is minimising `F` over the matrices that fit them: `F` is the regularizer that flatness induces.

    Parameters
    ----------
    M : array_like, shape (d1, d2)
        The matrix to factor.
    A : MeasurementMap
        Measurements of ``d1 x d2`` matrices.
    depth : int
        The number of layers `L`, at least 2.
    tol : float
        Relative gap between value and lower bound at which to stop; at least ``16 * depth * eps`` is used, which is rounding
        error.
    widths : sequence of int, optional
        The sizes ``[d2, d_1, ..., d_{L-1}, d1]`` of the layers, none below the numerical rank of `M`. By default all hidden
        widths are that rank (1 for a zero matrix); units beyond it are zero.
    limits : Limits, optional
        Time and iterations after which to stop, with the best point and ``Status.LIMIT``.
    callback : callable, optional
        Called once per iteration with the newest record of `Solution.history`; returning ``True`` or raising ``StopIteration``
        stops the solve as a limit does.

    Returns
    -------
    Solution
        `value` is `F(M)`, attained by `layers`. The certificate holds a lower bound on the trace over *all* factorizations, of
        any width, and the norm of the geodesic gradient of its logarithm (`stationarity`).
        Where the infimum is attained by no layers, the status is ``UNATTAINED``, `value` is the trace of the layers returned,
        and ``certificate.direction``, shape ``(L - 1, r, r)``, holds symmetric matrices `H_j` such that the layers
        ``expm(t * H_j) @ W_j @ expm(-t * H_{j-1})``, with `H_0` and `H_L` zero, multiply to `M` for every `t` and lead towards
        the infimum as `t` grows.

    Raises
    ------
    ValueError
        If `M` is not a finite real matrix of the shape that `A` measures, `depth` is below 2, `tol` is not positive, or
        `widths` does not fit.

    See Also
    --------
    induced_regularizer_gradient : The value with its gradient.

    Notes
    -----
    With ``M = hi @ lo`` and ``K_i = lo @ A_i.T @ hi``, factorizations of width ``r = rank(M)`` correspond to positive-definite
    matrices :math:`P_1, \dots, P_{L-1}`, and

    .. math:: \tfrac m2 F(M) = \inf_P \operatorname{tr}(P_1^{-1}S_a) + \sum_{j=2}^{L-1}\sum_i
              \operatorname{tr}(P_{j-1}K_iP_j^{-1}K_i^\top) + \operatorname{tr}(P_{L-1}S_b),

    a geodesically convex problem: every stationary point is a global minimum. It is solved by Newton's method. After one pass
    over the data the cost depends on `r` and `L`, and on `m` only while that is small. Depth 2 needs no iteration:
    ``4 * sqrt(d1 * d2)`` times the nuclear norm of ``D1 @ M @ D2``.

    **The lower bound** holds at every point `P` at which the `L` terms are equal, which multiples of the `P_j` make them. With
    :math:`f` the function above and :math:`\nabla_j` its gradient at :math:`P_j` in the frame where :math:`P_j = I`,

    .. math:: \inf f \ge f - \tfrac L2 \sum_j \|\nabla_j\|_* .

    **What no measurement sees.** Directions that `A` does not see from either side are split off exactly. Those seen from one
    side only make the infimum unattained, and their cost is zero. Singular values of `M` below rounding error are dropped.

    References
    ----------
    Gatmiry et al. 2023 pose the problem for general measurements and solve it for isotropic ones, for two layers and for a
    single measurement (Theorems 1, 5, 7). The general solution and its certificate are explained in the documentation, under
    "Induced regularizer".

    Chapter :doc:`/theory/induced_regularizer`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(30, (6, 5), rng=0)
    >>> M = np.outer(np.arange(6.0), np.ones(5))
    >>> solution = bf.induced_regularizer(M, A, depth=4)
    >>> solution.status.ok, bool(np.allclose(solution.matrix, M))
    (True, True)
    >>> bool(np.isclose(bf.curvature.trace(solution.layers, A), solution.value))
    True
    """
    matrix, depth, tol = _checked(M, A, depth, tol)
    given = None if widths is None else _checked_widths(widths, matrix.shape, depth)
    log = Log(callback, False, limits)
    fibre = minimum = None
    with log:
        fibre = Fibre(matrix, A, depth)
        if given is not None and min(given) < fibre.rank:
            raise ValueError(f"widths is {given}; expected at least {fibre.rank}, the numerical rank of M, everywhere")
        minimum = fibre.minimum(tol, log)
    if fibre is None or minimum is None:
        return nothing(given or [matrix.shape[1], *[1] * (depth - 1), matrix.shape[0]], log, _NEWTON_ON_CONES)
    hidden = [max(fibre.rank, 1)] * (depth - 1) if given is None else given[1:-1]
    return log.insist(judged, fibre, minimum, hidden, log)


def judged(fibre: Fibre, minimum: FibreMinimum, hidden: list[int], log: Log) -> Solution:
    """The layers of the minimum, with their certificate and the verdict."""
    layers, value, residual = fibre.layers(minimum, hidden)
    lower = min(fibre.value(minimum.lower), value)  # rounding may lift a bound that is attained
    certificate = Certificate(
        feasibility=residual,
        lower_bound=lower,
        gap=1 - lower / value if value > 0 else 0.0,
        stationarity=minimum.stationarity,
        direction=fibre.direction(minimum),
        proof=_PROOF_OF_TRACE,
    )
    status, message = _verdict(fibre, minimum, certificate, log)
    return Solution(layers, value, status, message, certificate, minimum.history, _NEWTON_ON_CONES)


def induced_regularizer_gradient(
    M: ArrayLike, A: MeasurementMap, depth: int, *, tol: float = 1e-12
) -> tuple[float, np.ndarray]:
    r"""The induced regularizer and its gradient with respect to the matrix.

    By the envelope theorem, the derivative of the minimum :math:`F(M)` is the derivative of the trace at the minimising layers,
    along any motion of these that moves their product as wanted.

    Parameters
    ----------
    M : array_like, shape (d1, d2)
        The matrix.
    A : MeasurementMap
        Measurements of ``d1 x d2`` matrices.
    depth : int
        The number of layers `L`, at least 2.
    tol : float
        Relative gap at which to stop.

    Returns
    -------
    value : float
        The infimum `F(M)` of the trace of the Hessian over all factorizations of `M`, attained or not.
    gradient : numpy.ndarray, shape (d1, d2)
        The gradient of `F` along the matrices of the rank of `M`: for every curve `M(t)` of matrices of that rank through `M`,
        ``F(M(t))`` has derivative ``np.vdot(gradient, dM)``. For `M` of full rank these are all matrices near `M`.

    Raises
    ------
    ValueError
        As `induced_regularizer` does.
    KeyboardInterrupt
        If the user stops it: short of the minimum there is no gradient.

    See Also
    --------
    induced_regularizer : The value with layers that attain it.

    Notes
    -----
    At a rank-deficient `M` the function has a kink across the matrices of its rank, like the nuclear norm, which it is for two
    layers: only derivatives along these exist, and `gradient` lies in their tangent space. `F` is homogeneous of degree
    ``2 - 2 / L``, so ``np.vdot(gradient, M) == (2 - 2 / L) * value``.

    Where `A` does not see some directions, `F` depends on ``Q1 @ M @ Q2`` alone, with the projections on what `A` sees on
    either side. The gradient is then along curves on which the rank of that matrix stays.

    The gradient costs ``2 L`` second moments of `A`.

    References
    ----------
    Chapter :doc:`/theory/induced_regularizer`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(30, (4, 4), rng=0)
    >>> M = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> value, gradient = bf.induced_regularizer_gradient(M, A, depth=3)
    >>> step = 1e-6 * np.ones((4, 4))
    >>> change = bf.induced_regularizer(M + step, A, 3).value - bf.induced_regularizer(M - step, A, 3).value
    >>> bool(np.isclose(change, 2 * np.vdot(gradient, step)))
    True
    """
    matrix, depth, tol = _checked(M, A, depth, tol)
    fibre = Fibre(matrix, A, depth)
    with interrupts_pass():
        minimum = fibre.minimum(tol, Log(progress=False))
    return fibre.value(minimum.value), fibre.gradient(minimum)


def _checked(M: ArrayLike, A: MeasurementMap, depth: int, tol: float) -> tuple[np.ndarray, int, float]:
    matrix = as_array(M, "M", shape=as_map(A).matrix_shape)
    return matrix, as_depth(depth), as_number(tol, "tol", above=0.0)


def _verdict(fibre: Fibre, minimum: FibreMinimum, certificate: Certificate, log: Log) -> tuple[Status, str]:
    """The verdict of the solve and its sentence."""
    if log.ended is not None:
        return log.ended[0], f"{log.ended[1]} The relative gap is {certificate.gap:.1e}."
    if fibre.blocks[0] or fibre.blocks[3]:
        return Status.UNATTAINED, (
            "Part of the matrix is seen from one side only: its cost vanishes as its weight moves to the layers that hide it, "
            f"so no layers attain the infimum. The value is within a relative {certificate.gap:.1e} of it."
        )
    if minimum.verdict is Ending.UNATTAINED:
        return Status.UNATTAINED, (
            "The infimum is attained by no layers, or only by layers beyond the range of floating point: it lies between the "
            "lower bound and the value, and is approached along the direction of the certificate."
        )
    if minimum.verdict is Ending.MINIMUM:
        return Status.OPTIMAL, f"No factorization of the matrix has a smaller trace, within a relative {certificate.gap:.1e}."
    return Status.GAP_OPEN, f"The descent ended, by rounding errors, at a relative gap of {certificate.gap:.1e}."


def _checked_widths(widths: Sequence[int], shape: tuple[int, int], depth: int) -> list[int]:
    try:
        found = [as_count(width, f"widths[{k}]") for k, width in enumerate(widths)]
    except TypeError:
        raise ValueError(f"widths is {widths!r}; expected a list [d_0, ..., d_L]") from None
    if len(found) != depth + 1 or (found[0], found[-1]) != (shape[1], shape[0]):
        raise ValueError(f"widths is {found}; expected {depth + 1} numbers from {shape[1]} to {shape[0]}")
    return found
