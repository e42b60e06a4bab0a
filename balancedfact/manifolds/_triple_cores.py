r"""The factor between the orthonormal ones of a triple: a free matrix `C`, or the positive definite ``S = C C.T``.

A core is looked at in the coordinates of the eigenvectors `P` of `S`, with eigenvalues `s`. Three things depend on which one it
is: its metric, how a rotation of the triple acts on it, and how a change of it changes `S`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

# Eigenvalues of a merged core below this fraction of the largest are rounding errors of its decomposition.
_ROUNDED = 1e-15


class Spectrum(NamedTuple):
    """A core in the coordinates of the eigenvectors of `S`."""

    P: np.ndarray  # (q, q), the eigenvectors
    s: np.ndarray  # (q,), the eigenvalues of S
    sums: np.ndarray  # (q, q), s_i + s_j
    steps: np.ndarray  # (q, q), s_j - s_i
    Vt: np.ndarray  # (q, k), the right singular vectors of C; empty for a merged core


def _spectrum(P: np.ndarray, s: np.ndarray, Vt: np.ndarray) -> Spectrum:
    return Spectrum(P, s, np.add.outer(s, s), -np.subtract.outer(s, s), Vt)


class Core(Protocol):
    """The operations that a manifold of triples asks of its core."""

    def spectrum(self, X: np.ndarray) -> Spectrum:
        """The core in the coordinates of its eigenvectors."""

    def inner(self, at: Spectrum, a: np.ndarray, b: np.ndarray) -> float:
        """The metric."""

    def tangent(self, V: np.ndarray) -> np.ndarray:
        """The part of a matrix that is tangent."""

    def rotation(self, at: Spectrum, skew: np.ndarray, V: np.ndarray) -> np.ndarray:
        """The skew matrix, in coordinates, whose rotation of the triple is the vertical part of a vector.

        `skew` is what the orthonormal factors contribute, `V` the vector, both in the original coordinates.
        """

    def rotated(self, X: np.ndarray, omega: np.ndarray) -> np.ndarray:
        """The derivative of the core when the triple is rotated, for a skew matrix in the original coordinates."""

    def retraction(self, X: np.ndarray, at: Spectrum, V: np.ndarray) -> np.ndarray:
        """The core that a tangent vector leads to, to second order along the geodesic."""

    def gradient(self, X: np.ndarray, G: np.ndarray) -> np.ndarray:
        """The Riemannian gradient of a Euclidean one."""

    def hessian(self, X: np.ndarray, G: np.ndarray, H: np.ndarray, V: np.ndarray) -> np.ndarray:
        """The Riemannian Hessian along `V`, from Euclidean gradient and Hessian."""

    def strain(self, at: Spectrum, V: np.ndarray) -> np.ndarray:
        """The change of `S`, in coordinates."""

    def stiffness(self, at: Spectrum) -> np.ndarray:
        """Squared norms of the gradients of the entries of the change of `S` that rotations do not touch."""

    def unstrain(self, at: Spectrum, Y: np.ndarray) -> np.ndarray:
        """The adjoint of `strain`, per pair of entries ``(i, j)``, ``(j, i)``."""


class FreeCore:
    """`C` itself, any ``q x k`` matrix, with the Euclidean metric."""

    def spectrum(self, X: np.ndarray) -> Spectrum:
        P, sigma, Vt = np.linalg.svd(X, full_matrices=False)
        return _spectrum(P, sigma**2, Vt)

    def inner(self, at: Spectrum, a: np.ndarray, b: np.ndarray) -> float:
        return float(np.vdot(a, b))

    def tangent(self, V: np.ndarray) -> np.ndarray:
        return V

    def rotation(self, at: Spectrum, skew: np.ndarray, V: np.ndarray) -> np.ndarray:
        X = at.P.T @ V @ at.Vt.T * np.sqrt(at.s)
        return (at.P.T @ skew @ at.P - (X - X.T) / 2) / (2 + at.sums / 2)

    def rotated(self, X: np.ndarray, omega: np.ndarray) -> np.ndarray:
        return -omega @ X

    def retraction(self, X: np.ndarray, at: Spectrum, V: np.ndarray) -> np.ndarray:
        return X + V

    def gradient(self, X: np.ndarray, G: np.ndarray) -> np.ndarray:
        return G

    def hessian(self, X: np.ndarray, G: np.ndarray, H: np.ndarray, V: np.ndarray) -> np.ndarray:
        return H

    def strain(self, at: Spectrum, V: np.ndarray) -> np.ndarray:
        X = at.P.T @ V @ at.Vt.T * np.sqrt(at.s)
        return X + X.T

    def stiffness(self, at: Spectrum) -> np.ndarray:
        return at.sums + at.steps**2 / 4

    def unstrain(self, at: Spectrum, Y: np.ndarray) -> np.ndarray:
        return at.P @ (Y * np.sqrt(at.s)) @ at.Vt


class MergedCore:
    r"""`S`, any positive definite matrix, with the metric :math:`\operatorname{tr}(S^{-1}aS^{-1}b)` that inversion keeps."""

    def spectrum(self, X: np.ndarray) -> Spectrum:
        s, P = np.linalg.eigh(X)
        return _spectrum(P, np.maximum(s, _ROUNDED * s[-1]), np.zeros((len(s), 0)))

    def inner(self, at: Spectrum, a: np.ndarray, b: np.ndarray) -> float:
        A = at.P.T @ a @ at.P
        B = A if a is b else at.P.T @ b @ at.P
        return float(np.sum(A * B / np.multiply.outer(at.s, at.s)))

    def tangent(self, V: np.ndarray) -> np.ndarray:
        return (V + V.T) / 2

    def rotation(self, at: Spectrum, skew: np.ndarray, V: np.ndarray) -> np.ndarray:
        relative = -at.steps / np.multiply.outer(at.s, at.s)
        return (at.P.T @ skew @ at.P + relative * (at.P.T @ V @ at.P)) / (2 - relative * at.steps)

    def rotated(self, X: np.ndarray, omega: np.ndarray) -> np.ndarray:
        return X @ omega - omega @ X

    def retraction(self, X: np.ndarray, at: Spectrum, V: np.ndarray) -> np.ndarray:
        # Of the exponential map to second order; 1 + t + t**2 / 2 is positive for all t.
        W = V @ at.P / np.sqrt(at.s)
        T = X + V + W @ W.T / 2
        return (T + T.T) / 2

    def gradient(self, X: np.ndarray, G: np.ndarray) -> np.ndarray:
        return X @ self.tangent(G) @ X

    def hessian(self, X: np.ndarray, G: np.ndarray, H: np.ndarray, V: np.ndarray) -> np.ndarray:
        return X @ self.tangent(H) @ X + self.tangent(V @ self.tangent(G) @ X)

    def strain(self, at: Spectrum, V: np.ndarray) -> np.ndarray:
        return at.P.T @ V @ at.P

    def stiffness(self, at: Spectrum) -> np.ndarray:
        return np.add.outer(at.s**2, at.s**2) / 4

    def unstrain(self, at: Spectrum, Y: np.ndarray) -> np.ndarray:
        return at.P @ (Y * np.multiply.outer(at.s, at.s) / 2) @ at.P.T
