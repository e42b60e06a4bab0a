"""What the manifolds of layers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymanopt.manifolds.manifold import Manifold
from pymanopt.manifolds.product import _ProductTangentVector
from pymanopt.tools import ndarraySequenceMixin

from balancedfact._validate import as_rng

Layers = Sequence[np.ndarray]


class Point(ndarraySequenceMixin, list):
    """Layers ``[W_1, ..., W_L]``, `W_1` applied first."""


class TangentVector(_ProductTangentVector):
    """One matrix per layer, with the arithmetic that pymanopt's optimizers use."""


class LayerManifold(Manifold):
    """A set of layers ``[W_1, ..., W_L]`` with the Euclidean metric; subclasses supply the rest."""

    second_order_retraction = True

    def __init__(self, name: str, widths: list[int], dimension: int, rng: int | np.random.Generator | None) -> None:
        self.widths, self.depth = widths, len(widths) - 1
        self.shapes = list(zip(widths[1:], widths[:-1], strict=True))
        self._rng = None if rng is None else as_rng(rng)
        super().__init__(name, dimension, point_layout=(1,) * self.depth)

    def inner_product(self, point: Layers, tangent_vector_a: Layers, tangent_vector_b: Layers) -> float:
        """The Euclidean inner product, summed over the layers."""
        return float(sum(np.vdot(a, b) for a, b in zip(tangent_vector_a, tangent_vector_b, strict=True)))

    def norm(self, point: Layers, tangent_vector: Layers) -> float:
        """The norm of the inner product."""
        return float(np.linalg.norm([np.linalg.norm(part) for part in tangent_vector]))

    def dist(self, point_a: Layers, point_b: Layers) -> float:
        """Not available: the geodesic distance has no closed form."""
        raise NotImplementedError("the geodesic distance has no closed form")

    def zero_vector(self, point: Layers) -> TangentVector:
        """The zero of the tangent space."""
        return TangentVector(np.zeros(shape) for shape in self.shapes)

    def random_tangent_vector(self, point: Layers) -> TangentVector:
        """A random direction in the tangent space, of norm one: projected standard normal layers."""
        vector = self.projection(point, self._normal_layers(self._generator()))
        return vector / (self.norm(point, vector) or 1.0)

    def to_tangent_space(self, point: Layers, vector: Layers) -> TangentVector:
        """The same as `projection`."""
        return self.projection(point, vector)

    def transport(self, point_a: Layers, point_b: Layers, tangent_vector_a: Layers) -> TangentVector:
        """Vector transport by projection on the tangent space at `point_b`."""
        return self.projection(point_b, tangent_vector_a)

    def euclidean_to_riemannian_gradient(self, point: Layers, euclidean_gradient: Layers) -> TangentVector:
        """The projection of the Euclidean gradient."""
        return self.projection(point, euclidean_gradient)

    def _generator(self) -> np.random.Generator:
        if self._rng is None:
            return np.random.default_rng(np.random.randint(2**31, size=4))  # noqa: NPY002, the state that pymanopt uses
        return self._rng

    def _normal_layers(self, generator: np.random.Generator) -> list[np.ndarray]:
        return [generator.standard_normal(shape) for shape in self.shapes]


class Latest:
    """What was computed last, kept as long as it is asked for at the same point."""

    def __init__(self, compute: Any) -> None:
        self._compute = compute
        self._point: list[np.ndarray] | None = None
        self._value: Any = None

    def __call__(self, point: Layers) -> Any:
        if self._point is None or not all(map(np.array_equal, self._point, point)):
            self._value = self._compute(point)
            self._point = [np.array(part) for part in point]
        return self._value


def products(layers: Layers) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The products ``B_j = W_j ... W_1`` and ``C_j = W_L ... W_{j+1}`` for ``j = 0, ..., L``."""
    before, after = [np.eye(layers[0].shape[1])], [np.eye(layers[-1].shape[0])]
    for layer in layers:
        before.append(layer @ before[-1])
    for layer in reversed(layers):
        after.append(after[-1] @ layer)
    return before, after[::-1]
