"""The flattest network of three or more layers that fits the data: the problem, the certificate and the verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import product
from balancedfact._objective import Objective
from balancedfact._threads import threads_for
from balancedfact._validate import as_array, as_count, as_depth, as_layers, as_number, as_rng
from balancedfact.certification._pair import reached
from balancedfact.certification._verdict import unreached
from balancedfact.certification.deep._bounds import DeepDual, best_bound
from balancedfact.certification.deep._layers import GAP_OF_NETWORKS, fit_of_layers
from balancedfact.curvature import trace
from balancedfact.curvature._zero_loss import DeepProblem
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.measurements._ordinary_size import of_ordinary_size
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.deep._network_search import NEGATIVE, RANK_EXCESS, Minimum, NetworkSearch
from balancedfact.solvers.fibre._induced_regularizer import induced_regularizer
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback, Log
from balancedfact.solvers.iteration._nothing import as_deep
from balancedfact.solvers.nuclear._certified import contradictory
from balancedfact.solvers.nuclear._frame import Contradiction, Frame, unseen_part

_LOW_ORDER = 10  # 1000 squared over it is the size up to which one thread is quickest
_METHOD = "Newton on the zero-loss manifold across ranks"


def flat_network(
    A: MeasurementMap,
    b: ArrayLike,
    depth: int,
    *,
    method: str | None = None,
    bound: str = "best",
    gap_tol: float = GAP_OF_NETWORKS,
    max_rank: int | None = None,
    tol: float = 1e-8,
    rng: int | np.random.Generator | None = None,
    initial: Sequence[ArrayLike] | None = None,
    limits: Limits | None = None,
    callback: Callback | None = None,
    progress: bool | None = None,
) -> Solution:
    r"""Find the flattest network of three or more layers that fits the data, and say what is proved of it.

    Among all layers of any hidden widths whose product fits the data, one of least trace of the Hessian:

    .. math:: \min_{\mathcal A(W_L\cdots W_1) = b} \operatorname{tr}\nabla^2\mathcal L(W), \qquad
              \mathcal L(W) = \tfrac1m\|\mathcal A(W_L\cdots W_1) - b\|^2 .

    Parameters
    ----------
    A : MeasurementMap
        `m` measurements of ``d1 x d2`` matrices.
    b : array_like, shape (m,)
        The data.
    depth : int
        Number of layers, at least 3; for two see `flat_minimum`.
    method : {None, "riemannian"}
        ``None`` starts from convex problems, which as a rule are close to the minimum. "riemannian" makes no use of
        convex problems: it has a single start, the layers `initial` or else random ones.
    bound : {"best", "quick"}
        How much to do for the lower bound once the network is found. "best" tries every bound that the size allows: about
        a minute of processor time for 250 measurements of 20 x 20 and three layers or for four layers of 4 x 4, many minutes
        up to 60 x 60. "quick" tries only what costs no more than the search; ``limits=`` ends either, with what was proved
        until then.
    gap_tol : float
        Relative gap between value and lower bound up to which the network is called optimal.
    max_rank : int, optional
        The largest hidden width.
    tol : float
        Relative stationarity at which to stop.
    rng : int or numpy.random.Generator, optional
        Random starts, and the starting vectors of iterative linear algebra.
    initial : list of array_like, optional
        Layers ``[W_1, ..., W_L]``, whose product is moved onto the data and serves as one more start; with "riemannian" as
        the only one.
    limits : Limits, optional
        Time and iterations after which to stop, with the best point and ``Status.LIMIT``.
    callback : callable, optional
        Called once per iteration with the newest record of `Solution.history`, a dictionary of floats. Returning ``True`` or
        raising ``StopIteration`` stops the search as a limit does.
    progress : bool, optional
        Show the trace as it falls. By default on a terminal only.

    Returns
    -------
    Solution
        With `depth` layers whose hidden widths are the rank of their product; `value` is the trace of the Hessian.

    Raises
    ------
    ValueError
        If an argument is malformed.

    See Also
    --------
    flat_minimum : Two layers, a convex problem.
    induced_regularizer : The flattest layers of a given matrix.

    Notes
    -----
    The problem is not convex, and the verdict says what is known. ``OPTIMAL`` is a proof: the lower bound
    closed, or the data determine the matrix, whose flattest layers are a geodesically convex problem. ``STATIONARY`` is
    evidence of a global minimum: Newton's method from several starts (the flat pair, the nuclear norm, random ones) ended at
    feasible layers with zero Riemannian gradient and no negative curvature, that are the flattest of their product
    (`fibre_gap`), and whose trace no direction of higher rank lowers to first order. That last test compares a norm with 1. A
    norm of up to 1 + 1e-5 passes too: a direction of higher rank could then lower the trace by a fraction of about 1e-10, the
    square of the excess. `stationarity` is the larger of the relative Riemannian gradient and that excess. The message counts
    the different minima that the starts led to.

    The lower bound is rigorous, and is the largest of four. For any `y`, and `t` the singular values of
    :math:`(\sum_iA_iA_i^\top)^{-1/2}\mathcal A^*(y)(\sum_iA_i^\top A_i)^{-1/2}`, no trace is below

    .. math:: \frac{2L}m\,\frac{(b^\top y)^{2-2/L}}{\|y\|^{2-4/L}\,\big(\sum_kt_k^{2/(L-2)}\big)^{1-2/L}} ,

    which is maximised over `y`. The second comes from a proved isometry of rank one, for ``d1 d2 <= 150``. The third, from
    weighted isometries, is the closest for matrices that are measured in every direction, and costs factorizations of matrices
    of order ``d1 d2``; measurements of entries have none. A fourth, from semidefinite programmes for single layers, is as a
    rule tight for three layers, up to about 13 x 13 matrices, and within a percent for more, up to about 8 x 8. The theory
    pages "The flattest deep network" and "A global certificate" have the proofs and tables of how close the bounds come.
    `proof` in the certificate says which one it is;
    `dual` is the derivative of the least trace with respect to the data.

    References
    ----------
    Gatmiry, Li, Chuang, Reddi, Ma, Jegelka, "The inductive bias of flatness regularization for deep matrix factorization",
    2023.

    Chapters :doc:`/theory/deep_flat_minimum` and :doc:`/theory/global_certificate`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.standard_normal((12, 2)) @ rng.standard_normal((2, 10))
    >>> A = bf.measurements.gaussian(100, truth.shape, rng)
    >>> deep = bf.flat_network(A, A(truth), 3, rng=0, bound="quick")
    >>> deep.status.name, bool(np.allclose(deep.matrix, truth))
    ('STATIONARY', True)
    >>> bool(np.isclose(deep.value, bf.induced_regularizer(truth, A, depth=3).value))
    True
    """
    data = as_array(b, "b", shape=(as_map(A).m,))
    if method is not None and not (isinstance(method, str) and method == "riemannian"):
        raise ValueError(f"method is {method!r}; expected None or 'riemannian' for depth {depth}")
    limit = None if max_rank is None else as_count(max_rank, "max_rank")
    tol, gap_tol = as_number(tol, "tol", above=0.0), as_number(gap_tol, "gap_tol", least=0.0)
    if not isinstance(bound, str) or bound not in ("best", "quick"):
        raise ValueError(f"bound is {bound!r}; expected 'best' or 'quick'")
    generator = as_rng(rng)
    depth = as_depth(depth, least=3)
    start = None
    if initial is not None:
        start = as_layers(initial, A.matrix_shape, name="initial")
        if len(start) != depth:
            raise ValueError(f"initial has {len(start)} layers; expected {depth}")
    search = None
    log = Log(callback, progress, limits)
    with log, threads_for(A.shape[1], A.m):
        near, power = of_ordinary_size(A)
        try:
            frame = Frame(near, data / power, 0.0, flat=False)
        except Contradiction as found:
            return as_deep(contradictory(A, found, Objective("flat", depth=depth)), depth)
        if not np.any(data):
            certificate = Certificate(0.0, 0.0, 0.0, np.zeros(A.m), 0.0, fibre_gap=0.0, proof="no trace is negative")
            message = "The zero matrix is optimal."
            said = Objective("flat", depth=depth)
            zero = Solution(_zeros(A), 0.0, Status.OPTIMAL, message, certificate, {}, "closed form", objective=said)
            return as_deep(zero, depth)
        unit, fit = near.at_unit_scale(), frame.problem.map
        left, right = (vectors[:, values > 0] for values, vectors in (unit.left_root, unit.right_root))
        if left.shape[1] + right.shape[1] < sum(A.matrix_shape):  # directions that no measurement sees are left out
            unit, fit = unit.congruence(left, right), fit.congruence(left, right)
        else:
            left, right = (np.eye(d) for d in A.matrix_shape)
        problem = DeepProblem(unit, fit, frame.problem.b, depth)
        units = (power * near.scale * frame.size ** (1 - 1 / depth)) ** 2  # the trace per unit of that of the problem
        search = NetworkSearch(problem, limit, tol, generator, log, units)
        search.run(None if start is None else left.T @ (product(start) / frame.size) @ right, method is not None)
    if search is None or (search.best is None and search.latest is None):
        status, message = log.ended or (Status.RANK_EXCLUDED, "No matrix was found to fit the data.")
        certificate = Certificate(1.0, proof="nothing was found")
        return as_deep(Solution(_zeros(A), np.inf, status, message, certificate, log.history, _METHOD), depth)
    return log.insist(_judged, A, data, frame, search, left, right, bound, gap_tol, power)


def _zeros(A: MeasurementMap) -> list[np.ndarray]:
    d1, d2 = A.matrix_shape
    return [np.zeros((1, d2)), np.zeros((d1, 1))]


def _judged(
    A: MeasurementMap,
    b: np.ndarray,
    frame: Frame,
    search: NetworkSearch,
    left: np.ndarray,
    right: np.ndarray,
    bound: str,
    gap_tol: float,
    power: float,
) -> Solution:
    """The best minimum in the user's units, with its certificate, computed from what is returned, and the verdict."""
    depth, problem, best = search.problem.depth, search.problem, search.best
    if best is None:
        assert search.latest is not None
        y = search.latest.multipliers() if search.latest.tractable else np.zeros(problem.map.m)
        best = Minimum(search.latest, y, np.nan)
    share = frame.size ** (1 / depth)
    layers = [share * layer for layer in best.point.layers]
    layers[0], layers[-1] = layers[0] @ right.T, left @ layers[-1]
    value = trace(layers, A)
    matrix = product(layers)
    fibre = induced_regularizer(matrix, A, depth)
    multipliers = _spread(frame, best.y, A.m)
    if best.determined:
        lower, proof = fibre.certificate.lower_bound, "the data determine the matrix, and the bound is that of its least trace"
    else:
        two_layers = multipliers if search.two_layers is None else _spread(frame, search.two_layers, A.m)
        dual = DeepDual(best.point.layers, multipliers, two_layers, search.nuclear)
        seconds = search.log.limits.seconds
        deadline = np.inf if seconds is None else search.log.started + seconds
        order = A.shape[1]  # of the matrices that are factored
        with threads_for(order * order // _LOW_ORDER, A.m):
            found = best_bound(
                problem.unit,
                b / power / frame.level,
                depth,
                dual,
                effort="quick" if search.log.ended else bound,
                rng=search.rng,
                stop=lambda: time.perf_counter() > deadline or search.log.late,
            )
        lower = found.value * search.units
        proof = f"the bound follows from {found.source}"
        if not lower >= (1 - gap_tol) * value:
            proof += "; the rest is evidence of a minimum near this point only"
    gap = 1 - lower / value if value > 0 else 0.0
    fits, worst = fit_of_layers(A, b, layers)
    certificate = Certificate(
        fits,
        lower,
        gap if reached(fits, worst) else np.nan,
        multipliers * (search.units / frame.level / power),
        float(np.maximum(best.point.stationarity, best.excess)) if best.point.tractable else np.nan,
        curvature=best.curvature,
        fibre_gap=max(value / fibre.value - 1, 0.0) if fibre.value > 0 else 0.0,
        direction=fibre.certificate.direction,
        proof=proof,
        worst_datum=worst,
    )
    status, message = _outcome(search, best, certificate, fibre.status, gap_tol)
    message += unseen_part(A, problem.map.matrix_shape)
    said = Objective("flat", depth=depth)
    return Solution(layers, value, status, message, certificate, search.log.history, _METHOD, objective=said)


def _spread(frame: Frame, y: np.ndarray | None, m: int) -> np.ndarray:
    """A vector of the normalised, independent measurements as one of all measurements."""
    full = np.zeros(m)
    if y is not None:
        full[frame.kept] = frame.weights * y
    return full


def _outcome(
    search: NetworkSearch, best: Minimum, certificate: Certificate, fibre: Status, gap_tol: float
) -> tuple[Status, str]:
    """The verdict as a status and a sentence, from the numbers that are returned."""
    limit, tol = search.limit, search.tol
    ended = search.log.ended
    if ended is not None and (ended[0] is Status.INTERRUPTED or not certificate.gap <= gap_tol):
        return ended
    missed = unreached(certificate)
    if missed is not None:
        return Status.GAP_OPEN, missed
    if fibre is Status.UNATTAINED:
        diverging = "they diverge along the direction of the certificate"
        return Status.UNATTAINED, f"No layers attain the least trace of this matrix: {diverging}."
    if certificate.gap <= gap_tol:
        better = f"a relative {abs(certificate.gap):.1e}"
        return Status.OPTIMAL, f"Optimal: no factorization of any width is better by more than {better}; {certificate.proof}."
    found = search.distinct()
    seen = (
        f"{len(search.minima)} starts led to {found} minim{'um' if found == 1 else 'a'}; the lower bound, which holds whatever "
        f"the starts, is {100 * (1 - certificate.gap):.0f} % of the value."
    )
    if best.excess > 0 and limit is not None and best.point.width >= limit:
        return Status.RANK_LIMITED, f"The best found of rank {limit}; a higher rank would be flatter. {seen}"
    if not best.point.tractable:
        return Status.GAP_OPEN, f"Too large for Newton steps: the best of the convex problems that were solved. {seen}"
    if best.point.stationarity <= tol and best.excess <= RANK_EXCESS and not certificate.curvature < -NEGATIVE:
        return Status.STATIONARY, f"A minimum to second order and across ranks to first order. {seen}"
    return Status.GAP_OPEN, f"Stopped at a relative stationarity of {certificate.stationarity:.1e}. {seen}"
