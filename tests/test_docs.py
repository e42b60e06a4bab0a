"""The code shown in the documentation runs, and the notebooks are stored with their outputs."""

import json
import re
import runpy
from pathlib import Path

import pytest

import balancedfact as bf

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_run(path):
    runpy.run_path(str(path))


def test_example_map_conforms_and_recovers():
    names = runpy.run_path(str(ROOT / "docs" / "examples" / "energy_differences.py"))
    for kind in ("EnergyDifferences", "FastEnergyDifferences"):
        for m, d in [(1, 1), (1, 3), (5, 2)]:
            vectors = names["rng"].standard_normal((2, m, d))
            report = bf.measurements.check_measurements(names[kind](*vectors), rng=1)
            assert report.ok, f"{kind}, m = {m}, d = {d}:\n{report}"
    assert names["solution"].status.ok
    assert names["error"] < 1e-6


def test_guide_names_methods_that_exist():
    text = (ROOT / "docs" / "guide" / "own_measurements.md").read_text(encoding="utf-8")
    methods = re.findall(r"^\| `(\w+)\(", text, flags=re.MULTILINE)
    assert len(methods) >= 10
    assert [name for name in methods if not hasattr(bf.measurements.MeasurementMap, name)] == []


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_stored_executed(path):
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
