"""The ladder: several ways of preparing a model for the same held-out probes, compared on the same tasks, paired.

Every trained rung gets the same number of optimiser steps (or of epochs: `InnerSettings.epochs`), from the same seeds task by
task. An edit that is unusable or diverged leaves the model as it was, so its task keeps the un-edited accuracy; how many did is
reported. A task whose answers could not be graded has no accuracy, and is left out of the rung.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import ALL_RUNGS, Form
from ..config import Rung as RungName
from ..edits.text import ParsedEdit, edit_lines
from ..engine.base import Adapter
from ..loop import Trained
from ..rewards.outcomes import Worth, mean_of_graded, parse_edit, parse_passage
from ..stats import bootstrap_seeds
from ..types import Answer, Edit, Outcome, Task
from ..work import Work


@dataclass
class Rung:
    """One rung's result: per task its accuracy and answers; the mean reward; ``texts`` the edits where it has any.

    ``held_out`` counts the lines of its edits that say a probe which the model wrote itself, and were not trained on.
    ``failed`` counts the edits that could not be trained on, and ``reason`` says why of the first.
    ``groups``: the ids of tasks that were learned in one adapter; none where each had its own.
    """

    name: str
    tasks: list[Task]
    accuracy: list[float]
    answers: list[tuple[Answer, ...]]
    reward: float | None
    steps: int = 0
    trained_tokens: float = 0.0
    failed: int = 0
    reason: str = ""
    texts: list[str] = field(default_factory=list)
    groups: list[list[str]] = field(default_factory=list)
    ungraded: int = 0
    held_out: int = 0

    @staticmethod
    def of_graded(
        name: str,
        tasks: Sequence[Task],
        worths: Sequence[Worth],
        answers: Sequence[tuple[Answer, ...]],
        texts: Sequence[str] = (),
        **cost: Any,
    ) -> Rung:
        """A rung of the tasks whose answers were graded (maybe none); the lists are parallel (``texts`` may be empty)."""
        reward = mean_of_graded([worth.reward for worth in worths])
        graded = [(i, worth.accuracy) for i, worth in enumerate(worths) if worth.accuracy is not None]
        chosen = [i for i, _ in graded]
        return Rung(
            name,
            [tasks[i] for i in chosen],
            [accuracy for _, accuracy in graded],
            [answers[i] for i in chosen],
            reward=reward,
            texts=[texts[i] for i in chosen] if texts else [],
            ungraded=len(tasks) - len(chosen),
            **cost,
        )

    @property
    def by_task(self) -> dict[str, float]:
        """Accuracy by task id."""
        return dict(zip((task.id for task in self.tasks), self.accuracy, strict=True))

    def row(self) -> dict[str, Any]:
        """The ladder's row for summary and report; without accuracy where no task could be graded."""
        interval = bootstrap_seeds(_grouped(self.by_task, self.groups)) if self.accuracy else None
        return {
            "rung": self.name,
            **{
                key: interval and getattr(interval, of)
                for key, of in (("accuracy", "mean"), ("low", "low"), ("high", "high"))
            },
            "n_tasks": len(self.tasks),
            "n_probes": sum(len(task.probes) for task in self.tasks),
            "steps": self.steps,
            "trained_tokens": round(self.trained_tokens),
            "failed_edits": self.failed,
            "ungraded_tasks": self.ungraded,
            "lines_held_out": self.held_out,
            "reward": self.reward,
        }


class Ladder:
    """Climbs the configured rungs. ``trained`` holds the policy after each round."""

    def __init__(self, work: Work, trained: Trained, tasks: Sequence[Task], dev: Sequence[Task]) -> None:
        self.work, self.trained = work, trained
        self.tasks, self.dev = list(tasks), list(dev)
        self.settings, self.rewarder = work.settings, work.rewarder
        self.rungs: dict[str, Rung] = {}
        self._untouched: dict[str, dict[str, tuple[Answer, ...]]] = {}
        self._written_by: dict[tuple[str, Form | None], list[Edit]] = {}
        self._best_lr: float | None = None

    def climb(self, names: Collection[RungName] = ALL_RUNGS) -> dict[str, Rung]:
        """Every configured rung of ``names`` that these tasks can have, in the order of the settings."""
        steps = {
            "no_edit": self._no_edit,
            "passage_only": lambda: self._add(self._passage("passage_only", None, self.tasks)),
            "base_edits": lambda: self._follow("before", self._written("base_edits", None, None, self.tasks)),
            "base_self_qa": lambda: self._add(self._written("base_self_qa", None, None, self.tasks, "self_qa")),
            "rounds": self._rounds,
            "best_of_k": self._best_of_k,
            "perfect_edits": self._perfect,
            "rl_edits_base_learner": lambda: self._add(
                self._written("rl_edits_base_learner", self._last, None, self._fewer)
            ),
            "passage_only_rl_learner": lambda: self._add(
                self._passage("passage_only_rl_learner", self._last, self._fewer)
            ),
            "in_context": self._in_context,
        }
        for name in self.settings.rungs_to_climb:
            if name in names:
                steps[name]()
        return self.rungs

    @property
    def _fewer(self) -> list[Task]:
        return self.tasks[: self.settings.ladder.middle_tasks]

    @property
    def _last(self) -> Adapter | None:
        return self.trained.policies[-1]

    def _add(self, rung: Rung) -> None:
        self.rungs[rung.name] = rung
        self.work.run.emit("rung", **rung.row())

    def _follow(self, when: str, rung: Rung) -> None:
        """Add the rung, and show the first task's edit with the answers it leads to, where they could be graded."""
        self._add(rung)
        if rung.tasks and rung.tasks[0].id == self.tasks[0].id:
            lines, answers = edit_lines(rung.texts[0]), list(map(vars, rung.answers[0]))
            self.work.run.emit("edit", when=when, rung=rung.name, lines=lines, answers=answers)

    def _stage(self, name: str, text: str, total: int) -> None:
        self.work.run.emit("stage", name=f"ladder/{name}", text=text, total=total)

    def _no_edit(self) -> None:
        answers = self._unedited(None, self.tasks)
        self._add(self._rung("no_edit", None, self.tasks, [answers[task.id] for task in self.tasks]))

    def _unedited(self, learner: Adapter | None, tasks: list[Task]) -> dict[str, tuple[Answer, ...]]:
        """The learner's answers without the passage and without an edit, by task, to at least these tasks; asked once."""
        known = self._untouched.setdefault(_key(learner), {})
        missing = [task for task in tasks if task.id not in known]
        if missing:
            key = f"ladder/no_edit-{_key(learner)}/{len(known)}"
            answers = self.work.answers(key, learner, missing, open_book=False)
            known |= {t.id: row for t, row in zip(missing, answers, strict=True)}
        return known

    def _worths(self, learner: Adapter | None, tasks: list[Task], answers: Sequence[tuple[Answer, ...]]) -> list[Worth]:
        self.rewarder.engine.mount(learner)  # a perplexity is the learner's own
        return [self.rewarder.worth(task, row) for task, row in zip(tasks, answers, strict=True)]

    def _rung(
        self, name: str, learner: Adapter | None, tasks: list[Task], answers: Sequence[tuple[Answer, ...]]
    ) -> Rung:
        return Rung.of_graded(name, tasks, self._worths(learner, tasks, answers), answers)

    def _in_context(self) -> None:
        self._stage("in_context", "The ceiling: the base with the passage in view", 0)
        answers = self.work.answers("ladder/in_context", None, self.tasks, open_book=True)
        self._add(self._rung("in_context", None, self.tasks, answers))

    def _tried(
        self,
        name: str,
        learner: Adapter | None,
        tasks: list[Task],
        parsed: Sequence[ParsedEdit],
        lr: float | None = None,
        texts: Sequence[str] = (),
    ) -> Rung:
        """One edit a task, tried on the learner; ``texts`` are the edits as written."""
        untouched = self._unedited(learner, tasks)
        before = self._worths(learner, tasks, [untouched[task.id] for task in tasks])
        trials = [
            self.work.trial("ladder", f"{task.id}#0", task, edit) for task, edit in zip(tasks, parsed, strict=True)
        ]
        outcomes = self.work.outcomes(f"ladder/{name}", learner, trials, before, lr)
        answers = [
            outcome.answers if outcome.status == "ok" else untouched[task.id]
            for task, outcome in zip(tasks, outcomes, strict=True)
        ]
        after = [self.rewarder.after(*row) for row in zip(tasks, outcomes, before, strict=True)]
        return Rung.of_graded(name, tasks, after, answers, texts, **self._cost(outcomes, parsed))

    def _cost(self, outcomes: Sequence[Outcome], parsed: Sequence[ParsedEdit]) -> dict[str, Any]:
        """Steps (of epochs: their mean), mean trained tokens, failures and held-out lines, as `Rung` has them."""
        failed = [outcome.reason for outcome in outcomes if outcome.status in ("invalid", "diverged")]
        steps = [self.settings.inner.steps_for(len(edit.sequences)) for edit in parsed if edit.usable]
        return {
            "steps": round(sum(steps) / len(steps)) if steps else self.settings.inner.steps,
            "trained_tokens": sum(o.trained_tokens for o in outcomes) / max(1, len(outcomes)),
            "held_out": sum(edit.held_out for edit in parsed),
            "failed": len(failed),
            "reason": failed[0] if failed else "",
        }

    def _passage(self, name: str, learner: Adapter | None, tasks: list[Task]) -> Rung:
        lr = self._best_lr = self._best_lr or self._passage_lr()
        counted = "epochs" if self.settings.inner.epochs else "steps"
        self._stage(name, f"Training on the raw passage alone, with the same number of {counted}", len(tasks))
        parsed = [parse_passage(self.rewarder.engine, self.rewarder.settings, task) for task in tasks]
        return self._tried(name, learner, tasks, parsed, lr)

    def _passage_lr(self) -> float:
        """The learning rate that suits raw passages best, chosen on development tasks (a fair chance for the baseline)."""
        rates = [self.settings.inner.lr * factor for factor in self.settings.ladder.passage_lr_factors]
        if len(rates) == 1:
            return rates[0]
        self._stage(
            "passage-lr",
            "Choosing passage-only's best learning rate on development passages",
            len(rates) * len(self.dev),
        )
        parsed = [parse_passage(self.rewarder.engine, self.rewarder.settings, task) for task in self.dev]
        before = self.work.before("ladder/passage-lr", None, self.dev)
        rewards: list[list[float | None]] = []
        for rate in rates:
            trials = [self.work.trial("dev", f"{t.id}#0", t, p) for t, p in zip(self.dev, parsed, strict=True)]
            outcomes = self.work.outcomes(f"ladder/passage-lr-{rate:g}", None, trials, before, rate)
            after = [self.rewarder.after(*row) for row in zip(self.dev, outcomes, before, strict=True)]
            rewards.append([worth.reward for worth in after])
        graded = [i for i in range(len(self.dev)) if all(row[i] is not None for row in rewards)]  # with each rate
        sums = [sum(row[i] or 0.0 for i in graded) for row in rewards]
        return rates[sums.index(max(sums))] if graded else self.settings.inner.lr

    def _written(
        self, name: str, writer: Adapter | None, learner: Adapter | None, tasks: list[Task], form: Form | None = None
    ) -> Rung:
        """One edit a task by ``writer``, tried on ``learner``. A writer's edits are the same in every rung: written once."""
        key, n = (_key(writer), form), len(tasks)
        to_write = n > len(self._written_by.get(key, []))
        who = "the base" if writer is None else "the trained policy"
        text = f"Self-edits by {who}{' (question-answer prompt)' if form else ''}, learned and tested"
        self._stage(name, text, 2 * n if to_write else n)
        if to_write:
            self._written_by[key] = self.work.edits(f"ladder/{name}", writer, tasks, 1, form)
        edits = self._written_by[key][:n]
        parsed = [self.work.parsed(edit, task) for edit, task in zip(edits, tasks, strict=True)]
        return self._tried(name, learner, tasks, parsed, texts=[edit.text for edit in edits])

    def _rounds(self) -> None:
        last, shown = len(self.trained.policies) - 1, self.settings.ladder.middle_rounds
        for number, policy in enumerate(self.trained.policies[1:], start=1):
            if number != last and shown != "all" and number not in shown:
                continue
            tasks = self.tasks if number == last else self._fewer
            rung = self._written(f"round_{number}", policy, self.work.beside_learner(policy), tasks)
            self._follow("after", rung) if number == last else self._add(rung)

    def _best_of_k(self) -> None:
        """An oracle that sees the probes: the best of k base edits on each task."""
        k, tasks = self.settings.edits.per_task, self.tasks[: self.settings.ladder.oracle_tasks]
        self._stage("best_of_k", f"An oracle: the best of {k} base edits on each passage", 2 * k * len(tasks))
        edits = self.work.edits("ladder/best_of_k", None, tasks, k)
        untouched = self._unedited(None, tasks)
        before = {
            t.id: w for t, w in zip(tasks, self._worths(None, tasks, [untouched[t.id] for t in tasks]), strict=True)
        }
        by_id = {task.id: task for task in tasks}
        trials = [
            self.work.trial("ladder", e.id, by_id[e.task_id], self.work.parsed(e, by_id[e.task_id])) for e in edits
        ]
        outcomes = self.work.outcomes("ladder/best_of_k", None, trials, [before[t.task.id] for t in trials])
        after, answers = [], []
        for i, task in enumerate(tasks):
            own = outcomes[i * k : (i + 1) * k]
            known = [o for o in own if o.reward is not None] or [o for o in own if o.status == "ungraded"]
            best = max(known, key=lambda o: o.reward or 0.0, default=None)
            after.append(before[task.id] if best is None else self.rewarder.after(task, best, before[task.id]))
            answers.append(untouched[task.id] if best is None else best.answers)
        self._add(
            Rung.of_graded("best_of_k", tasks, after, answers, **self._cost(outcomes, [t.parsed for t in trials]))
        )

    def _perfect(self) -> None:
        """Known-good edits, where the task source has them."""
        tasks = [task for task in self.tasks if task.gold_edit]
        if not tasks:
            return
        self._stage("perfect_edits", "Perfect edits from the world's own templates", len(tasks))
        parsed = [parse_edit(self.rewarder.engine, self.rewarder.settings, task, task.gold_edit) for task in tasks]
        self._add(self._tried("perfect_edits", None, tasks, parsed, texts=[task.gold_edit for task in tasks]))


def _key(adapter: Adapter | None) -> str:
    return "base" if adapter is None else adapter.sha256[:16]


def paired_rows(rungs: dict[str, Rung], last_round: str) -> list[dict[str, Any]]:
    """Differences a - b on the tasks that both rungs have, for the pairs that carry the claims."""
    pairs = [
        ("passage_only", "no_edit"),
        ("base_edits", "passage_only"),
        ("base_edits", "no_edit"),
        (last_round, "base_edits"),
        (last_round, "passage_only"),
        (last_round, "base_self_qa"),
        ("perfect_edits", last_round),
        (last_round, "rl_edits_base_learner"),
        ("rl_edits_base_learner", "base_edits"),
        ("passage_only_rl_learner", "passage_only"),
        (last_round, "passage_only_rl_learner"),
        ("best_of_k", "base_edits"),
    ]
    rows = []
    for a, b in pairs:
        if a in rungs and b in rungs:
            x, y = rungs[a].by_task, rungs[b].by_task
            both = {task_id: x[task_id] - y[task_id] for task_id in x if task_id in y}
            if not both:
                continue
            difference = bootstrap_seeds(_grouped(both, rungs[a].groups or rungs[b].groups))
            rows.append({"a": a, "b": b, "difference": difference.mean, "low": difference.low, "high": difference.high})
    return rows


def _grouped(values: Mapping[str, float], groups: Sequence[Sequence[str]]) -> list[list[float]]:
    """Tasks' values, apart by the adapter that they share: passages in one adapter err together. One list where none do."""
    rows = [[values[i] for i in group if i in values] for group in groups or [list(values)]]
    return [row for row in rows if row]


def by_kind(rungs: dict[str, Rung]) -> list[dict[str, Any]]:
    """Accuracy by kind of probe (over probes) of every rung."""
    rows = []
    for rung in rungs.values():
        kinds: dict[str, list[bool]] = {}
        for answers in rung.answers:
            for answer in answers:
                kinds.setdefault(answer.kind or "all", []).append(answer.correct)
        rows += [{"rung": rung.name, "kind": k, "accuracy": sum(v) / len(v), "n": len(v)} for k, v in kinds.items()]
    return rows


def verbatim_share(rungs: dict[str, Rung]) -> float:
    """Share of held-out probes whose question stands word for word in some edit of their own task."""
    found = total = 0
    for rung in rungs.values():
        for task, text in zip(rung.tasks, rung.texts, strict=False):
            lines = " ".join(edit_lines(text)).casefold()
            total += len(task.probes)
            found += sum(probe.question.casefold() in lines for probe in task.probes)
    return found / total if total else 0.0
