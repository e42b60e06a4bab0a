"""Certificates for anyone's answers: ours, another package's, or one read from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_array, as_count, as_layers, as_number, as_pair
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Certificate, Objective, Offsets, Solution, Status
from balancedfact.solvers.nuclear._certificate import certify_pair, excluded_norm, suggested_size
from balancedfact.solvers.nuclear._certified import _outcome, certified_minimum
from balancedfact.solvers.nuclear._frame import EXCLUDED
from balancedfact.solvers.nuclear._problem import balanced_from_matrix


def certify(
    A: MeasurementMap,
    b: ArrayLike,
    candidate: ArrayLike | Sequence[ArrayLike],
    y: ArrayLike | None = None,
    *,
    flat: bool = True,
    penalty: float = 0.0,
    depth: int = 2,
    offset_penalty: float | None = None,
    rigorous: bool = False,
) -> Certificate:
    r"""Compute the certificate of a candidate, whoever found it.

    Nothing is taken on trust: value, residual, lower bound and gap are computed from the numbers given, with a bound on all
    rounding. The bound holds for every `y`; a poor one only leaves a large gap.

    Parameters
    ----------
    A : MeasurementMap
        `m` measurements of ``d1 x d2`` matrices.
    b : array_like, shape (m,)
        The data.
    candidate : array_like or sequence of array_like
        A matrix of shape ``(d1, d2)``, of which the best factorization is meant; a pair ``(L, R)`` with product ``L @ R.T``; or
        layers ``[W_1, W_2]``, as in `Solution.layers`, given as a list.
    y : array_like, shape (m,), optional
        A dual vector; it is brought within its constraint. By default the problem is solved to find one.
    flat : bool
        Whether the objective is that of `balancedfact.flat_minimum`; otherwise that of `balancedfact.norm_minimum`.
    penalty : float
        The penalty of the objective; 0 interpolates.
    depth : int
        The number of factors, 2.
    offset_penalty : float, optional
        Weight of the squares of offsets; the candidate is then judged with offsets of zero, which are within the model.
    rigorous : bool
        Decide in exact arithmetic, for small matrices: needs ``pip install 'balancedfact[rigorous]'``.

    Returns
    -------
    Certificate
        In the units of `Solution.value`. With ``rigorous=True``, `value` and `lower_bound` are the ends of proved enclosures
        that make the gap the largest.

    Raises
    ------
    ValueError
        If an argument is malformed.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Entries([0, 0, 1], [0, 1, 0], (2, 2))
    >>> bf.certify(A, [1.0, 2.0, 3.0], [[1.0, 2.0], [3.0, 2.0]]).gap > 0.01
    True
    >>> bf.certify(A, [1.0, 2.0, 2.0], [[1.0, 2.0], [2.0, 4.0]], flat=False).worst_datum < 1e-12
    True
    """
    if not isinstance(A, MeasurementMap):
        raise ValueError(f"A is {type(A).__name__}; expected a measurement map such as bf.measurements.Dense")
    data = as_array(b, "b", shape=(A.m,))
    for name, value in (("flat", flat), ("rigorous", rigorous)):
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{name} is {value!r}; expected True or False")
    if as_count(depth, "depth", least=2) != 2:
        raise ValueError(f"depth is {depth}; expected 2, the depth for which certificates of others can be checked")
    penalty = as_number(penalty, "penalty", least=0.0)
    if offset_penalty is not None:
        offset_penalty = as_number(offset_penalty, "offset_penalty", above=0.0)
        if not A.of_entries or penalty == 0:
            raise ValueError(f"offset_penalty is {offset_penalty}; expected None unless A is Entries and penalty is positive")
    pair = _as_candidate(candidate, A, flat)
    if y is None:
        dual = certified_minimum(
            A,
            data,
            flat=flat,
            penalty=penalty,
            max_rank=None,
            tol=1e-8,
            rng=0,
            initial=None,
            callback=None,
            progress=False,
            offset_penalty=offset_penalty,
        ).certificate.dual
    else:
        dual = as_array(y, "y", shape=(A.m,))
    offsets = None if offset_penalty is None else Offsets(0.0, *(np.zeros(size) for size in A.matrix_shape))
    objective = Objective("flat" if flat else "norm", penalty, offset_penalty)
    return certified(A, data, objective, pair, dual, offsets, rigorous=bool(rigorous))


def certified(
    A: MeasurementMap,
    b: np.ndarray,
    objective: Objective,
    pair: tuple[np.ndarray, np.ndarray],
    dual: np.ndarray,
    offsets: Offsets | None,
    *,
    rigorous: bool,
) -> Certificate:
    """The certificate of a checked pair and dual vector."""
    rng = np.random.default_rng()
    if dual.size != A.m:
        dual = np.zeros(A.m)
    certificate = certify_pair(A, b, objective, pair, dual, rng=rng, offsets=offsets)
    proof = "value, residual and bound were computed anew from the numbers given, with an a priori bound on rounding"
    certificate = replace(certificate, proof=proof)
    if rigorous:
        from balancedfact._rigorous import enclosed  # an extra

        # Of the vector as it was given: a multiple of it is rounded, which the inverses of D1 and D2 may magnify.
        certificate = enclosed(A, b, objective, pair, replace(certificate, dual=dual), offsets)
    return certificate


def verified(solution: Solution, A: MeasurementMap, b: ArrayLike, rigorous: bool) -> Certificate:
    """The certificate of a solution; see `Solution.verify`."""
    if not isinstance(A, MeasurementMap):
        raise ValueError(f"A is {type(A).__name__}; expected a measurement map such as bf.measurements.Dense")
    data = as_array(b, "b", shape=(A.m,))
    if not isinstance(rigorous, (bool, np.bool_)):
        raise ValueError(f"rigorous is {rigorous!r}; expected True or False")
    objective, dual = solution.objective, np.asarray(solution.certificate.dual, dtype=float)
    if dual.shape != (A.m,) or not np.isfinite(dual).all():
        dual = np.zeros(A.m)
    if solution.status is Status.INFEASIBLE:
        excluded = excluded_norm(A, data, dual)
        proof = "b.y was compared with A*(y), its rounding included"
        return Certificate(1.0, np.inf if excluded > 0 else np.nan, np.nan, dual, proof=proof, excluded_norm=excluded)
    if objective is None or objective.kind not in ("flat", "norm") or objective.depth != 2 or len(solution.layers) != 2:
        raise ValueError("the solution has no objective that can be verified; expected a flat or a norm-minimal pair")
    layers = as_layers(solution.layers, A.matrix_shape)
    certificate = certified(A, data, objective, (layers[1], layers[0].T), dual, solution.offsets, rigorous=bool(rigorous))
    kept = solution.certificate
    return replace(certificate, stationarity=kept.stationarity, balance=kept.balance)


def rechecked(solution: Solution, A: MeasurementMap, b: ArrayLike) -> Solution:
    """A solution with certificate, value and verdict computed anew: what it claims of itself counts for nothing."""
    try:
        certificate = verified(solution, A, b, False)
    except ValueError as error:
        if "no objective" not in str(error):
            raise
        claim = Certificate(np.nan, proof="nothing was checked")
        message = "(not checked: no certificate of these layers can be computed anew) " + solution.message
        return replace(solution, status=Status.GAP_OPEN, certificate=claim, message=message)
    if solution.status is Status.INFEASIBLE:
        proved = certificate.excluded_norm > EXCLUDED * suggested_size(A, as_array(b, "b"))
        status = Status.INFEASIBLE if proved else Status.GAP_OPEN
        message = "Checked: the data contradict one another." if proved else "Checked: no contradiction is proved."
        return replace(solution, certificate=certificate, status=status, message=message)
    penalty = 0.0 if solution.objective is None else solution.objective.penalty
    status, message = _outcome(certificate, penalty, None, 1e-8)
    if status is not Status.OPTIMAL and solution.status not in (Status.OPTIMAL, Status.STATIONARY):
        status = solution.status
    return replace(
        solution,
        certificate=replace(certificate, stationarity=np.nan, balance=np.nan),
        value=certificate.value,
        status=status,
        message="Checked: " + message,
    )


def _as_candidate(candidate: Any, A: MeasurementMap, flat: bool) -> tuple[np.ndarray, np.ndarray]:
    if (isinstance(candidate, np.ndarray) and candidate.ndim == 2) or _is_matrix(candidate):
        X = as_array(candidate, "candidate", shape=A.matrix_shape)
        return _best_pair(X, A, flat)
    if isinstance(candidate, tuple) and len(candidate) == 2:
        return as_pair(*candidate, A.matrix_shape)
    layers = as_layers(candidate, A.matrix_shape)
    if len(layers) != 2:
        raise ValueError(f"candidate has {len(layers)} layers; expected 2, a pair or a matrix")
    return layers[1], layers[0].T


def _is_matrix(candidate: Any) -> bool:
    try:
        return np.asarray(candidate).ndim == 2
    except (TypeError, ValueError):
        return False


def _best_pair(X: np.ndarray, A: MeasurementMap, flat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Factors of a matrix whose objective is that of the matrix; what no measurement sees costs nothing and is left out."""
    if not flat:
        L, R, _ = balanced_from_matrix(X)
    else:
        white = A.whitened()
        seen = A.rescale_right(A.rescale_right(A.rescale_left(A.rescale_left(X)).T)).T
        inner = np.asarray(white.right.T @ (white.left.T @ seen).T).T
        L, R, _ = balanced_from_matrix(inner)
        L, R = np.asarray(white.left @ L), np.asarray(white.right @ R)
    if L.shape[1] == 0:
        return np.zeros((X.shape[0], 1)), np.zeros((X.shape[1], 1))
    return L, R
