"""Worked examples: a summary, and a run that leaves files in a folder."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from balancedfact._files import write_json
from balancedfact._version import __version__
from balancedfact.solution import Solution


@dataclass(frozen=True)
class Example:
    """A worked example: what it shows, and the function that runs it and returns the exit status."""

    summary: str
    run: Callable[[Path], int]

    def __call__(self, out: Path) -> int:
        return self.run(out)


def write_report(out: Path, content: dict[str, Any]) -> None:
    """Write ``report.json`` with the versions that produced it."""
    versions = {name: version(name) for name in ("numpy", "scipy", "matplotlib")}
    versions |= {"python": platform.python_version(), "balancedfact": __version__}
    write_json(out / "report.json", content | {"versions": versions})


def solution_report(solution: Solution) -> dict[str, Any]:
    """The numbers of a solution for a report."""
    return {
        "status": solution.status.value,
        "method": solution.method,
        "value": solution.value,
        "rank": solution.layers[0].shape[0],
        "iterations": len(solution.history.get("iteration", ())),
    } | solution.certificate.to_dict()


def print_errors(title: str, columns: list[str], rows: dict[str, list[float]]) -> None:
    """Print a table of errors, one method a line."""
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    for column in columns:
        table.add_column(column, justify="right")
    for name, errors in rows.items():
        table.add_row(name, *(f"{error:.4g}" for error in errors))
    Console().print(table)
