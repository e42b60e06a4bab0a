"""The house stands as CONTRIBUTING draws it: what each room may import, no cycles, one idea a file, doors that are used."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import balancedfact

PACKAGE = Path(balancedfact.__file__).parent
FILES = {
    ".".join(["balancedfact", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# What each room may import, besides itself and the tools that everyone uses: files of the package itself whose names begin with
# an underscore. CONTRIBUTING has the same table in words.
MAY_IMPORT = {
    "measurements": "",
    "certification": "measurements curvature",
    "curvature": "measurements",
    "closed_forms": "measurements curvature",
    "solution": "measurements certification",
    "manifolds": "measurements closed_forms",
    "solvers": "measurements certification curvature closed_forms manifolds solution",
    "dynamics": "measurements curvature closed_forms solution solvers",
    "data": "measurements solution solvers",
    "io": "data measurements solution",
    "comparison": "measurements curvature closed_forms manifolds solution solvers dynamics",
    "plots": "measurements solution comparison closed_forms",
    "theorems": "measurements certification curvature closed_forms manifolds solution solvers dynamics",
    "experiments": "measurements curvature closed_forms manifolds solution solvers dynamics data io plots comparison",
}
ROOMS = {name.split(".")[1] for name in FILES if "." in name}
DOORS = {"__main__", "cli", "commands", "estimators"}  # between the house and its visitors; may import everything
TOOLS = {room for room in ROOMS if room.startswith("_")} - DOORS


@cache  # in the process that runs these tests, not in every one that collects them
def trees():
    """The parsed files."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imports(name):
    """The modules that a module imports, anywhere in it: for types and inside functions too."""
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "balancedfact")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "balancedfact":
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else node.module


@cache
def graph():
    """What each file imports."""
    return {name: set(imports(name)) - {name} for name in FILES}


def cycles(nodes):
    """The groups of nodes that reach one another: strongly connected components with more than one node (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in nodes[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in nodes:
        if node not in index:
            visit(node)
    return found


def test_cycles_are_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_import_cycle_not_even_for_types():
    assert cycles(graph()) == []


@pytest.mark.parametrize("room", sorted(ROOMS - TOOLS - DOORS))
def test_a_room_imports_what_it_may(room):
    allowed = {room, *MAY_IMPORT[room].split()} | TOOLS
    for name in FILES:
        if name.split(".")[1:2] == [room]:
            found = {other.split(".")[1] if "." in other else "the package itself" for other in graph()[name]}
            assert found <= allowed, f"{name} imports {found - allowed}"


def test_tools_import_tools_only():
    for name in FILES:
        if name.split(".")[1:2] and name.split(".")[1] in TOOLS:
            assert {other.split(".")[1] for other in graph()[name]} <= TOOLS, name


def test_contributing_draws_every_room():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)/?` \|.*\| ([^|]*) \|$", text, flags=re.MULTILINE))
    for room, allowed in MAY_IMPORT.items():
        if room in ROOMS:
            assert set(re.findall(r"`(\w+)`", rows[room])) & ROOMS == set(allowed.split()) & ROOMS, room


def test_no_file_is_longer_than_an_idea():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    longest = max(lengths, key=lengths.__getitem__)
    assert lengths[longest] < 400, f"{longest} has {lengths[longest]} lines"


def test_a_class_name_has_one_meaning():
    places = {}
    for name, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def constants(tree):
    """The names in capitals, or beginning with one, that a module gives a value: constants and names of types."""
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name) and name.id.lstrip("_")[:1].isupper():
                        yield name.id


# Of one meaning in every file that has them: the settings of the figures of a file, and the page of its claims.
PARTS_OF_A_FILE = {"_PAPER", "_QUICK", "_SETTINGS", "PAGE"}


def test_constants_are_found():
    tree = ast.parse("_A, B = 1, 2\nPair: type = tuple\nlocal = 3\ndef f():\n    C = 4\n")
    assert list(constants(tree)) == ["_A", "B", "Pair"]


def test_a_constant_name_has_one_meaning():
    places = {}
    for name, tree in trees().items():
        for constant in set(constants(tree)) - PARTS_OF_A_FILE:
            places.setdefault(constant, []).append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def first_lines(tree):
    """The first lines of the docstrings of a module, with the names of what they describe."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "name", "the module"), text.splitlines()[0]


# Beginnings of clauses: a docstring begins with a noun phrase or an imperative, which says what is there.
CLAUSES = {
    "About", "As", "By", "Down", "For", "From", "How", "If", "In", "Into", "Of", "On", "Since", "So", "That", "Through",
    "To", "Under", "Until", "What", "When", "Where", "Whether", "Which", "Who", "Why", "With", "Without",
}  # fmt: skip


def test_clauses_are_found():
    tree = ast.parse('"""The module."""\ndef f():\n    """What is known."""\nclass C:\n    """Find it."""\n')
    assert list(first_lines(tree)) == [("the module", "The module."), ("f", "What is known."), ("C", "Find it.")]


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_docstrings_begin_with_a_noun_phrase_or_an_imperative(room):
    for name in FILES:
        if name.split(".")[1:2] == [room]:
            for what, line in first_lines(trees()[name]):
                assert line.split()[0] not in CLAUSES, f"{name}, {what}: {line}"
