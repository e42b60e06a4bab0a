"""Claims on balanced pairs and layers, factorizations and zero loss notice planted mistakes."""

import pytest

from balancedfact import dynamics, manifolds, solvers
from tests.theorems import mutations
from tests.theorems.mutations import deeper_flow, farther, moved_solution, one_frame_for_both

MUTATIONS = [
    ("cs282-section-5-balanced-approximation", solvers, "balanced_approximation", moved_solution),
    ("new-stiefel-parametrisation", manifolds, "factors_of", one_frame_for_both),
    ("new-nearest-balanced-pair", manifolds.BalancedPairs, "nearest", farther),
    ("new-flow-of-balanced-starts", dynamics, "balanced_flow", deeper_flow),
]


@pytest.mark.parametrize(("key", "owner", "name", "change"), MUTATIONS, ids=[f"{row[0]}-{row[2]}" for row in MUTATIONS])
def test_a_planted_mistake_is_noticed(monkeypatch, key, owner, name, change):
    assert mutations.fails_when(monkeypatch, key, owner, name, change)
