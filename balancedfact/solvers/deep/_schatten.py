r"""Norm-minimal deep networks that fit: interpolation of least Schatten-2/L quasi-norm.

Over all layers,
:math:`\min_{\mathcal A(W_L\cdots W_1) = b}\sum_j\|W_j\|_F^2 = \min_{\mathcal A(E) = b}L\|E\|_{S_{2/L}}^{2/L}`. Beyond two
layers this is not convex, and every fit of low rank that no other fit of its rank surrounds is a local minimum.

The search is iteratively reweighted least squares (`_reweighting`). The end is polished by Newton's method on the layers at the
width of the rank, and judged there to second order.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from balancedfact._linalg import frobenius, magnitude, product
from balancedfact._objective import Objective
from balancedfact.certification._verdict import unreached
from balancedfact.certification.deep._layers import fit_of_layers
from balancedfact.certification.deep._least_squares import AtLayers, at_layers
from balancedfact.closed_forms import schatten_layers, schatten_value
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.deep._reweighting import reweighted
from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.iteration._nothing import as_deep, nothing

_SMOOTHING_SHRINK = 0.7
_KEPT = 1e-5  # singular values above it, relative to the first, when the smoothing has ended
_POLISH = 30
_ZERO_CURVATURE = 1e-9  # curvature that counts as zero, relative to the largest
_STATIONARY = 1e-6
_REWEIGHTED = "reweighted least squares, Newton"
_PROOF_OF_SCHATTEN = (
    "Lower bound: L times the proved least nuclear norm to the power 2/L, for the quasi-norm is at least the nuclear norm to "
    "that power, with equality at rank one. The local minimum is established numerically to second order."
)


def schatten_minimum(
    A: MeasurementMap,
    b: np.ndarray,
    depth: int,
    nuclear: Solution,
    start: np.ndarray | None,
    log: Log,
) -> Solution:
    """The norm-minimal network that fits, from the matrix `start` or, without it, from the least nuclear norm."""
    if nuclear.status is Status.INFEASIBLE:
        return replace(as_deep(nuclear, depth), objective=Objective("norm", depth=depth))
    if not b.any():
        layers = [np.zeros(shape) for shape in [(1, A.matrix_shape[1]), *[(1, 1)] * (depth - 2), (A.matrix_shape[0], 1)]]
        certificate = Certificate(0.0, 0.0, 0.0, stationarity=0.0, proof="Zero layers fit, and none weigh less.")
        message, said = "The data are zero, and so are the layers.", Objective("norm", depth=depth)
        return Solution(layers, 0.0, Status.OPTIMAL, message, certificate, objective=said)
    if nuclear.status in (Status.LIMIT, Status.INTERRUPTED):
        log.ended = nuclear.status, nuclear.message
    X = nuclear.matrix if start is None or not start.any() else start
    if not X.any():
        return nothing([A.matrix_shape[1], *[1] * (depth - 1), A.matrix_shape[0]], log, _REWEIGHTED)
    size = magnitude(X)
    E = X / size

    def report(found: np.ndarray, smoothing: float) -> None:
        nonlocal E
        E = found
        value = schatten_value(size * E, depth)
        log.write(f"value {value:.6g}  smoothing {smoothing:.1e}", {"smoothing": smoothing, "value": value})

    if log.ended is None:
        with log:
            reweighted(A, b / size, E, depth, report, shrink=_SMOOTHING_SHRINK)
    judged = log.insist(_polished, A, b / size, E, depth)
    layers = [size ** (1 / depth) * W for W in judged.layers]
    value = float(sum(frobenius(W) ** 2 for W in layers))
    least = max(nuclear.certificate.lower_bound, 0.0) / 2  # of the nuclear norm
    lower = min(depth * least ** (2 / depth), value)
    fits, worst = fit_of_layers(A, b, layers)
    certificate = Certificate(
        fits,
        lower,
        1 - lower / value,
        dual=nuclear.certificate.dual,
        stationarity=judged.stationarity,
        balance=0.0,
        curvature=judged.curvature,
        proof=_PROOF_OF_SCHATTEN,
        worst_datum=worst,
    )
    missed = unreached(certificate)
    if missed is not None:
        certificate = replace(certificate, gap=np.nan)
    gap, rank = certificate.gap, layers[0].shape[0]
    if log.ended is not None and (not gap <= 1e-8 or log.ended[0] is Status.INTERRUPTED):
        verdict = log.ended
    elif missed is not None:
        verdict = Status.GAP_OPEN, missed
    elif gap <= 1e-8:
        verdict = Status.OPTIMAL, f"No network that fits weighs less, within a relative {gap:.1e}."
    elif judged.stationarity <= _STATIONARY and judged.curvature >= -_ZERO_CURVATURE:
        verdict = Status.STATIONARY, f"A local minimum of rank {rank}; other fits, of other ranks too, may weigh less."
    else:
        verdict = Status.GAP_OPEN, f"No local minimum to second order: stationarity {judged.stationarity:.1e} at rank {rank}."
    said = Objective("norm", depth=depth)
    return Solution(layers, value, *verdict, certificate, log.history or nuclear.history, _REWEIGHTED, objective=said)


def _polished(A: MeasurementMap, b: np.ndarray, E: np.ndarray, depth: int) -> AtLayers:
    """Newton's method for the least sum of squares on the layers that fit, of the width of the rank."""
    U, sigma, Vt = np.linalg.svd(E, full_matrices=False)
    rank = int(np.count_nonzero(sigma > _KEPT * sigma[0]))
    widths = [E.shape[1], *[rank] * (depth - 1), E.shape[0]]
    matrix = (U[:, :rank] * sigma[:rank]) @ Vt[:rank]
    best = judged = at_layers(A, b, schatten_layers(matrix, widths))
    for _ in range(_POLISH):
        ends = np.cumsum([W.size for W in judged.layers])[:-1]
        moved = [W + s.reshape(W.shape) for W, s in zip(judged.layers, np.split(judged.step, ends), strict=True)]
        judged = at_layers(A, b, schatten_layers(product(moved), widths))
        if not max(judged.feasibility, judged.stationarity) < max(best.feasibility, best.stationarity):
            break
        best = judged
    return best
