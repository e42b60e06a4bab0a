"""Claims on the least trace over the factorizations of a matrix notice planted mistakes."""

import pytest

from balancedfact import closed_forms, curvature, dynamics, solvers
from tests.theorems import mutations
from tests.theorems.mutations import scaled_solution, swapped, times, value_times


def at_another_step(routine):
    return lambda *args, **options: routine(*args, **options | {"step": 1.01 * options["step"]})


def standing_still(routine):
    return lambda *args, **options: routine(*args, **options | {"t_final": 0.0})


MUTATIONS = [
    ("blog-regularizer", curvature, "trace", swapped),
    ("blog-lower-bound", closed_forms, "kronecker_minimum", times(1.5)),
    ("blog-construction", closed_forms, "kronecker_layers", times(1.001)),
    ("blog-conclusion", solvers, "induced_regularizer", scaled_solution),
    ("new-geodesic-convexity", curvature, "trace", lambda routine: lambda *args: 1 / routine(*args)),
    ("new-width-independence-search", solvers, "induced_regularizer", value_times(1.0001)),
    ("new-stationary-factorizations-are-global-minima", solvers, "induced_regularizer", value_times(0.9999)),
    ("new-certificate-at-every-point", solvers, "induced_regularizer", value_times(0.5)),
    ("new-label-noise-and-the-balance-of-layers", dynamics, "label_noise_flow", at_another_step),
    ("new-label-noise-of-several-outputs-one-direction", closed_forms, "kronecker_layers", times(1.001)),
    ("new-label-noise-of-several-outputs-does-not-make-its-gradient-quietest", dynamics, "label_noise_flow", standing_still),
]


@pytest.mark.parametrize(("key", "owner", "name", "change"), MUTATIONS, ids=[f"{row[0]}-{row[2]}" for row in MUTATIONS])
def test_a_planted_mistake_is_noticed(monkeypatch, key, owner, name, change):
    assert mutations.fails_when(monkeypatch, key, owner, name, change)
