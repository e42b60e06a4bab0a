"""The norm-minimal factorization that fits the data, with its certificate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_array, as_depth, as_number, as_rng
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.solution import Solution
from balancedfact.solvers._methods import as_method
from balancedfact.solvers.deep._schatten import schatten_minimum
from balancedfact.solvers.deep._weight_decay import decayed_network
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback, Log
from balancedfact.solvers.nuclear._algorithm import Algorithm
from balancedfact.solvers.nuclear._certified import as_start, certified_minimum
from balancedfact.solvers.nuclear._finished import finished


def norm_minimum(
    A: MeasurementMap,
    b: ArrayLike,
    *,
    depth: int = 2,
    method: str | Algorithm | None = None,
    penalty: float = 0.0,
    offset_penalty: float | None = None,
    max_rank: int | None = None,
    tol: float = 1e-8,
    rng: int | np.random.Generator | None = None,
    initial: tuple[ArrayLike, ArrayLike] | None = None,
    limits: Limits | None = None,
    callback: Callback | None = None,
    progress: bool | None = None,
) -> Solution:
    r"""Find the norm-minimal factorization that fits the data, and prove it.

    With ``penalty = 0``, among all pairs of any width that interpolate, one of least norm; its product has the least
    nuclear norm:

    .. math:: \min_{\mathcal A(LR^\top) = b} \|L\|_F^2 + \|R\|_F^2 = \min_{\mathcal A(X) = b} 2\,\|X\|_*.

    With a positive penalty, :math:`\min_X \tfrac12\|\mathcal A(X) - b\|^2 + \text{penalty}\cdot\|X\|_*`, returned as the
    balanced pair of its minimiser. Replacing `X` by ``D1 X D2`` in the norm gives the flat pair (`flat_minimum`): the two
    problems have the same solutions when the rescalings `D1` and `D2` are multiples of the identity.

    At depth `L`, layers that fit and have the least sum of squares have an end-to-end matrix of least Schatten quasi-norm,

    .. math:: \min_{\mathcal A(W_L\cdots W_1) = b}\sum_j\|W_j\|_F^2 = \min_{\mathcal A(E) = b} L\,\|E\|_{S_{2/L}}^{2/L},

    and a positive penalty is weight decay, as at depth two,

    .. math:: \min_{W}\ \tfrac12\|\mathcal A(W_L\cdots W_1) - b\|^2 + \tfrac12\,\text{penalty}\sum_j\|W_j\|_F^2
              = \min_E \tfrac12\|\mathcal A(E) - b\|^2 + \tfrac12\,\text{penalty}\,L\,\|E\|_{S_{2/L}}^{2/L},

    Beyond two layers neither problem is convex: the result is a local minimum, proved global only where the bound closes.

    Parameters
    ----------
    A : MeasurementMap
        `m` measurements of ``d1 x d2`` matrices.
    b : array_like, shape (m,)
        The data.
    depth : int
        The number of layers `L`, at least 2. Beyond two `offset_penalty` and `max_rank` are not available;
        `closed_forms.schatten_shrinkage` has the penalised solution for a fully observed matrix.
    method : str or Algorithm, optional
        As in `flat_minimum`. Beyond two layers it names the algorithm for the least nuclear norm, from which the search for an
        interpolation starts; with a penalty it plays no part there.
    penalty : float
        Weight of the nuclear norm, or of half the sum of squares of the layers; 0 interpolates.
    offset_penalty : float, optional
        Weight of the squares of row and column offsets, for `Entries` with a penalty, as in `flat_minimum`.
    max_rank : int, optional
        Largest number of columns of the factors; as in `flat_minimum`, the search goes straight to that rank where there are
        more data than matrices of that rank have parameters.
    tol : float
        Relative gap between value and lower bound at which to stop. Without a penalty, beyond two layers, this is the gap of
        the least nuclear norm, and ``OPTIMAL`` needs a gap of 1e-8.
    rng : int or numpy.random.Generator, optional
        Randomness of the starting vectors of iterative linear algebra.
    initial : tuple of array_like, optional
        A pair ``(L, R)`` to start from, at any depth. Beyond two layers the search starts from the product ``L @ R.T``; by
        default from the matrix of least nuclear norm, or with a penalty from ridge regression. Where it ends may depend on
        where it starts.
    limits : Limits, optional
        Time and iterations after which to stop, with the best point and ``Status.LIMIT``.
    callback : callable, optional
        Called once per iteration with the newest record of `Solution.history`, a dictionary of floats. Returning ``True`` or
        raising ``StopIteration`` stops the solve as a limit does.
    progress : bool, optional
        Show the gap as it closes. By default on a terminal only.

    Returns
    -------
    Solution
        A balanced pair, ``L.T @ L = R.T @ R``. The dual vector `y` of its certificate satisfies ``norm(A.adjoint(y), 2) <=
        1`` (or `penalty`), and the lower bound is ``2 b.y`` (or ``b.y - y.y / 2``).
        Beyond two layers, balanced layers whose hidden widths are the rank. The lower bound is `L` times the proved least
        nuclear norm to the power ``2 / L``: it closes at rank one. Elsewhere the status is ``STATIONARY`` for a local minimum
        to second order: `stationarity` is the relative size of the gradient along the layers that fit, and `curvature` the
        least eigenvalue of the Lagrangian's Hessian on their tangent space; the latter is zero where nothing but rotations of
        the hidden spaces is free. With a penalty the search also visits the stationary points of every lower rank, down to
        zero layers; it returns the best, and the message lists the others. The lower bound then closes where zero is best;
        where the data determine the matrix and no singular value is about to collapse; and at rank one, where the nuclear
        norm with the slope of the penalty has the same minimiser.

    Raises
    ------
    ValueError
        If an argument is malformed. Data that contradict one another are ``Status.INFEASIBLE``, as in `flat_minimum`.
    MemoryError
        If the solve would take more memory than is free.

    See Also
    --------
    flat_minimum : Least trace in place of least norm.
    balancedfact.closed_forms.balanced_pair : The norm-minimal factors of a given matrix.
    balancedfact.closed_forms.schatten_layers : The same for more layers.

    Notes
    -----
    Beyond two layers a fit of rank `r` with no other fit of that rank near it is a strict local minimum, whatever its norm:
    another singular value `s` costs ``L * s**(2 / L)`` and gains no more than a multiple of `s`. So there are local minima of
    different ranks.

    References
    ----------
    Ding et al. 2022, section on norm-minimal solutions; Recht, Fazel, Parrilo 2010 for the nuclear norm.
    Kuemmerle, Sigl, "Harmonic mean iteratively reweighted least squares for low-rank matrix recovery", 2018.
    Wang, Jacot, "Implicit bias of SGD in L2-regularized linear DNNs: one-way jumps from high to low rank", 2024.

    Chapters :doc:`/theory/two_factors` and :doc:`/theory/weight_decay`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.standard_normal((12, 2)) @ rng.standard_normal((2, 10))
    >>> A = bf.measurements.gaussian(100, truth.shape, rng)
    >>> solution = bf.norm_minimum(A, A(truth))
    >>> bool(np.isclose(solution.value, 2 * np.linalg.norm(truth, "nuc")))
    True
    """
    layers, named = as_depth(depth), as_method(method)
    if layers > 2:
        for name, value in (("offset_penalty", offset_penalty), ("max_rank", max_rank)):
            if value is not None:
                raise ValueError(f"{name} is {value!r} at depth {layers}; expected None, beyond two layers")
        penalty = as_number(penalty, "penalty", least=0.0)
    if layers == 2:
        solution = certified_minimum(
            A,
            b,
            flat=False,
            penalty=penalty,
            offset_penalty=offset_penalty,
            method=named,
            max_rank=max_rank,
            tol=tol,
            rng=rng,
            initial=initial,
            limits=limits,
            callback=callback,
            progress=progress,
        )
        return finished(solution, A, b, flat=False, penalty=penalty, offset_penalty=offset_penalty)
    data, as_tol = as_array(b, "b", shape=(as_map(A).m,)), as_number(tol, "tol", above=0.0)
    start = None
    if initial is not None:
        left, right = as_start(initial, A)
        start = left @ right.T
    log = Log(callback, progress, limits)
    if penalty > 0:
        as_rng(rng)
        return decayed_network(A, data, layers, penalty, start, as_tol, log)
    # The least nuclear norm is where the search starts and what its bound comes from.
    nuclear = norm_minimum(A, b, method=named, tol=as_tol, rng=rng, limits=limits, progress=False)
    return schatten_minimum(A, data, layers, nuclear, start, log)
