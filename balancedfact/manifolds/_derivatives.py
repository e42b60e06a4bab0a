"""Properties of the derivatives that a manifold makes of Euclidean ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from balancedfact.manifolds._findings import EXACT, STEPS, Finding, deviation, order_of
from balancedfact.manifolds._geometry import Geometry, Missing
from balancedfact.manifolds._probe import Cost, flat


class Derivatives(Geometry):
    """The properties of the Riemannian gradient and Hessian of a cost."""

    def _smooth(self) -> Cost:
        if self.cost is not None:
            return self.cost
        rng, scale = np.random.default_rng(self.generator.integers(2**32)), self._reach()
        linear, curvature = rng.standard_normal((2, self.size))
        waves = rng.standard_normal((3, self.size)) / (scale * np.sqrt(self.size))

        def value(point: Any) -> float:
            y = flat(point)
            return float(linear @ y + curvature @ y**2 / (2 * scale) + scale * np.sin(waves @ y).sum())

        def gradient(point: Any) -> Any:
            y = flat(point)
            return self._ambient(linear + curvature * y / scale + scale * waves.T @ np.cos(waves @ y))

        def hessian(point: Any, vector: Any) -> Any:
            y, v = flat(point), flat(vector)
            return self._ambient(curvature * v / scale - scale * waves.T @ (np.sin(waves @ y) * (waves @ v)))

        return Cost(value, gradient, hessian)

    def _riemannian_gradient(self, cost: Cost) -> Any:
        return self.manifold.euclidean_to_riemannian_gradient(self.x, cost.gradient(self.x))

    def _riemannian_hessian(self, cost: Cost, vector: Any) -> Any:
        embedded = self.manifold.embedding(self.x, vector)
        return self.manifold.euclidean_to_riemannian_hessian(
            self.x, cost.gradient(self.x), cost.hessian(self.x, embedded), vector
        )

    def _gradient(self) -> float:
        """Check that it is tangent and that its inner products with tangent vectors are directional derivatives."""
        cost = self._smooth()
        gradient = self._riemannian_gradient(cost)
        numbers = self._numbers(gradient)
        slopes = self.basis.T @ flat(cost.gradient(self.x))
        found = [self.manifold.inner_product(self.x, gradient, self._project(column)) for column in self.basis.T]
        return max(deviation(self.images @ numbers, numbers), deviation(np.array(found), slopes))

    def _gradient_slope(self) -> Finding:
        cost, vector = self._smooth(), self._tangent()
        slope = self.manifold.inner_product(self.x, self._riemannian_gradient(cost), vector)
        start = cost.value(self.x)
        errors = [abs(cost.value(self._retract(t * vector)) - start - t * slope) for t in self._reach() * STEPS]
        return order_of(errors, 2, abs(start) + abs(slope) * self._reach())

    def _hessian_tangent(self) -> float:
        numbers = self._numbers(self._riemannian_hessian(self._smooth(), self._tangent()))
        return deviation(self.images @ numbers, numbers)

    def _hessian_symmetric(self) -> float:
        cost, a, b = self._smooth(), self._tangent(), self._tangent()
        Ha, Hb = self._riemannian_hessian(cost, a), self._riemannian_hessian(cost, b)
        product, norm = self.manifold.inner_product, self.manifold.norm
        size = norm(self.x, Ha) * norm(self.x, b) + norm(self.x, a) * norm(self.x, Hb)
        return abs(product(self.x, Ha, b) - product(self.x, a, Hb)) / (size or 1.0)

    def _hessian_critical(self) -> Finding:
        smooth = self._smooth()
        start = flat(smooth.gradient(self.x))
        tilt = self.basis @ (self.basis.T @ start)
        cost = Cost(
            lambda point: smooth.value(point) - float(tilt @ flat(point)),
            lambda point: self._ambient(flat(smooth.gradient(point)) - tilt),
            smooth.hessian,
        )
        return self._compare_hessian(cost, self._retract)

    def _hessian_curves(self) -> Finding:
        exp = self._own_exponential()
        if getattr(self.manifold, "second_order_retraction", False):
            return self._compare_hessian(self._smooth(), self._retract)
        if exp is None:
            raise Missing("the retraction does not claim second order and there is no exponential map")
        return self._compare_hessian(self._smooth(), lambda vector: exp(self.x, vector))

    def _second_order(self) -> Finding:
        """Compare with the exponential map to second order; without one, check that the acceleration is normal.

        The latter is for a metric that is inherited from the ambient space. For any other the Hessian decides.
        """
        exp, gram, x = self._own_exponential(), self._gram(), flat(self.x)
        if exp is None and deviation(gram, np.eye(len(gram))) > EXACT:
            return self._compare_hessian(self._smooth(), self._retract)
        vector = self._tangent()
        errors = []
        for t in self._reach() * STEPS:
            y = flat(self._retract(t * vector))
            rest = y - flat(exp(self.x, t * vector)) if exp else self.images @ (y - x - t * self._numbers(vector))
            errors.append(np.linalg.norm(rest))
        return order_of(errors, 3, float(np.linalg.norm(x)))

    def _compare_hessian(self, cost: Cost, curve: Callable[[Any], Any]) -> Finding:
        vector = self._tangent()
        second = self.manifold.inner_product(self.x, self._riemannian_hessian(cost, vector), vector)
        start = cost.value(self.x)
        errors = [
            abs(cost.value(curve(t * vector)) + cost.value(curve(-t * vector)) - 2 * start - t * t * second)
            for t in self._reach() * STEPS
        ]
        return order_of(errors, 4, abs(start) + float(np.linalg.norm(flat(cost.gradient(self.x)))) * self._reach())
