"""A small experiment that runs in processes of its own: the tests of the runner, and of what happens when it is killed."""

import sys
import time
from pathlib import Path

from matplotlib.figure import Figure

from balancedfact._executors import dask_cluster, process_pool
from balancedfact.experiments._experiment import Experiment
from balancedfact.experiments._runner import reproduce


def units(settings):
    return [{"scale": scale, "repetition": repetition} for scale in (0.5, 1.0) for repetition in range(settings["repetitions"])]


def run(settings, unit, rng):
    time.sleep(settings["pause"])
    if unit == settings.get("broken"):
        raise ArithmeticError("this unit is broken")
    walk = unit["scale"] * rng.standard_normal(3).cumsum()
    return [unit | {"step": step, "value": value, "up": value > 0} for step, value in enumerate(walk)]


def draw(settings, table):
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot(table.where(scale=0.5)["value"])
    return figure


def toy(**settings):
    base = {"seed": 1, "repetitions": 4, "pause": 0.0}
    scales = {"quick": base | settings, "paper": base | {"repetitions": 6}}
    return Experiment("toy", "nowhere", "walks", scales, units, run, draw)


def main(folder, workers, pause):
    """Run the toy in `folder` with a number of workers, or on the scheduler with that address."""
    where = process_pool(int(workers)) if workers.isdigit() else dask_cluster(workers)
    with where as executor:
        reproduce(toy(pause=float(pause), repetitions=8), "quick", Path(folder), executor)


if __name__ == "__main__":
    main(*sys.argv[1:])
