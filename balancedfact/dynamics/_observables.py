"""Quantities to watch during training: by name, or any function of the layers of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from balancedfact.dynamics._model import Model, product, unstacked

Observe = Iterable[str] | Mapping[str, Callable[[list[np.ndarray]], Any]]


def norms(layers: list[np.ndarray]) -> np.ndarray:
    """Frobenius norms of the layers, shape ``(runs, L)``."""
    return np.stack([np.linalg.norm(layer, axis=(-2, -1)) for layer in layers], axis=-1)


def spectral_norms(layers: list[np.ndarray]) -> np.ndarray:
    """Largest singular values of the layers, shape ``(runs, L)``."""
    return np.stack([np.linalg.svd(layer, compute_uv=False)[..., 0] for layer in layers], axis=-1)


def alignment(layers: list[np.ndarray]) -> np.ndarray:
    r"""Squared cosines :math:`\langle v_{k+1}, u_k\rangle^2` of leading singular vectors, shape ``(runs, L - 1)``."""
    factors = [np.linalg.svd(layer, full_matrices=False) for layer in layers]
    if len(layers) == 1:
        return np.empty((layers[0].shape[0], 0))
    pairs = zip(factors[1:], factors, strict=False)
    return np.stack([np.sum(above[2][..., 0, :] * below[0][..., :, 0], axis=-1) ** 2 for above, below in pairs], axis=-1)


def imbalance(layers: list[np.ndarray]) -> np.ndarray:
    r"""Largest :math:`\|W_{k+1}^\top W_{k+1} - W_kW_k^\top\|_F`, shape ``(runs,)``."""
    return np.max([np.linalg.norm(gap, axis=(-2, -1)) for gap in balances(layers)], axis=0, initial=0.0)


def nuclear_norm(layers: list[np.ndarray]) -> np.ndarray:
    """Nuclear norm of the end-to-end matrix, shape ``(runs,)``."""
    return np.linalg.svd(product(layers), compute_uv=False).sum(axis=-1)


def balances(layers: list[np.ndarray]) -> list[np.ndarray]:
    r"""The matrices :math:`W_{k+1}^\top W_{k+1} - W_kW_k^\top`, which gradient flow conserves."""
    pairs = zip(layers[1:], layers, strict=False)
    return [np.swapaxes(above, -1, -2) @ above - below @ np.swapaxes(below, -1, -2) for above, below in pairs]


_OF_LAYERS = {
    "norms": norms,
    "spectral_norms": spectral_norms,
    "alignment": alignment,
    "imbalance": imbalance,
    "nuclear_norm": nuclear_norm,
}
_OF_MODEL = ("distance", "sharpness", "trace")


class Recorder:
    """Collects the loss and the chosen series at chosen moments."""

    def __init__(self, observe: Observe, model: Model, lead: tuple[int, ...]) -> None:
        self.functions = _functions(observe, model)
        self.model, self.lead = model, lead
        self.loss: list[np.ndarray] = []
        self.series: dict[str, list[np.ndarray]] = {name: [] for name in self.functions}

    def record(self, layers: list[np.ndarray], alive: np.ndarray) -> None:
        """Record stacked layers, of which only the runs that are `alive` are looked at."""
        # Finite numbers stand in for the runs that diverged, so that every run keeps its place.
        kept = layers if alive.all() else [np.where(alive[:, None, None], layer, 0.0) for layer in layers]
        self.loss.append(_where(alive, self.model.loss(kept), np.inf))
        for name, function in self.functions.items():
            self.series[name].append(_where(alive, np.asarray(function(kept), dtype=float), np.nan))

    def drop_torn(self, *series: list[Any]) -> None:
        """Forget a record within which the run was stopped, here and in other `series` of the same records."""
        lists = [self.loss, *self.series.values(), *series]
        whole = min(map(len, lists))
        for values in lists:
            del values[whole:]

    def results(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The loss, shape ``(*lead, records)``, and the series, shape ``(*lead, records, ...)``."""
        return self._folded(self.loss), {name: self._folded(values) for name, values in self.series.items()}

    def _folded(self, values: list[np.ndarray]) -> np.ndarray:
        stacked = np.stack(values, axis=1)
        return stacked.reshape(self.lead + stacked.shape[1:])


def _functions(observe: Observe, model: Model) -> dict[str, Callable[[list[np.ndarray]], Any]]:
    if isinstance(observe, Mapping):
        for name, function in observe.items():
            if not callable(function):
                raise ValueError(f"observe has {function!r} for {name!r}; expected a function of the layers")
        return {name: _each_run(function) for name, function in observe.items()}
    if isinstance(observe, str):
        observe = (observe,)
    known = sorted([*_OF_LAYERS, *(name for name in _OF_MODEL if hasattr(model, name))])
    try:
        names = list(observe)
    except TypeError:
        raise ValueError(f"observe is {observe!r}; expected names among {known}, or a dictionary of functions") from None
    functions: dict[str, Callable[[list[np.ndarray]], Any]] = {}
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"observe has {name!r}; expected names among {known}, or a dictionary of functions")
        if name in _OF_LAYERS:
            functions[name] = _OF_LAYERS[name]
        else:
            functions[name] = getattr(model, name)
    return functions


def _each_run(function: Callable[[list[np.ndarray]], Any]) -> Callable[[list[np.ndarray]], Any]:
    return lambda layers: np.stack([np.asarray(function(one), dtype=float) for one in unstacked(layers)])


def _where(alive: np.ndarray, values: np.ndarray, missing: float) -> np.ndarray:
    return np.where(alive.reshape(-1, *(1,) * (values.ndim - 1)), values, missing)
