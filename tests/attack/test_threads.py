"""Four threads at once give the bits of one, and the global random state of NumPy is nobody's business."""

import threading

import numpy as np
import pymanopt
import pytest

import balancedfact as bf

pytestmark = pytest.mark.attack


def riemannian(seed):
    rng = np.random.default_rng(seed)
    A = bf.measurements.gaussian(12, (4, 3), rng)
    return bf.flat_minimum(A, A(np.outer(rng.standard_normal(4), rng.standard_normal(3))), method="riemannian", rng=seed)


def fibre(seed):
    M = np.random.default_rng(seed).standard_normal((3, 4))
    return bf.flattest_factorization(M, [4, 3, 3, 3], bf.measurements.gaussian(14, (3, 4), seed), rng=seed)


def search(seed):
    C = np.random.default_rng(seed).standard_normal((3, 3))
    manifold = pymanopt.manifolds.Stiefel(3, 2)

    @pymanopt.function.numpy(manifold)
    def cost(X):
        return float(np.sum((C @ X) ** 2))

    @pymanopt.function.numpy(manifold)
    def gradient(X):
        return 2 * C.T @ C @ X

    return bf.riemannian_minimum(pymanopt.Problem(manifold, cost, euclidean_gradient=gradient), rng=seed)


def approximation(seed):
    return bf.balanced_approximation(np.random.default_rng(seed).standard_normal((5, 4)), 2, method="riemannian", rng=seed)


def triples(seed):
    M = np.random.default_rng(seed).standard_normal((5, 4))
    return bf.balanced_approximation(M, 2, method="riemannian", geometry="triples", rng=seed)


def flat(seed):
    A = bf.measurements.gaussian(9, (4, 3), seed)
    return bf.flat_minimum(A, A(np.ones((4, 3))), rng=seed)


@pytest.mark.parametrize("solve", [riemannian, fibre, search, approximation, triples, flat])
def test_four_threads_give_the_bits_of_one(solve):
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    alone = [solve(seed) for seed in range(4)]
    together, failed = {}, []

    def work(seed):
        try:
            together[seed] = solve(seed)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for seed, solution in enumerate(alone):
        assert all(np.array_equal(a, b) for a, b in zip(solution.layers, together[seed].layers, strict=True))
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
