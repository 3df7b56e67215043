"""A whole run: reinforcement learning, then the ladder, then summary and report. `selfedit run` and `selfedit demo` call this."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..config import Settings
from ..edits.parsing.lines import edit_lines
from ..errors import ModelError
from ..loop import Trained, counted
from ..own_probes import with_probes
from ..parts import Parts
from ..rewards.reliability import measure
from ..rows import ExampleAnswer
from ..run import OnEvent, Run, ignore_event, open_run, write_atomically
from ..summary import SUMMARY_FILE, new_summary, read_run
from ..tasks.sources.base import open_source
from ..tasks.world.writing import style_of
from .ladder import by_kind, paired_rows, rungs_of, verbatim_share
from .machine import at_hand, engines, needs, numerics, resolve
from .planning import plan, reading_problems
from .protocols import check_policy, tested, trained_policies
from .remembered import remember_tasks, source_of
from .rungs.base import Result
from .timing import TASKS, measured_seconds


def general_style(line: str) -> str:
    """The style of an edit's line where the world's wordings mean nothing."""
    return "question-answer" if "?" in line else "statement"


def dry_run(settings: Settings, on_event: OnEvent = ignore_event) -> dict[str, Any]:
    """The plan, with the tasks read and, for a model at hand, the seconds estimated. Raises what a run would at its start."""
    check_policy(settings)
    source = open_source(settings)
    notes = getattr(source, "notes", ())
    if not at_hand(settings):
        return plan(settings, notes=notes)
    with numerics(settings):
        settings, why = resolve(settings)
        planned = plan(settings, needs(settings), why, notes)
        tasks, both = source.draw(1)[:TASKS], engines(settings)
        planned["lines"] += [f"too long   {problem}" for problem in reading_problems(settings, both[1], source)]
        text = f"Measuring the time: edits of {counted(len(tasks), 'passage')} are written, trained on for a moment, and tested"
        on_event("stage", {"name": "timing", "text": text})
        planned["estimated_seconds"] = measured_seconds(settings, planned, *both, tasks)
    return planned


def run_experiment(settings: Settings, directory: Path, on_event: OnEvent = ignore_event) -> dict[str, Any]:
    """Run (or go on with, or look up) the experiment of ``settings`` in ``directory``; returns the summary.

    Raises `SelfEditError`s that say what to do; whatever was committed stays and the same call goes on from it.
    """
    from ..report.html import write_report

    with numerics(settings), open_run(directory, settings, on_event, resolve) as run:
        finished = directory / SUMMARY_FILE
        if finished.exists():
            if settings.tasks.source == "world" or Path(settings.tasks.source).exists():
                source_of(run)  # these tasks, and not others, have the summary's numbers
            summary = read_run(directory)
        else:
            summary = new_summary(_run(run))
            write_atomically(finished, summary.to_json())
        write_report(summary, directory / "report.html")
        data = summary.to_dict()
        run.emit("done", summary=data, directory=str(directory))
        return data


def _run(run: Run) -> dict[str, Any]:
    settings = run.settings
    run.emit("plan", **plan(settings, needs(settings), run.why))
    if caveat := check_policy(settings):
        run.emit("warning", text=caveat)
    source = source_of(run)
    for note in getattr(source, "notes", ()):
        run.emit("warning", text=note)
    parts = Parts.of(run, *engines(settings), style_of if settings.tasks.source == "world" else general_style)
    before = run.once("base", lambda: _hashes(parts))
    for whose, sha256 in _hashes(parts).items():
        if before[whose] != sha256:
            path = settings.model.path if whose == "sha256" else settings.of_learner().model.path
            raise ModelError(f"{path}: its weights are not those that this run started with")
    remember_tasks(run, source)
    for note in (*getattr(source, "notes", ()), *reading_problems(settings, parts.inner.engine, source)):
        run.emit("warning", text=note)
    if settings.tasks.split != "dev":  # from here on tasks are looked at; a run that could not begin has looked at none
        _ledger(run)
    source = with_probes(source, parts)
    tasks = source.evaluation()[: None if settings.protocol.name == "single" else settings.protocol.n_tasks]
    run.emit("passage", context=tasks[0].text, question_count=len(tasks[0].probes))
    trained = trained_policies(parts, source)
    rungs, more = tested(parts, trained, tasks, source)
    notes = [*getattr(source, "notes", ()), *_notes(settings, rungs)]
    return {**_summary(parts, trained, rungs, before), "notes": notes, **more, "timing": _timing(run)}


def _timing(run: Run) -> dict[str, Any]:
    """Wall clock, by the first parts of the chunks' keys; also of chunks of a process that was killed."""
    stages: dict[str, float] = {}
    # A stream as a whole is made of other chunks.
    chunks = {key: seconds for key, seconds in run.seconds().items() if not key.endswith("/taken")}
    for key, seconds in chunks.items():
        first, *rest = key.split("/")
        name = f"{first}/{rest[0]}" if first == "ladder" else first
        stages[name] = round(stages.get(name, 0.0) + seconds, 3)
    dtype = run.why or f"{run.settings.model.dtype}: as set"  # it may have a measured speed
    return {"total_seconds": round(sum(chunks.values()), 1), "stages": stages, "dtype": dtype}


def _hashes(parts: Parts) -> dict[str, str]:
    """Hashes of the bases as they are: the writer's and, where it is another one, the learner's."""
    hashes = {"sha256": parts.writer.engine.base_sha256()}
    if parts.inner.engine is not parts.writer.engine:
        hashes["learner_sha256"] = parts.inner.engine.base_sha256()
    return hashes


def _ledger(run: Run) -> None:
    """Append this look at the test split to the ledger beside the runs (once per run)."""
    file = run.directory.parent / "test-ledger.jsonl"

    def append() -> dict[str, Any]:
        row = {
            "id": run.id,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "run": run.directory.name,
            "settings_sha256": run.settings.sha256(),
            "draw_seed": run.settings.seed,
        }
        # A process may have been killed between the ledger and the journal.
        if not file.exists() or f'"{run.id}"' not in file.read_text(encoding="utf-8"):
            with file.open("a", encoding="utf-8") as ledger:
                ledger.write(json.dumps(row) + "\n")
        return {"ledger": file.name}

    run.once("ledger", append)


def _summary(parts: Parts, trained: Trained, rungs: dict[str, Result], before: dict[str, str]) -> dict[str, Any]:
    settings, after = parts.settings, _hashes(parts)
    last = f"round_{len(trained.policies) - 1}"
    of_learner: dict[str, Any] = {}
    if settings.learner is not None:
        of_learner = {
            "learner_sha256_before": before["learner_sha256"],
            "learner_sha256_after": after["learner_sha256"],
            "learner_dtype": parts.inner.engine.dtype,
        }
    return {
        "ladder": [rung.row() for rung in rungs.values()],
        "paired": paired_rows(settings, rungs, last),
        "rounds": trained.rows,
        "reliability": measure(trained.values).row(settings.algorithm.rank_by[0]),
        "by_kind": by_kind(rungs),
        "per_task": {name: rung.by_task for name, rung in rungs.items()},
        "style_shares": {name: parts.style_shares(rung.texts) for name, rung in rungs.items() if rung.texts},
        "verbatim_share": verbatim_share(rungs),
        "examples": _examples(parts, rungs, last),
        "policies": [policy and policy.sha256 for policy in trained.policies],
        "base_sha256_before": before["sha256"],
        "base_sha256_after": after["sha256"],
        "dtype": parts.writer.engine.dtype,
        "seed": settings.seed,
        **of_learner,
        "settings": settings.fields(),
        "settings_sha256": settings.sha256(),
        "selfedit_version": version("selfedit"),
    }


def _notes(settings: Settings, rungs: Mapping[str, Result]) -> list[str]:
    """What a reader should know about the run."""
    notes = []
    if settings.learner is not None:
        notes.append(f"{settings.model.path} writes the edits, {settings.learner.path} learns from them.")
        left_out = [rung for rung in settings.ladder.rungs if rung not in rungs_of(settings)]
        notes += [f"{rung} is left out: another model learns than writes." for rung in left_out]
    graded = [rung for rung in rungs.values() if rung.accuracy]
    if "no_edit" in rungs and graded and all(sum(rung.accuracy) == 0 for rung in graded):
        notes.append("No rung answered any question right: with random weights that is expected, and the numbers mean nothing.")
    for name, rung in rungs.items():
        if rung.ungraded:
            of = counted(rung.ungraded + len(rung.tasks), "task")
            notes.append(f"{name}: {rung.ungraded} of {of} could not be graded; such tasks are left out of its figures.")
        if rung.held_out:
            lines = f"{counted(rung.held_out, 'line')} of its edits"
            notes.append(f"{name}: trained without {lines} that would have taught a probe's question word for word.")
        if rung.failed:
            edits = counted(rung.failed, "edit")
            notes.append(f"{name}: {edits} could not be trained on; the first failed because: {rung.reason}.")
    return notes


def _examples(parts: Parts, rungs: Mapping[str, Result], last: str, n: int = 4) -> list[dict[str, Any]]:
    """A few tasks followed through: what was written before and after, and the probes' answers."""
    stages = [rungs[name] for name in ("no_edit", "base_edits", last) if name in rungs]
    places = [{task.id: i for i, task in enumerate(rung.tasks)} for rung in stages]
    in_all = [task for task in stages[0].tasks if all(task.id in own for own in places)] if stages else []
    examples = []
    for task in in_all[:n]:
        rows = []
        for rung, own in zip(stages, places, strict=True):
            text = rung.texts[own[task.id]] if rung.texts else ""
            lines = [{"text": line, "style": parts.style_of(line)} for line in edit_lines(text)]
            answers = [{name: getattr(a, name) for name in ExampleAnswer.model_fields} for a in rung.answers[own[task.id]]]
            rows.append({"rung": rung.name, "edit": text, "lines": lines, "answers": answers})
        examples.append({"task_id": task.id, "family": task.family, "context": task.text, "stages": rows})
    return examples
