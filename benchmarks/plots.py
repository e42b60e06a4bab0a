"""The pictures of the benchmarks page, from ``benchmarks/results``: ``python benchmarks/plots.py``."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from balancedfact._files import write_picture
from balancedfact.plots import PALETTE, style

SOURCES = {"scaling": "scaling.json", "limits": "limits.json", "peers": "soft_impute_*.json"}
IMAGES = Path(__file__).parent.parent / "docs" / "images"


def scaling() -> Figure:
    """One panel for each sweep: the times measured, and the operation count drawn through the last of them."""
    sweeps = json.loads((RESULTS / "scaling.json").read_text())["sweeps"]
    figure = Figure(figsize=(9, 2.4 * (len(sweeps) + 3) / 3), layout="constrained")
    axes = figure.subplots((len(sweeps) + 3) // 3, 3).ravel()
    for ax, sweep in zip(axes, sweeps, strict=False):
        panel(ax, sweep)
    memory(axes[len(sweeps)], sweeps)
    for ax in axes[len(sweeps) + 1 :]:
        ax.remove()
    return figure


def panel(ax: Axes, sweep: dict[str, Any]) -> None:
    values = np.array(sweep["values"])
    for name, line in sweep["lines"].items():
        seconds, counted = np.array(line["seconds"]), np.array(line["counted"])
        (drawn,) = ax.loglog(values, seconds, "o", label=f"{name}: {line['exponent']:.2f} ({line['exponent_counted']:.2f})")
        ax.loglog(values, counted * seconds[-1] / counted[-1], "--", color=drawn.get_color(), linewidth=1)
    ax.set(title=sweep["title"], xlabel=sweep["variable"], ylabel="seconds")
    ticks(ax, values)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** (0.14 * len(sweep["lines"])))  # room for the legend
    ax.legend(fontsize=6.5, loc="upper left", handletextpad=0.2, borderpad=0)


def ticks(ax: Axes, values: np.ndarray) -> None:
    """At the first value, the last and two between, where powers of ten would be too few or too many."""
    shown = values if values.size <= 5 else values[:: (values.size - 1) // 3]
    ax.set_xticks(shown, [f"{value:.0e}".replace("e+0", "e") if value >= 1e5 else f"{value:g}" for value in shown])
    ax.xaxis.set_minor_locator(NullLocator())
    narrow = np.diff(np.log10(ax.get_ylim()))[0] < 3
    ax.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if narrow and f"{value:e}"[0] in "25" else "")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def memory(ax: Axes, sweeps: list[dict[str, Any]]) -> None:
    """Of the sweeps in which it grows."""
    for sweep in sweeps:
        values, needed = np.array(sweep["values"]), np.array(sweep["memory_MB"])
        if needed[-1] > 1.5 * needed[0]:
            ax.loglog(values / values[0], needed, ".-", label=sweep["title"])
    ax.set(title="memory beyond the libraries", xlabel="value over the smallest", ylabel="MB")
    ax.set_ylim(top=30 * ax.get_ylim()[1])
    ax.legend(fontsize=6.5, loc="upper left", borderpad=0)


def limits() -> Figure:
    """The fraction of the limit that binds, for each loop."""
    found = json.loads((RESULTS / "limits.json").read_text())
    one, two = ([row for row in found[key]["rows"] if "fraction" in row] for key in ("one", "two"))
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    ax = figure.subplots()
    place = np.arange(len(one))
    for rows, shift, colour, label in [(one, -0.2, "blue", "1 thread"), (two, 0.2, "orange", "2 threads")]:
        ax.barh(place + shift, [row["fraction"] for row in rows], 0.38, color=PALETTE[colour], label=label)
    ax.set_yticks(place, [row["name"] for row in one], fontsize=8)
    ax.axvline(1, color=PALETTE["grey"], linewidth=1)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set(xlabel="least possible time / measured time")
    ax.legend()
    return figure


def peers() -> Figure:
    """Noisy completion: seconds to the accuracy asked for, at three sizes; medians, with the range of the runs."""
    files = ["soft_impute_200", "soft_impute_2000", "soft_impute_20000"]
    asked = [1e-4, 1e-4, 1e-3]
    labels = ["200 x 150", "2000 x 1500", "20000 x 10000"]
    found = [{row["name"]: row for row in json.loads((RESULTS / f"{file}.json").read_text())["rows"]} for file in files]
    names = [name for name in found[0] if name != "balancedfact, flat_minimum"]
    figure = Figure(figsize=(7, 3), layout="constrained")
    ax = figure.subplots()
    for number, name in enumerate(names):
        for place, rows in enumerate(found):
            if name in rows:
                there = rows[name]["excess"] <= asked[place]
                x, colour = place + 0.2 * (number - (len(names) - 1) / 2), list(PALETTE.values())[number]
                seconds = rows[name]["seconds"]
                bar = ax.bar(x, seconds, 0.18, color=colour if there else "white", edgecolor=colour)
                if place == 0:
                    bar.set_label(name)
                if rows[name]["runs"] > 1:
                    ends = [[seconds - rows[name]["fastest"]], [rows[name]["slowest"] - seconds]]
                    ax.errorbar(x, seconds, ends, color="black", capsize=3, linewidth=1)
                if not there:
                    ax.text(x, seconds, "not\nreached", ha="center", va="bottom", fontsize=7)
    ax.set_xticks(range(len(labels)), labels)
    ax.set(yscale="log", ylabel="seconds")
    ax.margins(y=0.2)
    ax.grid(visible=False, axis="x")
    ax.legend(fontsize=8, loc="upper left")
    return figure


def save(figure: Figure, name: str) -> None:
    """As vector graphics, with a thumbnail for the gallery."""
    source = f"benchmarks/plots.py, from benchmarks/results/{SOURCES[name]}"
    write_picture(IMAGES / f"benchmark-{name}.svg", figure, title=f"Benchmarks of balancedfact: {name}", source=source)
    small = IMAGES / "thumbnails" / f"benchmark-{name}.png"
    write_picture(small, figure)
    runpy.run_path(str(IMAGES.parent / "gallery.py"))["shrink"](small)
    print(f"benchmark-{name}.svg")


if __name__ == "__main__":
    with style():
        for name, make in [("scaling", scaling), ("limits", limits), ("peers", peers)]:
            save(make(), name)
