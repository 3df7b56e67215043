"""A whole run: reinforcement learning, then the ladder, then summary and report. `selfedit run` and `selfedit demo` call this."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..config import Settings
from ..edits.text import edit_lines
from ..errors import ModelError, SettingsError
from ..loop import Trained
from ..own_probes import with_probes
from ..rewards.reliability import measure
from ..run import OnEvent, Run, ignore_event, open_run, write_atomically
from ..tasks.source import FileSource, FolderSource, TaskSource
from ..tasks.world.source import WorldSource
from ..tasks.world.writing import style_of
from ..types import Answer, Task
from ..work import Work
from .ladder import Rung, by_kind, paired_rows, verbatim_share
from .machine import at_hand, load_engine, needs, numerics, resolve
from .planning import measured_seconds, plan
from .protocols import PROTOCOLS, check_policy, trained_policies


def load_source(settings: Settings) -> TaskSource:
    """The task source that these settings ask for."""
    tasks, protocol = settings.tasks, settings.protocol
    if tasks.source == "world":
        if protocol.name != "single":  # the world has as many as are asked for, and none of them in two splits
            tasks = tasks.model_copy(update={"evaluation": protocol.n_tasks})
        return WorldSource(tasks, settings.seed)
    if protocol.name != "single" and protocol.n_tasks > tasks.evaluation:
        raise SettingsError(
            f"{protocol.name} takes protocol.passages x protocol.groups = {protocol.n_tasks} passages, and tasks.evaluation "
            f"holds out {tasks.evaluation} of {tasks.source}; raise that (for the run that trains a policy, too)"
        )
    if Path(tasks.source).is_dir():
        return FolderSource(tasks, settings.seed)
    return FileSource(tasks, settings.seed)


def general_style(line: str) -> str:
    """The style of an edit's line where the world's wordings mean nothing."""
    return "question-answer" if "?" in line else "statement"


def dry_run(settings: Settings) -> dict[str, Any]:
    """The plan, with the tasks read and, for a model at hand, the seconds estimated. Raises what a run would at its start."""
    check_policy(settings)
    load_source(settings)
    if not at_hand(settings):
        return plan(settings)
    with numerics(settings):
        settings, why = resolve(settings)
        planned = plan(settings, needs(settings), why)
        engine = load_engine(settings)
        learner = engine if settings.learner is None else load_engine(settings.of_learner())
        planned["estimated_seconds"] = measured_seconds(settings, learner)
    return planned


def run_experiment(settings: Settings, directory: Path, on_event: OnEvent = ignore_event) -> dict[str, Any]:
    """Run (or go on with, or look up) the experiment of ``settings`` in ``directory``; returns the summary.

    Raises `SelfEditError`s that say what to do; whatever was committed stays and the same call goes on from it.
    """
    from ..report.html import write_report

    with numerics(settings), open_run(directory, settings, on_event, resolve) as run:
        finished = directory / "summary.json"
        if finished.exists():
            summary: dict[str, Any] = json.loads(finished.read_text())
        else:
            summary = _run(run)
            write_atomically(finished, json.dumps(summary, indent=1, allow_nan=False) + "\n")
        write_report(summary, directory / "report.html")
        run.emit("done", summary=summary, directory=str(directory))
        return summary


def _run(run: Run) -> dict[str, Any]:
    settings = run.settings
    run.emit("plan", **plan(settings, needs(settings), run.why))
    check_policy(settings)
    source, engine = load_source(settings), load_engine(settings)
    learner = engine if settings.learner is None else load_engine(settings.of_learner())
    work = Work(run, engine, learner, style_of if settings.tasks.source == "world" else general_style)
    before = run.once("base", lambda: _hashes(work))
    for whose, sha256 in _hashes(work).items():
        if before[whose] != sha256:
            path = settings.model.path if whose == "sha256" else settings.of_learner().model.path
            raise ModelError(f"{path}: its weights are not those that this run started with")
    if settings.tasks.split != "dev":  # from here on tasks are looked at; a run that could not begin has looked at none
        _ledger(run)
    source = with_probes(source, work)
    tasks = source.evaluation()[: None if settings.protocol.name == "single" else settings.protocol.n_tasks]
    _follow_before(run, tasks[0])
    trained = trained_policies(work, source)
    rungs, more = PROTOCOLS[settings.protocol.name](work, trained, tasks, source)
    summary = {**_summary(work, trained, rungs, before), **more}
    # Of every chunk, also those of a process that was killed; a stream as a whole is made of others.
    seconds = {key: value for key, value in run.seconds().items() if not key.endswith("/taken")}
    summary["timing"] = {"total_seconds": round(sum(seconds.values()), 1), "stages": _stage_seconds(seconds)}
    summary["timing"]["dtype"] = run.why or f"{settings.model.dtype}: as set"  # it may tell a measured speed
    return summary


def _hashes(work: Work) -> dict[str, str]:
    """Hashes of the bases as they are: the writer's and, where it is another one, the learner's."""
    hashes = {"sha256": work.engine.base_sha256()}
    if work.rewarder.engine is not work.engine:
        hashes["learner_sha256"] = work.rewarder.engine.base_sha256()
    return hashes


def _ledger(run: Run) -> None:
    """Append this look at the test split to the ledger beside the runs (once per run)."""
    file = run.directory.parent / "test-ledger.jsonl"

    def append() -> dict[str, Any]:
        row = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "run": run.directory.name,
            "settings_sha256": run.settings.sha256(),
            "draw_seed": run.settings.seed,
        }
        with file.open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps(row) + "\n")
        return {"ledger": file.name}

    run.once("ledger", append)


def _follow_before(run: Run, task: Task) -> None:
    run.emit("passage", context=task.text, question_count=len(task.probes))


def _stage_seconds(chunks: dict[str, float]) -> dict[str, float]:
    """Wall clock by the first parts of the chunks' keys."""
    stages: dict[str, float] = {}
    for key, seconds in chunks.items():
        parts = key.split("/")
        name = "/".join(parts[:2]) if parts[0] == "ladder" else parts[0]
        stages[name] = round(stages.get(name, 0.0) + seconds, 3)
    return stages


def _summary(work: Work, trained: Trained, rungs: dict[str, Rung], before: dict[str, str]) -> dict[str, Any]:
    settings, after = work.settings, _hashes(work)
    last = f"round_{len(trained.policies) - 1}"
    notes = []
    of_learner: dict[str, Any] = {}
    if settings.learner is not None:
        notes.append(f"{settings.model.path} writes the edits, {settings.learner.path} learns from them.")
        left_out = [rung for rung in settings.ladder.rungs if rung not in settings.rungs_to_climb]
        notes += [f"{rung} is left out: another model learns than writes." for rung in left_out]
        of_learner = {
            "learner_sha256_before": before["learner_sha256"],
            "learner_sha256_after": after["learner_sha256"],
            "learner_dtype": work.rewarder.engine.dtype,
        }
    graded = [rung for rung in rungs.values() if rung.accuracy]
    if "no_edit" in rungs and graded and all(sum(rung.accuracy) == 0 for rung in graded):
        notes.append(
            "No rung answered anything right: with random weights that is expected, and the numbers mean nothing."
        )
    notes += [
        f"{rung.name}: {rung.ungraded} of {rung.ungraded + len(rung.tasks)} tasks could not be graded, and are left out."
        for rung in rungs.values()
        if rung.ungraded
    ]
    notes += [
        f"{rung.name}: {rung.held_out} line(s) of its edits say a probe's question word for word, and were not trained on."
        for rung in rungs.values()
        if rung.held_out
    ]
    notes += [
        f"{rung.name}: {rung.failed} edit(s) could not be trained on; the first: {rung.reason}."
        for rung in rungs.values()
        if rung.failed
    ]
    return {
        "ladder": [rung.row() for rung in rungs.values()],
        "paired": paired_rows(rungs, last),
        "rounds": trained.rows,
        "reliability": measure(trained.values).row(settings.algorithm.rank_by[0]),
        "by_kind": by_kind(rungs),
        "per_task": {name: rung.by_task for name, rung in rungs.items()},
        "style_shares": {name: _styles(rung, settings) for name, rung in rungs.items() if rung.texts},
        "verbatim_share": verbatim_share(rungs),
        "examples": _examples(rungs, last, settings),
        "notes": notes,
        "policies": [policy and policy.sha256 for policy in trained.policies],
        "base_sha256_before": before["sha256"],
        "base_sha256_after": after["sha256"],
        "dtype": work.engine.dtype,
        "seed": settings.seed,
        **of_learner,
        "settings": settings.fields(),
        "settings_sha256": settings.sha256(),
        "selfedit_version": version("selfedit"),
    }


def _style(settings: Settings, line: str) -> str:
    return style_of(line) if settings.tasks.source == "world" else general_style(line)


def _styles(rung: Rung, settings: Settings) -> dict[str, float]:
    lines = [_style(settings, line) for text in rung.texts for line in edit_lines(text)]
    return {style: lines.count(style) / len(lines) for style in sorted(set(lines))}


def _examples(rungs: dict[str, Rung], last: str, settings: Settings, n: int = 4) -> list[dict[str, Any]]:
    """A few tasks followed through: what was written before and after, and the probes' answers."""
    stages = [name for name in ("no_edit", "base_edits", last) if name in rungs]
    if not stages:
        return []
    examples = []
    places = {name: {task.id: i for i, task in enumerate(rungs[name].tasks)} for name in stages}
    in_all = [task for task in rungs[stages[0]].tasks if all(task.id in places[name] for name in stages)]
    for task in in_all[:n]:
        rows = []
        for name in stages:
            rung, i = rungs[name], places[name][task.id]
            text = rung.texts[i] if rung.texts else ""
            lines = [{"text": line, "style": _style(settings, line)} for line in edit_lines(text)]
            rows.append(
                {"rung": name, "edit": text, "lines": lines, "answers": [_answer_row(a) for a in rung.answers[i]]}
            )
        examples.append({"task_id": task.id, "family": task.family, "context": task.text, "stages": rows})
    return examples


def _answer_row(answer: Answer) -> dict[str, Any]:
    return {
        "question": answer.question,
        "gold": answer.gold,
        "text": answer.text,
        "correct": answer.correct,
        "kind": answer.kind,
    }
