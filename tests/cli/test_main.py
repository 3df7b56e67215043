from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sample_summary import arm, full_summary

from selfedit.cli.main import main
from selfedit.config import Settings
from selfedit.errors import RunError
from selfedit.types import Probe, Task

Stub = Callable[..., None]
TASKS = [Task("dev-0", "Mara", ("Mara was born in Oskarstad.",), (Probe("Where was Mara born?", "Oskarstad", "direct"),))]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def runs(stub: Stub) -> list[tuple[Settings, Path]]:
    """What the stubbed experiment was asked to run."""
    asked: list[tuple[Settings, Path]] = []

    def run_experiment(settings: Settings, directory: Path, on_event: Any) -> dict[str, Any]:
        asked.append((settings, directory))
        on_event("done", {"summary": full_summary(), "directory": str(directory)})
        return full_summary()

    def plan(settings: Settings, _: object) -> dict[str, Any]:
        return {"lines": [f"{settings.rounds} rounds"], "inner_loops": 12, "estimated_seconds": None}

    stub("selfedit.evaluation.experiment", run_experiment=run_experiment, dry_run=plan)
    return asked


def help_of(capsys: pytest.CaptureFixture[str], *verb: str) -> str:
    assert main([*verb, "--help"]) == 0
    return capsys.readouterr().out


def test_help_teaches_the_verbs_and_how_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys)
    for verb in ("demo", "run", "report", "import-round", "world", "grader"):
        assert f"│ {verb} " in text
    for command in ("selfedit demo ", "selfedit world sample", "selfedit run my.toml --dry-run"):
        assert command in text
    world = help_of(capsys, "world")
    assert "│ sample " in world


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("demo", "--out --seed --rounds --json-lines"),
        ("model list", "--json-lines"),
        ("model get", "NAME --yes"),
        ("model import", "SOURCE --name"),
        ("model check", "PATH --prompts --json"),
        ("run", "CONFIG --out --seed --dry-run --json-lines"),
        ("report", "RUNS --json --chart"),
        ("import-round", "FILE --select --json"),
        ("world sample", "--n --family --split --seed --form --out"),
        ("grader report", "--data --json"),
        ("grader explain", "--question --gold --answer"),
    ],
)
def test_every_verb_explains_its_options_and_gives_an_example(
    capsys: pytest.CaptureFixture[str], verb: str, options: str
) -> None:
    text = help_of(capsys, *verb.split())
    assert f"selfedit {verb}" in text.partition("For example:")[2]
    for option in options.split():
        line = next(line for line in text.splitlines() if line.startswith("│") and option in line.split())
        assert len(line.strip("│ ").split()) > 3, f"{option} is not explained"


def test_an_options_help_is_one_paragraph(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert "replaces the file's seed, and the run is then in runs/NAME/seed-N. Several" in help_of(capsys, "run")
    assert "Number of passages. [default: 3]" in help_of(capsys, "world", "sample")


def test_help_answers_at_once_because_it_loads_no_torch() -> None:
    code = "import sys; from selfedit.cli.main import main; main(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert not any(f"'{name}'" in loaded for name in ("torch", "transformers", "altair", "pydantic"))


def test_a_mistake_is_a_message_and_exit_code_2(capsys: pytest.CaptureFixture[str], stub: Stub) -> None:
    def fails(*_: object) -> None:
        raise RunError("runs/x: in use by another process; wait for it")

    stub("selfedit.evaluation.experiment", run_experiment=fails)
    assert main(["demo"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "selfedit: runs/x: in use by another process; wait for it\n"
    assert "Traceback" not in captured.out + captured.err


@pytest.mark.parametrize(
    "command",
    [
        "demo --sede 3",
        "demo --seed x",
        "demo --seed -1",
        "demo --rounds 0",
        "run",
        "run absent.toml",
        "nonsense",
        "report absent",
        "import-round",
        "import-round absent.json",
        "world sample --n 0",
        "world sample --family e9",
    ],
)
def test_a_wrong_command_line_exits_2_without_a_traceback(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.strip()
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_ctrl_c_says_that_nothing_is_lost(capsys: pytest.CaptureFixture[str], stub: Stub) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    stub("selfedit.evaluation.experiment", run_experiment=stopped)
    assert main(["demo"]) == 130
    assert "run the same command again to continue" in capsys.readouterr().err


def test_demo_runs_the_demos_settings(capsys: pytest.CaptureFixture[str], runs: list[tuple[Settings, Path]]) -> None:
    assert main(["demo", "--seed", "4", "--rounds", "3"]) == 0
    settings, directory = runs[0]
    assert (settings.seed, settings.rounds, directory) == (4, 3, Path("runs/demo-seed-4"))
    out = capsys.readouterr().out
    assert "Report: runs/demo-seed-4/report.html" in out
    assert "\x1b" not in out


def test_demo_can_print_json(capsys: pytest.CaptureFixture[str], runs: list[tuple[Settings, Path]]) -> None:
    assert main(["demo", "--json-lines", "--out", "here"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events] == ["done"]
    assert runs[0][1] == Path("here")


def test_run_takes_its_settings_from_the_file(runs: list[tuple[Settings, Path]]) -> None:
    Path("mine.toml").write_text("rounds = 4\n[inner]\nsteps = 7\n")
    assert main(["run", "mine.toml"]) == 0
    assert main(["run", "mine.toml", "--seed", "9"]) == 0
    assert main(["run", "mine.toml", "--seed", "9", "--out", "here"]) == 0
    assert [(s.seed, s.rounds, s.inner.steps, str(d)) for s, d in runs] == [
        (0, 4, 7, "runs/mine"),
        (9, 4, 7, "runs/mine/seed-9"),
        (9, 4, 7, "here"),
    ]


def _finished(directory: Path, seed: int) -> None:
    directory.mkdir(parents=True)
    summary = full_summary()
    names = [row["rung"] for row in summary["ladder"]]
    summary |= {"seed": seed, "per_task": {name: {f"{seed}-{i}": i / 10 for i in range(9)} for name in names}}
    summary |= {"base_sha256_before": "b"}
    (directory / "summary.json").write_text(json.dumps(summary))


def test_several_seeds_make_a_run_each_and_a_pooled_result(
    capsys: pytest.CaptureFixture[str], runs: list[tuple[Settings, Path]]
) -> None:
    Path("mine.toml").write_text("rounds = 2\n")
    for seed in (5, 6):
        _finished(Path(f"runs/mine/seed-{seed}"), seed)
    assert main(["run", "mine.toml", "--seed", "5", "6"]) == 0
    assert [(s.seed, str(d)) for s, d in runs] == [(5, "runs/mine/seed-5"), (6, "runs/mine/seed-6")]
    assert "Seeds 5, 6 together" in capsys.readouterr().out
    pooled = json.loads(Path("runs/mine/pooled.json").read_text())
    assert [row["seed"] for row in pooled["seeds"]] == [5, 6]
    assert Path("runs/mine/ladder.svg").read_text().startswith("<svg")


def test_report_pools_runs_and_refuses_the_same_seed_twice(capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("a", 1), ("b", 2), ("c", 2)):
        _finished(Path(name), seed)
    assert main(["report", "a", "b", "--json", "p.json", "--chart", "p.png"]) == 0
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(Path("p.json").read_text())["ladder"][0]["n_tasks"] == 120
    assert "Seeds 1, 2 together" in capsys.readouterr().out
    assert main(["report", "b", "c"]) == 2
    assert "two runs have the same seed" in capsys.readouterr().err
    assert main(["report", "a", "b", "--chart", "p.gif"]) == 2
    assert "saved as .png or .svg" in capsys.readouterr().err


def test_the_picture_of_a_run_is_its_ladder_and_of_a_stream_what_each_way_keeps() -> None:
    _finished(Path("r"), 1)
    assert main(["report", "r", "--chart", "ladder.svg"]) == 0
    assert "Probes answered correctly" in Path("ladder.svg").read_text()
    summary = json.loads(Path("r/summary.json").read_text())
    summary["arms"] = {"plain": arm("sum", 0.45, 0.3, n=2)}
    Path("r/summary.json").write_text(json.dumps(summary))
    assert main(["report", "r", "--chart", "stream.svg"]) == 0
    assert "Passages learned so far" in Path("stream.svg").read_text()


def test_a_dry_run_plans_and_runs_nothing(capsys: pytest.CaptureFixture[str], runs: list[tuple[Settings, Path]]) -> None:
    Path("mine.toml").write_text("rounds = 4\n")
    assert main(["run", "mine.toml", "--dry-run"]) == 0
    assert "4 rounds" in capsys.readouterr().out
    assert main(["run", "mine.toml", "--dry-run", "--json-lines"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["inner_loops"] == 12
    assert runs == []


@pytest.mark.parametrize(
    "command",
    [
        "evaluate mine.toml --json {}",
        "evaluate mine.toml --dry-run --json {}",
        "report absent --json {}",
        "report absent --chart {}",
        "grader report --data absent.jsonl --json {}",
        "import-round absent.json --json {}",
        "import-round absent.json --select {}",
        "world sample --out {}",
    ],
)
@pytest.mark.parametrize(
    ("path", "told"),
    [("no/such/x.json", "there is no folder no/such"), ("folder", "it is a folder"), ("file/x.json", "file is a file")],
)
def test_where_the_result_goes_is_checked_before_anything_else(
    capsys: pytest.CaptureFixture[str], runs: list[tuple[Settings, Path]], command: str, path: str, told: str
) -> None:
    Path("mine.toml").write_text("rounds = 4\n")
    Path("folder").mkdir()
    Path("file").touch()
    assert main(command.format(path).split()) == 2
    assert f"{path}: can't be written: {told}" in capsys.readouterr().err
    assert runs == []
    assert sorted(file.name for file in Path().iterdir()) == ["file", "folder", "mine.toml"]


def test_report_writes_the_page_again_and_prints_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    Path("r").mkdir()
    Path("r/summary.json").write_text(json.dumps(full_summary()))
    assert main(["report", "r"]) == 0
    out = capsys.readouterr().out
    for words in ("How the model was prepared", "Difference on the same tasks", "Decision", "Report: r/report.html"):
        assert words in out
    assert Path("r/report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "isn't finished"),
        ("{", "damaged"),
        ("[]", "not a summary"),
        ("\udcff", "damaged"),
        ("{}", "not a summary"),
    ],
)
def test_report_says_what_is_wrong_with_a_run(capsys: pytest.CaptureFixture[str], content: str | None, told: str) -> None:
    Path("r").mkdir()
    if content is not None:
        Path("r/summary.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert main(["report", "r"]) == 2
    assert told in capsys.readouterr().err


def test_world_sample_shows_or_writes_tasks(capsys: pytest.CaptureFixture[str], stub: Stub) -> None:
    asked: list[tuple[Any, ...]] = []

    def draw_tasks(*arguments: Any) -> list[Task]:
        asked.append(arguments)
        return TASKS

    stub("selfedit.tasks.sources.world", draw_tasks=draw_tasks)
    assert main(["world", "sample"]) == 0
    assert "Where was Mara born? Oskarstad" in capsys.readouterr().out
    sampled = "world sample --n 5 --family e1 --family e2 --split train --seed 2"
    assert main([*sampled.split(), "--out", "t.jsonl"]) == 0
    assert capsys.readouterr().out == "1 tasks written to t.jsonl\n"
    assert main([*sampled.split(), "--form", "jsonl"]) == 0
    assert capsys.readouterr().out == Path("t.jsonl").read_text()
    assert asked == [("dev", ("e1",), 3, 0), ("train", ("e1", "e2"), 5, 2), ("train", ("e1", "e2"), 5, 2)]
