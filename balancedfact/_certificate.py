"""The numbers that prove how good a solution is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from balancedfact._values import ByValue


@dataclass(frozen=True, eq=False, repr=False)
class Certificate(ByValue):
    """Numbers that prove how good a solution is.

    Attributes
    ----------
    feasibility : float
        Relative residual ``norm(A(X) - b) / norm(b)``. With a penalty the residual is part of the objective, and its size here
        says how far the penalty moved the fit.
    lower_bound : float
        A lower bound on the objective over all factorizations of any width, in the units of `Solution.value`, computed from
        `dual`; ``nan`` where no bound exists, ``inf`` where `dual` proves that no matrix fits.
    gap : float
        ``(value - lower_bound) / value``; ``nan`` where no bound exists.
    dual : numpy.ndarray
        The dual vector `y`, scaled so that it satisfies its constraint.
    stationarity : float
        Relative violation of the first-order optimality condition, the largest of its parts.
    balance : float
        Relative violation of the balance of the factors: rescaled balance ``L.T D1^2 L = R.T D2^2 R`` for flat pairs.
    curvature : float
        Smallest eigenvalue of the Riemannian Hessian of the objective over the feasible set, divided by the largest in
        magnitude; clearly negative at a saddle, ``nan`` where it was not computed.
    fibre_gap : float
        For deep factorizations, ``value / F(E) - 1`` with `F(E)` the least trace of the Hessian over all factorizations of the
        same end-to-end matrix (`balancedfact.induced_regularizer`); ``nan`` where it does not apply.
    direction : numpy.ndarray
        Where the infimum is not attained, the direction along which the layers diverge.
    proof : str
        What makes the lower bound rigorous, in words; where there is none, which parts are evidence.
    value : float
        The objective at the candidate that was certified.
    worst_datum : float
        The largest residual of a single datum, rounding included, relative to ``max(|b_i|, 1e-3 norm(A_i) norm(X))``.
    rounding : float
        How much of the gap is a bound on rounding, an a priori one: what is claimed holds in exact arithmetic.
    weighted_dual : numpy.ndarray
        Of least sharpness, where the columns of `dual` weigh the measurements: the dual vector of the flattest network for
        these weights, one number for each column.
    injectivity, injectivity_above : float
        Where a rank was given and the data are more than a matrix of that rank has parameters, an enclosure of the least
        singular value of the measurements on the tangent space at it, ``inf norm(A(Z)) / norm(Z)`` over the directions `Z` in
        which it moves at its rank. If positive, no other matrix of that rank near it fits. Else ``nan``.
    excluded_norm : float
        Where the data contradict one another: no matrix of nuclear norm up to this fits them; ``inf`` excludes every matrix.

    See Also
    --------
    Solution.verify : Computes one anew.
    certify : A certificate for any candidate.
    Status : The verdict that follows from it.

    References
    ----------
    Guide :doc:`/guide/certificate`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(30, (6, 5), rng=0)
    >>> solution = bf.flat_minimum(A, A(np.ones((6, 5))))
    >>> certificate = solution.certificate
    >>> certificate.gap < 1e-8, certificate.feasibility < 1e-12
    (True, True)
    >>> bool(np.isclose(certificate.lower_bound, solution.value))
    True
    """

    feasibility: float
    lower_bound: float = np.nan
    gap: float = np.nan
    dual: np.ndarray = field(default_factory=lambda: np.empty(0))
    stationarity: float = np.nan
    balance: float = np.nan
    curvature: float = np.nan
    fibre_gap: float = np.nan
    direction: np.ndarray = field(default_factory=lambda: np.empty(0))
    proof: str = ""
    value: float = np.nan
    worst_datum: float = np.nan
    rounding: float = np.nan
    excluded_norm: float = np.nan
    injectivity: float = np.nan
    injectivity_above: float = np.nan
    weighted_dual: np.ndarray = field(default_factory=lambda: np.empty(0))

    def to_dict(self) -> dict[str, float | str]:
        """The numbers without the arrays, for a report."""
        return {name: getattr(self, name) for name in _CERTIFICATE_FIELDS}

    def __repr__(self) -> str:
        numbers = {name: number for name, number in self.to_dict().items() if name != "proof" and not np.isnan(number)}
        return f"Certificate({', '.join(f'{name}={number:.3g}' for name, number in numbers.items())})"


_CERTIFICATE_FIELDS = (
    "feasibility",
    "lower_bound",
    "gap",
    "stationarity",
    "balance",
    "curvature",
    "fibre_gap",
    "proof",
    "value",
    "worst_datum",
    "rounding",
    "excluded_norm",
    "injectivity",
    "injectivity_above",
)
