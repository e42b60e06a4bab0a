import numpy as np
import pytest

from balancedfact.measurements import Dense, Entries, RankOne, bernoulli_mask
from balancedfact.measurements._ordinary_size import of_ordinary_size
from tests.maps import Minimal


@pytest.mark.parametrize("kind", ["dense", "rank-one", "entries", "minimal"])
@pytest.mark.parametrize("exponent", [-500, -53, -1, 0, 7, 400])
def test_the_map_times_a_power_of_two_is_the_same_map_and_another_power(kind, exponent, rng):
    factor, stack, left, right = 2.0**exponent, rng.standard_normal((7, 3, 4)), rng.random((7, 3)), rng.random((7, 4))
    make = {
        "dense": lambda f: Dense(f * stack),
        "rank-one": lambda f: RankOne(f * left, right),
        "entries": lambda f: Entries([0, 1, 2], [0, 3, 1], (3, 4), f * np.array([1.5, 2.0, 0.3])),
        "minimal": lambda f: Minimal(f * stack),
    }[kind]
    (plain, one), (near, power) = of_ordinary_size(make(1.0)), of_ordinary_size(make(factor))
    assert power == one * factor
    np.testing.assert_array_equal(near.stack(), plain.stack())
    np.testing.assert_array_equal(near.stack() * power, make(factor).stack())
    assert 0.3 < np.max(near.row_norms) / (1 if kind == "entries" else np.sqrt(12)) < 4


def test_ordinary_and_zero_maps_are_left_as_they_are():
    for A in (bernoulli_mask((30, 20), 0.2, rng=0), Dense(np.zeros((2, 3, 3)))):
        near, power = of_ordinary_size(A)
        assert near is A
        assert power == 1.0
