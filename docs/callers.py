"""Links the reference with the notebooks and the examples of the gallery: each public function with those that call it."""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ledger import public

HERE = Path(__file__).resolve().parent


@cache
def callers() -> dict[str, list[str]]:
    """The pages whose code names each public function or class."""
    pages = {f"/notebooks/{path.stem}": cells(path) for path in sorted((HERE.parent / "notebooks").glob("*.ipynb"))}
    examples = sorted((HERE / "examples" / "gallery").glob("*.py"))
    pages |= {f"/gallery/{path.stem}": path.read_text(encoding="utf-8") for path in examples}
    found: dict[str, list[str]] = {}
    for page, code in pages.items():
        for name in sorted({public()[id(thing)] for thing in named_in(code) if id(thing) in public()}):
            found.setdefault(name, []).append(page)
    return found


def cells(notebook: Path) -> str:
    """The code of a notebook, without the commands of Jupyter."""
    all_cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in all_cells if cell["cell_type"] == "code")
    return "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))


def named_in(code: str) -> Iterator[Any]:
    """The objects of the package that a piece of code names."""
    nodes, imported = list(ast.walk(ast.parse(code))), {}
    for node in nodes:
        if isinstance(node, ast.Import):
            imported |= {each.asname or each.name: importlib.import_module(each.name) for each in ours(node.names)}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("balancedfact"):
            module = importlib.import_module(str(node.module))
            imported |= {each.asname or each.name: getattr(module, each.name) for each in node.names}
    for node in nodes:
        attributes, root = [], node
        while isinstance(root, ast.Attribute):
            attributes.append(root.attr)
            root = root.value
        if isinstance(root, ast.Name) and root.id in imported:
            thing = imported[root.id]
            for name in reversed(attributes):
                thing = getattr(thing, name, None) if isinstance(thing, ModuleType) else thing
            yield thing


def ours(names: list[ast.alias]) -> list[ast.alias]:
    """The modules of the package among those that are imported."""
    return [each for each in names if each.name.partition(".")[0] == "balancedfact"]


def lead_on(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Add the notebooks and examples that call a function to its page."""
    pages = callers().get(public().get(id(thing), ""), [])
    if pages:
        lines += ["", ".. rubric:: Notebooks and examples that call it", "", ", ".join(f":doc:`{page}`" for page in pages), ""]
