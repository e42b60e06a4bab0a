"""Figures as declarations: settings, units of work, and how the picture is drawn."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from balancedfact.experiments._table import Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """A figure that can be run: its settings, the units of work, the table that they fill and the picture of it.

    Settings and units are mappings of plain data that JSON can hold.

    Attributes
    ----------
    name : str
        The name of the files and on the command line.
    source : str
        The paper and the figure in it.
    caption : str
        What the figure shows.
    scales : mapping of str to mapping
        The settings by scale, such as ``"paper"`` and ``"quick"``.
    units : callable
        ``units(settings)`` returns the list of units of work, in the order of the rows of the table.
    run : callable
        ``run(settings, unit, rng)`` returns the rows of the table for one unit, each a dictionary. To run on other processes
        it must be a function of a module.
    draw : callable
        ``draw(settings, table)`` returns a matplotlib figure.
    stream : str
        The name from which the random numbers follow, with the seed in the settings; figures that show the same runs share it.
        By default `name`.

    See Also
    --------
    reproduce : Runs an experiment.
    Table : The table that the units fill.

    References
    ----------
    Guide :doc:`/guide/own_figure`.

    Examples
    --------
    >>> from balancedfact.experiments import Experiment
    >>> from matplotlib.figure import Figure
    >>> squares = Experiment(
    ...     name="squares",
    ...     source="no paper",
    ...     caption="Squares.",
    ...     scales={"quick": {"seed": 0, "numbers": [1, 2]}},
    ...     units=lambda settings: [{"number": number} for number in settings["numbers"]],
    ...     run=lambda settings, unit, rng: [unit | {"square": unit["number"] ** 2}],
    ...     draw=lambda settings, table: Figure(),
    ... )
    >>> squares.units(squares.scales["quick"])
    [{'number': 1}, {'number': 2}]
    """

    name: str
    source: str
    caption: str
    scales: Mapping[str, Settings]
    units: Callable[[Settings], Sequence[Row]]
    run: Callable[[Settings, Row, np.random.Generator], list[Row]]
    draw: Callable[[Settings, Table], Figure]
    stream: str = ""

    def generator(self, settings: Settings, index: int) -> np.random.Generator:
        """The randomness of one unit: it depends on the figure, the seed in the settings and the unit, and on nothing else."""
        return np.random.default_rng([settings["seed"], zlib.crc32((self.stream or self.name).encode()), index])
