"""The theorem ledger: every statement of the sources as a claim that can be run, and can fail."""

import re

from balancedfact.theorems import (  # noqa: F401, each enters its claims
    _training_rules,
    deep,
    geometry,
    induced,
    recovery,
    sharpness,
    two_factors,
)
from balancedfact.theorems._claim import KINDS, LEDGER, SOURCES, Claim, claim
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal, fails

__all__ = [
    "KINDS",
    "SOURCES",
    "Claim",
    "Outcome",
    "all_of",
    "at_least",
    "at_most",
    "claim",
    "equal",
    "fails",
    "ledger",
]


def ledger() -> list[Claim]:
    """List all claims: the statements of the sources that can be run.

    They are sorted by source, in the order of ``SOURCES`` with your own sources last, and within a source by name, with numbers
    in their order.

    Returns
    -------
    list of Claim

    See Also
    --------
    Claim : One entry.
    claim : Enters a claim of your own.

    References
    ----------
    The ledger, :doc:`/theorems`.

    Examples
    --------
    >>> from balancedfact.theorems import ledger
    >>> {"DDF", "CS282", "GLCRMJ", "MC", "Blog", "New"} <= {claim.source for claim in ledger()}
    True
    """
    return sorted(LEDGER, key=_place)


def _place(claim: Claim) -> tuple[int, str, list[tuple[int, str]]]:
    parts = re.findall(r"(\d+)|(\D+)", claim.name)
    known = [*SOURCES, claim.source]
    return known.index(claim.source), claim.source, [(int(number or -1), text) for number, text in parts]
