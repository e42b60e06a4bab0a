"""Claims: a statement, and a run that draws an instance, computes both sides and compares; the ledger of all."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from balancedfact._validate import as_rng
from balancedfact.solvers.iteration._log import interrupts_pass
from balancedfact.theorems._outcome import Outcome

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
