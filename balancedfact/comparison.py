"""Every way to a factorization that fits the data, side by side on one problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, fields
from itertools import pairwise

import numpy as np
import pymanopt
from numpy.typing import ArrayLike
from rich.console import Console
from rich.table import Table

from balancedfact import closed_forms, curvature, dynamics, manifolds
from balancedfact._spectrum import numerical_rank, product_singular_values
from balancedfact._validate import as_array, as_count, as_rng
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Solution
from balancedfact.solvers import flat_minimum, norm_minimum, riemannian_minimum

# Sizes of the products of Gaussian starts, relative to the matrix of least nuclear norm; scale of residual starts.
_SMALL_START, _START, _RESIDUAL_SCALE = 1e-3, 0.3, 0.25
# Steps and batch of stochastic gradient descent, its step relative to the limit of stability, and the standard deviation of
# label noise relative to the root mean square of the data.
_STEPS, _BATCH, _CAUTION, _NOISE = 20_000, 50, 0.2, 0.3


@dataclass(frozen=True)
class ComparisonRow:
    """One way to a factorization and what it found.

    Attributes
    ----------
    method : str
        The way.
    fit : float
        Relative residual ``norm(A(E) - b) / norm(b)``.
    trace : float
        Trace of the Hessian of the mean squared error, at depth 2 the scaled trace of the Hessian of the squared error.
    isotropic_trace : float
        The surrogate `R(W)`.
    sharpness : float
        Largest eigenvalue of the Hessian of the mean squared error.
    nuclear_norm : float
        Of the end-to-end matrix.
    rank : int
        Numerical rank of the end-to-end matrix.
    imbalance : float
        Largest ``norm(W_{k+1}.T W_{k+1} - W_k W_k.T)``, relative to the largest squared norm of a layer.
    rank_one : float
        Least share of the squared norm of a layer that lies in its leading singular value, over the layers.
    alignment : float
        Least squared cosine between leading singular vectors of neighbouring layers.
    error : float
        Relative distance to the truth, ``nan`` without one.
    seconds : float
        Wall time.
    note : str
        The solver's verdict, or how the run ended.
    layers : list of numpy.ndarray
        ``[W_1, ..., W_L]``.
    """

    method: str
    fit: float
    trace: float
    isotropic_trace: float
    sharpness: float
    nuclear_norm: float
    rank: int
    imbalance: float
    rank_one: float
    alignment: float
    error: float
    seconds: float
    note: str
    layers: list[np.ndarray] = field(repr=False)


_HEADINGS = {
    "method": "",
    "fit": "residual",
    "trace": "trace",
    "isotropic_trace": "R(W)",
    "sharpness": "sharpness",
    "nuclear_norm": "nuclear",
    "rank": "rank",
    "imbalance": "imbalance",
    "rank_one": "rank one",
    "alignment": "aligned",
    "error": "error",
    "seconds": "seconds",
}


@dataclass(frozen=True)
class Comparison:
    """The table of `compare`.

    Attributes
    ----------
    rows : list of ComparisonRow
        One per method.
    depth : int
        Number of layers.
    """

    rows: list[ComparisonRow]
    depth: int

    def __getitem__(self, method: str) -> ComparisonRow:
        """The row of a method."""
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(method)

    def to_dict(self) -> dict[str, object]:
        """The table as plain data, without the layers."""
        names = [each.name for each in fields(ComparisonRow) if each.name != "layers"]
        return {"depth": self.depth, "rows": [{name: getattr(row, name) for name in names} for row in self.rows]}

    def __str__(self) -> str:
        known = not all(np.isnan(row.error) for row in self.rows)
        columns = [name for name in _HEADINGS if known or name != "error"]
        table = Table(box=None, pad_edge=False)
        for name in columns:
            table.add_column(_HEADINGS[name], justify="left" if name == "method" else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*(_text(getattr(row, name)) for name in columns))
        console = Console(width=160, color_system=None)
        with console.capture() as text:
            console.print(table)
        return text.get().rstrip()


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def compare(
    A: MeasurementMap,
    b: ArrayLike,
    depth: int = 2,
    *,
    truth: ArrayLike | None = None,
    rng: int | np.random.Generator | None = None,
) -> Comparison:
    r"""Put every way to a factorization that fits the data side by side.

    The rows are, in this order:

    - **analytic**: the closed-form layers for the matrix of least nuclear norm that fits; the flat pair at depth 2, the
      layers of least :math:`R(W)` beyond;
    - **certified**: `flat_minimum`;
    - **Riemannian**: a search on a manifold from a random start, over rescaled-balanced pairs at depth 2 and over the layers
      of zero loss beyond;
    - **flow, small start** and, for square matrices, **flow, residual start**: where gradient flow ends;
    - **SGD** and **label-noise SGD**: the same steps from the same start, without and with noise on the labels, and then half
      as many without.

    Parameters
    ----------
    A : MeasurementMap
        `m` measurements of ``d1 x d2`` matrices.
    b : array_like, shape (m,)
        The data; some matrix should fit them exactly.
    depth : int
        Number of layers.
    truth : array_like, shape (d1, d2), optional
        The matrix that was measured, if it is known.
    rng : int or numpy.random.Generator, optional
        Seed or generator of starts, batches and noise.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If an argument is malformed, or the data are zero or contradict one another.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.standard_normal((6, 1)) @ rng.standard_normal((1, 6))
    >>> A = bf.measurements.gaussian(30, truth.shape, rng)
    >>> table = bf.compare(A, A(truth), truth=truth, rng=1)
    >>> [row.method for row in table.rows if row.error < 1e-3][:3]
    ['analytic', 'certified', 'Riemannian']
    """
    if not isinstance(A, MeasurementMap):
        raise ValueError(f"A is {type(A).__name__}; expected a measurement map such as bf.measurements.Dense")
    data, layers = as_array(b, "b", shape=(A.m,)), as_count(depth, "depth", least=2)
    known = None if truth is None else as_array(truth, "truth", shape=A.matrix_shape)
    if not data.any():
        raise ValueError("b is zero; every way leads to the zero matrix")
    ways = _Ways(A, data, layers, as_rng(rng))
    rows = []
    for name, way in ways.all():
        start = time.perf_counter()
        found, note = way()
        rows.append(_row(name, found, A, data, known, time.perf_counter() - start, note))
    return Comparison(rows, layers)


Way = Callable[[], tuple[list[np.ndarray], str]]


class _Ways:
    """The ways, each a function without arguments that returns layers and a note."""

    def __init__(self, A: MeasurementMap, b: np.ndarray, depth: int, rng: np.random.Generator) -> None:
        self.A, self.b, self.depth = A, b, depth
        self.least = norm_minimum(A, b)
        if not np.isfinite(self.least.value):
            raise ValueError(f"b contradicts itself: {self.least.message}")
        self.seeds = rng.spawn(4)
        d1, d2 = A.matrix_shape
        self.width = min(d1, d2)
        self.widths = [d2, *[self.width] * (depth - 1), d1]

    def all(self) -> Iterator[tuple[str, Way]]:
        yield "analytic", self.analytic
        yield "certified", self.certified
        yield "Riemannian", self.riemannian
        yield "flow, small start", self.small_flow
        if self.A.matrix_shape[0] == self.A.matrix_shape[1]:
            yield "flow, residual start", self.residual_flow
        yield "SGD", lambda: self.descent(0.0)
        yield "label-noise SGD", lambda: self.descent(_NOISE * float(np.sqrt(np.mean(self.b**2))))

    def analytic(self) -> tuple[list[np.ndarray], str]:
        M = self.least.matrix
        if self.depth == 2:
            L, R = closed_forms.flat_pair(M, self.A)
            return [R.T, L], "closed form"
        rank = self.least.layers[0].shape[0]
        return closed_forms.min_isotropic_layers(M, [M.shape[1], *[rank] * (self.depth - 1), M.shape[0]]), "closed form"

    def certified(self) -> tuple[list[np.ndarray], str]:
        solution = flat_minimum(self.A, self.b, self.depth, rng=self.seeds[0])
        return solution.layers, solution.status.value

    def riemannian(self) -> tuple[list[np.ndarray], str]:
        if self.depth == 2:
            solution = flat_minimum(self.A, self.b, method="riemannian", rng=self.seeds[1])
        else:
            solution = _least_trace_of_zero_loss(self.A, self.b, self.widths, self.seeds[1])
        return solution.layers, solution.status.value

    def small_flow(self) -> tuple[list[np.ndarray], str]:
        return self.flow(self.start(_SMALL_START, self.seeds[2]))

    def residual_flow(self) -> tuple[list[np.ndarray], str]:
        return self.flow(dynamics.residual_layers(self.width, self.depth, _RESIDUAL_SCALE, self.seeds[2]))

    def flow(self, start: list[np.ndarray]) -> tuple[list[np.ndarray], str]:
        end = dynamics.gradient_flow(start, self.A, self.b, rtol=1e-5, stationarity=1e-9, observe=())
        return end.layers, end.message

    def descent(self, noise: float) -> tuple[list[np.ndarray], str]:
        """SGD from a start of ordinary size, with a step that the curvature of the analytic layers allows."""
        analytic, _ = self.analytic()
        batch = min(_BATCH, self.A.m)
        curved = curvature.sharpness(analytic, self.A, self.b) + curvature.trace(analytic, self.A) / batch
        rng = deepcopy(self.seeds[3])  # the same start with and without noise
        layers = self.start(_START, rng)
        for label_noise, steps in ((noise, _STEPS), (0.0, _STEPS // 2)):
            run = dynamics.sgd(
                layers, self.A, self.b, step=_CAUTION / curved, iterations=steps, batch=batch, label_noise=label_noise, rng=rng
            )
            layers = run.layers
        return layers, f"step {_CAUTION / curved:.2g}" + (", diverged" if run.diverged >= 0 else "")

    def start(self, size: float, rng: np.random.Generator) -> list[np.ndarray]:
        """Gaussian layers whose product has about `size` times the norm of the matrix of least nuclear norm."""
        layer = (size * float(np.linalg.norm(self.least.matrix, 2))) ** (1 / self.depth)
        return dynamics.gaussian_layers(self.widths, layer / np.sqrt(4 * self.width), rng)


def _least_trace_of_zero_loss(A: MeasurementMap, b: np.ndarray, widths: list[int], rng: np.random.Generator) -> Solution:
    """The least trace of the Hessian by trust regions on the layers that fit, from a random start."""
    manifold = manifolds.ZeroLoss(A, b, widths, rng=rng)
    moment = A.second_moment()
    problem = pymanopt.Problem(
        manifold,
        pymanopt.function.numpy(manifold)(lambda *layers: curvature.trace(layers, moment)),
        euclidean_gradient=pymanopt.function.numpy(manifold)(lambda *layers: curvature.trace_gradient(layers, moment)),
        euclidean_hessian=pymanopt.function.numpy(manifold)(
            lambda *both: curvature.trace_hessian_vector_product(both[: len(both) // 2], both[len(both) // 2 :], moment)
        ),
    )
    return riemannian_minimum(problem, tol=1e-6, rng=rng, progress=False)


def _row(
    name: str,
    layers: list[np.ndarray],
    A: MeasurementMap,
    b: np.ndarray,
    truth: np.ndarray | None,
    seconds: float,
    note: str,
) -> ComparisonRow:
    E = np.linalg.multi_dot(layers[::-1])
    s = product_singular_values(layers)
    factors = [np.linalg.svd(layer, full_matrices=False) for layer in layers]
    sizes = [float(np.sum(values**2)) or 1.0 for _, values, _ in factors]
    gaps = [above.T @ above - below @ below.T for below, above in pairwise(layers)]
    cosines = [float(above[2][0] @ below[0][:, 0]) ** 2 for below, above in pairwise(factors)]
    scaled = len(layers) == 2
    return ComparisonRow(
        name,
        fit=float(np.linalg.norm(A(E) - b) / np.linalg.norm(b)),
        trace=curvature.scaled_trace(layers[1], layers[0].T, A) if scaled else curvature.trace(layers, A),
        isotropic_trace=curvature.isotropic_trace(layers),
        sharpness=float(curvature.sharpness(layers, A, b)),
        nuclear_norm=float(s.sum()),
        rank=numerical_rank(s),
        imbalance=max(float(np.linalg.norm(gap)) for gap in gaps) / max(sizes),
        rank_one=min(float(values[0] ** 2) / size for (_, values, _), size in zip(factors, sizes, strict=True)),
        alignment=min(cosines),
        error=np.nan if truth is None else float(np.linalg.norm(E - truth) / np.linalg.norm(truth)),
        seconds=seconds,
        note=note,
        layers=layers,
    )
