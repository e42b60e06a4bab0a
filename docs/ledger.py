"""Writes the page on the theorem ledger from the ledger itself, before the documentation is built."""

from __future__ import annotations

import re
from pathlib import Path

from balancedfact.theorems import KINDS, SOURCES, Claim, ledger

INTRODUCTION = """\
# Theorems

<!-- Written by docs/ledger.py when the documentation is built. -->

Every theorem of the sources, and every one of this package, as a claim that can be run. A run draws a random instance that
meets the hypotheses, computes both sides independently, usually by the package's own routines and straight from the
definitions, and compares. Each row leads to the code of the claim and to the page that explains it, and gives the command that
runs it. To run everything:

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


def write(path: Path) -> None:
    """Write the page, one table for each source."""
    claims = ledger()
    parts = [INTRODUCTION, "The kinds of claims:\n"]
    parts.append("\n".join(f"{escaped(kind)}\n: {escaped(KINDS[kind])}.\n" for kind in KINDS))
    for source, title in SOURCES.items():
        rows = [row(claim) for claim in claims if claim.source == source]
        if rows:
            parts.append(f"## {escaped(source)}\n\n{escaped(title)}.\n")
            parts.append("\n".join(["| claim | statement | kind | explained in | run |", "|---|---|---|---|---|", *rows, ""]))
    parts.append(sources(claims))
    path.write_text("\n".join(parts), encoding="utf-8")


def row(claim: Claim) -> str:
    """The row of one claim; its name leads to its code."""
    module = claim.test.__module__.replace(".", "/")
    name = f'<a href="_modules/{module}.html#{claim.test.__name__}">{escaped(claim.name)}</a>'
    cells = [name, escaped(claim.statement), claim.kind, f"[]({claim.page}.md)", f"`balancedfact verify {claim.key}`"]
    return "| " + " | ".join(cells) + " |"


def sources(claims: list[Claim]) -> str:
    """The functions behind the claims: Sphinx shows the code of the modules whose functions are described somewhere."""
    lines = [f".. autofunction:: {claim.test.__module__}.{claim.test.__name__}" for claim in claims]
    return "\n".join(["<details><summary>The functions</summary>\n", "```{eval-rst}", *lines, "```\n", "</details>", ""])


def escaped(text: str) -> str:
    """The text with all that means something in Markdown taken literally."""
    return re.sub(r"([\\`*_{}\[\]<>$|#~^&])", r"\\\1", text)
