"""The result of a rung: the answers of a model that was prepared in one way, and their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from ...rewards.examiner import Worth, mean_of_graded
from ...stats import as_row, bootstrap_seeds
from ...types import Answer, Task

LAST_ROUND = "rounds"  # in `Rung.pairs`: the rung of the last round


@dataclass
class Result:
    """The result of a rung: per task its accuracy and answers; the mean reward; ``texts`` the edits where it has any.

    ``held_out`` counts the lines of its edits that say a probe which the model wrote itself, and were not trained on.
    ``failed`` counts the edits that could not be trained on, and ``reason`` says why the first could not.
    ``text_logprob``: how likely ``reward.validation_text`` is afterwards (nats per token), where many passages share an adapter.
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
    text_logprob: float | None = None

    @staticmethod
    def of_graded(
        name: str,
        tasks: Sequence[Task],
        worths: Sequence[Worth],
        answers: Sequence[tuple[Answer, ...]],
        texts: Sequence[str] = (),
        **cost: Any,
    ) -> Result:
        """The result on the tasks whose answers were graded (maybe none); the lists are parallel (``texts`` may be empty)."""
        reward = mean_of_graded([worth.reward for worth in worths])
        graded = [(i, worth.accuracy) for i, worth in enumerate(worths) if worth.accuracy is not None]
        chosen = [i for i, _ in graded]
        return Result(
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

    @property
    def logprob(self) -> float | None:
        """Log-likelihood of the right answers (nats per token), mean over tasks: it still moves where few answers are right."""
        by_task = [fmean(answer.logprob for answer in row) for row in self.answers if row]
        return fmean(by_task) if by_task else None

    def row(self) -> dict[str, Any]:
        """The ladder's row for summary and report; without accuracy where no task could be graded."""
        interval = bootstrap_seeds(by_group(self.by_task, self.groups)) if self.accuracy else None
        return {
            "rung": self.name,
            **as_row(interval, "accuracy"),
            "n_tasks": len(self.tasks),
            "n_probes": sum(len(task.probes) for task in self.tasks),
            "steps": self.steps,
            "trained_tokens": round(self.trained_tokens),
            "failed_edits": self.failed,
            "ungraded_tasks": self.ungraded,
            "lines_held_out": self.held_out,
            "reward": self.reward,
            "logprob": self.logprob,
            "text_logprob": self.text_logprob,
        }


def by_group(values: Mapping[str, float], groups: Sequence[Sequence[str]]) -> list[list[float]]:
    """Tasks' values, by the adapter that they share: passages in one adapter err together. One list where none do."""
    rows = [[values[i] for i in group if i in values] for group in groups or [list(values)]]
    return [row for row in rows if row]
