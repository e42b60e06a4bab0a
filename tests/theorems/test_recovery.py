"""Claims on recovery notice planted mistakes."""

import pytest

from balancedfact import curvature, measurements, solvers
from balancedfact.theorems.recovery import _ensembles
from tests.theorems import mutations
from tests.theorems.mutations import constant, moved_solution, times

MUTATIONS = [
    ("ddf-recovery-gaussian-sensing", solvers, "flat_minimum", moved_solution),
    ("cs282-section-4-1-bilinear-sensing", measurements, "bilinear", constant(measurements.gaussian(40, (14, 16), 0))),
    ("ddf-covariance-estimation-trace", curvature, "scaled_trace", times(2.0)),
    ("ddf-robust-pca", _ensembles, "_principal_component_pursuit", lambda f: lambda Y, weight: f(Y, weight / 4)),
]


@pytest.mark.parametrize(("key", "owner", "name", "change"), MUTATIONS, ids=[f"{row[0]}-{row[2]}" for row in MUTATIONS])
def test_a_planted_mistake_is_noticed(monkeypatch, key, owner, name, change):
    assert mutations.fails_when(monkeypatch, key, owner, name, change)
