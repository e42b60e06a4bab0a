r"""The blocks of the Hessian of the isotropic trace that belong to single layers, and their inverses.

With :math:`B_j = W_j\cdots W_1`, :math:`C_j = W_L\cdots W_{j+1}` and :math:`R(W) = \sum_i\|C_i\|^2\|B_{i-1}\|^2`,

.. math:: \nabla^2_{jj}R\,[V] = 2\big(C_j^\top C_jVS_j + T_jVB_{j-1}B_{j-1}^\top\big),

.. math:: S_{j+1} = W_jS_jW_j^\top + \|B_{j-1}\|^2I, \quad S_1 = 0, \qquad
          T_{j-1} = W_j^\top T_jW_j + \|C_j\|^2I, \quad T_L = 0.

Bases in which the two matrices on either side are diagonal make each block diagonal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from balancedfact.manifolds._layers import Layers, products

_BLOCK_FLOOR = 0.1  # what is added to the curvatures of a block, relative to its largest: some directions have none


class Block(NamedTuple):
    """One layer: ``V = left @ Y @ right.T`` has the curvature ``sum(curvature * Y**2)``."""

    left: np.ndarray
    right: np.ndarray
    curvature: np.ndarray

    def inverse(self, Z: np.ndarray) -> np.ndarray:
        """The inverse of the block."""
        return np.asarray(self.left @ ((self.left.T @ Z @ self.right) / self.curvature) @ self.right.T)


def trace_blocks(layers: Layers) -> list[Block]:
    """The block of every layer."""
    before, after = products(layers)
    S: list[np.ndarray | None] = [None]
    T: list[np.ndarray | None] = [None]
    for W, B in zip(layers[:-1], before, strict=False):
        S.append(_passed(W, S[-1], B))
    for W, C in zip(layers[:0:-1], after[::-1], strict=False):
        T.append(_passed(W.T, T[-1], C))
    blocks = []
    for B, C, s, t in zip(before[:-1], after[1:], S, T[::-1], strict=True):
        left, a, from_t = _diagonal(C.T @ C, t)
        right, b, from_s = _diagonal(B @ B.T, s)
        curvature = 2 * (from_s * a[:, None] + from_t * b)
        blocks.append(Block(left, right, curvature + _BLOCK_FLOOR * curvature.max()))
    return blocks


def _passed(W: np.ndarray, inner: np.ndarray | None, factor: np.ndarray) -> np.ndarray:
    """The matrix `inner` seen through a layer, and the square of a product as a multiple of the identity."""
    total = float(np.vdot(factor, factor)) * np.eye(len(W))
    return total if inner is None else total + W @ inner @ W.T


def _diagonal(M: np.ndarray, N: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, float]:
    """A basis `F` with ``F.T @ N @ F`` the identity and ``F.T @ M @ F`` diagonal; that diagonal, and 1.

    Without `N`, which is zero then, `M` is the identity, and 0 is in place of the 1.
    """
    if N is None:
        return np.eye(len(M)), np.ones(len(M)), 0.0
    values, basis = scipy.linalg.eigh(M, N)
    return basis, np.maximum(values, 0.0), 1.0
