"""The way from the user's problem to the normalised convex one, and back to a solution with its certificate."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from scipy.sparse.linalg import aslinearoperator

from balancedfact._linalg import frobenius, magnitude
from balancedfact._objective import Objective
from balancedfact.certification._contradiction import excluded_norm, proves_contradiction
from balancedfact.certification._pair import certify_pair
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._careful import careful_total
from balancedfact.solution import Certificate, Offsets
from balancedfact.solvers.nuclear._problem import NuclearProblem, OffsetTerms, Point, balanced

# Repeated measurements contradict one another when they differ by more than this, relative to their size.
_CONTRADICTION = 1e-9
# Multiplications up to which the rank of measurements that look dependent is revealed by QR.
_MOST_REVEALED = 5_000_000_000
# Beyond this many measurements their linear dependence is not examined.
MOST_DEPENDENT = 6000


class Contradiction(Exception):
    """The data are not the image of any matrix of nuclear norm up to `excluded_norm`.

    Carries a dual vector `y` with ``b.y > 0`` and ``A*(y)`` zero, or as small as that norm says.
    """

    def __init__(self, y: np.ndarray, excluded_norm: float) -> None:
        super().__init__("contradictory data")
        self.y, self.excluded_norm = y, excluded_norm


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
        self.b = b
        white = A.whitened() if flat else A.unwhitened()
        # The objective is 4 m nuclear(D1 X D2) with D1 X D2 = scale**2 Z, or 2 nuclear(X) with X = Z.
        self.weight = 4.0 * A.m if flat else 2.0
        self.unit = white.scale if flat else 1 / white.scale
        order = A.best_order
        self.kept = np.arange(A.m, dtype=np.int32 if A.m < 2**31 else np.int64)[order]
        self.weights = np.broadcast_to(1.0, A.m)
        map_, norms = white.map, white.map.row_norms
        largest = magnitude(norms)
        norms = norms[order] if penalty == 0 else np.zeros(0)
        if penalty == 0 and not norms.any() and np.any(b):  # every measurement is by the zero matrix
            self._contradict({int(np.argmax(np.abs(b))): 1.0})
        if norms.any():
            # Where all that is seen is known to be, only a zero matrix measures nothing; else what is left may be rounding.
            heavy = norms > (1e-13 * norms.max() if flat and A.uncertain else 0.0)
            self.kept, self.weights = self.kept[heavy], 1 / norms[heavy]
            self.kept, self.weights = self._independent(map_.select(self.kept, self.weights))
            map_ = map_.select(self.kept, self.weights)
        data = b[self.kept]
        if penalty == 0:
            data *= self.weights
        elif offset_penalty is not None:
            data -= self.mean * _measured_ones(A)[self.kept]
        self.level = magnitude(data)
        data /= self.level
        self.size = self.level / white.scale
        if penalty > 0:
            map_ = map_.select(self.kept, np.broadcast_to(1 / largest, A.m))
            self.size, self.unit = self.size / largest, self.unit / largest
        self.white = white._replace(map=map_)
        q = penalty * self.unit / self.level
        if not np.isfinite(q):
            raise ValueError(f"penalty is {penalty}; expected one whose ratio to the data is a number")
        terms = None if offset_penalty is None else self._offset_terms(offset_penalty, largest)
        self.problem = NuclearProblem(map_, data, q, terms)

    def _offset_terms(self, offset_penalty: float, largest: float) -> OffsetTerms:
        """Offsets ``alpha 1.T + 1 beta.T`` of `X` as ``a g.T + f c.T`` for `Z`, with ``alpha = size * left @ a``."""
        scaling = self.white.scale * largest
        sides = []
        for T in (self.white.left, self.white.right):  # which scale and select: one entry in a column
            entries = np.asarray(T.sum(axis=0)).ravel()
            sides.append((1 / entries, offset_penalty * (entries / scaling) ** 2))
        (f, left), (g, right) = sides
        if min(left.min(initial=np.inf), right.min(initial=np.inf)) < np.finfo(float).tiny:
            raise ValueError(f"offset_penalty is {offset_penalty}; expected one that does not vanish beside the measurements")
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
            error = np.abs(data - sign * data[first][group])
            j = int(np.argmax(error / np.maximum(np.maximum(np.abs(data), np.abs(data[first][group])), np.finfo(float).tiny)))
            if error[j] > _CONTRADICTION * max(abs(data[j]), abs(data[first[group[j]]])):
                one, other = int(kept[j]), int(kept[first[group[j]]])
                pair = self.A.as_entries().weights[[one, other]]
                pair = np.ldexp(pair, -np.frexp(magnitude(pair))[1])  # exact, so that the two cancel exactly
                self._contradict({one: float(pair[1]), other: -float(pair[0])})
            chosen = np.sort(first)
        elif unit.m <= MOST_DEPENDENT:
            gram = unit.gram
            factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(gram, tol=1e-13 * unit.m, lower=1)
            pivots = pivots - 1
            if rank == unit.m:
                chosen = pivots
            elif unit.m * min(unit.shape) * unit.m <= _MOST_REVEALED:
                chosen = self._revealed(unit, data)
            else:
                chosen, rest = pivots[:rank], pivots[rank:]
                lower = np.tril(factor[:rank, :rank])
                coefficients = scipy.linalg.cho_solve((lower, True), gram[np.ix_(chosen, rest)])
                self._compare(data, chosen, rest, coefficients, 0.0)
            chosen = np.sort(chosen)
        else:
            if unit.m > unit.shape[1]:  # more measurements than unknowns: what least squares leaves over is the contradiction
                fit = scipy.sparse.linalg.lsmr(aslinearoperator(unit), data, atol=1e-14, btol=1e-14, maxiter=1000)[0]
                error = data - unit.matvec(fit)
                if np.abs(error).max() > _CONTRADICTION * magnitude(data):
                    self._contradict(dict(zip(kept.tolist(), error * weights, strict=True)))
            return kept, weights
        return kept[chosen], weights[chosen]

    def _revealed(self, unit: MeasurementMap, data: np.ndarray) -> np.ndarray:
        """Independent measurements by a factorization that reveals the rank; their squares would lose half of the digits."""
        Q, R, pivots = scipy.linalg.qr(unit.stack().reshape(unit.m, -1).T, mode="economic", pivoting=True)
        steps = np.abs(np.diag(R))
        rank = int(np.count_nonzero(steps > 4 * max(R.shape) * np.finfo(float).eps * steps[0]))
        chosen, rest = pivots[:rank], pivots[rank:]
        coefficients = scipy.linalg.solve_triangular(R[:rank, :rank], R[:rank, rank:])
        least = scipy.linalg.solve_triangular(R[:rank, :rank], data[chosen], trans="T")  # the coordinates of the least fit
        self._compare(data, chosen, rest, coefficients, frobenius(least))
        return chosen

    def _compare(self, data: np.ndarray, chosen: np.ndarray, rest: np.ndarray, C: np.ndarray, size: float) -> None:
        """Look for data of `rest` that disagree with those of `chosen`, from which they follow with coefficients `C`."""
        if not rest.size:
            return
        floor = np.maximum(np.abs(data), 1e-3 * size)
        error = data[rest] - C.T @ data[chosen]
        allowed = _CONTRADICTION * (floor[rest] + np.abs(C).T @ floor[chosen])
        worst = np.abs(error) / np.where(allowed > 0, allowed, 1.0)
        j = int(np.argmax(worst))
        if worst[j] > 1:
            combination = dict(zip(self.kept[chosen].tolist(), -C[:, j] * self.weights[chosen], strict=True))
            self._contradict(combination | {int(self.kept[rest[j]]): self.weights[rest[j]]})

    def _contradict(self, combination: dict[int, float]) -> None:
        """Raise `Contradiction` if the combination proves one: if it excludes all matrices of any size that data suggest."""
        y = np.zeros(self.A.m)
        y[list(combination)] = list(combination.values())
        y = y if careful_total(self.b * y)[0] >= 0 else -y
        excluded = excluded_norm(self.A, self.b, y)
        if proves_contradiction(self.A, self.b, excluded):
            raise Contradiction(y, excluded)

    @property
    def objective(self) -> Objective:
        """The objective that is minimised."""
        return Objective("flat" if self.flat else "norm", self.penalty, self.offset_penalty)

    @cached_property
    def unseen(self) -> str:
        """A sentence on the directions that no measurement sees, empty if there are none."""
        return unseen_part(self.A, self.white.map.matrix_shape)

    def dual(self, y: np.ndarray) -> np.ndarray:
        """A dual vector of the normalised problem in the user's units."""
        full, scaled = np.zeros(self.A.m), self.weights * y
        scaled *= self.penalty if self.penalty > 0 else 1.0
        scaled *= self.unit
        full[self.kept] = scaled
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
        A = self.A
        d1, d2 = A.matrix_shape
        L, R = np.zeros((d1, 1)), np.zeros((d2, 1))
        stationarity = balance = 0.0
        if point is not None and point.s.size:
            root = np.sqrt(self.size)
            L, R = root * np.asarray(self.white.left @ point.L), root * np.asarray(self.white.right @ point.R)
            S = self.problem.map.adjoint_operator(y)
            stationarity = max(_deviation(S @ point.R, point.L), _deviation(S.T @ point.L, point.R))
            del S
            balance = _deviation(point.L.T @ point.L, point.R.T @ point.R)
        certificate = certify_pair(
            A,
            self.b,
            self.objective,
            (L, R),
            self.dual(y),
            rng=np.random.default_rng(0),
            offsets=self.offsets(point),
            known=point is not None,
            white=(self.white.left, self.white.right),
        )
        certificate = replace(certificate, stationarity=stationarity, balance=balance, proof=proof)
        return [R.T.copy(), L], certificate.value, certificate


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
    size = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found - expected)) / size if size > 0 else 0.0
