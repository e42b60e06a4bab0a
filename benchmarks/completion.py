"""Exact completion beside pymanopt's fixed-rank manifold: 2000 x 1500, rank 5, from a tenth of the entries, and 5000 x 5000,
rank 10, from two millions.

The peer is told the rank, starts as pymanopt does and stops once its error on hidden entries is below 1e-6; it has an
analytic sparse gradient, once with the entries of the factored matrix computed by NumPy, as a user would write it, and once
by the compiled loop of this package. It proves nothing. `balancedfact` is not told the rank, and runs until its certificate
closes, long after its error has passed 1e-6.

``python benchmarks/completion.py`` runs both, or the tasks or contenders that are named: ``completion completion_large``.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import NamedTuple

import numpy as np
from harness import Solver, run

import balancedfact as bf
from balancedfact.measurements._sampled import sampled_product

SEED, ERROR = 0, 1e-6


class Task(NamedTuple):
    shape: tuple[int, int]
    rank: int
    density: float


SMALL, LARGE = Task((2000, 1500), 5, 0.1), Task((5000, 5000), 10, 0.08)


def problem(task: Task) -> tuple[bf.measurements.Entries, np.ndarray, np.ndarray, np.ndarray]:
    """The map, its data and the true factors."""
    rng = np.random.default_rng(SEED)
    A = bf.measurements.bernoulli_mask(task.shape, task.density, rng)
    L, R = (rng.standard_normal((size, task.rank)) for size in task.shape)
    return A, A.forward_factored(L, R), L, R


class HiddenError:
    """The relative error of a pair on entries most of which are hidden."""

    def __init__(self, L: np.ndarray, R: np.ndarray) -> None:
        rng = np.random.default_rng(SEED + 1)
        self.rows, self.cols = (rng.integers(0, len(factor), 100_000) for factor in (L, R))
        self.truth = sampled_product(L, R, self.rows, self.cols)

    def __call__(self, L: np.ndarray, R: np.ndarray) -> float:
        error = sampled_product(L, R, self.rows, self.cols) - self.truth
        return float(np.linalg.norm(error) / np.linalg.norm(self.truth))


def balancedfact(task: Task) -> Solver:
    A, b, L, R = problem(task)
    error = HiddenError(L, R)

    def solve() -> dict[str, float]:
        solution = bf.flat_minimum(A, b)
        return {"hidden_error": error(*solution.pair), "certified_gap": solution.certificate.gap}

    return solve


def fixed_rank(task: Task, compiled: bool) -> Solver:
    """Conjugate gradients on pymanopt's manifold of matrices of fixed rank, with a sparse cost and its analytic gradient."""
    import pymanopt
    from pymanopt.manifolds import FixedRankEmbedded
    from pymanopt.optimizers import ConjugateGradient

    A, b, L, R = problem(task)
    error = HiddenError(L, R)
    manifold = FixedRankEmbedded(*task.shape, task.rank)

    def residual(u: np.ndarray, s: np.ndarray, vt: np.ndarray) -> np.ndarray:
        if compiled:
            return sampled_product(u * s, vt.T, A.rows, A.cols) - b
        return np.einsum("ij,ij->i", (u * s)[A.rows], vt.T[A.cols]) - b

    class Reached(Exception):
        pass

    @pymanopt.function.numpy(manifold)
    def cost(u: np.ndarray, s: np.ndarray, vt: np.ndarray) -> float:
        r = residual(u, s, vt)
        return 0.5 * float(r @ r)

    @pymanopt.function.numpy(manifold)
    def gradient(u: np.ndarray, s: np.ndarray, vt: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = time.perf_counter()
        reached.append(error(u * s, vt.T))
        watching.append(time.perf_counter() - start)
        if reached[-1] <= ERROR:
            raise Reached
        G = A.adjoint_operator(residual(u, s, vt))
        Gv = G @ vt.T
        return Gv * s, np.einsum("ij,ij->j", u, Gv), ((G.T @ u) * s).T

    reached: list[float] = []
    watching: list[float] = []

    def solve() -> dict[str, float]:
        reached.clear()
        watching.clear()
        np.random.seed(SEED)  # noqa: NPY002 - pymanopt draws its start from the global generator
        optimizer = ConjugateGradient(verbosity=0, max_iterations=1000, max_time=120, min_gradient_norm=0.0)
        with contextlib.suppress(Reached):
            optimizer.run(pymanopt.Problem(manifold, cost, euclidean_gradient=gradient))
        return {"hidden_error": reached[-1], "seconds_watching": sum(watching)}

    return solve


if __name__ == "__main__":
    for name, task, runs, warm in [("completion", SMALL, (9, 5, 9), True), ("completion_large", LARGE, (3, 1, 1), False)]:
        run(
            name,
            {
                "balancedfact": (partial(balancedfact, task), runs[0], True),
                "pymanopt fixed rank": (partial(fixed_rank, task, compiled=False), runs[1], warm),
                "pymanopt fixed rank, compiled loop": (partial(fixed_rank, task, compiled=True), runs[2], warm),
            },
        )
