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


@dataclass(frozen=True)
class Claim:
    """One statement of a source, with the code that tests it on a random instance.

    Attributes
    ----------
    source : str
        A key of ``SOURCES``.
    name : str
        What the source calls it, such as "Theorem 2".
    statement : str
        What the statement says, in one sentence and not the words of the source.
    kind : str
        A key of ``KINDS``.
    page : str
        The page of the documentation that explains it, such as ``"theory/two_factors"``.
    test : callable
        Draws an instance that meets the hypotheses from a generator and returns an `Outcome`.

    See Also
    --------
    claim : Enters a claim in the ledger.
    ledger : All claims.
    Outcome : The result on one instance.

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
    """Enter the decorated function in the ledger of claims.

    The function takes a generator, draws an instance that meets the hypotheses, computes both sides and returns an `Outcome`,
    usually from `equal`, `at_most`, `at_least`, `all_of` or `fails`. Entering a function again, as when a notebook cell is run
    twice, replaces it.

    Parameters
    ----------
    source : str
        Where the statement is from: a key of ``SOURCES``, or a word of your own.
    name : str
        What the source calls the statement. Source and name together make the key.
    statement : str
        What the statement says, in one sentence.
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
    ledger : The list of all claims.
    equal, at_most, at_least : Comparisons that return an outcome.

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
