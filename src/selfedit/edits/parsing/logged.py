"""Logged rounds of the public SEAL code: passages, their self-edits, and how each evaluation of an edit was answered.

A round is one JSON object. What is read of it (the rest is ignored)::

    {"articles": [{"prompt", "completions": [{"text", "questions": [{"adapter_correct", "rep"?, "baseline_correct"?}]}]}]}

``rep`` numbers an edit's evaluations, each an inner loop with its own seed. A completion whose ``questions`` are empty was
never evaluated. That code rounds an evaluation's accuracy to four decimals before it averages and ranks. So does this module,
because among equals the rounding decides which edit comes first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import Field

from ...tasks.places import Form, Place, Text, checked, opened, parsed, read_rest
from ...types import Completion, Edit, Outcome

DECIMALS = 4  # of a logged accuracy


class _Answer(Form):
    """A question as it was graded in one evaluation, with the edit and (where logged) without."""

    adapter_correct: bool
    rep: int = 0
    baseline_correct: bool | None = None


class _Completion(Form):
    text: str  # a model wrote it: it may be empty
    questions: list[_Answer]


class _Article(Form):
    prompt: Text
    completions: list[_Completion] = Field(min_length=1)


class _Round(Form):
    articles: list[_Article] = Field(min_length=1)


@dataclass(frozen=True)
class LoggedRound:
    """A round's edits with their outcomes, one per evaluation, in the order of the file.

    ``reward`` is the accuracy and ``gain`` its difference from the passage's baseline. Where the file has no baseline it
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
    with opened(at.path) as stream:
        content = read_rest(stream, at)
    if not content.strip():
        at.fail("the file is empty", "give a logged round, an object with articles")
    edits: list[Edit] = []
    outcomes: list[Outcome] = []
    has_baseline = True
    for i, article in enumerate(checked(_Round, parsed(content, at), at).articles):
        baseline = _baseline([completion.questions for completion in article.completions])
        has_baseline = has_baseline and baseline is not None
        for k, completion in enumerate(article.completions):
            # The number makes the task: an article may be logged twice, and each time it is a choice of its own.
            # How the edit was sampled is not logged.
            written = Completion((), (), (), completion.text, True)
            edit = Edit(f"articles[{i}]", k, "logged", article.prompt, written, 1.0, 1.0, 0, "")
            edits.append(edit)
            outcomes += _outcomes(edit.id, completion.questions, baseline or 0.0)
    return LoggedRound(edits, outcomes, has_baseline)


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
    accuracies: list[float] = []
    for answers in graded:
        verdicts = [(a.rep, a.baseline_correct) for a in answers if a.baseline_correct is not None]
        if len(verdicts) < len(answers):
            return None
        accuracies += _accuracies(verdicts).values()
    return fmean(accuracies) if accuracies else None


def _outcomes(edit_id: str, answers: Sequence[_Answer], baseline: float) -> list[Outcome]:
    if not answers:
        return [Outcome(edit_id, 0, "invalid", "it was not evaluated", (), None, None, None, 0, "")]
    rewards = _accuracies([(answer.rep, answer.adapter_correct) for answer in answers])
    return [Outcome(edit_id, rep, "ok", "", (), reward, reward - baseline, None, 0, "") for rep, reward in rewards.items()]
