"""Claims on pairs of factors notice planted mistakes."""

import pytest

from balancedfact import closed_forms, curvature, solvers
from tests.theorems import mutations
from tests.theorems.mutations import moved_solution, scaled, scaled_pair, scaled_solution, solution, times

MUTATIONS = [
    ("cs282-section-3-hessian", curvature, "hessian_vector_product", times(2.0)),
    ("cs282-equation-5-scaled-trace", curvature, "scaled_trace", times(0.5)),
    ("cs282-equation-6-nuclear-norm", closed_forms, "balanced_pair", scaled_pair(1.001)),
    ("ddf-balanced-and-norm-minimal-pairs-of-a-matrix", closed_forms, "balanced_pair", scaled_pair(1.5)),
    ("ddf-flat-value-of-a-matrix", closed_forms, "flat_pair", scaled_pair(1.001)),
    ("ddf-flat-pairs-are-rescaled-balanced", closed_forms, "flat_pair", scaled_pair(1.001)),
    ("cs282-equation-10-lemma", closed_forms, "flat_pair", scaled_pair(2.0)),
    ("cs282-first-claim-equal-values", solvers, "norm_minimum", scaled_solution),
    ("cs282-second-claim-minimisers", solvers, "flat_minimum", moved_solution),
    ("cs282-third-claim-recovery", solvers, "flat_minimum", moved_solution),
    ("cs282-equation-7-near-norm-minimality", solvers, "flat_minimum", solution(layers=lambda W: [9 * W[0], W[1] / 9])),
    ("cs282-equation-8-near-balance", solvers, "flat_minimum", solution(layers=lambda W: [9 * W[0], W[1] / 9])),
    ("new-scaled-trace-off-minimisers", curvature, "scaled_trace", scaled(0.5)),
]


@pytest.mark.parametrize(("key", "owner", "name", "change"), MUTATIONS, ids=[f"{row[0]}-{row[2]}" for row in MUTATIONS])
def test_a_planted_mistake_is_noticed(monkeypatch, key, owner, name, change):
    assert mutations.fails_when(monkeypatch, key, owner, name, change)
