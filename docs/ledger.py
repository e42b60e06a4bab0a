"""Writes the page of theorems from the ledger itself, before the documentation is built, and links the reference with it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import balancedfact
from balancedfact.theorems import KINDS, SOURCES, Claim, ledger

HERE = Path(__file__).resolve().parent
AUTHORS = {"Ding": "ddf", "CS282": "cs282", "Gatmiry": "glcrmj", "Marion": "mc"}  # how docstrings name the sources

INTRODUCTION = """\
# Theorems

<!-- Written by docs/ledger.py when the documentation is built. -->

This page lists every theorem of the sources, and every one of this package, each as a claim that can be run. A run draws a
random instance that meets the hypotheses, computes both sides independently, usually by the package's own routines and straight
from the definitions, and compares them. Below each statement are its kind, the section that explains or
proves it, the public functions that it puts to the test, the code of the claim, and the command that runs it. To run them all:

```bash
balancedfact verify
```

or, from Python, for one claim and one seed,

```python
from balancedfact.theorems import ledger

claim = next(claim for claim in ledger() if claim.key == "mc-theorem-1")
outcome = claim.check(rng=0)
print(outcome.holds, outcome.slack, outcome.details)
```

"""
FILTER = """\
<form id="claim-filter" hidden>
<label>Paper <select name="source"><option value="">all</option>{sources}</select></label>
<label>Kind <select name="kind"><option value="">all</option>{kinds}</select></label>
<label>Words <input name="words" type="search" placeholder="Theorem 7"></label>
<output></output>
</form>

"""


def write(path: Path) -> None:
    """Write the page, a section for each source and in it one for each claim."""
    claims = ledger()
    options = {
        name: "".join(f'<option value="{key}">{key}</option>' for key in keys) for name, keys in _options(claims).items()
    }
    parts = [INTRODUCTION, "The kinds of claims:\n"]
    parts.append("\n".join(f"{escaped(kind)}\n: {escaped(KINDS[kind])}.\n" for kind in KINDS))
    parts.append(FILTER.format(**options))
    for source, title in SOURCES.items():
        entries = [entry(claim) for claim in claims if claim.source == source]
        if entries:
            parts += [f"## {escaped(source)}\n\n{escaped(title)}.\n", *entries]
    parts.append(sources(claims))
    path.write_text("\n".join(parts), encoding="utf-8")


def _options(claims: list[Claim]) -> dict[str, list[str]]:
    return {"sources": [source for source in SOURCES if any(each.source == source for each in claims)], "kinds": list(KINDS)}


def entry(claim: Claim) -> str:
    """The section of one claim: its statement, and where it leads."""
    section, statement = statements()[claim.key]
    module = claim.test.__module__.replace(".", "/")
    functions = " ".join(f"{{py:obj}}`{name.removeprefix('balancedfact.')} <{name}>`" for name in uses(claim))
    leads = [
        f'<span class="claim" data-source="{claim.source}" data-kind="{claim.kind}"></span>*{claim.kind}*',
        f"[{escaped(section)}]({claim.page}.md#{slug(section)})",
        *([functions] if functions else []),
        f'<a href="_modules/{module}.html#{claim.test.__name__}">code</a>',
        f"`balancedfact verify {claim.key}`",
    ]
    index = f"```{{index}} ! single: {claim.name.replace(';', ',')} ({claim.source})\n```"  # for the search by number
    return f"({claim.key})=\n### {escaped(claim.name)} ({claim.source})\n\n{index}\n\n{statement}\n\n{' · '.join(leads)}\n"


@cache
def statements() -> dict[str, tuple[str, str]]:
    """The claims as the page sets them: by key, the heading of the section that explains it, and the statement."""
    pages = {claim.key: claim.page for claim in ledger()}
    found = {}
    for line in (HERE / "statements.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            key, beginning, statement = line.split(" | ", 2)
            text = (HERE / f"{pages[key]}.md").read_text(encoding="utf-8")
            [heading] = re.findall(rf"^#{{2,3}} ({re.escape(beginning)}.*)$", text, flags=re.MULTILINE)
            found[key] = heading, statement
    return found


def slug(heading: str) -> str:
    """The anchor of a heading, as MyST makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sources(claims: list[Claim]) -> str:
    """The functions behind the claims: Sphinx shows the code of the modules whose functions are described somewhere."""
    lines = [f".. autofunction:: {claim.test.__module__}.{claim.test.__name__}" for claim in claims]
    return "\n".join(["<details><summary>The functions</summary>\n", "```{eval-rst}", *lines, "```\n", "</details>", ""])


def escaped(text: str) -> str:
    """The text with all that means something in Markdown taken literally, formulas excepted."""
    parts = re.split(r"(\$[^$]+\$)", text) if text.count("$") % 2 == 0 else [text]
    return "".join(part if part[:1] == "$" else re.sub(r"([\\`*_{}\[\]<>$|#~^&])", r"\\\1", part) for part in parts)


@cache
def public() -> dict[int, str]:
    """The full names of all public functions and classes but those that state claims, by identity."""
    rooms = [balancedfact, *filter(inspect.ismodule, (getattr(balancedfact, name) for name in balancedfact.__all__))]
    things = [(getattr(room, name), f"{room.__name__}.{name}") for room in rooms for name in room.__all__]
    named: dict[int, str] = {}
    for thing, name in things:
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and not name.startswith("balancedfact.theorems."):
            named.setdefault(id(thing), name)
    return named


def uses(claim: Claim) -> list[str]:
    """The public functions that the test of a claim calls, itself or through the helpers of the ledger, in order."""
    found: dict[str, None] = {}
    seen: set[int] = set()
    pending: list[Any] = [claim.test]
    while pending:
        function = pending.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        for thing in named_in(function):
            if id(thing) in public():
                found[public()[id(thing)]] = None
            elif inspect.isfunction(thing) and thing.__module__.startswith("balancedfact.theorems"):
                pending.append(thing)
    return list(found)


def named_in(function: Any) -> list[Any]:
    """The objects that the body of a function names: globals, and attributes of modules among them."""
    found = []
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    body = definition.body if isinstance(definition, ast.FunctionDef) else []
    for node in (node for statement in body for node in ast.walk(statement)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = function.__globals__.get(node.value.id)
            if isinstance(module, ModuleType) and module.__name__.startswith("balancedfact"):
                found.append(getattr(module, node.attr, None))
        elif isinstance(node, ast.Name):
            found.append(function.__globals__.get(node.id))
    return found


@cache
def users() -> dict[str, list[Claim]]:
    """The claims that call each public function."""
    found: dict[str, list[Claim]] = {}
    for claim in ledger():
        for name in uses(claim):
            found.setdefault(name, []).append(claim)
    return found


def lead_on(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Link the references of a docstring with the statements that they name, and add the claims that call the function."""
    start = next((k for k, line in enumerate(lines) if line.strip() == ".. rubric:: References"), len(lines))
    source = ""
    for k in range(start + 1, len(lines)):
        if lines[k].startswith(".. rubric::"):
            break
        source = next((key for author, key in AUTHORS.items() if author in lines[k]), source) if lines[k].strip() else ""
        lines[k] = re.sub(
            r"\b(Theorem|Lemma|Corollary|Definition|[Ee]quation) \(?(\d+)\)?", lambda m, s=source: linked(m, s), lines[k]
        )
    full = public().get(id(thing), "")
    claims = users().get(full, [])
    if claims and not full.startswith("balancedfact.measurements."):  # which nearly all of them draw
        links = [f":ref:`{claim.name} ({claim.source}) <{claim.key}>`" for claim in claims]
        lines += ["", ".. rubric:: Claims that call it", "", ", ".join(links), ""]


def linked(found: re.Match[str], source: str) -> str:
    """A citation such as "Lemma 4" as a link to the first statement of that name, if there is one."""
    key = f"{source}-{found[1].lower()}-{found[2]}"
    targets = [claim.key for claim in ledger() if claim.key == key or claim.key.startswith(f"{key}-")]
    return f":ref:`{found[0]} <{targets[0]}>`" if targets else found[0]
