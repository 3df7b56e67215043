"""The journaled work that the loop and the ladder share: write edits, try them, improve the policy, look at it.

Each method plans its work in chunks, takes committed chunks from the run's journal and computes the rest; the caller reads
like straight-line code. Which members train together is part of the plan, so a resumed run repeats the same arithmetic.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from .algorithms import Improvement, Judged, State, make_algorithm
from .algorithms.base import STATE_FILE, load_state, save_state
from .config import Form, Settings, sub_seed
from .edits.text import ParsedEdit, edit_lines
from .engine.base import Adapter, Engine, check_chat
from .guards.budget import Figures, anchor_sequences, as_row, measure, over_budget
from .policy.text import TextPolicy
from .rewards.outcomes import Rewarder, Trial, Worth, parse_edit
from .rewards.proxy import make_proxy, to_be_tried
from .rewards.seeds import MOST, close_edits, first_seeds, pilot_edits
from .run import Run, replace_directory
from .types import Answer, Edit, Outcome, Probe, Task

_EDITS = TypeAdapter(list[Edit])
_OUTCOMES = TypeAdapter(list[Outcome])
_WORTHS = TypeAdapter(list[Worth])
_ANSWERS = TypeAdapter(list[tuple[Answer, ...]])
EDITS_PER_CHUNK = 128  # decoded in one batch; a step of 128 rows costs 1.5 times what one of 64 does
ASKED_PER_CHUNK = 128  # tasks whose questions are answered together
COHORTS_PER_CHUNK = 4  # the engine puts members of about the same size together, and worker threads share them evenly


class Work:
    """One run's engines and settings, and what is done with them.

    ``engine`` writes the edits; the rewarder's learns from them: the same one, or another model's (`Settings.learner`).
    """

    def __init__(self, run: Run, engine: Engine, learner: Engine, style_of: Callable[[str], str]) -> None:
        self.run, self.engine, self.style_of = run, engine, style_of
        self.settings: Settings = run.settings
        self.rewarder = Rewarder(learner, self.settings.of_learner(), run.id)
        check_chat(engine, self.settings.templates, self.settings.model.path)
        self.proxy = make_proxy(self.rewarder, self.settings, run.id)
        self.algorithm = make_algorithm(engine, self.settings.algorithm)
        self._follow_memory()

    def _follow_memory(self) -> None:
        """Journal every time that memory runs out, and go on with the members that an earlier process was left with.

        The note is committed before the chunk that ran out is computed again, and chunks keep the sizes that were planned: a
        run killed at any moment repeats that chunk with the same members as one that went on.
        """

        def tell(members: int, reason: str) -> None:
            self.run.once(f"memory/{members}", lambda: {"members_at_once": members, "reason": reason})
            text = f"memory ran out ({reason}); from here on {members} adapters train at once"
            self.run.emit("warning", text=text, members_at_once=members)

        planned = self.rewarder.settings.model.at_once.members
        left = next((n for n in range(1, planned) if self.run.done(f"memory/{n}")), planned)
        self.rewarder.engine.limit_members(left, tell)

    @property
    def chunk_size(self) -> int:
        """Updates of one chunk."""
        return COHORTS_PER_CHUNK * self.rewarder.settings.model.at_once.members

    def policy(self, adapter: Adapter | None) -> TextPolicy:
        """The text policy with these weights."""
        return TextPolicy(self.engine, adapter, self.settings.templates, self.settings.edits)

    def beside_learner(self, policy: Adapter | None) -> Adapter | None:
        """What is mounted on the model that learns: the policy where it is the model that writes, on another one nothing."""
        return policy if self.rewarder.engine is self.engine else None

    def edits(
        self, key: str, adapter: Adapter | None, tasks: Sequence[Task], k: int, form: Form | None = None
    ) -> list[Edit]:
        """``k`` edits a task by the policy with these weights. Seeds depend on ``key``'s first part and the task alone."""
        edits: list[Edit] = []
        seed = sub_seed(self.settings.seed, key.split("/")[0])
        policy = self.policy(adapter)
        contexts = {task.id: hashlib.sha256(task.text.encode()).hexdigest() for task in tasks}
        size = max(1, EDITS_PER_CHUNK // (k * self.settings.edits.samples))
        for start in range(0, len(tasks), size):
            part = tasks[start : start + size]

            def write(part: Sequence[Task] = part) -> dict[str, Any]:
                written = policy.propose(part, k, seed, form or "")
                rows = _EDITS.dump_python(written, mode="json")
                extra = [{"text": edit.text, "context_sha256": contexts[edit.task_id]} for edit in written]
                return {"edits": [{**row, **more} for row, more in zip(rows, extra, strict=True)]}

            committed = self.run.once(f"{key}/propose/{start}", write, self._round(key))["edits"]
            known = [{name: row[name] for name in Edit.__dataclass_fields__} for row in committed]
            edits += _EDITS.validate_python(known)
            self.run.emit("progress", name=key, done=len(part) * k)
        return edits

    def before(self, key: str, learner: Adapter | None, tasks: Sequence[Task]) -> list[Worth]:
        """Rewards without an edit."""

        def compute() -> dict[str, Any]:
            self.rewarder.engine.mount(learner)
            return {"before": _WORTHS.dump_python(self.rewarder.before(tasks), mode="json")}

        return _WORTHS.validate_python(self.run.once(f"{key}/before", compute, self._round(key))["before"])

    def answers(
        self, key: str, learner: Adapter | None, tasks: Sequence[Task], open_book: bool
    ) -> list[tuple[Answer, ...]]:
        """Answers of the un-edited learner, with or without the passage in view."""
        answers: list[tuple[Answer, ...]] = []
        for start in range(0, len(tasks), ASKED_PER_CHUNK):
            part = tasks[start : start + ASKED_PER_CHUNK]

            def compute(part: Sequence[Task] = part) -> dict[str, Any]:
                self.rewarder.engine.mount(learner)
                return {"answers": _ANSWERS.dump_python(self.rewarder.answers(None, part, open_book), mode="json")}

            answers += _ANSWERS.validate_python(self.run.once(f"{key}/answered/{start}", compute)["answers"])
        return answers

    def outcomes(
        self,
        key: str,
        learner: Adapter | None,
        trials: Sequence[Trial],
        before: Sequence[Worth],
        lr: float | None = None,
    ) -> list[Outcome]:
        """Every trial's outcome; ``before[i]`` belongs to trial i."""
        outcomes: list[Outcome] = []
        size = self.chunk_size
        for start in range(0, len(trials), size):
            part = slice(start, start + size)

            def attempt(part: slice = part) -> dict[str, Any]:
                self.rewarder.engine.mount(learner)
                done = self.rewarder.outcomes(trials[part], before[part], lr)
                return {"outcomes": _OUTCOMES.dump_python(done, mode="json")}

            committed = self.run.once(f"{key}/apply/{start}", attempt, self._round(key))
            outcomes += _OUTCOMES.validate_python(committed["outcomes"])
            self.run.emit("progress", name=key, done=len(trials[part]))
        return outcomes

    def rewards(self, key: str, learner: Adapter | None, edits: Sequence[Edit], tasks: Sequence[Task]) -> list[Outcome]:
        """A round's edits, each that the proxy leaves tried with the seeds that the settings ask for; the pilot's, and close
        ones, with more.
        """
        settings = self.settings
        edits = self.screened(key, learner, edits, tasks)
        before = dict(zip((task.id for task in tasks), self.before(key, learner, tasks), strict=True))

        def tried(part: str, chosen: Sequence[Edit], seeds: Sequence[int]) -> list[Outcome]:
            trials = self.trials(key, chosen, tasks, seeds)
            return self.outcomes(part, learner, trials, [before[trial.task.id] for trial in trials])

        outcomes = tried(key, edits, range(first_seeds(settings)))
        pilot = pilot_edits(edits, outcomes, settings)
        outcomes += tried(f"{key}/pilot", pilot, [1])
        if settings.inner.seeds == "auto":
            for n in range(1, MOST):
                outcomes += tried(f"{key}/seed-{n + 1}", close_edits(edits, pilot, outcomes, settings, n), [n])
        return outcomes

    def screened(
        self, key: str, learner: Adapter | None, edits: Sequence[Edit], tasks: Sequence[Task]
    ) -> Sequence[Edit]:
        """The edits that the proxy leaves to be tried: all of them where there is none."""
        proxy = self.proxy
        if proxy is None:
            return edits
        by_id = {task.id: task for task in tasks}
        usable = [edit for edit in edits if not self.parsed(edit, by_id[edit.task_id]).reason]

        def compute() -> dict[str, Any]:
            self.rewarder.engine.mount(learner)
            return {"proxy": [[e.id, *value] for e, value in zip(usable, proxy(usable, by_id), strict=True)]}

        rows = self.run.once(f"{key}/proxy", compute, self._round(key))["proxy"]
        return to_be_tried(edits, {edit_id: value for edit_id, value, _ in rows}, self.settings.reward.proxy_keep)

    def trials(self, key: str, edits: Sequence[Edit], tasks: Sequence[Task], seeds: Sequence[int]) -> list[Trial]:
        """One trial for each edit and seed number. A task's seeds are the same whichever edit is tried: pairs are fair."""
        by_id = {task.id: task for task in tasks}
        return [
            self.trial(key, edit.id, by_id[edit.task_id], self.parsed(edit, by_id[edit.task_id]), n)
            for edit in edits
            for n in seeds
        ]

    def trial(self, key: str, edit_id: str, task: Task, parsed: ParsedEdit, n: int = 0) -> Trial:
        """A trial whose seed depends on the key's first part, the task and ``n``."""
        return Trial(edit_id, task, parsed, sub_seed(self.settings.seed, key.split("/")[0], "inner", task.id, n))

    def parsed(self, edit: Edit, task: Task) -> ParsedEdit:
        """A policy's edit as training sequences."""
        if edit.problem:
            return ParsedEdit((), reason=edit.problem)
        engine, settings = self.rewarder.engine, self.rewarder.settings
        texts = [completion.text for completion in edit.completions]
        return parse_edit(engine, settings, task, texts, edit.finished)

    def lines_held_out(self, edits: Sequence[Edit], tasks: Sequence[Task]) -> int:
        """How many lines of these edits say a probe that the model wrote itself, and are not trained on."""
        by_id = {task.id: task for task in tasks if task.held_out}
        return sum(self.parsed(edit, by_id[edit.task_id]).held_out for edit in edits if edit.task_id in by_id)

    def improve(self, round: int, adapter: Adapter | None, judged: Sequence[Judged], state: State) -> Improvement:
        """The algorithm's step, checkpointed: the same call after a crash loads what was trained."""
        directory = self.run.directory / "policy" / f"candidate-{round}"

        def train() -> dict[str, Any]:
            made = self.algorithm.improve(adapter, judged, state, sub_seed(self.settings.seed, "round", round))
            if made.policy is adapter:
                return {"policy": None, "figures": made.figures}
            replace_directory(directory, lambda fresh: _save(made, fresh))
            return {"policy": made.policy and made.policy.sha256, "figures": made.figures}

        done = self.run.once(f"round-{round}/improve", train, round)
        if done["policy"] is None:
            return Improvement(adapter, state, done["figures"])
        return Improvement(self.engine.load_adapter(directory), load_state(directory / STATE_FILE), done["figures"])

    def look(
        self, round: int, adapter: Adapter | None, dev: Sequence[Task], known: Sequence[Probe]
    ) -> tuple[Figures, dict[str, float]]:
        """The guards' figures of a policy, and the shares of styles in what it writes for development tasks."""
        key = f"look-{round}"
        learner = self.beside_learner(adapter)
        before = self.before(key, learner, dev)
        edits = self.edits(key, adapter, dev, 1)
        outcomes = self.outcomes(key, learner, self.trials(key, edits, dev, [0]), before)
        after = [self.rewarder.after(*row) for row in zip(dev, outcomes, before, strict=True)]
        accuracy = {t.id: w.accuracy for t, w in zip(dev, after, strict=True) if w.accuracy is not None}

        def compute() -> dict[str, Any]:
            anchors = anchor_sequences(self.engine, [task.text for task in dev[: self.settings.guards.anchors]])
            figures = measure(self.engine, adapter, anchors, known, self.settings.templates, accuracy)
            return {"figures": vars(figures)}

        figures = Figures(**self.run.once(f"{key}/guards", compute, round)["figures"])
        return figures, self.style_shares([edit.text for edit in edits])

    def style_shares(self, texts: Sequence[str]) -> dict[str, float]:
        """Share of each line style over all lines of ``texts``."""
        counts = Counter(self.style_of(line) for text in texts for line in edit_lines(text))
        total = sum(counts.values())
        return {style: n / total for style, n in sorted(counts.items())}

    def settle(self, round: int, candidate: Figures, base: Figures, best: Figures, changed: bool) -> dict[str, Any]:
        """Accept the round's policy or roll it back, with reasons."""

        def decide() -> dict[str, Any]:
            reasons = over_budget(candidate, base, best, self.settings.guards)
            verdict = "rolled_back" if reasons else "accepted" if changed else "unchanged"
            return {"verdict": verdict, "reasons": reasons, "guards": as_row(candidate, self.settings.guards)}

        return self.run.once(f"round-{round}/settle", decide, round)

    @staticmethod
    def _round(key: str) -> int | None:
        name, _, number = key.split("/")[0].partition("-")
        return int(number) if name in ("round", "look") and number.isdigit() else None


def _save(made: Improvement, directory: Path) -> None:
    """The policy's adapter and, beside it, the algorithm's state."""
    if made.policy is not None:
        made.policy.save(directory)
    save_state(made.state, directory / STATE_FILE)
