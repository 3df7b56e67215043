"""Probes for passages that bring none: the bare base writes question-answer pairs, which edits may not teach word for word.

The pairs are what the base answers the `self_qa` prompt with, sampled from a seed of their own, and journaled as edits are: a
run that goes on asks what it asked before. Nobody checks that their answers are true; a passage's probes say whether the
model learned what it read out of the passage.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from .edits.parsing.lines import edit_lines
from .edits.parsing.pairs import question_and_answer, says
from .errors import ModelError, RunError
from .parts import Parts
from .tasks.sources.base import TaskSource
from .templates import gold_text
from .types import OWN, Edit, Probe, Task

MAX_QUESTION_CHARS = 300
_LABELLED = re.compile(r"\W*(?:question|q)\s*+\d*+\**+:", re.IGNORECASE)


def with_probes(source: TaskSource, parts: Parts) -> TaskSource:
    """The source itself, or one whose tasks the base writes the probes of, where they bring none (``asks_for_probes``)."""
    return OwnProbes(source, parts) if getattr(source, "asks_for_probes", False) else source


class OwnProbes:
    """A source of passages without probes, with probes by the base. A passage that gets none is left out, with a warning."""

    def __init__(self, source: TaskSource, parts: Parts) -> None:
        self._source, self._parts = source, parts
        self._found: dict[str, tuple[tuple[Probe, ...], str]] = {}

    def draw(self, round: int) -> list[Task]:
        """The round's training tasks; fewer where passages were left out."""
        return self._asked(f"round-{round}", self._source.draw(round))

    def dev(self) -> list[Task]:
        """Development tasks."""
        return self._asked("dev", self._source.dev())

    def evaluation(self) -> list[Task]:
        """The ladder's held-out tasks."""
        return self._asked("evaluation", self._source.evaluation())

    def known(self, n: int) -> list[Probe]:
        """Those of the source."""
        return self._source.known(n)

    def _asked(self, part: str, tasks: Sequence[Task]) -> list[Task]:
        """The tasks with their probes.

        Raises:
            ModelError: not one of the passages got a probe.
            RunError: the run's journal holds probes of other passages.
        """
        self._write(f"probes/{part}", [task for task in tasks if task.id not in self._found])
        found = {task.id: self._found[task.id] for task in tasks}
        asked = [replace(task, probes=found[task.id][0]) for task in tasks if found[task.id][0]]
        reasons = {task_id: reason for task_id, (probes, reason) in found.items() if not probes}
        if not reasons:
            return asked
        most_common = ", ".join(f"{reason}: {n}" for reason, n in Counter(reasons.values()).most_common(3))
        text = f"{len(reasons)} of {len(tasks)} passages ({part}) got no usable probe ({most_common})"
        if not asked:
            raise ModelError(
                f"{self._parts.settings.model.path}: {text}; take a model that can write questions with answers, raise "
                "edits.max_new_tokens or reward.max_answer_tokens, or bring tasks with questions"
            )
        text += f", and are left out; the first is {next(iter(reasons))}"
        self._parts.run.emit("warning", text=text, tasks=[*reasons])
        return asked

    def _write(self, key: str, tasks: Sequence[Task]) -> None:
        """Have the base write probes for tasks that no draw has asked for so far."""
        if not tasks:
            return
        run, settings, examiner = self._parts.run, self._parts.settings, self._parts.inner.examiner
        run.emit("stage", name=key, text="The base writes questions about the passages", total=len(tasks))
        edits = self._parts.writer.write(key, None, tasks, 1, "self_qa")
        if [edit.task_id for edit in edits] != [task.id for task in tasks]:
            raise RunError(f"{run.directory}: the documents are not those that it began with; choose another --out")

        def fits(probe: Probe) -> bool:
            answer = examiner.engine.encode(gold_text(probe, examiner.templates))
            return len(probe.question) <= MAX_QUESTION_CHARS and len(answer) <= examiner.reward.max_answer_tokens

        self._found |= {edit.task_id: probes_in(edit, settings.tasks.probes_per_passage, fits) for edit in edits}


def probes_in(edit: Edit, most: int, fits: Callable[[Probe], bool]) -> tuple[tuple[Probe, ...], str]:
    """At most ``most`` distinct probes in a text that answers the `self_qa` prompt, and why there is none, if so.

    ``fits`` says whether a probe is short enough to be asked and answered. The last line of a text that the token limit cut
    off is not read: its answer may be half of one.
    """
    if edit.problem:
        return (), edit.problem
    ends_with_label = edit.prompt.rstrip().endswith("Question:")
    lines: list[str] = []
    for completion in edit.completions:
        # After such a prompt the first question has no label, unless the model says it again.
        label = "Question:" if ends_with_label and not _LABELLED.match(completion.text) else ""
        written = edit_lines(label + completion.text)
        lines += written if completion.finished else written[:-1]
    found = [Probe(*pair, OWN) for line in lines if (pair := question_and_answer(line))]
    probes: list[Probe] = []
    for probe in filter(fits, found):
        if not any(says(probe.question, other.question) and says(other.question, probe.question) for other in probes):
            probes.append(probe)
    if probes:
        return tuple(probes[:most]), ""
    return (), "its questions or answers are too long" if found else "no line is a question with its answer"
