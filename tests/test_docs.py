"""The code shown in the documentation runs, and the notebooks are stored with their outputs."""

import contextlib
import dataclasses
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import balancedfact as bf
from balancedfact.cli import main
from balancedfact.experiments.figures import FIGURES
from balancedfact.theorems._claim import LEDGER

ROOT = Path(__file__).resolve().parent.parent


def test_example_map_conforms_and_recovers():
    names = runpy.run_path(str(ROOT / "docs" / "examples" / "energy_differences.py"))
    for kind in ("EnergyDifferences", "FastEnergyDifferences"):
        for m, d in [(1, 1), (1, 3), (5, 2)]:
            vectors = names["rng"].standard_normal((2, m, d))
            report = bf.measurements.check_measurements(names[kind](*vectors), rng=1)
            assert report.ok, f"{kind}, m = {m}, d = {d}:\n{report}"
    assert names["solution"].status.ok
    assert names["error"] < 1e-6


@pytest.mark.slow
def test_example_manifold_conforms_and_both_optimizers_agree(capsys):
    names = runpy.run_path(str(ROOT / "docs" / "examples" / "neuron_balanced.py"))
    costs = [float(text) for text in re.findall(r"cost ([\d.]+)", capsys.readouterr().out)]
    assert len(costs) == 2
    assert costs[0] == pytest.approx(costs[1], rel=1e-8)
    assert names["error"] < 1e-2
    assert names["solution"].status is bf.Status.STATIONARY
    assert names["solution"].value == pytest.approx(costs[0], rel=1e-8)
    assert names["solution"].certificate.feasibility < 1e-12
    for sizes in [(1, 1, 1), (4, 1, 2), (2, 5, 3)]:
        for degree in (1, 2, 3):
            report = bf.manifolds.check_manifold(names["NeuronBalanced"](*sizes, degree, rng=1), rng=2)
            assert report.ok, f"sizes {sizes}, degree {degree}:\n{report}"


def test_example_manifold_of_layers_is_solved_with_a_certificate():
    names = runpy.run_path(str(ROOT / "docs" / "examples" / "unit_layers.py"))
    solution = names["solution"]
    assert solution.status is bf.Status.STATIONARY
    assert solution.value == pytest.approx(-np.linalg.norm(names["target"], 2), rel=1e-12)
    assert solution.certificate.stationarity < 1e-8
    for widths in ([1, 2], [2, 3], [3, 1, 2], [2, 2, 2, 2]):
        report = bf.manifolds.check_manifold(names["UnitLayers"](widths, rng=1), rng=2)
        assert report.ok, f"widths {widths}:\n{report}"


def test_example_algorithm_is_certified_and_says_what_it_cannot_do():
    names = runpy.run_path(str(ROOT / "docs" / "examples" / "own_algorithm.py"))
    assert names["solution"].status is bf.Status.OPTIMAL
    assert names["solution"].method == "proximal gradient"
    assert names["solution"].value == pytest.approx(names["other"].value, rel=1e-7)
    method = names["ProximalGradient"]()
    A = bf.measurements.gaussian(20, (4, 6), rng=1)
    b = 1e60 * np.arange(1.0, 21.0)
    ours, other = (bf.norm_minimum(A, b, penalty=1e60, method=each, rng=0) for each in (method, None))
    assert ours.status is bf.Status.OPTIMAL
    assert ours.value == pytest.approx(other.value, rel=1e-7)
    with pytest.raises(ValueError, match="needs a penalty"):
        bf.flat_minimum(A, b, method=method)
    short = bf.norm_minimum(A, b, penalty=1e60, method=names["ProximalGradient"](max_iterations=1))
    assert short.certificate.lower_bound <= other.value * (1 + 1e-9) <= short.value * (1 + 2e-9)
    assert not short.status.ok


def test_example_claims_hold_and_join_the_ledger():
    code = (ROOT / "docs" / "examples" / "own_claim.py").read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 40
    exec(compile(code, "own_claim.py", "exec"), {"__name__": "own_claim"})
    claims = [claim for claim in bf.theorems.ledger() if claim.source == "Notes"]
    try:
        assert [claim.key for claim in claims] == ["notes-units-of-the-data", "notes-units-misread"]
        for claim in claims:
            for seed in range(5):
                outcome = claim.check(seed)
                assert outcome.holds, f"{claim.key}, seed {seed}: {outcome}"
    finally:
        LEDGER[:] = [claim for claim in LEDGER if claim.source != "Notes"]


def test_example_figure_leaves_its_files(tmp_path):
    names = runpy.run_path(str(ROOT / "docs" / "examples" / "own_figure.py"))
    small = names["SETTINGS"] | {"size": 5, "repetitions": 3, "measurements": [4, 24]}
    figure = dataclasses.replace(names["RECOVERY"], scales={"small": small})
    table = bf.experiments.reproduce(figure, "small", str(tmp_path))
    assert len(table) == 6
    assert max(table.where(measurements=24)["error"]) < 1e-6 < min(table.where(measurements=4)["error"])
    assert {path.name for path in tmp_path.iterdir()} == {"recovery.csv", "recovery.json", "recovery.png"}


def test_code_on_the_page_of_panels_finds_the_effect():
    text = (ROOT / "docs" / "guide" / "panels.md").read_text(encoding="utf-8")
    names = {}
    exec(re.search(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)[1], names)
    assert names["found"].solution.status is bf.Status.OPTIMAL
    assert names["found"].effect == pytest.approx(3.0, abs=0.5)
    assert [each.penalty for each in names["path"]] == [2.0, 1.0, 0.5]


def words_agree(word, other):
    """Whether two words are the same, or numbers that agree to three digits or are both as small as rounding."""
    try:
        a, b = (float(each.strip("<>(),;:").rstrip(".")) for each in (word, other))
    except ValueError:
        return word == other
    return abs(a - b) <= 2e-3 * abs(a) or max(abs(a), abs(b)) < 1e-6


def printed(language, code, names):
    """What a block of a page prints."""
    if language == "bash":
        command = code.replace("balancedfact ", f"{shlex.quote(sys.executable)} -m balancedfact ")
        environment = os.environ | {"PYTHONPATH": str(Path(bf.__file__).parents[1])}
        return subprocess.run(command, shell=True, capture_output=True, text=True, check=True, env=environment).stdout
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, names)
    return out.getvalue()


def test_numbers_agree_as_they_should():
    assert words_agree("0.501,", "0.5005,")
    assert words_agree("3e-13", "9e-12>")
    assert words_agree("4.1e-10.", "3.9e-11.")
    assert not words_agree("3e-13", "9e-5")
    assert not words_agree("optimal", "gap")


@pytest.mark.parametrize("page", ["index.md", pytest.param("start/quickstart.md", marks=pytest.mark.slow)])
def test_pages_print_what_they_say_they_print(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(python|bash|text)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    names, found, compared = {}, "", 0
    for language, code in blocks:
        if language != "text":
            found = "" if "pip install" in code else printed(language, code, names)
            continue
        lines = [[line.split() for line in each.splitlines() if not line.startswith("seconds")] for each in (code, found)]
        assert [len(line) for line in lines[0]] == [len(line) for line in lines[1]], found
        for said, got in zip(chain(*lines[0]), chain(*lines[1]), strict=True):
            assert words_agree(said, got), f"{said} is printed as {got}"
        compared += 1
    assert compared == sum(language == "text" for language, _ in blocks) > 0


@pytest.mark.parametrize("page", ["index.md", "guide/certificate.md", "guide/riemannian.md"])
def test_code_on_pages_runs(page):
    A = bf.measurements.gaussian(30, (6, 5), rng=0)
    names = {"np": np, "A": A, "b": A(np.outer(np.arange(1.0, 7.0), np.ones(5)))}
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, names)
    assert names["solution"].status.ok


@pytest.mark.slow
def test_the_file_of_the_readme_becomes_predictions_by_the_command_and_by_six_lines(tmp_path, monkeypatch, capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"^<!-- command: file -->\n```bash\nbalancedfact (.*)\n```", text, flags=re.MULTILINE)[1]
    code = re.search(r"^<!-- code: file -->\n```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line]) == 6
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    stars = 3 + np.add.outer(rng.standard_normal(14), rng.standard_normal(12)) + np.outer(*map(rng.standard_normal, (14, 12)))
    stars += 0.5 * rng.standard_normal(stars.shape)
    lines = [f"{r + 1},{c + 307},{stars[r, c]},964982703" for r, c in np.argwhere(rng.random(stars.shape) < 0.7)]
    Path("ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(lines) + "\n")
    Path("pairs.csv").write_text("userId,movieId\n1,318\n2,1\n")
    assert main(command.split()) == 0
    assert re.search(r"root mean squared error \S+ on the data held out, \S+ by offsets alone", capsys.readouterr().out)
    first, second = (line.split(",") for line in Path("answer/predictions.csv").read_text().splitlines()[1:])
    assert (first[3], second[3]) == ("1", "0")
    assert Path("answer/top.csv").read_text().startswith("row,column,value\n")
    assert json.loads(Path("answer/report.json").read_text())["status"] == "optimal"
    exec(code, names := {})
    assert names["model"].status is bf.Status.OPTIMAL
    assert names["model"].predict(["1"], ["318"])[0] == pytest.approx(float(first[2]), rel=1e-4)


def test_guide_computes_the_reported_bound():
    A = bf.measurements.gaussian(20, (6, 5), rng=0)
    b = A(np.outer(np.arange(1.0, 7.0), np.ones(5)))
    text = (ROOT / "docs" / "guide" / "certificate.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(y = .*?)(4 \* A\.m \* \(b @ y\))", text, flags=re.DOTALL)
    names = {"np": np, "A": A, "b": b, "solution": bf.flat_minimum(A, b)}
    exec(block[1] + "bound = " + block[2], names)
    assert names["bound"] == pytest.approx(names["solution"].certificate.lower_bound, rel=1e-12)


def test_guide_names_methods_that_exist():
    text = (ROOT / "docs" / "guide" / "own_measurements.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`[^|]*) \|", text, flags=re.MULTILINE)
    methods = [name for cell in cells for name in re.findall(r"`(\w+)", cell)]
    assert len(methods) >= 20
    methods = [name for name in methods if name not in ("m", "matrix_shape")]  # which instances have
    assert [name for name in methods if not hasattr(bf.measurements.MeasurementMap, name)] == []


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_stored_executed(path):
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


@pytest.mark.slow
def test_theorem_page_leads_from_every_claim_to_its_proof_its_functions_its_code_and_its_command(tmp_path):
    page = tmp_path / "theorems.md"
    names = runpy.run_path(str(ROOT / "docs" / "ledger.py"))
    names["write"](page)
    text = page.read_text(encoding="utf-8")
    claims = bf.theorems.ledger()
    assert len(names["statements"]()) == len(claims) == text.count('<span class="claim"')
    for claim in claims:
        section = text[text.index(f"({claim.key})=\n") :].split("\n(")[0]
        heading, statement = names["statements"]()[claim.key]
        assert statement in section
        assert statement.count("$") % 2 == 0, claim.key
        assert f"({claim.page}.md#{names['slug'](heading)})" in section
        assert f"`balancedfact verify {claim.key}`" in section
        assert f".html#{claim.test.__name__}" in section
        assert f".. autofunction:: {claim.test.__module__}.{claim.test.__name__}\n" in text
    calls = {claim.key: names["uses"](claim) for claim in claims}
    assert "balancedfact.closed_forms.flat_pair" in calls["ddf-flat-value-of-a-matrix"]
    assert "balancedfact.closed_forms.single_measurement_minimum" in calls["new-one-measurement"]
    assert sum(map(bool, calls.values())) > 0.9 * len(claims)


def test_the_reference_names_the_notebooks_and_examples_that_call_a_function(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    names = runpy.run_path(str(ROOT / "docs" / "callers.py"))
    found = names["callers"]()
    assert found["balancedfact.compare"] == ["/notebooks/label_noise_against_geometry"]
    assert (
        found["balancedfact.solvers.select_penalty"][-1] == "/notebooks/recommender_from_a_ratings_file"
    )  # imported by its name
    assert "/gallery/least_sharpness" in found["balancedfact.closed_forms.minimal_sharpness"]
    files = {f"/notebooks/{path.stem}": path for path in (ROOT / "notebooks").glob("*.ipynb")}
    files |= {f"/gallery/{path.stem}": path for path in (ROOT / "docs" / "examples" / "gallery").glob("*.py")}
    for name, pages in found.items():
        for page in pages:
            assert re.search(rf"\b{name.rpartition('.')[2]}\b", files[page].read_text(encoding="utf-8")), (name, page)
    assert {page for pages in found.values() for page in pages} == set(files)
    lines = []
    names["lead_on"](None, "function", "", bf.compare, None, lines)
    assert ":doc:`/notebooks/label_noise_against_geometry`" in lines


@pytest.mark.parametrize("chapter", sorted((ROOT / "docs" / "theory").glob("*.md")), ids=lambda path: path.stem)
def test_every_chapter_shows_a_picture_of_the_gallery_that_leads_back_to_it(chapter):
    shown = re.findall(r"!\[.+\]\(\.\./gallery/(\w+)\.svg\)", chapter.read_text(encoding="utf-8"))
    assert shown
    for name in shown:
        code = (ROOT / "docs" / "examples" / "gallery" / f"{name}.py").read_text(encoding="utf-8")
        assert f"Chapter: theory/{chapter.stem}\n" in code
        assert f"</gallery/{name}>" in chapter.read_text(encoding="utf-8")


def test_an_example_becomes_a_page_with_its_text_picture_code_and_output(tmp_path):
    pytest.importorskip("PIL")
    names = runpy.run_path(str(ROOT / "docs" / "gallery.py"))
    path = ROOT / "docs" / "examples" / "gallery" / "weight_decay_collapses.py"
    assert names["example"](path, tmp_path)[2] == "Weight decay: shrinkage that jumps"
    page = (tmp_path / "weight_decay_collapses.md").read_text(encoding="utf-8")
    for part in (
        "# Weight decay: shrinkage",
        "$L$ layers",
        "{doc}`/theory/weight_decay`",
        "penalty = 0.5\n",
        "zero is best below 1.1892",
    ):
        assert part in page
    assert "docs/examples/gallery/weight_decay_collapses.py" in (tmp_path / "weight_decay_collapses.svg").read_text(
        encoding="utf-8"
    )
    assert (tmp_path / "weight_decay_collapses.png").stat().st_size < 40_000


def test_a_thumbnail_keeps_colours_that_few_pixels_have(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    with bf.plots.style():
        figure = Figure(figsize=(6.4, 4.0))
        ax = figure.subplots()
        for height, colour in enumerate(bf.plots.PALETTE.values()):
            ax.plot([0, 1], [0, height], color=colour, linewidth=1)
        figure.savefig(tmp_path / "lines.png", dpi=160)
    with Image.open(tmp_path / "lines.png") as picture:
        wanted = picture.convert("RGB")
    wanted.thumbnail((440, 440), Image.Resampling.LANCZOS)
    runpy.run_path(str(ROOT / "docs" / "gallery.py"))["shrink"](tmp_path / "lines.png")
    with Image.open(tmp_path / "lines.png") as picture:
        found = picture.convert("RGB")
    assert np.abs(np.array(found, dtype=int) - np.array(wanted, dtype=int)).max() <= 16


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "tables").glob("*.csv")), ids=lambda path: path.stem)
def test_a_stored_table_is_drawn_again(path, tmp_path):
    for kind in (".csv", ".json"):
        shutil.copy(path.with_suffix(kind), tmp_path)
    bf.experiments.redraw(FIGURES[path.stem], tmp_path, pictures="svg")
    pictures = [folder / f"{path.stem}.svg" for folder in (tmp_path, ROOT / "docs" / "images")]
    # Titles, names of axes and of series; numbers at ticks and outlines are those of the version of matplotlib.
    words = [sorted(re.findall(r"<!-- (?!\$\\mathdefault)(.*[a-z].*) -->", at.read_text(encoding="utf-8"))) for at in pictures]
    assert words[0]
    assert words[0] == words[1]


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "images").glob("*.svg")), ids=lambda path: path.stem)
def test_pictures_say_what_they_show_and_where_they_come_from(path):
    text = path.read_text(encoding="utf-8")
    assert re.search(r"<dc:title>.{10,}</dc:title>", text, flags=re.DOTALL)
    source = re.search(r"<dc:source>(.*?)</dc:source>", text, flags=re.DOTALL)[1]
    assert source.startswith(("balancedfact ", "benchmarks/"))
    if "table " in source:
        assert (ROOT / "docs" / "tables" / source.rpartition("table ")[2]).is_file()
    assert (path.parent / "thumbnails" / f"{path.stem}.png").is_file()


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_link_what_they_name(path):
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "markdown"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    assert re.findall(r"\bthe documentation\b|\b(?:chapters?|guide|notebook) (?:on|\*)", text) == []
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.startswith("http") or (path.parent / target.partition("#")[0]).is_file(), target


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_no_line_inside_an_inline_formula_starts_a_list(path):
    text = re.sub(r"^```.*?^```|\$\$.*?\$\$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    formulas = re.findall(r"\$[^$]*\$", re.sub(r"`[^`]*`", "", text))
    assert [formula for formula in formulas if re.search(r"\n(?:[-+*]|\d+[.)]) ", formula)] == []
