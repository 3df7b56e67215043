"""Asks a model the probes of tasks, grades its answers, and turns them into rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from ..config import RewardSettings, Settings
from ..engine.base import AdapterBank, Engine, check_chat, encode_answered
from ..errors import GraderError, TaskFileError
from ..plugins import find
from ..templates import Templates, answer_in, answer_prompt, gold_text
from ..thoughts import without_thoughts
from ..types import Adapter, Answer, Outcome, Probe, Scored, Task
from .metrics.base import Case, Verdict, make_metric
from .terms.base import Answered, Term, Valued

if TYPE_CHECKING:
    from ..engine.model.texts import Pair

# Where none of so many tasks can be graded, or of so many edits (of several tasks, or of one that can be graded without an edit),
# something is broken.
_MANY_TASKS, _MANY_EDITS = 4, 8


@dataclass(frozen=True)
class Worth:
    """What a task's answers are worth: the reward, the gold answers' mean log-likelihood, the share that is right, and the gold
    answers' mean probability.

    Where an answer could not be graded, or there is no reward, reward and accuracy are None and ``problem`` says why.
    """

    reward: float | None
    logprob: float
    accuracy: float | None = None
    problem: str = ""
    probability: float = 0.0


class Examiner:
    """Asks a model the probes of tasks and turns its answers into rewards, by the run's metric."""

    def __init__(self, engine: Engine, settings: Settings, budget_key: str = "") -> None:
        """``budget_key``: the run whose judge budget is charged.

        Raises:
            SettingsError: what the grader or a term of the reward needs can't be loaded.
        """
        self.engine, self.settings = engine, settings
        self.reward: RewardSettings = settings.reward
        self.templates: Templates = settings.templates
        check_chat(engine, self.templates, settings.model.path)
        self.metric = make_metric(settings.reward.metric, settings.reward, budget_key)
        names = dict.fromkeys((self.reward.metric, *self.reward.terms))
        grading = [name for name in names if self.reward.group_of(name) == "metrics"]
        self._terms: dict[str, Term] = {
            name: find("rewards", name)(self.reward, engine) for name in self.reward.terms if name not in grading
        }
        # The metric's own verdicts are there already: a judge is not asked again.
        self._metrics = {name: make_metric(name, self.reward) for name in grading if name != "judge"}

    def answers(
        self,
        tasks: Sequence[Task],
        *,
        on: Adapter | None,
        members: AdapterBank | None = None,
        open_book: bool = False,
    ) -> list[tuple[Answer, ...]]:
        """Every task's probes, answered by the model with the adapter ``on``; task k by member k on top of it, if there are any.

        The gold answer comes first, under teacher forcing; other answers are decoded greedily. ``open_book``: with the passage
        in view.
        """
        pairs = [self._pairs(task, open_book) for task in tasks]
        scored = self.engine.score(list(map(_ids, pairs)), on=on, members=members)
        # Where the model does not write the gold answer itself, its own is decoded; all of these are graded at once.
        wrong = [
            [(probe, pair) for probe, pair, gold in zip(task.probes, row, golds, strict=True) if not gold.greedy]
            for task, row, golds in zip(tasks, pairs, scored, strict=True)
        ]
        prompts = [[pair.prompt for _, pair in row] for row in wrong]
        written = self.engine.answer(prompts, on=on, members=members, max_new_tokens=self.reward.max_answer_tokens)
        cases = [
            Case(probe.question, probe.golds, answer_in(_said(text, pair), probe, self.templates))
            for row, texts in zip(wrong, written, strict=True)
            for (probe, pair), text in zip(row, texts, strict=True)
        ]
        graded = iter(zip(cases, self.metric.grade(cases), strict=True))

        def answer(probe: Probe, gold: Scored) -> Answer:
            said, verdict = probe.answer, Verdict(True)
            if not gold.greedy:
                case, verdict = next(graded)
                said = case.text
            right, logprob = bool(verdict.right), _gold_logprob(gold)
            return Answer(probe.question, probe.answer, said, right, logprob, probe.kind, verdict.problem)

        return [tuple(map(answer, task.probes, golds)) for task, golds in zip(tasks, scored, strict=True)]

    def likelihoods(self, bank: AdapterBank, tasks: Mapping[int, Task], *, on: Adapter | None) -> dict[int, float]:
        """Mean log-likelihood of the gold answers (nats per token, mean over probes) of ``tasks[k]`` by member k of the bank."""
        pairs = [self._pairs(tasks[k]) if k in tasks else [] for k in range(len(bank))]
        scored = self.engine.score(list(map(_ids, pairs)), on=on, members=bank)
        return {k: sum(map(_gold_logprob, scored[k])) / len(scored[k]) for k in tasks}

    def in_view(self, tasks: Sequence[Task], notes: Sequence[str], *, on: Adapter | None) -> list[float]:
        """Mean log-likelihood (nats per token) of each task's gold answers under ``on``, with the note in the passage's place."""
        shown = [replace(task, context=(without_thoughts(note),)) for task, note in zip(tasks, notes, strict=True)]
        scored = self.engine.score([_ids(self._pairs(task, True)) for task in shown], on=on)
        return [sum(map(_gold_logprob, row)) / len(row) for row in scored]

    def _pairs(self, task: Task, open_book: bool = False) -> list[Pair]:
        """Each probe's prompt and gold answer, with the end of text behind it.

        Raises:
            TaskFileError: an answer, or a question with its answer, is longer than the model's window.
        """
        return [self._pair(task, probe, open_book) for probe in task.probes]

    def _pair(self, task: Task, probe: Probe, open_book: bool) -> Pair:
        """A probe's prompt and gold answer. Of a passage in view that is too long for the window, the beginning is shown."""
        window, passage = self.engine.window, task.text

        def asked(chars: int) -> Pair:
            shown = task if chars == len(passage) else replace(task, context=(_first_words(passage, chars),))
            prompt = answer_prompt(shown, probe, self.templates, open_book)
            return encode_answered(self.engine, self.templates, prompt, gold_text(probe, self.templates))

        pair = asked(len(passage))
        gold = len(pair.answer)
        room = window - max(gold, self.reward.max_answer_tokens)
        if len(pair.prompt) <= room:
            return pair
        if open_book and gold < window:
            fitting, too_long = 0, len(passage)
            while too_long - fitting > 1:
                middle = (fitting + too_long) // 2
                fits = len(asked(middle).prompt) <= room
                fitting, too_long = (middle, too_long) if fits else (fitting, middle)
            pair = asked(fitting)
        if len(pair.prompt) + gold > window:  # one that only leaves less room for the answer is asked as it is
            what, n = ("answer", gold) if gold >= window else ("question with its answer", len(pair.prompt) + gold)
            raise TaskFileError(
                f"the task {task.id!r}: the {what} is {n} tokens long, which does not fit into the model's window of {window} "
                f"(the question is {probe.question[:80]!r}); shorten it, or leave the question out"
            )
        return pair

    def before(self, tasks: Sequence[Task], *, on: Adapter | None) -> list[Worth]:
        """What each task is worth under ``on``, un-edited.

        Raises:
            GraderError: not one of several tasks could be graded.
        """
        worths = [self.worth(t, row, on) for t, row in zip(tasks, self.answers(tasks, on=on), strict=True)]
        refuse_all_ungraded(tasks, worths)
        return worths

    def worth(
        self,
        task: Task,
        answers: Sequence[Answer],
        on: Adapter | None,
        bank: AdapterBank | None = None,
        member: int = 0,
    ) -> Worth:
        """What a task's answers are worth: those of member ``member`` of the bank on top of ``on``, or of ``on`` alone."""
        logprob, probability = (fmean(getattr(a, name) for a in answers) for name in ("logprob", "probability"))
        problem = next((a.problem for a in answers if a.problem), "")
        reward = None
        if not problem:
            reward, problem = self._reward(Answered(task, answers, on, bank, member))
        accuracy = self.accuracy(task, answers) if reward is not None else None
        return Worth(reward, logprob, accuracy, problem if reward is None else "", probability)

    def _reward(self, answered: Answered) -> Valued:
        """The weighted sum of the terms that the settings name, of answers that all were graded."""
        total = 0.0
        for name, weight in self.reward.terms.items():
            term = self._terms.get(name)
            value, problem = term.value(answered) if term is not None else self._share_right(name, answered)
            if value is None:
                return None, problem
            total += weight * value
        return total, ""

    def _share_right(self, metric: str, answered: Answered) -> Valued:
        """The mean credit over probes (0..1) by a metric; by the answers' own verdicts where it is the run's metric."""
        answers, found = answered.answers, self._metrics.get(metric)
        credit: Callable[[Case], float] | None = getattr(found, "credit", None)
        cases = [Case(p.question, p.golds, a.text) for p, a in zip(answered.task.probes, answers, strict=True)]
        if credit is not None:
            return fmean(map(credit, cases)), ""
        if found is None or metric == self.reward.metric:
            return sum(a.correct for a in answers) / len(answers), ""
        verdicts = found.grade(cases)
        problem = next((v.problem for v in verdicts if v.right is None), "")
        return (None, problem) if problem else (fmean(bool(v.right) for v in verdicts), "")

    def accuracy(self, task: Task, answers: Sequence[Answer]) -> float:
        """The share of graded answers that are right (mean F1 where the metric is token_f1), whatever the reward is made of."""
        share, problem = self._share_right(self.reward.metric, Answered(task, answers, None))
        assert share is not None, problem  # of the run's own metric every answer was graded
        return share

    def graded(self, task: Task, answers: Sequence[Answer]) -> float | None:
        """`accuracy`, or None where an answer could not be graded."""
        return None if any(answer.problem for answer in answers) else self.accuracy(task, answers)

    def after(self, task: Task, outcome: Outcome, before: Worth) -> Worth:
        """What a task is worth after its edit: unchanged where the edit is unusable, unknown where it was not graded."""
        if outcome.status == "ungraded":
            return Worth(None, before.logprob, problem=outcome.reason)
        if outcome.reward is None or outcome.logprob is None:
            return before
        return Worth(outcome.reward, before.logprob + outcome.logprob, self.accuracy(task, outcome.answers))

    def refuse_broken_reward(self, tasks: Sequence[Task], worths: Mapping[int, Worth], before: Sequence[Worth]) -> None:
        """Raise GraderError where the user's own reward fails on all of these edits, as something it needs may be down."""
        if "custom" in self.reward.terms:
            refuse_all_ungraded(tasks, list(worths.values()), before)


def refuse_all_ungraded(tasks: Sequence[Task], worths: Sequence[Worth], before: Sequence[Worth] = ()) -> None:
    """Raise GraderError where none of several tasks, or of many edits, could be graded: a run on such a reward is worthless.

    Edits of one task that cannot be graded without an edit either (``before``) prove nothing: the fault may be the task's.
    """
    n = len({task.id for task in tasks})
    many = len(worths) >= _MANY_EDITS and (n > 1 or any(worth.reward is not None for worth in before))
    if (n >= _MANY_TASKS or many) and all(worth.reward is None for worth in worths):
        what = f"{n} tasks" if n >= _MANY_TASKS else f"{len(worths)} edits of {n} task{'s' if n > 1 else ''}"
        raise GraderError(
            f"not one of {what} could be graded ({worths[0].problem}). Finished work is kept: correct this, and run the same "
            "command again to continue"
        )


def mean_of_graded(values: Sequence[float | None]) -> float | None:
    """The mean over those that could be graded; None where there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _gold_logprob(gold: Scored) -> float:
    """Mean log p of the gold answer's own tokens, without the stop."""
    tokens = gold.logprobs[:-1] or gold.logprobs
    return sum(tokens) / len(tokens)


def _ids(pairs: Sequence[Pair]) -> list[tuple[list[int], list[int]]]:
    """What the engine scores."""
    return [(pair.prompt, pair.answer) for pair in pairs]


def _said(text: str, pair: Pair) -> str:
    """The answer in what the model wrote: without thoughts, and without the end of the prompt that it wrote again."""
    return without_thoughts(text).strip().removeprefix(pair.lead.strip()).strip()


def _first_words(text: str, chars: int) -> str:
    """At most so many first characters, without a word that is cut."""
    cut = text[:chars]
    whole = cut.rsplit(None, 1)[0] if cut.split() and not text[chars : chars + 1].isspace() else cut
    return whole.rstrip()
