"""A manifold at one point, with its vectors as flat arrays: what every property of the conformance check is measured on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from pymanopt.manifolds.manifold import Manifold

from balancedfact.manifolds._findings import Finding, deviation
from balancedfact.manifolds._product import TangentVector


class Cost(NamedTuple):
    """A smooth function for `check_manifold`, with its derivatives in the ambient space.

    All three functions take the point as pymanopt passes it to retractions, and vectors in the layout of points.

    Attributes
    ----------
    value : callable
        ``value(point)`` returns a number.
    gradient : callable
        ``gradient(point)`` returns the Euclidean gradient.
    hessian : callable
        ``hessian(point, vector)`` returns the derivative of the Euclidean gradient along a vector.

    See Also
    --------
    check_manifold : The check that takes one.

    References
    ----------
    Guide :doc:`/guide/own_manifold`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> from balancedfact.manifolds import Cost, ProductPoint
    >>> cost = Cost(
    ...     lambda pair: 0.5 * sum(float(np.vdot(part, part)) for part in pair),
    ...     lambda pair: ProductPoint([part.copy() for part in pair]),
    ...     lambda pair, direction: ProductPoint([part.copy() for part in direction]),
    ... )
    >>> bf.manifolds.check_manifold(bf.manifolds.BalancedPairs(3, 2, 2), rng=0, cost=cost).ok
    True
    """

    value: Callable[[Any], float]
    gradient: Callable[[Any], Any]
    hessian: Callable[[Any, Any], Any]


def flat(value: Any) -> np.ndarray:
    parts = value if isinstance(value, (list, tuple)) else [value]
    return np.concatenate([np.asarray(part, dtype=float).ravel() for part in parts])


class Probe:
    """The manifold under test, its point, and a basis of its tangent space."""

    def __init__(
        self, manifold: Manifold, generator: np.random.Generator, cost: Cost | None, point: Any, quotient: bool
    ) -> None:
        self.manifold, self.generator, self.cost, self.point, self.quotient = manifold, generator, cost, point, quotient

    # Vectors as flat arrays.

    def _ambient(self, numbers: np.ndarray) -> Any:
        """Numbers in the layout of a point, with vector arithmetic."""
        if not self.sequence:
            return numbers.reshape(self.shapes[0])
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        return TangentVector(part.reshape(shape) for part, shape in zip(np.split(numbers, ends), self.shapes, strict=True))

    def _numbers(self, vector: Any, point: Any = None) -> np.ndarray:
        numbers = flat(self.manifold.embedding(self.x if point is None else point, vector))
        if numbers.size != self.size:
            raise ValueError(f"an embedded tangent vector has {numbers.size} numbers; expected {self.size}, as a point has")
        return numbers

    def _project(self, numbers: np.ndarray, point: Any = None) -> Any:
        return self.manifold.projection(self.x if point is None else point, self._ambient(numbers))

    def _tangent(self) -> Any:
        """A random tangent vector with numbers of norm one."""
        numbers = self.basis @ self.generator.standard_normal(self.basis.shape[1])
        return self._project(numbers / (np.linalg.norm(numbers) or 1.0))

    # The point and its tangent space.

    def _random_point(self) -> float:
        self.x = self.manifold.random_point() if self.point is None else self.point
        self.sequence = isinstance(self.x, (list, tuple))
        self.shapes = [np.shape(part) for part in (self.x if self.sequence else [self.x])]
        self.size = sum(int(np.prod(shape)) for shape in self.shapes)
        layout = self.manifold.point_layout
        parts = len(layout) if isinstance(layout, (tuple, list)) else layout
        if len(self.shapes) != parts:
            raise ValueError(f"a point has {len(self.shapes)} parts; expected {parts} by point_layout")
        if not np.isfinite(flat(self.x)).all():
            raise ValueError("a random point has NaN or infinite values")
        embedded = self.manifold.embedding(self.x, self.manifold.zero_vector(self.x))
        parts_found = [np.shape(part) for part in (embedded if isinstance(embedded, (list, tuple)) else [embedded])]
        if parts_found != self.shapes:
            raise ValueError(
                f"embedded tangent vectors have shapes {parts_found}; this check needs {self.shapes}, as of a point"
            )
        residual = getattr(self.manifold, "residual", None)
        return float(residual(self.x)) if residual else 0.0

    def _tangent_space(self) -> Finding | float:
        images = np.stack([self._numbers(self._project(unit)) for unit in np.eye(self.size)], axis=1)
        if not np.isfinite(images).all():
            raise ValueError("projections have NaN or infinite values")
        U, s, _ = np.linalg.svd(images)
        self.images, self.basis = images, U[:, s > 1e-7 * max(s[0], 1e-300)]
        probe = self.generator.standard_normal(self.size)
        return deviation(self._numbers(self._project(probe)), images @ probe)  # linear

    def _reach(self) -> float:
        """A step that is moderate on the scale of the point."""
        return max(1e-3, float(np.linalg.norm(flat(self.x))) / np.sqrt(self.size))

    def _retract(self, vector: Any) -> Any:
        return self.manifold.retraction(self.x, vector)
