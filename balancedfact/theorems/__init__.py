"""The theorem ledger: every statement of the sources as a claim that can be run, and can fail."""

import re

from balancedfact.theorems import deep, geometry, induced, recovery, sharpness, two_factors  # noqa: F401, each enters its claims
from balancedfact.theorems._claim import KINDS, LEDGER, SOURCES, Claim, Outcome

__all__ = [
    "KINDS",
    "SOURCES",
    "Claim",
    "Outcome",
    "ledger",
]


def ledger() -> list[Claim]:
    """All claims, by source in the order of ``SOURCES``, and within a source by name, numbers in their order.

    Returns
    -------
    list of Claim

    Examples
    --------
    >>> from balancedfact.theorems import ledger
    >>> {claim.source for claim in ledger()} <= {"DDF", "CS282", "GLCRMJ", "MC", "Blog", "New"}
    True
    """
    return sorted(LEDGER, key=_place)


def _place(claim: Claim) -> tuple[int, list[tuple[int, str]]]:
    parts = re.findall(r"(\d+)|(\D+)", claim.name)
    return list(SOURCES).index(claim.source), [(int(number or -1), text) for number, text in parts]
