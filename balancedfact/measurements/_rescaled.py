"""The roots of the two moments of a map, and products with them, at the scale at which squares neither overflow nor vanish."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import numpy as np

from balancedfact.measurements._rescaling import DiagonalRoot, FullRoot, root
from balancedfact.measurements._unfolded import Unfolded


class Rescaled(Unfolded):
    """`D1` and `D2` of a map at unit scale."""

    m: int

    @abstractmethod
    def at_unit_scale(self) -> Rescaled:
        """The map with matrices ``A_i / scale``."""

    @cached_property
    def _roots(self) -> tuple[FullRoot | DiagonalRoot, FullRoot | DiagonalRoot]:
        """The roots ``D1 / scale`` and ``D2 / scale``."""
        d1, d2 = self.matrix_shape
        left, right = self.at_unit_scale().identity_factors()
        return root(left / np.sqrt(d2 * self.m)), root(right / np.sqrt(d1 * self.m))

    @cached_property
    def uncertain(self) -> int:
        """The number of directions that rounding cannot tell from ones that no measurement sees."""
        if all(each.rank == each.size for each in self._roots):
            return 0
        return sum(most - each.rank for most, each in zip(self.at_unit_scale().rank_bounds(), self._roots, strict=True))

    @property
    def left_root(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues and eigenvectors of ``D1 / scale``, zero eigenvalues exactly zero."""
        return self._roots[0].eigen

    @property
    def right_root(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues and eigenvectors of ``D2 / scale``, zero eigenvalues exactly zero."""
        return self._roots[1].eigen

    def rescale_left(self, L: np.ndarray) -> np.ndarray:
        """The product ``D1 @ L / scale``, without forming `D1` where it is diagonal."""
        return self._roots[0].times(L)

    def rescale_right(self, R: np.ndarray) -> np.ndarray:
        """The product ``D2 @ R / scale``, without forming `D2` where it is diagonal."""
        return self._roots[1].times(R)
