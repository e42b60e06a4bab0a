"""The reference leads on: every public function and class has an example, related names and a page that says why it is true."""

import inspect
import re
from pathlib import Path

import pytest

import balancedfact

ROOT = Path(__file__).resolve().parent.parent
ROOMS = [balancedfact, *filter(inspect.ismodule, (getattr(balancedfact, name) for name in balancedfact.__all__))]


def public():
    """The public functions and classes, under the first room that has them in `__all__`."""
    names, seen = [], set()
    for room in ROOMS:
        for name in room.__all__:
            thing = getattr(room, name)
            if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing not in seen:
                seen.add(thing)
                names.append(f"{room.__name__}.{name}")
    return names


PUBLIC = public()


def resolve(name):
    """The object of a full name, such as ``balancedfact.theorems.Claim.check``; an `AttributeError` where there is none."""
    thing, *path = balancedfact, *name.split(".")[1:]
    for part in path:
        thing = getattr(thing, part)
    return thing


def section(doc, title):
    """The lines of a section of a docstring in the style of numpydoc."""
    found = re.search(rf"^{title}\n-+\n(.*?)(?=\n\n[A-Z][\w ]*\n-{{3,}}$|\Z)", doc, flags=re.MULTILINE | re.DOTALL)
    return found[1].splitlines() if found else []


def related(lines):
    """The names at the beginning of the entries of a section See Also."""
    entries = [line.partition(" : ")[0] for line in lines if line and not line[0].isspace()]
    return [name.strip() for entry in entries for name in entry.split(",")]


def test_sections_are_found():
    doc = "One.\n\nSee Also\n--------\nf, g : Both.\n    Long.\nh : Other.\n\nReferences\n----------\nA book.\n\nAnother."
    assert related(section(doc, "See Also")) == ["f", "g", "h"]
    assert section(doc, "References") == ["A book.", "", "Another."]
    assert section(doc, "Examples") == []


def test_the_whole_surface_is_looked_at():
    assert {"balancedfact.flat_minimum", "balancedfact.curvature.trace", "balancedfact.estimators.FlatImputer"} <= set(PUBLIC)
    assert len(PUBLIC) > 130


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_leads_on(name):
    doc = inspect.getdoc(resolve(name))
    assert any(line.startswith(">>> ") for line in section(doc, "Examples")), "no example"
    others = related(section(doc, "See Also"))
    assert others, "no related names"
    room = name.rpartition(".")[0]
    for other in others:
        full = other if other.startswith("balancedfact.") else f"{room}.{other}"
        assert resolve(full) is not resolve(name), f"{other} is the thing itself"
    pages = re.findall(r":doc:`/([\w/]+)`", " ".join(section(doc, "References")))
    assert pages, "no page of the documentation that explains it"
    for page in pages:
        assert page == "theorems" or (ROOT / "docs" / f"{page}.md").is_file(), page


def doors(thing):
    """The code in which a public function, or the constructor of a class, looks at its arguments, without docstrings."""
    own = (
        [vars(thing)[name] for name in ("__init__", "__post_init__") if name in vars(thing)]
        if inspect.isclass(thing)
        else [thing]
    )
    functions = [
        each for each in map(inspect.unwrap, own) if inspect.isfunction(each) and each.__code__.co_filename != "<string>"
    ]
    return "\n".join(inspect.getsource(each).replace(each.__doc__ or "", "") for each in functions)


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_refused_is_said(name):
    thing = resolve(name)
    if re.search(r"\braise ValueError|\bas_[a-z]+\(", doors(thing)):
        assert section(inspect.getdoc(thing), "Raises"), "arguments are checked, and the docstring does not say what is raised"


def test_the_reference_lists_every_public_name():
    text = (ROOT / "docs" / "api" / "index.rst").read_text(encoding="utf-8")
    listed, room = set(), ""
    for line in text.splitlines():
        if line.startswith(".. currentmodule:: "):
            room = line.split(":: ")[1]
        elif re.fullmatch(r"   \w+", line):
            listed.add(f"{room}.{line.strip()}")
    assert set(PUBLIC) <= listed
