"""The induced regularizer: Newton's method on the chain beside plain cyclic minimisation, over depth, rank and conditioning.

``python benchmarks/induced.py`` measures all sections, or those that are named, and writes ``results/induced.json``,
``results/induced.md`` and ``docs/images/induced.svg``. It takes some minutes. The cyclic method minimises exactly over one
``P_j`` after the other (a matrix geometric mean), from the scaling of Gatmiry et al., Lemma 4; it is stopped once its value is
within a relative 1e-10 of the minimum, which it is told. Newton's method is told nothing and runs until its certificate has
closed to 1e-12.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from harness import RESULTS, environment
from matplotlib.figure import Figure

import balancedfact as bf
from balancedfact._files import write_picture

MOST_SWEEPS = 6000


class Cyclic:
    """The plain method, on ``M = hi @ lo`` with the singular values shared equally."""

    def __init__(self, M: np.ndarray, A: bf.measurements.MeasurementMap, depth: int) -> None:
        (d1, d2), self.depth, self.m = M.shape, depth, A.m
        U, s, Vt = np.linalg.svd(M, full_matrices=False)
        r = int(np.count_nonzero(s > 1e-12 * s[0]))
        hi, lo = U[:, :r] * np.sqrt(s[:r]), np.sqrt(s[:r, None]) * Vt[:r]
        self.first, self.last = hi.T @ A.left_moment(np.eye(d2)) @ hi, lo @ A.right_moment(np.eye(d1)) @ lo.T
        K = A.rotated(hi, lo.T).transpose(0, 2, 1)
        # One r^2 x r^2 matrix: sum_i K_i[a, b] K_i[c, d] at (a c, b d).
        self.map = np.einsum("iab,icd->acbd", K, K, optimize=True).reshape(r * r, r * r)
        nuclear = s[:r].sum()
        alpha, end = (nuclear / np.sqrt(d1 * d2)) ** (1 / depth), (d1 / d2) ** 0.25
        scales = [alpha ** (j - 1) * alpha ** (-(depth - 2) / 2) / end for j in range(1, depth)]
        self.P = [scale**2 * np.eye(r) for scale in scales]

    def forward(self, Q: np.ndarray) -> np.ndarray:
        return (self.map @ Q.ravel()).reshape(Q.shape)

    def backward(self, P: np.ndarray) -> np.ndarray:
        return (P.ravel() @ self.map).reshape(P.shape)

    def value(self) -> float:
        total = np.vdot(np.linalg.inv(self.P[0]), self.first) + np.vdot(self.P[-1], self.last)
        for before, after in zip(self.P[:-1], self.P[1:], strict=True):
            total += np.vdot(before, self.forward(np.linalg.inv(after)))
        return 2 / self.m * float(total)

    def sweep(self) -> None:
        N = self.depth - 1
        for j in range(N):
            X = self.forward(np.linalg.inv(self.P[j + 1])) if j < N - 1 else self.last
            Y = self.backward(self.P[j - 1]) if j else self.first
            self.P[j] = geometric_mean(X, Y)


def geometric_mean(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """The minimiser of ``tr(P X) + tr(inv(P) Y)``."""
    values, vectors = np.linalg.eigh((X + X.T) / 2)
    root, inverse = (vectors * np.sqrt(values)) @ vectors.T, (vectors / np.sqrt(values)) @ vectors.T
    middle, frame = np.linalg.eigh(root @ ((Y + Y.T) / 2) @ root)
    return inverse @ (frame * np.sqrt(np.maximum(middle, 0))) @ frame.T @ inverse


def measure(d: int, m: int, depth: int, condition: float = 1.0, most: int | None = MOST_SWEEPS) -> dict[str, float]:
    """One problem: Gaussian measurements of a Gaussian matrix, or of one with singular values spaced evenly in the logarithm.

    The cyclic method makes `most` sweeps at the most; it is left out where that is ``None``.
    """
    rng = np.random.default_rng(0)
    A, M = bf.measurements.gaussian(m, (d, d), rng), rng.standard_normal((d, d))
    if condition > 1:
        U, _, Vt = np.linalg.svd(M)
        M = (U * np.geomspace(1, 1 / condition, d)) @ Vt
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        solution = bf.induced_regularizer(M, A, depth)
        seconds.append(time.perf_counter() - start)
    row: dict[str, float] = {"d": d, "m": m, "L": depth, "cond": condition}
    row |= {"Newton steps": solution.history["gap"].size - 1, "inner": int(solution.history["inner"].sum())}
    row |= {"seconds": min(seconds), "of which iterating": float(solution.history["seconds"][-1])}
    row |= {"gap": solution.certificate.gap}
    if most is not None:
        plain = Cyclic(M, A, depth)
        row["start above"] = plain.value() / solution.value - 1
        sweeps, busy = 0, 0.0
        while plain.value() > solution.value * (1 + 1e-10) and sweeps < most:
            start = time.perf_counter()
            plain.sweep()
            busy += time.perf_counter() - start
            sweeps += 1
        row |= {"cyclic sweeps": sweeps, "cyclic seconds": busy} if most else {}
    return row


def isometry(d: int, m: int) -> float:
    """A lower bound on the isometry constant of the measurements at rank one, by alternating eigenvectors from a few starts."""
    rng = np.random.default_rng(0)
    A = bf.measurements.gaussian(m, (d, d), rng)
    worst = 0.0
    for k, end in [(0, 0), (1, -1), (2, 0), (3, -1)]:
        v = np.random.default_rng(k).standard_normal(d)
        for _ in range(60):
            v /= np.linalg.norm(v)
            u = np.linalg.eigh(A.left_moment(np.outer(v, v)))[1][:, -1 if end == 0 else 0]
            values, vectors = np.linalg.eigh(A.right_moment(np.outer(u, u)) / m)
            v = vectors[:, -1 if end == 0 else 0]
        worst = max(worst, abs(values[-1 if end == 0 else 0] - 1))
    return worst


def table(rows: list[dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---:|" * len(names)]
    for row in rows:
        cells = [row.get(name, "") for name in names]
        lines.append("| " + " | ".join(f"{x:.3g}" if isinstance(x, float) else f"{x}" for x in cells) + " |")
    return "\n".join(lines) + "\n"


def picture(rows: list[dict[str, float]], path: Path) -> None:
    depths = [row["L"] for row in rows]
    with bf.plots.style():
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.loglog(depths, [row["cyclic sweeps"] for row in rows], "o-", label="cyclic sweeps, to 1e-10")
        axes.loglog(depths, [row["Newton steps"] for row in rows], "s-", label="Newton steps, to 1e-12")
        axes.set(xlabel="depth", ylabel="iterations", title="10 x 10 matrix, 60 Gaussian measurements")
        axes.legend()
        write_picture(path, figure, title="Iterations against depth", source="benchmarks/results/induced.json")


def starts() -> list[dict[str, float]]:
    """How far Lemma 4's layers are above the minimum, beside what a restricted isometry promises."""
    found = []
    for d, m in [(20, 200), (30, 300), (60, 600), (60, 1200)]:
        rows = [measure(d, m, depth, most=0) for depth in (3, 10)]
        delta = isometry(d, m)
        above = {f"start above, L = {row['L']:.0f}": row["start above"] for row in rows}
        promised = 2 * delta / (1 - delta) if delta < 1 else np.inf
        found.append({"d": d, "m": m, "isometry constant at least": delta, "promised at best": promised} | above)
    return found


SECTIONS = {
    "depth": lambda: [measure(10, 60, depth) for depth in (3, 5, 10, 20, 50, 100)],
    "depth, larger matrices": lambda: [measure(30, 300, depth) for depth in (3, 10, 30)],
    "rank": lambda: [measure(d, 10 * d, 10) for d in (5, 10, 20, 40, 60)],
    "conditioning": lambda: [measure(20, 200, 10, condition) for condition in (1e2, 1e4, 1e8)],
    "few measurements": lambda: [measure(20, m, 10) for m in (1, 2, 5, 20, 100)],
    "published size": lambda: [measure(60, 600, depth, most=None) for depth in (2, 3, 10, 100)],
    "isotropic start": starts,
}


def main() -> None:
    path = RESULTS / "induced.json"
    RESULTS.mkdir(exist_ok=True)
    content = json.loads(path.read_text()) if path.exists() else {"task": "induced", "sections": {}}
    for name in sys.argv[1:] or SECTIONS:
        print(f"induced: {name} ...", file=sys.stderr, flush=True)
        content["sections"][name] = SECTIONS[name]()
        print(table(content["sections"][name]), flush=True)
    content["environment"] = environment()
    path.write_text(json.dumps(content, indent=2) + "\n")
    shown = [(name, content["sections"][name]) for name in SECTIONS if name in content["sections"]]
    (RESULTS / "induced.md").write_text("\n".join(f"**{name.capitalize()}**\n\n{table(rows)}" for name, rows in shown))
    if "depth" in content["sections"]:
        picture(content["sections"]["depth"], Path(__file__).parent.parent / "docs" / "images" / "induced.svg")


if __name__ == "__main__":
    main()
