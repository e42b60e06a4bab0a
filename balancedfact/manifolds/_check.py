"""A conformance check for pymanopt manifolds, shipped for those who add their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from pymanopt.manifolds.manifold import Manifold, RetrAsExpMixin
from pymanopt.manifolds.product import _ProductTangentVector

from balancedfact._global_seed import global_seed
from balancedfact._validate import as_rng

_EXACT = 1e-8  # relative deviation up to which an identity holds
_STEPS = 0.5 ** np.arange(2, 16)


class Cost(NamedTuple):
    """A smooth function for the check, with derivatives in the ambient space; all take the point as pymanopt passes it."""

    value: Callable[[Any], float]
    gradient: Callable[[Any], Any]
    hessian: Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Finding:
    """The verdict on one property.

    Attributes
    ----------
    ok : bool
        Whether the property holds.
    measured : float
        A relative deviation, or the observed order of a remainder in the step length.
    expected : str
        What `measured` should be.
    note : str
        What went wrong or was not looked at.
    """

    ok: bool
    measured: float
    expected: str
    note: str = ""


@dataclass(frozen=True)
class ManifoldReport:
    """What `check_manifold` found.

    Attributes
    ----------
    name : str
        The manifold.
    entries : dict of str to Finding
        One verdict per property.
    """

    name: str
    entries: dict[str, Finding] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every property holds."""
        return all(entry.ok for entry in self.entries.values())

    @property
    def failures(self) -> list[str]:
        """The names of the properties that do not hold."""
        return [name for name, entry in self.entries.items() if not entry.ok]

    def __str__(self) -> str:
        width = max(map(len, self.entries), default=0)
        lines = [self.name]
        for name, entry in self.entries.items():
            number = "-" if np.isnan(entry.measured) else f"{entry.measured:.2g}"
            verdict = "ok  " if entry.ok else "FAIL"
            lines.append(f"{verdict}  {name:<{width}}  {number:>8}  {entry.expected}  {entry.note}".rstrip())
        return "\n".join(lines)


def check_manifold(
    manifold: Manifold,
    rng: int | np.random.Generator | None = None,
    *,
    cost: Cost | None = None,
    point: Any = None,
    quotient: bool = False,
) -> ManifoldReport:
    r"""Check that a pymanopt manifold is what an optimizer takes it for.

    The tangent space is found by projecting every unit vector of the ambient space, so use small instances (some hundred
    numbers per point). Points, ambient vectors and embedded tangent vectors must have the same layout.

    Parameters
    ----------
    manifold : pymanopt.manifolds.manifold.Manifold
        The manifold. The attribute ``second_order_retraction = True`` claims that its retraction agrees with geodesics to
        second order, and a method ``residual(point)`` tells how far a point is from the set; both are looked at if present.
    rng : int or numpy.random.Generator, optional
        Randomness of everything drawn. NumPy's global state, which pymanopt's manifolds draw from, is put back afterwards.
    cost : Cost, optional
        A smooth function instead of a random one.
    point : optional
        The point to look at instead of a random one.
    quotient : bool
        Whether points represent classes and tangent vectors are horizontal. The path of a retraction need not be, so that it
        is then not asked to be tangent. A quotient also needs a `cost` that is the same for all of a class, such as a
        function of ``Y @ Y.T`` for subspaces: others have no Hessian there.

    Returns
    -------
    ManifoldReport
        Printable; ``report.ok`` is the verdict and ``report.entries`` has one named entry per property.

    Notes
    -----
    Orders are slopes: the remainder of ``retraction(x, t v) = x + t v + ...`` must fall like ``t**2`` or faster. Optional
    methods that are missing are reported as such and do not fail; methods that raise do.

    The Hessian is examined twice. At a critical point second derivatives along *any* curve are the Riemannian Hessian, so
    the cost gets a linear term that makes its Riemannian gradient vanish (its normal part stays, which is what curvature
    acts on). For a retraction that claims second order, or a manifold with its own exponential map, the Hessian is
    compared with second differences away from critical points too.

    Examples
    --------
    >>> import balancedfact as bf
    >>> report = bf.manifolds.check_manifold(bf.manifolds.BalancedPairs(4, 3, 2), rng=0)
    >>> report.ok
    True
    >>> round(report.entries["retraction second order"].measured)
    3
    """
    generator = as_rng(rng)
    with global_seed(generator):
        return _Check(manifold, generator, cost, point, quotient).run()


def _flat(value: Any) -> np.ndarray:
    parts = value if isinstance(value, (list, tuple)) else [value]
    return np.concatenate([np.asarray(part, dtype=float).ravel() for part in parts])


class _Missing(Exception):
    """An optional method is not there."""


class _Check:
    def __init__(
        self, manifold: Manifold, generator: np.random.Generator, cost: Cost | None, point: Any, quotient: bool
    ) -> None:
        self.manifold, self.generator, self.cost, self.point, self.quotient = manifold, generator, cost, point, quotient
        self.entries: dict[str, Finding] = {}

    def run(self) -> ManifoldReport:
        report = ManifoldReport(str(self.manifold), self.entries)
        if not self._entry("random point", self._random_point) or not self._entry("projection", self._tangent_space):
            return report
        for name, method in (
            ("dimension", self._dimension),
            ("projection idempotent", self._idempotent),
            ("projection self-adjoint", self._self_adjoint),
            ("to_tangent_space", self._to_tangent_space),
            ("random tangent vector", self._random_tangent_vector),
            ("zero vector", self._zero_vector),
            ("arithmetic", self._arithmetic),
            ("inner product symmetric", self._symmetric),
            ("inner product positive", self._positive),
            ("norm", self._norm),
            ("retraction on manifold", self._stays),
            ("retraction first order", self._first_order),
        ):
            self._entry(name, method)
        if getattr(self.manifold, "second_order_retraction", False):
            self._entry("retraction second order", self._second_order)
        self._entry("exponential map", self._exponential)
        self._entry("transport", self._transport)
        self._entry("gradient", self._gradient)
        self._entry("gradient slope", self._gradient_slope)
        self._entry("hessian tangent", self._hessian_tangent)
        self._entry("hessian symmetric", self._hessian_symmetric)
        self._entry("hessian at a critical point", self._hessian_critical)
        self._entry("hessian along curves", self._hessian_curves)
        return report

    def _entry(self, name: str, method: Callable[[], Finding | float]) -> bool:
        try:
            found = method()
        except (_Missing, NotImplementedError) as reason:
            found = Finding(True, np.nan, "", f"not looked at: {reason}")
        except Exception as error:  # a manifold under test may fail in any way; that is a verdict, not a crash
            found = Finding(False, np.inf, "", f"{type(error).__name__}: {error}")
        if not isinstance(found, Finding):
            found = Finding(bool(found <= _EXACT), float(found), f"<= {_EXACT:.0e}")
        self.entries[name] = found
        return found.ok

    # Vectors as flat arrays.

    def _ambient(self, numbers: np.ndarray) -> Any:
        """Numbers in the layout of a point, with vector arithmetic."""
        if not self.sequence:
            return numbers.reshape(self.shapes[0])
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        return _ProductTangentVector(
            part.reshape(shape) for part, shape in zip(np.split(numbers, ends), self.shapes, strict=True)
        )

    def _numbers(self, vector: Any, point: Any = None) -> np.ndarray:
        flat = _flat(self.manifold.embedding(self.x if point is None else point, vector))
        if flat.size != self.size:
            raise ValueError(f"an embedded tangent vector has {flat.size} numbers; expected {self.size}, as a point has")
        return flat

    def _project(self, numbers: np.ndarray, point: Any = None) -> Any:
        return self.manifold.projection(self.x if point is None else point, self._ambient(numbers))

    def _tangent(self) -> Any:
        """A random tangent vector with numbers of norm one."""
        numbers = self.basis @ self.generator.standard_normal(self.basis.shape[1])
        return self._project(numbers / (np.linalg.norm(numbers) or 1.0))

    # Properties.

    def _random_point(self) -> float:
        self.x = self.manifold.random_point() if self.point is None else self.point
        self.sequence = isinstance(self.x, (list, tuple))
        self.shapes = [np.shape(part) for part in (self.x if self.sequence else [self.x])]
        self.size = sum(int(np.prod(shape)) for shape in self.shapes)
        layout = self.manifold.point_layout
        parts = len(layout) if isinstance(layout, (tuple, list)) else layout
        if len(self.shapes) != parts:
            raise ValueError(f"a point has {len(self.shapes)} parts; expected {parts} by point_layout")
        if not np.isfinite(_flat(self.x)).all():
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
        return _deviation(self._numbers(self._project(probe)), images @ probe)  # linear

    def _dimension(self) -> Finding:
        rank = self.basis.shape[1]
        return Finding(rank == self.manifold.dim, float(rank), f"= {self.manifold.dim}, the dimension; this is the rank")

    def _idempotent(self) -> float:
        return _deviation(self.images @ self.images, self.images)

    def _self_adjoint(self) -> float:
        a, b = self.generator.standard_normal((2, self.size))
        # In the metric or in the Euclidean inner product: not every inner product makes sense for ambient vectors.
        euclidean = _deviation(self.images, self.images.T)
        try:
            left = self.manifold.inner_product(self.x, self._project(a), self._ambient(b))
            right = self.manifold.inner_product(self.x, self._ambient(a), self._project(b))
        except Exception:  # it need not take ambient vectors at all
            return euclidean
        return min(euclidean, abs(left - right) / (abs(left) + abs(right) + 1e-3))

    def _to_tangent_space(self) -> float:
        vector = self._tangent()
        return _deviation(self._numbers(self.manifold.to_tangent_space(self.x, vector)), self._numbers(vector))

    def _random_tangent_vector(self) -> float:
        vector = self.manifold.random_tangent_vector(self.x)
        numbers = self._numbers(vector)
        if self.basis.shape[1] and not np.linalg.norm(numbers) > 0:
            raise ValueError("a random tangent vector is zero or not finite")
        return _deviation(self.images @ numbers, numbers)

    def _zero_vector(self) -> float:
        return float(np.abs(self._numbers(self.manifold.zero_vector(self.x))).max())

    def _arithmetic(self) -> float:
        a, b = self._tangent(), self.manifold.random_tangent_vector(self.x)
        x, y = self._numbers(a), self._numbers(b)
        found = [a + b, a - b, -a, 2.0 * a, b * np.float64(3.0), np.float64(0.5) * b, a / 4.0]
        expected = [x + y, x - y, -x, 2 * x, 3 * y, y / 2, x / 4]
        return max(_deviation(self._numbers(one), other) for one, other in zip(found, expected, strict=True))

    def _gram(self) -> np.ndarray:
        vectors = [self._project(column) for column in self.basis.T]
        return np.array([[self.manifold.inner_product(self.x, a, b) for a in vectors] for b in vectors])

    def _symmetric(self) -> float:
        gram = self._gram()
        return _deviation(gram, gram.T)

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
        length, h, worst = 0.3 * self._reach(), 1e-4, _deviation(_flat(self._retract(0.0 * vector)), _flat(self.x))
        y = self._retract(length * vector)
        ahead, behind = (_flat(self._retract(length * (1 + shift) * vector)) for shift in (h, -h))
        far_ahead, far_behind = (_flat(self._retract(length * (1 + shift) * vector)) for shift in (2 * h, -2 * h))
        residual = getattr(self.manifold, "residual", None)
        worst = max(worst, float(residual(y))) if residual else worst
        if self.quotient:
            return worst
        velocity = (8 * (ahead - behind) - (far_ahead - far_behind)) / (12 * h)
        # The velocity is a finite difference: two digits fewer are asked of it.
        return max(worst, 1e-2 * _deviation(self._numbers(self._project(velocity, y), y), velocity))

    def _reach(self) -> float:
        """A step that is moderate on the scale of the point."""
        return max(1e-3, float(np.linalg.norm(_flat(self.x))) / np.sqrt(self.size))

    def _retract(self, vector: Any) -> Any:
        return self.manifold.retraction(self.x, vector)

    def _first_order(self) -> Finding:
        vector = self._tangent()
        x, v = _flat(self.x), self._numbers(vector)
        errors = [np.linalg.norm(_flat(self._retract(t * vector)) - x - t * v) for t in self._reach() * _STEPS]
        return _slope(errors, 2, float(np.linalg.norm(x)))

    def _second_order(self) -> Finding:
        """Near the exponential map to second order; without one, the acceleration at the start is normal to the manifold.

        The latter is for a metric that is inherited from the ambient space. For any other the Hessian decides.
        """
        exp, gram, x = self._own_exponential(), self._gram(), _flat(self.x)
        if exp is None and _deviation(gram, np.eye(len(gram))) > _EXACT:
            return self._compare_hessian(self._smooth(), self._retract)
        vector = self._tangent()
        errors = []
        for t in self._reach() * _STEPS:
            y = _flat(self._retract(t * vector))
            rest = y - _flat(exp(self.x, t * vector)) if exp else self.images @ (y - x - t * self._numbers(vector))
            errors.append(np.linalg.norm(rest))
        return _slope(errors, 3, float(np.linalg.norm(x)))

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
            raise _Missing("no exponential map of its own")
        vector = self._tangent()
        x, v = _flat(self.x), self._numbers(vector)
        errors = [np.linalg.norm(_flat(exp(self.x, t * vector)) - x - t * v) for t in self._reach() * _STEPS]
        return _slope(errors, 2, float(np.linalg.norm(x)))

    def _transport(self) -> float:
        vector, direction = self._tangent(), self._tangent()
        y = self._retract(0.3 * self._reach() * direction)
        moved = self.manifold.transport(self.x, y, vector)
        numbers = self._numbers(moved, y)
        tangent = _deviation(self._numbers(self._project(numbers, y), y), numbers)
        twice = self._numbers(self.manifold.transport(self.x, y, 2.0 * vector + direction), y)
        linear = _deviation(twice, 2 * numbers + self._numbers(self.manifold.transport(self.x, y, direction), y))
        rest = _deviation(self._numbers(self.manifold.transport(self.x, self.x, vector)), self._numbers(vector))
        return max(tangent, linear, rest)

    # Derivatives.

    def _smooth(self) -> Cost:
        if self.cost is not None:
            return self.cost
        rng, scale = np.random.default_rng(self.generator.integers(2**32)), self._reach()
        linear, curvature = rng.standard_normal((2, self.size))
        waves = rng.standard_normal((3, self.size)) / (scale * np.sqrt(self.size))

        def value(point: Any) -> float:
            y = _flat(point)
            return float(linear @ y + curvature @ y**2 / (2 * scale) + scale * np.sin(waves @ y).sum())

        def gradient(point: Any) -> Any:
            y = _flat(point)
            return self._ambient(linear + curvature * y / scale + scale * waves.T @ np.cos(waves @ y))

        def hessian(point: Any, vector: Any) -> Any:
            y, v = _flat(point), _flat(vector)
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
        """It is tangent, and its inner product with every tangent vector is the directional derivative."""
        cost = self._smooth()
        gradient = self._riemannian_gradient(cost)
        numbers = self._numbers(gradient)
        slopes = self.basis.T @ _flat(cost.gradient(self.x))
        found = [self.manifold.inner_product(self.x, gradient, self._project(column)) for column in self.basis.T]
        return max(_deviation(self.images @ numbers, numbers), _deviation(np.array(found), slopes))

    def _gradient_slope(self) -> Finding:
        cost, vector = self._smooth(), self._tangent()
        slope = self.manifold.inner_product(self.x, self._riemannian_gradient(cost), vector)
        start = cost.value(self.x)
        errors = [abs(cost.value(self._retract(t * vector)) - start - t * slope) for t in self._reach() * _STEPS]
        return _slope(errors, 2, abs(start) + abs(slope) * self._reach())

    def _hessian_tangent(self) -> float:
        numbers = self._numbers(self._riemannian_hessian(self._smooth(), self._tangent()))
        return _deviation(self.images @ numbers, numbers)

    def _hessian_symmetric(self) -> float:
        cost, a, b = self._smooth(), self._tangent(), self._tangent()
        Ha, Hb = self._riemannian_hessian(cost, a), self._riemannian_hessian(cost, b)
        product, norm = self.manifold.inner_product, self.manifold.norm
        size = norm(self.x, Ha) * norm(self.x, b) + norm(self.x, a) * norm(self.x, Hb)
        return abs(product(self.x, Ha, b) - product(self.x, a, Hb)) / (size or 1.0)

    def _hessian_critical(self) -> Finding:
        smooth = self._smooth()
        start = _flat(smooth.gradient(self.x))
        tilt = self.basis @ (self.basis.T @ start)
        cost = Cost(
            lambda point: smooth.value(point) - float(tilt @ _flat(point)),
            lambda point: self._ambient(_flat(smooth.gradient(point)) - tilt),
            smooth.hessian,
        )
        return self._compare_hessian(cost, self._retract)

    def _hessian_curves(self) -> Finding:
        exp = self._own_exponential()
        if getattr(self.manifold, "second_order_retraction", False):
            return self._compare_hessian(self._smooth(), self._retract)
        if exp is None:
            raise _Missing("the retraction does not claim second order and there is no exponential map")
        return self._compare_hessian(self._smooth(), lambda vector: exp(self.x, vector))

    def _compare_hessian(self, cost: Cost, curve: Callable[[Any], Any]) -> Finding:
        vector = self._tangent()
        second = self.manifold.inner_product(self.x, self._riemannian_hessian(cost, vector), vector)
        start = cost.value(self.x)
        errors = [
            abs(cost.value(curve(t * vector)) + cost.value(curve(-t * vector)) - 2 * start - t * t * second)
            for t in self._reach() * _STEPS
        ]
        return _slope(errors, 4, abs(start) + float(np.linalg.norm(_flat(cost.gradient(self.x)))) * self._reach())


def _deviation(found: np.ndarray, expected: np.ndarray) -> float:
    size = np.linalg.norm(expected) or 1.0
    deviation = float(np.linalg.norm(found - expected) / size)
    return deviation if np.isfinite(deviation) else np.inf


def _slope(errors: list[Any], order: int, scale: float) -> Finding:
    """The order at which errors fall over halved steps, from the smallest steps above rounding error."""
    values, steps = np.asarray(errors, dtype=float), np.log(_STEPS)
    if not np.isfinite(values).all():
        return Finding(False, np.inf, f"order {order}", "NaN or infinite values")
    usable = np.flatnonzero(values > 2e3 * np.finfo(float).eps * max(scale, 1e-300))
    if usable.size < 3:
        return Finding(True, np.nan, f"order {order}", "exact to rounding")
    last = usable[-4:]
    found = float(np.polyfit(steps[last], np.log(values[last]), 1)[0])
    return Finding(found > order - 0.4, found, f"order {order}")
