"""The objective of a solve, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """Objective of a solve, so that its certificate can be computed anew.

    Attributes
    ----------
    kind : str
        ``"flat"`` (`balancedfact.flat_minimum`), ``"norm"`` (`balancedfact.norm_minimum`) or ``"sharpness"``
        (`balancedfact.flattest_sharpness`).
    penalty : float
        The penalty; 0 interpolates.
    offset_penalty : float, optional
        The weight of the squares of offsets.
    depth : int
        The number of layers.
    """

    kind: str
    penalty: float = 0.0
    offset_penalty: float | None = None
    depth: int = 2

    @property
    def flat(self) -> bool:
        """Tell whether the pair is flat, or of least norm."""
        return self.kind == "flat"

    def weight(self, m: int) -> float:
        """Factor of the nuclear norm in the objective where `m` data are interpolated."""
        return 4.0 * m if self.flat else 2.0
