"""Riemannian searches from random starts: who arrives, how fast, and how hard depth makes it.

``python benchmarks/manifolds.py [NAME ...]`` runs the rows of the table of balanced approximations that are named (all by
default); ``depth`` among the names adds the table of deep factorizations, ``manifolds_closed`` that of the closed form. The
scale of the runs is set by ``STARTS_SMALL`` (100) and ``STARTS_LARGE`` (20) in the environment, which count the starts of this
package; peers get fewer, as they take longer.

The task of the first table: the balanced pair nearest to a matrix, at 200 x 150 and rank 5, and at 2000 x 1500 and rank 10,
both with noise. A start has arrived if its value is within a relative 1e-9 of the truncated singular value decomposition;
``false_success`` counts the starts that end elsewhere although the optimizer reports that the gradient is small (this
package: that the status is ok).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from harness import RESULTS, Solver, environment, run

import balancedfact as bf

SMALL, LARGE = (200, 150, 5), (2000, 1500, 10)
NOISE, SEED, ARRIVED = 0.5, 0, 1e-9
STARTS_SMALL, STARTS_LARGE = int(os.environ.get("STARTS_SMALL", 100)), int(os.environ.get("STARTS_LARGE", 20))
LAYER = "riemannian_minimum"  # this package's layer over pymanopt, on the manifold of a peer
LONGEST = 200.0  # seconds that a peer may take for one start


def matrix(task: tuple[int, int, int]) -> tuple[np.ndarray, float]:
    """The matrix, of Frobenius norm one so that the absolute tolerances of peers mean something, and the least value."""
    d1, d2, k = task
    rng = np.random.default_rng(SEED)
    M = rng.standard_normal((d1, k)) @ rng.standard_normal((k, d2)) + NOISE * rng.standard_normal((d1, d2))
    M /= np.linalg.norm(M)
    return M, float(np.sum(np.linalg.svd(M, compute_uv=False)[k:] ** 2))


def starts(count: int, search: Callable[[int], tuple[float, bool, float]], least: float) -> dict[str, float]:
    """Run ``search(seed) -> (value, success reported, balance)`` from every start."""
    seconds, arrived, wrong, balance, worst = [], 0, 0, 0.0, 0.0
    for seed in range(count):
        begun = time.perf_counter()
        value, reported, residual = search(seed)
        seconds.append(time.perf_counter() - begun)
        there = value <= least * (1 + ARRIVED)
        arrived += there
        wrong += reported and not there
        balance, worst = max(balance, residual), max(worst, value / least - 1)
    return {
        "starts": count,
        "arrived": arrived,
        "false_success": wrong,
        "per_start": statistics.median(seconds),
        "worst_error": worst,
        "balance": balance,
    }


def unbalanced(L: np.ndarray, R: np.ndarray) -> float:
    return float(np.linalg.norm(L.T @ L - R.T @ R) / (np.vdot(L, L) + np.vdot(R, R)))


def balancedfact(task: tuple[int, int, int], count: int, method: str = "riemannian") -> Solver:
    M, least = matrix(task)

    def search(seed: int) -> tuple[float, bool, float]:
        found = bf.balanced_approximation(M, task[2], method=method, rng=seed, progress=False)
        return found.value, found.status.ok, unbalanced(*found.pair)

    return lambda: starts(count, search, least)


def stiefel_autograd(task: tuple[int, int, int], count: int, optimizer: str) -> Solver:
    """The product of Stiefel, Stiefel and Euclidean with automatic differentiation, as a user of pymanopt writes it today."""

    import autograd.numpy as anp
    import pymanopt
    from pymanopt.manifolds import Euclidean, Product, Stiefel

    M, least = matrix(task)
    d1, d2, k = task
    manifold = Product([Stiefel(d1, k), Euclidean(k, k), Stiefel(d2, k)])

    @pymanopt.function.autograd(manifold)
    def cost(B: Any, C: Any, D: Any) -> Any:
        return anp.sum((B @ C @ C.T @ D.T - M) ** 2)

    problem = pymanopt.Problem(manifold, cost)

    def search(seed: int) -> tuple[float, bool, float]:
        if optimizer == LAYER:
            found = bf.riemannian_minimum(problem, rng=seed, progress=False)
            (B, C, D), value, reported = found.layers, found.value, found.status.ok
        else:
            result = peer(optimizer, problem, seed)
            (B, C, D), value, reported = result.point, result.cost, "min grad norm" in result.stopping_criterion
        return float(value), reported, unbalanced(B @ C, D @ C)

    return lambda: starts(count, search, least)


def fixed_rank(task: tuple[int, int, int], count: int) -> Solver:
    """Conjugate gradients on pymanopt's matrices of fixed rank, with the analytic gradient; balanced afterwards."""

    import pymanopt
    from pymanopt.manifolds import FixedRankEmbedded

    M, least = matrix(task)
    manifold = FixedRankEmbedded(*task)

    @pymanopt.function.numpy(manifold)
    def cost(u: np.ndarray, s: np.ndarray, vt: np.ndarray) -> float:
        return float(np.sum(((u * s) @ vt - M) ** 2))

    @pymanopt.function.numpy(manifold)
    def gradient(u: np.ndarray, s: np.ndarray, vt: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        G = 2 * ((u * s) @ vt - M)
        Gv = G @ vt.T
        return Gv * s, np.einsum("ij,ij->j", u, Gv), ((G.T @ u) * s).T

    problem = pymanopt.Problem(manifold, cost, euclidean_gradient=gradient)

    def search(seed: int) -> tuple[float, bool, float]:
        result = peer("ConjugateGradient", problem, seed)
        return float(result.cost), "min grad norm" in result.stopping_criterion, 0.0

    return lambda: starts(count, search, least)


def peer(name: str, problem: Any, seed: int) -> Any:
    """A run of one of pymanopt's optimizers with its own defaults, but for verbosity and time."""
    import pymanopt.optimizers

    np.random.seed(seed)  # noqa: NPY002 - pymanopt draws its start from the global generator
    return getattr(pymanopt.optimizers, name)(verbosity=0, max_time=LONGEST).run(problem)


def svd(task: tuple[int, int, int], iterative: bool) -> Solver:
    from scipy.sparse.linalg import svds

    M, least = matrix(task)

    def search(seed: int) -> tuple[float, bool, float]:
        k = task[2]
        if iterative:
            U, s, Vt = svds(M, k=k, rng=seed)
        else:
            U, s, Vt = (part[..., :k] if i < 2 else part[:k] for i, part in enumerate(np.linalg.svd(M, full_matrices=False)))
        L, R = U * np.sqrt(s), Vt.T * np.sqrt(s)
        return float(np.sum((L @ R.T - M) ** 2)), True, unbalanced(L, R)

    return lambda: starts(3, search, least)


def shares(task: tuple[int, int, int]) -> Solver:
    """What part of a search goes into the cost, the manifold, the bound, and pymanopt with the layer over it."""
    from balancedfact.manifolds import BalancedPairs
    from balancedfact.solvers.riemannian._balanced_approximation import _Target

    M, _ = matrix(task)
    spent = {"cost": 0.0, "manifold": 0.0, "certificate": 0.0}
    inside: list[str] = []

    def timed(kind: str, method: Any) -> Any:
        def wrapper(*arguments: Any) -> Any:
            if inside:  # the outermost call counts
                return method(*arguments)
            inside.append(kind)
            begun = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                spent[kind] += time.perf_counter() - begun
                inside.clear()

        return wrapper

    # Signatures are looked at by pymanopt when the cost is decorated, after which only the arrays are passed.
    prepared = _Target.problem

    def problem(self: Any, q: int) -> Any:
        made = prepared(self, q)
        for name in ("_cost", "_euclidean_gradient", "_euclidean_hessian"):
            setattr(made, name, timed("cost", getattr(made, name)))
        return made

    _Target.problem = problem  # type: ignore[method-assign]
    _Target._lower_bound = timed("certificate", _Target._lower_bound)  # type: ignore[method-assign]
    for name in ("inner_product", "norm", "retraction", "nearest", "projection", "to_tangent_space", "zero_vector",
                 "euclidean_to_riemannian_gradient", "euclidean_to_riemannian_hessian", "random_tangent_vector"):  # fmt: skip
        setattr(BalancedPairs, name, timed("manifold", getattr(BalancedPairs, name)))

    def solve() -> dict[str, float]:
        spent.update(dict.fromkeys(spent, 0.0))
        begun = time.perf_counter()
        bf.balanced_approximation(M, task[2], method="riemannian", rng=0, progress=False)
        total = time.perf_counter() - begun
        found = {f"{name}_share": seconds / total for name, seconds in spent.items()}
        return found | {"pymanopt_share": 1 - sum(found.values())}

    return solve


def conditioned(rows: int, columns: int, rank: int, condition: float) -> np.ndarray:
    """A matrix of norm one with singular values at equal ratios."""
    rng = np.random.default_rng(SEED)
    U, V = (np.linalg.qr(rng.standard_normal((d, rank)))[0] for d in (rows, columns))
    return (U * np.geomspace(1.0, 1 / condition, rank)) @ V.T


def depth_rows() -> Iterator[tuple[float | str, ...]]:
    """The search from random layers against the closed forms, and pymanopt's trust regions on the same set beside it."""
    for rows, columns, rank in [(20, 15, 4), (15, 15, 15)]:
        for condition in (1e1, 1e3, 1e6):
            M = conditioned(rows, columns, rank, condition)
            for depth in (2, 3, 5, 10, 20):
                widths = [columns, *[rank] * (depth - 1), rows]
                isotropic = bf.closed_forms.min_isotropic_trace(M, depth)
                searches = {
                    "least R(W)": (bf.flattest_factorization, isotropic, STARTS_LARGE),
                    "least squares": (bf.balanced_factorization, bf.closed_forms.schatten_value(M, depth), STARTS_LARGE),
                }
                if depth <= 5:
                    searches["least R(W), pymanopt"] = (plain_search, isotropic, max(1, STARTS_LARGE // 10))
                for name, (search, least, count) in searches.items():
                    seconds, found = [], []
                    for seed in range(count):
                        begun = time.process_time()
                        found.append(search(M, widths, rng=seed, progress=False))
                        seconds.append(time.process_time() - begun)
                    errors = [abs(one.value / least - 1) for one in found]
                    arrived = sum(error <= 1e-12 and one.status.ok for error, one in zip(errors, found, strict=True))
                    points = statistics.median(len(one.history["value"]) for one in found)
                    size = f"{rows} x {columns}, {rank}"
                    yield (name, size, condition, depth, count, arrived, max(errors), points, statistics.median(seconds))


def plain_search(M: np.ndarray, widths: list[int], **options: Any) -> bf.Solution:
    """R(W) as a user of pymanopt minimises it on `Factorizations`: automatic differentiation, no preconditioner."""
    import autograd.numpy as anp
    import pymanopt

    manifold = bf.manifolds.Factorizations(M, widths, rng=options["rng"])

    @pymanopt.function.autograd(manifold)
    def cost(*layers: Any) -> Any:
        before, after = [anp.eye(widths[0])], [anp.eye(widths[-1])]
        for W in layers[:-1]:
            before.append(anp.dot(W, before[-1]))
        for W in layers[:0:-1]:
            after.append(anp.dot(after[-1], W))
        return sum(anp.sum(C**2) * anp.sum(B**2) for B, C in zip(before, after[::-1], strict=True))

    return bf.riemannian_minimum(pymanopt.Problem(manifold, cost), limits=bf.Limits(seconds=LONGEST / 4), **options)


def depth_table() -> str:
    """The rows as a table."""
    lines = [
        "| search | matrix, rank | condition | depth | starts | arrived | worst error | points | processor seconds |",
        "|---|---|" + "---:|" * 7,
    ]
    for name, size, condition, depth, count, arrived, worst, points, seconds in depth_rows():
        lines.append(
            f"| {name} | {size} | {condition:.0e} | {depth} | {count} | {arrived} | {worst:.1e} | {points:g} | {seconds:.2g} |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    chosen = sys.argv[1:]
    few, one = max(2, 3 * STARTS_SMALL // 10), max(1, STARTS_LARGE // 10)
    rows = {
        "200 x 150, balancedfact": (partial(balancedfact, SMALL, STARTS_SMALL), 1, False),
        "200 x 150, Stiefel product, trust regions": (partial(stiefel_autograd, SMALL, few, "TrustRegions"), 1, False),
        "200 x 150, Stiefel product, conjugate gradients": (
            partial(stiefel_autograd, SMALL, few, "ConjugateGradient"),
            1,
            False,
        ),
        "200 x 150, Stiefel product, riemannian_minimum": (partial(stiefel_autograd, SMALL, few, LAYER), 1, False),
        "200 x 150, fixed rank, conjugate gradients": (partial(fixed_rank, SMALL, few), 1, False),
        "200 x 150, numpy svd": (partial(svd, SMALL, False), 1, True),
        "200 x 150, scipy svds": (partial(svd, SMALL, True), 1, True),
        "2000 x 1500, balancedfact": (partial(balancedfact, LARGE, STARTS_LARGE), 1, False),
        "2000 x 1500, Stiefel product, trust regions": (partial(stiefel_autograd, LARGE, one, "TrustRegions"), 1, False),
        "2000 x 1500, Stiefel product, conjugate gradients": (
            partial(stiefel_autograd, LARGE, one, "ConjugateGradient"),
            1,
            False,
        ),
        "2000 x 1500, fixed rank, conjugate gradients": (partial(fixed_rank, LARGE, one), 1, False),
        "2000 x 1500, numpy svd": (partial(svd, LARGE, False), 1, False),
        "2000 x 1500, scipy svds": (partial(svd, LARGE, True), 1, True),
        "200 x 150, shares of the time": (partial(shares, SMALL), 1, True),
        "2000 x 1500, shares of the time": (partial(shares, LARGE), 1, True),
    }
    if chosen != ["depth"]:
        sys.argv = [sys.argv[0], *(name for name in chosen if name != "depth")]
        run("manifolds", rows)
        closed = {
            f"{task[0]} x {task[1]}, {name}": (partial(build, task, *arguments), 1, True)
            for task in (SMALL, LARGE)
            for name, build, arguments in [
                ("balancedfact", balancedfact, (3, "svd")),
                ("numpy svd", svd, (False,)),
                ("scipy svds", svd, (True,)),
            ]
        }
        if not chosen or "manifolds_closed" in chosen:
            run("manifolds_closed", closed)
    if "depth" in chosen or not chosen:
        table = depth_table()
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "manifolds_depth.md").write_text(table)
        (RESULTS / "manifolds_depth.json").write_text(json.dumps({"environment": environment()}, indent=2) + "\n")
