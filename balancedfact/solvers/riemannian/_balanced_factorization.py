"""Balanced layers of a given matrix, by Riemannian search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import frobenius
from balancedfact._validate import as_array, as_number, as_rng, as_widths
from balancedfact.closed_forms import schatten_value
from balancedfact.solution import Solution
from balancedfact.solvers.fibre._chain_newton import Run
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback, Log
from balancedfact.solvers.iteration._nothing import nothing
from balancedfact.solvers.riemannian._spectral_orbit import SEARCH, SpectralOrbit, as_factorization, of_nothing


def balanced_factorization(
    M: ArrayLike,
    widths: Sequence[int],
    *,
    tol: float = 1e-12,
    rng: int | np.random.Generator | None = None,
    initial: Sequence[ArrayLike] | None = None,
    limits: Limits | None = None,
    callback: Callback | None = None,
    progress: bool | None = None,
) -> Solution:
    r"""Find balanced layers of a given matrix by a search for the least sum of squares over all of its factorizations.

    Over the layers with :math:`W_L\cdots W_1 = M` it minimises :math:`\sum_k\|W_k\|_F^2`, from a random point of
    `balancedfact.manifolds.Factorizations` or from given layers. The minimum is attained exactly at the balanced layers,
    :math:`W_{k+1}^\top W_{k+1} = W_kW_k^\top`, and is :math:`L\|M\|_{S_{2/L}}^{2/L}`, which the search does not use.

    Parameters
    ----------
    M : array_like, shape (d_L, d_0)
        The matrix.
    widths : list of int
        :math:`d_0, \dots, d_L`, the hidden ones at least the rank of `M`.
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
        With `value` the sum of squares, `balance` the largest relative :math:`\|W_{k+1}^\top W_{k+1} - W_kW_k^\top\|`, and
        `feasibility` the relative error of the product.

    Raises
    ------
    ValueError
        If an argument is malformed, a hidden width is below the rank of `M`, or `initial` has another product.

    See Also
    --------
    balancedfact.closed_forms.schatten_layers : The same layers in closed form, up to rotations of hidden spaces.
    flattest_factorization : The same search for the flattest layers.
    norm_minimum : Over the layers that fit data.

    Notes
    -----
    On the factorizations modulo rotations of the hidden spaces, a product of cones of positive-definite matrices, the sum of
    squares is geodesically convex, as a sum of squares along a group orbit (Kempf and Ness). Newton's method on this
    manifold arrives from everywhere, and every point gives a lower bound.

    References
    ----------
    Kempf, Ness 1979, The length of vectors in representation spaces; Shang, Liu, Cheng 2016 (the value).

    Chapters :doc:`/theory/weight_decay` and :doc:`/theory/deep_manifolds`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> found = bf.balanced_factorization(np.diag([8.0, 1.0]), [2, 3, 3, 2], rng=0)
    >>> print(f"{found.value:.9f} {bf.closed_forms.schatten_value(np.diag([8.0, 1.0]), 3):.9f}")
    15.000000000 15.000000000
    """
    M = as_array(M, "M", ndim=2)
    sizes = as_widths(widths, M.shape)
    tol = as_number(tol, "tol", above=0.0)
    generator = as_rng(rng)
    start = None if initial is None else as_factorization(initial, M, len(sizes) - 1)
    if not np.any(M):
        return of_nothing(sizes, "no sum of squares is negative")
    log = Log(callback, progress, limits)
    orbit = run = None
    with log:
        orbit = SpectralOrbit(M, sizes, light=True)
        begin = orbit.random(generator) if start is None else start
        run = orbit.descend(begin, tol, log)
    if orbit is None or run is None:
        return nothing(sizes, log, SEARCH)
    return log.insist(_solution, orbit, run, log)


def _solution(orbit: SpectralOrbit, run: Run, log: Log) -> Solution:
    from balancedfact.manifolds import BalancedLayers  # pymanopt is imported only by those who use it

    layers, feasibility = orbit.layers(run)
    value = sum(frobenius(W) ** 2 for W in layers)
    share = orbit.size ** (1 / orbit.depth)
    balance = BalancedLayers(orbit.widths).residual([W / share for W in layers])
    known = schatten_value(orbit.M, orbit.depth)
    return orbit.concluded(layers, value, feasibility, run, log, known, "the Schatten quasi-norm of M", balance)
