"""Statements of solutions, proved anew from their numbers and the data, or not believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._certificate import Certificate
from balancedfact._new_rows import Offsets
from balancedfact._objective import Objective
from balancedfact._status import Status
from balancedfact._validate import as_array, as_layers, as_number
from balancedfact.certification._contradiction import excluded_norm, proves_contradiction
from balancedfact.certification._exact import enclosed
from balancedfact.certification._pair import certify_pair
from balancedfact.certification._verdict import verdict
from balancedfact.certification.deep._decay import certify_decay
from balancedfact.certification.deep._exact import enclosed_layers
from balancedfact.certification.deep._layers import GAP_OF_NETWORKS, certify_layers, verdict_on_layers
from balancedfact.certification.deep._sharpness import certify_sharpness, verdict_on_sharpness
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map

_MOST_LIFTED = 200  # matrix entries up to which every bound on networks is tried for a statement that claims a proof
UNCHECKED = "(not checked: read from a file without its data) "


class Statement(NamedTuple):
    """Statement of a solution, and the numbers that are to prove it."""

    layers: Sequence[np.ndarray]
    status: Status
    certificate: Certificate
    offsets: Offsets | None
    objective: Objective | None

    @property
    def provable(self) -> bool:
        """Tell whether this is the kind of statement whose certificate follows from the layers and the dual vector."""
        kind = self.objective
        if kind is None or kind.depth != len(self.layers):
            return False
        if kind.kind == "sharpness":
            return kind.penalty == 0 and kind.offset_penalty is None and self.offsets is None
        penalised_trace = kind.flat and kind.penalty > 0
        return kind.depth == 2 or (
            kind.depth > 2 and not penalised_trace and kind.offset_penalty is None and self.offsets is None
        )

    @property
    def deep(self) -> bool:
        """Tell whether it is of three or more layers."""
        return len(self.layers) > 2

    @property
    def of_sharpness(self) -> bool:
        """Tell whether it is of the largest eigenvalue of the Hessian."""
        return self.objective is not None and self.objective.kind == "sharpness"


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
    # Drawn from the system's entropy: numbers could have been made to mislead start vectors that are known.
    certificate = certify_pair(A, b, objective, pair, dual, rng=np.random.default_rng(), offsets=offsets)
    proof = "value, residual and bound were computed anew from the numbers given, with an a priori bound on rounding"
    certificate = replace(certificate, proof=proof)
    # Exactly, of the vector as it was given: a multiple of it is rounded, which the inverses of D1 and D2 may magnify.
    return enclosed(A, b, objective, pair, replace(certificate, dual=dual), offsets) if rigorous else certificate


def certified_layers(
    A: MeasurementMap,
    b: np.ndarray,
    objective: Objective,
    layers: list[np.ndarray],
    dual: np.ndarray | None,
    *,
    effort: str,
    rigorous: bool,
) -> Certificate:
    """The certificate of checked layers, three or more, and a dual vector if there is one."""
    if objective.penalty > 0:
        if rigorous:
            raise ValueError(f"rigorous is True; expected False, with a penalty on {len(layers)} layers")
        return certify_decay(A, b, objective, layers, np.zeros(A.m) if dual is None else dual)
    if rigorous:
        effort = "dual"
    certificate = certify_layers(A, b, objective, layers, dual, effort=effort, rng=np.random.default_rng())
    return enclosed_layers(A, b, objective, layers, certificate) if rigorous else certificate


def certified_sharpness(
    A: MeasurementMap, b: np.ndarray, layers: list[np.ndarray], certificate: Certificate, *, rigorous: bool
) -> Certificate:
    """The certificate of checked layers; weights and dual vector that are none, or do not go together, prove nothing."""
    if rigorous:
        raise ValueError("rigorous is True; expected False, for the least sharpness")
    Y, z = (np.asarray(each, dtype=float) for each in (certificate.dual, certificate.weighted_dual))
    if Y.ndim != 2 or Y.shape != (A.m, z.size) or z.ndim != 1 or not (np.isfinite(Y).all() and np.isfinite(z).all()):
        Y, z = np.zeros((A.m, 0)), np.zeros(0)
    return certify_sharpness(A, b, layers, Y, z, rng=np.random.default_rng())


def reproved(statement: Statement, A: MeasurementMap, b: ArrayLike, *, rigorous: bool) -> Certificate:
    """The certificate of a statement, computed anew; see `balancedfact.Solution.verify`."""
    data = checked_data(A, b)
    if not isinstance(rigorous, (bool, np.bool_)):
        raise ValueError(f"rigorous is {rigorous!r}; expected True or False")
    dual = np.asarray(statement.certificate.dual, dtype=float)
    if dual.shape != (A.m,) or not np.isfinite(dual).all():
        dual = np.zeros(A.m)
    if statement.status is Status.INFEASIBLE:
        excluded = excluded_norm(A, data, dual)
        proof = "b.y was compared with A*(y), its rounding included"
        return Certificate(1.0, np.inf if excluded > 0 else np.nan, np.nan, dual, proof=proof, excluded_norm=excluded)
    if statement.objective is None or not statement.provable:
        expected = "flat or norm-minimal layers, or those of flattest_sharpness"
        raise ValueError(f"the solution has no objective that can be verified; expected {expected}")
    layers = as_layers(statement.layers, A.matrix_shape)
    if statement.of_sharpness:
        return certified_sharpness(A, data, layers, statement.certificate, rigorous=bool(rigorous))
    if statement.deep:
        # The costly bounds only where the statement needs them: what they prove is all that could confirm it.
        effort = "best" if statement.status is Status.OPTIMAL and A.shape[1] <= _MOST_LIFTED else "quick"
        return certified_layers(A, data, statement.objective, layers, dual, effort=effort, rigorous=bool(rigorous))
    certificate = certified(
        A,
        data,
        statement.objective,
        (layers[1], layers[0].T),
        dual,
        _checked_offsets(statement.offsets, A),
        rigorous=bool(rigorous),
    )
    return replace(certificate, stationarity=statement.certificate.stationarity, balance=statement.certificate.balance)


def judged_anew(statement: Statement, message: str, A: MeasurementMap, b: ArrayLike, tol: float) -> dict[str, Any]:
    """The fields of a solution that its numbers and the data decide: what it said of itself counts for nothing."""
    data, tol = checked_data(A, b), as_number(tol, "tol", above=0.0)
    if statement.status is not Status.INFEASIBLE and not statement.provable:
        missing = "the file does not name its objective, and " if statement.objective is None else ""
        message = f"(not checked: {missing}no certificate of these layers can be computed anew) {message}"
        return {"status": Status.GAP_OPEN, "certificate": Certificate(np.nan, proof="nothing was checked"), "message": message}
    certificate = reproved(statement, A, data, rigorous=False)
    if statement.status is Status.INFEASIBLE:
        proved = proves_contradiction(A, data, certificate.excluded_norm)
        said = "the data contradict one another" if proved else "no contradiction is proved"
        status = Status.INFEASIBLE if proved else Status.GAP_OPEN
        value = np.inf if proved else np.nan
        return {"status": status, "certificate": certificate, "message": f"Checked: {said}.", "value": value}
    penalty = 0.0 if statement.objective is None else statement.objective.penalty
    if statement.of_sharpness:
        status, message = verdict_on_sharpness(certificate, max(tol, GAP_OF_NETWORKS))
    elif statement.deep and statement.objective is not None:
        status, message = verdict_on_layers(certificate, statement.objective, tol)
    else:
        status, message = verdict(certificate, penalty, None, tol)
        certificate = replace(certificate, stationarity=np.nan, balance=np.nan)
    if status is not Status.OPTIMAL and not statement.status.ok:
        status = statement.status
        message += f" The solution itself says no more than {status.value}."
    return {"status": status, "certificate": certificate, "message": "Checked: " + message, "value": certificate.value}


def checked_data(A: MeasurementMap, b: ArrayLike) -> np.ndarray:
    """The data of a map, refused by name where either is something else."""
    return as_array(b, "b", shape=(as_map(A).m,))


def _checked_offsets(offsets: Offsets | None, A: MeasurementMap) -> Offsets | None:
    if offsets is None:
        return None
    if not A.of_entries:
        raise ValueError(f"A is {type(A).__name__}; expected Entries, as the solution has offsets")
    rows, cols = (
        as_array(each, f"offsets.{name}", shape=(size,))
        for each, name, size in ((offsets.rows, "rows", A.matrix_shape[0]), (offsets.cols, "cols", A.matrix_shape[1]))
    )
    return Offsets(float(offsets.mean), rows, cols)
