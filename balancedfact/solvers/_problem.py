r"""The convex problem behind every flat pair, in coordinates where nothing but the nuclear norm is left.

``min nuclear(Z) + |A(Z) - b|^2 / (2 q)``, or with ``q = 0`` subject to ``A(Z) = b``; dual ``max b.y - q |y|^2 / 2`` subject
to ``|A*(y)| <= 1``. Algorithms see only this problem and propose factors of `Z` and a vector `y`; what they propose is
judged here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from balancedfact.measurements import MeasurementMap
from balancedfact.solvers._spectral_norm import lanczos_steps, norm_bound


class Point(NamedTuple):
    """A balanced pair ``Z = L @ R.T`` with its singular values `s` (``L.T @ L = R.T @ R = diag(s)``) and a dual vector."""

    L: np.ndarray
    R: np.ndarray
    s: np.ndarray
    y: np.ndarray


class Verdict(NamedTuple):
    """What a point is worth: objective, lower bound, relative residual, and the dual vector made feasible."""

    value: float
    lower: float
    residual: float
    y: np.ndarray
    proof: str


@dataclass(frozen=True)
class NuclearProblem:
    """A map, its data and the penalty `q` (0: interpolate)."""

    map: MeasurementMap
    b: np.ndarray
    q: float

    @property
    def density(self) -> float:
        """The mean squared weight with which a matrix entry is measured."""
        norms = self.map.row_norms
        return float(norms @ norms) / (self.map.matrix_shape[0] * self.map.matrix_shape[1])

    def judge(self, point: Point, rng: np.random.Generator, accuracy: float = 1e-3) -> Verdict:
        """The certificate of a point: its lower bound is computed from `y` alone and holds whatever `y` is.

        It is worth up to a relative `accuracy` more than is claimed, where the size of the problem allows to spend that much.
        """
        root, steps = np.sqrt(point.s), lanczos_steps(accuracy, self.map.matrix_shape)
        norm, proof = norm_bound(self.map.adjoint_operator(point.y), point.L / root, point.R / root, rng, steps=steps)
        # What rounding may have taken from the sum of matrices, which is large where they cancel.
        norm += 4 * np.finfo(float).eps * float(np.linalg.norm(point.y * self.map.row_norms))
        along, square = float(self.b @ point.y), float(point.y @ point.y)
        scale = 0.0
        if norm > 0 and along > 0:
            scale = 1 / norm if self.q == 0 else min(1 / norm, along / (self.q * square))
        y = scale * point.y
        lower = float(self.b @ y) - 0.5 * self.q * float(y @ y)
        residual = self.b - self.map.forward_factored(point.L, point.R)
        misfit = float(residual @ residual) / (2 * self.q) if self.q > 0 else 0.0
        return Verdict(
            float(point.s.sum()) + misfit, lower, float(np.linalg.norm(residual) / np.linalg.norm(self.b)), y, proof
        )


def balanced(L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The balanced pair with the product of `L` and `R`, and its singular values, in ``O((d1 + d2) k^2)`` operations."""
    QL, TL = np.linalg.qr(L)
    QR, TR = np.linalg.qr(R)
    U, s, Vt = np.linalg.svd(TL @ TR.T)
    k = min(U.shape[1], Vt.shape[0])
    root = np.sqrt(s)
    return QL @ (U[:, :k] * root), QR @ (Vt[:k].T * root), s


def balanced_from_matrix(Z: np.ndarray, threshold: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The balanced pair of a matrix with its singular values lowered by `threshold`, those that vanish left out."""
    U, s, Vt = np.linalg.svd(Z, full_matrices=False)
    s = s - threshold
    keep = s > 0
    root = np.sqrt(s[keep])
    return U[:, keep] * root, Vt[keep].T * root, s[keep]
