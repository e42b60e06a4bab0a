"""First and second order of the sum of squares at layers that fit the data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from balancedfact._linalg import frobenius, product
from balancedfact.curvature._loss import Linearisation
from balancedfact.curvature._scaled import Scaled, ordinary
from balancedfact.measurements import MeasurementMap


class AtLayers(NamedTuple):
    """First and second order at a point of the layers."""

    layers: list[np.ndarray]
    feasibility: float
    stationarity: float
    curvature: float
    step: np.ndarray


def at_layers(A: MeasurementMap, b: np.ndarray, layers: list[np.ndarray]) -> AtLayers:
    """Residual, first and second order of the sum of squares on the set of fits, and Newton's step."""
    at = Linearisation(layers, A, b)
    theta = np.concatenate([W.ravel() for W in layers])
    ends = np.cumsum([W.size for W in layers])[:-1]

    def joined(V: list[Scaled]) -> np.ndarray:
        return np.concatenate([each.value().ravel() for each in V])

    J = np.stack([joined(at.pulled_back(ordinary(unit))) for unit in np.eye(A.m)])
    left, s, right = np.linalg.svd(J)
    seen = int(np.count_nonzero(s > 1e-10 * s[0]))
    residual = at.residual.value()
    restore = -right[:seen].T @ ((left[:, :seen].T @ residual) / s[:seen])
    free = right[seen:].T
    multiplier = left[:, :seen] @ ((right[:seen] @ theta) / s[:seen])  # J' multiplier is the gradient, as near as may be
    slope = free.T @ theta
    feasibility = frobenius(residual) / (frobenius(b) or 1.0)
    stationarity = float(np.linalg.norm(slope) / np.linalg.norm(theta))
    if free.shape[1] == 0:
        return AtLayers(layers, feasibility, stationarity, 0.0, restore)
    # Half the Lagrangian's Hessian: the identity less the second derivatives of the fit along the multiplier. The residual is
    # replaced by the multiplier, so that the Hessian of the linearisation without its first term is what is needed.
    shifted = Linearisation(layers, A, A(product(layers)) - multiplier)
    columns = []
    for direction in free.T:
        V = [ordinary(part.reshape(W.shape)) for part, W in zip(np.split(direction, ends), layers, strict=True)]
        first = shifted.pulled_back(shifted.pushed_forward(V))
        columns.append(direction - (joined(shifted.hessian(V)) - joined(first)))
    reduced = free.T @ np.array(columns).T
    values, vectors = np.linalg.eigh((reduced + reduced.T) / 2)
    largest = max(float(np.abs(values).max()), 1.0)
    stiff = np.abs(values) > 1e-8 * largest  # rotations of the hidden spaces cost nothing
    inside = vectors[:, stiff] @ ((vectors[:, stiff].T @ slope) / np.abs(values[stiff]))
    return AtLayers(layers, feasibility, stationarity, float(values[0]) / largest, restore - free @ inside)
