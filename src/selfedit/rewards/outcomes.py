"""From edits to outcomes: apply, probe, revert; many edits at once, the base untouched.

A trial is one task, the sequences to train on (or why there are none) and a seed. Its outcome holds the edited model's
answers, its reward, and the gain over the same learner without the edit.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from ..engine.base import AdapterBank, Engine, Scored
from ..errors import SettingsError
from ..templates import Templates
from ..types import Answer, Outcome, Probe, Task, Update
from .graders import exact_match, token_f1
from .offline import offline_match

Metric = Callable[[Task, Sequence[Answer]], float]


@dataclass(frozen=True)
class Trial:
    """One edit (parsed) to be tried on its task."""

    edit_id: str
    task: Task
    parsed: ParsedEdit
    seed: int


@dataclass(frozen=True)
class Before:
    """A task's reward and mean gold log-likelihood without any edit."""

    reward: float
    logprob: float


def parse_edit(engine: Engine, settings: Settings, task: Task, text: str, finished: bool = True) -> ParsedEdit:
    """An edit's text as training sequences, under the run's limits."""
    edits = settings.edits
    limits = EditLimits(max_lines=edits.max_lines, max_tokens=max(4096, 4 * edits.max_new_tokens))
    rules = EditRules(include_context=edits.include_context)
    if settings.preset == "paper":
        limits = replace(PAPER_LIMITS, max_lines=edits.max_lines)
        rules = replace(PAPER_RULES, include_context=edits.include_context)
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
    )


def parse_passage(engine: Engine, settings: Settings, task: Task) -> ParsedEdit:
    """The raw passage alone, as a trained rung of the ladder."""
    sequences = passage_sequences(
        task,
        encode_prompt=engine.encode_prompt,
        eos_id=engine.eos_id,
        window=engine.window,
        templates=settings.templates,
    )
    return ParsedEdit((), sequences, reason="" if sequences else "the passage has fewer than two tokens")


class Rewarder:
    """Answers probes and turns them into rewards, by the run's metric."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self.reward: RewardSettings = settings.reward
        self.templates: Templates = settings.templates
        self._custom = _imported(self.reward.custom) if self.reward.custom else None
        self._validation = self._validation_ids() if self.reward.metric == "perplexity" else []

    def _validation_ids(self) -> list[int]:
        file = Path(self.reward.validation_text)
        try:
            ids = self.engine.encode_prompt(file.read_text(encoding="utf-8"))[: self.engine.window]
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"reward.validation_text: {file} can't be read ({error}); give a UTF-8 text file"
            ) from None
        if len(ids) < 2:
            raise SettingsError(f"reward.validation_text: {file} has fewer than two tokens")
        return ids

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
        rows: list[tuple[Answer, ...]] = []
        for task, row, written in zip(tasks, scored, texts, strict=True):
            answers = []
            for probe, gold, text in zip(task.probes, row, written, strict=True):
                said = probe.answer if gold.greedy else text.strip()
                logprob = _gold_logprob(gold)
                right = gold.greedy or self._right(said, probe)
                answers.append(Answer(probe.question, probe.answer, said, right, logprob, probe.kind))
            rows.append(tuple(answers))
        return rows

    def likelihoods(self, bank: AdapterBank, tasks: Mapping[int, Task]) -> dict[int, float]:
        """Mean log-likelihood of the gold answers (nats a token, mean over probes) of ``tasks[k]`` by member k of the bank."""
        pairs = [self._pairs(tasks[k]) if k in tasks else [] for k in range(len(bank))]
        scored = self.engine.score(bank, pairs)
        return {k: sum(map(_gold_logprob, scored[k])) / len(scored[k]) for k in tasks}

    def _pairs(self, task: Task, open_book: bool = False) -> list[tuple[list[int], list[int]]]:
        """Each probe's prompt and gold answer, with the end of text behind it."""
        golds = [[*self.engine.encode(gold_text(p, self.templates)), self.engine.eos_id] for p in task.probes]
        prompts = [answer_prompt(task, probe, self.templates, open_book) for probe in task.probes]
        return [(self._fitted(prompt, len(gold)), gold) for prompt, gold in zip(prompts, golds, strict=True)]

    def _fitted(self, prompt: str, gold_tokens: int) -> list[int]:
        """A prompt's ids; of one too long for the window (a long passage in view) the last part, with the question."""
        ids = self.engine.encode_prompt(prompt)
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

    def _right(self, said: str, probe: Probe) -> bool:
        if self.reward.metric == "exact":
            return said in probe.golds
        if self.reward.metric == "offline":
            return offline_match(probe.question, probe.golds, said)
        return exact_match(said, probe.golds)

    def value(self, task: Task, answers: Sequence[Answer], bank: AdapterBank | None = None, member: int = 0) -> float:
        """A task's reward from its answers (perplexity: from member ``member`` of the bank)."""
        if self._custom is not None:
            return float(self._custom(task, answers))
        if self.reward.metric == "logprob":
            return sum(a.logprob for a in answers) / len(answers)
        if self.reward.metric == "token_f1":
            golds = [probe.golds for probe in task.probes]
            return sum(token_f1(a.text, g) for a, g in zip(answers, golds, strict=True)) / len(answers)
        if self.reward.metric == "perplexity":
            pair = (self._validation[:1], self._validation[1:])
            row = self.engine.score(bank, [[pair] if k == member else [] for k in range(len(bank) if bank else 1)])[
                member
            ]
            return sum(row[0].logprobs) / len(row[0].logprobs)
        return sum(a.correct for a in answers) / len(answers)

    def before(self, tasks: Sequence[Task]) -> list[Before]:
        """Each task's reward and log-likelihood under the mounted learner, un-edited."""
        return [self.valued(t, row) for t, row in zip(tasks, self.answers(None, tasks), strict=True)]

    def valued(self, task: Task, answers: Sequence[Answer]) -> Before:
        """Reward and log-likelihood of the un-edited learner's answers."""
        return Before(self.value(task, answers), _mean_logprob(answers))

    def update_for(self, parsed: ParsedEdit, seed: int, lr: float | None = None) -> Update:
        """The inner loop's update for a usable edit; every rung gets the same number of steps."""
        inner: InnerSettings = self.settings.inner
        return Update(
            sequences=parsed.sequences,
            steps=inner.steps,
            batch_size=inner.batch_size,
            lr=inner.lr if lr is None else lr,
            rank=inner.rank,
            alpha=inner.alpha,
            seed=seed,
            schedule=inner.schedule,
        )

    def outcomes(self, trials: Sequence[Trial], before: Sequence[Before], lr: float | None = None) -> list[Outcome]:
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
            tasks = [trials[i].task for i, _ in updates]
            rows = self.answers(bank, tasks)
            for member, ((i, _), row) in enumerate(zip(updates, rows, strict=True)):
                done[i] = self._outcome(trials[i], before[i], bank, member, row)
        return [
            done.get(i) or Outcome(t.edit_id, t.seed, "invalid", reasons[i], (), None, None, None, 0, "")
            for i, t in enumerate(trials)
        ]

    def _outcome(
        self, trial: Trial, before: Before, bank: AdapterBank, member: int, answers: tuple[Answer, ...]
    ) -> Outcome:
        tokens = bank.trained_tokens[member]

        def diverged(reason: str) -> Outcome:
            return Outcome(trial.edit_id, trial.seed, "diverged", reason, (), None, None, None, tokens, "")

        if member in bank.failed:
            return diverged(bank.failed[member])
        if bank.shift[member] == 0.0:  # answers of the un-edited learner would pass for the edit's
            return diverged("the trained adapter changes no output")
        if not math.isfinite(bank.shift[member]):
            return diverged("the trained adapter's outputs are not finite")
        reward = self.value(trial.task, answers, bank, member)
        if not math.isfinite(reward):
            return diverged("the reward is not finite")
        logprob = _mean_logprob(answers) - before.logprob
        sha = bank.adapter(member).sha256
        return Outcome(
            trial.edit_id, trial.seed, "ok", "", answers, reward, reward - before.reward, logprob, tokens, sha
        )


def _gold_logprob(gold: Scored) -> float:
    """Mean log p of the gold answer's own tokens, without the stop."""
    tokens = gold.logprobs[:-1] or gold.logprobs
    return sum(tokens) / len(tokens)


def _mean_logprob(answers: Sequence[Answer]) -> float:
    return sum(a.logprob for a in answers) / len(answers)


def _imported(name: str) -> Metric:
    """The user's own reward, ``module:function``."""
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)  # an installed command does not look in the current directory by itself
    try:
        found: Metric = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"reward.custom: {name!r} can't be imported ({error}); give 'module:function' of an importable module, "
            "such as my_rewards:short_answers with my_rewards.py in the current directory"
        ) from None
    finally:
        sys.path.remove(here)
    return found
