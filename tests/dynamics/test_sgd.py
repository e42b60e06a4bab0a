import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.dynamics import _training_kernel
from tests import bad_input, maps
from tests.dynamics import naive

sgd = bf.dynamics.sgd
BUILDERS = [*maps.BUILT_IN.values(), *maps.DERIVED.values()]


def naive_sgd(layers, matrices, b, step, iterations, batch, noise, rng):
    for _ in range(iterations):
        index = rng.integers(0, len(b), batch)
        xi = noise * rng.standard_normal(batch) if noise else None
        layers = [w - step * g for w, g in zip(layers, naive.gradients(layers, matrices, b, index, xi), strict=True)]
    return layers


@settings(max_examples=25)
@given(
    maps.cases(*BUILDERS, largest=4), st.lists(st.integers(1, 4), max_size=3), st.integers(1, 6), st.sampled_from([0.0, 0.5])
)
def test_agrees_with_naive_loop(case, hidden, batch, noise):
    A, matrices, rng = case
    b, widths = rng.standard_normal(A.m), [A.matrix_shape[1], *hidden, A.matrix_shape[0]]
    start = bf.dynamics.gaussian_layers(widths, 0.5, rng)
    found = sgd(start, A, b, step=0.01, iterations=20, batch=batch, label_noise=noise, rng=7, record=[10])
    expected = naive_sgd(start, matrices, b, 0.01, 20, batch, noise, np.random.default_rng(7))
    assert naive.deviation(found.layers, expected) <= 1e-11
    assert found.loss[-1] == pytest.approx(naive.loss(expected, matrices, b), rel=1e-9, abs=1e-12)


def test_many_runs_use_generators_of_their_own(rng):
    A = bf.measurements.gaussian(9, (2, 3), rng)
    start, b = bf.dynamics.gaussian_layers([3, 2, 2], [[0.3, 0.5, 0.4]], rng), rng.standard_normal(9)
    steps = np.array([0.01, 0.02, 0.03])
    found = sgd(start, A, b, step=steps, iterations=30, batch=4, label_noise=0.1, rng=5, observe=("trace",))
    assert found.loss.shape == (1, 3, 31)
    assert found["trace"].shape == (1, 3, 31)
    for r, generator in enumerate(np.random.default_rng(5).spawn(3)):
        one = [layer[0, r] for layer in start]
        expected = naive_sgd(one, list(A.matrices), b, steps[r], 30, 4, 0.1, generator)
        assert naive.deviation([layer[0, r] for layer in found.layers], expected) <= 1e-12
        assert found["trace"][0, r, -1] == pytest.approx(bf.curvature.trace(expected, A))


def test_stream_does_not_depend_on_records_or_length(rng):
    A = bf.measurements.gaussian(9, (2, 3), rng)
    start, b = bf.dynamics.gaussian_layers([3, 2, 2], 0.4, rng), rng.standard_normal(9)
    options = {"step": 0.02, "batch": 3, "label_noise": 1.0, "rng": 1}
    long = sgd(start, A, b, iterations=50, record=[20], **options)
    short = sgd(start, A, b, iterations=20, record=1, **options)
    assert long.loss[1] == short.loss[-1]
    assert naive.deviation(sgd(start, A, b, iterations=50, **options).layers, long.layers) == 0


@pytest.mark.slow  # compiles three kernels anew
def test_single_precision_follows_double(rng):
    A = bf.measurements.gaussian(30, (4, 4), rng)
    start, b = bf.dynamics.gaussian_layers([4, 4, 4], 0.5, rng), rng.standard_normal(30)
    for kind in (A, bf.measurements.bilinear(30, (4, 4), rng), bf.measurements.Entries(*np.divmod(np.arange(16), 4), (4, 4))):
        data = b[: kind.m]
        runs = [
            sgd(start, kind, data, step=0.01, iterations=50, batch=5, rng=1, dtype=dtype) for dtype in (np.float64, np.float32)
        ]
        gap = naive.deviation(runs[0].layers, runs[1].layers)
        assert 0 < gap < 1e-4
        assert runs[1].layers[0].dtype == np.float64


@pytest.mark.parametrize("runs", [1, 5])
def test_all_measurements_and_batches_share_a_compiled_loop(runs, rng):
    A = bf.measurements.gaussian(6, (2, 3), rng)
    start = bf.dynamics.gaussian_layers([3, 2], np.full(runs, 0.5), rng)
    counts = []
    for batch in (2, "all"):
        sgd(start, A, np.ones(6), step=0.01, iterations=5, batch=batch, label_noise=0.1, rng=0, record=[5])
        counts.append(len(_training_kernel.advance.signatures))
    assert counts[0] == counts[1]


def test_divergence_is_recorded(rng):
    A = bf.measurements.gaussian(9, (2, 2), rng)
    start = bf.dynamics.gaussian_layers([2, 2, 2], [0.3, 0.3], rng)
    found = sgd(start, A, np.ones(9), step=[0.01, 50.0], iterations=40, batch=3, rng=1, record=1)
    assert found.diverged[0] == -1
    assert 0 < found.diverged[1] < 40
    assert np.all(np.isinf(found.loss[1, found.diverged[1] + 2 :]))
    assert np.all(np.isfinite(found.loss[0]))


@pytest.mark.slow
def test_label_noise_flattens(rng):
    A = bf.measurements.gaussian(40, (5, 5), rng)
    b = A(np.outer(np.arange(1.0, 6.0), np.ones(5)) / 5)
    start = bf.dynamics.gaussian_layers([5, 5, 5], 1.0, rng)
    plain, noisy = (
        sgd(start, A, b, step=0.01, iterations=60_000, batch=10, label_noise=noise, rng=1, observe=("trace",))
        for noise in (0.0, 0.5)
    )
    assert noisy["trace"][-1] < 0.9 * plain["trace"][-1]


def good():
    A = bf.measurements.gaussian(4, (2, 2), rng=0)
    return {"layers": [np.eye(2)] * 2, "A": A, "b": np.ones(4), "step": 0.1, "iterations": 3, "batch": 2}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("label_noise", -1.0),
        ("label_noise", np.nan),
        ("dtype", np.float16),
        ("step", -0.1),
        ("b", np.ones(5)),
        ("observe", "nothing"),
    ]
    + [("batch", value) for value in bad_input.BAD_COUNT]
    + [("rng", value) for value in bad_input.BAD_RNG],
)
def test_bad_input(name, value):
    with pytest.raises(ValueError, match=name):
        sgd(**(good() | {name: value}))
