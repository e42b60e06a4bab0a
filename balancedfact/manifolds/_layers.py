"""The base class of manifolds whose points are layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymanopt.manifolds.manifold import Manifold

from balancedfact._pymanopt_draws import new_generator
from balancedfact._validate import as_rng
from balancedfact.manifolds._product import TangentVector

Layers = Sequence[np.ndarray]


class LayerManifold(Manifold):
    """A set of layers ``[W_1, ..., W_L]``, `W_1` applied first, with the Euclidean metric.

    A subclass supplies `random_point`, `projection`, `retraction` and, for second-order methods,
    `euclidean_to_riemannian_hessian`; the metric, the gradient, transport and random directions follow from these. That is all
    that `balancedfact.riemannian_minimum` and `balancedfact.manifolds.check_manifold` ask of a manifold.

    Parameters
    ----------
    name : str
        How the manifold prints.
    widths : list of int
        ``[d_0, ..., d_L]``: layer `j` has the shape ``(d_j, d_{j-1})``.
    dimension : int
        The dimension of the manifold.
    rng : int or numpy.random.Generator, optional
        Randomness of points and directions; by default NumPy's global state, as pymanopt's manifolds do.

    Attributes
    ----------
    widths, depth, shapes
        The widths, their number less one, and the shapes of the layers.
    second_order_retraction : bool
        Whether the retraction agrees with geodesics to second order; set it to ``False`` in the subclass where it does not.

    Raises
    ------
    ValueError
        If `rng` is neither a seed nor a generator.

    See Also
    --------
    TangentVector : The tangent vectors of such manifolds.
    check_manifold : A check of any manifold.
    BalancedLayers, ZeroLoss : Subclasses of the package.

    References
    ----------
    Guide :doc:`/guide/own_manifold`.

    Examples
    --------
    All layers of given widths with the Frobenius norm one each:

    >>> import numpy as np, balancedfact as bf
    >>> class UnitLayers(bf.manifolds.LayerManifold):
    ...     def __init__(self, widths, rng=None):
    ...         sizes = [below * above for below, above in zip(widths, widths[1:])]
    ...         super().__init__("unit layers", widths, sum(sizes) - len(sizes), rng)
    ...
    ...     def random_point(self):
    ...         return [W / np.linalg.norm(W) for W in self.normal_layers()]
    ...
    ...     def projection(self, point, vector):
    ...         return bf.manifolds.TangentVector(V - np.vdot(W, V) * W for W, V in zip(point, vector))
    ...
    ...     def retraction(self, point, tangent_vector):
    ...         return [(W + V) / np.linalg.norm(W + V) for W, V in zip(point, tangent_vector)]
    ...
    ...     def euclidean_to_riemannian_hessian(self, point, gradient, hessian, vector):
    ...         bent = [H - np.vdot(W, G) * V for W, G, H, V in zip(point, gradient, hessian, vector)]
    ...         return self.projection(point, bent)
    >>> bf.manifolds.check_manifold(UnitLayers([3, 2, 4], rng=0), rng=0).ok
    True
    """

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
        """Raise: the geodesic distance has no closed form."""
        raise NotImplementedError("the geodesic distance has no closed form")

    def zero_vector(self, point: Layers) -> TangentVector:
        """The zero of the tangent space."""
        return TangentVector(np.zeros(shape) for shape in self.shapes)

    def random_tangent_vector(self, point: Layers) -> TangentVector:
        """A random direction in the tangent space, of norm one: projected standard normal layers."""
        vector = self.projection(point, self.normal_layers())
        return vector / (self.norm(point, vector) or 1.0)

    def to_tangent_space(self, point: Layers, vector: Layers) -> TangentVector:
        """Project, as `projection` does."""
        return self.projection(point, vector)

    def transport(self, point_a: Layers, point_b: Layers, tangent_vector_a: Layers) -> TangentVector:
        """Vector transport by projection on the tangent space at `point_b`."""
        return self.projection(point_b, tangent_vector_a)

    def euclidean_to_riemannian_gradient(self, point: Layers, euclidean_gradient: Layers) -> TangentVector:
        """The projection of the Euclidean gradient."""
        return self.projection(point, euclidean_gradient)

    def _generator(self) -> np.random.Generator:
        if self._rng is None:
            return new_generator()
        return self._rng

    def normal_layers(self) -> list[np.ndarray]:
        """Standard normal layers of the manifold's shapes, drawn from its randomness."""
        generator = self._generator()
        return [generator.standard_normal(shape) for shape in self.shapes]


class Latest:
    """Cache of one value: kept as long as it is asked for at the same point."""

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
