"""Claims on sharpness and the end of training notice planted mistakes."""

import pytest

from balancedfact import closed_forms, curvature, dynamics
from balancedfact.dynamics import _flow
from tests.theorems import mutations
from tests.theorems.mutations import fixed_step, of_depth, scaled, without_width, wrong_layer

MUTATIONS = [
    ("mc-theorem-1", closed_forms, "minimal_sharpness", scaled(0.1)),
    ("mc-theorem-1", closed_forms, "sharpness_bounds", scaled(0.5)),
    ("mc-theorem-2-every-minimiser", closed_forms, "regression_sharpness", scaled(0.5)),
    ("mc-theorem-2-arbitrarily-sharp-minimisers", curvature, "sharpness", scaled(0.01)),
    ("mc-theorem-2-large-depth", closed_forms, "minimal_sharpness", of_depth(1)),
    ("mc-one-dimensional-example", curvature, "sharpness", scaled(0.5)),
    ("mc-critical-step-size", closed_forms, "minimal_sharpness", fixed_step),
    ("mc-lemma-1", _flow._GradientField, "slope", wrong_layer),
    ("mc-lemma-6-chi-square", dynamics, "residual_layers", without_width),
    ("mc-lemma-6-normal", dynamics, "residual_layers", without_width),
    ("mc-lemma-8", curvature, "loss_gradient", scaled(0.2)),
    ("mc-lemma-3", dynamics, "residual_layers", without_width),
    ("mc-corollary-2", closed_forms, "minimal_sharpness", scaled(1.5)),
    ("new-trace-formula-off-minimisers", curvature, "trace", scaled(0.5)),
    ("new-sharpness-through-aka", curvature, "sharpness", scaled(0.5)),
    ("new-exact-minimal-sharpness-lower-bound", closed_forms, "minimal_sharpness", scaled(1.0001)),
    ("new-exact-minimal-sharpness-value", closed_forms, "minimal_sharpness", scaled(0.9999)),
    ("new-exact-minimal-sharpness-dual-form", closed_forms, "minimal_sharpness", scaled(0.9999)),
    ("new-sharpness-of-the-rank-one-limit", closed_forms, "rank_one_limit_sharpness", of_depth(-1)),
]


@pytest.mark.few(5)
@pytest.mark.parametrize(("key", "owner", "name", "change"), MUTATIONS, ids=[f"{row[0]}-{row[2]}" for row in MUTATIONS])
def test_a_planted_mistake_is_noticed(monkeypatch, key, owner, name, change):
    assert mutations.fails_when(monkeypatch, key, owner, name, change)


def test_small_start_is_necessary_for_equal_norms(monkeypatch):
    """Corollary 1 fails for starts that are not small: its hypothesis is used."""
    from balancedfact.theorems.sharpness import _training

    monkeypatch.setattr(_training, "smallness", lambda layers: 1e-5)
    assert not all(mutations.CLAIMS["mc-corollary-1"].check(seed).holds for seed in range(5))
