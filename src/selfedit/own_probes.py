"""Probes for passages that bring none: the bare base writes question-answer pairs, which edits may not teach word for word.

The pairs are what the base answers the `self_qa` prompt with, sampled from a seed of their own, and journaled as edits are: a
run that goes on asks what it asked before. A pair is asked only if its answer stands in the passage (`answered_in`); how many
do is counted and reported. Beyond that nobody checks that an answer is the right one: a passage's probes say whether the model
learned what it read out of the passage.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from .edits.parsing.labels import question_label
from .edits.parsing.lines import edit_lines
from .edits.parsing.pairs import question_and_answer, says
from .errors import ModelError, RunError
from .parts import Parts
from .tasks.sources.base import TaskSource
from .templates import gold_text
from .thoughts import without_thoughts
from .types import OWN, Edit, Probe, Task

MAX_QUESTION_CHARS = 300
MOST_ENDING = 3  # characters that an ending may add to a word or take from it
LEAST_STEM = 4
_WORD = re.compile(r"[^\W_]+")
# Scripts that don't put a space between all words: Thai to Burmese, Khmer, Kana, Han, Hangul.
_UNSPACED = re.compile(r"[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_ARTICLES = frozenset({"a", "an", "the"})
# Why a pair that the base wrote is not asked.
TOO_LONG = "its questions or answers are too long"
NOT_IN_PASSAGE = "its answers do not stand in the passage"
TWICE = "asked before"
NOT_NEEDED = "more than tasks.probes_per_passage"


def with_probes(source: TaskSource, parts: Parts) -> TaskSource:
    """The source itself, or one whose tasks the base writes the probes of, where they bring none (``asks_for_probes``)."""
    return OwnProbes(source, parts) if getattr(source, "asks_for_probes", False) else source


class OwnProbes:
    """A source of passages without probes, with probes by the base. A passage that gets none is left out, with a warning.

    ``notes`` are those of the source, and how many of the base's questions are asked, and why the others are not.
    """

    def __init__(self, source: TaskSource, parts: Parts) -> None:
        self._source, self._parts = source, parts
        self._found: dict[str, Found] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the summary."""
        told = _shares([*self._found.values()])
        return (*getattr(self._source, "notes", ()), *([told] if told else []))

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
        asked = [replace(task, probes=found[task.id].probes) for task in tasks if found[task.id].probes]
        reasons = {task_id: own.reason for task_id, own in found.items() if not own.probes}
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

        passages = {task.id: task.text for task in tasks}

        def problem_of(probe: Probe, passage: str) -> str:
            if not answered_in(passage, probe):
                return NOT_IN_PASSAGE
            answer = examiner.engine.encode(gold_text(probe, examiner.templates))
            fits = len(probe.question) <= MAX_QUESTION_CHARS and len(answer) <= examiner.reward.max_answer_tokens
            return "" if fits else TOO_LONG

        most = settings.tasks.probes_per_passage
        found = {edit.task_id: probes_in(edit, most, partial(problem_of, passage=passages[edit.task_id])) for edit in edits}
        self._found |= found
        if any(own.refused.keys() - {NOT_NEEDED} for own in found.values()):
            run.emit("warning", text=f"{key.partition('/')[2]}: {_shares([*found.values()])}")


class Found(NamedTuple):
    """The probes that a text gave, why there are none, if so, and how many of its pairs were refused, by reason."""

    probes: tuple[Probe, ...]
    reason: str
    refused: Counter[str]


def probes_in(edit: Edit, most: int, problem_of: Callable[[Probe], str]) -> Found:
    """At most ``most`` distinct probes in a text that answers the `self_qa` prompt.

    ``problem_of`` says why a probe can't be asked, or nothing. The last line of a text that the token limit cut off is not
    read: its answer may be half of one.
    """
    if edit.problem:
        return Found((), edit.problem, Counter())
    ends_with_label = edit.prompt.rstrip().endswith("Question:")
    lines: list[str] = []
    for completion in edit.completions:
        # After such a prompt the first question has no label, unless the model says it again.
        text = without_thoughts(completion.text)
        label = "Question:" if ends_with_label and not question_label(text) else ""
        written = edit_lines(label + text)
        lines += written if completion.finished else written[:-1]
    probes: list[Probe] = []
    refused: Counter[str] = Counter()
    for probe in [Probe(*pair, OWN) for line in lines if (pair := question_and_answer(line))]:
        again = any(says(probe.question, other.question) and says(other.question, probe.question) for other in probes)
        if problem := problem_of(probe) or (again and TWICE):
            refused[problem] += 1
        else:
            probes.append(probe)
    reason = "" if probes else next((why for why, _ in refused.most_common(1)), "no line is a question with its answer")
    refused[NOT_NEEDED] += max(0, len(probes) - most)
    return Found(tuple(probes[:most]), reason, +refused)


def answered_in(passage: str, probe: Probe) -> bool:
    """Whether a probe's answer stands in the passage, and not in the question already.

    Each word of the answer has to be one of the passage or of the question, and at least one of the passage alone. Case, articles
    and the order of words say nothing; a longer word may have another ending. In scripts without spaces, parts of a text count.
    """
    text, asked = _folded(passage), _folded(probe.question)
    words = [word for word in _WORD.findall(_folded(probe.answer)) if word not in _ARTICLES]
    told = [_has(text, set(_WORD.findall(text)), word) for word in words]
    known = [_has(asked, set(_WORD.findall(asked)), word) for word in words]
    return all(map(max, told, known)) and any(t and not k for t, k in zip(told, known, strict=True))


def _shares(found: Sequence[Found]) -> str:
    """How many of the pairs that the base wrote are asked, and why the others are not; empty where it wrote none."""
    asked, refused = sum(len(own.probes) for own in found), sum((own.refused for own in found), Counter[str]())
    n = asked + refused.total()
    if not n:
        return ""
    standing = n - refused[NOT_IN_PASSAGE]
    why = ", ".join(f"{reason}: {count}" for reason, count in refused.most_common())
    return (
        f"The base wrote {n} question(s) with answers about {len(found)} passage(s). The answers to {standing} "
        f"({standing / n:.0%}) stand in the passage, and {asked} are asked" + (f" (not asked: {why})." if why else ".")
    )


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _has(text: str, words: set[str], word: str) -> bool:
    if word in words or (_UNSPACED.search(word) and word in text):
        return True
    if len(word) < LEAST_STEM or not word.isalpha():
        return False
    # An ending more or less: "carpenters", "Lunds"
    longer = any(other.startswith(word) and len(other) - len(word) <= MOST_ENDING for other in words)
    return longer or any(word[:-n] in words for n in range(1, min(MOST_ENDING, len(word) - LEAST_STEM) + 1))
