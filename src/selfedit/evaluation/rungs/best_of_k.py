"""The rung `best_of_k`."""

from __future__ import annotations

from ...config import Settings
from ..ladder import Ladder, Rung
from .base import Result


class BestOfK(Rung):
    """The best of k base edits on each task, chosen by its probes: an oracle that no method has."""

    label = "best of k edits (oracle)"
    group = "ceiling"
    pairs = (("best_of_k", "base_edits"),)
    for_groups = False

    def climb(self, ladder: Ladder) -> None:
        inner, k = ladder.inner, ladder.settings.edits.per_task
        tasks = ladder.tasks[: ladder.settings.ladder.oracle_tasks]
        ladder.stage(
            "best_of_k",
            f"An oracle: the best of {k} self-edits by the base model, for each passage",
            2 * k * len(tasks),
        )
        edits = ladder.parts.writer.write("ladder/best_of_k", None, tasks, k)
        untouched = ladder.unedited(None, tasks)
        worths = ladder.worths(None, tasks, [untouched[task.id] for task in tasks])
        before = {task.id: worth for task, worth in zip(tasks, worths, strict=True)}
        by_id = {task.id: task for task in tasks}
        trials = [inner.trial("ladder", e.id, by_id[e.task_id], inner.change(e, by_id[e.task_id])) for e in edits]
        outcomes = inner.outcomes("ladder/best_of_k", trials, [before[t.task.id] for t in trials], on=None)
        after, answers = [], []
        for i, task in enumerate(tasks):
            own = outcomes[i * k : (i + 1) * k]
            known = [o for o in own if o.reward is not None] or [o for o in own if o.status == "ungraded"]
            best = max(known, key=lambda o: o.reward or 0.0, default=None)
            after.append(before[task.id] if best is None else inner.examiner.after(task, best, before[task.id]))
            answers.append(untouched[task.id] if best is None else best.answers)
        cost = ladder.cost_of(outcomes, [trial.change for trial in trials])
        ladder.add(Result.of_graded("best_of_k", tasks, after, answers, **cost))

    def cost(self, settings: Settings) -> int:
        return min(settings.tasks.evaluation, settings.ladder.oracle_tasks) * settings.edits.per_task
