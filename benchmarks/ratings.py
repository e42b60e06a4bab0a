"""Ratings with uneven rows and columns: error on ratings held out, beside two peers whose penalties are chosen in the same way.

A tenth of the ratings is set aside for the end. Of the others a tenth serves to choose the penalty, from a grid of
the same size for each contender, which ``select_penalty`` refines by up to four values beside the best one, and the model is
fitted to all of the others at the penalty chosen. The contenders:
``select_penalty`` and ``flat_minimum`` of this package with offsets, as ``solve --penalty auto --offsets`` runs them; cmfrec's
``CMF`` (ALS in C, biases, with and without scaled penalties, ranks 10, 30 and 60, the best on the tenth); and the soft-impute
with alternating least squares of Hastie, Mazumder, Lee and Zadeh (2015), after two-way offsets by ridge regression, rank 60.
`excess_percent` is the error over the least of the two peers, in percent.

Run ``python benchmarks/ratings.py``, or name a size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from harness import Solver, measured, write

import balancedfact as bf
from balancedfact.solvers import select_penalty

SEED = 0
PENALTIES = 12  # of the grid of each contender
RANK = 60
OFFSETS = 1.0


class Size(NamedTuple):
    """Users, items, ratings, and how the ratings come about: tastes, their decay, and noise in stars."""

    users: int
    items: int
    count: int
    tastes: int
    decay: float
    noise: float


SIZES = {
    "ratings_small": Size(300, 500, 15_000, 20, 0.8, 0.6),
    "ratings_flat_spectrum": Size(600, 900, 40_000, 60, 0.4, 0.6),
    "ratings_like_movielens": Size(600, 9000, 100_000, 40, 0.8, 0.75),
}


def generated(size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, items and half stars: both are drawn unevenly, the items by a power of their place, the users log-normally."""
    rng = np.random.default_rng(SEED)
    active = rng.lognormal(0.0, 1.0, size.users)
    popular = (np.arange(size.items) + 8.0) ** -1.1
    drawn = rng.choice(size.users, 5 * size.count, p=active / active.sum()).astype(np.int64) * size.items
    drawn += rng.choice(size.items, 5 * size.count, p=popular / popular.sum())
    users, items = np.divmod(rng.permutation(np.unique(drawn))[: size.count], size.items)
    strength = np.arange(1.0, size.tastes + 1) ** -size.decay
    strength /= np.linalg.norm(strength)
    U, V = (rng.standard_normal((count, size.tastes)) for count in (size.users, size.items))
    stars = 3.5 + 0.4 * rng.standard_normal(size.users)[users] + 0.5 * rng.standard_normal(size.items)[items]
    stars += 0.5 * np.einsum("ij,j,ij->i", U[users], strength, V[items]) + size.noise * rng.standard_normal(users.size)
    return users, items, np.clip(np.round(2 * stars) / 2, 0.5, 5.0)


class Split:
    """Ratings for the choice of a penalty, all for the fit, and those set aside."""

    def __init__(self, size: Size) -> None:
        users, items, stars = generated(size)
        _, users = np.unique(users, return_inverse=True)
        _, items = np.unique(items, return_inverse=True)
        self.shape = (int(users.max()) + 1, int(items.max()) + 1)
        order = np.random.default_rng(SEED + 1).permutation(stars.size)
        tenth = stars.size // 10
        parts = {"test": order[:tenth], "choose": order[tenth : 2 * tenth], "learn": order[2 * tenth :], "fit": order[tenth:]}
        self.parts = {name: (users[k], items[k], stars[k]) for name, k in parts.items()}

    def error(self, part: str, predict: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        users, items, stars = self.parts[part]
        return float(np.sqrt(np.mean((predict(users, items) - stars) ** 2)))

    def best(self, fits: Iterable[tuple[Any, Callable[[np.ndarray, np.ndarray], np.ndarray]]]) -> tuple[Any, float]:
        """The setting of least error on the tenth for the choice."""
        return min(((setting, self.error("choose", predict)) for setting, predict in fits), key=lambda each: each[1])


def balancedfact(size: Size) -> Solver:
    split = Split(size)
    users, items, stars = split.parts["fit"]
    A = bf.measurements.Entries(users, items, split.shape)

    def solve() -> dict[str, float]:
        start = time.perf_counter()
        path = select_penalty(A, stars, offset_penalty=OFFSETS, count=PENALTIES, rng=SEED)
        seconds = time.perf_counter() - start
        found = bf.flat_minimum(A, stars, penalty=path.penalty, offset_penalty=OFFSETS, tol=1e-3, rng=SEED)
        return {
            "error": split.error("test", found.predict),
            "rank": found.layers[0].shape[0],
            "certified_gap": found.certificate.gap,
            "seconds_choosing": seconds,
        }

    return solve


def cmfrec(size: Size) -> Solver:
    from cmfrec import CMF

    split = Split(size)

    def fitted(part: str, rank: int, penalty: float, scaled: bool) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        users, items, stars = split.parts[part]
        data = sp.coo_matrix((stars, (users, items)), shape=split.shape)
        options = {"k": rank, "lambda_": penalty, "scale_lam": scaled, "method": "als", "use_float": False, "nthreads": 2}
        model = CMF(**options, niter=30, random_state=SEED, verbose=False).fit(data)
        return lambda users, items: model.predict(users, items)

    def solve() -> dict[str, float]:
        settings = [
            (rank, penalty, scaled)
            for scaled, grid in ((False, np.geomspace(1, 60, PENALTIES)), (True, np.geomspace(0.01, 0.6, PENALTIES)))
            for rank in (10, 30, RANK)
            for penalty in grid
        ]
        (rank, penalty, scaled), _ = split.best((each, fitted("learn", *each)) for each in settings)
        found = fitted("fit", rank, penalty, scaled)
        return {"error": split.error("test", found), "rank": rank, "penalty": penalty, "scaled": float(scaled)}

    return solve


def soft_impute(size: Size) -> Solver:
    split = Split(size)

    def offsets(part: str, weight: float) -> tuple[float, np.ndarray, np.ndarray]:
        """Mean and ridge offsets of rows and columns, by alternation."""
        users, items, stars = split.parts[part]
        mean = float(stars.mean())
        sides = [np.zeros(d) for d in split.shape]
        for _ in range(30):
            for k, at in enumerate((users, items)):
                other = sides[1 - k][(items, users)[k]]
                sums = np.bincount(at, stars - mean - other, split.shape[k])
                sides[k] = sums / (np.bincount(at, minlength=split.shape[k]) + weight)
        return mean, *sides

    def path(part: str, grid: np.ndarray) -> Iterable[tuple[Any, Callable[[np.ndarray, np.ndarray], np.ndarray]]]:
        users, items, stars = split.parts[part]
        mean, rows, cols = offsets(part, 5.0)
        order = np.lexsort((items, users))
        users, items = users[order], items[order]
        b = (stars - mean)[order] - rows[users] - cols[items]
        pattern = sp.csr_array((b, (users, items)), shape=split.shape)
        U = np.linalg.qr(np.random.default_rng(SEED).standard_normal((split.shape[0], RANK)))[0]
        d, V = np.ones(RANK), np.zeros((split.shape[1], RANK))

        def half(S: Any, U: np.ndarray, d: np.ndarray, V: np.ndarray, q: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            V, square, turn = np.linalg.svd((S.T @ U * d + V * d**3) / (d**2 + q) * d, full_matrices=False)
            return U @ turn.T, np.sqrt(square), V

        def residual() -> Any:
            fit = np.einsum("ij,ij->i", (U * d**2)[users], V[items])
            return sp.csr_array((b - fit, pattern.indices, pattern.indptr), shape=split.shape)

        for q in grid:
            before = np.inf
            for _ in range(100):
                U, d, V = half(residual(), U, d, V, q)
                V, d, U = half(residual().T, V, d, U, q)
                value = 0.5 * float(np.sum(residual().data ** 2)) + q * float(np.sum(d**2))
                if value > before * (1 - 1e-5):
                    break
                before = value
            L, R = U * d**2, V.copy()
            yield q, lambda u, i, L=L, R=R: mean + rows[u] + cols[i] + np.einsum("ij,ij->i", L[u], R[i])

    def solve() -> dict[str, float]:
        users, items, stars = split.parts["learn"]
        norm = float(np.sqrt(np.bincount(users).max() * 1.0)) + float(np.sqrt(np.bincount(items).max()))
        grid = np.geomspace(2.0 * norm, 0.05 * norm, PENALTIES)
        penalty, _ = split.best(path("learn", grid))
        *_, (_, found) = path("fit", grid[grid >= penalty])
        return {"error": split.error("test", found), "penalty": penalty}

    return solve


def task(name: str, size: Size) -> None:
    rows = []
    for title, build in (("balancedfact", balancedfact), ("cmfrec", cmfrec), ("SciPy, soft-impute ALS", soft_impute)):
        rows.append({"name": title} | measured(partial(build, size), 1, False))
    best = min(row["error"] for row in rows[1:])
    for row in rows:
        row["excess_percent"] = 100 * (row["error"] / best - 1)
    lines = ["| | error | excess, % | seconds | rank |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        cells = f"{row['error']:.4f} | {row['excess_percent']:+.2f} | {row['seconds']:.1f} | {row.get('rank', RANK):g}"
        lines.append(f"| {row['name']} | {cells} |")
    write(name, {"rows": rows, "size": size._asdict()}, "\n".join(lines) + "\n")


if __name__ == "__main__":
    import sys

    for name, size in SIZES.items():
        if not sys.argv[1:] or name in sys.argv[1:]:
            task(name, size)
