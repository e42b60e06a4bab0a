"""A conformance check for pymanopt manifolds, shipped for those who add their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pymanopt.manifolds.manifold import Manifold

from balancedfact._pymanopt_draws import pymanopt_draws
from balancedfact._validate import as_flag, as_kind, as_rng
from balancedfact.manifolds._derivatives import Derivatives
from balancedfact.manifolds._findings import EXACT, Finding, ManifoldReport
from balancedfact.manifolds._geometry import Missing
from balancedfact.manifolds._probe import Cost


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
        Whether points represent classes and tangent vectors are horizontal. The path of a retraction need not be horizontal,
        so its tangency is then not checked. A quotient also needs a `cost` that is the same for all points of a class, such as
        a function of ``Y @ Y.T`` for subspaces; other functions have no Hessian on it.

    Returns
    -------
    ManifoldReport
        Printable; ``report.ok`` is the verdict and ``report.entries`` has one named entry per property.

    Raises
    ------
    ValueError
        If `manifold` is no manifold of pymanopt, or `rng`, `cost` or `quotient` is malformed. What `manifold` itself
        raises is an entry of the report.

    See Also
    --------
    ManifoldReport : The report that is returned.
    Cost : A function of your own, with derivatives, for the check.
    LayerManifold : A base class for manifolds of layers.

    Notes
    -----
    Orders are slopes: the remainder of ``retraction(x, t v) = x + t v + ...`` must fall like ``t**2`` or faster. Optional
    methods that are missing are reported as such and do not fail; methods that raise do.

    The Hessian is examined twice. At a critical point second derivatives along *any* curve are the Riemannian Hessian, so
    the cost gets a linear term that makes its Riemannian gradient vanish (its normal part stays, which is what curvature
    acts on). For a retraction that claims second order, or a manifold with its own exponential map, the Hessian is
    compared with second differences away from critical points too.

    References
    ----------
    Guide :doc:`/guide/own_manifold`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> report = bf.manifolds.check_manifold(bf.manifolds.BalancedPairs(4, 3, 2), rng=0)
    >>> report.ok
    True
    >>> round(report.entries["retraction second order"].measured)
    3
    """
    as_kind(manifold, "manifold", Manifold, "a pymanopt manifold")
    if cost is not None:
        as_kind(cost, "cost", Cost, "a Cost with its derivatives")
    as_flag(quotient, "quotient")
    generator = as_rng(rng)
    with pymanopt_draws(generator):
        return _Check(manifold, generator, cost, point, quotient).run()


class _Check(Derivatives):
    """All properties in their order, each with a verdict."""

    def __init__(
        self, manifold: Manifold, generator: np.random.Generator, cost: Cost | None, point: Any, quotient: bool
    ) -> None:
        super().__init__(manifold, generator, cost, point, quotient)
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
        except (Missing, NotImplementedError) as reason:
            found = Finding(True, np.nan, "", f"not looked at: {reason}")
        except Exception as error:  # a manifold under test may fail in any way; that is a verdict, not a crash
            found = Finding(False, np.inf, "", f"{type(error).__name__}: {error}")
        if not isinstance(found, Finding):
            found = Finding(bool(found <= EXACT), float(found), f"<= {EXACT:.0e}")
        self.entries[name] = found
        return found.ok
