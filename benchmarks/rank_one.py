"""Large rank-one sensing: 100,000 measurements ``u.T @ X @ v`` of a 1000 x 1000 matrix of rank 5, no measurement matrix formed.

Exact data, and data with noise of a tenth. The vectors take 1.6 GB. The peer, conjugate gradients on pymanopt's manifold of
matrices of fixed rank, is told the rank and stopped once its error is below 1e-6; its cost and gradient are products with the
vectors, as a user would write them. ``python benchmarks/rank_one.py`` takes about ten minutes on two cores.
"""

from __future__ import annotations

import contextlib

import numpy as np
from harness import Solver, run

import balancedfact as bf
from balancedfact.solvers.nuclear._hold_out import largest_penalty

M, SIZE, RANK, NOISE, SEED, ERROR = 100_000, 1000, 5, 0.1, 0, 1e-6


def problem() -> tuple[bf.measurements.RankOne, np.ndarray, np.ndarray, np.ndarray]:
    """The map, its data, noise of the same size, and the truth."""
    rng = np.random.default_rng(SEED)
    A = bf.measurements.RankOne(*(rng.standard_normal((M, SIZE)) for _ in range(2)))
    L, R = (rng.standard_normal((SIZE, RANK)) for _ in range(2))
    b = A.forward_factored(L, R)
    return A, b, np.std(b) * rng.standard_normal(M), L @ R.T


def distance(X: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(X - truth) / np.linalg.norm(truth))


def exact() -> Solver:
    A, b, _, truth = problem()

    def solve() -> dict[str, float]:
        solution = bf.flat_minimum(A, b)
        return {"error": distance(solution.matrix, truth), "certified_gap": solution.certificate.gap}

    return solve


def noisy() -> Solver:
    A, b, noise, truth = problem()
    b += NOISE * noise
    penalty = 1.1 * NOISE * largest_penalty(A, noise, np.random.default_rng(SEED))

    def solve() -> dict[str, float]:
        solution = bf.flat_minimum(A, b, penalty=penalty, tol=1e-4)
        return {"error": distance(solution.matrix, truth), "certified_gap": solution.certificate.gap}

    return solve


def fixed_rank() -> Solver:
    import pymanopt
    from pymanopt.manifolds import FixedRankEmbedded
    from pymanopt.optimizers import ConjugateGradient

    A, b, _, truth = problem()
    manifold = FixedRankEmbedded(SIZE, SIZE, RANK)
    reached: list[float] = []

    class Reached(Exception):
        pass

    @pymanopt.function.numpy(manifold)
    def cost(u: np.ndarray, s: np.ndarray, vt: np.ndarray) -> float:
        r = np.einsum("ij,ij->i", A.left @ (u * s), A.right @ vt.T) - b
        return 0.5 * float(r @ r)

    @pymanopt.function.numpy(manifold)
    def gradient(u: np.ndarray, s: np.ndarray, vt: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reached.append(distance((u * s) @ vt, truth))
        if reached[-1] <= ERROR:
            raise Reached
        along_u, along_v = A.left @ u, A.right @ vt.T
        r = np.einsum("ij,ij->i", along_u * s, along_v) - b
        Gv = A.left.T @ (r[:, None] * along_v)
        return Gv * s, np.einsum("ij,ij->j", u, Gv), ((A.right.T @ (r[:, None] * along_u)) * s).T

    def solve() -> dict[str, float]:
        reached.clear()
        np.random.seed(SEED)  # noqa: NPY002 - pymanopt draws its start from the global generator
        optimizer = ConjugateGradient(verbosity=0, max_iterations=1000, max_time=240, min_gradient_norm=0.0)
        with contextlib.suppress(Reached):
            optimizer.run(pymanopt.Problem(manifold, cost, euclidean_gradient=gradient))
        return {"error": reached[-1]}

    return solve


if __name__ == "__main__":
    contenders = {"balancedfact": exact, "pymanopt fixed rank": fixed_rank, "balancedfact, noise": noisy}
    run("rank_one", {name: (build, 1, False) for name, build in contenders.items()})
