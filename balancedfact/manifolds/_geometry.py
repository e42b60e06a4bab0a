"""Properties of the geometry: projection, metric, retraction, exponential map, transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pymanopt.manifolds.manifold import Manifold, RetrAsExpMixin

from balancedfact.manifolds._findings import STEPS, Finding, deviation, order_of
from balancedfact.manifolds._probe import Probe, flat


class Missing(Exception):
    """An optional method is not there."""


class Geometry(Probe):
    """The properties of a manifold that need no cost."""

    def _dimension(self) -> Finding:
        rank = self.basis.shape[1]
        return Finding(rank == self.manifold.dim, float(rank), f"= {self.manifold.dim}, the dimension; this is the rank")

    def _idempotent(self) -> float:
        return deviation(self.images @ self.images, self.images)

    def _self_adjoint(self) -> float:
        a, b = self.generator.standard_normal((2, self.size))
        # In the metric or in the Euclidean inner product: not every inner product makes sense for ambient vectors.
        euclidean = deviation(self.images, self.images.T)
        try:
            left = self.manifold.inner_product(self.x, self._project(a), self._ambient(b))
            right = self.manifold.inner_product(self.x, self._ambient(a), self._project(b))
        except Exception:  # it need not take ambient vectors at all
            return euclidean
        return min(euclidean, abs(left - right) / (abs(left) + abs(right) + 1e-3))

    def _to_tangent_space(self) -> float:
        vector = self._tangent()
        return deviation(self._numbers(self.manifold.to_tangent_space(self.x, vector)), self._numbers(vector))

    def _random_tangent_vector(self) -> float:
        vector = self.manifold.random_tangent_vector(self.x)
        numbers = self._numbers(vector)
        if self.basis.shape[1] and not np.linalg.norm(numbers) > 0:
            raise ValueError("a random tangent vector is zero or not finite")
        return deviation(self.images @ numbers, numbers)

    def _zero_vector(self) -> float:
        return float(np.abs(self._numbers(self.manifold.zero_vector(self.x))).max())

    def _arithmetic(self) -> float:
        a, b = self._tangent(), self.manifold.random_tangent_vector(self.x)
        x, y = self._numbers(a), self._numbers(b)
        found = [a + b, a - b, -a, 2.0 * a, b * np.float64(3.0), np.float64(0.5) * b, a / 4.0]
        expected = [x + y, x - y, -x, 2 * x, 3 * y, y / 2, x / 4]
        return max(deviation(self._numbers(one), other) for one, other in zip(found, expected, strict=True))

    def _gram(self) -> np.ndarray:
        vectors = [self._project(column) for column in self.basis.T]
        return np.array([[self.manifold.inner_product(self.x, a, b) for a in vectors] for b in vectors])

    def _symmetric(self) -> float:
        gram = self._gram()
        return deviation(gram, gram.T)

    def _positive(self) -> Finding:
        values = np.linalg.eigvalsh(self._gram())
        least = float(values.min(initial=np.inf) / np.abs(values).max(initial=1e-300))
        return Finding(least > 0, least, "> 0, least over largest eigenvalue")

    def _norm(self) -> float:
        vector = 3.0 * self._tangent()
        square = self.manifold.inner_product(self.x, vector, vector)
        return abs(self.manifold.norm(self.x, vector) ** 2 - square) / abs(square)

    def _stays(self) -> float:
        """The velocity of a retraction curve is tangent where the curve has arrived, and the residual vanishes there."""
        vector = self._tangent()
        length, h, worst = 0.3 * self._reach(), 1e-4, deviation(flat(self._retract(0.0 * vector)), flat(self.x))
        y = self._retract(length * vector)
        ahead, behind = (flat(self._retract(length * (1 + shift) * vector)) for shift in (h, -h))
        far_ahead, far_behind = (flat(self._retract(length * (1 + shift) * vector)) for shift in (2 * h, -2 * h))
        residual = getattr(self.manifold, "residual", None)
        worst = max(worst, float(residual(y))) if residual else worst
        if self.quotient:
            return worst
        velocity = (8 * (ahead - behind) - (far_ahead - far_behind)) / (12 * h)
        # The velocity is a finite difference: two digits fewer are asked of it.
        return max(worst, 1e-2 * deviation(self._numbers(self._project(velocity, y), y), velocity))

    def _first_order(self) -> Finding:
        vector = self._tangent()
        x, v = flat(self.x), self._numbers(vector)
        errors = [np.linalg.norm(flat(self._retract(t * vector)) - x - t * v) for t in self._reach() * STEPS]
        return order_of(errors, 2, float(np.linalg.norm(x)))

    def _own_exponential(self) -> Callable[[Any, Any], Any] | None:
        method = type(self.manifold).exp
        if method is RetrAsExpMixin.exp or method is Manifold.exp:
            return None
        try:
            self.manifold.exp(self.x, 0.0 * self._tangent())
        except NotImplementedError:
            return None
        return self.manifold.exp

    def _exponential(self) -> Finding:
        exp = self._own_exponential()
        if exp is None:
            raise Missing("no exponential map of its own")
        vector = self._tangent()
        x, v = flat(self.x), self._numbers(vector)
        errors = [np.linalg.norm(flat(exp(self.x, t * vector)) - x - t * v) for t in self._reach() * STEPS]
        return order_of(errors, 2, float(np.linalg.norm(x)))

    def _transport(self) -> float:
        vector, direction = self._tangent(), self._tangent()
        y = self._retract(0.3 * self._reach() * direction)
        moved = self.manifold.transport(self.x, y, vector)
        numbers = self._numbers(moved, y)
        tangent = deviation(self._numbers(self._project(numbers, y), y), numbers)
        twice = self._numbers(self.manifold.transport(self.x, y, 2.0 * vector + direction), y)
        linear = deviation(twice, 2 * numbers + self._numbers(self.manifold.transport(self.x, y, direction), y))
        rest = deviation(self._numbers(self.manifold.transport(self.x, self.x, vector)), self._numbers(vector))
        return max(tangent, linear, rest)
