"""Limits on time and records, and Ctrl-C, end a run of training where it is."""

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.dynamics import gaussian_layers, gradient_descent, gradient_flow, regression_descent, sgd, sharpness_aware

A = bf.measurements.gaussian(30, (4, 4), rng=0)
B = A(np.eye(4))
ONE, MANY = gaussian_layers([4, 4, 4], 0.5, rng=1), gaussian_layers([4, 4, 4], np.full(5, 0.5), rng=1)

RULES = {
    "descent": lambda start, **more: gradient_descent(start, A, B, step=0.01, **more),
    "regression": lambda start, **more: regression_descent(start, np.eye(4), np.ones(4), step=0.01, readout=np.ones(4), **more),
    "sgd": lambda start, **more: sgd(start, A, B, step=0.01, batch=5, label_noise=0.1, rng=3, **more),
    "aware": lambda start, **more: sharpness_aware(start, A, B, step=0.01, radius=0.1, rng=3, **more),
}


def assert_same(run, other):
    for layer, expected in zip(run.layers, other.layers, strict=True):
        np.testing.assert_array_equal(layer, expected)
    np.testing.assert_array_equal(run.loss, other.loss)


@pytest.mark.parametrize("start", [ONE, MANY], ids=["one", "many"])
@pytest.mark.parametrize("rule", RULES)
def test_a_limit_on_records_gives_the_prefix_of_the_run(rule, start):
    run = RULES[rule](start, iterations=1000, record=100, limits=bf.Limits(iterations=4))
    assert run.status is bf.Status.LIMIT
    assert run.message.endswith("The limit on iterations was reached; the run ends at its last record.")
    np.testing.assert_array_equal(run.iterations, [0, 100, 200, 300])
    whole = RULES[rule](start, iterations=300, record=100)
    assert whole.status is None
    assert_same(run, whole)


@pytest.mark.few(1)
@pytest.mark.parametrize("start", [ONE, MANY], ids=["one", "many"])
@pytest.mark.parametrize("rule", RULES)
def test_a_limit_on_time_ends_between_records(rule, start):
    RULES[rule](start, iterations=1)  # compiles
    run = RULES[rule](start, iterations=10**9, record=10**9, limits=bf.Limits(seconds=0.1))
    assert run.status is bf.Status.LIMIT
    assert "limit on seconds" in run.message
    steps = int(run.iterations[-1])
    assert 0 < steps < 10**9
    assert run.loss.shape[-1] == run["norms"].shape[-2] == 2
    assert_same(run, RULES[rule](start, iterations=steps, record=steps))


def test_a_limit_that_is_not_reached_changes_nothing():
    limited = RULES["sgd"](MANY, iterations=500, limits=bf.Limits(seconds=600, iterations=10**6))
    assert limited.status is None
    assert_same(limited, RULES["sgd"](MANY, iterations=500))


class Interrupting:
    """A function of the layers that is interrupted the third time that it is called."""

    calls = 0

    def __call__(self, layers):
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return float(np.linalg.norm(layers[0]))


def test_ctrl_c_keeps_the_records_so_far():
    run = gradient_descent(ONE, A, B, step=0.01, iterations=1000, record=100, observe={"size": Interrupting()})
    assert run.status is bf.Status.INTERRUPTED
    np.testing.assert_array_equal(run.iterations, [0, 100])
    assert run.loss.shape == run["size"].shape == run.times.shape == (2,)
    assert run["size"][-1] == np.linalg.norm(run.layers[0])


def test_the_flow_is_stopped():
    whole = gradient_flow(ONE, A, B)
    assert whole.status is None
    run = gradient_flow(ONE, A, B, limits=bf.Limits(iterations=5))
    assert run.status is bf.Status.LIMIT
    np.testing.assert_array_equal(run.times, whole.times[:5])
    np.testing.assert_array_equal(run.loss, whole.loss[:5])
    assert run["drift"].shape == (5,)
    interrupted = gradient_flow(ONE, A, B, observe={"size": Interrupting()})
    assert interrupted.status is bf.Status.INTERRUPTED
    assert interrupted.message.endswith("steps. Interrupted; the run ends at its last record.")
    assert interrupted.times.shape == interrupted.loss.shape == interrupted["size"].shape == interrupted["drift"].shape


def test_many_flows_share_the_time():
    run = gradient_flow(MANY, A, B, limits=bf.Limits(seconds=1e-4))
    assert run.status is bf.Status.LIMIT
    assert run.matrix.shape == (5, 4, 4)
    assert np.all(np.isfinite(run.loss))
    interrupted = gradient_flow(MANY, A, B, observe={"size": Interrupting()})
    assert interrupted.status is bf.Status.INTERRUPTED
    np.testing.assert_array_equal(interrupted.layers[0][1:], MANY[0][1:])


FLOWS = {
    "edge": lambda **more: bf.dynamics.edge_flow(ONE, A, B, step=0.1, t_final=5.0, **more),
    "central": lambda **more: bf.dynamics.central_flow(ONE, A, B, step=0.1, t_final=5.0, **more),
    "label noise": lambda **more: bf.dynamics.label_noise_flow(ONE, A, B, step=0.01, t_final=5.0, label_noise=0.1, **more),
    "balanced": lambda **more: bf.dynamics.balanced_flow(np.eye(4) / 2, A, B, depth=3, t_final=5.0, **more),
}


@pytest.mark.parametrize("flow", FLOWS)
def test_continuous_models_are_stopped(flow):
    run = FLOWS[flow](limits=bf.Limits(iterations=3))
    assert run.status is bf.Status.LIMIT
    assert run.message == "The limit on iterations was reached; the run ends at its last record."
    assert run.times.size == run.loss.size == 3
    whole = FLOWS[flow]()
    assert whole.status is None
    np.testing.assert_array_equal(run.loss, whole.loss[:3])
    short = FLOWS[flow](limits=bf.Limits(seconds=1e-6))
    assert short.status is bf.Status.LIMIT
    assert short.times.size == short.loss.size == 1
    with pytest.raises(ValueError, match=r"limits is 3; expected bf\.Limits"):
        FLOWS[flow](limits=3)


@pytest.mark.parametrize("flow", ["edge", "label noise", "balanced"])
def test_the_largest_number_of_steps_is_a_limit(flow):
    run = FLOWS[flow](max_steps=2)
    assert run.status is bf.Status.LIMIT
    assert run.message == "Stopped after 2 steps, before t_final"
    assert run.loss[-1] == pytest.approx(np.mean((A(run.matrix) - B) ** 2), rel=1e-9)
    assert FLOWS[flow](max_steps=1).message == "Stopped after 1 step, before t_final"


@pytest.mark.parametrize("flow", ["edge", "central", "label noise"])
def test_ctrl_c_keeps_the_records_of_a_continuous_model(flow):
    run = FLOWS[flow](observe={"size": Interrupting()})
    assert run.status is bf.Status.INTERRUPTED
    assert run.times.size == run.loss.size == run["size"].size >= 2


def test_limits_are_checked():
    with pytest.raises(ValueError, match=r"limits is 3; expected bf\.Limits"):
        gradient_descent(ONE, A, B, step=0.01, iterations=10, limits=3)
    with pytest.raises(ValueError, match=r"limits is 3; expected bf\.Limits"):
        gradient_flow(ONE, A, B, limits=3)
