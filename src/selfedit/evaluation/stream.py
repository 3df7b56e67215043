"""A stream of passages: edit after edit goes into one model, and what it still knows of the earlier ones is asked.

What a stream leaves is a list of adapters with scales; the model after it is their sum (or what `ArmSettings.merge` makes of
them) beside the policy. The base never changes. The adapters lie in the run's directory until the stream is through.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from ..config import ArmSettings, sub_seed
from ..edits.text import ParsedEdit
from ..engine.base import Adapter, AdapterBank
from ..guards.gate import Decision, decide
from ..memory.consolidation import Lesson, ask, export, questions_for
from ..memory.routing import Router
from ..rewards.outcomes import parse_edit, parse_passage, wasted
from ..run import replace_directory
from ..types import Answer, Probe, Task, TrainSequence, Update
from ..work import Work
from .merging import MergeCost, mixed

Row = dict[str, Any]
_ROOM = 0.1  # share of an edit's size that has to be left once it is made orthogonal to earlier ones
_BANK = 32  # adapters of a routed stream that answer together


@dataclass(frozen=True)
class Around:
    """What a stream lives among: the policy, closed-book questions, anchors for KL, and texts that the base wrote by itself
    (``written``, and as sequences to train on: ``rehearsal``).
    """

    policy: Adapter | None
    known: Sequence[Probe]
    anchors: Sequence[TrainSequence]
    rehearsal: Sequence[TrainSequence]
    written: Sequence[str]


@dataclass(frozen=True)
class Taken:
    """What a stream came to. Accuracies are None where answers could not be graded.

    ``immediate[t]``: passage t right after its own edit (and what is learned again, where that follows). ``looks[n]``: passages 0
    to n - 1 after n edits; the last is after all. ``general``: closed-book accuracy before and after. ``decisions[t]``: what
    became of edit t. ``lessons``: what edited models answered consistently, if the arm consolidates.
    """

    immediate: list[float | None]
    looks: dict[int, list[float | None]]
    general: list[float | None]
    decisions: list[Row]
    lessons: list[Row]

    @property
    def retained(self) -> list[float | None]:
        """Every passage at the end."""
        return self.looks[len(self.immediate)]


@dataclass(frozen=True)
class _State:
    """The stream so far, beside the policy: one adapter, or (``apart``) one for each passage and who answers what."""

    adapter: Adapter | None = None
    apart: tuple[Adapter | None, ...] = ()
    router: Router | None = None


class Stream:
    """``tasks`` taken in one way; ``key`` names it in the journal, and its first part decides the seeds."""

    def __init__(self, work: Work, around: Around, tasks: Sequence[Task], arm: ArmSettings, key: str) -> None:
        self.work, self.around, self.tasks, self.arm, self.key = work, around, list(tasks), arm, key
        self.engine, self.rewarder = work.rewarder.engine, work.rewarder
        self.learner = work.beside_learner(around.policy)
        self.name = key.replace("/", "-")
        self.directory = work.run.directory / "streams" / self.name
        self._group = key.split("/")[0]
        self.lessons: list[Lesson] = []

    def take_in(self, every: int) -> Taken:
        """The whole stream, with a look at all passages so far after ``every`` edits and at the end."""
        row = self.work.run.once(f"{self.key}/taken", lambda: vars(self._taken(every)))
        if row["lessons"]:
            export(
                [Lesson(**lesson) for lesson in row["lessons"]],
                self.work.run.directory / "lessons" / f"{self.name}.jsonl",
            )
        shutil.rmtree(self.directory, ignore_errors=True)  # the journal has all that is told of it
        looks = {int(n): look for n, look in row["looks"].items()}
        return Taken(row["immediate"], looks, row["general"], row["decisions"], row["lessons"])

    def _taken(self, every: int) -> Taken:
        taken = Taken([], {}, [self._general("before", _State())], [], [])
        state = _State()
        for n, (decision, state) in enumerate(self._summed() if self.arm.merge == "sum" else self._apart(), start=1):
            look = n % every == 0 or n == len(self.tasks)
            found = self._accuracy(f"after/{n}", self.tasks[0 if look else n - 1 : n], state)
            taken.decisions.append(decision)
            taken.immediate.append(found[-1])
            if look:
                taken.looks[n] = found
            self.work.run.emit("progress", name=self.key, done=1)
        taken.general.append(self._general("after", state))
        taken.lessons.extend(vars(lesson) for lesson in self.lessons)
        return taken

    def _summed(self) -> Iterator[tuple[Row, _State]]:
        """Edit after edit learned by the model as the stream left it, and added to it."""
        state = _State()
        known: list[ParsedEdit] = []
        earlier: list[Adapter] = []
        may_write = self.arm.writer == "stream" and self.engine is self.work.engine
        written = [] if may_write else self._written_before()
        for t, task in enumerate(self.tasks):
            (parsed,) = self._written(f"{self.key}/{t}", self._beside(state), [task]) if may_write else (written[t],)

            def learn(
                t: int = t,
                parsed: ParsedEdit = parsed,
                state: _State = state,
                earlier: Sequence[Adapter] = tuple(earlier),
            ) -> Row:
                return self._learn(t, parsed, state, known, earlier)

            decision = self.work.run.once(f"{self.key}/{t}/learn", learn)
            # Nothing of a rejected edit comes back in replay.
            known.append(parsed if decision["scale"] else ParsedEdit(()))
            if decision["scale"]:
                adapter = self.engine.load_adapter(self.directory / str(t))
                state = _State(self._sum(state.adapter, adapter, decision["scale"]))
                earlier.append(adapter)
            again: Row = {}
            if self.arm.consolidate:
                self._ask(t, decision, state)
            if _due(t, self.arm.consolidate):
                state, again["consolidated"] = self._consolidated(t, state)
            if _due(t, self.arm.refresh):
                state, again["refreshed"] = self._refreshed(t, state, known)
            decision |= again
            earlier = [state.adapter] if again and state.adapter is not None else earlier
            yield decision, state

    def _consolidated(self, t: int, state: _State) -> tuple[_State, Row]:
        """A fresh adapter that learned all lessons in place of the edits one by one, and its row."""
        lessons = self._lessons_of(self.tasks[: t + 1])
        row = self.work.run.once(
            f"{self.key}/{t}/consolidate",
            lambda: self._learn_together(t, lessons, _State(), "consolidate", self.arm.steps),
        )
        if row["scale"]:
            state = _State(self.engine.load_adapter(self.directory / f"consolidate-{t}"))
        return state, row

    def _refreshed(self, t: int, state: _State, known: Sequence[ParsedEdit]) -> tuple[_State, Row]:
        """The stream so far and an adapter that learned all edits up to here again beside it, and its row."""
        row = self.work.run.once(
            f"{self.key}/{t}/refresh", lambda: self._learn_together(t, known, state, "refresh", self.arm.refresh_steps)
        )
        if row["scale"]:
            state = _State(self._sum(state.adapter, self.engine.load_adapter(self.directory / f"refresh-{t}"), 1.0))
        return state, row

    def _ask(self, t: int, decision: Row, state: _State) -> None:
        """Lessons of passage t: what the model that has just learned it answers to the policy's questions."""
        task, how = self.tasks[t], self.work.settings.protocol.consolidation
        key = f"{self.key}/{t}/questions"
        questions = questions_for(self.work, key, task, self.around.policy, how.samples) if decision["scale"] else []
        source = (f"{task.id}#0", str(decision.get("adapter_sha256")))

        def asked() -> Row:
            found = (
                ask(self.work, task, questions, self._beside(state), source, how, self._seed(t)) if questions else []
            )
            return {"lessons": [vars(lesson) for lesson in found]}

        self.lessons += [Lesson(**row) for row in self.work.run.once(f"{self.key}/{t}/lessons", asked)["lessons"]]

    def _lessons_of(self, tasks: Sequence[Task]) -> list[ParsedEdit]:
        """The lessons of each passage that has some, as an edit; without the passage."""
        settings = self.rewarder.settings
        edits = settings.edits.model_copy(update={"include_context": False})
        settings = settings.model_copy(update={"edits": edits})
        by_task: dict[str, list[str]] = {}
        for lesson in self.lessons:
            by_task.setdefault(lesson.task_id, []).append(lesson.line)
        return [
            parse_edit(self.engine, settings, task, "\n".join(by_task[task.id])) for task in tasks if task.id in by_task
        ]

    def _learn_together(self, t: int, edits: Sequence[ParsedEdit], state: _State, what: str, steps: int) -> Row:
        """One adapter trained beside ``state`` on many passages' edits or lessons at once, with ``steps`` for each passage
        (0: as many as one alone has).
        """
        kept = [edit.sequences for edit in edits if edit.sequences]
        sequences = tuple(chain(*kept))
        update = self._update(ParsedEdit((), sequences), sub_seed(self._seed(t), what))
        if steps or not self.rewarder.settings.inner.epochs:  # epochs are counted over all sequences already
            update = replace(update, steps=(steps or update.steps) * len(kept))
        together = ParsedEdit((), sequences, reason="" if sequences else f"there is nothing to {what}")
        adapter, row = self._trained({t: (together, self._mixed(update, []))}, state)[t]
        return self._kept(f"{what}-{t}", adapter, row)

    def _apart(self) -> Iterator[tuple[Row, _State]]:
        """Every edit learned by itself, beside the policy; then all so far as one adapter, or each for its own questions."""
        parsed = self._written_before()
        decisions: list[Row] = []
        size = self.work.chunk_size
        for start in range(0, len(self.tasks), size):
            chunk = dict(enumerate(parsed[start : start + size], start=start))

            def learn(chunk: Mapping[int, ParsedEdit] = chunk) -> Row:
                trained = self._trained({t: (p, self._update(p, self._seed(t))) for t, p in chunk.items()}, _State())
                return {"decisions": [self._kept(str(t), *trained[t]) for t in chunk]}

            decisions += self.work.run.once(f"{self.key}/learn/{start}", learn)["decisions"]
        adapters: list[Adapter | None] = []
        for t, decision in enumerate(decisions):
            adapters.append(self.engine.load_adapter(self.directory / str(t)) if decision["scale"] else None)
            if self.arm.merge == "routed":
                yield decision, _State(apart=tuple(adapters), router=Router(self.tasks[: t + 1], self.around.written))
            else:
                yield decision, _State(self._merged([adapter for adapter in adapters if adapter is not None]))

    def _merged(self, adapters: Sequence[Adapter]) -> Adapter | None:
        if not adapters:
            return None
        if self.arm.merge == "ties":
            return self.engine.combine(adapters, keep=self.arm.keep)
        return self.engine.combine(adapters, [1 / len(adapters)] * len(adapters))

    def _learn(
        self, t: int, parsed: ParsedEdit, state: _State, known: Sequence[ParsedEdit], earlier: Sequence[Adapter]
    ) -> Row:
        """One edit learned beside the stream so far, and kept at the scale that the gate lets through."""
        update = self._mixed(self._update(parsed, self._seed(t)), known)
        init, orthogonal = None, self.arm.orthogonal and bool(earlier)
        if orthogonal:
            init = self.engine.initial_adapter(rank=update.rank, alpha=update.alpha, seed=update.seed)
            init = self.engine.apart(init, earlier)
        adapter, row = self._trained({t: (parsed, update)}, state, init)[t]
        if adapter is None:
            return row
        if orthogonal:
            before, adapter = self.engine.norm_ratio(adapter), self.engine.apart(adapter, earlier)
            if self.engine.norm_ratio(adapter) < _ROOM * before:
                reason = "earlier edits read all inputs that this one would: there is no room left for it"
                return row | {"verdict": "rejected", "reasons": [reason], "scale": 0.0}
        if self.arm.gate:
            row |= self._gated(t, adapter, parsed, state, known).row()
        return self._kept(str(t), adapter, row)

    def _gated(
        self, t: int, adapter: Adapter, parsed: ParsedEdit, state: _State, known: Sequence[ParsedEdit]
    ) -> Decision:
        limits = self.work.settings.protocol.gate
        rng = random.Random(sub_seed(self._seed(t), "gate"))
        merged = [i for i, edit in enumerate(known) if edit.sequences]  # of the others there is nothing to lose
        chosen = rng.sample(merged, min(limits.earlier, len(merged)))
        earlier = [(self.tasks[i], known[i]) for i in sorted(chosen)]
        cost = MergeCost(self.work, self.around.anchors, (self.tasks[t], parsed), earlier, self._beside(state))
        return decide(
            lambda scale: cost(adapter, scale, self._beside(_State(self._sum(state.adapter, adapter, scale)))), limits
        )

    def _trained(
        self, edits: Mapping[int, tuple[ParsedEdit, Update]], state: _State, init: Adapter | None = None
    ) -> dict[int, tuple[Adapter | None, Row]]:
        """Each edit's adapter, trained beside the stream so far, or None and why there is none."""
        done: dict[int, tuple[Adapter | None, Row]] = {}
        updates: dict[int, Update] = {}
        for t, (parsed, update) in edits.items():
            if reason := parsed.reason or self.engine.check(update):
                done[t] = None, {"verdict": "invalid", "reasons": [reason], "scale": 0.0}
            else:
                updates[t] = update
        if not updates:
            return done
        self.engine.mount(self._beside(state))
        bank = self.engine.fit(list(updates.values()), init)
        for member, t in enumerate(updates):
            if reason := wasted(bank, member):
                done[t] = None, {"verdict": "diverged", "reasons": [reason], "scale": 0.0}
            else:
                cost = {"steps": updates[t].steps, "trained_tokens": bank.trained_tokens[member]}
                done[t] = bank.adapter(member), {"verdict": "accepted", "reasons": [], "scale": 1.0, **cost}
        return done

    def _kept(self, name: str, adapter: Adapter | None, row: Row) -> Row:
        """What became of an edit, its adapter on disk where it is to be merged."""
        if adapter is None or not row["scale"]:
            return row
        replace_directory(self.directory / name, adapter.save)
        return row | {"adapter_sha256": adapter.sha256}

    def _update(self, parsed: ParsedEdit, seed: int) -> Update:
        """The inner loop's update for an edit, with what the arm has of its own."""
        update = self.rewarder.update_for(parsed, seed, self.arm.lr or None)
        update = replace(update, steps=self.arm.steps or update.steps)
        if self.arm.rank:
            update = replace(update, rank=self.arm.rank, alpha=update.alpha * self.arm.rank / update.rank)
        return update

    def _mixed(self, update: Update, known: Sequence[ParsedEdit]) -> Update:
        """With earlier edits' lines and the base's own texts, as the arm says."""
        lines = [sequence for parsed in known for sequence in parsed.sequences]
        rng = random.Random(sub_seed(update.seed, "mix"))
        return mixed(update, [(lines, self.arm.replay), (self.around.rehearsal, self.arm.rehearsal)], rng)

    def _seed(self, t: int) -> int:
        return sub_seed(self.work.settings.seed, self._group, "inner", self.tasks[t].id)

    def _written_before(self) -> list[ParsedEdit]:
        """Every passage's edit by the policy as it was before the stream: the same ones in all arms that have them so."""
        policy = self.around.policy
        return self._written(f"{self._group}/by-{policy.sha256[:16] if policy else 'base'}", policy, self.tasks)

    def _written(self, key: str, writer: Adapter | None, tasks: Sequence[Task]) -> list[ParsedEdit]:
        if self.arm.learns == "passage":
            return [parse_passage(self.engine, self.rewarder.settings, task) for task in tasks]
        if self.arm.learns == "perfect":
            return [parse_edit(self.engine, self.rewarder.settings, task, task.gold_edit) for task in tasks]
        edits = self.work.edits(key, writer, tasks, 1)
        return [self.work.parsed(edit, task) for edit, task in zip(edits, tasks, strict=True)]

    def _sum(self, state: Adapter | None, adapter: Adapter, scale: float) -> Adapter:
        if state is None:
            return self.engine.combine([adapter], [scale])
        return self.engine.combine([state, adapter], [1.0, scale])

    def _beside(self, state: _State) -> Adapter | None:
        """What is mounted: the policy, where it is the model that learns, and the stream so far."""
        if self.learner is None or state.adapter is None:
            return state.adapter or self.learner
        return self.engine.combine([self.learner, state.adapter])

    def _general(self, when: str, state: _State) -> float | None:
        """Accuracy on the closed-book questions, None where there are none."""
        if not self.around.known:
            return None
        return self._accuracy(when, [Task("known", "", (), tuple(self.around.known))], state)[0]

    def _accuracy(self, when: str, tasks: Sequence[Task], state: _State) -> list[float | None]:
        """Each task's accuracy, asked without its passage."""

        def compute() -> Row:
            self.engine.mount(self._beside(state))
            answers = self.rewarder.answers(None, tasks) if state.router is None else self._routed(tasks, state)
            accuracy = [self.rewarder.graded(task, row) for task, row in zip(tasks, answers, strict=True)]
            return {"accuracy": accuracy, "answers": [[_row_of(answer) for answer in row] for row in answers]}

        found: list[float | None] = self.work.run.once(f"{self.key}/{when}", compute)["accuracy"]
        return found

    def _routed(self, tasks: Sequence[Task], state: _State) -> list[tuple[Answer, ...]]:
        """Every question asked of the model with the adapter that it is routed to, or of the policy's alone."""
        assert state.router is not None
        places: dict[tuple[int | None, int], list[int]] = {}  # (whose adapter, which task): numbers of its probes
        for i, task in enumerate(tasks):
            for j, probe in enumerate(task.probes):
                number = state.router.route(probe.question)
                known = number is not None and state.apart[number] is not None
                places.setdefault((number if known else None, i), []).append(j)
        found: dict[tuple[int, int], Answer] = {}
        for bank, spots in self._banks(list(places), state):
            parts = [
                replace(tasks[i], probes=tuple(tasks[i].probes[j] for j in places[number, i])) for number, i in spots
            ]
            for spot, row in zip(spots, self.rewarder.answers(bank, parts), strict=True):
                found |= {(spot[1], j): answer for j, answer in zip(places[spot], row, strict=True)}
        return [tuple(found[i, j] for j in range(len(task.probes))) for i, task in enumerate(tasks)]

    def _banks(
        self, spots: Sequence[tuple[int | None, int]], state: _State
    ) -> Iterator[tuple[AdapterBank | None, list[tuple[int | None, int]]]]:
        """The spots of no adapter, then the others with their adapters as a bank, so many at a time."""
        if without := [spot for spot in spots if spot[0] is None]:
            yield None, without
        routed = [(state.apart[number], (number, i)) for number, i in spots if number is not None]
        for start in range(0, len(routed), _BANK):
            some = routed[start : start + _BANK]
            yield self.engine.bank([adapter for adapter, _ in some if adapter is not None]), [spot for _, spot in some]


def _due(t: int, every: int) -> bool:
    """Whether something that comes after ``every`` passages (0: never) comes after passage ``t``."""
    return bool(every) and (t + 1) % every == 0


def _row_of(answer: Answer) -> Row:
    """For the journal, which has no NaN: the sum of finite adapters can still overflow."""
    return {**vars(answer), "logprob": answer.logprob if math.isfinite(answer.logprob) else None}
