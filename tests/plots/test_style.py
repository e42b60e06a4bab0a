import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import balancedfact as bf
from balancedfact import plots

# Linear RGB to what a reader without red or green cones sees (Vienot, Brettel and Mollon 1999).
DICHROMACY = {
    "protan": [[0.112, 0.888, 0.0], [0.112, 0.888, 0.0], [0.004, -0.004, 1.0]],
    "deutan": [[0.293, 0.707, 0.0], [0.293, 0.707, 0.0], [-0.021, 0.021, 1.0]],
}


def test_style_holds_inside_and_nothing_changes_outside():
    before = dict(matplotlib.rcParams)
    with plots.style():
        ax = Figure().subplots()
    assert not ax.spines["top"].get_visible()
    assert dict(matplotlib.rcParams) == before


def test_lines_take_the_palette_in_order():
    with plots.style():
        ax = Figure().subplots()
        colours = [ax.plot([0, 1])[0].get_color() for _ in range(3)]
    assert colours == [plots.PALETTE[name] for name in ("blue", "vermilion", "green")]


@pytest.mark.parametrize("eye", DICHROMACY)
def test_palette_stays_apart_for_colour_blind_readers(eye):
    linear = np.array([to_rgb(colour) for colour in plots.PALETTE.values()]) ** 2.2
    seen = np.clip(linear @ np.array(DICHROMACY[eye]).T, 0, 1) ** (1 / 2.2)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2) + np.eye(len(seen))
    assert apart.min() > 0.1


@pytest.mark.slow
def test_plots_are_reached_from_the_package_and_imported_on_demand():
    assert bf.plots is plots
    with pytest.raises(AttributeError, match="no attribute 'plotz'"):
        bf.plotz  # noqa: B018
    code = "import sys, balancedfact; assert 'matplotlib' not in sys.modules; balancedfact.plots.style"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(bf.__file__).parents[1], check=False).returncode == 0
