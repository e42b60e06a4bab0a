"""Noisy completion beside soft-impute: the same objective, stopped at the same accuracy.

All contenders minimise ``|P(X) - b|^2 / 2 + q |X|_*`` over the entries observed, with `q` 1.1 times the norm of the noise, and
stop within a relative 1e-4 (1e-3 at the largest size) of a certified lower bound that is computed beforehand, elsewhere:
``norm_minimum`` of this package, fancyimpute's dense `SoftImpute` (Mazumder, Hastie and Tibshirani 2010), cmfrec's compiled
alternating least squares, and the soft-impute with alternating least squares of Hastie, Mazumder, Lee and Zadeh (2015,
algorithm 3.1) as one writes it with ``scipy.sparse``. The peers are told twice the rank of the truth as a bound on the rank.
`hidden_error` is the root mean square error on entries not observed, over the standard deviation of the noise.

Run ``python benchmarks/soft_impute.py`` for all sizes, or name some: ``soft_impute_200 soft_impute_2000 soft_impute_20000``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from harness import Solver, apart, run
from scipy.sparse.linalg import svds

import balancedfact as bf
from balancedfact.solvers.nuclear._hold_out import largest_penalty

NOISE, SEED = 0.1, 0
LONGEST = 60.0  # seconds after which the peer in SciPy stops where it is


class Size(NamedTuple):
    """A size of the problem, the accuracy asked for, and the iterations after which cmfrec has reached it, found by trial."""

    rows: int
    columns: int
    rank: int
    density: float
    accuracy: float
    cmfrec_iterations: int


SIZES = {
    "soft_impute_200": Size(200, 150, 5, 0.3, 1e-4, 15),
    "soft_impute_2000": Size(2000, 1500, 10, 0.1, 1e-4, 15),
    "soft_impute_20000": Size(20_000, 10_000, 10, 0.025, 1e-3, 15),
}


class Problem:
    """Observed entries of a matrix of unit variance plus noise, with penalties of 1.1 times the norm of the noise."""

    def __init__(self, size: Size) -> None:
        rng = np.random.default_rng(SEED)
        self.shape, self.rank = (size.rows, size.columns), size.rank
        self.A = bf.measurements.bernoulli_mask(self.shape, size.density, rng)
        self.factors = [rng.standard_normal((d, size.rank)) / size.rank**0.25 for d in self.shape]
        noise = NOISE * rng.standard_normal(self.A.m)
        self.b = self.A.forward_factored(*self.factors) + noise
        start = rng.standard_normal(min(self.shape))
        self.q = 1.1 * float(svds(self.A.adjoint_operator(noise), k=1, v0=start, return_singular_vectors=False)[0])
        self.flat_q = 1.1 * largest_penalty(self.A, noise, rng)
        # Nearly all of these entries are hidden: the density is that of the observed ones at most.
        places = [rng.integers(0, d, 100_000) for d in self.shape]
        self.test = bf.measurements.Entries(*places, self.shape)

    def hidden_error(self, L: np.ndarray, R: np.ndarray) -> float:
        error = self.test.forward_factored(L, R) - self.test.forward_factored(*self.factors)
        return float(np.sqrt(np.mean(error**2))) / NOISE

    def objective(self, L: np.ndarray, R: np.ndarray) -> float:
        """Of the product of a pair, whose squared norms are an upper bound on twice its nuclear norm."""
        residual = self.b - self.A.forward_factored(L, R)
        return 0.5 * float(residual @ residual + self.q * (np.vdot(L, L) + np.vdot(R, R)))


def lower_bound(size: Size) -> float:
    problem = Problem(size)
    solution = bf.norm_minimum(problem.A, problem.b, penalty=problem.q, tol=1e-2 * size.accuracy, progress=False)
    return float(solution.certificate.lower_bound)


def balancedfact(size: Size, bound: float) -> Solver:
    problem = Problem(size)

    def solve() -> dict[str, float]:
        found = bf.norm_minimum(problem.A, problem.b, penalty=problem.q, tol=size.accuracy, progress=False)
        return reached(problem, *found.pair, bound) | {"certified_gap": found.certificate.gap}

    return solve


def flat(size: Size) -> Solver:
    """The flat minimum of the same data, with the penalty of the same strength: an objective weighted by row and column."""
    problem = Problem(size)

    def solve() -> dict[str, float]:
        found = bf.flat_minimum(problem.A, problem.b, penalty=problem.flat_q, tol=size.accuracy, progress=False)
        return {"hidden_error": problem.hidden_error(*found.pair), "certified_gap": found.certificate.gap}

    return solve


def reached(problem: Problem, L: np.ndarray, R: np.ndarray, bound: float) -> dict[str, float]:
    return {"excess": problem.objective(L, R) / bound - 1, "hidden_error": problem.hidden_error(L, R), "rank": L.shape[1]}


def fancyimpute(size: Size, bound: float) -> Solver:
    """Dense soft-impute, whose singular values are watched for the accuracy reached."""
    from fancyimpute import SoftImpute

    problem = Problem(size)
    target = bound * (1 + size.accuracy)
    data = np.full(problem.shape, np.nan)
    data[problem.A.rows, problem.A.cols] = problem.b

    class Watched(SoftImpute):  # type: ignore[misc]
        def _converged(self, X_old: Any, X_new: Any, missing_mask: Any) -> bool:
            self.latest = X_new
            self.count = getattr(self, "count", 0) + 1
            return self.count % 20 == 0 and self.value() <= target  # a twentieth of the time, at most, goes into this

        def value(self) -> float:
            residual = problem.b - problem.A(self.latest)
            return float(0.5 * residual @ residual + problem.q * np.linalg.norm(self.latest, "nuc"))

    def solve() -> dict[str, float]:
        solver = Watched(shrinkage_value=problem.q, max_iters=10_000, max_rank=2 * size.rank, verbose=False)
        start = time.perf_counter()
        solver.fit_transform(data)
        seconds = time.perf_counter() - start
        error = problem.test(solver.latest) - problem.test.forward_factored(*problem.factors)
        hidden = float(np.sqrt(np.mean(error**2))) / NOISE
        found = {"excess": solver.value() / bound - 1, "hidden_error": hidden, "rank": np.linalg.matrix_rank(solver.latest)}
        return found | {"iterations": solver.count, "seconds_solving": seconds}

    return solve


def cmfrec(size: Size, bound: float) -> Solver:
    """Alternating least squares in C, exact in every half step, with a number of iterations found by trial."""
    from cmfrec import CMF

    problem = Problem(size)
    data = sp.coo_matrix((problem.b, (problem.A.rows, problem.A.cols)), shape=problem.shape)
    plain = {"user_bias": False, "item_bias": False, "center": False, "scale_lam": False, "use_float": False}

    def solve() -> dict[str, float]:
        options = {"k": 2 * size.rank, "lambda_": problem.q, "method": "als", "use_cg": False, "nthreads": 2, "verbose": False}
        model = CMF(**options, **plain, niter=size.cmfrec_iterations, random_state=SEED).fit(data)
        found = reached(problem, model.A_.astype(float), model.B_.astype(float), bound)
        return found | {"iterations": size.cmfrec_iterations}

    return solve


def soft_impute_als(size: Size, bound: float) -> Solver:
    """``X = U diag(d^2) V.T``; a half step is a ridge regression on the residual, which is sparse, plus the matrix so far."""
    problem = Problem(size)
    rows, cols, b, q = problem.A.rows, problem.A.cols, problem.b, problem.q
    target, k = bound * (1 + size.accuracy), 2 * size.rank
    pattern = sp.csr_array((b, (rows, cols)), shape=problem.shape)  # the entries are sorted by row, and so are these

    def entries(U: np.ndarray, d: np.ndarray, V: np.ndarray) -> np.ndarray:
        """Those observed, a million at a time so that memory stays in bounds."""
        left, out = U * d**2, np.empty(rows.size)
        for first in range(0, rows.size, 1_000_000):
            part = slice(first, first + 1_000_000)
            out[part] = np.einsum("ij,ij->i", left[rows[part]], V[cols[part]])
        return out

    def half(S: Any, U: np.ndarray, d: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        regressed = (S.T @ U * d + V * d**3) / (d**2 + q)
        V, square, turn = np.linalg.svd(regressed * d, full_matrices=False)
        return U @ turn.T, np.sqrt(square), V

    def solve() -> dict[str, float]:
        start = time.perf_counter()
        U, d = np.linalg.qr(np.random.default_rng(SEED).standard_normal((size.rows, k)))[0], np.ones(k)
        V, iterations = np.zeros((size.columns, k)), 0
        while True:
            residual = b - entries(U, d, V)
            value = 0.5 * float(residual @ residual) + q * float(np.sum(d**2)) * bool(V.any())
            if value <= target or time.perf_counter() - start > LONGEST:
                break
            S = sp.csr_array((residual, pattern.indices, pattern.indptr), shape=problem.shape)
            U, d, V = half(S, U, d, V)
            S = sp.csr_array((b - entries(U, d, V), pattern.indices, pattern.indptr), shape=problem.shape)
            V, d, U = half(S.T, V, d, U)
            iterations += 1
        return reached(problem, U * d, V * d, bound) | {"iterations": iterations}

    return solve


def task(name: str, size: Size) -> None:
    bound = apart(lower_bound, size)
    small, large = name == "soft_impute_200", name == "soft_impute_20000"
    repeats = 1 if large else 5
    contenders: dict[str, tuple[Callable[[], Solver], int, bool]] = {
        "balancedfact, norm_minimum": (partial(balancedfact, size, bound), repeats, not large),
        "balancedfact, flat_minimum": (partial(flat, size), repeats, not large),
        "SciPy, soft-impute ALS": (partial(soft_impute_als, size, bound), 1, False),
        "cmfrec, ALS": (partial(cmfrec, size, bound), repeats, not large),
    }
    if not large:  # dense arrays of the largest size, several of 1.6 GB, and hours
        contenders["fancyimpute SoftImpute"] = (partial(fancyimpute, size, bound), 5 if small else 1, False)
    run(name, contenders)


if __name__ == "__main__":
    import sys

    for name, size in SIZES.items():
        if not sys.argv[1:] or name in sys.argv[1:]:
            task(name, size)
