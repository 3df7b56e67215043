"""What a policy is tested by: one passage at a time (the ladder), many at once, or a stream of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ..config import MACHINE_FIELDS, ArmSettings, Settings, differing_fields, sub_seed
from ..config import Rung as RungName
from ..engine.base import Adapter
from ..errors import SettingsError
from ..guards.budget import anchor_sequences
from ..loop import Trained, reinforce
from ..stats import Interval, bootstrap_seeds, ratio_seeds
from ..tasks.source import TaskSource
from ..types import Task, TrainSequence
from ..work import Work
from .ladder import Ladder, Rung
from .stream import Around, Stream, Taken
from .together import RUNGS as TOGETHER_RUNGS
from .together import Together

_LOOKS = 10  # times that all passages so far of a long stream are asked


def check_policy(settings: Settings) -> str:
    """What is there under ``protocol.policy``, before anything else is done. Returns a caveat, or nothing.

    Raises:
        SettingsError: it is no finished run and no adapter, or the run was trained on tasks that would be tested here.
    """
    if not settings.protocol.policy:
        return ""
    directory = Path(settings.protocol.policy)
    if (directory / "adapter_config.json").exists():
        return ""
    try:
        trained = json.loads((directory / "summary.json").read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SettingsError(
            f"{directory}: neither a finished run nor an adapter; name one for protocol.policy"
        ) from None
    ours, theirs = settings.fields(), trained.get("tasks", {})
    if ours["tasks"]["source"] == theirs.get("source") != "world":
        held = ("evaluation", "dev", "passage_chars")
        if settings.tasks.split == "all" or any(ours["tasks"][name] != theirs.get(name) for name in held):
            raise SettingsError(
                f"{directory}: it was trained on other tasks of {settings.tasks.source}. To test on none of those take its "
                + ", ".join(f"tasks.{name} = {theirs.get(name)}" for name in held)
                + ", and split dev or test"
            )
    differing = [
        name
        for section in ("model", "edits")
        for name in differing_fields(ours[section], trained.get(section, {}), f"{section}.")
        if name.removeprefix("model.") not in MACHINE_FIELDS
    ]
    return f"{directory} was trained with other settings ({', '.join(differing)})" if differing else ""


def trained_policies(work: Work, source: TaskSource) -> Trained:
    """The policies to test: of the run or the adapter that the settings name, or trained here, by the settings' rounds.

    Raises:
        SettingsError: the named run has another base, never changed its policy, or is not as it was when this began.
    """
    named = work.settings.protocol.policy
    if not named:
        return reinforce(work, source) if work.settings.rounds else Trained([None], [])
    directory, run = Path(named), work.run
    if caveat := check_policy(work.settings):
        run.emit("warning", text=caveat)
    policies: list[Adapter | None] = [None]
    if (directory / "adapter_config.json").exists():
        policies.append(work.engine.load_adapter(directory))
    else:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        if summary.get("base_sha256_before") != work.engine.base_sha256():
            raise SettingsError(f"{directory}: its policies are of another base than {work.settings.model.path}")
        rounds = [directory / "policy" / f"round-{n}" for n in range(1, len(summary["rounds"]))]
        policies += [work.engine.load_adapter(path) if path.exists() else None for path in rounds]
    hashes = [policy and policy.sha256 for policy in policies]
    if not any(hashes):
        raise SettingsError(
            f"{directory}: no round of this run has changed its policy; name another run, or an adapter"
        )
    if run.once("policies", lambda: {"sha256": hashes})["sha256"] != hashes:
        raise SettingsError(f"{directory}: its policies are not those that this evaluation started with")
    return Trained(policies, [])


Protocol = Callable[[Work, Trained, list[Task], TaskSource], tuple[dict[str, Rung], dict[str, Any]]]


def single(
    work: Work, trained: Trained, tasks: list[Task], source: TaskSource
) -> tuple[dict[str, Rung], dict[str, Any]]:
    """One passage, one edit, revert: the ladder."""
    return Ladder(work, trained, tasks, source.dev()).climb(), {}


def cpt(work: Work, trained: Trained, tasks: list[Task], source: TaskSource) -> tuple[dict[str, Rung], dict[str, Any]]:
    """All passages of a group in one adapter."""
    return Together(work, trained, tasks, source.dev()).climb(TOGETHER_RUNGS), {}


def streams(
    work: Work, trained: Trained, tasks: list[Task], source: TaskSource
) -> tuple[dict[str, Rung], dict[str, Any]]:
    """Passages one after another, in each of the settings' ways; beside them the same passages by themselves."""
    protocol = work.settings.protocol
    groups = _groups(work, tasks)
    last: RungName = "rounds" if len(trained.policies) > 1 else "base_edits"
    rungs = Ladder(work, trained, [task for group in groups for task in group], source.dev()).climb(
        ("no_edit", last, "in_context")
    )
    every = 1 if protocol.name == "continual" else max(1, protocol.passages // _LOOKS)
    arms: dict[str, list[Taken]] = {}
    for name, arm in protocol.arms.items():
        own = groups[: arm.groups or None]
        total = sum(map(len, own)) * (2 if arm.learns == "edits" else 1)  # written, and learned
        work.run.emit("stage", name="stream-", text=f"A stream of passages: {name}", total=total)
        around = _around(work, None if arm.untrained else trained.policies[-1], source, arm)
        arms[name] = [
            Stream(work, around, group, arm, f"stream-{g}/{name}").take_in(every) for g, group in enumerate(own)
        ]
    found, first = {}, next(iter(arms))
    for name, taken in arms.items():
        ids = {task.id for group in groups[: len(taken)] for task in group}
        beside = {key: _accuracy(rungs, rung, ids) for key, rung in _beside(rungs).items()}
        arm = protocol.arms[name]
        if arm.learns != "edits" or (arm.untrained and last == "rounds"):
            del beside["single"]  # another model's, or of other edits
        found[name] = {**arm_row(taken, arm), **beside}
        if name != first:
            found[name]["against"] = {"arm": first, **(_against(taken, arms[first]) or {})}
    return rungs, {"arms": found, **{key: _accuracy(rungs, rung) for key, rung in _beside(rungs).items()}}


def _groups(work: Work, tasks: Sequence[Task]) -> list[list[Task]]:
    """Groups of as many passages each; what is left over is told about, and left out."""
    size = work.settings.protocol.passages
    whole = len(tasks) // size
    if not whole:
        raise SettingsError(
            f"{len(tasks)} passages can be tested, but a group has protocol.passages = {size}; lower that"
        )
    if len(tasks) < work.settings.protocol.n_tasks:
        work.run.emit(
            "warning",
            text=f"{whole} group(s) of {size} passages, not {work.settings.protocol.groups}: there are no more",
        )
    return [list(tasks[g * size : (g + 1) * size]) for g in range(whole)]


def _beside(rungs: dict[str, Rung]) -> dict[str, str]:
    """What a stream is held against, and its rungs: ``single`` is each passage's edit learned alone, by the last policy."""
    names = {"no_update": "no_edit", "in_context": "in_context"}
    return names | {"single": next((name for name in reversed(rungs) if name not in names.values()), "")}


PROTOCOLS: Mapping[str, Protocol] = {"single": single, "cpt": cpt, "continual": streams, "stream": streams}


def _accuracy(rungs: Mapping[str, Rung], name: str, ids: Collection[str] | None = None) -> float | None:
    """A rung's accuracy, on some of its tasks only where ``ids`` names them; None where there is none."""
    rung = rungs.get(name)
    if rung is None:
        return None
    values = [a for task, a in zip(rung.tasks, rung.accuracy, strict=True) if ids is None or task.id in ids]
    return fmean(values) if values else None


def _against(ours: Sequence[Taken], theirs: Sequence[Taken]) -> dict[str, float] | None:
    """Accuracy at the end of the stream less the other way's, on the passages of the groups that both took in."""
    pairs = [
        [x - y for x, y in zip(a.retained, b.retained, strict=True) if x is not None and y is not None]
        for a, b in zip(ours, theirs, strict=False)
    ]
    return _interval(bootstrap_seeds(pairs)) if all(pairs) else None


def _around(work: Work, policy: Adapter | None, source: TaskSource, arm: ArmSettings) -> Around:
    engine, how = work.rewarder.engine, work.settings.protocol
    anchors = anchor_sequences(engine, [task.text for task in source.dev()[: how.gate.anchors]])
    texts = base_texts(work, how.own_texts) if arm.rehearsal or arm.merge == "routed" else []
    rehearsal = [replace(TrainSequence.whole(text.ids), distilled=arm.distill) for text in texts]
    return Around(policy, source.known(how.general), anchors, rehearsal, [text.text for text in texts])


@dataclass(frozen=True)
class _Text:
    ids: tuple[int, ...]
    text: str


def base_texts(work: Work, n: int) -> list[_Text]:
    """``n`` texts that the bare base of the learner writes by itself, where a document begins; fewer, if some are empty."""
    engine, edits = work.rewarder.engine, work.settings.edits

    def compute() -> dict[str, Any]:
        engine.mount(None)
        seeds = [sub_seed(work.settings.seed, "rehearsal", i) for i in range(n)]
        start = engine.encode_prompt("") or [engine.eos_id]
        written = engine.sample([start] * n, seeds, max_new_tokens=edits.max_new_tokens, temperature=1.0, top_p=1.0)
        return {"texts": [[[*text.prompt_ids, *text.token_ids], text.text] for text in written]}

    texts = [_Text(tuple(ids), text) for ids, text in work.run.once("rehearsal/texts", compute)["texts"]]
    return [text for text in texts if len(text.ids) > 1]


def arm_row(taken: Sequence[Taken], arm: ArmSettings) -> dict[str, Any]:
    """One arm's figures over its groups (``seeds``); passages that could not be graded are left out, and counted.

    ``retained_share``: retained over immediate. ``backward_transfer``: retained less immediate, without each group's last
    passage, which nothing came after. Intervals are over groups and passages (of one group: over its passages, so they say
    nothing of other streams). ``optimiser_steps`` and ``trained_tokens``: a passage's, with its share of what is learned again.
    """
    immediate, retained = [_known(t.immediate) for t in taken], [_known(t.retained) for t in taken]
    steps = [step for t in taken for step in t.decisions]
    fits = [*steps, *(step[again] for again in ("consolidated", "refreshed") for step in steps if again in step)]
    verdicts = [str(step["verdict"]) for step in steps]
    pairs = [
        [(a, b) for a, b in zip(t.immediate, t.retained, strict=True) if a is not None and b is not None] for t in taken
    ]
    share = ratio_seeds([[b for _, b in p] for p in pairs], [[a for a, _ in p] for p in pairs]) if all(pairs) else None
    lost = [
        [b - a for a, b in zip(t.immediate[:-1], t.retained[:-1], strict=True) if a is not None and b is not None]
        for t in taken
    ]
    figures = {"immediate": immediate, "retained": retained}
    return {
        "merge": arm.merge,
        **{name: _mean(rows) for name, rows in figures.items()},
        "retained_share": share and _interval(share),
        "backward_transfer": _interval(bootstrap_seeds(lost)) if all(lost) else None,
        "general_before": _mean([_known(t.general[:1]) for t in taken]),
        "general_after": _mean([_known(t.general[1:]) for t in taken]),
        "intervals": {name: _interval(bootstrap_seeds(rows)) if all(rows) else None for name, rows in figures.items()},
        "seeds": len(taken),
        "ungraded": sum(value is None for t in taken for value in t.retained),
        "optimiser_steps": sum(fit.get("steps", 0) for fit in fits) / len(steps),
        "trained_tokens": sum(fit.get("trained_tokens", 0) for fit in fits) / len(steps),
        "lessons": sum(len(t.lessons) for t in taken),
        "decisions": {
            verdict: verdicts.count(verdict) for verdict in ("accepted", "scaled", "rejected", "invalid", "diverged")
        },
        "matrix": _matrix(taken),
        "steps": steps,
    }


def _matrix(taken: Sequence[Taken]) -> dict[str, list[float | None]]:
    """By the number of edits so far, the mean accuracy on each passage so far, over the groups."""
    return {str(n): [_over([t.looks[n][i] for t in taken]) for i in range(n)] for n in sorted(taken[0].looks)}


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _over(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return fmean(known) if known else None


def _mean(rows: Sequence[Sequence[float]]) -> float | None:
    means = [fmean(row) for row in rows if row]
    return fmean(means) if means else None


def _interval(found: Interval) -> dict[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high}
