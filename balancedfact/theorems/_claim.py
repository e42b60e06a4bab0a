"""Claims: a statement, and a run that draws an instance, computes both sides and compares."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from balancedfact._validate import as_rng
from balancedfact.solvers.iteration._log import interrupts_pass

SOURCES = {
    "DDF": "Ding, Drusvyatskiy, Fazel, Harchaoui 2022, Flat minima generalize for low-rank matrix recovery",
    "CS282": "Liu, Shen, Zhou, course report on the same",
    "GLCRMJ": "Gatmiry, Li, Chuang, Reddi, Ma, Jegelka 2023, The inductive bias of flatness regularization for deep matrix "
    "factorization",
    "MC": "Marion, Chizat 2024, Deep linear networks for regression are implicitly regularized towards flat minima",
    "Blog": "Deep linear networks with label noise minimize the nuclear norm",
    "New": "Established by this package",
}
KINDS = {
    "exact": "an identity, checked to rounding error",
    "bound": "an inequality with explicit constants",
    "empirical": "a rate or a constant that the source does not name, over growing sizes, or an expectation, over samples",
    "counterexample": "a statement that is false as printed; it fails as predicted",
}


@dataclass(frozen=True)
class Outcome:
    """The result on one instance.

    Attributes
    ----------
    holds : bool
        Whether the statement holds on this instance.
    slack : float
        How far from failing, relative; negative exactly when it fails. For an identity ``1 - deviation / tolerance``, for an
        inequality ``(bound - value) / |bound|``.
    details : dict of str to float
        Both sides, sizes, and whatever else a reader may want.

    See Also
    --------
    Claim.check : Returns one.
    equal, at_most, at_least, all_of, fails : Make one.

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


@dataclass(frozen=True)
class Claim:
    """One statement of a source, executable.

    Attributes
    ----------
    source : str
        A key of ``SOURCES``.
    name : str
        How the source calls it, such as "Theorem 2".
    statement : str
        What it says, in one sentence of our own.
    kind : str
        A key of ``KINDS``.
    page : str
        The page of the documentation that explains it, such as ``"theory/two_factors"``.
    test : callable
        Draws an instance that meets the hypotheses from a generator, and compares.

    See Also
    --------
    claim : Enters one.
    ledger : All of them.
    Outcome : What a run returns.

    References
    ----------
    The ledger, :doc:`/theorems`.

    Examples
    --------
    >>> from balancedfact.theorems import ledger
    >>> claim = next(claim for claim in ledger() if claim.key == "mc-theorem-1")
    >>> claim.source, claim.name, claim.check(rng=0).holds
    ('MC', 'Theorem 1', True)
    """

    source: str
    name: str
    statement: str
    kind: str
    page: str
    test: Callable[[np.random.Generator], Outcome]

    @property
    def key(self) -> str:
        """A name for files and commands, such as ``mc-theorem-2``."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.source} {self.name}".lower()).strip("-")

    def check(self, rng: int | np.random.Generator | None = None) -> Outcome:
        """Draw one instance and compare.

        Examples
        --------
        >>> from balancedfact.theorems import ledger
        >>> ledger()[0].check(rng=0).holds
        True
        """
        with interrupts_pass():
            return self.test(as_rng(rng))


LEDGER: list[Claim] = []


Test = Callable[[np.random.Generator], Outcome]


def claim(source: str, name: str, statement: str, *, kind: str, page: str = "") -> Callable[[Test], Test]:
    """Enter the decorated function in the ledger.

    It takes a generator, draws an instance that meets the hypotheses, computes both sides and returns an `Outcome`, usually
    from `equal`, `at_most`, `at_least`, `all_of` or `fails`. Entering a function again, as when a notebook cell is run twice,
    replaces it.

    Parameters
    ----------
    source : str
        Where the statement is from: a key of ``SOURCES``, or a word of your own.
    name : str
        How the source calls it. Source and name together make the key.
    statement : str
        What it says, in one sentence.
    kind : str
        A key of ``KINDS``: ``"exact"``, ``"bound"``, ``"empirical"`` or ``"counterexample"``.
    page : str, optional
        The page of the documentation that explains it.

    Returns
    -------
    callable
        A decorator that returns the function as it is.

    Raises
    ------
    ValueError
        If `kind` is none of the kinds, a text is empty, or another function has the same key.

    See Also
    --------
    ledger : Where it is listed then.
    equal, at_most, at_least : Comparisons for its end.

    References
    ----------
    Guide :doc:`/guide/own_claim`.

    Examples
    --------
    >>> import numpy as np
    >>> from balancedfact.theorems import at_most, claim, ledger
    >>> @claim("Notes", "Trace norm", "The spectral norm is at most the nuclear norm.", kind="bound")
    ... def spectral_below_nuclear(rng):
    ...     X = rng.standard_normal((3, 4))
    ...     return at_most(np.linalg.norm(X, 2), np.linalg.norm(X, "nuc"))
    >>> [mine] = [each for each in ledger() if each.source == "Notes"]
    >>> mine.key, mine.check(rng=0).holds
    ('notes-trace-norm', True)
    """
    for label, value in (("source", source), ("name", name), ("statement", statement)):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{label} is {value!r}; expected a text")
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")

    def enter(test: Test) -> Test:
        entry = Claim(source, name, statement, kind, page, test)
        for place, other in enumerate(LEDGER):
            if other.key == entry.key:
                if _origin(other.test) != _origin(test):
                    raise ValueError(f"name is {name!r}; {_origin(other.test)} has the key {entry.key} already")
                LEDGER[place] = entry
                return test
        LEDGER.append(entry)
        return test

    return enter


def _origin(test: Test) -> str:
    return f"{getattr(test, '__module__', '')}.{getattr(test, '__qualname__', repr(test))}"


def equal(left: Any, right: Any, *, rtol: float = 1e-9, scale: float | None = None, **details: float) -> Outcome:
    """Compare two numbers or arrays, relative to the larger of them or to `scale`.

    See Also
    --------
    at_most, at_least : Inequalities.
    all_of : Several at once.

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

    See Also
    --------
    at_least : The other direction.
    equal : An identity.
    all_of : Several at once.

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

    See Also
    --------
    at_most : The other direction.
    equal : An identity.
    all_of : Several at once.

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
    """Combine comparisons that must all hold; the slack is the least.

    See Also
    --------
    equal, at_most, at_least : The comparisons that it joins.

    References
    ----------
    Guide :doc:`/guide/own_claim`.

    Examples
    --------
    >>> from balancedfact.theorems import all_of, at_least, at_most
    >>> all_of(above=at_least(2.0, 1.0), below=at_most(2.0, 8.0)).slack
    0.75
    """
    details = {f"{name} {key}": value for name, part in parts.items() for key, value in part.details.items()}
    return Outcome(all(part.holds for part in parts.values()), min(part.slack for part in parts.values()), details)


def fails(printed: Outcome, **details: float) -> Outcome:
    """Turn a comparison round: a statement that is false as printed fails on this instance; the slack is by how much.

    Not when it could not be judged: what is not a number refutes nothing.

    See Also
    --------
    equal, at_most : The comparisons that it turns round.

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
