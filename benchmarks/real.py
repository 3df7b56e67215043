"""The whole loop on real text: a small pretrained model learns to write self-edits of SQuAD's passages, and is tested on others.

    python -m benchmarks.real squad_val.json examples/real.toml --out runs/real --json real.json

A sample of the file's passages is written first, then `selfedit run` with the settings is what happens; the ladder gets two more
rungs, and every rung is measured in several ways. Stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from selfedit import stats
from selfedit.config import Settings, load_settings
from selfedit.evaluation.experiment import general_style, run_experiment
from selfedit.evaluation.ladder import Ladder
from selfedit.evaluation.machine import engines, numerics, resolve
from selfedit.evaluation.rungs.base import Result
from selfedit.loop import train
from selfedit.parts import Parts
from selfedit.rewards.string_rules import exact_match, token_f1
from selfedit.run import open_run, write_atomically
from selfedit.tasks.sources.base import open_source
from selfedit.types import Answer, Probe, Task

from .logged_edits import contained
from .machine import describe
from .turns import say

PER_TITLE, SAMPLE_SEED = 8, 24
SAMPLES = 3
RUN = 5  # words in a row that count as copied
OTHER_FORM = "facts"  # the best of five prompts on development passages (LOG.md)


def sample(squad: Path, file: Path) -> None:
    """Write at most so many passages of each title of SQuAD (rows of title, context and questions), drawn from a fixed seed."""
    by_title: dict[str, list[Any]] = defaultdict(list)
    for row in json.loads(squad.read_text(encoding="utf-8")):
        by_title[row["title"]].append(row)
    rng = random.Random(SAMPLE_SEED)
    drawn = [row for _, rows in sorted(by_title.items()) for row in rng.sample(rows, min(PER_TITLE, len(rows)))]
    write_atomically(file, json.dumps(drawn, ensure_ascii=False))


MEASURES: dict[str, Callable[[Answer, Probe], float]] = {
    "logprob": lambda a, _: a.logprob,
    "probability": lambda a, _: a.probability,
    "f1": lambda a, p: token_f1(a.text, p.golds),
    "exact": lambda a, p: exact_match(a.text, p.golds),
    "contained": lambda a, p: contained(a.text, p.golds),
    "right": lambda a, _: a.correct,
}


def measured(result: Result) -> dict[str, dict[str, float]]:
    """Every measure's mean over questions, by passage."""
    return {
        name: {
            task.id: fmean(float(of(a, p)) for a, p in zip(row, task.probes, strict=True))
            for task, row in zip(result.tasks, result.answers, strict=True)
        }
        for name, of in MEASURES.items()
    }


def climbed(settings: Settings, directory: Path) -> tuple[dict[str, Result], list[Task], list[dict[str, Any]]]:
    """The finished run's rungs and two more: several samples, and another prompt. Its tasks, and its rounds."""
    with numerics(settings), open_run(directory, settings, _show, resolve) as run:
        parts, source = Parts.of(run, *engines(run.settings), general_style), open_source(run.settings)
        trained, tasks = train(parts, source), source.evaluation()
        ladder = Ladder(parts, trained, tasks, source.dev())
        ladder.climb()
        found = ladder.results | {OTHER_FORM: ladder.written(OTHER_FORM, None, None, tasks, OTHER_FORM)}
        written = parts.writer.write("ladder/samples", None, tasks, SAMPLES)
        edits = [
            replace(first, further=tuple(edit.completion for edit in more))
            for first, *more in (written[i : i + SAMPLES] for i in range(0, len(written), SAMPLES))
        ]
        changes = [parts.inner.change(edit, task) for edit, task in zip(edits, tasks, strict=True)]
        found["samples"] = ladder.tried("samples", None, tasks, changes, [edit.text for edit in edits])
    return found, tasks, trained.rows


def table(found: Mapping[str, Result], last: str) -> dict[str, Any]:
    """Every rung by every measure with its interval over passages, and paired differences on the same passages."""
    values = {name: measured(result) for name, result in found.items()}
    rows = [
        {"rung": name, "n_passages": len(found[name].tasks), "steps": found[name].steps}
        | {"trained_tokens": round(found[name].trained_tokens), "failed_edits": found[name].failed}
        | {measure: stats.as_row(stats.bootstrap(list(by.values()))) for measure, by in of.items()}
        for name, of in values.items()
    ]
    others = ("base_edits", "passage_only", OTHER_FORM, "samples", "base_self_qa")
    pairs = [*((last, other) for other in others), *((other, "passage_only") for other in others if other != "passage_only")]
    pairs += [("passage_only", "no_edit"), ("in_context", "passage_only")]
    paired = [{"a": a, "b": b, **_differences(values[a], values[b])} for a, b in pairs if a in values and b in values]
    return {"ladder": rows, "paired": paired}


def _differences(a: Mapping[str, Mapping[str, float]], b: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    both = {name: [x - b[name][task] for task, x in by.items() if task in b[name]] for name, by in a.items()}
    return {name: stats.as_row(stats.bootstrap(values), "difference") for name, values in both.items()}


def copying(result: Result) -> dict[str, float] | None:
    """How much of the edits stands in their passages, and of the passages in the edits; None where there are no edits."""
    if not result.texts:
        return None
    rows = []
    for task, text in zip(result.tasks, result.texts, strict=True):
        words = [re.findall(r"\w+", part.casefold()) for part in (text, task.text)]
        own, passage = ({tuple(row[i : i + RUN]) for i in range(len(row) - RUN + 1)} for row in words)
        said = fmean(word in words[1] for word in words[0]) if words[0] else 0.0
        rows.append((said, len(own & passage) / max(1, len(own)), len(own & passage) / max(1, len(passage))))
    return dict(zip(("words_of_the_passage", "copied_runs", "passage_covered"), map(fmean, zip(*rows, strict=True)), strict=True))


def side_by_side(found: Mapping[str, Result], last: str, n: int) -> list[dict[str, Any]]:
    """Edits of the same passages before and after reinforcement learning, with what the learner then answers."""
    before, after = found["base_edits"], found[last]
    rows: list[dict[str, Any]] = []
    for task in before.tasks[:: max(1, len(before.tasks) // n)][:n]:
        row: dict[str, Any] = {"title": task.title, "context": task.text}
        for name, result in (("before", before), ("after", after)):
            i = [t.id for t in result.tasks].index(task.id)
            answers = [{"question": a.question, "gold": a.gold, "said": a.text, "right": a.correct} for a in result.answers[i]]
            row[name] = {"edit": result.texts[i], "answers": answers}
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("squad", type=Path, help="SQuAD as rows of title, context and questions")
    parser.add_argument("settings", type=Path, help="a settings file; its tasks.source is replaced")
    parser.add_argument("--out", type=Path, required=True, help="directory of the run and of the sample")
    parser.add_argument("--json", type=Path, help="where the numbers go")
    asked = parser.parse_args(arguments)
    source = asked.out.with_name(f"{asked.out.name}-squad.json")
    if not source.exists():
        source.parent.mkdir(parents=True, exist_ok=True)
        sample(asked.squad, source)
    settings = load_settings(asked.settings, tasks={"source": str(source)})
    if OTHER_FORM not in settings.templates.prompts:
        parser.error(f"{asked.settings} has no prompt {OTHER_FORM!r} in [edits.templates], which is tested beside the run's own")
    run_experiment(settings, asked.out, _show)
    found, tasks, rounds = climbed(settings, asked.out)
    last = next(name for name in reversed(found) if name.startswith("round_"))
    made = {
        "model": settings.model.path,
        "seeds": [settings.seed],
        "machine": describe(),
        "split": settings.tasks.split,
        "n_passages": len(tasks),
        "n_titles": len({task.title for task in tasks}),
        "rounds": rounds,
        **table(found, last),
        "copying": {name: row for name, result in found.items() if (row := copying(result))},
        "edits": side_by_side(found, last, 4),
    }
    for row in made["ladder"]:
        say(f"{row['rung']:<13} " + ", ".join(f"{m} {row[m]['mean']:.3f}" for m in MEASURES))
    if asked.json:
        write_atomically(asked.json, json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    return 0


def _show(kind: str, data: Mapping[str, Any]) -> None:
    if kind == "stage":
        say(f"{data['text']} ({data['total']})")
    elif kind == "round":
        say(f"round {data['round']}: mean reward {data['mean_reward']:.3f}, {data['verdict']} {data.get('reasons', '')}")
    elif kind == "rung":
        say(f"{data['rung']}: {data['accuracy']:.3f} [{data['low']:.3f}, {data['high']:.3f}]")
    elif kind == "warning":
        say(data["text"])


if __name__ == "__main__":
    sys.exit(main())
