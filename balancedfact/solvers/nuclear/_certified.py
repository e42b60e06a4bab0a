"""The walk from a checked problem to a certified solution: which algorithms to run, and the verdict on what they find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import EPS, frobenius
from balancedfact._memory import available_memory
from balancedfact._objective import Objective
from balancedfact._threads import threads_for
from balancedfact._validate import as_array, as_count, as_number, as_pair, as_rng
from balancedfact.certification._spectral_norm import norm_bound
from balancedfact.certification._tangent import injectivity
from balancedfact.certification._verdict import verdict
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback, Log
from balancedfact.solvers.nuclear._algorithm import Algorithm
from balancedfact.solvers.nuclear._at_rank import at_rank, is_determined
from balancedfact.solvers.nuclear._descent import descend
from balancedfact.solvers.nuclear._factored import Factored
from balancedfact.solvers.nuclear._frame import Contradiction, Frame
from balancedfact.solvers.nuclear._least_norm import least_norm_certificate
from balancedfact.solvers.nuclear._problem import Point, balanced, balanced_from_matrix
from balancedfact.solvers.nuclear._selection import suitable
from balancedfact.solvers.nuclear._watch import Watch

# What `Solution.method` says where the rank was given and nothing convex was solved.
AT_RANK = "at the rank"
# The steps of the thresholding that finds the rank of a nearly optimal point, in units of its norm.
_POLISHING_STEPS = 1.0, 1e-3
# Random starts tried when no matrix within a rank limit fits from the first.
_RESTARTS = 5


def certified_minimum(
    A: MeasurementMap,
    b: ArrayLike,
    *,
    flat: bool,
    penalty: float,
    max_rank: int | None,
    tol: float,
    rng: int | np.random.Generator | None,
    initial: tuple[ArrayLike, ArrayLike] | None,
    callback: Callback | None,
    progress: bool | None,
    limits: Limits | None = None,
    method: Algorithm | None = None,
    offset_penalty: float | None = None,
) -> Solution:
    """Check the arguments that `flat_minimum` (`flat`) and `norm_minimum` share, solve, and judge."""
    data = as_array(b, "b", shape=(as_map(A).m,))
    penalty = as_number(penalty, "penalty", least=0.0)
    limit = None if max_rank is None else as_count(max_rank, "max_rank")
    tol = as_number(tol, "tol", above=0.0)
    generator = as_rng(rng)
    start = None if initial is None else as_start(initial, A)
    if offset_penalty is not None:
        offset_penalty = as_number(offset_penalty, "offset_penalty", above=0.0)
        _check_offsets(A, penalty)
    _check_memory(A)
    frame, watch = None, None
    with Log(callback, progress, limits) as log, threads_for(A.shape[1], A.m):
        try:
            frame = Frame(A, data, penalty, flat=flat, offset_penalty=offset_penalty)
        except Contradiction as found:
            return contradictory(A, found, Objective("flat" if flat else "norm"))
        if method is not None:
            reason = method.suits(frame.problem)
            if reason is not None:
                raise ValueError(f"method is {method!r}, which does not suit the problem: {reason}")
        if _zero_is_optimal(frame, generator):
            y = frame.problem.b / frame.problem.q if penalty > 0 else frame.problem.b
            layers, value, certificate = frame.certified(None, y, "the zero matrix attains the bound of its dual vector")
            status, message = verdict(certificate, penalty, None, tol)
            message = f"{'The zero matrix is optimal.' if status is Status.OPTIMAL else message}{frame.unseen}"
            offsets, said = frame.offsets(None), frame.objective
            return Solution(layers, value, status, message, certificate, {}, "closed form", offsets, objective=said)
        watch = Watch(frame.problem, frame.units, tol, generator, log)
        _run(watch, limit, None if start is None else frame.normalised(*start), method)
    if frame is None or watch is None:
        return _nothing(A, data, penalty, log)
    point = watch.point
    if limit is not None and point is not None:  # a dense algorithm that was interrupted leaves a point of any rank
        point = point._replace(L=point.L[:, :limit], R=point.R[:, :limit], s=point.s[:limit])
    try:
        layers, value, certificate = frame.certified(point, watch.y, watch.proof)
    except KeyboardInterrupt:  # once more: whoever stops a solve still gets a true certificate
        log.interrupt()
        layers, value, certificate = frame.certified(point, watch.y, watch.proof)
    status, message = verdict(certificate, penalty, limit, tol)
    if watch.method == AT_RANK and status in (Status.OPTIMAL, Status.RANK_LIMITED):
        certificate, sentence = _determined(A, layers, certificate)
        message += sentence
    if log.ended is not None and (status is not Status.OPTIMAL or log.ended[0] is Status.INTERRUPTED):
        status, message = log.ended
    offsets = frame.offsets(point)
    return Solution(
        layers,
        value,
        status,
        message + frame.unseen,
        certificate,
        log.history,
        watch.method,
        offsets,
        objective=frame.objective,
    )


def as_start(initial: tuple[ArrayLike, ArrayLike], A: MeasurementMap) -> tuple[np.ndarray, np.ndarray]:
    """Return a start as a pair ``(L, R)`` of the shape that `A` measures."""
    try:
        L, R = initial
    except (TypeError, ValueError):
        raise ValueError(f"initial is {type(initial).__name__}; expected a pair (L, R)") from None
    return as_pair(L, R, A.matrix_shape, names=("initial[0]", "initial[1]"))


def _nothing(A: MeasurementMap, b: np.ndarray, penalty: float, log: Log) -> Solution:
    """The zero matrix, for a solve that was stopped before it had a point."""
    assert log.ended is not None
    d1, d2 = A.matrix_shape
    value = 0.5 * frobenius(b) ** 2 if penalty > 0 else 0.0
    gap = 1.0 if value > 0 else np.nan
    certificate = Certificate(1.0, 0.0, gap, np.zeros(A.m), proof="no factorization has a negative value")
    return Solution([np.zeros((1, d2)), np.zeros((d1, 1))], value, *log.ended, certificate, log.history, "none")


def _check_memory(A: MeasurementMap) -> None:
    """Refuse what would not fit before anything is allocated."""
    needed, free = A.memory_needed(), available_memory()
    if needed > free:
        raise MemoryError(
            f"{A.m} measurements of {A.matrix_shape[0]} x {A.matrix_shape[1]} matrices take about {needed / 1e9:.3g} GB to "
            f"solve, and {free / 1e9:.3g} GB are free; A.memory_needed(columns) says it beforehand"
        )


def _check_offsets(A: MeasurementMap, penalty: float) -> None:
    if not A.of_entries:
        raise ValueError(f"offset_penalty is given and A is {type(A).__name__}; expected Entries, which have rows and columns")
    if penalty == 0:
        raise ValueError("offset_penalty is given and penalty is 0; expected a penalty > 0: offsets are for noisy data")


def _run(watch: Watch, limit: int | None, start: tuple[np.ndarray, np.ndarray] | None, method: Algorithm | None) -> None:
    """Run the algorithms that suit the problem until one closes the gap, then search within the rank limit if need be."""
    problem = watch.problem
    if limit is not None and method is None and is_determined(problem, limit):
        watch.method = AT_RANK
        watch.judge(at_rank(problem, limit, watch.rng, start))
        if watch.feasible:
            return
    methods = suitable(problem) if method is None else [method]
    for algorithm in methods:
        watch.method = algorithm.name
        # An algorithm that stands alone keeps a rank limit from the start, since it may be a limit on memory too.
        cap = limit if algorithm.low_rank and len(methods) == 1 else None
        watch.follow(algorithm.points(problem, watch.rng, max_rank=cap, initial=start))
        if not algorithm.low_rank:
            _polish(watch)
        if watch.closed:
            break
    if watch.point is None:
        watch.method = Factored.name
        watch.follow(Factored().points(problem, watch.rng, max_rank=limit, initial=start))
    if limit is not None and watch.point is not None and watch.point.s.size > limit:
        # The solution of the convex problem is of higher rank: search within the limit, against the bound just found.
        watch.method = Factored.name if watch.method == Factored.name else f"{watch.method}, then {Factored.name}"
        watch.forget_pair()
        watch.follow(Factored().points(problem, watch.rng, max_rank=limit))
    if limit is not None and not watch.feasible:
        _fit_from_random_starts(watch, limit)


def _determined(A: MeasurementMap, layers: list[np.ndarray], certificate: Certificate) -> tuple[Certificate, str]:
    """The certificate with how well the data determine the matrix among those of its rank, and a sentence on it."""
    found = injectivity(A, layers[1], layers[0].T)
    if found is None:
        return certificate, ""
    certificate = replace(certificate, injectivity=found.lower, injectivity_above=found.upper)
    bounds = f"between {found.lower:.3g} and {found.upper:.3g}"
    if found.lower > 0:
        return certificate, (
            " The data determine it locally: no other matrix of its rank near it fits, "
            f"the least singular value of the measurements on the tangent space is {bounds}."
        )
    return certificate, f" Whether the data determine it locally is open: the least singular value is {bounds}."


def _fit_from_random_starts(watch: Watch, rank: int) -> None:
    """Fitting within a rank limit is not convex: a few other starts before the limit is called too low."""
    problem = watch.problem
    size = float(np.linalg.norm(problem.b))
    for _ in range(_RESTARTS):
        L, R = (watch.rng.standard_normal((d, rank)) for d in problem.map.matrix_shape)
        L *= size / np.linalg.norm(problem.map.forward_factored(L, R))
        end = descend(problem.map, problem.b, 0.0, L, R, density=problem.density, residual_tol=1e-14 * size, max_products=500)
        watch.judge(Point(*balanced(end.L, end.R), watch.y))
        if watch.feasible:
            return


def _polish(watch: Watch) -> None:
    """The search from a nearly optimal point of full rank to one of the exact rank that fits to rounding error."""
    problem, near = watch.problem, watch.point
    if near is None or near.s.size == 0:
        return
    # At the optimum Z is a fixed point of soft thresholding Z + t A*(y) by t; near it the thresholding finds the rank, a long
    # step without the columns that are hardly there, a short one with those that singular values of many sizes need.
    before = 0
    for t in _POLISHING_STEPS:
        t *= near.s[0]
        k = min(balanced_from_matrix(near.L @ near.R.T + t * problem.map.adjoint_matrix(watch.y), t)[2].size, near.s.size)
        k = k or near.s.size  # a dual vector that is lost in rounding errors says nothing of the rank
        if k == before or watch.prefer(_at_columns(watch, near, k)):
            return
        before = k


def _at_columns(watch: Watch, near: Point, k: int) -> Point:
    """The point to which a descent leads from the first columns of another."""
    problem = watch.problem
    A = problem.map
    fine = 0.0 if problem.q > 0 else EPS * frobenius(problem.b)
    end = descend(
        *(A, problem.b, problem.q, near.L[:, :k], near.R[:, :k]),
        density=problem.density,
        residual_tol=fine,
        max_products=500,
    )
    L, R, s = balanced(end.L, end.R)
    y = watch.y
    if problem.q > 0:
        y = end.residual / problem.q
    elif k * (sum(A.matrix_shape) - k) <= A.m:
        y = least_norm_certificate(A, L / np.sqrt(s), R / np.sqrt(s))
    return Point(L, R, s, y)


def _zero_is_optimal(frame: Frame, rng: np.random.Generator) -> bool:
    problem = frame.problem
    if not np.any(problem.b) or min(problem.map.matrix_shape) == 0:
        return True
    if problem.q == 0 or problem.offsets is not None:  # with offsets it depends on them, and the solver starts there
        return False
    d1, d2 = problem.map.matrix_shape
    back = problem.map.adjoint_for_many(problem.b)
    return norm_bound(back, np.zeros((d1, 0)), np.zeros((d2, 0)), rng, level=problem.q)[0] <= problem.q


def contradictory(A: MeasurementMap, found: Contradiction, objective: Objective) -> Solution:
    d1, d2 = A.matrix_shape
    every = not np.isfinite(found.excluded_norm)
    reach = "no matrix of any rank" if every else f"no matrix of nuclear norm up to {found.excluded_norm:.3g}"
    vanish = "to zero, A*(y) = 0" if every else "to zero up to rounding, which is bounded"
    proof = f"the dual vector y combines the measurements {vanish}, and the data to b.y > 0"
    message = f"The data contradict one another: {reach} fits them, and the zero matrix is returned."
    if objective.kind != "sharpness":  # which takes none
        message += " With a penalty > 0 they need not be fitted exactly."
    certificate = Certificate(1.0, np.inf, np.nan, found.y, proof=proof, excluded_norm=found.excluded_norm)
    layers = [np.zeros((1, d2)), np.zeros((d1, 1))]
    return Solution(layers, np.inf, Status.INFEASIBLE, message, certificate, {}, "closed form", objective=objective)
