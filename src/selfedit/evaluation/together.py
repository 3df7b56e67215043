"""Many passages at once: the edits of all passages of a group train one adapter (SEAL's continued pretraining, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter

from ..config import Rung as RungName
from ..config import sub_seed
from ..edits.text import ParsedEdit
from ..engine.base import Adapter
from ..rewards.outcomes import parse_passage, wasted
from ..types import Answer, Task, Update
from .ladder import Ladder, Rung

_ANSWERS_OF_GROUPS = TypeAdapter(list[list[tuple[Answer, ...]]])
_ANSWERS = TypeAdapter(list[tuple[Answer, ...]])
# Rungs that are about single passages have no meaning here.
RUNGS: tuple[RungName, ...] = (
    "no_edit",
    "passage_only",
    "base_edits",
    "base_self_qa",
    "rounds",
    "rl_edits_base_learner",
    "perfect_edits",
    "in_context",
)


class Together(Ladder):
    """The ladder with one adapter for each group of passages in place of one for each passage; the same tasks for all rungs."""

    @property
    def _fewer(self) -> list[Task]:
        return self.tasks

    def _tried(
        self,
        name: str,
        learner: Adapter | None,
        tasks: list[Task],
        parsed: Sequence[ParsedEdit],
        lr: float | None = None,
        texts: Sequence[str] = (),
    ) -> Rung:
        """Every group's edits trained into one adapter, and all of its passages' questions asked of it."""
        size = self.settings.protocol.passages
        groups = [range(start, min(start + size, len(tasks))) for start in range(0, len(tasks), size)]
        untouched = self._unedited(learner, tasks)
        answers: list[tuple[Answer, ...]] = []
        reasons = [edit.reason for edit in parsed if not edit.usable]
        failed, tokens, steps = len(reasons), 0, 0
        at_once = self.rewarder.settings.model.at_once.members
        for start in range(0, len(groups), at_once):
            some = groups[start : start + at_once]
            updates = [self._update([tasks[i] for i in group], [parsed[i] for i in group], lr) for group in some]

            def compute(some: Sequence[range] = some, updates: Sequence[Update] = updates) -> dict[str, Any]:
                return self._trained(learner, [[tasks[i] for i in group] for group in some], updates)

            row = self.work.run.once(f"cpt/{name}/{start}", compute)
            tokens += row["trained_tokens"]
            steps += sum(update.steps for update in updates)
            reasons += filter(None, row["reasons"])
            for group, said in zip(some, _ANSWERS_OF_GROUPS.validate_python(row["answers"]), strict=True):
                answers += said or [untouched[tasks[i].id] for i in group]
                failed += 0 if said else sum(parsed[i].usable for i in group)
            self.work.run.emit("progress", name=f"ladder/{name}", done=sum(map(len, some)))
        cost = {
            "steps": round(steps / len(tasks)),
            "held_out": sum(edit.held_out for edit in parsed),
            "trained_tokens": tokens / len(tasks),
            "failed": failed,
            "reason": reasons[0] if reasons else "",
            "groups": [[tasks[i].id for i in group] for group in groups],
        }
        return Rung.of_graded(name, tasks, self._worths(learner, tasks, answers), answers, texts, **cost)

    def _passage_lr(self) -> float:
        """The learning rate that suits passages best: of one group of development passages, by their accuracy."""
        rates = [self.settings.inner.lr * factor for factor in self.settings.ladder.passage_lr_factors]
        if len(rates) == 1:
            return rates[0]
        parsed = [parse_passage(self.rewarder.engine, self.rewarder.settings, task) for task in self.dev]
        rungs = [self._tried(f"passage-lr-{rate:g}", None, self.dev, parsed, rate) for rate in rates]
        means = [fmean(rung.accuracy) if rung.accuracy else 0.0 for rung in rungs]
        return rates[means.index(max(means))]

    def _trained(
        self, learner: Adapter | None, groups: Sequence[Sequence[Task]], updates: Sequence[Update]
    ) -> dict[str, Any]:
        """What each group's adapter answers, beside ``learner``; nothing, and why, where it could not be trained."""
        engine = self.rewarder.engine
        reasons = [(engine.check(update) or "") if update.sequences else "" for update in updates]
        usable = {i: update for i, update in enumerate(updates) if update.sequences and not reasons[i]}
        said: list[Any] = [[] for _ in groups]
        if not usable:
            return {"answers": said, "trained_tokens": 0, "reasons": reasons}
        engine.mount(learner)
        bank = engine.fit(list(usable.values()))
        for member, i in enumerate(usable):
            reasons[i] = wasted(bank, member)
            if not reasons[i]:
                adapter = bank.adapter(member)
                engine.mount(adapter if learner is None else engine.combine([learner, adapter]))
                said[i] = _ANSWERS.dump_python(self.rewarder.answers(None, groups[i]), mode="json")
        return {"answers": said, "trained_tokens": sum(bank.trained_tokens), "reasons": reasons}

    def _update(self, tasks: Sequence[Task], edits: Sequence[ParsedEdit], lr: float | None) -> Update:
        """One update of all edits that can be used; its steps are so many for every passage, usable or not."""
        sequences = tuple(chain(*(edit.sequences for edit in edits if edit.usable)))
        seed = sub_seed(self.settings.seed, "cpt", "inner", tasks[0].id)
        update = self.rewarder.update_for(ParsedEdit((), sequences), seed, lr)
        return replace(update, steps=self._steps(len(tasks), len(sequences)))

    def _steps(self, n_passages: int, n_sequences: int) -> int:
        """Optimiser steps of a group: so many for each passage, or the inner loop's epochs."""
        asked, inner = self.settings.protocol.steps, self.settings.inner
        if not asked and inner.epochs:
            return inner.steps_for(n_sequences)
        return n_passages * (asked or inner.steps)
