"""Searches in four threads at once end at the bits of one."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pymanopt
import pytest

import balancedfact as bf

_M = np.random.default_rng(0).standard_normal((30, 20))
_A = bf.measurements.gaussian(50, (9, 8), rng=1)
_ENTRIES = bf.measurements.bernoulli_mask((9, 8), 0.75, rng=1)
_TRUTH = np.outer(_M[0, :9], _M[1, :8])


def rayleigh(seed):
    manifold = pymanopt.manifolds.Sphere(20)

    @pymanopt.function.numpy(manifold)
    def cost(x):
        return float(np.sum((_M @ x) ** 2))

    @pymanopt.function.numpy(manifold)
    def gradient(x):
        return 2 * _M.T @ (_M @ x)

    return bf.riemannian_minimum(pymanopt.Problem(manifold, cost, euclidean_gradient=gradient), rng=seed)


SEARCHES = {
    "pairs": lambda seed: bf.balanced_approximation(_M, 3, method="riemannian", rng=seed),
    "triples": lambda seed: bf.balanced_approximation(_M, 3, method="riemannian", geometry="triples", rng=seed),
    "merged": lambda seed: bf.balanced_approximation(_M, 3, method="riemannian", geometry="merged", rng=seed),
    "sphere": rayleigh,
    "flattest factorization": lambda seed: bf.flattest_factorization(_M, [20, 20, 20, 30], rng=seed),
    "dense": lambda seed: bf.flat_minimum(_A, _A(_TRUTH), method="riemannian", rng=seed),
    "entries": lambda seed: bf.flat_minimum(_ENTRIES, _ENTRIES(_TRUTH), method="riemannian", rng=seed),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("name", SEARCHES)
def test_four_threads_at_once_end_at_the_bits_of_one(name):
    search, together = SEARCHES[name], Barrier(4)
    before = np.random.get_state()[1].copy()  # noqa: NPY002

    def one(seed):
        together.wait()
        return search(seed)

    alone = [search(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    for ours, theirs in zip(alone, found, strict=True):
        assert theirs.value == ours.value
        assert theirs.message == ours.message
        for layer, other in zip(ours.layers, theirs.layers, strict=True):
            np.testing.assert_array_equal(layer, other)
    assert len({ours.layers[0].tobytes() for ours in alone}) > 1  # the seeds do matter
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
