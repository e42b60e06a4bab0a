"""Training of many runs at once: compiled side by side where the networks are small, in NumPy one by one where they are not."""

from __future__ import annotations

import numbers
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._threads import cores
from balancedfact._validate import as_array, as_count, as_regular
from balancedfact.closed_forms._regression_sharpness import as_stack
from balancedfact.dynamics import _training_kernel as kernel
from balancedfact.dynamics._draws import DRAWS_HELD, Draws
from balancedfact.dynamics._large import Walker
from balancedfact.dynamics._model import MapModel, RegressionModel, regression_of, rows_of
from balancedfact.dynamics._observables import Observe, Recorder
from balancedfact.dynamics._rule import Rule
from balancedfact.dynamics._trajectory import Trajectory
from balancedfact.dynamics._vectors import aligned
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.solution import Status
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import OF_TRAINING, Log

OVERFLOW = 1e300
_DOUBLE = np.dtype(np.float64)

# Lanes of many runs and of some: sixteen networks of 250 weights stay in the first cache. A step of eight lanes together costs
# about as much as one of the third number of single runs.
_WIDE, _NARROW, _FEW_RUNS = 16, 8, 3
# Networks of more weights would not stay in the cache side by side; with several outputs, single runs are better off in NumPy
# beyond the second number. Measurements of more entries are not written out as rows.
_KERNEL_WEIGHTS, _SINGLE, _WRITTEN_ENTRIES = 4096, 8192, 4_000_000
_GLANCE = 0.1  # seconds between looks at a limit on time


@dataclass(frozen=True)
class StartingLayers:
    """Checked layers, one leading axis for the runs, and the leading axes that they came with."""

    layers: list[np.ndarray]
    lead: tuple[int, ...]

    @property
    def runs(self) -> int:
        return self.layers[0].shape[0]


def train(
    start: StartingLayers,
    model: MapModel | RegressionModel,
    rule: Rule,
    steps: np.ndarray,
    moments: np.ndarray,
    observe: Observe,
    draws: list[Draws] | None = None,
    dtype: np.dtype = _DOUBLE,
    limits: Limits | None = None,
) -> Trajectory:
    """Run the rule on every start, with what is drawn for it, and record at the moments, as far as the limits allow."""
    log = Log(progress=False, limits=limits, so_far=OF_TRAINING)
    stochastic = draws is not None and (draws[0].batch is not None or draws[0].noise.any)
    diverged, reached = np.full(start.runs, -1), [0]

    def begun() -> tuple[Recorder, Sequence[_Lanes | Walker], list[np.ndarray]]:
        shown = None
        if isinstance(model, MapModel) and draws is None:
            shown = regression_of(model.A, model.b, start.runs)
        recorder = Recorder(observe, shown or model, start.lead)
        blocks = _blocks(start, model, rule, steps, draws, stochastic, dtype)
        first = _joined(blocks, start.runs)
        recorder.record(first, alive(recorder, first, diverged))
        return recorder, blocks, first

    recorder, blocks, current = log.insist(begun)
    with log, ThreadPoolExecutor(max(1, min(len(blocks), cores()))) as pool:
        log.write("", {})
        for moment in moments[1:]:
            for first, stop in stretches(reached[-1], int(moment), log):
                if len(blocks) > 1:
                    list(pool.map(lambda block, first=first, stop=stop: block.advance(first, stop), blocks))
                else:
                    blocks[0].advance(first, stop)
            layers, lost = _joined(blocks, start.runs), np.concatenate([block.diverged for block in blocks])[: start.runs]
            recorder.record(layers, alive(recorder, layers, lost))
            current, diverged = layers, lost
            reached.append(stop)
            log.write("", {})
    recorder.drop_torn(reached)
    return finished(current, recorder, steps, np.array(reached), diverged, start.lead, log.ended)


def alive(recorder: Recorder, layers: list[np.ndarray], diverged: np.ndarray) -> np.ndarray:
    """Tell which runs have neither diverged nor a loss that overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray((diverged < 0) & (recorder.model.loss(layers) < OVERFLOW))


def stretches(first: int, end: int, log: Log) -> Iterator[tuple[int, int]]:
    """Parts of the steps from `first` to `end`: all at once, or with a limit on seconds, a tenth of a second at most each.

    Once time is up, they end where they are, to be recorded there.
    """
    if not log.timed:
        yield first, end
        return
    most = 1
    while first < end:
        stop, began = min(end, first + most), time.perf_counter()
        yield first, stop
        first = stop
        if log.late:
            return
        most = 2 * most if time.perf_counter() - began < _GLANCE / 2 else max(1, most // 2)


def _joined(blocks: Sequence[_Lanes | Walker], runs: int) -> list[np.ndarray]:
    return [np.concatenate(parts)[:runs] for parts in zip(*(block.layers for block in blocks), strict=True)]


def _blocks(
    start: StartingLayers,
    model: MapModel | RegressionModel,
    rule: Rule,
    steps: np.ndarray,
    draws: list[Draws] | None,
    stochastic: bool,
    dtype: np.dtype,
) -> Sequence[_Lanes | Walker]:
    runs, weights = start.runs, sum(layer[0].size for layer in start.layers)
    fits = isinstance(model, RegressionModel) or weights <= _KERNEL_WEIGHTS
    problem = _problem(start, model, stochastic, draws, dtype) if fits else None
    if problem is not None:
        single = problem.outputs * weights <= _SINGLE
        if isinstance(model, RegressionModel) or single or runs > _FEW_RUNS:
            lanes = 1 if runs <= _FEW_RUNS or weights > _KERNEL_WEIGHTS else _NARROW if runs <= 4 * _WIDE else _WIDE
            portions = [np.minimum(np.arange(first, first + lanes), runs - 1) for first in range(0, runs, lanes)]
            return [_Lanes(start.layers, problem, rule, steps, draws, chosen, runs, dtype) for chosen in portions]
    assert isinstance(model, MapModel)
    return [
        Walker(
            [layer[r].astype(dtype) for layer in start.layers],
            model,
            rule,
            float(steps[r]),
            draws[r] if draws is not None else None,
            stochastic,
        )
        for r in range(runs)
    ]


@dataclass(frozen=True)
class _Problem:
    """The loss as the kernel takes it; `flip` if the network is transposed so that its outputs are fewer than its inputs."""

    kind: int
    outputs: int
    flip: bool
    readout: np.ndarray  # (runs, outputs, d_L)
    sigma: np.ndarray  # (runs, d, d)
    goal: np.ndarray  # (runs, outputs, d)
    rows: np.ndarray  # (p, outputs * d)
    target: np.ndarray  # (p,)
    weight: float


def _problem(
    start: StartingLayers, model: MapModel | RegressionModel, stochastic: bool, draws: list[Draws] | None, dtype: np.dtype
) -> _Problem | None:
    runs = start.runs
    regression = regression_of(model.A, model.b, runs) if isinstance(model, MapModel) and not stochastic else model
    nothing = np.zeros((1, 1), dtype)
    if isinstance(regression, RegressionModel):
        readout, sigma, goal = regression.readout[:, None], regression.covariance, regression.w[:, None]
        return _Problem(kernel.COVARIANCE, 1, False, readout, sigma, goal, nothing, nothing[0], 0.0)
    assert isinstance(model, MapModel)
    A, m = model.A, model.A.m
    if m * A.matrix_shape[0] * A.matrix_shape[1] > _WRITTEN_ENTRIES:
        return None
    readout, rows = rows_of(A)  # (outputs, d_L) and (m, outputs, d_0)
    target, weight = model.b, 2 / m
    flip = readout.shape[0] == readout.shape[1] and readout.shape[0] > rows.shape[2]
    if flip:
        readout, rows = np.eye(rows.shape[2]), rows.transpose(0, 2, 1)
    outputs, d = rows.shape[1:]
    flat = np.ascontiguousarray(rows.reshape(m, -1))
    if stochastic:
        assert draws is not None
        weight = 2 / (draws[0].batch or m)
    elif m > flat.shape[1]:  # the same loss up to a constant, from fewer measurements
        Q, flat = np.linalg.qr(flat)
        target = Q.T @ target
    many = np.broadcast_to(readout, (runs, *readout.shape))
    empty, goal = np.zeros((runs, d, d), dtype), np.zeros((runs, outputs, d), dtype)
    kind = kernel.BATCH if stochastic else kernel.ALL
    return _Problem(kind, outputs, flip, many, empty, goal, flat.astype(dtype), target.astype(dtype), weight)


class _Lanes:
    """Runs side by side in the compiled loop."""

    def __init__(
        self,
        layers: list[np.ndarray],
        problem: _Problem,
        rule: Rule,
        steps: np.ndarray,
        draws: list[Draws] | None,
        chosen: np.ndarray,
        runs: int,
        dtype: np.dtype,
    ) -> None:
        self.kind, self.rule, self.dtype, self.flip = problem.kind, rule, dtype, problem.flip
        self.shapes = [layer.shape[1:] for layer in layers]
        # A last block that is not full repeats its last run, whose random numbers are drawn once.
        self.own = np.arange(chosen.size)[: runs - chosen[0]]
        self.draws = [draws[r] for r in chosen[self.own]] if draws is not None else None
        lanes = chosen.size
        self.lanes = (0,) * lanes
        oriented = [np.swapaxes(layer, -1, -2) for layer in layers[::-1]] if problem.flip else layers
        heights = [layer.shape[1] for layer in oriented]
        sizes = np.array([oriented[0].shape[2], *heights])
        offsets = np.cumsum([0, *(layer[0].size for layer in oriented)])
        flat = np.concatenate([layer[chosen].reshape(lanes, -1) for layer in oriented], axis=1)
        # Where each weight of the network as it was given lies.
        order = [np.arange(a, b).reshape(w.shape[1:]) for a, b, w in zip(offsets, offsets[1:], oriented, strict=False)]
        order = [each.T for each in order[::-1]] if problem.flip else order
        self.order = np.concatenate([each.ravel() for each in order])
        weights, n, q, widest = _last(flat, dtype), flat.shape[1], problem.outputs, int(sizes.max())
        extra = (n, lanes) if rule != Rule() else (1, lanes)
        self.state = (weights, *(aligned(extra, dtype) for _ in range(4)))
        C = aligned((sizes.size, q, widest, lanes), dtype)
        C[-1, :, : problem.readout.shape[2]] = np.moveaxis(problem.readout[chosen], 0, -1)
        F, work = aligned((sizes.size, widest, q, lanes), dtype), aligned((widest, lanes), dtype)
        self.scratch = C, F, work, aligned((lanes,), dtype)
        self.shape = sizes, offsets, float(np.sqrt(np.finfo(self.dtype).max))
        sigma, goal = _last(problem.sigma[chosen], dtype), _last(problem.goal[chosen], dtype)
        self.problem = problem.kind, sigma, goal, problem.rows, problem.target, self.dtype.type(problem.weight)
        self.runs = _last(steps[chosen], dtype), np.full(lanes, -1)
        self.none = (np.zeros((1, 1, lanes), np.int64), np.zeros((1, 1, lanes), self.dtype))

    def advance(self, start: int, stop: int) -> None:
        """Take the steps `start` to `stop`."""
        drawn = self.draws is not None and (self.kind == kernel.BATCH or self.rule.samples > 0)
        most = max(1, DRAWS_HELD // (self.draws[0].size * len(self.lanes))) if drawn and self.draws else stop - start
        while start < stop and not np.all(self.runs[1] >= 0):
            end = min(stop, start + most)
            draws = self._drawn(end - start) if drawn else (*self.none, np.zeros((1, 0, 1, len(self.lanes)), self.dtype))
            constants = self.lanes, self.state, self.shape, self.scratch, self.problem
            kernel.advance(*constants, draws, self.runs, self.rule.of_kernel, start, end)
            start = end

    def _drawn(self, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert self.draws is not None
        parts = [each.take(steps) for each in self.draws]
        parts += [parts[-1]] * (len(self.lanes) - len(parts))
        # Stacks keep the order of what they are made of, and the loop is compiled again for every order.
        index, labels, sphere = (np.ascontiguousarray(np.stack(each, axis=-1)) for each in zip(*parts, strict=True))
        if sphere.size and self.flip:
            turned = np.empty_like(sphere)
            turned[:, :, self.order] = sphere
            sphere = turned
        if self.kind != kernel.BATCH:
            index, labels = self.none
        return index, labels.astype(self.dtype, copy=False), sphere.astype(self.dtype, copy=False)

    @property
    def diverged(self) -> np.ndarray:
        """The step at which each run overflowed, or -1."""
        return self.runs[1]

    @property
    def layers(self) -> list[np.ndarray]:
        """The layers, shapes ``(lanes, d_k, d_{k-1})``."""
        flat = self.state[0].T.astype(np.float64)[:, self.order]
        ends = np.cumsum([rows * cols for rows, cols in self.shapes])[:-1]
        parts = np.split(flat, ends, axis=1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]


def _last(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    moved = np.moveaxis(array, 0, -1)
    out = aligned(moved.shape, dtype)
    out[...] = moved
    return out


def finished(
    layers: list[np.ndarray],
    recorder: Recorder,
    steps: np.ndarray,
    moments: np.ndarray,
    diverged: np.ndarray,
    lead: tuple[int, ...],
    ended: tuple[Status, str] | None = None,
) -> Trajectory:
    """Collect the results of a training run, which may have been stopped."""
    loss, series = recorder.results()
    with np.errstate(over="ignore"):  # a time beyond the range of numbers is infinite
        times = np.multiply.outer(steps, moments) if np.unique(steps).size > 1 else steps[0] * moments
    times = times.reshape(*lead, -1) if times.ndim > 1 else times
    lost = int(np.count_nonzero(diverged >= 0))
    message = f"Ran {moments[-1]} steps; {lost} of {diverged.size} diverged" if lost else f"Ran {moments[-1]} steps"
    folded = [layer.reshape(lead + layer.shape[1:]) for layer in layers]
    status, why = ended or (None, "")
    message += f". {why}" if why else ""
    return Trajectory(folded, times, loss, series, moments, diverged.reshape(lead), message, status)


def as_runs(layers: Sequence[ArrayLike], A: MeasurementMap) -> StartingLayers:
    """Checked layers that multiply to what `A` measures."""
    stack = as_stack(layers)
    found = (stack[-1].shape[-2], stack[0].shape[-1])
    if found != tuple(as_map(A).matrix_shape):
        raise ValueError(f"layers multiply to shape {found}; expected {tuple(A.matrix_shape)}")
    lead = stack[0].shape[:-2]
    if 0 in lead:
        raise ValueError(f"layers has leading axes {lead}; expected at least one run")
    return StartingLayers([layer.reshape(-1, *layer.shape[-2:]) for layer in stack], lead)


def as_steps(step: ArrayLike, lead: tuple[int, ...]) -> np.ndarray:
    """Checked step sizes, one for each run."""
    array = as_array(step, "step")
    if array.min() <= 0:
        raise ValueError(f"step is {array.min()}; expected more than 0")
    try:
        return np.broadcast_to(array, lead).ravel()
    except ValueError:
        raise ValueError(f"step has shape {array.shape}; expected one that broadcasts to {lead}") from None


def as_moments(record: int | Sequence[int] | None, iterations: int) -> np.ndarray:
    """The numbers of steps after which to record, from 0 to `iterations`."""
    last = as_count(iterations, "iterations", least=0)
    if record is None:
        every = max(1, last // 100)
    elif isinstance(record, numbers.Integral):
        every = as_count(record, "record")  # type: ignore[arg-type]
    else:
        chosen = as_regular(record, "record")
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or np.any(chosen < 0) or np.any(chosen > last):
            raise ValueError(f"record is {record!r}; expected numbers of steps from 0 to {last}")
        return np.union1d(chosen, [0, last])
    return np.union1d(np.arange(0, last + 1, every), [0, last])
