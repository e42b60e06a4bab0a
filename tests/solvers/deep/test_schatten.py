import numpy as np
import pytest
import scipy.optimize

import balancedfact as bf


def instance(seed, d1, d2, rank, m):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))
    A = bf.measurements.gaussian(m, (d1, d2), rng)
    return A, truth, A(truth)


@pytest.mark.parametrize("L", [3, 5])
def test_recovers_what_the_nuclear_norm_does_not(L):
    A, truth, b = instance(0, 8, 7, 2, 34)
    convex, deep = bf.norm_minimum(A, b), bf.norm_minimum(A, b, depth=L)
    assert np.linalg.norm(convex.matrix - truth) > 0.05 * np.linalg.norm(truth)
    assert np.linalg.norm(deep.matrix - truth) < 1e-8 * np.linalg.norm(truth)
    assert deep.status is bf.Status.STATIONARY
    assert deep.value == pytest.approx(bf.closed_forms.schatten_value(truth, L), rel=1e-8)
    assert deep.certificate.lower_bound <= deep.value


@pytest.mark.parametrize("L", [3, 6])
def test_rank_one_is_proved(L):
    A, truth, b = instance(1, 6, 5, 1, 26)
    deep = bf.norm_minimum(A, b, depth=L)
    assert deep.status is bf.Status.OPTIMAL
    assert deep.certificate.gap <= 1e-7
    np.testing.assert_allclose(deep.matrix, truth, atol=1e-7 * np.linalg.norm(truth))


@pytest.mark.parametrize(("seed", "d1", "d2", "m", "L"), [(0, 4, 4, 6, 3), (1, 4, 3, 5, 3), (2, 3, 4, 7, 4), (3, 4, 4, 3, 3)])
def test_ends_at_a_local_minimum_over_all_layers(seed, d1, d2, m, L):
    """No descent over wider layers that fit nearly, from near the end, finds less."""
    A, _, b = instance(seed, d1, d2, min(d1, d2), m)
    end = bf.norm_minimum(A, b, depth=L)
    assert end.status in (bf.Status.STATIONARY, bf.Status.OPTIMAL), end
    assert end.certificate.feasibility < 1e-10
    assert end.value == pytest.approx(bf.closed_forms.schatten_value(end.matrix, L), rel=1e-10)
    widths = [d2, *[max(d1, d2)] * (L - 1), d1]
    shapes = list(zip(widths[1:], widths, strict=False))
    ends = np.cumsum([rows * cols for rows, cols in shapes])[:-1]
    theta = np.concatenate([W.ravel() for W in bf.closed_forms.schatten_layers(end.matrix, widths)])

    def misfit(x):
        return A(np.linalg.multi_dot([p.reshape(s) for p, s in zip(np.split(x, ends), shapes, strict=True)][::-1])) - b

    rng = np.random.default_rng(seed)
    near = theta + 1e-3 * rng.standard_normal(theta.size)
    fits = {"type": "eq", "fun": misfit}
    found = scipy.optimize.minimize(lambda x: x @ x, near, method="SLSQP", constraints=fits, options={"maxiter": 60})
    assert found.fun >= end.value * (1 - 1e-4)


def test_no_feasible_neighbour_of_the_same_rank_is_less():
    A, _, b = instance(5, 5, 4, 4, 9)
    end = bf.norm_minimum(A, b, depth=3)
    null = np.linalg.svd(A.rotated(np.eye(5), np.eye(4)).reshape(9, -1))[2][9:].reshape(-1, 5, 4)
    rng = np.random.default_rng(0)
    for size in (1e-4, 1e-2, 0.3):
        for _ in range(100):
            other = end.matrix + size * np.tensordot(rng.standard_normal(len(null)), null, axes=1)
            assert bf.closed_forms.schatten_value(other, 3) >= end.value * (1 - 1e-9)


def test_a_pair_to_start_from():
    A, truth, b = instance(2, 5, 5, 1, 12)
    low = bf.norm_minimum(A, b, depth=3, initial=bf.closed_forms.balanced_pair(truth))
    assert low.layers[0].shape[0] == 1
    assert low.value == pytest.approx(bf.closed_forms.schatten_value(truth, 3), rel=1e-9)


def test_zero_data_infeasible_and_bad_input():
    A, _, b = instance(0, 3, 3, 1, 4)
    assert bf.norm_minimum(A, 0 * b, depth=3).value == 0
    twice = bf.measurements.Dense(np.array([np.eye(2), np.eye(2)]))
    assert bf.norm_minimum(twice, [1.0, 2.0], depth=3).status is bf.Status.INFEASIBLE
    for options in ({"penalty": -1.0}, {"max_rank": 2}, {"depth": 1}, {"depth": 2.5}):
        with pytest.raises(ValueError, match=next(iter(options))):
            bf.norm_minimum(A, b, **{"depth": 3} | options)


@pytest.mark.parametrize("power", [-100, 100])
def test_extreme_scales(power):
    A, _, b = instance(4, 4, 4, 2, 10)
    far = bf.norm_minimum(A, b * 10.0**power, depth=4).value
    assert far == pytest.approx(bf.norm_minimum(A, b, depth=4).value * 10 ** (power / 2), rel=1e-6)
