"""Claims on deep networks notice planted mistakes."""

import pytest

from balancedfact import closed_forms, curvature, measurements, solvers
from balancedfact.certification.deep import _multiplier as deep_bounds
from balancedfact.theorems.deep import _global_certificate, _isometry, _samples
from tests.theorems import mutations
from tests.theorems.mutations import halved_solution, scaled, scaled_solution, solution, times, unevenly_scaled

MUTATIONS = [
    ("glcrmj-lemma-2", curvature, "trace", times(0.5)),
    ("glcrmj-lemma-3", curvature, "trace", times(0.5)),
    ("glcrmj-lemma-4", closed_forms, "min_isotropic_layers", times(1.001)),
    ("glcrmj-lemma-4", closed_forms, "min_isotropic_trace", times(1.001)),
    ("glcrmj-lemma-5", _isometry, "near_isometry", lambda f: lambda *a, **k: (f(*a, **k)[0], 0.01)),
    ("glcrmj-theorem-1-induced-regularizer", solvers, "induced_regularizer", solution(value=lambda value: 2 * value)),
    ("glcrmj-theorem-3", solvers, "flat_minimum", solution(layers=lambda layers: [0 * layers[0], *layers[1:]])),
    ("glcrmj-theorem-4", _samples, "_least_frobenius", times(0.9)),
    ("glcrmj-theorem-5", closed_forms, "two_layer_minimum", times(0.5)),
    ("glcrmj-theorem-6", _samples, "_signed_count", times(0.1)),
    ("glcrmj-theorem-7", closed_forms, "single_measurement_minimum", times(0.5)),
    ("glcrmj-example-1", measurements, "gaussian", lambda f: lambda m, *rest: f(m // 8, *rest)),
    ("glcrmj-table-1", solvers, "induced_regularizer", scaled_solution),
    ("new-two-layers", closed_forms, "two_layer_minimum", scaled(0.5)),
    ("new-one-measurement", closed_forms, "single_measurement_minimum", scaled(0.5)),
    ("new-separated-sides-of-any-shape", closed_forms, "kronecker_layers", unevenly_scaled),
    ("new-flattest-deep-network-lower-bound", deep_bounds, "multiplier_bound", scaled(1.01)),
    ("new-flattest-deep-network-weighted-isometries", _global_certificate, "weighted_isometry_bound", scaled(2.0)),
    ("new-flattest-deep-network-lift-of-three-layers", _global_certificate, "lifted_bound", scaled(2.0)),
    ("new-flattest-deep-network-lifts-at-any-depth", _global_certificate, "lifted_bound", scaled(2.0)),
    ("new-flattest-deep-network-weighted-isometries", curvature, "trace", scaled(0.5)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("key", "owner", "name", "change"), MUTATIONS, ids=[f"{row[0]}-{row[2]}" for row in MUTATIONS])
def test_a_planted_mistake_is_noticed(monkeypatch, key, owner, name, change):
    assert mutations.fails_when(monkeypatch, key, owner, name, change)


TRUE_AS_PRINTED = [
    ("glcrmj-trace-after-lemma-2-as-printed", curvature, "trace", times(0.5)),
    ("glcrmj-theorem-5-as-printed", solvers, "induced_regularizer", halved_solution),
    ("glcrmj-theorem-7-as-printed", solvers, "induced_regularizer", halved_solution),
    ("glcrmj-theorem-1-induced-regularizer-as-printed", solvers, "induced_regularizer", halved_solution),
    ("glcrmj-lemma-3-as-printed", curvature, "trace", times(0.5)),
    ("glcrmj-lemma-4-constants-as-printed", closed_forms, "min_isotropic_trace", times(100.0)),
]


@pytest.mark.parametrize(("key", "owner", "name", "change"), TRUE_AS_PRINTED, ids=[row[0] for row in TRUE_AS_PRINTED])
def test_a_counterexample_fails_if_the_print_is_right(monkeypatch, key, owner, name, change):
    assert mutations.fails_always_when(monkeypatch, key, owner, name, change)
