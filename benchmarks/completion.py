"""Completion of a 2000 x 1500 matrix of rank 5 from a tenth of its entries, beside pymanopt's fixed-rank manifold.

The peer is told the rank, starts as pymanopt does and stops once its error on hidden entries is below 1e-6; it has an
analytic sparse gradient, once with the entries of the factored matrix computed by NumPy, as a user would write it, and once
by the compiled loop of this package. It proves nothing. `balancedfact` is not told the rank, and runs until its certificate
closes, long after its error has passed 1e-6.
"""

from __future__ import annotations

import contextlib
import time

import numpy as np
from harness import Solver, run

import balancedfact as bf
from balancedfact.measurements._sampled import sampled_product

SHAPE, RANK, DENSITY, SEED, ERROR = (2000, 1500), 5, 0.1, 0, 1e-6


def problem() -> tuple[bf.measurements.Entries, np.ndarray, np.ndarray, np.ndarray]:
    """The map, its data and the true factors."""
    rng = np.random.default_rng(SEED)
    A = bf.measurements.bernoulli_mask(SHAPE, DENSITY, rng)
    L, R = (rng.standard_normal((size, RANK)) for size in SHAPE)
    return A, A.forward_factored(L, R), L, R


class HiddenError:
    """The relative error of a pair on entries that are, nine times in ten, hidden."""

    def __init__(self, L: np.ndarray, R: np.ndarray) -> None:
        rng = np.random.default_rng(SEED + 1)
        self.rows, self.cols = (rng.integers(0, size, 100_000) for size in SHAPE)
        self.truth = sampled_product(L, R, self.rows, self.cols)

    def __call__(self, L: np.ndarray, R: np.ndarray) -> float:
        error = sampled_product(L, R, self.rows, self.cols) - self.truth
        return float(np.linalg.norm(error) / np.linalg.norm(self.truth))


def balancedfact() -> Solver:
    A, b, L, R = problem()
    error = HiddenError(L, R)

    def solve() -> dict[str, float]:
        solution = bf.flat_minimum(A, b)
        return {"hidden_error": error(*solution.pair), "certified_gap": solution.certificate.gap}

    return solve


def fixed_rank(compiled: bool) -> Solver:
    """Conjugate gradients on pymanopt's manifold of matrices of rank 5, with a sparse cost and its analytic gradient."""
    import pymanopt
    from pymanopt.manifolds import FixedRankEmbedded
    from pymanopt.optimizers import ConjugateGradient

    A, b, L, R = problem()
    error = HiddenError(L, R)
    manifold = FixedRankEmbedded(*SHAPE, RANK)

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


def fixed_rank_numpy() -> Solver:
    return fixed_rank(compiled=False)


def fixed_rank_compiled() -> Solver:
    return fixed_rank(compiled=True)


if __name__ == "__main__":
    run(
        "completion",
        {
            "balancedfact": (balancedfact, 9, True),
            "pymanopt fixed rank": (fixed_rank_numpy, 5, True),
            "pymanopt fixed rank, compiled loop": (fixed_rank_compiled, 9, True),
        },
    )
