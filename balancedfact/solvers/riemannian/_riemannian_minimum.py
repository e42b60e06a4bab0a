"""Minimisation of any function on any manifold of pymanopt, certified to second order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from balancedfact._pymanopt_draws import pymanopt_draws
from balancedfact._validate import as_count, as_number, as_rng
from balancedfact.solution import Solution
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback, Log
from balancedfact.solvers.riemannian._search import Search, parts_of

if TYPE_CHECKING:  # pymanopt is imported only by those who use it
    from pymanopt import Problem
    from pymanopt.optimizers.optimizer import Optimizer


def riemannian_minimum(
    problem: Problem,
    *,
    optimizer: Optimizer | None = None,
    initial: Any = None,
    tol: float = 1e-8,
    max_iterations: int = 2000,
    rng: int | np.random.Generator | None = None,
    limits: Limits | None = None,
    callback: Callback | None = None,
    progress: bool | None = None,
) -> Solution:
    r"""Minimise a function on a manifold with pymanopt, to a point that is stationary to second order.

    The optimizer's own stopping message is not trusted. Where it stops, the gradient is compared with the scale of the
    problem and the smallest eigenvalue of the Riemannian Hessian is computed; if it is negative the point is a saddle, which
    is left along the negative curvature, and the optimizer runs again.

    Parameters
    ----------
    problem : pymanopt.Problem
        Manifold and cost. Without a Hessian, differences of gradients take its place.
    optimizer : pymanopt optimizer, optional
        One that starts from a point, such as ``pymanopt.optimizers.ConjugateGradient(verbosity=0)``. Its own limits are
        respected. By default trust regions whose radii suit the size of the starting point.
    initial : optional
        The point to start from; by default a random point of the manifold.
    tol : float
        Relative gradient, see Notes, at which a point is stationary.
    max_iterations : int
        Largest number of points at which the gradient is computed; a search that they do not suffice for ends with
        ``Status.LIMIT``.
    rng : int or numpy.random.Generator, optional
        Seeds NumPy's global random state, from which pymanopt draws, for the time of the solve.
    limits : Limits, optional
        Time and iterations after which to stop, with the best point and ``Status.LIMIT``.
    callback : callable, optional
        Called with the newest record of `Solution.history` at every point whose gradient is computed. Returning ``True`` or
        raising ``StopIteration`` stops the search as a limit does.
    progress : bool, optional
        Show value and gradient. By default on a terminal only.

    Returns
    -------
    Solution
        With ``Status.STATIONARY``; where the gradient or a negative curvature says that the point is not a minimum, with
        ``Status.LIMIT`` after `max_iterations`, and with ``Status.GAP_OPEN`` where nothing lowers the value or `optimizer` gave
        up. ``layers`` are ``[R.T, L]`` for pairs, and else the arrays that make up the point. `Solution.history` has the
        columns ``iteration``, ``seconds``, ``value``, ``stationarity``, ``hessian_products`` and ``escapes``. The certificate
        has `stationarity`, `curvature` and, on manifolds that have a method ``residual``, that as `feasibility`; no lower
        bound. ``KeyboardInterrupt`` ends the solve with the best point so far and ``Status.INTERRUPTED``.

    Raises
    ------
    ValueError
        If an argument is malformed.

    See Also
    --------
    balancedfact.manifolds.check_manifold : A check of the manifold first.
    balanced_approximation, flattest_factorization : Searches that use it.

    Notes
    -----
    **Stationarity** is :math:`\|\operatorname{grad}f\| / (\lambda\,\|x\|)`, with :math:`\lambda` the largest eigenvalue of the
    Hessian in magnitude and :math:`\|x\|` the norm of all numbers in the point (1 for zero), in units of the metric: about
    the length of a Newton step in the steepest direction, relative to the point. It does not change when the cost or the unit
    of the point does. While the optimizer runs, the scale is that of the last point examined.

    **Curvature** is the smallest Ritz value of at most 150 Lanczos steps, over the largest in magnitude. It is an
    upper bound on the smallest eigenvalue, and not a proof that there is no lower one; from a random start, 150 steps see
    negative curvature down to about 1/1000 of the largest, and often far less.

    pymanopt measures the gradient, the radius of the trust region and the rounding of the cost in absolute units; the cost it
    is given here is divided by :math:`\lambda\,\|x\|`. Extreme scales are best removed from the problem itself.

    References
    ----------
    Absil, Baker, Gallivan 2007, Trust-region methods on Riemannian manifolds; Townsend, Koep, Weichwald 2016, Pymanopt.

    Guide :doc:`/guide/riemannian`.

    Examples
    --------
    The middle of three singular vectors is a saddle of the distance from a matrix. A gradient sees nothing there.

    >>> import autograd.numpy as anp, numpy as np, pymanopt
    >>> import balancedfact as bf
    >>> M = np.diag([3.0, 2.0, 1.0])
    >>> manifold = bf.manifolds.BalancedPairs(3, 3, 1)
    >>> @pymanopt.function.autograd(manifold)
    ... def cost(L, R):
    ...     return anp.sum((L @ R.T - M) ** 2)
    >>> saddle = np.sqrt(2.0) * np.eye(3)[:, 1:2]
    >>> solution = bf.riemannian_minimum(pymanopt.Problem(manifold, cost), initial=[saddle, saddle], rng=0)
    >>> solution.status.ok, round(solution.value, 9), int(solution.history["escapes"][-1])
    (True, 5.0, 1)
    """
    tol = as_number(tol, "tol", above=0.0)
    limit = as_count(max_iterations, "max_iterations")
    generator = as_rng(rng)
    for name, attribute in (("manifold", "retraction"), ("cost", "__call__")):
        if not hasattr(getattr(problem, name, None), attribute):
            raise ValueError(f"problem is {type(problem).__name__}; expected a pymanopt.Problem")
    if optimizer is not None and not hasattr(optimizer, "run"):
        raise ValueError(f"optimizer is {type(optimizer).__name__}; expected a pymanopt optimizer such as TrustRegions()")
    log = Log(callback, progress, limits)
    with pymanopt_draws(generator):
        start = None if initial is None else _checked_start(problem.manifold, initial)
        search = log.insist(Search, problem, tol, limit, log)
        if start is None:
            start = log.insist(problem.manifold.random_point)
        with log:
            search.run(start, optimizer)
    return log.insist(search.solution)


def _checked_start(manifold: Any, initial: Any) -> Any:
    """The starting point as the manifold lays it out, if shapes and numbers are right."""
    like = manifold.random_point()
    expected = parts_of(like)
    several = isinstance(like, (list, tuple))
    try:
        found = [np.array(part, dtype=float) for part in (initial if several else [initial])]
    except (TypeError, ValueError):
        raise ValueError("initial is not made of arrays of numbers; expected a point of the manifold") from None
    shapes, others = [part.shape for part in expected], [part.shape for part in found]
    if others != shapes or not all(np.isfinite(part).all() for part in found):
        raise ValueError(f"initial has parts of shapes {others}; expected finite parts of shapes {shapes}")
    return type(like)(found) if several else found[0]
