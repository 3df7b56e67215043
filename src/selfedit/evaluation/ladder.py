"""The ladder: several ways of preparing a model for the same held-out probes, compared on the same tasks, paired.

Every trained rung gets the same number of optimiser steps (or of epochs: `Recipe.steps_for`), from the same seeds task by
task. An edit that is unusable or diverged leaves the model as it was, so its task keeps the un-edited accuracy; how many did is
reported. A task whose answers could not be graded has no accuracy, and is left out of the rung. The rungs are plug-ins, one per
file in `rungs/`; this file has what they share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from ..config import Form, Settings
from ..edits.parsing.lines import edit_lines
from ..edits.text import passage_change
from ..inner import Answers
from ..loop import Trained
from ..parts import Parts
from ..plugins import find
from ..rewards.examiner import Worth
from ..stats import as_row, bootstrap_seeds
from ..types import Adapter, Change, Edit, Outcome, Recipe, Task
from .rungs.base import LAST_ROUND, Result, by_group


class Rung(ABC):
    """One way of preparing a model, made without arguments: ``Kind()``. Its file has everything about it.

    ``label`` is its name in reports, ``group`` what it is there for: ``before RL``, ``after RL``, ``ablation`` (one half of
    the trained model) or ``ceiling``. ``pairs`` are the differences a - b that it is compared by, as names of rungs (`LAST_ROUND`
    for the last round's). ``trains``: something is learned; ``writes``: self-edits are written for it. ``for_groups``: it has a
    meaning where many passages are learned in one adapter. ``takes_apart``: it needs one model that both writes and learns, and
    a trained policy. Its own settings, if any, are the model ``Settings``.
    """

    label: str = ""
    group: str = "before RL"
    pairs: Sequence[tuple[str, str]] = ()
    trains: bool = True
    writes: bool = True
    for_groups: bool = True
    takes_apart: bool = False

    @abstractmethod
    def climb(self, ladder: Ladder) -> None:
        """Prepare the model in this way, ask the probes, and add the result to the ladder (`Ladder.add`)."""

    def cost(self, settings: Settings) -> int:
        """Inner loops that it takes, for the plan and the time: one per task, where its file does not say otherwise."""
        return settings.tasks.evaluation if self.trains else 0


def rungs_of(settings: Settings) -> dict[str, Rung]:
    """The ladder's rungs that these settings have, by name, in order."""
    one_trained = settings.learner is None and settings.has_trained_policy
    found = {name: find("rungs", name)() for name in settings.ladder.rungs}
    return {name: rung for name, rung in found.items() if one_trained or not rung.takes_apart}


class Ladder:
    """Climbs the rungs. ``trained`` holds the policy after each round; ``dev`` are the development tasks."""

    in_groups = False  # many passages are learned in one adapter

    def __init__(self, parts: Parts, trained: Trained, tasks: Sequence[Task], dev: Sequence[Task]) -> None:
        self.parts, self.trained = parts, trained
        self.run, self.settings, self.inner = parts.run, parts.settings, parts.inner
        self.tasks, self.dev = list(tasks), list(dev)
        self.results: dict[str, Result] = {}
        self._untouched: dict[str, dict[str, Answers]] = {}
        self._written_by: dict[tuple[str, Form | None], dict[str, Edit]] = {}  # by task
        self._best_lr: float | None = None

    def climb(self, names: Collection[str] | None = None) -> dict[str, Result]:
        """Every rung of the settings (or of ``names`` among them) that these tasks can have."""
        for name, rung in rungs_of(self.settings).items():
            if (rung.for_groups or not self.in_groups) and (names is None or name in names):
                rung.climb(self)
        return self.results

    @property
    def fewer(self) -> list[Task]:
        """The first tasks: for rungs that are not worth all of them. All tasks where there are groups, which can't be cut."""
        return self.tasks[: None if self.in_groups else self.settings.ladder.middle_tasks]

    @property
    def last(self) -> Adapter | None:
        """The last policy."""
        return self.trained.policies[-1]

    def add(self, result: Result) -> None:
        """A rung's result, shown and kept."""
        self.results[result.name] = result
        self.run.emit("rung", **result.row())

    def follow(self, when: str, result: Result) -> None:
        """Add the result, and show the first task's edit with the answers it leads to, where they could be graded."""
        self.add(result)
        if result.tasks and result.tasks[0].id == self.tasks[0].id:
            lines, answers = edit_lines(result.texts[0]), list(map(vars, result.answers[0]))
            self.run.emit("edit", when=when, rung=result.name, lines=lines, answers=answers)

    def stage(self, name: str, text: str, total: int) -> None:
        """Announce what comes next, with the number of pieces of work."""
        self.run.emit("stage", name=f"ladder/{name}", text=text, total=total)

    def unedited(self, on: Adapter | None, tasks: Sequence[Task]) -> dict[str, Answers]:
        """The answers without the passage and without an edit, by task, to at least these tasks; asked once."""
        known = self._untouched.setdefault(adapter_key(on), {})
        if missing := [task for task in tasks if task.id not in known]:
            answers = self.inner.answers(f"ladder/no_edit-{adapter_key(on)}/{len(known)}", missing, on=on)
            known |= {t.id: row for t, row in zip(missing, answers, strict=True)}
        return known

    def worths(self, on: Adapter | None, tasks: Sequence[Task], answers: Sequence[Answers]) -> list[Worth]:
        """What these answers are worth; a perplexity is that of the model with the adapter ``on``."""
        return [self.inner.examiner.worth(task, row, on) for task, row in zip(tasks, answers, strict=True)]

    def asked(self, name: str, on: Adapter | None, tasks: Sequence[Task], answers: Sequence[Answers]) -> Result:
        """The result of a rung that trains nothing."""
        return Result.of_graded(name, tasks, self.worths(on, tasks, answers), answers)

    def tried(
        self, name: str, on: Adapter | None, tasks: Sequence[Task], changes: Sequence[Change], texts: Sequence[str] = ()
    ) -> Result:
        """One change per task, tried on the learner with the adapter ``on``; ``texts`` are the edits as written."""
        untouched = self.unedited(on, tasks)
        before = self.worths(on, tasks, [untouched[task.id] for task in tasks])
        trials = [self.inner.trial("ladder", f"{t.id}#0", t, change) for t, change in zip(tasks, changes, strict=True)]
        outcomes = self.inner.outcomes(f"ladder/{name}", trials, before, on=on)
        answers = [
            outcome.answers if outcome.status == "ok" else untouched[task.id]
            for task, outcome in zip(tasks, outcomes, strict=True)
        ]
        after = [self.inner.examiner.after(*row) for row in zip(tasks, outcomes, before, strict=True)]
        return Result.of_graded(name, tasks, after, answers, texts, **self.cost_of(outcomes, changes))

    def cost_of(self, outcomes: Sequence[Outcome], changes: Sequence[Change]) -> dict[str, Any]:
        """Steps (of epochs: their mean), mean trained tokens, failures and held-out lines, as `Result` has them."""
        failed = [outcome.reason for outcome in outcomes if outcome.status in ("invalid", "diverged")]
        steps = [change.update.steps for change in changes if change.update is not None]
        return {
            "steps": round(sum(steps) / len(steps)) if steps else self.settings.inner.steps,
            "trained_tokens": sum(o.trained_tokens for o in outcomes) / max(1, len(outcomes)),
            "held_out": sum(change.held_out for change in changes),
            "failed": len(failed),
            "reason": failed[0] if failed else "",
        }

    def passages(self, name: str, on: Adapter | None, tasks: Sequence[Task]) -> Result:
        """Trained on the raw passages alone, at the learning rate that suits them best."""
        lr = self._best_lr = self._best_lr or self._passage_lr()
        unit = "epochs" if self.recipe.epochs else "steps"
        self.stage(name, f"Training on the raw passage alone, with the same number of {unit}", len(tasks))
        return self.tried(name, on, tasks, self.passage_changes(tasks, lr))

    def passage_changes(self, tasks: Sequence[Task], lr: float) -> list[Change]:
        """The changes that train on the raw passages."""
        recipe = replace(self.recipe, lr=lr)
        return [passage_change(self.inner.settings, self.inner.engine, task, recipe) for task in tasks]

    @property
    def recipe(self) -> Recipe:
        """The run's recipe."""
        return self.inner.settings.inner.recipe

    def _passage_lr(self) -> float:
        """The learning rate that suits raw passages best, chosen on development tasks (a fair chance for the baseline)."""
        rates = [self.recipe.lr * factor for factor in self.settings.ladder.passage_lr_factors]
        if len(rates) == 1:
            return rates[0]
        text = "Choosing the best learning rate for raw passages, on development passages"
        self.stage("passage-lr", text, len(rates) * len(self.dev))
        rewards = [self.dev_rewards(rate) for rate in rates]
        graded = [i for i in range(len(self.dev)) if all(row[i] is not None for row in rewards)]  # with each rate
        sums = [sum(row[i] or 0.0 for i in graded) for row in rewards]
        return rates[sums.index(max(sums))] if graded else self.recipe.lr

    def dev_rewards(self, rate: float) -> list[float | None]:
        """Each development task's reward after training on its raw passage at this learning rate."""
        before = self.inner.before("ladder/passage-lr", self.dev, on=None)
        changes = self.passage_changes(self.dev, rate)
        trials = [self.inner.trial("dev", f"{t.id}#0", t, c) for t, c in zip(self.dev, changes, strict=True)]
        outcomes = self.inner.outcomes(f"ladder/passage-lr-{rate:g}", trials, before, on=None)
        return [self.inner.examiner.after(*row).reward for row in zip(self.dev, outcomes, before, strict=True)]

    def written(
        self, name: str, writer: Adapter | None, on: Adapter | None, tasks: Sequence[Task], form: Form | None = None
    ) -> Result:
        """One edit per task by ``writer``, tried on ``on``. A writer's edits are the same in every rung: written once."""
        key, n = (adapter_key(writer), form), len(tasks)
        edits = self._written_by.setdefault(key, {})
        to_write = any(task.id not in edits for task in tasks)
        who = "the base model" if writer is None else "the trained policy"
        text = f"Training on self-edits by {who}{' (question-answer prompt)' if form else ''}"
        self.stage(name, text, 2 * n if to_write else n)
        if to_write:
            written = self.parts.writer.write(f"ladder/{name}", writer, tasks, 1, form)
            edits |= {edit.task_id: edit for edit in written}
        changes = [self.inner.change(edits[task.id], task) for task in tasks]
        return self.tried(name, on, tasks, changes, [edits[task.id].text for task in tasks])


def adapter_key(adapter: Adapter | None) -> str:
    """An adapter in the journal's keys."""
    return "base" if adapter is None else adapter.sha256[:16]


def paired_rows(settings: Settings, results: Mapping[str, Result], last_round: str) -> list[dict[str, Any]]:
    """Differences a - b on the tasks that both rungs have, for the pairs that the rungs name."""
    named = dict.fromkeys(pair for rung in rungs_of(settings).values() for pair in rung.pairs)
    rows = []
    for pair in named:
        a, b = (last_round if name == LAST_ROUND else name for name in pair)
        if a in results and b in results:
            x, y = results[a].by_task, results[b].by_task
            if both := {task_id: x[task_id] - y[task_id] for task_id in x if task_id in y}:
                difference = bootstrap_seeds(by_group(both, results[a].groups or results[b].groups))
                rows.append({"a": a, "b": b, **as_row(difference, "difference")})
    return rows


def by_kind(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Accuracy by kind of probe (over probes) of every rung."""
    rows = []
    for result in results.values():
        kinds: dict[str, list[bool]] = {}
        for answer in chain(*result.answers):
            kinds.setdefault(answer.kind or "all", []).append(answer.correct)
        rows += [{"rung": result.name, "kind": k, "accuracy": sum(v) / len(v), "n": len(v)} for k, v in kinds.items()]
    return rows


def verbatim_share(results: Mapping[str, Result]) -> float:
    """Share of held-out probes whose question stands word for word in some edit of their own task."""
    found = total = 0
    for result in results.values():
        for task, text in zip(result.tasks, result.texts, strict=False):
            lines = " ".join(edit_lines(text)).casefold()
            total += len(task.probes)
            found += sum(probe.question.casefold() in lines for probe in task.probes)
    return found / total if total else 0.0
