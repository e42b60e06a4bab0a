"""The ends of the spectrum of a Riemannian Hessian, by Lanczos on the tangent space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from balancedfact._linalg import magnitude

# Where Lanczos stops: residual of the smallest Ritz value over the largest in magnitude, and of the largest over itself; or, of
# a smallest one that is clearly negative, over itself: then a direction of descent is all that is asked for.
_ACCURATE, _LARGEST, _NEGATIVE = 1e-5, 1e-3, 1e-2
# A Krylov space has been exhausted when the next vector is this small.
_EXHAUSTED = 1e-12


class Curvature(NamedTuple):
    """Extreme Ritz values of a Hessian, and a direction of negative curvature.

    The steps end as soon as one is clearly negative. It is then within a hundredth of an eigenvalue, which need not be the
    smallest, and the largest is what has been seen of it so far.
    """

    least: float  # the smallest Ritz value: an upper bound on the smallest eigenvalue
    largest: float  # the largest Ritz value in magnitude: a lower bound on the largest eigenvalue in magnitude
    direction: Any  # a tangent vector of norm one and negative curvature; None if no Ritz value is negative

    @property
    def ratio(self) -> float:
        """The smallest eigenvalue over the largest in magnitude."""
        return self.least / self.largest if self.largest > 0 else 0.0


def extreme_curvature(
    manifold: Any,
    point: Any,
    hessian: Callable[[Any, Any], Any],
    *,
    steps: int,
    flat: float,
    preconditioner: Callable[[Any, Any], Any] | None = None,
) -> Curvature:
    """Lanczos with full orthogonalisation in the inner product of the manifold, from a random start.

    Values above ``-flat`` times the largest do not count as negative. With ``s`` steps a negative eigenvalue is seen down to
    about ``-10 / s**2`` of the largest, whatever the dimension, unless the start is orthogonal to its direction.

    With a positive definite preconditioner `P` the values are those of the Hessian in the metric of its inverse: their signs
    stay, and few steps see them where `P` is near the inverse of the Hessian.

    The direction is the part of the start in the span of all negative Ritz vectors, each weighted by its value, rather than
    the lowest Ritz vector: where many directions lead down, as from zero, it takes all of them at once.
    """

    def apply(vector: Any) -> Any:
        return vector if preconditioner is None else preconditioner(point, vector)

    # Each basis vector and what it is the preconditioned image of: the pairing of the two is the inner product.
    dual = manifold.random_tangent_vector(point)
    vector = apply(dual)
    norm = np.sqrt(max(manifold.inner_product(point, vector, dual), 0.0))
    if not norm > 0:  # the tangent space has only the zero
        return Curvature(0.0, 0.0, None)
    basis, duals = [vector / norm], [dual / norm]
    diagonal: list[float] = []
    off: list[float] = []
    # Where the set is no manifold its tangent space may be larger than the dimension.
    steps = min(steps, sum(np.size(part) for part in _parts(vector)))
    unit = 0.0  # the size of the Hessian, by which it is divided: squares of numbers far from 1 are none
    for step in range(1, steps + 1):
        image = hessian(point, basis[-1])
        unit = unit or magnitude(np.concatenate([np.ravel(part) for part in _parts(image)]))
        image = image / unit
        diagonal.append(manifold.inner_product(point, basis[-1], image))
        for _ in range(2):
            for one, other in zip(basis, duals, strict=True):
                image = image - manifold.inner_product(point, one, image) * other
        image = manifold.to_tangent_space(point, image)
        vector = apply(image)
        beta = np.sqrt(max(manifold.inner_product(point, vector, image), 0.0))
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
        largest = float(np.abs(values).max())
        residual = beta * abs(vectors[-1, 0])
        top = beta * abs(vectors[-1, np.argmax(np.abs(values))])
        clear = values[0] < -flat * largest and residual <= -_NEGATIVE * values[0]
        settled = residual <= _ACCURATE * largest and top <= _LARGEST * largest
        if clear or settled or beta <= _EXHAUSTED * largest or step == steps:
            break
        off.append(beta)
        basis.append(vector / beta)
        duals.append(image / beta)
    negative = values < -flat * largest
    direction = None
    if negative.any():
        weights = vectors[:, negative] @ (values[negative] / largest * vectors[0, negative])
        direction = sum((weight * one for weight, one in zip(weights[1:], basis[1:], strict=False)), weights[0] * basis[0])
        direction = direction / manifold.norm(point, direction)
    return Curvature(float(values[0]) * unit, largest * unit, direction)


def _parts(vector: Any) -> list[Any]:
    """The arrays of a tangent vector, of a product of manifolds or not."""
    return list(vector) if isinstance(vector, (list, tuple)) else [vector]
