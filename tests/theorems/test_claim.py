"""What a claim is, and the order of the ledger."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.theorems import KINDS, SOURCES, Claim, ledger
from balancedfact.theorems._outcome import at_most, equal

DOCS = Path(bf.__file__).parents[1] / "docs"


def test_keys_are_unique():
    repeated = [key for key, count in Counter(claim.key for claim in ledger()).items() if count > 1]
    assert repeated == []


def test_key_is_made_of_the_source_and_the_name():
    claim = Claim("MC", "Lemma 2, (a)", "", "exact", "theory/two_factors", lambda rng: equal(1, 1))
    assert claim.key == "mc-lemma-2-a"


def test_ledger_is_by_source_and_by_name_with_numbers_in_order():
    sources = [claim.source for claim in ledger()]
    assert sources == sorted(sources, key=list(SOURCES).index)
    names = [claim.name for claim in ledger() if claim.source == "CS282"]
    places = [names.index(name) for name in ("Equation 8, near balance", "Equation 10, Lemma", "First claim, equal values")]
    assert places == sorted(places)


@pytest.mark.parametrize("claim", ledger(), ids=lambda claim: claim.key)
def test_every_claim_is_complete(claim):
    assert claim.source in SOURCES
    assert claim.kind in KINDS
    assert claim.statement.endswith(".")
    assert len(claim.statement) > 20
    assert (DOCS / f"{claim.page}.md").is_file()


def test_a_claim_is_checked_on_the_instance_of_the_seed():
    drawn = Claim("New", "draw", "", "exact", "", lambda rng: at_most(rng.uniform(), 2.0))
    assert drawn.check(3) == drawn.check(np.random.default_rng(3)) == drawn.check(3)
    assert drawn.check(3) != drawn.check(4)
