"""From edits to outcomes: apply, probe, revert; many edits at once, the base untouched.

A trial is one task, the sequences to train on (or why there are none) and a seed. Its outcome holds the edited model's
answers, its reward, and the gain over the same learner without the edit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..config import InnerSettings, RewardSettings, Settings
from ..edits.text import (
    PAPER_LIMITS,
    PAPER_RULES,
    EditLimits,
    EditRules,
    ParsedEdit,
    answer_prompt,
    gold_text,
    passage_sequences,
    sequences_for,
)
from ..engine.base import AdapterBank, Engine, Scored, check_chat, encode_asked
from ..errors import GraderError, TaskFileError
from ..templates import Templates
from ..types import Answer, Outcome, Status, Task, Update
from .grading import Case, Verdict, make_grader
from .terms import Reward

_NO_CHANCE = 4  # so many tasks of which none can be graded: something is broken
_NO_CHANCE_EDITS = 8  # so many edits, of several tasks or of one that could be graded without an edit


@dataclass(frozen=True)
class Trial:
    """One edit (parsed) to be tried on its task."""

    edit_id: str
    task: Task
    parsed: ParsedEdit
    seed: int


@dataclass(frozen=True)
class Worth:
    """What a task's answers are worth: the reward, the gold answers' mean log-likelihood, and the share that is right.

    Where an answer could not be graded, or the reward not be found out, reward and accuracy are None and ``problem`` says why.
    """

    reward: float | None
    logprob: float
    accuracy: float | None = None
    problem: str = ""


def parse_edit(
    engine: Engine, settings: Settings, task: Task, text: str | Sequence[str], finished: bool = True
) -> ParsedEdit:
    """An edit's text, or its samples' texts, as training sequences, under the run's limits."""
    edits = settings.edits
    n = edits.samples
    limits = EditLimits(max_lines=n * edits.max_lines, max_tokens=n * max(4096, 4 * edits.max_new_tokens))
    distinct = n > 1  # samples of one prompt say the same things again
    rules = EditRules(include_context=edits.include_context, distinct=distinct)
    if edits.rules == "seal":
        limits = replace(PAPER_LIMITS, max_lines=n * edits.max_lines, max_tokens=n * PAPER_LIMITS.max_tokens)
        rules = replace(PAPER_RULES, include_context=edits.include_context, distinct=distinct)
    return sequences_for(
        task,
        text,
        encode_prompt=engine.encode_prompt,
        eos_id=engine.eos_id,
        window=engine.window,
        templates=settings.templates,
        limits=limits,
        rules=rules,
        finished=finished,
        pad_to=settings.inner.pad_to,
    )


def parse_passage(engine: Engine, settings: Settings, task: Task) -> ParsedEdit:
    """The raw passage alone, as a trained rung of the ladder."""
    sequences = passage_sequences(
        task,
        encode_prompt=engine.encode_prompt,
        eos_id=engine.eos_id,
        window=engine.window,
        templates=settings.templates,
        pad_to=settings.inner.pad_to,
    )
    return ParsedEdit((), sequences, reason="" if sequences else "the passage has fewer than two tokens")


class Rewarder:
    """Answers probes and turns them into rewards, by the run's metric."""

    def __init__(self, engine: Engine, settings: Settings, purse: str = "") -> None:
        """``purse``: whose budget a judge spends."""
        self.engine, self.settings = engine, settings
        self.reward: RewardSettings = settings.reward
        self.templates: Templates = settings.templates
        check_chat(engine, self.templates, settings.model.path)
        self.grader = make_grader(settings, purse)
        self._reward = Reward(engine, settings)

    def answers(
        self, bank: AdapterBank | None, tasks: Sequence[Task], open_book: bool = False
    ) -> list[tuple[Answer, ...]]:
        """Every task's probes: task k by member k (or all by the mounted model). Gold first under teacher forcing; what greedy
        decoding would have written otherwise is decoded only if the metric, or a reader of the report, needs the text.
        """
        pairs = [self._pairs(task, open_book) for task in tasks]
        prompts = [[prompt for prompt, _ in row] for row in pairs]
        scored = self.engine.score(bank, pairs)
        texts = self._decoded(bank, prompts, [[s.greedy for s in row] for row in scored])
        verdicts = self._verdicts(tasks, scored, texts)
        rows: list[tuple[Answer, ...]] = []
        for task, row, written in zip(tasks, scored, texts, strict=True):
            answers = []
            for probe, gold, text in zip(task.probes, row, written, strict=True):
                verdict = Verdict(True) if gold.greedy else next(verdicts)
                said = probe.answer if gold.greedy else text.strip()
                right = bool(verdict.right)
                logprob = _gold_logprob(gold)
                answers.append(Answer(probe.question, probe.answer, said, right, logprob, probe.kind, verdict.problem))
            rows.append(tuple(answers))
        return rows

    def _verdicts(
        self, tasks: Sequence[Task], scored: Sequence[Sequence[Scored]], texts: Sequence[Sequence[str]]
    ) -> Iterator[Verdict]:
        """Verdicts on the answers that are not the gold one, in order; all of them are asked for at once."""
        cases = [
            Case(probe.question, probe.golds, text.strip())
            for task, row, written in zip(tasks, scored, texts, strict=True)
            for probe, gold, text in zip(task.probes, row, written, strict=True)
            if not gold.greedy
        ]
        return iter(self.grader(cases))

    def likelihoods(self, bank: AdapterBank, tasks: Mapping[int, Task]) -> dict[int, float]:
        """Mean log-likelihood of the gold answers (nats a token, mean over probes) of ``tasks[k]`` by member k of the bank."""
        pairs = [self._pairs(tasks[k]) if k in tasks else [] for k in range(len(bank))]
        scored = self.engine.score(bank, pairs)
        return {k: sum(map(_gold_logprob, scored[k])) / len(scored[k]) for k in tasks}

    def in_view(self, tasks: Sequence[Task], notes: Sequence[str]) -> list[float]:
        """Mean log-likelihood (nats a token) of each task's gold answers by the mounted learner, notes in the passage's place."""
        pairs = [self._pairs(replace(task, context=(note,)), True) for task, note in zip(tasks, notes, strict=True)]
        return [sum(map(_gold_logprob, row)) / len(row) for row in self.engine.score(None, pairs)]

    def _pairs(self, task: Task, open_book: bool = False) -> list[tuple[list[int], list[int]]]:
        """Each probe's prompt and gold answer, with the end of text behind it."""
        golds = [[*self.engine.encode(gold_text(p, self.templates)), self.engine.eos_id] for p in task.probes]
        prompts = [answer_prompt(task, probe, self.templates, open_book) for probe in task.probes]
        for probe, gold in zip(task.probes, golds, strict=True):
            if len(gold) >= self.engine.window:
                raise TaskFileError(
                    f"the task {task.id!r}: the answer to {probe.question[:80]!r} is {len(gold)} tokens long, which does not fit "
                    f"into the model's window of {self.engine.window}; shorten it, or leave the question out"
                )
        return [(self._fitted(prompt, len(gold)), gold) for prompt, gold in zip(prompts, golds, strict=True)]

    def _fitted(self, prompt: str, gold_tokens: int) -> list[int]:
        """A prompt's ids; of one too long for the window (a long passage in view) the last part, with the question."""
        ids = encode_asked(self.engine, self.templates, prompt)
        room = self.engine.window - max(gold_tokens, self.reward.max_answer_tokens)
        return ids if len(ids) <= room else ids[-max(room, 1) :]

    def _decoded(
        self, bank: AdapterBank | None, prompts: list[list[list[int]]], greedy: list[list[bool]]
    ) -> list[list[str]]:
        """What the model writes where it does not write the gold answer (empty where it does)."""
        wrong = [
            [p for p, ok in zip(row, oks, strict=True) if not ok] for row, oks in zip(prompts, greedy, strict=True)
        ]
        written = self.engine.answer(bank, wrong, max_new_tokens=self.reward.max_answer_tokens)
        queues = [iter(row) for row in written]
        return [["" if ok else next(queue) for ok in oks] for oks, queue in zip(greedy, queues, strict=True)]

    def before(self, tasks: Sequence[Task]) -> list[Worth]:
        """What each task is worth under the mounted learner, un-edited.

        Raises:
            GraderError: not one of several tasks could be graded.
        """
        worths = [self.worth(t, row) for t, row in zip(tasks, self.answers(None, tasks), strict=True)]
        _not_all_ungraded(tasks, worths)
        return worths

    def worth(self, task: Task, answers: Sequence[Answer], bank: AdapterBank | None = None, member: int = 0) -> Worth:
        """What a task's answers are worth. They are member ``member``'s of the bank, or the mounted model's."""
        logprob = sum(a.logprob for a in answers) / len(answers)
        problem = next((a.problem for a in answers if a.problem), "")
        if problem:
            return Worth(None, logprob, problem=problem)
        reward, problem = self._reward(task, answers, bank, member)
        if reward is None:
            return Worth(None, logprob, problem=problem)
        return Worth(reward, logprob, self.accuracy(task, answers))

    def accuracy(self, task: Task, answers: Sequence[Answer]) -> float:
        """The share of graded answers that are right (mean F1 where the metric is token_f1), whatever the reward is made of."""
        return self._reward.share_right(self.reward.metric, task, answers)

    def graded(self, task: Task, answers: Sequence[Answer]) -> float | None:
        """`accuracy`, or None where an answer could not be graded."""
        return None if any(answer.problem for answer in answers) else self.accuracy(task, answers)

    def after(self, task: Task, outcome: Outcome, before: Worth) -> Worth:
        """What a task is worth after its edit: an unusable edit leaves the model as it was, one not graded says nothing."""
        if outcome.status == "ungraded":
            return Worth(None, before.logprob, problem=outcome.reason)
        if outcome.reward is None or outcome.logprob is None:
            return before
        return Worth(outcome.reward, before.logprob + outcome.logprob, self.accuracy(task, outcome.answers))

    def update_for(self, parsed: ParsedEdit, seed: int, lr: float | None = None) -> Update:
        """The inner loop's update for a usable edit; every rung gets the same number of steps, or of epochs."""
        inner: InnerSettings = self.settings.inner
        return Update(
            sequences=parsed.sequences,
            steps=inner.steps_for(len(parsed.sequences)),
            batch_size=inner.batch_size,
            lr=inner.lr if lr is None else lr,
            rank=inner.rank,
            alpha=inner.alpha,
            seed=seed,
            schedule=inner.schedule,
        )

    def outcomes(self, trials: Sequence[Trial], before: Sequence[Worth], lr: float | None = None) -> list[Outcome]:
        """Try every edit on the mounted learner, all at once; nothing of it stays. ``before[i]`` belongs to trial i's task."""
        reasons = [trial.parsed.reason for trial in trials]
        updates: list[tuple[int, Update]] = []
        for i, trial in enumerate(trials):
            if not reasons[i]:
                update = self.update_for(trial.parsed, trial.seed, lr)
                reasons[i] = self.engine.check(update) or ""
                if not reasons[i]:
                    updates.append((i, update))
        done: dict[int, Outcome] = {}
        if updates:
            bank = self.engine.fit([update for _, update in updates])
            reasons_after = [wasted(bank, member) for member in range(len(updates))]
            asked = [
                replace(trials[i].task, probes=())
                if reason
                else trials[i].task  # nobody is asked what a broken model says
                for (i, _), reason in zip(updates, reasons_after, strict=True)
            ]
            rows = self.answers(bank, asked)
            worths = {
                member: self.worth(task, row, bank, member)
                for member, (task, row) in enumerate(zip(asked, rows, strict=True))
                if not reasons_after[member]
            }
            if "custom" in self.reward.terms:  # what it depends on may be down; a judge tells by itself that it is
                tried = [updates[member][0] for member in worths]
                _not_all_ungraded([trials[i].task for i in tried], list(worths.values()), [before[i] for i in tried])
            for member, ((i, _), row) in enumerate(zip(updates, rows, strict=True)):
                done[i] = _outcome(trials[i], before[i], bank, member, row, worths.get(member) or reasons_after[member])
        return [
            done.get(i) or Outcome(t.edit_id, t.seed, "invalid", reasons[i], (), None, None, None, 0, "")
            for i, t in enumerate(trials)
        ]


def wasted(bank: AdapterBank, member: int) -> str:
    """Why a member's training came to nothing; empty where it did not."""
    if member in bank.failed:
        return bank.failed[member]
    if bank.shift[member] == 0.0:  # answers of the un-edited learner would pass for the edit's
        return "the trained adapter changes no output"
    return "" if math.isfinite(bank.shift[member]) else "the trained adapter's outputs are not finite"


def _outcome(
    trial: Trial, before: Worth, bank: AdapterBank, member: int, answers: tuple[Answer, ...], after: Worth | str
) -> Outcome:
    """A member's outcome; ``after`` is what its answers are worth, or why its training came to nothing."""
    tokens = bank.trained_tokens[member]

    def failed(status: Status, reason: str, said: tuple[Answer, ...] = ()) -> Outcome:
        return Outcome(trial.edit_id, trial.seed, status, reason, said, None, None, None, tokens, "")

    if isinstance(after, str):
        return failed("diverged", after)
    if after.reward is None:
        return failed("ungraded", after.problem, answers)
    if before.reward is None:
        return failed("ungraded", f"without the edit: {before.problem}", answers)
    if not math.isfinite(after.reward):
        return failed("diverged", "the reward is not finite")
    gain, logprob = after.reward - before.reward, after.logprob - before.logprob
    sha = bank.adapter(member).sha256
    return Outcome(trial.edit_id, trial.seed, "ok", "", answers, after.reward, gain, logprob, tokens, sha)


def _not_all_ungraded(tasks: Sequence[Task], worths: Sequence[Worth], before: Sequence[Worth] = ()) -> None:
    """Raise GraderError where nothing of several tasks, or of many edits, could be graded: a run on such a reward is worthless.

    Edits of one task that cannot be graded without an edit either (``before``) tell nothing: the fault may be the task's.
    """
    n = len({task.id for task in tasks})
    many = len(worths) >= _NO_CHANCE_EDITS and (n > 1 or any(worth.reward is not None for worth in before))
    if (n >= _NO_CHANCE or many) and all(worth.reward is None for worth in worths):
        what = f"{n} tasks" if n >= _NO_CHANCE else f"{len(worths)} edits of {n} task{'s' if n > 1 else ''}"
        raise GraderError(
            f"not one of {what} could be graded ({worths[0].problem}). What was done is kept: mend that, and run the same "
            "command again to go on"
        )


def mean_of_graded(values: Sequence[float | None]) -> float | None:
    """The mean over those that could be graded; None where there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _gold_logprob(gold: Scored) -> float:
    """Mean log p of the gold answer's own tokens, without the stop."""
    tokens = gold.logprobs[:-1] or gold.logprobs
    return sum(tokens) / len(tokens)
