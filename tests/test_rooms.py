"""The rooms of the package: no circles, no two files of one name, none too long, and nothing private in the tests."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.settings_reference import leaves

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "selfedit"
MOST_LINES, MOST_SETTINGS = 400, 102
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """The package's modules that a file imports as it is imported itself, with the line; not those for the type checker."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue  # imported when it is called
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in MODULES:
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{source}.{alias.name}"
                if name in MODULES:
                    yield name, node.lineno
                elif source in MODULES:
                    yield source, node.lineno
        pending += ast.iter_child_nodes(node)


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: {name for name, _ in imported(path)} - {module} for module, path in MODULES.items()}
    finished: set[str] = set()

    def circle_from(module: str, way: tuple[str, ...]) -> str:
        if module in way:
            return " -> ".join((*way[way.index(module) :], module))
        if module in finished:
            return ""
        found = next(filter(None, (circle_from(name, (*way, module)) for name in sorted(graph[module]))), "")
        finished.add(module)
        return found

    circles = [circle for module in sorted(graph) if (circle := circle_from(module, ()))]
    assert circles == []


# Lowest first; a room imports only from those before it. Where rooms share a line, they may not import each other either.
ORDER = (
    ("errors", "stats", "characters"),
    ("disk",),
    ("types",),
    ("plugins",),
    ("templates", "thoughts"),
    ("config",),
    ("tasks",),
    ("edits", "engine"),
    ("models",),
)


def test_the_lower_rooms_know_nothing_of_the_higher_ones() -> None:
    known: set[str] = set()
    for row in ORDER:
        for room in row:
            allowed = known | {room}
            if room == "edits":  # what it has to know of a model is a protocol of its own
                allowed -= {"engine"}
            for module, path in MODULES.items():
                if module.split(".")[1:2] == [room]:
                    rooms = {name.split(".")[1] for name, _ in imported(path) if "." in name}
                    assert rooms <= allowed, f"{module} imports {sorted(rooms - allowed)}"
        known |= set(row)


def test_no_two_files_have_the_same_name() -> None:
    names = Counter(path.name for path in FILES if path.name not in ("__init__.py", "base.py"))
    assert [name for name, n in names.items() if n > 1] == []


def test_no_file_is_longer_than_a_reader_wants() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def test_no_adapter_is_mounted() -> None:
    """Every call names the adapter that it runs under; there is no hidden state, and no word for it."""
    assert [str(path.relative_to(ROOT)) for path in FILES if "mount" in path.read_text(encoding="utf-8").lower()] == []


def test_no_code_asks_which_engine_it_has() -> None:
    """What runs on one engine runs on each that keeps the protocol."""
    found = []
    for path in FILES:
        if PACKAGE / "engine" in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            asks = isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass", "type")
            if asks and "engine" in ast.unparse(node).lower():
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


def test_a_settings_file_can_have_at_most_so_many_settings() -> None:
    """Those of plug-ins, in tables of their own, are not counted: another algorithm must not crowd out another guard."""
    assert len(set(leaves())) == len(leaves())
    assert len(leaves(own=False)) <= MOST_SETTINGS


def private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def defined(path: Path) -> Iterator[str]:
    """The private names that a file defines, at any level."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names = [node.attr]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names = [node.id]
        else:
            continue
        yield from filter(private, names)


PRIVATE = {name for path in FILES for name in defined(path)}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_tests_use_no_private_names_of_the_package(path: Path) -> None:
    """Neither imported, nor as attributes of anything but their own classes, nor replaced by name."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), []
    theirs = PRIVATE - set(defined(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("selfedit"):
            found += [f"{node.lineno}: {alias.name}" for alias in node.names if private(alias.name)]
        elif isinstance(node, ast.Attribute) and node.attr in theirs:
            found.append(f"{node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
            named = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
            found += [f"{node.lineno}: {name}" for name in named if name in theirs]
    assert found == []
