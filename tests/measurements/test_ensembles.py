import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from balancedfact.measurements import Dense, Entries, RankOne, bernoulli, bernoulli_mask, bilinear, check_measurements, gaussian
from tests import bad_input

SENSING = {"gaussian": gaussian, "bernoulli": bernoulli, "bilinear": bilinear}


def values(A):
    return A.adjoint(np.arange(1.0, A.m + 1))


@pytest.mark.parametrize(("draw", "kind"), [(gaussian, Dense), (bernoulli, Dense), (bilinear, RankOne)])
@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (1, 1), [2, 5], np.array([2, 5])])
def test_sensing_maps_have_the_shape_asked_for(draw, kind, shape):
    A = draw(np.int64(6), shape, rng=0)
    assert isinstance(A, kind)
    assert (A.m, A.matrix_shape) == (6, tuple(shape))
    assert check_measurements(A, 0).ok


DRAWS = {
    **{name: (lambda rng, draw=draw: draw(5, (3, 4), rng)) for name, draw in SENSING.items()},
    "bernoulli_mask": lambda rng: bernoulli_mask((6, 7), 0.5, rng),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_seed_decides_the_draw(draw):
    np.testing.assert_array_equal(values(draw(3)), values(draw(3)))
    np.testing.assert_array_equal(values(draw(3)), values(draw(np.random.default_rng(3))))
    np.testing.assert_array_equal(values(draw(3)), values(draw(np.int32(3))))
    assert draw(3).m != draw(4).m or np.any(values(draw(3)) != values(draw(4)))
    generator = np.random.default_rng(3)
    first, second = draw(generator), draw(generator)
    assert first.m != second.m or np.any(values(first) != values(second))


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_no_draw_touches_the_global_state(draw):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw(None)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("draw", SENSING.values(), ids=SENSING)
def test_entries_are_centred_of_unit_variance_and_uncorrelated(draw):
    m = 20_000
    stack = draw(m, (3, 2), rng=0).rotated(np.eye(3), np.eye(2)).reshape(m, 6)
    np.testing.assert_allclose(stack.mean(axis=0), 0, atol=5 / np.sqrt(m))
    np.testing.assert_allclose(stack.T @ stack / m, np.eye(6), atol=0.12)


@pytest.mark.parametrize("draw", SENSING.values(), ids=SENSING)
def test_rescalings_of_isotropic_maps_tend_to_the_identity(draw):
    A = draw(20_000, (3, 2), rng=1)
    np.testing.assert_allclose(A.D1, np.eye(3), atol=0.05)
    np.testing.assert_allclose(A.D2, np.eye(2), atol=0.05)


def test_gaussian_entries_have_the_fourth_moment_of_the_normal_law():
    assert abs(np.mean(gaussian(20_000, (3, 2), rng=0).matrices ** 4) - 3) < 0.15


def test_bernoulli_entries_are_signs():
    matrices = bernoulli(200, (3, 4), rng=0).matrices
    np.testing.assert_array_equal(np.unique(matrices), [-1.0, 1.0])


def test_bilinear_vectors_are_independent_of_each_other():
    A = bilinear(2000, (3, 3), rng=0)
    assert np.abs(A.left.T @ A.right / 2000).max() < 0.1
    np.testing.assert_allclose(A.left.T @ A.left / 2000, np.eye(3), atol=0.15)


def test_a_mask_of_probability_one_observes_every_entry_once():
    A = bernoulli_mask((3, 4), 1, rng=0)
    np.testing.assert_array_equal(A.adjoint(np.ones(12)), np.ones((3, 4)))


@pytest.mark.parametrize("p", [0.1, 0.5, Fraction(9, 10), np.float32(0.75)])
def test_a_mask_observes_each_entry_independently_with_probability_p(p):
    d1, d2, draws = 6, 5, 1500
    generator = np.random.default_rng(0)
    seen = np.zeros((draws, d1 * d2))
    for each in seen:
        try:
            A = bernoulli_mask((d1, d2), p, generator)
        except ValueError:
            continue
        each[:] = A.adjoint(np.ones(A.m)).ravel()
    assert set(np.unique(seen)) <= {0.0, 1.0}
    np.testing.assert_allclose(seen.mean(axis=0), float(p), atol=0.07)
    covariance = np.cov(seen.T) - float(p) * (1 - float(p)) * np.eye(d1 * d2)
    assert np.abs(covariance).max() < 0.05


def test_a_mask_of_a_large_matrix_never_forms_it():
    tracemalloc.start()
    try:
        A = bernoulli_mask((10_000, 200_000), 1e-6, rng=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(A, Entries)
    assert 1700 < A.m < 2300
    assert peak < 50e6


@pytest.mark.parametrize("draw", SENSING.values(), ids=SENSING)
@pytest.mark.parametrize("m", bad_input.BAD_COUNT, ids=repr)
def test_a_bad_number_of_measurements_is_refused(draw, m):
    with pytest.raises(ValueError, match=r"^m is "):
        draw(m, (3, 4))


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("seed", bad_input.BAD_RNG, ids=repr)
def test_a_bad_generator_is_refused(draw, seed):
    with pytest.raises(ValueError, match=r"^rng is "):
        draw(seed)


@pytest.mark.parametrize("shape", bad_input.BAD_SHAPE, ids=repr)
def test_a_bad_shape_is_refused(shape):
    for draw in SENSING.values():
        with pytest.raises(ValueError, match=r"^shape"):
            draw(3, shape)
    with pytest.raises(ValueError, match=r"^shape"):
        bernoulli_mask(shape, 0.5)


@pytest.mark.parametrize("p", [0, 0.0, -0.1, 1.0001, 2, np.nan, np.inf, -np.inf, True, "0.5", None, 0.5j, [0.5], 10**400])
def test_a_bad_probability_is_refused(p):
    with pytest.raises(ValueError, match=r"^p is "):
        bernoulli_mask((3, 4), p)


def test_a_mask_that_observes_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^p is 1e-300; the draw observed none"):
        bernoulli_mask((3, 4), 1e-300, rng=0)
