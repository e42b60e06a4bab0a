"""The theorem ledger: every statement of the sources as a claim that can be run, and can fail."""

from balancedfact.theorems import (  # noqa: F401, each enters its claims
    _balanced_pairs,
    _two_factors,
)
from balancedfact.theorems._claim import KINDS, LEDGER, SOURCES, Claim, Outcome

__all__ = ["KINDS", "SOURCES", "Claim", "Outcome", "ledger"]


def ledger() -> list[Claim]:
    """All claims, by source in the order of ``SOURCES``, and within a source in its own order.

    Returns
    -------
    list of Claim

    Examples
    --------
    >>> from balancedfact.theorems import ledger
    >>> {claim.source for claim in ledger()} <= {"DDF", "CS282", "GLCRMJ", "MC", "Blog", "New"}
    True
    """
    order = list(SOURCES)
    return sorted(LEDGER, key=lambda claim: order.index(claim.source))
