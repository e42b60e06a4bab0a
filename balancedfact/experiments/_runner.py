"""The runner of experiments, on any executor; every finished unit is on disk before it counts."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from balancedfact._files import alone, remove_partial, write_json, write_picture, write_text
from balancedfact._formats import PICTURES
from balancedfact._validate import as_choice, as_kind, as_path, as_progress
from balancedfact._version import __version__
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table, read_table, write_table
from balancedfact.solvers.iteration._log import interrupts_pass

_WAITING = 64  # units handed to the executor beyond those finished


def reproduce(
    experiment: Experiment,
    scale: str,
    out: str | os.PathLike[str],
    executor: Executor | None = None,
    *,
    progress: bool | None = None,
    pictures: str = "png",
) -> Table:
    """Run an experiment, or finish one that was stopped, and leave its table, picture and provenance in a folder.

    The folder ``NAME.SCALE.units/`` keeps finished units until the end, and a run that was killed goes on from them. The table
    does not depend on the executor, its number of workers, or interruptions.

    Parameters
    ----------
    experiment : Experiment
        The figure to run.
    scale : str
        A key of ``experiment.scales``.
    out : str or path-like
        The folder; made if it does not exist.
    executor : concurrent.futures.Executor, optional
        Where the units run: a process pool, as `process_pool` opens one, or ``dask.distributed.Client(...).get_executor()``. By
        default this process, one unit after the other.
    progress : bool, optional
        Show a bar with the time left. By default on a terminal only.
    pictures : {"png", "svg", "pdf"}
        Format of the picture; the last two are vector graphics.

    Returns
    -------
    Table
        The rows of all units in order, as they are in ``NAME.csv``; ``NAME.png`` and ``NAME.json`` lie beside it.

    Raises
    ------
    ValueError
        If `experiment` is no `Experiment` or has no such scale, or another run of it writes to the folder.

    See Also
    --------
    Experiment : The declaration of a figure.
    redraw : Draws the picture again.
    process_pool, dask_cluster : Executors for the units.

    References
    ----------
    Guides :doc:`/guide/reproduce` and :doc:`/guide/own_figure`.

    Examples
    --------
    >>> import tempfile
    >>> from balancedfact.experiments import Experiment, reproduce
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
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = reproduce(squares, "quick", folder)
    >>> table["square"].tolist()
    [1, 4]
    """
    if not isinstance(experiment, Experiment):
        raise ValueError(f"experiment is {experiment!r}; expected an Experiment")
    settings, out = experiment.scales[as_choice(scale, "scale", list(experiment.scales))], as_path(out, "out")
    if executor is not None:
        as_kind(executor, "executor", Executor, "a concurrent.futures.Executor")
    shown, kind = as_progress(progress), as_choice(pictures, "pictures", PICTURES)
    units = list(experiment.units(settings))
    with alone(out / f"{experiment.name}.{scale}.units", f"another run of {experiment.name} writes to {out}"):
        table = _finish(experiment, scale, settings, units, out, executor, shown)
    _save_picture(experiment, scale, settings, table, out, kind)
    return table


def redraw(experiment: Experiment, out: str | os.PathLike[str], *, pictures: str = "png") -> Table:
    """Draw the picture of an experiment again, from the table and the provenance that a run of it left in a folder.

    Parameters
    ----------
    experiment : Experiment
        The figure to draw.
    out : str or path-like
        The folder with ``NAME.csv`` and ``NAME.json``.
    pictures : {"png", "svg", "pdf"}
        Format of the picture.

    Returns
    -------
    Table
        The table that was drawn.

    Raises
    ------
    ValueError
        If `experiment` is no `Experiment`, or `out` does not hold the table and the provenance of a run of it.

    See Also
    --------
    reproduce : Runs the experiment.

    References
    ----------
    Guides :doc:`/guide/reproduce` and :doc:`/guide/own_figure`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from balancedfact.experiments import Experiment, redraw, reproduce
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
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = reproduce(squares, "quick", folder)
    ...     table = redraw(squares, folder, pictures="svg")
    ...     Path(folder, "squares.svg").is_file()
    True
    """
    if not isinstance(experiment, Experiment):
        raise ValueError(f"experiment is {experiment!r}; expected an Experiment")
    out, kind = as_path(out, "out"), as_choice(pictures, "pictures", PICTURES)
    scale, settings = _written(experiment, out)
    table = Table(read_table(out / f"{experiment.name}.csv"))
    _save_picture(experiment, scale, settings, table, out, kind)
    return table


def _written(experiment: Experiment, out: Path) -> tuple[str, Settings]:
    """The scale and the settings of the run whose table lies in the folder."""
    sought = f"expected the folder of a run of {experiment.name}"
    provenance, table = (out / f"{experiment.name}.{suffix}" for suffix in ("json", "csv"))
    for path in (provenance, table):
        if not path.is_file():
            raise ValueError(f"out is {str(out)!r}, without {path.name}; {sought}")
    try:
        written = json.loads(provenance.read_bytes())
        figure, scale, settings = (written[key] for key in ("figure", "scale", "settings"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"out holds {provenance.name} without figure, scale and settings ({error}); {sought}") from error
    if figure != experiment.name:
        raise ValueError(f"out holds {provenance.name}, which describes {figure!r}; {sought}")
    return scale, settings


def _finish(
    experiment: Experiment,
    scale: str,
    settings: Settings,
    units: list[Row],
    out: Path,
    executor: Executor | None,
    shown: bool,
) -> Table:
    """Run what is missing, in a folder that no other run of the same experiment uses meanwhile."""
    started = time.perf_counter()
    store = _Store(out / f"{experiment.name}.{scale}.units", settings, units)
    found = len(units) - len(store.missing)
    with _bar(experiment.name, len(units), found, shown) as bar:
        for index, rows in _run(experiment, settings, units, store.missing, executor):
            store.keep(index, rows)
            bar.advance(bar.task_ids[0])
    rows = [row for index in range(len(units)) for row in store.rows(index)]
    table = Table(rows)
    write_table(out / f"{experiment.name}.csv", rows)
    provenance = {
        "figure": experiment.name,
        "source": experiment.source,
        "caption": experiment.caption,
        "scale": scale,
        "settings": dict(settings),
        "units": len(units),
        "units_found_from_an_earlier_run": found,
        "rows": len(rows),
        "seconds_of_this_run": round(time.perf_counter() - started, 3),
        "versions": {name: version(name) for name in ("numpy", "scipy", "numba", "matplotlib")}
        | {"python": platform.python_version(), "balancedfact": __version__},
        "machine": {"platform": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
    }
    write_json(out / f"{experiment.name}.json", provenance)
    store.remove()
    return table


class _Store:
    """The finished units of one experiment, one file each; those of another version or other settings are thrown away."""

    def __init__(self, folder: Path, settings: Settings, units: list[Row]) -> None:
        self.folder = folder
        plan = json.dumps([__version__, dict(settings), units], sort_keys=True)
        self.plan = hashlib.sha256(plan.encode()).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder / "plan"
        if not (marker.is_file() and marker.read_bytes() == self.plan.encode()):
            for stale in folder.glob("*.json"):
                stale.unlink()
            write_text(marker, self.plan)
        remove_partial(folder)
        self.missing = [index for index in range(len(units)) if not self._whole(index)]

    def _whole(self, index: int) -> bool:
        """Tell whether the unit is there and can be read: a full disk or a broken one may have left less."""
        try:
            rows = self.rows(index)
        except (OSError, ValueError, RecursionError):
            return False
        return isinstance(rows, list) and all(isinstance(row, dict) for row in rows)

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.json"

    def keep(self, index: int, rows: list[Row]) -> None:
        write_text(self._path(index), json.dumps(rows))

    def rows(self, index: int) -> list[Row]:
        return json.loads(self._path(index).read_text(encoding="utf-8"))

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def _run(
    experiment: Experiment, settings: Settings, units: list[Row], missing: list[int], executor: Executor | None
) -> Iterator[tuple[int, list[Row]]]:
    """Yield the rows of the missing units, as they finish."""
    if executor is None:
        for index in missing:
            yield index, _work(experiment.run, dict(settings), units[index], experiment.generator(settings, index))
        return
    pending: dict[Future[list[Row]], int] = {}
    queue = iter(missing)
    try:
        while True:
            for index in queue:
                rng = experiment.generator(settings, index)
                pending[executor.submit(_work, experiment.run, dict(settings), units[index], rng)] = index
                if len(pending) >= _WAITING:
                    break
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda future: future.exception() is not None):  # keep results, then raise
                yield pending.pop(future), future.result()
    finally:
        for future in pending:
            future.cancel()


def _work(run: Any, settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    with interrupts_pass():
        return [{name: _plain(value) for name, value in row.items()} for row in run(settings, unit, rng)]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _save_picture(experiment: Experiment, scale: str, settings: Settings, table: Table, out: Path, kind: str) -> None:
    from balancedfact.plots import style

    source = f"balancedfact {__version__}, reproduce {experiment.name} --scale {scale}; table {experiment.name}.csv"
    with style():
        figure = experiment.draw(settings, table)
        write_picture(
            out / f"{experiment.name}.{kind}", figure, title=f"{experiment.source}: {experiment.caption}", source=source
        )


def _bar(name: str, total: int, found: int, shown: bool) -> Progress:
    console = Console(stderr=True, quiet=not shown)  # older versions of rich end a bar that is not shown with a line
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, disable=not shown)
    bar.add_task(name, total=total, completed=found)
    return bar
