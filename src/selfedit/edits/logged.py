"""Logged rounds of the public SEAL code: passages, their self-edits, and how each evaluation of an edit was answered.

A round is one JSON object. What is read of it (the rest is ignored)::

    {"articles": [{"prompt", "completions": [{"text", "questions": [{"adapter_correct", "rep"?, "baseline_correct"?}]}]}]}

``rep`` numbers an edit's evaluations, each an inner loop with its own seed. A completion whose ``questions`` are empty was
never evaluated. That code rounds an evaluation's accuracy to four decimals before it averages and ranks; so is it done here,
because among equals the rounding decides which edit comes first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..tasks.places import Place, decoded, named, object_at, parsed, required_list, required_text, text_at
from ..types import Completion, Edit, Outcome

MAX_BYTES = 256 * 2**20  # parsed whole, at several times its size in memory
DECIMALS = 4  # of a logged accuracy


@dataclass(frozen=True)
class LoggedRound:
    """A round's edits with their outcomes, one an evaluation, in the order of the file.

    ``reward`` is the accuracy and ``gain`` what it is more than the passage's baseline. Where the file tells no baseline it
    counts as 0, which leaves the order of a passage's edits as it is, and ``has_baseline`` is False.
    """

    edits: list[Edit]
    outcomes: list[Outcome]
    has_baseline: bool


def read_round(path: str | Path) -> LoggedRound:
    """The round in a file.

    Raises:
        TaskFileError: the file can't be opened, is empty, truncated, larger than 256 MiB or not JSON; a field is missing or
            of the wrong type; there are no articles, or one has no completions. The message names file and field.
    """
    at = Place(Path(path))
    record = object_at(parsed(decoded(_content(at), at), at), at)
    edits: list[Edit] = []
    outcomes: list[Outcome] = []
    baselines: list[float | None] = []
    for i, article in enumerate(required_list(record, "articles", at, least=1)):
        here = at.of("articles").item(i)
        prompt = required_text(object_at(article, here), "prompt", here)
        completions = required_list(article, "completions", here, least=1)
        places = [here.of("completions").item(k) for k in range(len(completions))]
        texts = [_text(completion, spot) for completion, spot in zip(completions, places, strict=True)]
        graded = [_answers(completion, spot) for completion, spot in zip(completions, places, strict=True)]
        baseline = _baseline(graded)
        baselines.append(baseline)
        for k, (text, answers) in enumerate(zip(texts, graded, strict=True)):
            # The number makes the task: an article may be logged twice, and each time it is a choice of its own.
            edit = _edit(f"articles[{i}]", k, prompt, text)
            edits.append(edit)
            outcomes += _outcomes(edit.id, answers, baseline or 0.0)
    return LoggedRound(edits, outcomes, all(baseline is not None for baseline in baselines))


@dataclass(frozen=True)
class _Answer:
    """A question as it was graded in one evaluation, with the edit and (where told) without."""

    rep: int
    right: bool
    right_before: bool | None


def _content(at: Place) -> bytes:
    try:
        with at.path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        at.fail(f"the file can't be opened ({error})", "check the path and its permissions")
    if not content.strip():
        at.fail("the file is empty", "give a logged round, an object with articles")
    if len(content) > MAX_BYTES:
        at.fail(f"the file is larger than the {MAX_BYTES // 2**20} MiB that are parsed at once", "split its articles")
    return content.removeprefix(b"\xef\xbb\xbf")  # editors on Windows write one


def _text(completion: Any, at: Place) -> str:
    """A self-edit, which may be empty: a model wrote it."""
    if "text" not in object_at(completion, at):
        at.of("text").fail("the field is missing", "add 'text' with the self-edit")
    return text_at(completion["text"], at.of("text"), may_be_empty=True)


def _answers(completion: dict[str, Any], at: Place) -> list[_Answer]:
    answers = []
    for n, question in enumerate(required_list(completion, "questions", at)):
        here = at.of("questions").item(n)
        right = _truth(object_at(question, here), "adapter_correct", here)
        if right is None:
            here.of("adapter_correct").fail("the field is missing", "add whether the edited model's answer is right")
        rep = question.get("rep", 0)
        if isinstance(rep, bool) or not isinstance(rep, int):
            here.of("rep").fail(f"expected a whole number, found {named(rep)}", "number the evaluations 0, 1, ...")
        answers.append(_Answer(rep, right, _truth(question, "baseline_correct", here)))
    return answers


def _truth(record: dict[str, Any], name: str, at: Place) -> bool | None:
    if name not in record:
        return None
    value = record[name]
    if not isinstance(value, bool):
        at.of(name).fail(f"expected true or false, found {named(value)}", "grade the answer, or leave the question out")
    return value


def _accuracies(verdicts: Sequence[tuple[int, bool]]) -> dict[int, float]:
    """Each evaluation's accuracy, by its number."""
    by_rep: dict[int, list[bool]] = defaultdict(list)
    for rep, right in verdicts:
        by_rep[rep].append(right)
    return {rep: round(fmean(rights), DECIMALS) for rep, rights in sorted(by_rep.items())}


def _baseline(graded: Sequence[Sequence[_Answer]]) -> float | None:
    """The passage's accuracy without an edit: the mean of all its evaluations; None where an answer has none.

    One for all its edits: it is the same model asked the same questions, and what differs is the grader's noise.
    """
    known = [
        [(answer.rep, answer.right_before) for answer in answers if answer.right_before is not None]
        for answers in graded
    ]
    accuracies = [accuracy for verdicts in known for accuracy in _accuracies(verdicts).values()]
    if not accuracies or sum(map(len, known)) < sum(map(len, graded)):
        return None
    return fmean(accuracies)


def _edit(task_id: str, index: int, prompt: str, text: str) -> Edit:
    """A logged edit; of how it was sampled the file tells nothing."""
    return Edit(task_id, index, "logged", prompt, Completion((), (), (), text, True), 1.0, 1.0, 0, "")


def _outcomes(edit_id: str, answers: Sequence[_Answer], baseline: float) -> list[Outcome]:
    if not answers:
        return [Outcome(edit_id, 0, "invalid", "it was not evaluated", (), None, None, None, 0, "")]
    rewards = _accuracies([(answer.rep, answer.right) for answer in answers])
    return [
        Outcome(edit_id, rep, "ok", "", (), reward, reward - baseline, None, 0, "") for rep, reward in rewards.items()
    ]
