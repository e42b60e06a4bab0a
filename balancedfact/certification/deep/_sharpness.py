r"""The certificate of a network of least sharpness, from its layers, weights of the measurements, a dual vector and the data.

Let `J` be the derivative of the measurements with respect to the layers, and `Y` a matrix of `q` columns. Where the layers fit,

.. math:: \lambda_{\max}(\nabla^2\mathcal L)\ \ge\ \frac2m\,\frac{\operatorname{tr}(Y^\top JJ^\top Y)}{\|Y\|_F^2}
          = \frac2{m\|Y\|_F^2}\sum_j\sum_k\|C_j^\top\mathcal A^*(y_k)B_{j-1}^\top\|_F^2 ,

and the least value of the right-hand side over the networks with :math:`\mathcal A^*(Y)`-measurements :math:`Y^\top b` is that
of a trace: for two layers :math:`2q\sqrt{d_1d_2}\,\|D_1ED_2\|_*`, which a dual vector bounds, for more `q / 2` times the trace,
with the bounds of `_layers`.

The rounding of the matrices :math:`\mathcal A^*(y_k)` is counted where a dual vector bounds. Isometries and the least trace of
a product are bounds for the matrices as rounded, and so are all where directions that no measurement sees had to be left out.
"""

from __future__ import annotations

import numpy as np

from balancedfact._certificate import Certificate
from balancedfact._linalg import magnitude
from balancedfact._status import Status
from balancedfact.certification._pair import power_below, reached
from balancedfact.certification._verdict import unreached
from balancedfact.certification.deep._layers import bound_on_trace, fit_of_layers, rounding_of_trace
from balancedfact.certification.deep._multiplier import proved_dual
from balancedfact.curvature import sharpness, trace
from balancedfact.measurements import Dense, MeasurementMap
from balancedfact.measurements._careful import UNIT, careful_total, gamma
from balancedfact.measurements._ordinary_size import of_ordinary_size

_CLOSED_SHARPNESS = 1e-9  # share of the weighted trace at the layers up to which no larger bound is looked for
_NOTHING_PROVED = "computed anew from the layers; the weights of the measurements and their dual vector prove no lower bound"
_FROM_WEIGHTS = "computed anew from the layers; the bound follows from weights of the measurements and {source}"


class _Combined(Dense):
    """Combinations of the measurements of a map of ordinary size, known up to bounds on the errors of their entries."""

    scale = 1.0

    def __init__(self, A: MeasurementMap, Y: np.ndarray) -> None:
        found = [A.careful_adjoint(y) for y in np.ascontiguousarray(Y.T)]
        super().__init__(np.array([matrix for matrix, _ in found]))
        self.errors = np.array([errors for _, errors in found])

    def careful_gram(self, T: np.ndarray, side: int) -> tuple[np.ndarray, float]:
        G, error = super().careful_gram(T, side)
        rows = (self.errors.transpose(0, 2, 1) if side == 0 else self.errors).reshape(-1, len(T))
        spill = 1.01 * float(np.linalg.norm(rows @ abs(T)))
        return G, error + spill * (2.02 * float(np.sqrt(max(np.trace(G), 0.0) + error)) + spill)

    def careful_adjoint(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        S, errors = super().careful_adjoint(y)
        return S, errors + 1.01 * np.tensordot(np.abs(y), self.errors, 1)


def certify_sharpness(
    A: MeasurementMap,
    b: np.ndarray,
    layers: list[np.ndarray],
    weights: np.ndarray,
    dual: np.ndarray,
    *,
    rng: np.random.Generator,
) -> Certificate:
    """The certificate; `weights` is `Y`, shape ``(m, q)``, and `dual` a vector of the weighted problem, shape ``(q,)``.

    Stationarity and curvature are not among its numbers.
    """
    fits, worst = fit_of_layers(A, b, layers)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        value = sharpness(layers, A, b)
        error = rounding_of_trace(A, layers)
        lower, source = _lower(A, b, layers, weights, dual, rng)
        proof = _FROM_WEIGHTS.format(source=source) if lower > 0 else _NOTHING_PROVED
        gap = np.nan
        if np.finfo(float).tiny <= value < np.inf and reached(fits, worst):
            gap = (abs(value - lower) + error) / value
        elif value == 0 and not np.any(b):
            gap, proof = 0.0, "no Hessian has a negative largest eigenvalue"
    return Certificate(
        fits,
        lower,
        float(gap),
        weights,
        proof=proof,
        value=value,
        worst_datum=worst,
        rounding=error / value if value > 0 else np.nan,
        weighted_dual=dual,
    )


def verdict_on_sharpness(certificate: Certificate, tol: float) -> tuple[Status, str]:
    """The verdict as a status and a sentence, from the numbers that are returned."""
    missed = unreached(certificate)
    if missed is not None:
        return Status.GAP_OPEN, missed
    if np.isnan(certificate.gap):
        return Status.GAP_OPEN, f"The value, {certificate.value:.3g}, is beyond what floating-point numbers tell apart."
    if certificate.gap <= tol:
        return Status.OPTIMAL, f"No network that fits is less sharp, within a relative {certificate.gap:.1e}."
    share = np.floor(1000 * (1 - certificate.gap)) / 10  # never 100 where the gap is open
    return Status.GAP_OPEN, f"Proved is {share:.3g} % of the value; whether networks nearby are less sharp was not looked at."


def _lower(
    A: MeasurementMap, b: np.ndarray, layers: list[np.ndarray], Y: np.ndarray, z: np.ndarray, rng: np.random.Generator
) -> tuple[float, str]:
    """The lower bound on the sharpness of networks that fit, and what it follows from beside the weights."""
    depth, level = len(layers), power_below(magnitude(b))
    if not (Y.any() and z.any() and b.any()):
        return 0.0, "nothing"
    Y = Y / power_below(magnitude(Y))
    near, power = of_ordinary_size(A)
    unit, power = near.at_unit_scale(), power * float(near.scale)
    left, right = (vectors[:, values > 0] for values, vectors in (unit.left_root, unit.right_root))
    if left.shape[1] + right.shape[1] < sum(A.matrix_shape):
        unit = Dense(unit.rotated(left, right))
        layers = [layers[0] @ right, *layers[1:-1], left.T @ layers[-1]]
    seen = _Combined(unit, Y)
    totals = [careful_total(b / level * y) for y in np.ascontiguousarray(Y.T)]
    # Data lowered by their rounding where the dual vector weighs them up, and raised where down.
    data = np.array([total - float(np.sign(each)) * 1.01 * error for (total, error), each in zip(totals, z, strict=True)])
    squares, error = careful_total(np.square(Y).ravel())
    if depth == 2:
        size = float(np.sqrt(np.prod(seen.matrix_shape)))
        energy, source = 2 * seen.m * size * proved_dual(seen, data, z).nuclear, "a dual vector"
    else:
        share = float(np.exp((np.log(power) - np.log(level)) / depth))
        inner = [share * W for W in layers]
        enough = (1 - _CLOSED_SHARPNESS) * trace(inner, seen)
        bound, source, _ = bound_on_trace(seen, data, inner, z, enough, "quick", rng)
        energy = seen.m / 2 * bound
    units = float(np.exp((2 - 2 / depth) * np.log(level) + 2 / depth * np.log(power)))
    lower = 2 / A.m * energy / (squares + 1.01 * error) * units * (1 - 64 * UNIT - gamma(8))
    return (float(lower), source) if np.isfinite(lower) else (0.0, "nothing")
