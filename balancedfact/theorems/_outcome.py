"""Outcomes: both sides of a statement on one instance, compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Outcome:
    """The result of a claim on one instance.

    Attributes
    ----------
    holds : bool
        Whether the statement holds on this instance; it does not where a number is not finite.
    slack : float
        How far the statement is from failing, relative; negative exactly when it fails. It is ``1 - deviation / tolerance`` for
        an identity and ``(bound - value) / |bound|`` for ``value <= bound``, zero where only rounding is on the wrong side.
    details : dict of str to float
        Both sides of the comparison, and other numbers of the instance.

    See Also
    --------
    Claim.check : Draws an instance and returns its outcome.
    equal, at_most, at_least, all_of, fails : Comparisons that return one.

    References
    ----------
    Guide :doc:`/guide/own_claim`.

    Examples
    --------
    >>> from balancedfact.theorems import at_most
    >>> outcome = at_most(3.0, 4.0)
    >>> outcome.holds, outcome.slack, outcome.details
    (True, 0.25, {'value': 3.0, 'bound': 4.0})
    """

    holds: bool
    slack: float
    details: dict[str, float] = field(default_factory=dict)


def equal(left: Any, right: Any, *, rtol: float = 1e-9, scale: float | None = None, **details: float) -> Outcome:
    """Check that two numbers or arrays are equal, up to a tolerance relative to the larger of them or to `scale`.

    Parameters
    ----------
    left, right : float or array_like
        The two sides, of one shape.
    rtol : float
        The largest deviation, in the Frobenius norm, that counts as equal.
    scale : float, optional
        What deviations are relative to, in place of the larger of the two norms.
    **details : float
        Further numbers to keep in `Outcome.details`.

    Returns
    -------
    Outcome

    Raises
    ------
    ValueError
        If the two sides have different shapes.

    See Also
    --------
    at_most, at_least : Inequalities.
    all_of : Several comparisons at once.

    References
    ----------
    Guide :doc:`/guide/own_claim`.

    Examples
    --------
    >>> from balancedfact.theorems import equal
    >>> equal([1.0, 2.0], [1.0, 2.0]).holds, equal(1.0, 1.1).holds
    (True, False)
    """
    a, b = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"the two sides have shapes {a.shape} and {b.shape}; expected one")
    size = max(float(np.linalg.norm(a)), float(np.linalg.norm(b))) if scale is None else scale
    deviation = float(np.linalg.norm(a - b)) / size if size else 0.0
    sides = {"left": float(np.linalg.norm(a)), "right": float(np.linalg.norm(b)), "deviation": deviation}
    return _judged(1 - deviation / rtol, 0.0, sides | details)


def at_most(value: float, bound: float, *, rtol: float = 1e-9, **details: float) -> Outcome:
    """Check that a number does not exceed a bound, up to rounding relative to the bound.

    Parameters
    ----------
    value, bound : float
        The two sides of ``value <= bound``.
    rtol : float
        The excess, relative to the bound, that counts as rounding; none is allowed if the bound is zero.
    **details : float
        Further numbers to keep in `Outcome.details`.

    Returns
    -------
    Outcome

    See Also
    --------
    at_least, equal : The inequality in the other direction, and an identity.
    all_of : Several comparisons at once.

    References
    ----------
    Guide :doc:`/guide/own_claim`.

    Examples
    --------
    >>> from balancedfact.theorems import at_most
    >>> at_most(3.0, 4.0).slack, at_most(5.0, 4.0).holds
    (0.25, False)
    """
    slack = (bound - value) / abs(bound) if bound else -value
    return _judged(slack, rtol if bound else 0.0, {"value": float(value), "bound": float(bound)} | details)


def at_least(value: float, bound: float, *, rtol: float = 1e-9, **details: float) -> Outcome:
    """Check that a number is not below a bound, up to rounding relative to the bound.

    Parameters
    ----------
    value, bound : float
        The two sides of ``value >= bound``.
    rtol, **details : float
        As in `at_most`.

    Returns
    -------
    Outcome

    See Also
    --------
    at_most, equal : The inequality in the other direction, and an identity.
    all_of : Several comparisons at once.

    References
    ----------
    Guide :doc:`/guide/own_claim`.

    Examples
    --------
    >>> from balancedfact.theorems import at_least
    >>> at_least(5.0, 4.0).slack, at_least(3.0, 4.0).holds
    (0.25, False)
    """
    slack = (value - bound) / abs(bound) if bound else value
    return _judged(slack, rtol if bound else 0.0, {"value": float(value), "bound": float(bound)} | details)


def all_of(**parts: Outcome) -> Outcome:
    """Combine comparisons that must all hold.

    Parameters
    ----------
    **parts : Outcome
        The comparisons, at least one, by names of your own.

    Returns
    -------
    Outcome
        Its slack is the least of the parts; its details are those of all, with the name of the part in front.

    Raises
    ------
    ValueError
        If there is no part.

    See Also
    --------
    equal, at_most, at_least : The comparisons to combine.

    References
    ----------
    Guide :doc:`/guide/own_claim`.

    Examples
    --------
    >>> from balancedfact.theorems import all_of, at_least, at_most
    >>> all_of(above=at_least(2.0, 1.0), below=at_most(2.0, 8.0)).slack
    0.75
    """
    if not parts:
        raise ValueError("parts are none; expected at least one comparison by name, such as equal=equal(left, right)")
    details = {f"{name} {key}": value for name, part in parts.items() for key, value in part.details.items()}
    return Outcome(all(part.holds for part in parts.values()), min(part.slack for part in parts.values()), details)


def fails(printed: Outcome, **details: float) -> Outcome:
    """Turn a comparison round, for a statement that is false as printed: hold where the comparison does not.

    Parameters
    ----------
    printed : Outcome
        The comparison for the statement as printed.
    **details : float
        Further numbers to keep in `Outcome.details`.

    Returns
    -------
    Outcome
        Its slack tells by how much the printed statement fails. It does not hold where the comparison had no finite numbers,
        which refute nothing.

    See Also
    --------
    equal, at_most : The comparisons to turn round.

    References
    ----------
    Guide :doc:`/guide/own_claim`.

    Examples
    --------
    >>> from balancedfact.theorems import equal, fails
    >>> fails(equal(1.0, 2.0)).holds, fails(equal(1.0, 1.0)).holds
    (True, False)
    """
    details = printed.details | details
    if printed.holds:
        return Outcome(False, min(-printed.slack, -np.finfo(float).tiny), details)
    if not np.isfinite(printed.slack):
        return Outcome(False, -np.inf, details)
    return Outcome(True, -printed.slack, details)


def _judged(slack: float, allowance: float, details: dict[str, float]) -> Outcome:
    """Accept a slack that is not below minus the allowance, and nothing that is not finite."""
    if not np.isfinite(slack):
        return Outcome(False, -np.inf, details)
    holds = bool(slack >= -allowance)
    return Outcome(holds, float(max(slack, 0.0) if holds else slack), details)
