"""A training rule as a value: where the gradient is taken, and what is done with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from balancedfact._validate import as_choice, as_count, as_number
from balancedfact.dynamics._training_kernel import ASCENT, AVERAGE, HERE

DIRECTIONS = ("ascent", "worst", "average")


@dataclass(frozen=True)
class Rule:
    """One step: ``g`` at or near the weights, plus ``decay * W``; normalised; ``v = momentum * v + g``; ``W -= step * v``."""

    momentum: float = 0.0
    weight_decay: float = 0.0
    normalised: bool = False
    where: int = HERE
    radius: float = 0.0
    inner: int = 1
    fresh: bool = True
    samples: int = 0

    @property
    def of_kernel(self) -> tuple[float, float, bool, int, float, int, bool]:
        """The numbers that the loops take."""
        return self.momentum, self.weight_decay, self.normalised, self.where, self.radius, self.inner, self.fresh


def as_rule(momentum: float, weight_decay: float, normalised: bool) -> Rule:
    """A checked rule that takes the gradient at the weights."""
    if not isinstance(normalised, bool):
        raise ValueError(f"normalised is {normalised!r}; expected True or False")
    speed, decay = as_number(momentum, "momentum", least=0), as_number(weight_decay, "weight_decay", least=0)
    if speed >= 1:
        raise ValueError(f"momentum is {speed}; expected less than 1")
    return Rule(speed, decay, normalised)


def as_aware_rule(plain: Rule, radius: float, direction: str, inner: int, samples: int) -> Rule:
    """The same rule with the gradient taken within a ball around the weights."""
    as_choice(direction, "direction", list(DIRECTIONS))
    size, times, drawn = as_number(radius, "radius", above=0), as_count(inner, "inner"), as_count(samples, "samples")
    kept = {"momentum": plain.momentum, "weight_decay": plain.weight_decay, "normalised": plain.normalised}
    options: dict[str, Any] = kept | {"radius": size}
    if direction == "average":
        return Rule(**options, where=AVERAGE, samples=drawn)
    return Rule(**options, where=ASCENT, inner=times if direction == "worst" else 1, fresh=direction == "ascent")
