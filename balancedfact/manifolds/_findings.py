"""The verdicts of a conformance check, and the two measures behind them: a relative deviation, an observed order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

EXACT = 1e-8  # relative deviation up to which an identity holds
STEPS = 0.5 ** np.arange(2, 16)


@dataclass(frozen=True)
class Finding:
    """The verdict on one property.

    Attributes
    ----------
    ok : bool
        Whether the property holds.
    measured : float
        A relative deviation, or the observed order of a remainder in the step length.
    expected : str
        What `measured` should be.
    note : str
        What went wrong or was not looked at.

    See Also
    --------
    ManifoldReport : All findings of one check.
    check_manifold : The check itself.

    References
    ----------
    Guide :doc:`/guide/own_manifold`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> report = bf.manifolds.check_manifold(bf.manifolds.BalancedPairs(3, 2, 1), rng=0)
    >>> finding = report.entries["retraction second order"]
    >>> finding.ok, round(finding.measured)
    (True, 3)
    """

    ok: bool
    measured: float
    expected: str
    note: str = ""


@dataclass(frozen=True)
class ManifoldReport:
    """The report of `check_manifold`.

    Attributes
    ----------
    name : str
        The manifold.
    entries : dict of str to Finding
        One verdict for each property, by its name.

    See Also
    --------
    check_manifold : The check itself.
    Finding : One entry of the report.

    References
    ----------
    Guide :doc:`/guide/own_manifold`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> report = bf.manifolds.check_manifold(bf.manifolds.BalancedLayers([2, 2, 2]), rng=0)
    >>> report.ok, all(finding.ok for finding in report.entries.values())
    (True, True)
    """

    name: str
    entries: dict[str, Finding] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Tell whether every property holds."""
        return all(entry.ok for entry in self.entries.values())

    @property
    def failures(self) -> list[str]:
        """The names of the properties that do not hold."""
        return [name for name, entry in self.entries.items() if not entry.ok]

    def __str__(self) -> str:
        width = max(map(len, self.entries), default=0)
        lines = [self.name]
        for name, entry in self.entries.items():
            number = "-" if np.isnan(entry.measured) else f"{entry.measured:.2g}"
            verdict = "ok  " if entry.ok else "FAIL"
            lines.append(f"{verdict}  {name:<{width}}  {number:>8}  {entry.expected}  {entry.note}".rstrip())
        return "\n".join(lines)


def deviation(found: np.ndarray, expected: np.ndarray) -> float:
    """The relative norm of a difference; infinite where something is not finite."""
    size = np.linalg.norm(expected) or 1.0
    relative = float(np.linalg.norm(found - expected) / size)
    return relative if np.isfinite(relative) else np.inf


def order_of(errors: list[Any], order: int, scale: float) -> Finding:
    """The order at which errors fall over halved steps, from the smallest steps above rounding error."""
    values, steps = np.asarray(errors, dtype=float), np.log(STEPS)
    if not np.isfinite(values).all():
        return Finding(False, np.inf, f"order {order}", "NaN or infinite values")
    usable = np.flatnonzero(values > 2e3 * np.finfo(float).eps * max(scale, 1e-300))
    if usable.size < 3:
        return Finding(True, np.nan, f"order {order}", "exact to rounding")
    last = usable[-4:]
    found = float(np.polyfit(steps[last], np.log(values[last]), 1)[0])
    return Finding(found > order - 0.4, found, f"order {order}")
