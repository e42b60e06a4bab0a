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
    """A figure, as a declaration.

    Everything in `settings` and in a unit is plain data that JSON can hold.

    Attributes
    ----------
    name : str
        What the command line calls it.
    source : str
        The paper and figure.
    caption : str
        What is seen.
    scales : mapping of str to mapping
        The settings by scale, ``"paper"`` and ``"quick"``.
    units : callable
        From the settings to the list of units, in the order of the rows of the table.
    run : callable
        A function of a module, called with the settings, one unit and the generator of that unit; returns rows of the table.
    draw : callable
        From the settings and the whole table to a figure.
    stream : str
        The randomness; figures that show the same runs share it. By default the name.

    See Also
    --------
    reproduce : Runs one.
    Table : What its runs fill.

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
