"""Label noise against plain mini-batch gradient descent on matrix sensing: Figures 1 and 2 of Gatmiry et al."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from balancedfact import curvature, dynamics, measurements
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import legend_below, magnified, plain_ticks
from balancedfact.solvers import flat_minimum, induced_regularizer, norm_minimum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NOISY, _PLAIN = "label noise", "mini-batch"


class Sensing(NamedTuple):
    """Gaussian measurements of a low-rank matrix."""

    A: measurements.Dense
    b: np.ndarray
    truth: np.ndarray


def sensing(settings: Settings) -> Sensing:
    """Standard normal measurements of ``M_1 M_2 / d`` with standard normal factors."""
    d, m, rank = settings["size"], settings["measurements"], settings["rank"]
    rng = np.random.default_rng([settings["seed"], m, d])
    A = measurements.gaussian(m, (d, d), rng=rng)
    truth = rng.standard_normal((d, rank)) @ rng.standard_normal((rank, d)) / d
    return Sensing(A, A(truth), truth)


def start(settings: Settings, depth: int, repetition: int) -> list[np.ndarray]:
    """Gaussian layers, the same for both algorithms; the standard deviation is in units of ``1 / sqrt(d)``."""
    d, scale = settings["size"], dict(settings["depths"])[depth]
    rng = np.random.default_rng([settings["seed"], depth, repetition])
    return dynamics.gaussian_layers([d] * (depth + 1), scale / np.sqrt(d), rng)


def stages(settings: Settings, algorithm: str) -> list[tuple[float, int]]:
    """Step sizes and how many steps are taken with each: the published one, then, with label noise, a geometric decay."""
    step = settings["step"]
    if algorithm == _PLAIN:
        return [(step, settings["plain_iterations"])]
    count, length = settings["decay_stages"], settings["stage"]
    factors = [settings["decay_to"] ** ((k + 1) / count) for k in range(count)]
    return [(step, length)] * settings["stages"] + [(step * factor, length) for factor in factors]


def units(settings: Settings) -> list[Row]:
    """One run each, the deepest first because they take longest; the reference values of each depth."""
    depths = [depth for depth, _ in settings["depths"]][::-1]
    runs: list[Row] = [
        {"kind": "run", "depth": depth, "algorithm": algorithm, "repetition": repetition}
        for depth in depths
        for algorithm in (_NOISY, _PLAIN)
        for repetition in range(settings["repetitions"])
    ]
    return [*({"kind": "reference", "depth": depth} for depth in depths), *runs]


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """Run one unit of work."""
    if unit["kind"] == "reference":
        return _references(settings, unit["depth"])
    return _train(settings, unit, rng)


def _train(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    data, depth = sensing(settings), unit["depth"]
    moment = data.A.second_moment()
    observe = {
        "test": lambda layers: np.sum((_product(layers) - data.truth) ** 2),
        "trace": lambda layers: curvature.trace(layers, moment),
        "nuclear_norm": lambda layers: np.linalg.norm(_product(layers), "nuc"),
    }
    rows: list[Row] = []
    layers, taken = start(settings, depth, unit["repetition"]), 0
    for step, iterations in stages(settings, unit["algorithm"]):
        part = dynamics.sgd(
            layers,
            data.A,
            data.b,
            step=step,
            iterations=iterations,
            batch=settings["batch"],
            label_noise=settings["noise"] if unit["algorithm"] == _NOISY else 0.0,
            rng=rng,
            record=_moments(settings["every"], iterations, early=not rows),
            observe=observe,
        )
        series = zip(part.iterations, part.loss, *(part[name] for name in observe), strict=True)
        new = [
            unit | {"iteration": taken + at, "step": step, "train": loss} | dict(zip(observe, values, strict=True))
            for at, loss, *values in series
        ]
        rows += new[1:] if rows else new  # a stage begins where the last one ended
        layers, taken = part.layers, taken + iterations
        if part.diverged >= 0:
            break
        if unit["repetition"] == 0:
            rows[-1]["flattest_trace"] = induced_regularizer(_product(layers), data.A, depth, tol=1e-6).value
    return rows


def _moments(every: int, iterations: int, *, early: bool) -> list[int]:
    """Equally spaced moments, and more at the beginning of a run."""
    first = [every // 32, every // 16, every // 8, every // 4, every // 2] if early else []
    return sorted({0, *first, *range(every, iterations, every), iterations})


def _product(layers: list[np.ndarray]) -> np.ndarray:
    return np.linalg.multi_dot(layers[::-1])


def _references(settings: Settings, depth: int) -> list[Row]:
    """The interpolators of least nuclear norm and of least trace; at depth 2 also where label noise should settle."""
    data = sensing(settings)
    small = norm_minimum(data.A, data.b, tol=settings["tol"], progress=False).matrix
    flat = flat_minimum(data.A, data.b, depth, tol=settings["tol"], rng=settings["seed"], progress=False)
    found = {"least nuclear norm": small, "flattest": flat.matrix}
    if depth == 2:
        found["penalized"] = _penalized(settings, data)
    return [
        {
            "kind": "reference",
            "depth": depth,
            "name": name,
            "train": np.mean((data.A(E) - data.b) ** 2),
            "test": np.sum((E - data.truth) ** 2),
            "trace": induced_regularizer(E, data.A, depth).value,
            "nuclear_norm": np.linalg.norm(E, "nuc"),
        }
        for name, E in found.items()
    ]


def weight(settings: Settings, step: Any) -> Any:
    """The weight of the trace in the objective that label noise descends on average, ``step * noise^2 / (2 batch)``."""
    return step * settings["noise"] ** 2 / (2 * settings["batch"])


def predicted_loss(settings: Settings, step: Any, trace: Any) -> Any:
    r"""The loss at which label noise keeps a network of a given trace.

    The noise holds the weights at a variance of ``step * noise^2 / batch`` in every direction in which the loss curves, hence
    the loss at ``weight * trace`` above its least value. That loss adds to the noise through the choice of the batch.
    """
    share = weight(settings, step) * trace
    return share / (1 - share / settings["noise"] ** 2)


def _penalized(settings: Settings, data: Sensing) -> np.ndarray:
    r"""The minimiser of :math:`\mathcal L + \lambda\,\mathrm{tr}\,\nabla^2\mathcal L` at depth 2, with the weight of all noise.

    For two layers the least trace is :math:`4d\|D_1XD_2\|_*`, which makes it a convex problem.
    """
    m, d = settings["measurements"], settings["size"]
    loss = 0.0
    for _ in range(3):  # the loss that is reached is noise too
        penalty = 2 * m * d * weight(settings, settings["step"]) * (1 + loss / settings["noise"] ** 2)
        solution = flat_minimum(data.A, data.b, penalty=penalty, tol=settings["tol"], progress=False)
        loss = 2 / m * solution.value
    return solution.matrix


def draw_losses(settings: Settings, table: Table) -> Figure:
    """Train and test loss against steps, one column per depth."""
    figure, axes = _grid(settings, 2)
    for column, (depth, scale) in enumerate(settings["depths"]):
        train, test = axes[:, column]
        ours = table.where(depth=depth)
        _draw_runs(train, ours, "train")
        _draw_runs(test, ours, "test")
        noisy = ours.where(kind="run", algorithm=_NOISY, repetition=0)
        expected = predicted_loss(settings, noisy["step"], noisy["trace"])
        shown = expected > 0  # not where the noise would be unstable
        label = "label noise, predicted from its trace"
        train.plot(noisy["iteration"][shown], expected[shown], ":", color="black", label=label)
        _draw_references(test, ours, "test")
        train.set(yscale="log", ylim=(1e-5, None))
        test.set(yscale="log", xlabel="steps")
        _magnify_end(test, ours, "test")
        train.set_title(f"depth {depth}, start {scale} / √d")
    axes[0, 0].set_ylabel("train loss")
    axes[1, 0].set_ylabel("test loss")
    return _finished(figure, axes, settings)


def draw_curvature(settings: Settings, table: Table) -> Figure:
    """Trace of the Hessian, its excess over that of the flattest network with the same matrix, and nuclear norm."""
    figure, axes = _grid(settings, 3)
    for column, (depth, scale) in enumerate(settings["depths"]):
        ours = table.where(depth=depth)
        for ax, quantity in zip(axes[:2, column], ("trace", "nuclear_norm"), strict=True):
            _draw_runs(ax, ours, quantity)
            _draw_references(ax, ours, quantity)
            ax.set(yscale="log")
            _magnify_end(ax, ours, quantity)
        plain_ticks(axes[1, column], "y", [3, 5, 10, 20, 40])
        for index, algorithm in enumerate((_NOISY, _PLAIN)):
            seen = [row for row in ours.where(kind="run", algorithm=algorithm).rows if "flattest_trace" in row]
            excess = [row["trace"] / row["flattest_trace"] - 1 for row in seen]
            axes[2, column].plot([row["iteration"] for row in seen], excess, "o-", color=f"C{index}", markersize=3)
        axes[2, column].set(yscale="log", xlabel="steps")
        axes[0, column].set_title(f"depth {depth}, start {scale} / √d")
    axes[0, 0].set_ylabel("trace of the Hessian")
    axes[1, 0].set_ylabel("nuclear norm")
    axes[2, 0].set_ylabel("relative excess of the trace\nover the fibre's least")
    return _finished(figure, axes, settings)


def _grid(settings: Settings, rows: int) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 1.2 + 2.3 * rows), layout="constrained")
    return figure, figure.subplots(rows, len(settings["depths"]), sharex="col", sharey="row", squeeze=False)


def _draw_runs(ax: Axes, table: Table, quantity: str) -> None:
    """The geometric mean over repetitions, in their range."""
    for index, algorithm in enumerate((_NOISY, _PLAIN)):
        runs = table.where(kind="run", algorithm=algorithm)
        series = [runs.where(repetition=repetition) for repetition in runs.values("repetition")]
        length = min(len(each) for each in series)
        values = np.array([each[quantity][:length] for each in series])
        moments = series[0]["iteration"][:length]
        with np.errstate(divide="ignore"):
            middle = np.exp(np.log(values).mean(axis=0))
        ax.plot(moments, middle, color=f"C{index}", label={_NOISY: "label noise", _PLAIN: "plain mini-batch"}[algorithm])
        ax.fill_between(moments, values.min(axis=0), values.max(axis=0), color=f"C{index}", alpha=0.25, lw=0)


def _draw_references(ax: Axes, table: Table, quantity: str) -> None:
    looks = {
        "least nuclear norm": ("0.45", "-", "interpolator of least nuclear norm"),
        "flattest": ("C2", "--", "flattest interpolator"),
        "penalized": ("C4", ":", "least loss + weight * trace"),
    }
    for row in table.where(kind="reference").rows:
        colour, line, label = looks[row["name"]]
        ax.axhline(row[quantity], color=colour, linestyle=line, linewidth=1.2, label=label)


def _magnify_end(ax: Axes, table: Table, quantity: str) -> None:
    """The last fifth of the runs with noise once more, in an inset: there the curve and the references merge."""
    noisy = table.where(kind="run", algorithm=_NOISY)
    last = noisy["iteration"].max()
    seen = noisy[quantity][noisy["iteration"] >= 0.8 * last]
    references = [row[quantity] for row in table.where(kind="reference").rows]

    def draw(inset: Axes) -> None:
        _draw_runs(inset, table, quantity)
        _draw_references(inset, table, quantity)

    window = (0.98 * min(*references, seen.min()), 1.02 * max(*references, seen.max()))
    inset = magnified(ax, (0.45, 0.42, 0.52, 0.5), (0.8 * last, last), window, draw)
    inset.set_xticks([])


def _finished(figure: Figure, axes: np.ndarray, settings: Settings) -> Figure:
    """Mark where the step begins to decay; thousands on the axis, one legend below all."""
    for ax in axes.ravel():
        ax.axvline(settings["stage"] * settings["stages"], color="0.8", linewidth=5, zorder=0)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    legend_below(figure)
    return figure


_SETTINGS = {
    "seed": 2023,
    "rank": 3,
    "step": 0.01,
    "noise": 1.0,
    "depths": [[2, 1.0], [3, 0.75], [5, 0.8], [10, 0.88]],
    "stages": 10,
    "decay_stages": 8,
    "decay_to": 0.01,
    "tol": 1e-6,
}
_PAPER = {
    "size": 60,
    "measurements": 600,
    "batch": 50,
    "stage": 10_000,
    "plain_iterations": 20_000,
    "every": 1000,
    "repetitions": 3,
}
_QUICK = {
    "size": 20,
    "measurements": 67,
    "batch": 10,
    "stage": 2_000,
    "plain_iterations": 5_000,
    "every": 500,
    "repetitions": 2,
}
_SCALES = {"paper": _SETTINGS | _PAPER, "quick": _SETTINGS | _QUICK}
_CHOICES = (
    "The published step is constant up to the grey line and then decays a hundredfold; numbers of steps and scales of the "
    "start, which are not published, were chosen so that the curves settle and no start is unstable."
)
SENSING_1 = Experiment(
    "glcrmj-1",
    "Gatmiry et al. 2023, Figure 1",
    "Label noise against plain mini-batch gradient descent: train and test loss. " + _CHOICES,
    _SCALES,
    units,
    run,
    draw_losses,
    "glcrmj",
)
SENSING_2 = Experiment(
    "glcrmj-2",
    "Gatmiry et al. 2023, Figure 2",
    "Label noise against plain mini-batch gradient descent: trace of the Hessian and nuclear norm, against the flattest "
    "networks and the least nuclear norm. " + _CHOICES,
    _SCALES,
    units,
    run,
    draw_curvature,
    "glcrmj",
)
