"""What README and docs say is true: links resolve, commands parse, settings are valid, examples run, pages are current."""

from __future__ import annotations

import ast
import importlib.util
import re
import runpy
import shlex
import sqlite3
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cyclopts import MissingArgumentError

from selfedit.cli.main import build_app, main
from selfedit.config import make_settings, merged
from selfedit.evaluation.experiment import run_experiment
from selfedit.plugins import GROUPS
from tools import architecture_diagram, settings_reference, summary_schema

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [
    *DOCUMENTS,
    *(ROOT / name for name in ("CONTRIBUTING.md", "AGENTS.md", "CHANGELOG.md", "benchmarks/README.md")),
]


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def commands(page: Path) -> list[str]:
    """The shell commands of a page: lines of its blocks, and `code` that begins with the name of a program of ours."""
    lines = [line for block in blocks(page, "", "sh", "bash") for line in block.splitlines()]
    lines += re.findall(r"(?<!`)`((?:selfedit|python -m|make) [^`\n]+)`", page.read_text(encoding="utf-8"))
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


def anchors(page: Path) -> set[str]:
    """The names that links can have to a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_has_at_most_120_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" not in target:
            file = (page.parent / path) if path else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_command_is_one_that_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in commands(page):
        program, *words = shlex.split(command.partition(" > ")[0], comments=True) or [""]
        if program == "selfedit":
            words = words[: words.index("|")] if "|" in words else words
            try:
                build_app().parse_args(words, exit_on_error=False, print_error=False)
            except MissingArgumentError:  # prose that names a verb
                assert len(words) <= 2, command
        elif program == "python" and words[0] == "-m":
            assert importlib.util.find_spec(words[1]), command
        elif program == "make":
            assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), command
        for word in words:
            if word.startswith("examples/"):
                assert (ROOT / word).exists(), command


@pytest.fixture
def plugin_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of docs/plugins.md, installed."""
    page = ROOT / "docs" / "plugins.md"
    (tmp_path / "my_plugins").mkdir()
    for block in blocks(page, "python"):
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(block, encoding="utf-8")
    (project,) = [table["project"] for text in blocks(page, "toml") if "project" in (table := tomllib.loads(text))]
    info = tmp_path / "my_plugins-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in e.items()) for group, e in project["entry-points"].items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    assert {*project["entry-points"]} == {group.entry_points for group in GROUPS.values()}
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in [name for name in sys.modules if name.partition(".")[0] == "my_plugins"]:
        del sys.modules[module]


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_toml_block_is_valid_settings(page: Path, plugin_package: Path) -> None:
    for text in blocks(page, "toml"):
        fields = tomllib.loads(text)
        if "project" not in fields:
            make_settings(fields, f"{page.name}: {text[:40]!r}")


def test_the_examples_are_valid_settings() -> None:
    for file in sorted((ROOT / "examples").glob("*.toml")):
        make_settings(tomllib.loads(file.read_text(encoding="utf-8")), file.name)


def test_the_plugins_of_the_documentation_run(plugin_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plugins"])
    listing = capsys.readouterr().out
    assert "broken" not in listing
    assert listing.count("(from my-plugins 0.1)") == len(GROUPS)
    texts = [tomllib.loads(text) for text in blocks(ROOT / "docs" / "plugins.md", "toml")]
    (fields,) = [table for table in texts if "project" not in table]
    quick = {
        "model": {"dtype": "fp32", "memory_gib": 1.0},
        "inner": {"steps": 2},
        "ladder": {"passage_lr_factors": [1.0]},
    }
    summary = run_experiment(make_settings(merged(fields, quick)), tmp_path / "run")
    rows = {row["rung"]: row for row in summary["ladder"]}
    assert {*rows} == {"no_edit", "passage_only", "sentences", "round_1"}
    assert rows["sentences"]["n_tasks"] == 4
    assert rows["sentences"]["failed_edits"] == 0
    assert ("sentences", "passage_only") in {(row["a"], row["b"]) for row in summary["paired"]}
    assert "short_edits" in summary["rounds"][-1]["guards"]
    assert summary["settings"]["edits"]["longest_lines"] == {"keep": 3}
    with closing(sqlite3.connect(tmp_path / "run" / "journal.db")) as journal:
        rows = journal.execute("select distinct e.value ->> 'kind' from chunks c, json_each(c.data, '$.edits') e").fetchall()
    assert rows == [("longest_lines",)]


def test_the_settings_reference_is_current_and_has_every_setting_with_a_description() -> None:
    assert settings_reference.FILE.read_text(encoding="utf-8") == settings_reference.page()
    for path, model in settings_reference.sections():
        for name, field in model.model_fields.items():
            if settings_reference.section_of(field) is None:
                assert field.description, f"{path}.{name}"


def test_the_schema_of_summaries_is_current() -> None:
    assert summary_schema.main(["--check"]) == 0


def test_the_diagram_is_current_and_names_modules_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    assert architecture_diagram.FILE.read_text(encoding="utf-8") == architecture_diagram.svg()
    gone = architecture_diagram.Box("gone", "gone", ("engine/nowhere.py",), (0, 0))
    monkeypatch.setattr(architecture_diagram, "BOXES", (*architecture_diagram.BOXES, gone))
    with pytest.raises(ValueError, match=r"engine/nowhere\.py"):
        architecture_diagram.svg()


def test_a_self_edits_way_has_at_most_ten_steps_and_enters_no_file_twice() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    way = page.partition("## The way of a self-edit")[2].partition("\n## ")[0]
    steps = re.findall(r"^\d+\. `([\w/]+\.py):([\w.]+)`", way, re.MULTILINE)
    assert len(steps) == len(re.findall(r"^\d+\. ", way, re.MULTILINE))
    assert 5 <= len(steps) <= 10
    assert len({file for file, _ in steps}) == len(steps)
    for file, function in steps:
        nodes: list[ast.stmt] = ast.parse((architecture_diagram.PACKAGE / file).read_text(encoding="utf-8")).body
        for name in function.split("."):
            found = [node for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name]
            assert found, f"{file}:{function}"
            nodes = found[0].body


def test_every_file_that_the_maps_name_exists() -> None:
    for page in (ROOT / "AGENTS.md", ROOT / "docs" / "architecture.md"):
        for name in re.findall(r"`([\w./]+(?:\.py|\.md|\.toml|/))`", page.read_text(encoding="utf-8")):
            places = [ROOT, architecture_diagram.PACKAGE, architecture_diagram.PACKAGE / "evaluation", ROOT / "tools"]
            places += [
                architecture_diagram.PACKAGE / "engine" / "training",
                architecture_diagram.PACKAGE / "engine" / "inference",
            ]
            places += [architecture_diagram.PACKAGE / folder for folder in ("edits", "algorithms", "engine/adapters", "config")]
            assert any((place / name).exists() for place in places), f"{page.name}: {name}"


def test_a_room_imports_only_from_rooms_before_it() -> None:
    order = [room for line in architecture_diagram.ROOMS for room in line.split()]
    found = {
        path.stem for path in architecture_diagram.PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert found - {"__init__"} == {*order}
    for file in sorted(architecture_diagram.PACKAGE.rglob("*.py")):
        parts = file.relative_to(architecture_diagram.PACKAGE).with_suffix("").parts
        for node in ast.parse(file.read_text(encoding="utf-8")).body:  # imports inside functions are late on purpose
            if isinstance(node, ast.ImportFrom) and node.level:
                module = [*parts[: len(parts) - node.level], *(node.module or "").split(".")]
                rooms = [module[0]] if module[0] else [alias.name for alias in node.names]
                for room in rooms:
                    assert order.index(room) <= order.index(parts[0]), f"{file}: {room}"


def test_the_example_of_a_loss_of_ones_own_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "own_loss.py"), run_name="__main__")
    rows = [tuple(map(float, re.findall(r"-\d+\.\d+", line))) for line in capsys.readouterr().out.splitlines()]
    assert rows[-1][0] > rows[0][0] > -1
    assert rows[-1][1] < rows[0][1]
    assert (tmp_path / "runs" / "own-loss" / "adapter_model.safetensors").exists()
