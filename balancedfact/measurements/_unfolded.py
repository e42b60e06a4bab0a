"""The unfolded measurements, from which roots and certificates are computed without squaring."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from balancedfact.measurements._careful import careful_combination, careful_gram, gamma
from balancedfact.measurements._rescaling import rank_at_most, row_blocks, triangle


class Unfolded(ABC):
    r"""The two unfoldings of a map, and sums over the measurements with bounds on their rounding.

    All is right for every map; a kind of map overrides what its structure makes cheaper.
    """

    matrix_shape: tuple[int, int]

    @abstractmethod
    def stack(self) -> np.ndarray:
        """The matrices :math:`A_i` stacked, shape ``(m, d1, d2)``."""

    @abstractmethod
    def forward_factored(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        r"""The measurements :math:`\mathcal A(L R^\top)`."""

    def unfolding(self, side: int) -> tuple[np.ndarray, float]:
        r"""A matrix `N` with ``N.T @ N`` the moment :math:`\sum_i A_iA_i^\top` (`side` 0) or :math:`\sum_i A_i^\top A_i` (1).

        With it a bound on the relative error of its entries.
        """
        stack = self.stack()
        return (stack.transpose(0, 2, 1) if side == 0 else stack).reshape(-1, self.matrix_shape[side]), 0.0

    def identity_factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Triangles with the Gram matrices of the two unfoldings, or the root alone of a Gram matrix that is diagonal."""
        left, right = (triangle(row_blocks(self.unfolding(side)[0])) for side in (0, 1))
        return left, right

    def rank_bounds(self) -> tuple[int, int]:
        """Upper bounds on the ranks of `D1` and `D2` that hold in exact arithmetic."""
        left, right = (rank_at_most(self.unfolding(side)[0]) for side in (0, 1))
        return left, right

    def image_squares(self, U: np.ndarray, V: np.ndarray) -> np.ndarray:
        r"""The squared norms :math:`\|\mathcal A(u_jv_j^\top)\|^2` for the columns of `U` and `V`."""
        images = (self.forward_factored(u[:, None], v[:, None]) for u, v in zip(U.T, V.T, strict=True))
        return np.array([image @ image for image in images])

    # Sums with bounds on their rounding, for certificates; of a map at unit scale.

    def careful_gram(self, T: np.ndarray, side: int) -> tuple[np.ndarray, float]:
        """``T.T @ moment @ T`` for the moment of `unfolding`, and a bound on the Frobenius norm of its error."""
        return careful_gram(*self.unfolding(side), T)

    def careful_adjoint(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The adjoint, and bounds on the errors of its entries."""
        return careful_combination(y, self.stack().transpose(1, 0, 2))

    def careful_forward(self, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r"""The measurements of ``L @ R.T``, and bounds on their errors."""
        (d1, d2), size = self.matrix_shape, np.abs(L) @ np.abs(R).T
        sizes = np.einsum("ipq,pq->i", np.abs(self.stack()), size)
        return self.forward_factored(L, R), gamma(d1 + d2 + L.shape[1]) * sizes
