"""SEAL's inner loop: apply a change, ask the changed model, forget it; the outcome stays (arXiv 2506.10943, section 3.1).

`try_changes` is the loop, for many changes at once. `InnerLoop` is what a run does with it: edits become changes, once each;
trials are cut into chunks that the journal commits whole, so that a run that was killed repeats the same arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import TypeAdapter

from .config import Settings, sub_seed
from .edits.base import EditKind
from .engine.base import AdapterBank, Engine
from .plugins import find
from .rewards.examiner import Examiner, Worth
from .rewards.seeds import MOST, close_edits, first_seeds, pilot_edits, to_be_tried
from .run import Run
from .types import Adapter, Answer, Change, Edit, Outcome, Status, Task, Update

Found = TypeVar("Found")
Answers = tuple[Answer, ...]  # of one task
_OUTCOMES = TypeAdapter(list[Outcome])
_WORTHS = TypeAdapter(list[Worth])
ANSWERS = TypeAdapter(list[Answers])
ASKED_PER_CHUNK = 128  # tasks whose questions are answered together
COHORTS_PER_CHUNK = 4  # the engine puts members of about the same size together, and worker threads share them evenly


@dataclass(frozen=True)
class Trial:
    """One change to be tried on its task, from a seed."""

    edit_id: str
    task: Task
    change: Change
    seed: int


def try_changes(
    engine: Engine, examiner: Examiner, trials: Sequence[Trial], before: Sequence[Worth], *, on: Adapter | None
) -> list[Outcome]:
    """Apply every change to the model with the adapter ``on``, all at once, and ask its task's probes; nothing of it stays.

    ``before[i]``: what trial i's task is worth without the edit.
    """
    changes = [replace(trial.change, what=trial.change.seeded(trial.seed)) for trial in trials]
    reasons, banks = applied(engine, changes, on=on)
    outcomes = {i: _failed(trials[i], "invalid", reason) for i, reason in reasons.items()}
    for numbers, bank in banks:
        failures = [training_failure(bank, member) for member in range(len(numbers))]
        # A broken model is not asked anything.
        asked = [replace(trials[i].task, probes=()) if f else trials[i].task for i, f in zip(numbers, failures, strict=True)]
        answers = examiner.answers(asked, on=on, members=bank)
        worths = {m: examiner.worth(t, answers[m], on, bank, m) for m, t in enumerate(asked) if not failures[m]}
        examiner.refuse_broken_reward([trials[numbers[m]].task for m in worths], worths, [before[numbers[m]] for m in worths])
        for member, i in enumerate(numbers):
            after = worths.get(member) or failures[member]
            outcomes[i] = _outcome(trials[i], before[i], bank, member, answers[member], after)
    return [outcomes[i] for i in range(len(trials))]


Banks = Iterator[tuple[list[int], AdapterBank]]


def applied(engine: Engine, changes: Sequence[Change], *, on: Adapter | None) -> tuple[dict[int, str], Banks]:
    """Why some changes are invalid, by number, and the others applied on top of ``on``: banks with their members' numbers.

    Updates that adapt the same modules share a bank, and so do ready adapters.
    """
    reasons: dict[int, str] = {}
    usable: dict[str | None, list[tuple[int, Update | Adapter]]] = {}  # by the modules that are trained; None: adapters
    for i, change in enumerate(changes):
        reason = change.invalid or (engine.check(change.update) or "" if change.update else "")
        if reason or change.what is None:
            reasons[i] = reason or "the edit makes no change"
        else:
            usable.setdefault(change.update.targets if change.update else None, []).append((i, change.what))
    banks = (([i for i, _ in group], engine.apply([what for _, what in group], on=on)) for group in usable.values())
    return reasons, banks


@dataclass(frozen=True)
class Learned:
    """A change that was trained to stay: its adapter, or why there is none, and the tokens that it was trained on."""

    verdict: str
    reason: str
    adapter: Adapter | None = None
    trained_tokens: int = 0


def learn(engine: Engine, changes: Sequence[Change], *, on: Adapter | None) -> list[Learned]:
    """Every change's adapter, trained on top of ``on``; members never see each other."""
    reasons, banks = applied(engine, changes, on=on)
    learned = {i: Learned("invalid", reason) for i, reason in reasons.items()}
    for numbers, bank in banks:
        for member, i in enumerate(numbers):
            reason, tokens = training_failure(bank, member), bank.trained_tokens[member]
            adapter = None if reason else bank.adapter(member)
            learned[i] = Learned("diverged" if reason else "accepted", reason, adapter, tokens)
    return [learned[i] for i in range(len(changes))]


def training_failure(bank: AdapterBank, member: int) -> str:
    """Why training this member failed; empty where it did not."""
    if member in bank.failed:
        return bank.failed[member]
    if not bank.losses[member]:  # a ready adapter: nothing was trained
        return ""
    if bank.shift[member] == 0.0:  # answers of the un-edited learner would pass for the edit's
        return "the trained adapter changes no output"
    return "" if math.isfinite(bank.shift[member]) else "the trained adapter's outputs are not finite"


def _failed(trial: Trial, status: Status, reason: str, answers: tuple[Answer, ...] = (), tokens: int = 0) -> Outcome:
    return Outcome(trial.edit_id, trial.seed, status, reason, answers, None, None, None, tokens, "")


def _outcome(
    trial: Trial, before: Worth, bank: AdapterBank, member: int, answers: tuple[Answer, ...], after: Worth | str
) -> Outcome:
    """A member's outcome; ``after`` is what its answers are worth, or why its training failed."""
    tokens = bank.trained_tokens[member]
    if isinstance(after, str):
        return _failed(trial, "diverged", after, (), tokens)
    if after.reward is None:
        return _failed(trial, "ungraded", after.problem, answers, tokens)
    if before.reward is None:
        return _failed(trial, "ungraded", f"without the edit: {before.problem}", answers, tokens)
    if not math.isfinite(after.reward):
        return _failed(trial, "diverged", "the reward is not finite", (), tokens)
    gain, logprob, probability = (getattr(after, of) - getattr(before, of) for of in ("reward", "logprob", "probability"))
    sha = bank.adapter(member).sha256
    return Outcome(trial.edit_id, trial.seed, "ok", "", answers, after.reward, gain, logprob, tokens, sha, probability)


@dataclass(frozen=True)
class Tried:
    """A round's outcomes, and how many lines of its edits were left out as they say a probe that the model wrote itself."""

    outcomes: list[Outcome]
    lines_held_out: int


class InnerLoop:
    """The inner loop of a run on the model that learns, journaled. ``settings``: the learner's (`Settings.of_learner`)."""

    def __init__(self, run: Run, engine: Engine) -> None:
        """Raises SettingsError where the grader that the settings ask for can't be had."""
        self.run, self.engine = run, engine
        self.settings: Settings = run.settings.of_learner()
        self.examiner = Examiner(engine, self.settings, run.id)
        self._kinds: dict[str, EditKind] = {}
        self._follow_memory()

    def _follow_memory(self) -> None:
        """Journal every time that memory runs out, and go on with the members that an earlier process was left with.

        The note is committed before the chunk that ran out is computed again, and chunks keep the sizes that were planned: a
        run killed at any moment repeats that chunk with the same members as one that went on.
        """

        def note(members: int, reason: str) -> None:
            self.run.once(f"memory/{members}", lambda: {"members_at_once": members, "reason": reason})
            text = f"memory ran out ({reason}); from here on {members} adapters train at once"
            self.run.emit("warning", text=text, members_at_once=members)

        planned = self.settings.model.at_once.members
        left = next((n for n in range(1, planned) if self.run.done(f"memory/{n}")), planned)
        self.engine.limit_members(left, note)

    def change(self, edit: Edit, task: Task) -> Change:
        """What an edit does to the model that learns."""
        if edit.kind not in self._kinds:
            self._kinds[edit.kind] = find("edits", edit.kind)(self.settings, self.engine)
        return self._kinds[edit.kind].change(edit, task)

    @property
    def chunk_size(self) -> int:
        """Trials of one chunk."""
        return COHORTS_PER_CHUNK * self.settings.model.at_once.members

    def try_edits(self, key: str, edits: Sequence[Edit], tasks: Sequence[Task], *, on: Adapter | None) -> Tried:
        """A round's edits, tried with the seeds that the settings ask for; a pilot's edits, and close ones, with more.

        Where a proxy ranks edits first, only those that it leaves are tried.
        """
        settings, by_id = self.settings, {task.id: task for task in tasks}
        changes = {edit.id: self.change(edit, by_id[edit.task_id]) for edit in edits}
        held_out = sum(changes[edit.id].held_out for edit in edits if by_id[edit.task_id].held_out)
        edits = self._screened(key, edits, changes, by_id, on)
        before = dict(zip(by_id, self.before(key, tasks, on=on), strict=True))

        def tried(part: str, chosen: Sequence[Edit], seeds: Sequence[int]) -> list[Outcome]:
            trials = [self.trial(key, e.id, by_id[e.task_id], changes[e.id], n) for e in chosen for n in seeds]
            return self.outcomes(part, trials, [before[trial.task.id] for trial in trials], on=on)

        outcomes = tried(key, edits, range(first_seeds(settings)))
        pilot = pilot_edits(edits, outcomes, settings)
        outcomes += tried(f"{key}/pilot", pilot, [1])
        if settings.inner.seeds == "auto":
            for n in range(1, MOST):
                outcomes += tried(f"{key}/seed-{n + 1}", close_edits(edits, pilot, outcomes, settings, n), [n])
        return Tried(outcomes, held_out)

    def trial(self, key: str, edit_id: str, task: Task, change: Change, n: int = 0) -> Trial:
        """A trial whose seed depends on the key's first part, the task and ``n``.

        It does not depend on the edit, so that comparisons of edits are paired.
        """
        return Trial(edit_id, task, change, sub_seed(self.settings.seed, key.split("/")[0], "inner", task.id, n))

    def outcomes(self, key: str, trials: Sequence[Trial], before: Sequence[Worth], *, on: Adapter | None) -> list[Outcome]:
        """Every trial's outcome, chunk by chunk; ``before[i]`` belongs to trial i."""
        outcomes: list[Outcome] = []
        for start in range(0, len(trials), self.chunk_size):
            part = slice(start, start + self.chunk_size)
            what = self.engine, self.examiner, trials[part], before[part]
            outcomes += self._once(f"{key}/apply/{start}", "outcomes", _OUTCOMES, try_changes, *what, on=on)
            self.run.emit("progress", name=key, done=len(trials[part]))
        return outcomes

    def before(self, key: str, tasks: Sequence[Task], *, on: Adapter | None) -> list[Worth]:
        """What each task is worth without an edit."""
        return self._once(f"{key}/before", "before", _WORTHS, self.examiner.before, tasks, on=on)

    def answers(self, key: str, tasks: Sequence[Task], *, on: Adapter | None, open_book: bool = False) -> list[Answers]:
        """Answers of the un-edited learner, without the passage or (``open_book``) with it in view."""
        answers: list[Answers] = []
        how = {"on": on, "open_book": open_book}
        for start in range(0, len(tasks), ASKED_PER_CHUNK):
            part = tasks[start : start + ASKED_PER_CHUNK]
            answers += self._once(f"{key}/answered/{start}", "answers", ANSWERS, self.examiner.answers, part, **how)
        return answers

    def _once(
        self,
        key: str,
        name: str,
        kind: TypeAdapter[list[Found]],
        compute: Callable[..., list[Found]],
        *of: Any,
        **how: Any,
    ) -> list[Found]:
        """What ``compute(*of, **how)`` finds, from the journal's chunk ``key`` (``{name: [...]}``) or committed there."""
        row = self.run.once(key, lambda: {name: kind.dump_python(compute(*of, **how), mode="json")})
        return kind.validate_python(row[name])

    def _screened(
        self, key: str, edits: Sequence[Edit], changes: dict[str, Change], by_id: dict[str, Task], on: Adapter | None
    ) -> Sequence[Edit]:
        """The edits that the proxy leaves to be tried: all of them where there is none."""
        if self.settings.reward.proxy == "none":
            return edits
        usable = [edit for edit in edits if not changes[edit.id].invalid]

        def compute() -> dict[str, Any]:
            tasks = [by_id[edit.task_id] for edit in usable]
            values = self.examiner.in_view(tasks, [edit.text for edit in usable], on=on)
            return {"proxy": {edit.id: value for edit, value in zip(usable, values, strict=True)}}

        return to_be_tried(edits, self.run.once(f"{key}/proxy", compute)["proxy"], self.settings.reward.proxy_keep)
