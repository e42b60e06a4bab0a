"""The flattest factorization that fits the data, with its certificate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_depth, as_number
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Solution
from balancedfact.solvers._methods import as_method
from balancedfact.solvers.deep._flat_network import flat_network
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback
from balancedfact.solvers.nuclear._algorithm import Algorithm
from balancedfact.solvers.nuclear._certified import certified_minimum
from balancedfact.solvers.nuclear._finished import finished


def flat_minimum(
    A: MeasurementMap,
    b: ArrayLike,
    depth: int = 2,
    *,
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
    r"""Find the flattest factorization that fits the data, and prove it.

    With ``penalty = 0``, among all pairs of any width that interpolate, one of least scaled trace of the Hessian of
    :math:`\|\mathcal A(LR^\top) - b\|^2`, without a factor ``1 / m``:

    .. math:: \min_{\mathcal A(LR^\top) = b} 2m(\|D_1L\|_F^2 + \|D_2R\|_F^2) = \min_{\mathcal A(X) = b} 4m\,\|D_1XD_2\|_*,

    with :math:`D_1 = (\frac1{md_2}\sum_iA_iA_i^\top)^{1/2}` and :math:`D_2 = (\frac1{md_1}\sum_iA_i^\top A_i)^{1/2}`.
    With a positive penalty, for noisy data,

    .. math:: \min_X \tfrac12\|\mathcal A(X) - b\|^2 + \text{penalty}\cdot\|D_1XD_2\|_*,

    returned as the flat pair of its minimiser. With an `offset_penalty`, for measurements of entries, the model also has a
    mean and an offset for each row and column,

    .. math:: \min_{X,\alpha,\beta} \tfrac12\|\mathcal A(X + \mu + \alpha 1^\top + 1\beta^\top) - b\|^2
              + \text{penalty}\cdot\|D_1XD_2\|_* + \tfrac12\,\mathrm{offset\_penalty}\,(\|\alpha\|^2 + \|\beta\|^2).

    With ``depth = L >= 3`` the flattest network of `L` layers that fits, of any widths: least trace of the Hessian of
    :math:`\frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`,

    .. math:: \min_{\mathcal A(W_L\cdots W_1) = b}\ \frac2m\sum_{j=1}^L\sum_i\|C_j^\top A_iB_{j-1}^\top\|_F^2,
              \qquad B_j = W_j\cdots W_1,\quad C_j = W_L\cdots W_{j+1}.

    Parameters
    ----------
    A : MeasurementMap
        `m` measurements of ``d1 x d2`` matrices.
    b : array_like, shape (m,)
        The data.
    depth : int
        Number of layers, at least 2.
    method : str or Algorithm, optional
        By default what suits size and structure (`balancedfact.solvers.select_method`). "interior-point", "splitting",
        "factored", "dual Newton" and "riemannian" name the algorithms of `balancedfact.solvers`; an object, such as
        ``bf.solvers.InteriorPoint(max_iterations=50)`` or one of your own (`balancedfact.solvers.Algorithm`), is used as it is.
        At depth 3 and more "riemannian" starts from random layers, see `flat_network`, and no other can be named.
    penalty : float
        Weight of the flatness; 0 interpolates. Must be 0 for depth 3 and more.
    offset_penalty : float, optional
        Weight of the squares of row and column offsets, for `Entries` with a penalty; without it there are none. A value of
        1 acts like one additional observation of each row, equal to the mean. The mean :math:`\mu` is fitted to the data
        beforehand.
    max_rank : int, optional
        Largest number of columns of the factors. Where matrices of that rank have fewer parameters than there are data to
        interpolate, the search goes straight to the rank, and `Certificate.injectivity` says how well the data determine the
        matrix; a named `method` solves the convex problem first in any case. Otherwise a limit below the rank of the solution
        makes the problem non-convex: the certificate still bounds how much better any factorization could be.
        For depth 3 and more, the largest hidden width.
    tol : float
        Relative gap between value and lower bound at which to stop; for depth 3 and more, relative stationarity.
    rng : int or numpy.random.Generator, optional
        Randomness of the starting vectors of iterative linear algebra; at depth 2 the answer does not depend on it beyond
        rounding. For depth 3 and more also that of random starts.
    initial : tuple of array_like, optional
        A pair ``(L, R)`` to start from, for the algorithms that can use one: all but "interior-point". For depth 3 and more,
        layers ``[W_1, ..., W_L]``, whose product is moved onto the data and serves as one more start.
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
        With ``layers = [R.T, L]``, or `depth` layers whose hidden widths are the rank of their product. `value` is the scaled
        trace, with a penalty the penalised objective, at depth 3 and more the trace. The message names unobserved rows and
        columns. ``KeyboardInterrupt`` ends the solve with the best point so far and
        ``Status.INTERRUPTED``.

    Raises
    ------
    ValueError
        If an argument is malformed. Data that contradict one another are not an error but ``Status.INFEASIBLE``, and a rank
        limit within which no fit was found is ``Status.RANK_EXCLUDED``.
    MemoryError
        If the solve would take more memory than is free.

    See Also
    --------
    norm_minimum : Least norm in place of least trace.
    flat_network : Three layers and more.
    certify : A certificate for a factorization from elsewhere.
    balancedfact.solvers.select_penalty : A penalty from the data.
    balancedfact.closed_forms.flat_pair : The flat factors of a given matrix.

    Notes
    -----
    **Certificate.** For any `y`, scaled so that :math:`\|D_1^{-1}\mathcal A^*(y)D_2^{-1}\|\le 1`, ``4 m b.y`` is a lower bound
    on the scaled trace of every interpolating pair (with a penalty: :math:`b^\top y - \tfrac12\|y\|^2`, the norm at most
    `penalty`). It is computed from the `y` that is returned. With offsets, subtract from the bound the squares of the row and
    column sums of :math:`\mathcal A^*(y)`, divided by twice the `offset_penalty`; the mean is subtracted from the data.

    **Algorithm**, chosen by size and structure: up to a few thousand measurements of matrices of moderate size a
    primal-dual interior-point method; otherwise, and for rank limits, a factored second-order method with increasing rank,
    which gives up where the rank becomes high and singular value decompositions are affordable: then accelerated
    Douglas-Rachford splitting. More than a thousand exact entries of a matrix of moderate size are left to the factored
    method and, where that gives up, to Newton's method on the dual.

    With "riemannian", an augmented Lagrangian on `balancedfact.manifolds.RescaledBalancedPairs`, minimised by trust regions
    from a random pair; its multipliers are the dual vector. The width of the pair doubles until the certificate closes.

    **Depth 3 and more** is `flat_network` with ``bound="quick"``. The problem is not convex; the verdicts are explained there.

    **Unobserved parts.** Where no measurement sees a row, a column or another direction, `D1` or `D2` is singular and flatness
    says nothing; the solution is zero there.

    References
    ----------
    Ding, Drusvyatskiy, Fazel, Harchaoui, "Flat minima generalize for low-rank matrix recovery", 2022; for more layers
    Gatmiry, Li, Chuang, Reddi, Ma, Jegelka, "The inductive bias of flatness regularization for deep matrix factorization",
    2023.

    Chapter :doc:`/theory/two_factors`, guide :doc:`/guide/certificate`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.standard_normal((12, 2)) @ rng.standard_normal((2, 10))
    >>> A = bf.measurements.gaussian(100, truth.shape, rng)
    >>> solution = bf.flat_minimum(A, A(truth))
    >>> solution.status.ok, bool(np.allclose(solution.matrix, truth, atol=1e-6))
    (True, True)
    >>> L, R = solution.pair
    >>> bool(np.isclose(bf.curvature.scaled_trace(L, R, A), solution.value))
    True

    Three layers:

    >>> deep = bf.flat_minimum(A, A(truth), depth=3, rng=0)
    >>> deep.status.name, bool(np.allclose(deep.matrix, truth))
    ('STATIONARY', True)
    >>> bool(np.isclose(deep.value, bf.induced_regularizer(truth, A, depth=3).value))
    True
    """
    if as_depth(depth) > 2:
        if as_number(penalty, "penalty", least=0.0) > 0:
            raise ValueError(f"penalty is {penalty}; expected 0 for depth {depth}, whose minimum interpolates")
        if offset_penalty is not None:
            raise ValueError(f"offset_penalty is {offset_penalty} for depth {depth}; expected None, offsets are for depth 2")
        return flat_network(
            *(A, b, depth),
            method=method,  # type: ignore[arg-type]  # any but names are refused there
            bound="quick",
            max_rank=max_rank,
            tol=tol,
            rng=rng,
            initial=initial,
            limits=limits,
            callback=callback,
            progress=progress,
        )
    solution = certified_minimum(
        A,
        b,
        flat=True,
        penalty=penalty,
        max_rank=max_rank,
        tol=tol,
        rng=rng,
        initial=initial,
        limits=limits,
        callback=callback,
        progress=progress,
        method=as_method(method),
        offset_penalty=offset_penalty,
    )
    return finished(solution, A, b, flat=True, penalty=penalty, offset_penalty=offset_penalty)
