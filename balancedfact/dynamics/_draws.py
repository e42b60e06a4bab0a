"""Random draws of a step of training: a batch, noise on its labels, directions on a sphere."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_array, as_count, as_number, check_room

DRAWS_HELD = 1_000_000  # random numbers held at a time
_EIGENVALUES = 1e-12  # how negative an eigenvalue of a covariance may be, relative to the largest


@dataclass(frozen=True)
class Noise:
    """Noise on the labels: nothing, one standard deviation, one for every measurement, or a factor of the covariance."""

    deviation: np.ndarray
    factor: np.ndarray | None = None

    @property
    def any(self) -> bool:
        """Tell whether there is noise at all."""
        return bool(self.deviation.any()) or self.factor is not None


_LARGEST_NOISE = 1e150  # of label noise, whose square is a number of float64


def as_noise(value: ArrayLike, m: int) -> Noise:
    """Checked label noise: a standard deviation, ``(m,)`` of them, or a covariance ``(m, m)``."""
    array = as_array(value, "label_noise")
    if array.ndim == 0:
        return Noise(np.array(as_number(float(array), "label_noise", least=0, most=_LARGEST_NOISE)))
    if np.abs(array).max() > _LARGEST_NOISE:
        raise ValueError(f"label_noise has the entry {np.abs(array).max()}; expected at most {_LARGEST_NOISE}")
    if array.shape == (m,):
        if array.min() < 0:
            raise ValueError(f"label_noise has the entry {array.min()}; expected standard deviations of at least 0")
        return Noise(array)
    if array.shape != (m, m):
        raise ValueError(f"label_noise has shape {array.shape}; expected a number, ({m},) or ({m}, {m})")
    size = float(np.abs(array).max())
    if float(np.abs(array - array.T).max()) > 1e-12 * size:
        raise ValueError("label_noise is a matrix that is not symmetric; expected a covariance")
    values, vectors = np.linalg.eigh(array)
    if values[0] < -_EIGENVALUES * max(values[-1], size):
        raise ValueError(f"label_noise has the eigenvalue {values[0]:.3g}; expected a covariance, without negative ones")
    return Noise(np.zeros(()), vectors * np.sqrt(np.maximum(values, 0.0)))


class Draws:
    """The random numbers of one run, a number of steps at a time.

    A step draws ``integers(0, m, batch)`` unless the batch is everything, then, with noise, one standard normal number for each
    measurement of the batch (for all `m` where the noise has a covariance), then ``standard_normal((samples, weights))``.
    """

    def __init__(
        self, rng: np.random.Generator, b: np.ndarray, batch: int | None, noise: Noise, sphere: tuple[int, int]
    ) -> None:
        self.rng, self.b, self.batch, self.noise, self.sphere = rng, b, batch, noise, sphere
        self._normals = 0 if not noise.any else b.size if batch is None or noise.factor is not None else batch

    @property
    def size(self) -> int:
        """Numbers that a step needs."""
        return 2 * (self.batch or self.b.size) + self._normals + self.sphere[0] * self.sphere[1]

    def take(self, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The batches, their labels, and the directions, of the next steps."""
        index, normal = np.empty((steps, self.batch or 0), dtype=np.int64), np.empty((steps, self._normals))
        sphere = np.empty((steps, *self.sphere))
        _draw(self.rng, self.b.size, index, normal, sphere)
        if self.batch is None:
            index = np.broadcast_to(np.arange(self.b.size), (steps, self.b.size))
        labels = self.b[index]
        if self.noise.factor is not None:
            labels -= np.take_along_axis(normal @ self.noise.factor.T, index, axis=1)
        elif self.noise.any:
            labels -= (self.noise.deviation[index] if self.noise.deviation.ndim else self.noise.deviation) * normal
        return index, labels, sphere


@numba.njit(cache=True, nogil=True)
def _draw(rng, m, index, normal, sphere):  # type: ignore[no-untyped-def]
    for t in range(index.shape[0]):
        if index.shape[1] > 0:
            index[t] = rng.integers(0, m, index.shape[1])
        if normal.shape[1] > 0:
            normal[t] = rng.standard_normal(normal.shape[1])
        for s in range(sphere.shape[1]):
            sphere[t, s] = rng.standard_normal(sphere.shape[2])


def as_batch(batch: int | str) -> int | None:
    """A checked size of the batch; ``"all"``, here ``None``, means all measurements, each once."""
    if isinstance(batch, str) and batch == "all":
        return None
    size = as_count(batch, "batch")  # type: ignore[arg-type]
    check_room("batch", 3, size)
    return size
