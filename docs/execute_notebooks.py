"""Execute the notebooks from fresh kernels, two side by side; with ``--write``, store their outputs in place.

Run from anywhere, with the ``docs`` extra installed::

    python docs/execute_notebooks.py [--write] [NOTEBOOK ...]
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"


def execute(path: Path, *, write: bool) -> None:
    """Run every cell of a notebook; an exception in a cell is raised here, with the cell."""
    started = time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
    client.execute()
    if write:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # the times of the run, which would change with every execution
        notebook.metadata.pop("widgets", None)
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
    print(f"{path.name}: {len(notebook.cells)} cells in {time.perf_counter() - started:.1f} s", flush=True)


def main() -> None:
    """Execute the notebooks named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="all in notebooks/ by default")
    parser.add_argument("--write", action="store_true", help="store the outputs in the notebooks")
    arguments = parser.parse_args()
    paths = arguments.notebooks or sorted(FOLDER.glob("*.ipynb"))
    if not paths:
        parser.error(f"no notebooks in {FOLDER}")
    with ProcessPoolExecutor(2) as pool:
        runs = [pool.submit(execute, path.resolve(), write=arguments.write) for path in paths]
        try:
            for run in runs:
                run.result()
        finally:
            pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
