"""The flattest factorization of a given matrix, by Riemannian search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import magnitude
from balancedfact._validate import as_array, as_number, as_rng, as_widths
from balancedfact.closed_forms import min_isotropic_trace
from balancedfact.curvature import isotropic_trace, scaled_trace
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Solution
from balancedfact.solvers.fibre._chain_newton import Run
from balancedfact.solvers.fibre._fibre import Fibre
from balancedfact.solvers.fibre._induced_regularizer import judged
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback, Log
from balancedfact.solvers.iteration._nothing import nothing
from balancedfact.solvers.riemannian._spectral_orbit import SEARCH, SpectralOrbit, as_factorization, of_nothing


def flattest_factorization(
    M: ArrayLike,
    widths: Sequence[int],
    A: MeasurementMap | None = None,
    *,
    tol: float = 1e-12,
    rng: int | np.random.Generator | None = None,
    initial: Sequence[ArrayLike] | None = None,
    limits: Limits | None = None,
    callback: Callback | None = None,
    progress: bool | None = None,
) -> Solution:
    r"""Find the flattest factorization of a given matrix by a search over all of its factorizations.

    Over the layers with :math:`W_L\cdots W_1 = M` it minimises

    - without measurements, the isotropic trace :math:`R(W) = \sum_j\|C_j\|_F^2\|B_{j-1}\|_F^2`, with
      :math:`C_j = W_L\cdots W_{j+1}` and :math:`B_{j-1} = W_{j-1}\cdots W_1`;
    - with measurements and two layers, ``[R.T, L]``, the scaled trace :math:`2m(\|D_1L\|_F^2 + \|D_2R\|_F^2)`;
    - with measurements and more layers, the trace of the Hessian of :math:`\frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`,

    from a random point of `balancedfact.manifolds.Factorizations` or from given layers. For the first two there are closed
    forms (`balancedfact.closed_forms`): here one can see that a search which knows nothing of them arrives at the same value.

    Parameters
    ----------
    M : array_like, shape (d_L, d_0)
        The matrix.
    widths : list of int
        :math:`d_0, \dots, d_L`, the hidden ones at least the rank of `M`.
    A : MeasurementMap, optional
        Measurements of matrices of the shape of `M`.
    tol : float
        Relative gap between value and lower bound at which to stop; at least ``16 * L * eps`` is used, which is rounding error.
    rng : int or numpy.random.Generator, optional
        The random point to start from.
    initial : list of array_like, optional
        Layers ``[W_1, ..., W_L]`` with the product `M` to start from, of any hidden widths.
    limits : Limits, optional
        Time and iterations after which to stop, with the best point and ``Status.LIMIT``.
    callback : callable, optional
        Called with the newest record of `Solution.history`; returning ``True`` or raising ``StopIteration`` stops the search
        as a limit does.
    progress : bool, optional
        Show the gap. By default on a terminal only.

    Returns
    -------
    Solution
        With `value` the function above and a `lower_bound` that geodesic convexity proves; ``Status.OPTIMAL`` where the gap
        closes. ``Status.UNATTAINED`` where measurements do not see some part of `M` from one side, so that no layers attain the
        infimum. `feasibility` is the relative error of the product. `Solution.history` has the columns ``iteration``,
        ``seconds``, ``value``, ``lower_bound``, ``gap``, ``stationarity`` and ``inner``, the products of the Hessian.
        ``KeyboardInterrupt`` ends the search with the best point so far and ``Status.INTERRUPTED``.

    Raises
    ------
    ValueError
        If an argument is malformed, a hidden width is below the rank of `M`, or `initial` has another product.

    See Also
    --------
    induced_regularizer : The same trace of the Hessian from a start that is good already.
    balanced_factorization : The layers of least sum of squares.
    balancedfact.manifolds.Factorizations : The set over which it minimises.

    Notes
    -----
    **Width.** Projecting hidden layers on what they pass on keeps the product and lowers each of the three functions, so a
    flattest factorization has layers of rank :math:`r = \operatorname{rank}M`. The search runs at width `r`, where the
    factorizations are one orbit of :math:`GL(r)^{L-1}`, and the result is padded with zeros; at larger widths
    the set of all factorizations is singular at its flattest points.

    **Geometry.** None of the functions changes when hidden spaces are rotated. What remains of the orbit is a product of cones
    of positive-definite matrices, and on it they are geodesically convex: every stationary point is the global minimum, and
    every point gives a lower bound, the value less :math:`L/2` times the nuclear norms of the geodesic gradient. With
    :math:`\Gamma_k`, :math:`\beta_k` the two parts of the gradient at layer `k`, the Hessian is
    :math:`H\mapsto\tfrac12\{\Gamma_k+\beta_k, H_k\}` and couplings of neighbours, which for an isotropic trace are of rank one.
    That closed form is inverted exactly and is the preconditioner of the conjugate gradients inside Newton's method, so that
    neither the depth nor the condition number of `M` costs more than a few steps.

    **Known values**: :math:`R(W)\ge L(d_0d_L)^{1/L}\|M\|_*^{2-2/L}`, and the scaled trace is at least :math:`4m\|D_1MD_2\|_*`.

    References
    ----------
    Gatmiry et al. 2023, Lemma 4 (with the constants corrected); Ding et al. 2022; Kempf, Ness 1979 (convexity along orbits).

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
    depth = len(sizes) - 1
    start = None if initial is None else as_factorization(initial, M, depth)
    if not np.any(M):
        return of_nothing(sizes, "no factorization has a negative trace")
    log = Log(callback, progress, limits)
    orbit = run = fibre = minimum = None
    with log:
        orbit = SpectralOrbit(M, sizes)
        begin = orbit.random(generator) if start is None else start
        if A is None:
            run = orbit.descend(begin, tol, log)
        else:
            fibre = Fibre(M, A, depth)
            scaled = A.m / np.sqrt(M.size) if depth == 2 else 1.0  # the least scaled trace in units of the least trace
            minimum = fibre.minimum(tol, log, begin, scaled)
    if run is not None and orbit is not None:
        return log.insist(_isotropic, orbit, run, log)
    if fibre is None or minimum is None:
        return nothing(sizes, log, SEARCH)
    solution = replace(log.insist(judged, fibre, minimum, sizes[1:-1], log), method=SEARCH)
    return solution if depth > 2 or A is None else log.insist(_scaled, solution, A)


def _isotropic(orbit: SpectralOrbit, run: Run, log: Log) -> Solution:
    """The solution without measurements."""
    layers, feasibility = orbit.layers(run)
    balance = np.nan
    if orbit.depth == 2:
        balance = _unbalanced(np.sqrt(orbit.widths[0]) * layers[1], np.sqrt(orbit.widths[-1]) * layers[0].T)
    known, value = min_isotropic_trace(orbit.M, orbit.depth), isotropic_trace(layers)
    return orbit.concluded(layers, value, feasibility, run, log, known, "Gatmiry et al., Lemma 4,", balance)


def _scaled(solution: Solution, A: MeasurementMap) -> Solution:
    """The pair of least trace as one of least scaled trace, which differs from it by a factor of `L` and its inverse of `R`."""
    d1, d2 = A.matrix_shape
    stretch = (d2 / d1) ** 0.25
    layers = [solution.layers[0] / stretch, solution.layers[1] * stretch]
    value, bound = scaled_trace(layers[1], layers[0].T, A), solution.certificate.lower_bound * A.m / np.sqrt(d1 * d2)
    certificate = replace(
        solution.certificate,
        lower_bound=min(bound, value),
        gap=max(1 - bound / value, 0.0) if value > 0 else 0.0,
        balance=_unbalanced(A.rescale_left(layers[1]), A.rescale_right(layers[0].T)),
    )
    return replace(solution, layers=layers, value=value, certificate=certificate)


def _unbalanced(left: np.ndarray, right: np.ndarray) -> float:
    """The distance between the Gram matrices of two factors, relative to these."""
    size = magnitude(left)
    left, right = left / size, right / size
    one, other = left.T @ left, right.T @ right
    total = float(np.linalg.norm(one + other))
    return float(np.linalg.norm(one - other)) / total if total > 0 else 0.0
