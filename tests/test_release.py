"""What a release says of itself is said alike in every place: the version, the requirements, the citation."""

import configparser
import re
from pathlib import Path

import pytest
import yaml

from balancedfact import __version__
from balancedfact.theorems import ledger

ROOT = Path(__file__).resolve().parent.parent
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")
RECIPE = "conda/recipe.yaml"
CONDA_NAMES = {"matplotlib": "matplotlib-base"}  # where the package of a conda channel has another name


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def conda_name(requirement):
    """A requirement of setup.cfg as a conda recipe writes it: ``pymanopt>=2,<3`` as ``pymanopt >=2,<3``."""
    name, bounds = re.fullmatch(r"([\w.-]+)(.*)", requirement).groups()
    return f"{CONDA_NAMES.get(name, name)} {bounds}"


def test_one_version():
    assert yaml.safe_load(read("CITATION.cff"))["version"] == __version__
    assert yaml.safe_load(read(RECIPE))["context"]["version"] == __version__
    assert f"version = {{{__version__}}}" in read("docs/cite.md")
    assert re.search(r"^## \[(\d[^]]*)\]", read("CHANGELOG.md"), flags=re.MULTILINE)[1] == __version__


def test_the_conda_recipe_asks_for_what_the_package_asks_for():
    recipe = yaml.safe_load(read(RECIPE))
    wanted = [conda_name(line) for line in CONFIG["options"]["install_requires"].split("\n") if line and line[0] != "#"]
    python = f"python {CONFIG['options']['python_requires']}"
    assert recipe["requirements"]["run"] == [python, *wanted]
    assert recipe["requirements"]["host"][0] == python
    script = CONFIG["options.entry_points"]["console_scripts"].strip()
    assert recipe["build"]["python"]["entry_points"] == [script]


def test_the_conda_recipe_builds_from_the_checkout_and_carries_nothing_else_along():
    recipe = yaml.safe_load(read(RECIPE))
    folder = (ROOT / RECIPE).parent
    assert (folder / recipe["source"]["path"]).resolve() == ROOT
    assert [path.name for path in folder.iterdir()] == ["recipe.yaml"]
    assert (ROOT / recipe["about"]["license_file"]).is_file()
    # Nothing is downloaded in the build, so setuptools has to make the wheel without the package `wheel`.
    assert "--no-build-isolation" in recipe["build"]["script"]
    [setuptools] = [line for line in recipe["requirements"]["host"] if line.startswith("setuptools")]
    major, minor = map(int, re.fullmatch(r"setuptools >=(\d+)\.(\d+)", setuptools).groups())
    assert (major, minor) >= (70, 1)


def test_the_citation_has_what_the_format_demands():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    for entry in citation["references"]:
        assert {"type", "title", "authors"} <= set(entry), entry


def test_hosted_documentation_is_built_as_here():
    settings = yaml.safe_load(read(".readthedocs.yaml"))
    assert settings["sphinx"] == {"configuration": "docs/conf.py", "fail_on_warning": True}
    [install] = settings["python"]["install"]
    assert install["extra_requirements"] == ["docs"]


@pytest.mark.parametrize("name", ["tests", "docs", "notebooks", "benchmarks", "paper", "conda", ".ci"])
def test_the_source_distribution_takes_every_folder_along(name):
    assert f"graft {name}\n" in read("MANIFEST.in")
    assert (ROOT / name).is_dir()


def test_the_paper_has_the_sections_and_references_that_the_journal_asks_for():
    _, head, body = read("paper/paper.md").split("---\n", 2)
    front = yaml.safe_load(head)
    assert {"title", "tags", "authors", "affiliations", "date", "bibliography"} <= set(front)
    sections = re.findall(r"^# (.+)$", body, flags=re.MULTILINE)
    wanted = ["Summary", "Statement of need", "State of the field", "Software design", "AI usage disclosure", "References"]
    assert set(wanted) <= set(sections)
    assert 750 <= len(body.split()) <= 1750
    cited = set(re.findall(r"@([\w-]+)", body))
    entries = set(re.findall(r"^@\w+\{([\w-]+),$", read(f"paper/{front['bibliography']}"), flags=re.MULTILINE))
    assert cited == entries
    [count] = re.findall(r"more than (\d+)\s+statements", body)
    assert int(count) < len(ledger()) <= int(count) + 20
