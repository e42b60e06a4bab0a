"""The verdict that follows from a certificate."""

from __future__ import annotations

import numpy as np

from balancedfact._certificate import Certificate
from balancedfact._status import Status
from balancedfact.certification._pair import reached


def unreached(certificate: Certificate) -> str | None:
    """A sentence on data that were to be interpolated and are not, all together or one of them; else ``None``."""
    if reached(certificate.feasibility, certificate.worst_datum):
        return None
    size = f"relative residual {certificate.feasibility:.1e}, of a single datum up to {certificate.worst_datum:.1e}"
    return f"The data were not reached: {size}."


def verdict(certificate: Certificate, penalty: float, limit: int | None, tol: float) -> tuple[Status, str]:
    """The verdict as a status and a sentence, from the numbers that are returned."""
    gap = f"a relative {certificate.gap:.1e}"
    missed = unreached(certificate) if penalty == 0 else None
    if missed is not None:
        if limit is not None:
            found = f"No matrix of rank {limit} or less was found to fit the data"
            return Status.RANK_EXCLUDED, f"{found}: relative residual {certificate.feasibility:.1e}."
        return Status.GAP_OPEN, missed
    if np.isnan(certificate.gap):
        return Status.GAP_OPEN, f"The value, {certificate.value:.3g}, is beyond what floating-point numbers tell apart."
    if certificate.gap <= tol:
        return Status.OPTIMAL, f"Optimal: no factorization of any width is better by more than {gap}."
    if certificate.gap - certificate.rounding <= tol:
        lost = f"rounding may be {certificate.rounding:.1e} of it"
        return Status.GAP_OPEN, f"The gap closed but for rounding: {gap} is proved, {lost} on data as badly scaled as these."
    if limit is not None:
        found = f"The best found of rank {limit} or less"
        return Status.RANK_LIMITED, f"{found}; without the limit a factorization may be better by up to {gap}."
    return Status.GAP_OPEN, f"Stopped where a factorization may still be better by up to {gap}."
