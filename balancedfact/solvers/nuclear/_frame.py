"""The way from the user's problem to the normalised convex one, and back to a solution with its certificate."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from scipy.sparse.linalg import aslinearoperator

from balancedfact._linalg import frobenius, magnitude
from balancedfact.curvature import scaled_trace
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Certificate, Offsets
from balancedfact.solvers.nuclear._problem import NuclearProblem, OffsetTerms, Point, balanced

# Repeated measurements contradict one another when they differ by more than this, relative to the largest datum.
_CONTRADICTION = 1e-9
# How well data that are to be interpolated must be fitted, relative to their norm.
FEASIBLE = 1e-10
# Beyond this many measurements their linear dependence is not examined.
MOST_DEPENDENT = 6000


class Contradiction(Exception):
    """The data are not the image of any matrix; carries a dual vector `y` with ``A*(y) = 0`` and ``b.y > 0``."""

    def __init__(self, y: np.ndarray) -> None:
        super().__init__("contradictory data")
        self.y = y


def unseen_part(A: MeasurementMap, seen: tuple[int, int]) -> str:
    """A sentence on what `A` does not see, when it sees a space of ``seen[0] x seen[1]`` matrices; empty if it sees all."""
    missing = [d - r for d, r in zip(A.matrix_shape, seen, strict=True)]
    if not any(missing):
        return ""
    names = ("row", "column") if A.of_entries else ("left direction", "right direction")
    parts = [f"{n} {name}{'s' * (n > 1)}" for n, name in zip(missing, names, strict=True) if n]
    return f" No measurement sees {' and '.join(parts)}: flatness says nothing there, and the solution is zero."


class Frame:
    """The normalised problem of a user's problem, and the way between the two.

    ``X = size * left @ Z @ right.T``. Measurements are divided by their norms when they are to be interpolated, and those that
    follow from others are left out; with a penalty both would change the objective, and all are divided by the largest norm.
    """

    def __init__(
        self, A: MeasurementMap, b: np.ndarray, penalty: float, *, flat: bool, offset_penalty: float | None = None
    ) -> None:
        self.A, self.penalty, self.flat, self.offset_penalty = A, penalty, flat, offset_penalty
        self.mean = 0.0 if offset_penalty is None else _mean(A, b)
        self.b = b if offset_penalty is None else b - self.mean * _measured_ones(A)
        b = self.b
        self.white = A.whitened() if flat else A.unwhitened()
        # The objective is 4 m nuclear(D1 X D2) with D1 X D2 = scale**2 Z, or 2 nuclear(X) with X = Z.
        self.weight = 4.0 * A.m if flat else 2.0
        self.unit = self.white.scale if flat else 1 / self.white.scale
        map_, self.kept, self.weights = self.white.map, np.arange(A.m)[A.best_order], np.ones(A.m)
        norms = map_.row_norms[A.best_order]
        if penalty == 0 and not norms.any() and np.any(b):  # every measurement is by the zero matrix
            self._contradict({int(np.argmax(np.abs(b))): 1.0})
        if penalty == 0 and norms.any():
            heavy = norms > 1e-13 * norms.max()
            self.kept, self.weights = self.kept[heavy], 1 / norms[heavy]
            self.kept, self.weights = self._independent(map_.select(self.kept, self.weights))
            map_ = map_.select(self.kept, self.weights)
        data = b[self.kept] * self.weights
        self.level = magnitude(data)
        self.size = self.level / self.white.scale
        if penalty > 0:
            largest = magnitude(norms)
            map_ = map_.select(self.kept, self.weights / largest)
            self.size, self.unit = self.size / largest, self.unit / largest
        terms = None if offset_penalty is None else self._offset_terms(offset_penalty, norms)
        self.problem = NuclearProblem(map_, data / self.level, penalty * self.unit / self.level, terms)

    def _offset_terms(self, offset_penalty: float, norms: np.ndarray) -> OffsetTerms:
        """Offsets ``alpha 1.T + 1 beta.T`` of `X` as ``a g.T + f c.T`` for `Z`, with ``alpha = size * left @ a``."""
        scaling = self.white.scale * magnitude(norms)
        sides = []
        for T in (self.white.left, self.white.right):  # which scale and select: one entry in a column
            entries = np.asarray(T.sum(axis=0)).ravel()
            sides.append((1 / entries, offset_penalty * (entries / scaling) ** 2))
        (f, left), (g, right) = sides
        return OffsetTerms(f, g, left, right)

    @property
    def units(self) -> float:
        """The user's objective per unit of the normalised one."""
        return self.level * self.unit * (self.penalty if self.penalty > 0 else self.weight)

    def _independent(self, unit: MeasurementMap) -> tuple[np.ndarray, np.ndarray]:
        """Measurements none of which follows from the others; raise `Contradiction` when one that follows disagrees."""
        kept, weights = self.kept, self.weights
        data = self.b[kept] * weights
        rest = np.abs(self.b)
        rest[kept] = 0.0
        if np.any(rest):  # a measurement by the zero matrix that is not zero
            self._contradict({int(np.argmax(rest)): 1.0})
        if unit.of_entries:
            entries = unit.as_entries()
            first, group = entries.places
            sign = entries.weights * entries.weights[first][group]  # weights are +1 or -1 here
            error = data - sign * data[first][group]
            j = int(np.argmax(np.abs(error)))
            if np.abs(error[j]) > _CONTRADICTION * magnitude(data):
                self._contradict({int(kept[j]): weights[j], int(kept[first[group[j]]]): -sign[j] * weights[first[group[j]]]})
            chosen = np.sort(first)
        elif unit.m <= MOST_DEPENDENT:
            gram = unit.gram
            factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(gram, tol=1e-13 * unit.m, lower=1)
            pivots = pivots - 1
            chosen, rest = pivots[:rank], pivots[rank:]
            if rest.size:
                lower = np.tril(factor[:rank, :rank])
                coefficients = scipy.linalg.cho_solve((lower, True), gram[np.ix_(chosen, rest)])
                error = data[rest] - coefficients.T @ data[chosen]
                j = int(np.argmax(np.abs(error)))
                if np.abs(error[j]) > _CONTRADICTION * magnitude(data):
                    combination = dict(zip(kept[chosen].tolist(), -coefficients[:, j] * weights[chosen], strict=True))
                    self._contradict(combination | {int(kept[rest[j]]): weights[rest[j]]})
            chosen = np.sort(chosen)
        else:
            if unit.m > unit.shape[1]:  # more measurements than unknowns: what least squares leaves over is the contradiction
                fit = scipy.sparse.linalg.lsmr(aslinearoperator(unit), data, atol=1e-14, btol=1e-14, maxiter=1000)[0]
                error = data - unit.matvec(fit)
                if np.abs(error).max() > _CONTRADICTION * magnitude(data):
                    self._contradict(dict(zip(kept.tolist(), error * weights, strict=True)))
            return kept, weights
        return kept[chosen], weights[chosen]

    def _contradict(self, combination: dict[int, float]) -> None:
        y = np.zeros(self.A.m)
        y[list(combination)] = list(combination.values())
        raise Contradiction(y * np.sign(float(self.b @ y)))

    @cached_property
    def unseen(self) -> str:
        """A sentence on the directions that no measurement sees, empty if there are none."""
        return unseen_part(self.A, self.white.map.matrix_shape)

    def dual(self, y: np.ndarray) -> np.ndarray:
        """A dual vector of the normalised problem in the user's units."""
        full = np.zeros(self.A.m)
        full[self.kept] = self.weights * y * (self.level * self.problem.q if self.penalty > 0 else self.unit)
        return full

    def normalised(self, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """A user's pair in the coordinates of the normalised problem; components that no measurement sees are dropped.

        A pair whose measurements are far from the data in size is scaled to them; ``None`` if they vanish.
        """
        a, c = magnitude(L), magnitude(R)
        L, R = L / a, R / c
        if self.flat:  # left = D1^-1 restricted to its range, so that left.T @ D1^2 is its pseudo-inverse
            L = self.A.rescale_left(self.A.rescale_left(L))
            R = self.A.rescale_right(self.A.rescale_right(R))
        L, R, s = balanced(np.asarray(self.white.left.T @ L), np.asarray(self.white.right.T @ R))
        keep = s > np.finfo(float).eps * s[0]
        L, R = L[:, keep], R[:, keep]
        fit = float(np.linalg.norm(self.problem.map.forward_factored(L, R)))
        if not fit > 0:
            return None
        factor, to_data = a * c / self.size, float(np.linalg.norm(self.problem.b)) / fit
        root = np.sqrt(factor if 0.1 < factor / to_data < 10 else to_data)
        return root * L, root * R

    def offsets(self, point: Point | None) -> Offsets | None:
        """The offsets of a point in the user's units, zero where no measurement sees a row or a column."""
        if self.offset_penalty is None:
            return None
        if point is None or point.offsets is None:
            return Offsets(self.mean, *(np.zeros(size) for size in self.A.matrix_shape))
        a, c = point.offsets
        return Offsets(self.mean, self.size * (self.white.left @ a), self.size * (self.white.right @ c))

    def certified(self, point: Point | None, y: np.ndarray, proof: str) -> tuple[list[np.ndarray], float, Certificate]:
        """The layers of a point (``None``: zero), their objective, and the certificate, computed from what is returned."""
        A, b = self.A, self.b
        d1, d2 = A.matrix_shape
        L, R = np.zeros((d1, 1)), np.zeros((d2, 1))
        stationarity = balance = 0.0
        if point is not None and point.s.size:
            root = np.sqrt(self.size)
            L, R = root * np.asarray(self.white.left @ point.L), root * np.asarray(self.white.right @ point.R)
            S = self.problem.map.adjoint_operator(y)
            stationarity = max(_deviation(S @ point.R, point.L), _deviation(S.T @ point.L, point.R))
            balance = _deviation(point.L.T @ point.L, point.R.T @ point.R)
        offsets = self.offsets(point)
        if offsets is None:
            error = A.forward_factored(L, R) - b
        else:
            rows, cols, (d1, d2) = offsets.rows, offsets.cols, A.matrix_shape
            error = A.forward_factored(np.column_stack([L, rows, np.ones(d1)]), np.column_stack([R, np.ones(d2), cols])) - b
        dual = self.dual(y)
        value = scaled_trace(L, R, A) if self.flat else frobenius(L) ** 2 + frobenius(R) ** 2
        if self.penalty > 0:
            value = 0.5 * frobenius(error) ** 2 + value * (self.penalty / self.weight)
            lower = float(b @ dual) - 0.5 * frobenius(dual) ** 2
            if offsets is not None and self.offset_penalty is not None:
                value += 0.5 * self.offset_penalty * (frobenius(offsets.rows) ** 2 + frobenius(offsets.cols) ** 2)
                S = A.adjoint_operator(dual)
                sums = frobenius(S @ np.ones(A.matrix_shape[1])) ** 2 + frobenius(S.T @ np.ones(A.matrix_shape[0])) ** 2
                lower -= sums / (2 * self.offset_penalty)
        else:
            lower = self.weight * float(b @ dual)
        feasibility = frobenius(error) / frobenius(b) if np.any(b) else 0.0
        gap = abs(value - lower) / value if value > 0 else 0.0
        if self.penalty == 0 and feasibility > 10 * FEASIBLE:
            gap = np.nan  # the value of a pair that does not fit is no upper bound
        return [R.T.copy(), L], value, Certificate(feasibility, lower, gap, dual, stationarity, balance, proof=proof)


def _measured_ones(A: MeasurementMap) -> np.ndarray:
    """The measurements of a matrix of ones."""
    return A.forward_factored(*(np.ones((size, 1)) for size in A.matrix_shape))


def _mean(A: MeasurementMap, b: np.ndarray) -> float:
    """The constant that fits the data best, without squares of extreme numbers."""
    ones = _measured_ones(A)
    size, weight = magnitude(b), magnitude(ones)
    ones = ones / weight
    square = float(ones @ ones)
    return float(ones @ (b / size)) / square * (size / weight) if square > 0 else 0.0


def _deviation(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
