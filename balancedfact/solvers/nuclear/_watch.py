"""The judge's memory of a solve: the best point, the best dual vector, and whether the gap between them is closed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from balancedfact.certification._pair import FEASIBLE
from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.nuclear._problem import NuclearProblem, Point, Verdict

_UNSAID = np.zeros(0)  # the dual vector of a pair that is kept: the best one has a place of its own


class Watch:
    """Judges every point of a solve, keeps the best pair and the best dual vector, and tells when the gap is closed.

    `units` converts the objective of the normalised problem to that of the user. The watch aims at half the tolerance, so that
    rounding on the way back to the user's units cannot lift the gap above it.
    """

    def __init__(self, problem: NuclearProblem, units: float, tol: float, rng: np.random.Generator, log: Log) -> None:
        self.problem, self.units, self.tol, self.rng, self.log = problem, units, 0.5 * tol, rng, log
        self.method = ""
        self.point: Point | None = None
        self.value, self.residual = np.inf, np.inf
        self.lower, self.y, self.proof = -np.inf, np.zeros(problem.map.m), "no bound was computed"

    @property
    def feasible(self) -> bool:
        """Tell whether the best point fits the data as it must."""
        return self.problem.q > 0 or self.residual <= FEASIBLE

    @property
    def gap(self) -> float:
        """Relative gap between the best pair and the best dual vector; infinite until a pair fits."""
        return abs(self.value - self.lower) / self.value if self.feasible and self.value > 0 else np.inf

    @property
    def closed(self) -> bool:
        """Tell whether optimality is proved to the tolerance."""
        return self.gap <= self.tol

    def follow(self, points: Iterable[Point]) -> bool:
        """Judge the points of an algorithm until the gap is closed; whether it was."""
        for point in points:
            self.judge(point)
            del point  # while the next is sought
            if self.closed:
                return True
        return False

    def judge(self, point: Point) -> Verdict:
        """Judge one point, keep what is good of it, record it."""
        verdict = self.problem.judge(point, self.rng, accuracy=0.8 * self.tol)
        if self._better(verdict):
            self.point, self.value, self.residual = point._replace(y=_UNSAID), verdict.value, verdict.residual
        if verdict.lower > self.lower:
            self.lower, self.y, self.proof = verdict.lower, verdict.y, verdict.proof
        record = {
            "value": self.units * verdict.value,
            "lower_bound": self.units * self.lower,
            "gap": abs(verdict.value - self.lower) / verdict.value if verdict.value > 0 else np.nan,
            "feasibility": verdict.residual,
            "rank": float(point.s.size),
        }
        self.log.write(f"gap {record['gap']:.1e}  residual {verdict.residual:.1e}  rank {point.s.size}", record)
        return verdict

    def prefer(self, point: Point) -> bool:
        """Take a point of lower rank or better fit in place of the best one, if that does not open the gap; whether taken."""
        allowed = max(self.tol, 2 * self.gap)
        old = self.point, self.value, self.residual
        verdict = self.judge(point)
        self.point, self.value, self.residual = point._replace(y=_UNSAID), verdict.value, verdict.residual
        if self.gap <= allowed:
            return True
        self.point, self.value, self.residual = old
        return False

    def forget_pair(self) -> None:
        """Drop the best pair and keep the best dual vector."""
        self.point, self.value, self.residual = None, np.inf, np.inf

    def _better(self, verdict: Verdict) -> bool:
        if self.problem.q > 0:
            return verdict.value < self.value
        if verdict.residual <= FEASIBLE:
            return not self.feasible or verdict.value < self.value
        return verdict.residual < self.residual
