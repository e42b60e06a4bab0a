"""A figure of one's own: from how many measurements on the flat minimum is the matrix that was measured."""

import sys

import numpy as np
from matplotlib.figure import Figure

import balancedfact as bf
from balancedfact.experiments import Experiment, process_pool, reproduce


# [work]
def units(settings):
    """One unit of work for each number of measurements and each repetition, as plain data."""
    return [
        {"measurements": m, "repetition": repetition}
        for m in settings["measurements"]
        for repetition in range(settings["repetitions"])
    ]


def run(settings, unit, rng):
    """One unit: draw a matrix of rank one, measure it, solve. Returns rows of the table."""
    d = settings["size"]
    M = np.outer(rng.standard_normal(d), rng.standard_normal(d))
    A = bf.measurements.gaussian(unit["measurements"], (d, d), rng)
    solution = bf.flat_minimum(A, A(M), rng=rng)
    error = np.linalg.norm(solution.matrix - M) / np.linalg.norm(M)
    return [unit | {"error": error, "proved": solution.status.name == "OPTIMAL"}]
# [work end]


# [picture]
def draw(settings, table):
    """The share of recovered matrices against the number of measurements."""
    counts = table.values("measurements")
    shares = [np.mean(table.where(measurements=m)["error"] < 1e-4) for m in counts]
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    ax = figure.subplots()
    ax.plot(counts, shares, "o-")
    ax.set(xlabel="measurements", ylabel="share recovered", ylim=(-0.05, 1.05))
    return figure
# [picture end]


# [figure]
SETTINGS = {"seed": 7, "size": 8, "repetitions": 10, "measurements": [8, 16, 24, 32, 40, 48]}
RECOVERY = Experiment(
    name="recovery",
    source="this guide",
    caption="Share of matrices of rank one that the flat minimum recovers.",
    scales={"paper": SETTINGS | {"repetitions": 100}, "quick": SETTINGS},
    units=units,
    run=run,
    draw=draw,
)
# [figure end]

# [use]
if __name__ == "__main__":  # the processes of the pool import this file too
    with process_pool() as pool:
        table = reproduce(RECOVERY, "quick", sys.argv[1] if len(sys.argv) > 1 else "figures", pool)
    for m in table.values("measurements"):
        print(m, np.mean(table.where(measurements=m)["error"] < 1e-4))
# [use end]
