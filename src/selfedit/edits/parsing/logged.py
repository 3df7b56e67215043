"""Logged rounds of the public SEAL code: passages, their self-edits, and how each evaluation of an edit was answered.

A round is one JSON object. What is read of it (the rest is ignored)::

    {"articles": [{"prompt", "completions": [{
        "text", "questions": [{"adapter_correct", "rep"?, "baseline_correct"?}],
        "stats"?: {"adapter_mean"?, "baseline_mean"?}}]}]}

``rep`` numbers an edit's evaluations, each an inner loop with its own seed. That code chooses the first edit of the largest
``adapter_mean`` as it is stored, to the last bit. Where none is stored, it is computed as that code does: an evaluation's
accuracy is rounded to four decimals before it is averaged. A completion whose ``questions`` are empty has its means alone, and
one that has no mean either was never evaluated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
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


class _Stats(Form):
    """A completion's accuracies, averaged over its evaluations."""

    adapter_mean: float | None = None
    baseline_mean: float | None = None


class _Completion(Form):
    text: str  # a model wrote it: it may be empty
    questions: list[_Answer]
    stats: _Stats | None = None

    @property
    def means(self) -> _Stats:
        return self.stats or _Stats()


class _Article(Form):
    prompt: Text
    completions: list[_Completion] = Field(min_length=1)


class _Round(Form):
    articles: list[_Article] = Field(min_length=1)


@dataclass(frozen=True)
class LoggedRound:
    """A round's edits with their outcomes, one per evaluation (one in all where only its mean is logged), in the file's order.

    ``means``: the edits' mean accuracies as stored, by their ids; the published choice is by them. ``n_evaluations``: of each
    edit whose evaluations are logged one by one. ``reward`` is the accuracy and ``gain`` its difference from the passage's
    baseline. Where the file has no baseline it counts as 0, which leaves the order of a passage's edits as it is, and
    ``has_baseline`` is False.
    """

    edits: list[Edit]
    outcomes: list[Outcome]
    has_baseline: bool
    means: dict[str, float]
    n_evaluations: list[int]


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
    means: dict[str, float] = {}
    has_baseline, n_evaluations = True, list[int]()
    for i, article in enumerate(checked(_Round, parsed(content, at), at).articles):
        baseline = _baseline(article.completions)
        has_baseline = has_baseline and baseline is not None
        for k, completion in enumerate(article.completions):
            # The number makes the task: an article may be logged twice, and each time it is a choice of its own.
            # How the edit was sampled is not logged.
            written = Completion((), (), (), completion.text, True)
            edit = Edit(f"articles[{i}]", k, "logged", article.prompt, written, 1.0, 1.0, 0, "")
            edits.append(edit)
            if (mean := completion.means.adapter_mean) is not None:
                means[edit.id] = mean
            rewards = _accuracies([(answer.rep, answer.adapter_correct) for answer in completion.questions])
            n_evaluations += [len(rewards)] if rewards else []
            outcomes += _outcomes(edit.id, rewards or ({} if mean is None else {0: mean}), baseline or 0.0)
    return LoggedRound(edits, outcomes, has_baseline, means, n_evaluations)


def _accuracies(verdicts: Sequence[tuple[int, bool]]) -> dict[int, float]:
    """Each evaluation's accuracy, by its number."""
    by_rep: dict[int, list[bool]] = defaultdict(list)
    for rep, right in verdicts:
        by_rep[rep].append(right)
    return {rep: round(fmean(rights), DECIMALS) for rep, rights in sorted(by_rep.items())}


def _baseline(completions: Sequence[_Completion]) -> float | None:
    """The passage's accuracy without an edit: the mean of all its evaluations; None where an answer has none.

    One for all its edits: it is the same model asked the same questions, and what differs is the grader's noise.
    """
    if not any(completion.questions for completion in completions):
        stored = [completion.means.baseline_mean for completion in completions]
        known = [mean for mean in stored if mean is not None]
        return fmean(known) if known and len(known) == len(stored) else None
    accuracies: list[float] = []
    for completion in completions:
        verdicts = [(a.rep, a.baseline_correct) for a in completion.questions if a.baseline_correct is not None]
        if len(verdicts) < len(completion.questions):
            return None
        accuracies += _accuracies(verdicts).values()
    return fmean(accuracies) if accuracies else None


def _outcomes(edit_id: str, rewards: Mapping[int, float], baseline: float) -> list[Outcome]:
    if not rewards:
        return [Outcome(edit_id, 0, "invalid", "it was not evaluated", (), None, None, None, 0, "")]
    return [Outcome(edit_id, rep, "ok", "", (), reward, reward - baseline, None, 0, "") for rep, reward in rewards.items()]
