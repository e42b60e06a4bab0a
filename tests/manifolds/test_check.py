import numpy as np
import pytest
import scipy.linalg
from pymanopt.manifolds import (
    Elliptope,
    Euclidean,
    FixedRankEmbedded,
    Grassmann,
    Oblique,
    Product,
    PSDFixedRank,
    SpecialOrthogonalGroup,
    Sphere,
    Stiefel,
    SymmetricPositiveDefinite,
)

from balancedfact.manifolds import BalancedPairs, Cost, check_manifold


def invariant_cost(weights):
    """A function of ``Y @ Y.T``: quadratic, so that its derivatives are short."""

    def outer(Y):
        return weights * (Y @ Y.T)

    return Cost(
        lambda Y: float(np.sum(outer(Y) * (Y @ Y.T)) / 2),
        lambda Y: 2 * outer(Y) @ Y,
        lambda Y, V: 2 * outer(Y) @ V + 2 * (weights * (Y @ V.T + V @ Y.T)) @ Y,
    )


@pytest.mark.parametrize(
    "manifold",
    [
        Sphere(5),
        Sphere(2, 3),
        Stiefel(5, 2),
        Stiefel(5, 2, retraction="polar"),
        Stiefel(3, 3),
        SymmetricPositiveDefinite(3),
        SpecialOrthogonalGroup(3),
        Oblique(4, 3),
        Euclidean(3, 2),
        Product([Sphere(3), Stiefel(4, 2), Euclidean(2)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [0, 1])
def test_sound_manifolds_of_pymanopt_pass(manifold, seed):
    report = check_manifold(manifold, seed)
    assert report.ok, str(report)


@pytest.mark.parametrize("manifold", [Grassmann(5, 2), PSDFixedRank(5, 2)], ids=str)
def test_quotients_pass_with_an_invariant_cost(manifold, rng):
    weights = rng.standard_normal((5, 5))
    report = check_manifold(manifold, 0, cost=invariant_cost(weights + weights.T), quotient=True)
    assert report.ok, str(report)
    assert not check_manifold(manifold, 0).ok  # and other costs are not functions on them


class MendedElliptope(Elliptope):
    """With the horizontal part of the projected vector, where pymanopt 2.2.1 takes that of the vector itself."""

    def projection(self, point, vector):
        eta = self._project_rows(point, vector)
        Omega = scipy.linalg.solve_continuous_lyapunov(point.T @ point, point.T @ eta - eta.T @ point)
        return eta - point @ (Omega - Omega.T) / 2

    to_tangent_space = projection


def test_what_is_found_elsewhere_in_pymanopt(rng):
    weights = rng.standard_normal((5, 5))
    cost = invariant_cost(weights + weights.T)
    elliptope = check_manifold(Elliptope(5, 2), 0, cost=cost, quotient=True)
    assert {"dimension", "projection idempotent", "transport"} <= set(elliptope.failures)
    mended = check_manifold(MendedElliptope(5, 2), 0, cost=cost, quotient=True)
    assert mended.ok, str(mended)
    fixed_rank = check_manifold(FixedRankEmbedded(5, 4, 2), 0)
    assert fixed_rank.failures == ["random point"]
    assert "shapes" in fixed_rank.entries["random point"].note


def base(name):
    return getattr(BalancedPairs, name)


def scaled(name, factor):
    return lambda self, *arguments: factor * base(name)(self, *arguments)


def oblique_projection(self, point, vector):
    """Corrects `L` alone: tangent and idempotent, but not orthogonal."""
    L, R = point
    U, V = vector
    gram = L.T @ L
    defect = U.T @ L + L.T @ U - V.T @ R - R.T @ V
    return type(base("projection")(self, point, vector))([U - L @ np.linalg.solve(gram, defect) / 2, np.array(V)])


def straight(self, point, vector):
    return [part + change for part, change in zip(point, vector, strict=True)]


def flat_hessian(self, point, gradient, hessian, vector):
    return self.projection(point, hessian)


def wrong_sign_hessian(self, point, gradient, hessian, vector):
    right = base("euclidean_to_riemannian_hessian")(self, point, gradient, hessian, vector)
    return 2 * self.projection(point, hessian) - right


def unprojected_hessian(self, point, gradient, hessian, vector):
    right = base("euclidean_to_riemannian_hessian")(self, point, gradient, hessian, vector)
    return right + (type(right)(hessian) - self.projection(point, hessian))


def unsymmetric_hessian(self, point, gradient, hessian, vector):
    right = base("euclidean_to_riemannian_hessian")(self, point, gradient, hessian, vector)
    first = self.projection(point, gradient)
    other = self.projection(point, [np.ones((self.d1, self.k)), np.zeros((self.d2, self.k))])
    product = self.inner_product
    return right + product(point, vector, first) * other - product(point, vector, other) * first


def bent_retraction(self, point, vector):
    L, R = point
    bend = self.projection(point, [np.sum(vector[0] ** 2) * np.ones_like(L), np.zeros_like(R)])
    return base("retraction")(self, point, vector + bend)


def drifting_point(self):
    L, R = base("random_point")(self)
    return [1.01 * L, R]


def raising(self, *arguments):
    raise RuntimeError("not written yet")


def not_a_number(self, point, vector):
    return np.nan * base("projection")(self, point, vector)


MISTAKES = {
    "point off the set": ({"random_point": drifting_point}, {"random point"}),
    "projection does nothing": (
        {"projection": lambda self, point, vector: base("zero_vector")(self, point) + vector},
        {"dimension", "retraction first order"},
    ),
    "projection half-way": ({"projection": scaled("projection", 0.5)}, {"projection idempotent"}),
    "projection not orthogonal": ({"projection": oblique_projection}, {"projection self-adjoint", "gradient"}),
    "projection not linear": (
        {"projection": lambda self, point, vector: base("projection")(self, point, vector) * self.norm(point, vector)},
        {"projection"},
    ),
    "projection not a number": ({"projection": not_a_number}, {"projection"}),
    "projection missing": ({"projection": raising}, {"projection"}),
    "tangent vector not tangent": (
        {"random_tangent_vector": lambda self, point: base("zero_vector")(self, point) + base("random_point")(self)},
        {"random tangent vector"},
    ),
    "zero vector not zero": ({"zero_vector": lambda self, point: self.random_tangent_vector(point)}, {"zero vector"}),
    "zero vector of another shape": ({"zero_vector": lambda self, point: np.zeros((2, 2))}, {"random point"}),
    "inner product indefinite": (
        {"inner_product": lambda self, point, a, b: float(np.vdot(a[0], b[0]) - np.vdot(a[1], b[1]))},
        {"inner product positive", "gradient"},
    ),
    "inner product not symmetric": (
        {"inner_product": lambda self, point, a, b: float(np.vdot(a[0], b[0]) + np.vdot(a[1], b[1]) + a[0][0, 0] * b[1][0, 0])},
        {"inner product symmetric"},
    ),
    "norm is its square": ({"norm": lambda self, point, a: base("norm")(self, point, a) ** 2}, {"norm"}),
    "retraction leaves the set": ({"retraction": straight}, {"retraction on manifold"}),
    "retraction twice as far": (
        {"retraction": lambda self, point, vector: base("retraction")(self, point, 2 * vector)},
        {"retraction first order", "gradient slope"},
    ),
    "retraction stays put": (
        {"retraction": lambda self, point, vector: base("nearest")(self, *point)},
        {"retraction first order", "gradient slope"},
    ),
    "retraction bent": ({"retraction": bent_retraction}, {"retraction second order", "hessian along curves"}),
    "transport does nothing": ({"transport": lambda self, x, y, vector: vector}, {"transport"}),
    "transport halves": ({"transport": scaled("transport", 0.5)}, {"transport"}),
    "gradient not projected": (
        {"euclidean_to_riemannian_gradient": lambda self, point, gradient: gradient},
        {"gradient"},
    ),
    "gradient doubled": ({"euclidean_to_riemannian_gradient": scaled("euclidean_to_riemannian_gradient", 2)}, {"gradient"}),
    "hessian without curvature": (
        {"euclidean_to_riemannian_hessian": flat_hessian},
        {"hessian at a critical point", "hessian along curves"},
    ),
    "hessian with curvature of the wrong sign": (
        {"euclidean_to_riemannian_hessian": wrong_sign_hessian},
        {"hessian at a critical point", "hessian along curves"},
    ),
    "hessian not tangent": ({"euclidean_to_riemannian_hessian": unprojected_hessian}, {"hessian tangent"}),
    "hessian not symmetric": ({"euclidean_to_riemannian_hessian": unsymmetric_hessian}, {"hessian symmetric"}),
    "dimension off by one": ({"dim": property(lambda self: self._dimension + 1)}, {"dimension"}),
}


@pytest.mark.few(13)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sizes", [(4, 3, 2), (4, 3, 5)])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistakes_fail_in_the_right_entry(mistake, sizes, seed):
    if mistake == "projection not orthogonal" and sizes[2] > 3:
        pytest.skip("its linear system needs full column rank")
    methods, expected = MISTAKES[mistake]
    report = check_manifold(type("Mistaken", (BalancedPairs,), methods)(*sizes), seed)
    assert not report.ok
    assert expected <= set(report.failures), str(report)
    assert "FAIL" in str(report)


def test_the_check_leaves_the_global_state_alone_and_is_reproducible():
    np.random.seed(0)  # noqa: NPY002, what pymanopt draws from
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = str(check_manifold(Sphere(4), 3))
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert str(check_manifold(Sphere(4), 3)) == first


def test_missing_optional_methods_are_named_and_do_not_fail():
    class NoTransport(BalancedPairs):
        def transport(self, *arguments):
            raise NotImplementedError("no transport here")

    report = check_manifold(NoTransport(4, 3, 2), 0)
    assert report.ok
    assert "no transport here" in str(report)


def test_bad_rng_is_refused():
    with pytest.raises(ValueError, match="rng"):
        check_manifold(Sphere(3), -1)
