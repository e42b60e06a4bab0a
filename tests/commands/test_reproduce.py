"""The command ``balancedfact reproduce``."""

import json

import matplotlib.image
import pytest

from balancedfact.cli import main
from balancedfact.experiments import figures
from tests.experiments.toy import toy

NAMES = [*(f"mc-{number}" for number in range(1, 8)), "glcrmj-1", "glcrmj-2"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _toys(monkeypatch):
    """Two small figures in place of the published ones."""
    monkeypatch.setattr(figures, "FIGURES", {"toy": toy(repetitions=1), "paused": toy(repetitions=2)})


def test_list(tmp_path, capsys):
    assert main(["reproduce", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(NAMES)]] == NAMES
    assert [line.split()[0] for line in lines] == list(figures.FIGURES)
    assert all(
        line.endswith(f"{each.source}: {each.caption}") for line, each in zip(lines, figures.FIGURES.values(), strict=True)
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mc-1", "mc-8"], "FIGURE is 'mc-8'; expected one of mc-1, mc-2,"),
        (["mc-1", "--scale", "huge"], "--scale"),
        (["mc-1", "--workers", "0"], "--workers is 0; expected at least 1"),
        (["mc-1", "--workers", "two"], "--workers"),
        (["mc-1", "--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "--workers and --scheduler exclude one another"),
    ],
)
def test_bad_usage_is_refused_in_one_line(tmp_path, capsys, arguments, message):
    assert main(["reproduce", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not list(tmp_path.iterdir())


def test_no_scheduler_at_the_address(tmp_path, capsys):
    pytest.importorskip("distributed")
    assert main(["reproduce", "mc-1", "--scheduler", "nonsense://x"]) == 2
    assert "scheduler is 'nonsense://x'; no Dask scheduler answers there" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("_toys")
def test_a_figure_leaves_its_files(tmp_path, capsys):
    assert main(["reproduce", "toy", "--workers", "1", "--out", "deep/there"]) == 0
    folder = tmp_path / "deep" / "there"
    assert {path.name for path in folder.iterdir()} == {"toy.csv", "toy.png", "toy.json"}
    assert json.loads((folder / "toy.json").read_text(encoding="utf-8"))["scale"] == "quick"
    assert (folder / "toy.csv").read_text(encoding="utf-8").count("\n") == 1 + 6
    assert matplotlib.image.imread(folder / "toy.png").size
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("toy ")
    assert line.endswith("toy.csv, .png, .json")


@pytest.mark.slow
@pytest.mark.usefixtures("_toys")
def test_pictures_are_drawn_again_from_the_tables(tmp_path, capsys):
    assert main(["reproduce", "toy", "--workers", "1", "--out", "there", "--pictures", "svg"]) == 0
    folder = tmp_path / "there"
    drawn = (folder / "toy.svg").read_text(encoding="utf-8")
    assert "reproduce toy --scale quick; table toy.csv" in drawn
    table = (folder / "toy.csv").read_bytes()
    (folder / "toy.svg").unlink()
    capsys.readouterr()
    assert main(["reproduce", "--redraw", "--out", "there", "--pictures", "svg"]) == 0
    assert capsys.readouterr().out.split() == ["toy", "there/toy.svg"]
    assert (folder / "toy.svg").read_text(encoding="utf-8") == drawn
    assert (folder / "toy.csv").read_bytes() == table
    assert main(["reproduce", "toy", "--redraw", "--out", "elsewhere"]) == 2
    assert "out is 'elsewhere', without toy.json" in capsys.readouterr().err
    other = json.loads((folder / "toy.json").read_bytes()) | {"figure": "mc-1"}
    for text, said in (
        (json.dumps(other), "describes 'mc-1'"),
        ('{"figure": "toy"}', "without figure, scale and settings ('scale')"),
        ("[1", "without figure, scale and settings"),
        ("1", "without figure, scale and settings"),
    ):
        (folder / "toy.json").write_text(text, encoding="utf-8")
        assert main(["reproduce", "toy", "--redraw", "--out", "there"]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.usefixtures("_toys")
def test_all_figures_by_default_and_the_options_that_choose(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "balancedfact.experiments._runner.reproduce",
        lambda figure, scale, out, executor, pictures: seen.append((len(figure.units(figure.scales[scale])), scale, str(out))),
    )
    assert main(["reproduce", "--workers", "1"]) == 0
    assert main(["reproduce", "paused", "--scale", "paper", "--workers", "1", "--out", "x"]) == 0
    assert seen == [(2, "quick", "figures"), (4, "quick", "figures"), (12, "paper", "x")]


def test_help(capsys):
    assert main(["reproduce", "--help"]) == 0
    text = capsys.readouterr().out
    for word in (
        "--list",
        "--scale",
        "--workers",
        "--scheduler",
        "--out",
        "--pictures",
        "--redraw",
        "example: balancedfact reproduce",
    ):
        assert word in text
