"""Many passages at once: the edits of all passages of a group train one adapter (SEAL's continued pretraining, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter

from ..config import sub_seed
from ..inner import Answers, learn
from ..types import Adapter, Change, Task
from .ladder import Ladder
from .rungs.base import Result
from .validation_text import text_logprob

_ANSWERS_OF_GROUPS = TypeAdapter(list[list[Answers]])


class Together(Ladder):
    """The ladder with one adapter per group of passages in place of one per passage; all rungs have the same tasks."""

    in_groups = True

    def tried(
        self, name: str, on: Adapter | None, tasks: Sequence[Task], changes: Sequence[Change], texts: Sequence[str] = ()
    ) -> Result:
        """Every group's edits trained into one adapter, and all of its passages' questions asked of it."""
        size, at_once = self.settings.protocol.passages, self.inner.settings.model.at_once.members
        groups = [range(start, min(start + size, len(tasks))) for start in range(0, len(tasks), size)]
        untouched = self.unedited(on, tasks)
        answers: list[Answers] = []
        reasons = [change.invalid for change in changes if change.invalid]
        failed, tokens, steps, texts_by_group = len(reasons), 0, 0, list[float]()
        for start in range(0, len(groups), at_once):
            some = groups[start : start + at_once]
            merged = [self._merged([tasks[i] for i in group], [changes[i] for i in group]) for group in some]
            row = self._answered(f"cpt/{name}/{start}", on, [[tasks[i] for i in group] for group in some], merged)
            tokens += row["trained_tokens"]
            steps += sum(change.update.steps for change in merged if change.update)
            reasons += filter(None, row["reasons"])
            texts_by_group += [value for value in row.get("texts", []) if value is not None]
            for group, own in zip(some, _ANSWERS_OF_GROUPS.validate_python(row["answers"]), strict=True):
                answers += own or [untouched[tasks[i].id] for i in group]
                failed += 0 if own else sum(not changes[i].invalid for i in group)
            self.run.emit("progress", name=f"ladder/{name}", done=sum(map(len, some)))
        cost = {
            "steps": round(steps / len(tasks)),
            "held_out": sum(change.held_out for change in changes),
            "trained_tokens": tokens / len(tasks),
            "failed": failed,
            "reason": reasons[0] if reasons else "",
            "groups": [[tasks[i].id for i in group] for group in groups],
            "text_logprob": fmean(texts_by_group) if texts_by_group else None,
        }
        return Result.of_graded(name, tasks, self.worths(on, tasks, answers), answers, texts, **cost)

    def asked(self, name: str, on: Adapter | None, tasks: Sequence[Task], answers: Sequence[Answers]) -> Result:
        """As in the ladder, with the validation text under ``on``."""
        text, engine = self.settings.reward.validation_text, self.inner.engine
        row = self.run.once(f"cpt/{name}/text", lambda: {"logprob": text_logprob(engine, text, on)})
        return replace(super().asked(name, on, tasks, answers), text_logprob=row["logprob"])

    def dev_rewards(self, rate: float) -> list[float | None]:
        """Each development task's accuracy after training on groups of raw passages at this learning rate."""
        found = self.tried(f"passage-lr-{rate:g}", None, self.dev, self.passage_changes(self.dev, rate)).by_task
        return [found.get(task.id) for task in self.dev]

    def _answered(
        self, key: str, on: Adapter | None, groups: Sequence[Sequence[Task]], changes: Sequence[Change]
    ) -> dict[str, Any]:
        """What each group's adapter answers, on top of ``on``; nothing, and why, where it could not be trained."""

        def compute() -> dict[str, Any]:
            engine, answers, general = self.inner.engine, [], list[float | None]()
            learned = learn(engine, changes, on=on)
            for group, one in zip(groups, learned, strict=True):
                edited = engine.combine([on, one.adapter]) if on and one.adapter else one.adapter
                answers.append(self.inner.examiner.answers(group, on=edited) if edited else [])
                general.append(text_logprob(engine, self.settings.reward.validation_text, edited))
            return {
                "answers": _ANSWERS_OF_GROUPS.dump_python(answers, mode="json"),
                "trained_tokens": sum(one.trained_tokens for one in learned),
                "reasons": [one.reason for one in learned],
                "texts": general,
            }

        return self.run.once(key, compute)

    def _merged(self, tasks: Sequence[Task], changes: Sequence[Change]) -> Change:
        """One change of all edits that can be used; it has as many steps per passage, usable or not.

        Its recipe is the run's, at the edits' learning rate where they agree on one.
        """
        sequences = tuple(chain(*(change.sequences for change in changes)))
        rates = {change.update.lr for change in changes if change.update is not None}
        recipe = replace(self.recipe, lr=rates.pop()) if len(rates) == 1 else self.recipe
        update = recipe.update(sequences, sub_seed(self.settings.seed, "cpt", "inner", tasks[0].id))
        asked = self.settings.protocol.steps
        if asked or not recipe.epochs:  # epochs are counted over all sequences already
            update = replace(update, steps=len(tasks) * (asked or recipe.steps))
        return Change(update)
