"""Every statement holds on random instances."""

import numpy as np
import pytest

from balancedfact.theorems import ledger

CLAIMS = pytest.mark.parametrize("claim", ledger(), ids=lambda claim: claim.key)


@CLAIMS
def test_claim_holds(claim):
    assert_holds(claim, [0])


@pytest.mark.slow
@CLAIMS
def test_claim_holds_on_more_instances(claim):
    assert_holds(claim, [1, *range(100, 104)])


@pytest.mark.parametrize("key", ["ddf-flat-value-of-a-matrix", "glcrmj-theorem-1-nuclear-norm", "blog-construction"])
def test_outcome_depends_on_the_seed_alone(key):
    claim = next(claim for claim in ledger() if claim.key == key)
    first = claim.check(5)
    claim.check(6)
    assert claim.check(5) == first


def assert_holds(claim, seeds):
    for seed in seeds:
        outcome = claim.check(seed)
        assert type(outcome.holds) is bool
        assert outcome.holds, f"seed {seed}: slack {outcome.slack}, {outcome.details}"
        assert outcome.slack >= 0
        assert outcome.details
        assert all(np.isfinite(number) for number in outcome.details.values())
