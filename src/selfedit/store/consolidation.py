"""Consolidation: what edited models say consistently becomes training data for a new base.

After a passage is learned, its questions (the policy's own, from the passage) are asked of the edited model several times,
without the passage. The answer that most samples give, if enough do, becomes a lesson: a line of training data that says where
it comes from. Every so many passages a fresh adapter is trained on all lessons, and takes the place of the edits (SEAL, appendix
on synthetic data for pretraining; self-consistency: Wang et al. 2022, arXiv 2203.11171).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..config import sub_seed
from ..engine.base import encode_asked
from ..own_probes import MAX_QUESTION_CHARS, probes_in
from ..parts import Parts
from ..rewards.string_rules import normalise
from ..run import write_atomically
from ..templates import answer_prompt
from ..thoughts import without_thoughts
from ..types import Adapter, Probe, Task

MOST_QUESTIONS = 24  # of one text
VOTES = 8  # answers sampled for each question, without the passage
SAMPLES = 8  # texts of question-answer pairs that the policy writes for a passage
LEAST_SHARE = 0.6  # of the votes that an answer needs


@dataclass(frozen=True)
class Lesson:
    """One question with the answer that the edited model gives most often, and where both come from.

    ``vote_share``: of ``votes`` sampled answers. ``edit_id`` and ``adapter_sha256``: the edit that the model had learned last.
    """

    question: str
    answer: str
    vote_share: float
    votes: int
    task_id: str
    context_sha256: str
    edit_id: str
    adapter_sha256: str
    seed: int

    @property
    def line(self) -> str:
        """The lesson as an edit would say it."""
        return f"Question: {self.question} Answer: {self.answer}"


def ask(
    parts: Parts,
    task: Task,
    questions: Sequence[str],
    edited: Adapter | None,
    source: tuple[str, str],
    seed: int,
) -> list[Lesson]:
    """What the learner answers consistently under ``edited``; ``source``: the edit's id and its adapter's hash."""
    engine, examiner = parts.inner.engine, parts.inner.examiner
    room = engine.window - examiner.reward.max_answer_tokens
    prompts = {
        question: encode_asked(
            engine, examiner.templates, answer_prompt(task, Probe(question, ""), examiner.templates), answering=True
        )
        for question in questions
    }
    prompts = {question: prompt for question, prompt in prompts.items() if len(prompt) <= room}
    if not prompts:
        return []
    seeds = [sub_seed(seed, "vote", i, n) for i in range(len(prompts)) for n in range(VOTES)]
    said = engine.sample(
        [prompt for prompt in prompts.values() for _ in range(VOTES)],
        seeds,
        on=edited,
        max_new_tokens=examiner.reward.max_answer_tokens,
        temperature=1.0,
        top_p=1.0,
    )
    context = hashlib.sha256(task.text.encode()).hexdigest()
    lessons = []
    for i, question in enumerate(prompts):
        votes = said[i * VOTES : (i + 1) * VOTES]
        answers = [without_thoughts(completion.text).strip() for completion in votes if completion.finished]
        answer, share = majority(answers, VOTES)
        if answer and share >= LEAST_SHARE:
            lessons.append(Lesson(question, answer, share, VOTES, task.id, context, *source, seed))
    return lessons


def majority(answers: Sequence[str], votes: int) -> tuple[str, float]:
    """The answer that is given most often (as it was first put) and its share of ``votes``; empty where nothing was said.

    Answers are the same where their words are: case, articles and punctuation say nothing.
    """
    counts = Counter(key for answer in answers if (key := normalise(answer)))
    if not counts:
        return "", 0.0
    key, n = counts.most_common(1)[0]
    return next(" ".join(answer.split()) for answer in answers if normalise(answer) == key), n / votes


def questions_for(parts: Parts, key: str, task: Task, writer: Adapter | None, samples: int) -> list[str]:
    """Different questions about a passage, that ``writer`` writes with the prompt for question-answer pairs, in at least so
    many texts (an edit may have several).
    """
    edits = parts.writer.write(key, writer, [task], -(-samples // parts.settings.edits.samples), "self_qa")
    found = [probe.question for edit in edits for probe in probes_in(edit, MOST_QUESTIONS, lambda probe: "").probes]
    return [question for question in dict.fromkeys(found) if len(question) <= MAX_QUESTION_CHARS]


def export(lessons: Iterable[Lesson], path: Path) -> None:
    """Write lessons as JSONL, a row each, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(asdict(lesson), ensure_ascii=False) + "\n" for lesson in lessons))
