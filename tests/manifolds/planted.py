"""Mistakes to plant in a manifold of layers, each with the entries of the check that must notice it."""

import numpy as np
import pytest

from balancedfact.manifolds import check_manifold


def mistakes(manifold):
    """``{name: (methods, entries)}`` for subclasses of the class `manifold`."""

    def base(name):
        return getattr(manifold, name)

    def scaled(name, factor):
        return lambda self, *arguments: factor * base(name)(self, *arguments)

    def drifting_point(self):
        first, *rest = base("random_point")(self)
        return [1.01 * first, *rest]

    def straight(self, point, vector):
        return [part + change for part, change in zip(point, self.embedding(point, vector), strict=True)]

    def bent_retraction(self, point, vector):
        first, *rest = [np.ones_like(part) for part in point]
        bend = self.projection(point, [first, *(0 * part for part in rest)])
        return base("retraction")(self, point, vector + self.norm(point, vector) ** 2 * bend)

    def flat_hessian(self, point, gradient, hessian, vector):
        return base("euclidean_to_riemannian_hessian")(self, point, [0 * part for part in gradient], hessian, vector)

    def wrong_sign_hessian(self, point, gradient, hessian, vector):
        right = base("euclidean_to_riemannian_hessian")(self, point, gradient, hessian, vector)
        return 2 * flat_hessian(self, point, gradient, hessian, vector) - right

    def unsymmetric_hessian(self, point, gradient, hessian, vector):
        right = base("euclidean_to_riemannian_hessian")(self, point, gradient, hessian, vector)
        first = self.euclidean_to_riemannian_gradient(point, gradient)
        other = self.projection(point, [np.arange(part.size).reshape(part.shape) - 1.0 for part in point])
        product = self.inner_product
        return right + product(point, vector, first) * other - product(point, vector, other) * first

    return {
        "point off the set": ({"random_point": drifting_point}, {"random point"}),
        "projection half-way": ({"projection": scaled("projection", 0.5)}, {"projection idempotent"}),
        "projection not linear": (
            {
                "projection": lambda self, point, vector: (
                    base("projection")(self, point, vector) * (1 + np.linalg.norm(vector[0]))
                )
            },
            {"projection"},
        ),
        "zero vector not zero": ({"zero_vector": lambda self, point: self.random_tangent_vector(point)}, {"zero vector"}),
        "norm is its square": ({"norm": lambda self, point, a: base("norm")(self, point, a) ** 2}, {"norm"}),
        "retraction leaves the set": ({"retraction": straight}, {"retraction on manifold"}),
        "retraction twice as far": (
            {"retraction": lambda self, point, vector: base("retraction")(self, point, 2 * vector)},
            {"retraction first order", "gradient slope"},
        ),
        "retraction bent": ({"retraction": bent_retraction}, {"retraction second order", "hessian along curves"}),
        "transport halves": ({"transport": scaled("transport", 0.5)}, {"transport"}),
        "gradient doubled": (
            {"euclidean_to_riemannian_gradient": scaled("euclidean_to_riemannian_gradient", 2)},
            {"gradient", "gradient slope"},
        ),
        "hessian without curvature": ({"euclidean_to_riemannian_hessian": flat_hessian}, {"hessian along curves"}),
        "hessian with curvature of the wrong sign": (
            {"euclidean_to_riemannian_hessian": wrong_sign_hessian},
            {"hessian along curves"},
        ),
        "hessian not symmetric": ({"euclidean_to_riemannian_hessian": unsymmetric_hessian}, {"hessian symmetric"}),
        "dimension off by one": ({"dim": property(lambda self: self._dimension + 1)}, {"dimension"}),
    }


def assert_noticed(manifold, mistake, arguments, seed=0):
    """The check of `manifold` with a mistake planted fails where it should."""
    methods, expected = mistakes(manifold)[mistake]
    report = check_manifold(type("Mistaken", (manifold,), methods)(*arguments, rng=seed), seed)
    assert expected <= set(report.failures), str(report)


NAMES = list(mistakes(type("Any", (), dict.fromkeys(["random_point"]))))
every_mistake = pytest.mark.parametrize("mistake", NAMES)
