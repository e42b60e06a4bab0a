"""One run of a network that is too large for the compiled loop: products of matrices, and the rule on flat vectors."""

from __future__ import annotations

import numpy as np

from balancedfact.dynamics._draws import DRAWS_HELD, Draws
from balancedfact.dynamics._model import MapModel
from balancedfact.dynamics._rule import Rule
from balancedfact.dynamics._sampling import batch_gradient
from balancedfact.dynamics._training_kernel import ASCENT, AVERAGE


class Walker:
    """The layers, their random numbers and their work space."""

    def __init__(
        self, layers: list[np.ndarray], model: MapModel, rule: Rule, step: float, draws: Draws | None, stochastic: bool
    ) -> None:
        self.model, self.rule, self.step, self.draws = model, rule, step, draws
        self._batch = batch_gradient(model.A, layers[0].dtype) if stochastic else None
        self._sphered = rule.samples > 0
        self.when = -1
        self._limit = float(np.sqrt(np.finfo(layers[0].dtype).max))
        self._shapes = [w.shape for w in layers]
        self._ends = np.cumsum([w.size for w in layers])[:-1]
        self.flat = np.concatenate([w.ravel() for w in layers])
        self._current = self._views(self.flat)
        d = layers[0].shape[1]
        self._before = [np.empty((w.shape[0], d), w.dtype) for w in layers]
        self._carried = [np.empty((w.shape[0], d), w.dtype) for w in layers]
        self._slope, self._velocity, self._shift = (np.zeros_like(self.flat) for _ in range(3))
        self._gradients = self._views(self._slope)

    def _views(self, flat: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(shape) for part, shape in zip(np.split(flat, self._ends), self._shapes, strict=True)]

    def advance(self, start: int, stop: int) -> None:
        """Take the steps `start` to `stop`, fewer if the gradient overflows."""
        random = self.draws is not None and (self._batch is not None or self._sphered)
        most = max(1, DRAWS_HELD // self.draws.size) if random and self.draws else stop - start
        with np.errstate(over="ignore", invalid="ignore"):
            while start < stop and self.when < 0:
                end = min(stop, start + most)
                drawn = self.draws.take(end - start) if random and self.draws else None
                for iteration in range(start, end):
                    batch = directions = None
                    if drawn is not None:
                        index, labels, spheres = (part[iteration - start] for part in drawn)
                        batch = index, labels.astype(self.flat.dtype, copy=False)
                        directions = spheres.astype(self.flat.dtype, copy=False)
                    if not self._move(batch, directions):
                        self.when = iteration
                        return
                start = end

    def _move(self, batch: tuple[np.ndarray, np.ndarray] | None, directions: np.ndarray | None) -> bool:
        """Take one step; whether the gradient was finite."""
        rule = self.rule
        if rule.where == ASCENT:
            if rule.fresh:
                self._shift[:] = 0
            for once in range(rule.inner + 1):
                if not self._gradient(self._views(self.flat + self._shift), batch):
                    return False
                size = _length(self._slope)
                if once < rule.inner and size > 0:
                    self._shift = rule.radius * (self._slope / size)
        elif rule.where == AVERAGE:
            assert directions is not None
            total = np.zeros_like(self.flat)
            for way in directions:
                if not self._gradient(self._views(self.flat + rule.radius * (way / _length(way))), batch):
                    return False
                total += self._slope / len(directions)
            self._slope[:] = total
        elif not self._gradient(self._current, batch):
            return False
        slope = self._slope
        if rule.weight_decay:
            slope += rule.weight_decay * self.flat
        if rule.normalised and (size := _length(slope)) > 0:
            slope /= size
        if rule.momentum:
            self._velocity *= rule.momentum
            self._velocity += slope
            slope = self._velocity
        self.flat -= slope * self.flat.dtype.type(self.step)
        return True

    def _gradient(self, layers: list[np.ndarray], batch: tuple[np.ndarray, np.ndarray] | None) -> bool:
        """Write the gradient at these layers into the slope; whether it is finite."""
        before, carried = self._before, self._carried
        before[0] = layers[0]
        for k in range(1, len(layers)):
            np.matmul(layers[k], before[k - 1], out=before[k])
        if self._batch is not None:
            assert batch is not None
            index, labels = batch
            self._batch(before[-1], index, labels, 2 / index.size, carried[-1])
        else:
            carried[-1][:] = self.model.gradient(before[-1])
        if not np.abs(carried[-1]).sum() < self._limit:
            return False
        for k in range(len(layers) - 1, 0, -1):
            np.matmul(carried[k], before[k - 1].T, out=self._gradients[k])
            np.matmul(layers[k].T, carried[k], out=carried[k - 1])
        self._gradients[0][:] = carried[0]
        return True

    @property
    def diverged(self) -> np.ndarray:
        """The step at which the run overflowed, or -1."""
        return np.array([self.when])

    @property
    def layers(self) -> list[np.ndarray]:
        """The layers, with one leading axis."""
        return [layer[None].astype(np.float64) for layer in self._current]


def _length(vector: np.ndarray) -> float:
    """The norm, safe against under- and overflow of squares."""
    largest = float(np.abs(vector).max())
    return largest * float(np.linalg.norm(vector / largest)) if 0 < largest < np.inf else largest
