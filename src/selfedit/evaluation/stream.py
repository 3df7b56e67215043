"""A stream of passages: edit after edit goes into one model, and what it still knows of the earlier ones is asked.

What a stream leaves is a list of adapters with scales; the model after it is their sum (or what `ArmSettings.merge` makes of
them) beside the policy. The base never changes. The adapters lie in the run's directory until the stream has ended.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

from pydantic import TypeAdapter

from ..config import ArmSettings, sub_seed
from ..edits.text import passage_change, text_change
from ..inner import Answers, learn
from ..parts import Parts
from ..run import replace_directory
from ..store.consolidation import SAMPLES, Lesson, ask, export, questions_for
from ..store.gate import EARLIER, CostMeter, Decision, decide
from ..store.routing import Router
from ..types import Adapter, Answer, Change, Probe, Recipe, Task, TrainSequence, Update
from .ladder import adapter_key
from .mixing import mixed
from .validation_text import text_logprob

Row = dict[str, Any]
_BANK = 32  # adapters of a routed stream that answer together


@dataclass(frozen=True)
class StreamContext:
    """What a stream has besides its passages: the policy, closed-book questions, anchors for KL, and texts that the base wrote by
    itself (``written``, and as sequences to train on: ``rehearsal``).
    """

    policy: Adapter | None
    known: Sequence[Probe]
    anchors: Sequence[TrainSequence]
    rehearsal: Sequence[TrainSequence]
    written: Sequence[str]


@dataclass(frozen=True)
class Taken:
    """The result of a stream. Accuracies are None where answers could not be graded.

    ``immediate[t]``: passage t right after its own edit (and what is learned again, where that follows). ``looks[n]``: passages 0
    to n - 1 after n edits; the last is after all. ``general``: closed-book accuracy before and after. ``decisions[t]``: what
    happened to edit t. ``lessons``: what edited models answered consistently, if the arm consolidates. ``text``: log-likelihood
    (nats per token) of ``reward.validation_text`` before and after.
    """

    immediate: list[float | None]
    looks: dict[int, list[float | None]]
    general: list[float | None]
    decisions: list[Row]
    lessons: list[Lesson]
    text: list[float | None] = field(default_factory=list)

    @property
    def retained(self) -> list[float | None]:
        """Every passage at the end."""
        return self.looks[len(self.immediate)]


_TAKEN = TypeAdapter(Taken)


@dataclass(frozen=True)
class Routes:
    """A stream whose edits are kept separate: the passages' adapters (None: a rejected edit), and who answers a question."""

    router: Router
    adapters: tuple[Adapter | None, ...]


Learning = tuple[Row, Adapter | None]  # what happened to an edit, and its adapter where it was trained
# What happened to an edit, the stream's adapter after it, and where questions go if edits are kept separate.
Step = tuple[Row, Adapter | None, Routes | None]


class Stream:
    """``tasks`` taken in one way; ``key`` names it in the journal, and its first part decides the seeds."""

    def __init__(self, parts: Parts, context: StreamContext, tasks: Sequence[Task], arm: ArmSettings, key: str) -> None:
        self.parts, self.context, self.tasks, self.arm, self.key = parts, context, list(tasks), arm, key
        self.run, self.engine, self.examiner = parts.run, parts.inner.engine, parts.inner.examiner
        self.settings = parts.inner.settings
        self.learner = parts.learns_on(context.policy)
        self.name = key.replace("/", "-")
        self.directory = parts.run.directory / "streams" / self.name
        self._group = key.split("/")[0]
        self.lessons: list[Lesson] = []

    def take_in(self, every: int) -> Taken:
        """The whole stream, with a look at all passages so far after ``every`` edits and at the end."""
        row = self.run.once(f"{self.key}/taken", lambda: _TAKEN.dump_python(self._taken(every), mode="json"))
        taken = _TAKEN.validate_python(row)
        if taken.lessons:
            export(taken.lessons, self.run.directory / "lessons" / f"{self.name}.jsonl")
        shutil.rmtree(self.directory, ignore_errors=True)  # the journal has everything that is reported of it
        return taken

    def _taken(self, every: int) -> Taken:
        taken = Taken([], {}, [self._general("before", None)], [], [])
        stream: Adapter | None = None
        routes: Routes | None = None
        steps = self._summed() if self.arm.merge == "sum" else self._separately()
        for n, (decision, stream, routes) in enumerate(steps, start=1):
            look = n % every == 0 or n == len(self.tasks)
            found = self._accuracy(f"after/{n}", self.tasks[0 if look else n - 1 : n], stream, routes)
            taken.decisions.append(decision)
            taken.immediate.append(found[-1])
            if look:
                taken.looks[n] = found
            self.run.emit("progress", name=self.key, done=1)
        taken.general.append(self._general("after", stream, routes))
        taken.text.extend([self._text("before", None), self._text("after", stream)])
        taken.lessons.extend(self.lessons)
        return taken

    def _summed(self) -> Iterator[Step]:
        """Edit after edit learned by the model as the stream left it, and added to it."""
        arm, known = self.arm, list[Change]()
        stream: Adapter | None = None
        may_write = arm.writer == "stream" and self.engine is self.parts.writer.engine
        written = [] if may_write else self._written_before()
        for t, task in enumerate(self.tasks):
            (change,) = self._written(f"{self.key}/{t}", self._model(stream), [task]) if may_write else (written[t],)
            row, adapter = self._journaled(f"{t}/learn", str(t), partial(self._learn, t, change, stream, known))
            # Nothing of a rejected edit comes back in replay.
            known.append(change if adapter else Change(None))
            stream = self._sum(stream, adapter, row["scale"]) if adapter else stream
            if arm.consolidate:
                self._ask(t, row, stream)
            if _due(t, arm.consolidate):
                lessons = self._lessons_of(self.tasks[: t + 1])
                again = partial(self._learn_together, t, lessons, None, "consolidate", arm.steps)
                row["consolidated"], adapter = self._journaled(f"{t}/consolidate", f"consolidate-{t}", again)
                stream = adapter or stream
            if _due(t, arm.refresh):
                again = partial(self._learn_together, t, known, stream, "refresh", arm.refresh_steps)
                row["refreshed"], adapter = self._journaled(f"{t}/refresh", f"refresh-{t}", again)
                stream = self._sum(stream, adapter, 1.0) if adapter else stream
            yield row, stream, None

    def _journaled(self, chunk: str, name: str, attempt: Callable[[], Learning]) -> Learning:
        """The result of ``attempt``, once, its adapter on disk as ``name``; no adapter where it is not to be merged."""
        row = self.run.once(f"{self.key}/{chunk}", lambda: self._kept(name, *attempt()))
        return row, self._loaded(name, row)

    def _kept(self, name: str, row: Row, adapter: Adapter | None) -> Row:
        """What happened to an edit, its adapter on disk where it is to be merged."""
        if adapter is None or not row["scale"]:
            return row
        replace_directory(self.directory / name, adapter.save)
        return row | {"adapter_sha256": adapter.sha256}

    def _loaded(self, name: str, row: Row) -> Adapter | None:
        return self.engine.load_adapter(self.directory / name) if row["scale"] else None

    def _learn(self, t: int, change: Change, stream: Adapter | None, known: Sequence[Change]) -> Learning:
        """One edit learned on top of the stream so far, at the scale that the gate lets through."""
        update = self._mixed(self._update(change, self._seed(t)), known)
        ((row, adapter),) = self._learned([replace(change, what=update)], stream)
        if adapter and self.arm.gate:
            row |= self._gated(t, adapter, change, stream, known).row()
        return row, adapter

    def _learn_together(self, t: int, edits: Sequence[Change], stream: Adapter | None, what: str, steps: int) -> Learning:
        """One adapter trained on top of ``stream`` on many passages' edits or lessons at once, with ``steps`` for each passage
        (0: as many as one alone has).
        """
        kept = [edit.sequences for edit in edits if edit.sequences]
        update = self._update(Change(self._recipe.update(tuple(chain(*kept)))), sub_seed(self._seed(t), what))
        if steps or not self._recipe.epochs:  # epochs are counted over all sequences already
            update = replace(update, steps=(steps or update.steps) * len(kept))
        together = Change(self._mixed(update, []), "" if kept else f"there is nothing to {what}")
        return self._learned([together], stream)[0]

    def _learned(self, changes: Sequence[Change], stream: Adapter | None) -> list[Learning]:
        """Each change's row before the gate (`rows.EditRow`), and its adapter, trained on top of the stream so far."""
        found: list[Learning] = []
        for one, change in zip(learn(self.engine, changes, on=self._model(stream)), changes, strict=True):
            row = {"verdict": one.verdict, "reasons": [one.reason] if one.reason else [], "scale": 1.0}
            if one.adapter is None or change.update is None:
                found.append((row | {"scale": 0.0}, None))
            else:
                cost = {"steps": change.update.steps, "trained_tokens": one.trained_tokens}
                found.append((row | cost, one.adapter))
        return found

    def _separately(self) -> Iterator[Step]:
        """Every edit learned by itself, on top of the policy; then all so far as one adapter, or each for its own questions."""
        changes, size = self._written_before(), self.parts.inner.chunk_size
        rows: list[Row] = []
        for start in range(0, len(self.tasks), size):
            alone = partial(self._learn_alone, start, changes[start : start + size])
            rows += self.run.once(f"{self.key}/learn/{start}", alone)["decisions"]
        adapters: list[Adapter | None] = []
        for t, row in enumerate(rows):
            adapters.append(self._loaded(str(t), row))
            if self.arm.merge == "routed":
                yield row, None, Routes(Router(self.tasks[: t + 1], self.context.written), tuple(adapters))
            else:
                usable = [adapter for adapter in adapters if adapter]
                yield row, self.engine.combine(usable, [1 / len(usable)] * len(usable)) if usable else None, None

    def _learn_alone(self, start: int, changes: Sequence[Change]) -> Row:
        updates = [replace(c, what=self._update(c, self._seed(t))) for t, c in enumerate(changes, start=start)]
        rows = enumerate(self._learned(updates, None), start=start)
        return {"decisions": [self._kept(str(t), *row) for t, row in rows]}

    def _ask(self, t: int, row: Row, stream: Adapter | None) -> None:
        """Lessons of passage t: what the model that has just learned it answers to the policy's questions."""
        task, key = self.tasks[t], f"{self.key}/{t}/questions"
        questions = questions_for(self.parts, key, task, self.context.policy, SAMPLES) if row["scale"] else []
        source = (f"{task.id}#0", str(row.get("adapter_sha256")))

        def asked() -> Row:
            found = ask(self.parts, task, questions, self._model(stream), source, self._seed(t)) if questions else []
            return {"lessons": [vars(lesson) for lesson in found]}

        self.lessons += [Lesson(**lesson) for lesson in self.run.once(f"{self.key}/{t}/lessons", asked)["lessons"]]

    def _lessons_of(self, tasks: Sequence[Task]) -> list[Change]:
        """The lessons of each passage that has some, as an edit; without the passage."""
        edits = self.settings.edits.model_copy(update={"include_context": False})
        settings = self.settings.model_copy(update={"edits": edits})
        found = [(task, [lesson.line for lesson in self.lessons if lesson.task_id == task.id]) for task in tasks]
        return [text_change(settings, self.engine, task, ["\n".join(lines)]) for task, lines in found if lines]

    def _gated(self, t: int, adapter: Adapter, change: Change, stream: Adapter | None, known: Sequence[Change]) -> Decision:
        rng = random.Random(sub_seed(self._seed(t), "gate"))
        merged = [i for i, edit in enumerate(known) if edit.sequences]  # of the others there is nothing to lose
        chosen = rng.sample(merged, min(EARLIER, len(merged)))
        earlier = [(self.tasks[i], known[i]) for i in sorted(chosen)]
        meter = CostMeter(self.parts, self.context.anchors, change, earlier, self._model(stream))
        return decide(
            lambda scale: meter.cost(adapter, scale, self._model(self._sum(stream, adapter, scale))),
            self.settings.protocol.gate,
        )

    def _update(self, change: Change, seed: int) -> Update:
        """The inner loop's update for an edit, with what the arm has of its own."""
        update = change.update or self._recipe.update(())
        update = replace(update, seed=seed, lr=self.arm.lr or update.lr, steps=self.arm.steps or update.steps)
        if self.arm.rank:
            update = replace(update, rank=self.arm.rank, alpha=update.alpha * self.arm.rank / update.rank)
        return update

    def _mixed(self, update: Update, known: Sequence[Change]) -> Update:
        """With earlier edits' lines and the base's own texts, as the arm says."""
        lines = [sequence for change in known for sequence in change.sequences]
        rng = random.Random(sub_seed(update.seed, "mix"))
        return mixed(update, [(lines, self.arm.replay), (self.context.rehearsal, self.arm.rehearsal)], rng)

    @property
    def _recipe(self) -> Recipe:
        return self.settings.inner.recipe

    def _seed(self, t: int) -> int:
        return sub_seed(self.settings.seed, self._group, "inner", self.tasks[t].id)

    def _written_before(self) -> list[Change]:
        """Every passage's edit by the policy as it was before the stream: the same ones in all arms that have them so."""
        return self._written(f"{self._group}/by-{adapter_key(self.context.policy)}", self.context.policy, self.tasks)

    def _written(self, key: str, writer: Adapter | None, tasks: Sequence[Task]) -> list[Change]:
        if self.arm.learns == "passage":
            return [passage_change(self.settings, self.engine, task) for task in tasks]
        if self.arm.learns == "perfect":
            return [text_change(self.settings, self.engine, task, [task.gold_edit]) for task in tasks]
        edits = self.parts.writer.write(key, writer, tasks, 1)
        return [self.parts.inner.change(edit, task) for edit, task in zip(edits, tasks, strict=True)]

    def _sum(self, stream: Adapter | None, adapter: Adapter, scale: float) -> Adapter:
        if stream is None:
            return self.engine.combine([adapter], [scale])
        return self.engine.combine([stream, adapter], [1.0, scale])

    def _model(self, stream: Adapter | None) -> Adapter | None:
        """The model that learns: the policy, where it is the model that learns, and the stream so far."""
        if self.learner is None or stream is None:
            return stream or self.learner
        return self.engine.combine([self.learner, stream])

    def _general(self, when: str, stream: Adapter | None, routes: Routes | None = None) -> float | None:
        """Accuracy on the closed-book questions, None where there are none."""
        if not self.context.known:
            return None
        return self._accuracy(when, [Task("known", "", (), tuple(self.context.known))], stream, routes)[0]

    def _text(self, when: str, stream: Adapter | None) -> float | None:
        """How likely the validation text is; where edits are kept separate, none of them has to do with it."""
        name, on = self.settings.reward.validation_text, self._model(stream)
        if not name:
            return None
        row = self.run.once(f"{self.key}/text-{when}", lambda: {"logprob": text_logprob(self.engine, name, on)})
        found: float | None = row["logprob"]
        return found

    def _accuracy(self, when: str, tasks: Sequence[Task], stream: Adapter | None, routes: Routes | None) -> list[float | None]:
        """Each task's accuracy, asked without its passage."""

        def compute() -> Row:
            on = self._model(stream)
            answers = self._routed(tasks, routes, on) if routes else self.examiner.answers(tasks, on=on)
            accuracy = [self.examiner.graded(task, row) for task, row in zip(tasks, answers, strict=True)]
            return {"accuracy": accuracy, "answers": [[_answer_row(answer) for answer in row] for row in answers]}

        found: list[float | None] = self.run.once(f"{self.key}/{when}", compute)["accuracy"]
        return found

    def _routed(self, tasks: Sequence[Task], routes: Routes, on: Adapter | None) -> list[Answers]:
        """Every question asked of the model with the adapter that it is routed to, or of the policy's alone."""
        places: dict[tuple[int | None, int], list[int]] = {}  # (whose adapter, which task): numbers of its probes
        for i, task in enumerate(tasks):
            for j, probe in enumerate(task.probes):
                number = routes.router.route(probe.question)
                usable = number is not None and routes.adapters[number] is not None
                places.setdefault((number if usable else None, i), []).append(j)
        alone, routed = ([spot for spot in places if (spot[0] is None) == none] for none in (True, False))
        found: dict[tuple[int, int], Answer] = {}
        for spots in filter(None, [alone, *(routed[start : start + _BANK] for start in range(0, len(routed), _BANK))]):
            adapters = [a for number, _ in spots if number is not None and (a := routes.adapters[number])]
            bank = self.engine.apply(adapters, on=None) if adapters else None
            asked = [replace(tasks[i], probes=tuple(tasks[i].probes[j] for j in places[n, i])) for n, i in spots]
            for spot, row in zip(spots, self.examiner.answers(asked, on=on, members=bank), strict=True):
                found |= {(spot[1], j): answer for j, answer in zip(places[spot], row, strict=True)}
        return [tuple(found[i, j] for j in range(len(task.probes))) for i, task in enumerate(tasks)]


def _due(t: int, every: int) -> bool:
    """Whether something that comes after ``every`` passages (0: never) comes after passage ``t``."""
    return bool(every) and (t + 1) % every == 0


def _answer_row(answer: Answer) -> Row:
    """For the journal, which has no NaN: the sum of finite adapters can still overflow."""
    return {**vars(answer), "logprob": answer.logprob if math.isfinite(answer.logprob) else None}
