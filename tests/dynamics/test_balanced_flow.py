import numpy as np
import pytest

import balancedfact as bf

flow = bf.dynamics.balanced_flow


@pytest.mark.parametrize("L", [2, 3, 6])
@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (1, 3), (2, 2)])
def test_agrees_with_the_flow_of_the_layers(L, shape, rng):
    A = bf.measurements.gaussian(8, shape, rng)
    M, b = 0.3 * rng.standard_normal(shape), A(rng.standard_normal(shape))
    start = bf.dynamics.balanced_layers(M, [shape[1]] + [5] * (L - 1) + [shape[0]], rng)
    layers = bf.dynamics.gradient_flow(start, A, b, t_final=0.7)
    product = flow(M, A, b, L, t_final=0.7)
    np.testing.assert_allclose(product.matrix, layers.matrix, atol=1e-9)
    np.testing.assert_allclose(product.loss[-1], layers.loss[-1], rtol=1e-7)
    np.testing.assert_allclose(product["matrix"][-1], product.matrix, atol=1e-12)
    np.testing.assert_array_equal(product["matrix"][0], M)


def test_zero_stays(rng):
    A = bf.measurements.gaussian(8, (3, 2), rng)
    found = flow(np.zeros((3, 2)), A, np.ones(8), 3, t_final=1.0)
    assert not found.matrix.any()


@pytest.mark.parametrize(("name", "value"), [("M", np.eye(3)), ("depth", 1), ("t_final", -1.0), ("rtol", 0.0), ("b", [1.0])])
def test_bad_input(name, value):
    options = {"M": np.eye(2), "A": bf.measurements.gaussian(4, (2, 2), rng=0), "b": np.ones(4), "depth": 3, "t_final": 1.0}
    with pytest.raises(ValueError, match=name):
        flow(**(options | {name: value}))


def test_stops_at_the_limit_of_steps_and_says_so(rng):
    A = bf.measurements.Dense(1e3 * rng.standard_normal((5, 2, 2)))
    found = flow(0.1 * np.eye(2), A, A(np.eye(2)), 3, t_final=100.0, max_steps=60)
    assert found.times.size == 61
    assert found.times[-1] < 100
    assert "60 steps" in found.message
    whole = flow(0.1 * np.eye(2), A, A(np.eye(2)), 3, t_final=found.times[-1])
    np.testing.assert_allclose(found.matrix, whole.matrix, atol=1e-8)
    assert whole.message == "Reached t_final"
    with pytest.raises(ValueError, match="max_steps"):
        flow(np.eye(2), A, np.ones(5), 3, t_final=1.0, max_steps=0)
