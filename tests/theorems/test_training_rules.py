"""Claims on training near weights that fit, and on the isometry bounds of the trace, notice planted mistakes."""

import pytest

from balancedfact import curvature, dynamics
from tests.theorems import mutations
from tests.theorems.mutations import scaled


def at_another(step):
    """The same run with another step: a constant of the rule that is off."""
    return lambda routine: lambda *args, **options: routine(*args, **options | {"step": step * options["step"]})


def of_another_batch(routine):
    """The threshold for a batch that holds one measurement more or less."""

    def threshold(layers, A, b, *, batch, replacement):
        return routine(layers, A, b, batch=batch + 1 if batch < A.m else batch - 1, replacement=replacement)

    return threshold


def of_one_measurement(routine):
    """A drift that sees the noise of the first measurement only."""

    def flow(*args, label_noise, **options):
        some = label_noise.copy()
        some[1:] = 0
        return routine(*args, label_noise=some, **options)

    return flow


MUTATIONS = [
    ("new-mean-square-stability-of-sgd", dynamics, "stability_threshold", scaled(1.03)),
    ("new-mean-square-stability-of-sgd", dynamics, "stability_threshold", scaled(0.97)),
    ("new-mean-square-stability-of-sgd", dynamics, "stability_threshold", of_another_batch),
    ("new-drift-of-equal-label-noise", dynamics, "label_noise_flow", at_another(1.01)),
    ("new-drift-of-equal-label-noise", dynamics, "label_noise_flow", of_one_measurement),
    ("new-descent-from-above-the-edge-of-stability", dynamics, "gradient_descent", at_another(0.98)),
    (
        "new-descent-from-above-the-edge-of-stability",
        dynamics,
        "gradient_flow",
        lambda f: lambda layers, *_, **__: _Start(layers),
    ),
    ("new-trace-between-the-isometry-constants", curvature, "isotropic_trace", scaled(1.001)),
]


class _Start:
    """A flow that does not move."""

    def __init__(self, layers):
        self.layers = layers


@pytest.mark.parametrize(
    ("key", "owner", "name", "change"), MUTATIONS, ids=[f"{k}-{row[0]}-{row[2]}" for k, row in enumerate(MUTATIONS)]
)
def test_a_planted_mistake_is_noticed(monkeypatch, key, owner, name, change):
    assert mutations.fails_when(monkeypatch, key, owner, name, change)
