"""The choice of the algorithm: by name, by object, by `select_method`, and one from outside the package."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.measurements import bernoulli_mask, gaussian
from balancedfact.solvers import Algorithm, Factored, InteriorPoint, Point, RiemannianSearch, Splitting, select_method
from tests.solvers.conic import example, reference

A, _, B = example("gaussian")


@pytest.mark.few(3)
@pytest.mark.parametrize("solve", [bf.flat_minimum, bf.norm_minimum])
@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("method", [InteriorPoint(), Splitting(), Factored(), RiemannianSearch()])
def test_names_and_objects_are_the_same(method, penalty, solve):
    one, other = (solve(A, B, penalty=penalty, method=each, tol=1e-6, rng=0) for each in (method, method.name))
    assert one.status is other.status is bf.Status.OPTIMAL
    assert one.method == method.name
    np.testing.assert_array_equal(one.matrix, other.matrix)
    np.testing.assert_allclose(one.value, reference("gaussian", solve is bf.flat_minimum, penalty)[0], rtol=2e-6)


def test_algorithms_are_frozen_and_compare():
    assert Splitting(max_iterations=3) == Splitting(max_iterations=3) != Splitting()
    assert hash(InteriorPoint()) == hash(InteriorPoint())
    with pytest.raises(FrozenInstanceError):
        Splitting().max_iterations = 3


def test_one_that_cannot_serve_says_why():
    with pytest.raises(ValueError, match=r"method is InteriorPoint\(.*does not suit.*20 measurements.*most_measurements=10"):
        bf.flat_minimum(gaussian(20, (6, 5), 0), np.ones(20), method=InteriorPoint(most_measurements=10))
    with pytest.raises(ValueError, match="most_entries=10"):
        bf.norm_minimum(A, B, method=Splitting(most_entries=10))
    mask = bernoulli_mask((6, 5), 0.8, 0)
    for method in ("interior-point", "splitting", "riemannian"):
        with pytest.raises(ValueError, match="no place for offsets"):
            bf.flat_minimum(mask, np.arange(mask.m), penalty=1.0, offset_penalty=1.0, method=method)
    assert bf.flat_minimum(mask, np.arange(mask.m), penalty=1.0, offset_penalty=1.0, method="factored").status.proved


@pytest.mark.parametrize("bad", ["simplex", 3, InteriorPoint, object()])
def test_what_is_no_method_is_refused(bad):
    with pytest.raises(ValueError, match=r"method is (?s:.*)expected None, one of 'interior-point'"):
        bf.flat_minimum(A, B, method=bad)
    with pytest.raises(ValueError, match="method is"):
        bf.norm_minimum(A, B, method=bad)


def test_select_method_is_what_none_begins_with():
    assert select_method(A) == InteriorPoint()
    assert bf.flat_minimum(A, B, method=select_method(A), rng=0).value == bf.flat_minimum(A, B, rng=0).value
    wide = bernoulli_mask((900, 800), 0.05, 0)
    assert select_method(wide, 1.0) == Factored()
    assert select_method(wide) == Factored(complete=True)
    assert select_method(bernoulli_mask((30, 20), 0.5, 0), 1.0, offset_penalty=1.0) == Factored()
    for arguments in (("A",), (A, -1.0)):
        with pytest.raises(ValueError, match=r"A is str|penalty is -1"):
            select_method(*arguments)
    with pytest.raises(ValueError, match="offset_penalty"):
        select_method(A, 1.0, offset_penalty=0.0)


@dataclass(frozen=True)
class ProximalGradient(Algorithm):
    """An algorithm of a stranger."""

    name = "proximal gradient"
    steps: int = 5000

    def suits(self, problem):
        return None if problem.q > 0 else "it needs a penalty"

    def points(self, problem, rng, *, max_rank=None, initial=None) -> Iterator[Point]:
        A, b, q = problem.map, problem.b, problem.q
        t = 1 / np.linalg.norm(A.scaled_gram(np.eye(A.matrix_shape[0]), np.zeros(A.matrix_shape), np.eye(A.matrix_shape[1])), 2)
        Z = np.zeros(A.matrix_shape)
        for k in range(self.steps):
            residual = b - A(Z)
            if k % 20 == 0:
                yield Point.from_matrix(Z, residual / q)
            U, s, Vt = np.linalg.svd(Z + t * A.adjoint(residual), full_matrices=False)
            Z = U * np.maximum(s - t * q, 0.0) @ Vt


class Liar(ProximalGradient):
    def points(self, problem, rng, *, max_rank=None, initial=None):
        yield Point.from_pair(np.ones((5, 1)), np.ones((6, 1)), 1e6 * np.ones(problem.map.m))


def test_an_algorithm_from_outside_is_certified_like_ours():
    solution = bf.flat_minimum(A, B, penalty=0.3, method=ProximalGradient(), rng=0)
    assert (solution.status, solution.method) == (bf.Status.OPTIMAL, "proximal gradient")
    np.testing.assert_allclose(solution.value, reference("gaussian", True, 0.3)[0], rtol=1e-7)
    with pytest.raises(ValueError, match="it needs a penalty"):
        bf.flat_minimum(A, B, method=ProximalGradient())


def test_a_false_dual_vector_proves_nothing():
    solution = bf.flat_minimum(A, B, penalty=0.3, method=Liar(), rng=0)
    assert solution.certificate.lower_bound <= reference("gaussian", True, 0.3)[0]


def test_a_rank_limit_is_met_after_any_algorithm():
    solution = bf.flat_minimum(A, B, penalty=0.1, max_rank=1, method=ProximalGradient(), rng=0)
    assert solution.pair[0].shape[1] == 1
