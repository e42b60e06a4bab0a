"""Which geometry for the balanced pair nearest to a matrix: balanced pairs, triples, merged triples, and pymanopt's own.

``python benchmarks/geometries.py [small|large]`` searches from random starts at 200 x 150, rank 5 (100 starts, peers 30), and
at 2000 x 1500, rank 10 (20 starts, peers 2), on the matrices of `manifolds.py`, in one process with its processor time, and
writes ``results/geometries_small.md`` and ``_large.md``, row by row. Points are those at which the gradient is computed. A
start has arrived if its value is within a relative 1e-9 of the truncated singular value decomposition. pymanopt's optimizers
run with their own defaults on the Stiefel product, with the same analytic derivatives as this package's triples, and on
matrices of fixed rank.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from harness import write
from manifolds import ARRIVED, LARGE, SMALL, matrix, peer

import balancedfact as bf
from balancedfact.solvers.riemannian._triple_distance import TripleDistance


class End(NamedTuple):
    """The end of one search."""

    value: float
    points: float
    products: float


Search = Callable[[int], End]


def ours(M: np.ndarray, rank: int, geometry: str) -> Search:
    def search(seed: int) -> End:
        found = bf.balanced_approximation(M, rank, method="riemannian", geometry=geometry, rng=seed, progress=False)
        return End(found.value, len(found.history["value"]), found.history["hessian_products"][-1])

    return search


def stiefel_product(M: np.ndarray, rank: int, optimizer: str) -> Search:
    """One of pymanopt's optimizers on the product of its manifolds."""
    import pymanopt

    distance = TripleDistance(M, False, lambda L, R: float(np.sum((L @ R.T - M) ** 2)))
    manifold = bf.manifolds.stiefel_product(*M.shape, rank)
    calls = {"gradient": 0, "hessian": 0}

    def counted(name: str, method: Any) -> Any:
        def call(*arguments: np.ndarray) -> Any:
            calls[name] += 1
            return method(*arguments)

        return call

    problem = pymanopt.Problem(
        manifold,
        pymanopt.function.numpy(manifold)(distance.value),
        euclidean_gradient=pymanopt.function.numpy(manifold)(distance.gradient),
        euclidean_hessian=pymanopt.function.numpy(manifold)(distance.hessian),
    )
    for name in calls:  # pymanopt looks at signatures only when the functions are decorated
        setattr(problem, f"_euclidean_{name}", counted(name, getattr(problem, f"_euclidean_{name}")))

    def search(seed: int) -> End:
        calls.update(gradient=0, hessian=0)
        result = peer(optimizer, problem, seed)
        # Its Hessian asks for the Euclidean gradient too.
        return End(float(result.cost), calls["gradient"] - calls["hessian"], calls["hessian"])

    return search


def fixed_rank(M: np.ndarray, rank: int) -> Search:
    """Conjugate gradients on pymanopt's matrices of fixed rank."""
    import pymanopt
    from pymanopt.manifolds import FixedRankEmbedded

    manifold, calls = FixedRankEmbedded(*M.shape, rank), [0]

    @pymanopt.function.numpy(manifold)
    def cost(u: np.ndarray, s: np.ndarray, vt: np.ndarray) -> float:
        return float(np.sum(((u * s) @ vt - M) ** 2))

    @pymanopt.function.numpy(manifold)
    def gradient(u: np.ndarray, s: np.ndarray, vt: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        calls[0] += 1
        G = 2 * ((u * s) @ vt - M)
        Gv = G @ vt.T
        return Gv * s, np.einsum("ij,ij->j", u, Gv), ((G.T @ u) * s).T

    problem = pymanopt.Problem(manifold, cost, euclidean_gradient=gradient)

    def search(seed: int) -> End:
        calls[0] = 0
        return End(float(peer("ConjugateGradient", problem, seed).cost), calls[0], 0)

    return search


def row(name: str, search: Search, starts: int, least: float) -> dict[str, Any]:
    ends, seconds = [], []
    for seed in range(starts):
        begun = time.process_time()
        ends.append(search(seed))
        seconds.append(time.process_time() - begun)
    arrived = sum(end.value <= least * (1 + ARRIVED) for end in ends)
    points, products = (statistics.median(getattr(end, what) for end in ends) for what in ("points", "products"))
    found = {"name": name, "starts": starts, "arrived": arrived, "points": points, "products": products}
    return found | {"seconds": statistics.median(seconds)}


def main(size: str) -> None:
    task, starts, few = {"small": (SMALL, 100, 30), "large": (LARGE, 20, 2)}[size]
    M, least = matrix(task)
    contenders: list[tuple[str, Search, int]] = [
        *((f'`geometry="{name}"`', ours(M, task[2], name), starts) for name in ("pairs", "triples", "merged")),
        ("fixed rank, pymanopt conjugate gradients", fixed_rank(M, task[2]), few),
        ("Stiefel product, pymanopt conjugate gradients", stiefel_product(M, task[2], "ConjugateGradient"), few),
        ("Stiefel product, pymanopt trust regions", stiefel_product(M, task[2], "TrustRegions"), few),
    ]
    rows = []
    lines = [f"| {task[0]} x {task[1]} | starts | arrived | points | Hessian products | seconds |", "|---|" + "---:|" * 5]
    for name, search, count in contenders:
        rows.append(each := row(name, search, count, least))
        numbers = f"{each['points']:g} | {each['products']:g} | {each['seconds']:.2g}"
        lines.append(f"| {name} | {each['starts']} | {each['arrived']} | {numbers} |")
        write(f"geometries_{size}", {"rows": rows}, "\n".join(lines) + "\n")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or ["small", "large"]:
        main(chosen)
