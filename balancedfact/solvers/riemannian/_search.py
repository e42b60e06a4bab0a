"""A search with one of pymanopt's optimizers: history, limits, escapes from saddles, and a solution with a certificate."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.iteration._limits import Stopped, check_time
from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.riemannian._tangent_spectrum import Curvature, extreme_curvature

# A curvature counts as negative below minus this, relative to the largest: rounding, and flat directions of symmetries.
_FLAT = 1e-7
# The same where the Hessian is a difference of gradients.
_FLAT_DIFFERENCES = 1e-5
# Relative gap to a bound at which a result counts as proved.
CLOSED = 1e-9
# Lanczos steps for the scale of a problem, and for the certificate.
_SCALE_STEPS, _CERTIFICATE_STEPS = 6, 150
# Trust regions that propose this many points in a row without accepting one have reached rounding error.
_REJECTIONS = 25
# A descent ends when this many accepted points neither lower the value nor halve the gradient.
_IDLE = 12
# Values closer than this, relatively, are equal to rounding.
_EQUAL_VALUES = 1e-13
# The scale of the gradient is computed anew when the point has grown this much.
_GROWTH = 8.0
# Below this fraction of the largest, a singular value of a pair says that the search ran into the edge of the manifold.
_EDGE_VALUE = 1e-4
# A search goes on from there a second time if it has fallen by more than this since, relative to the whole search.
_FAR_DOWN = 1e-6


def parts_of(point: Any) -> list[np.ndarray]:
    """The arrays that make up a point."""
    return list(point) if isinstance(point, (list, tuple)) else [point]


def _norm(point: Any) -> float:
    return float(np.sqrt(sum(np.vdot(part, part) for part in parts_of(point))))


_GRADIENT, _RESCALE, _SPENT = "the gradient is small", "the scale has changed", "the limit on iterations was reached"


class _Reached(Exception):
    """There is a reason to leave the optimizer."""


class Search:
    """One search. To the optimizer it is the problem: cost and derivatives pass through it and are recorded."""

    def __init__(
        self,
        problem: Any,
        tol: float,
        limit: int,
        log: Log,
        units: float = 1.0,
    ) -> None:
        self.problem, self.manifold, self.preconditioner = problem, problem.manifold, problem.preconditioner
        self.tol, self.limit, self.log, self.units = tol, limit, log, units
        self._hessian, self.flat = problem.riemannian_hessian, _FLAT
        self.points = 0
        self.products = self.escapes = self.idle = self.rejected = 0
        self.patience = 0  # rejected points in a row that end a descent; 0: any number is allowed
        self.scale = 1.0
        self.size = self.extent = self.spread = 0.0
        self.stretch = 0.0
        self.second_order = True  # whether saddles are looked for
        self.first = self.crossed = np.inf  # the value at the start, and where the edge of the manifold was last looked at
        self.point: Any = None
        self.value = self.gradient_norm = np.inf
        self.best: tuple[Any, float, float] = (None, np.inf, np.inf)  # the lowest point, and the flattest at that level
        self.descending = False
        self.examined = np.inf  # the norm of the point that set the scale
        self.seen: tuple[Any, float] = (None, np.inf)  # the newest point whose cost was computed
        self.curvature: Curvature | None = None
        self.reason = ""

    def resume(self, before: Search) -> None:
        """Count on from an earlier search of the same solve."""
        self.products, self.escapes = before.products, before.escapes

    # The problem, as the optimizer sees it.

    def cost(self, point: Any) -> float:
        self.rejected += 1
        if self.patience and self.rejected > self.patience:
            raise _Reached("no step lowers the value any more")
        self.seen = point, float(self.problem.cost(point))
        return self.seen[1] / self.scale

    def riemannian_gradient(self, point: Any) -> Any:
        self.rejected = 0
        gradient = self.problem.riemannian_gradient(point)
        norm = float(self.manifold.norm(point, gradient))
        value = self.seen[1] if self.seen[0] is point else float(self.problem.cost(point))
        self.point, self.value, self.gradient_norm = point, value, norm
        noise = _EQUAL_VALUES * abs(self.best[1])
        lower, level = value < self.best[1] - noise, value <= self.best[1] + noise
        self.idle = 0 if lower or (level and norm < 0.5 * self.best[2]) else self.idle + 1
        if lower or (level and norm < self.best[2]):
            self.best = point, value, norm
        self._record()
        size = _norm(point)
        self.extent, self.spread = max(self.extent, size), max(self.spread, self._pair_size(point))
        if not np.isfinite(norm) or not np.isfinite(value):
            raise _Reached("the cost or its gradient is not finite")
        if norm <= 0.5 * self.tol * self.scale:  # half, because the scale will be looked at again
            raise _Reached(_GRADIENT)
        if self.points >= self.limit:
            raise _Reached(_SPENT)
        if self.idle >= _IDLE:
            raise _Reached("neither value nor gradient fall any more")
        if self.descending and size > _GROWTH * self.examined:
            raise _Reached(_RESCALE)
        return gradient / self.scale

    def riemannian_hessian(self, point: Any, vector: Any) -> Any:
        return self._product(point, vector) / self.scale

    # The search.

    def run(self, point: Any, optimizer: Any = None) -> None:
        """Descend, examine, escape, until a point is a minimum to second order or nothing helps."""
        try:
            self._run(point, optimizer)
        except (KeyboardInterrupt, Stopped):
            if self.point is None:
                self.point, self.value = point, float(self.problem.cost(point))
            elif self.best[1] < self.value:
                self.point, self.value, self.gradient_norm = self.best
            raise

    def _run(self, point: Any, optimizer: Any) -> None:
        self._look(point)
        self.first = self.value
        if not np.isfinite(self.gradient_norm) or not np.isfinite(self.value):
            return
        self._examine(_SCALE_STEPS)
        while True:
            if not self._small():
                before = self.gradient_norm / self.scale
                self._descend(optimizer)
                self._examine(_SCALE_STEPS)
                # A gradient that is small on the old scale may not be on the new one; then the descent goes on.
                fell = self.gradient_norm < before * self.scale
                if not self._small() and (self.reason == _RESCALE or (self.reason == _GRADIENT and fell)):
                    continue
            if not self.second_order:
                return
            self._certify()
            if self.points >= self.limit:
                return
            if not self._escape(self.point, self.curvature) and not self._cross():
                return

    def _pair_size(self, point: Any) -> float:
        """The norm of the pair that a point stands for, or of the point itself."""
        pair = getattr(self.manifold, "pair", None)
        return _norm(point) if pair is None else _norm(pair(point))

    def _small(self) -> bool:
        return self.gradient_norm <= self.tol * self.scale

    def _look(self, point: Any) -> None:
        """Compute value and gradient at a point that no optimizer has proposed."""
        self.seen = None, np.inf
        try:
            self.riemannian_gradient(point)
        except _Reached as reason:
            self.reason = str(reason)

    def _examine(self, steps: int) -> None:
        """The curvature at the current point, and from it the scale of the gradient."""
        # A search that runs into zero keeps a scale.
        if not self.stretch:
            # How far a unit of the metric moves the numbers of the point, in some direction.
            direction = self.manifold.random_tangent_vector(self.point)
            self.stretch = _norm(self.manifold.embedding(self.point, direction)) or 1.0
        self.examined = _norm(self.point)
        self.size = max(self.examined, _EDGE_VALUE * self.extent) / self.stretch or 1.0
        self.curvature = self._curvature(self.point, steps)
        self.scale = (self.curvature.largest * self.size) or self.gradient_norm or 1.0

    def _certify(self) -> None:
        """The curvature, by the steps of the certificate; the scale too, unless a preconditioner has another metric."""
        if self._preconditioned:
            self.curvature = self._curvature(self.point, _CERTIFICATE_STEPS, self.preconditioner)
        else:
            self._examine(_CERTIFICATE_STEPS)

    @property
    def _preconditioned(self) -> bool:
        """Tell whether there is a preconditioner; pymanopt's own returns what it is given."""
        vector = self.manifold.zero_vector(self.point)
        return self.preconditioner(self.point, vector) is not vector

    def _curvature(self, point: Any, steps: int, preconditioner: Any = None) -> Curvature:
        return extreme_curvature(
            self.manifold, point, self._product, steps=steps, flat=self.flat, preconditioner=preconditioner
        )

    def _descend(self, optimizer: Any) -> None:
        from pymanopt.optimizers import TrustRegions

        self.idle = self.rejected = 0
        self.best = self.point, self.value, self.gradient_norm
        radii: dict[str, float] = {}
        if optimizer is None:
            # Only the limits of this class end the run: pymanopt's are in absolute units.
            # Inner iterations to the square of the gradient, the default, end in rounding errors, which curve along symmetries.
            optimizer = TrustRegions(
                theta=0.5, verbosity=0, max_time=np.inf, max_iterations=sys.maxsize, min_gradient_norm=0.0, min_step_size=0.0
            )
            radii = {"Delta_bar": np.inf, "Delta0": self._length() * (0.5 * self.extent / self.stretch) or 1.0}
        trust = isinstance(optimizer, TrustRegions)
        # Without `mininner` a residual that the first inner iteration makes zero is divided by.
        arguments = {"mininner": 0, **radii} if trust else {}
        self.patience = _REJECTIONS if trust else 0
        self.descending = True
        try:
            result = optimizer.run(self, initial_point=self.point, **arguments)
        except _Reached as reason:
            self.reason = str(reason)
        else:
            self._look(result.point)
            self.reason = f"{optimizer}: {result.stopping_criterion}"
        finally:
            self.patience, self.descending = 0, False
        if self.reason not in (_GRADIENT, _RESCALE):
            self.point, self.value, self.gradient_norm = self.best

    def _length(self) -> float:
        """The length of a first step of norm one in the metric of the inverse preconditioner, that of the trust region."""
        if not self._preconditioned:
            return 1.0
        vector = self.problem.riemannian_gradient(self.point)
        image = self.preconditioner(self.point, vector)
        square = float(self.manifold.inner_product(self.point, vector, image))
        return float(np.sqrt(max(square, 0.0)) / (self.manifold.norm(self.point, image) or 1.0)) or 1.0

    def _escape(self, start: Any, curvature: Curvature | None) -> bool:
        """Move from `start` along its negative curvature to a point below the current one; whether one was found."""
        if curvature is None or curvature.direction is None:
            return False

        def trial(length: float) -> tuple[float, Any]:
            points = [self.manifold.retraction(start, sign * length * curvature.direction) for sign in (1.0, -1.0)]
            values = [float(self.problem.cost(point)) for point in points]
            return min(values), points[int(np.argmin(values))]

        length = 0.1 * self.size
        best = trial(length)
        while not best[0] < self.value:
            length /= 4
            if length < 1e-9 * self.size:
                self.reason = "no step along the negative curvature lowers the value"
                return False
            best = trial(length)
        while (longer := trial(2 * length))[0] < best[0]:
            best, length = longer, 2 * length
        self.escapes += 1
        self._look(best[1])
        return True

    def _cross(self) -> bool:
        """Look past the edge of the manifold, where a pair loses rank; whether a lower point was found there.

        Sheets of the balanced pairs meet at such an edge, square pairs of different sign of the determinant for example. A
        search that runs into it sees a minimum of its own sheet, and only the edge itself sees what lies on the others. Triples
        have local minima there, from which columns are turned. A second look is worth its while only if the first led far.
        """
        manifold, small = self.manifold, _EDGE_VALUE * (self.spread or self.extent)
        if not self.crossed - self.value > _FAR_DOWN * (self.first - self.value):
            return False
        self.crossed = self.value
        if hasattr(manifold, "turned"):
            for there in manifold.turned(self.point, small, self.problem.riemannian_gradient):
                if float(self.problem.cost(there)) < self.value - _EQUAL_VALUES * abs(self.value):
                    self.escapes += 1
                    self._look(there)
                    return True
        edge = manifold.edge(self.point, small) if hasattr(manifold, "edge") else None
        return edge is not None and self._escape(edge, self._curvature(edge, _CERTIFICATE_STEPS))

    def _product(self, point: Any, vector: Any) -> Any:
        self.products += 1
        check_time()
        try:
            return self._hessian(point, vector)
        except NotImplementedError:  # of the cost or of the manifold; neither says so before it is called
            self._hessian, self.flat = _gradient_differences(self.problem), _FLAT_DIFFERENCES
            return self._hessian(point, vector)

    def _record(self) -> None:
        self.points += 1
        record = {
            "value": self.units * self.value,
            "stationarity": self.gradient_norm / self.scale,
            "hessian_products": float(self.products),
            "escapes": float(self.escapes),
        }
        line = f"value {record['value']:.6g}  gradient {record['stationarity']:.1e}  escapes {self.escapes}"
        self.log.write(line, record)

    # What was found.

    @property
    def stationarity(self) -> float:
        return self.gradient_norm / self.scale if self.gradient_norm > 0 else 0.0

    def verdict(self) -> tuple[Status, str]:
        """The status and its sentence."""
        if self.log.ended is not None:
            return self.log.ended
        if self.curvature is None:
            return Status.GAP_OPEN, f"Nothing to start from: {self.reason}."
        found = f"relative gradient {self.stationarity:.1e}, smallest relative curvature {self.curvature.ratio:.1e}"
        spent = self.points >= self.limit
        stopped, reason = (Status.LIMIT, _SPENT) if spent else (Status.GAP_OPEN, self.reason)
        if self.curvature.ratio < -self.flat:
            return stopped, f"Stopped at a saddle ({found}): {reason}."
        if self._small():
            return Status.STATIONARY, f"A local minimum to second order: {found}."
        return stopped, f"Not stationary ({found}): {reason}."

    def certificate(self) -> Certificate:
        residual = getattr(self.manifold, "residual", None)
        feasibility = float(residual(self.point)) if residual else 0.0
        curvature = np.nan if self.curvature is None or self.log.ended else self.curvature.ratio
        return Certificate(
            feasibility,
            stationarity=self.stationarity,
            balance=feasibility if _are_pairs(self.manifold) else np.nan,
            curvature=curvature,
            proof="no bound: gradient and smallest eigenvalue that Lanczos found of the Riemannian Hessian are evidence",
        )

    def solution(self) -> Solution:
        status, message = self.verdict()
        parts = parts_of(self.point)
        layers = [parts[1].T.copy(), parts[0]] if _are_pairs(self.manifold) else parts
        return Solution(layers, self.value, status, message, self.certificate(), self.log.history, "riemannian")


def _are_pairs(manifold: Any) -> bool:
    from balancedfact.manifolds import BalancedPairs

    return isinstance(manifold, BalancedPairs)


def _gradient_differences(problem: Any) -> Callable[[Any, Any], Any]:
    """Central differences of the Riemannian gradient, in place of a Hessian."""
    manifold = problem.manifold

    def product(point: Any, vector: Any) -> Any:
        if not float(manifold.norm(point, vector)) > 0:
            return vector
        step = 6e-6 * (_norm(point) or 1.0) / _norm(manifold.embedding(point, vector))
        ends = []
        for sign in (1.0, -1.0):
            there = manifold.retraction(point, sign * step * vector)
            ends.append(manifold.transport(there, point, problem.riemannian_gradient(there)))
        return (ends[0] - ends[1]) / (2 * step)

    return product
