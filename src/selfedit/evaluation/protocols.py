"""What a policy is tested by: one passage at a time (the ladder), many at once, or a stream of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..config import ArmSettings, sub_seed
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


def trained_policies(work: Work, source: TaskSource) -> Trained:
    """The policies to test: of the run or the adapter that the settings name, or trained here, by the settings' rounds."""
    named = work.settings.protocol.policy
    if not named:
        return reinforce(work, source) if work.settings.rounds else Trained([None], [])
    directory = Path(named)
    adapters = [directory]
    if (directory / "policy").is_dir():
        numbers = sorted(int(p.name[6:]) for p in (directory / "policy").glob("round-*") if p.name[6:].isdigit())
        adapters = [directory / "policy" / f"round-{n}" for n in numbers]
    if not adapters:
        raise SettingsError(
            f"{directory}: no round of this run has changed its policy; name another run, or an adapter"
        )
    policies: list[Adapter | None] = [work.engine.load_adapter(path) for path in adapters]
    hashes = work.run.once("policies", lambda: {"sha256": [policy.sha256 for policy in policies if policy]})["sha256"]
    if hashes != [policy.sha256 for policy in policies if policy]:
        raise SettingsError(f"{directory}: its policies are not those that this evaluation started with")
    return Trained([None, *policies], [])


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
    last: RungName = "rounds" if len(trained.policies) > 1 else "base_edits"
    rungs = Ladder(work, trained, tasks, source.dev()).climb(("no_edit", last, "in_context"))
    every = 1 if protocol.name == "continual" else max(1, protocol.passages // _LOOKS)
    arms: dict[str, list[Taken]] = {}
    for name, arm in protocol.arms.items():
        n = min(arm.groups or protocol.groups, protocol.groups)
        groups = [tasks[g * protocol.passages : (g + 1) * protocol.passages] for g in range(n)]
        work.run.emit("stage", name=f"stream-{name}", text=f"A stream of passages: {name}", total=sum(map(len, groups)))
        around = _around(work, None if arm.untrained else trained.policies[-1], source, arm)
        arms[name] = [
            Stream(work, around, group, arm, f"stream-{g}/{name}").take_in(every) for g, group in enumerate(groups)
        ]
    found = {name: arm_row(taken, protocol.arms[name]) for name, taken in arms.items()}
    return rungs, {
        "arms": found,
        **{key: _accuracy(rungs, rung) for key, rung in _BESIDE.items()},
        "single": _last(rungs),
    }


_BESIDE = {"no_update": "no_edit", "in_context": "in_context"}
PROTOCOLS: Mapping[str, Protocol] = {"single": single, "cpt": cpt, "continual": streams, "stream": streams}


def _accuracy(rungs: Mapping[str, Rung], name: str) -> float | None:
    rung = rungs.get(name)
    return fmean(rung.accuracy) if rung and rung.accuracy else None


def _last(rungs: Mapping[str, Rung]) -> float | None:
    """Accuracy with each passage's edit learned alone, by the policy that the streams have."""
    names = [name for name in rungs if name not in _BESIDE.values()]
    return _accuracy(rungs, names[-1]) if names else None


def _around(work: Work, policy: Adapter | None, source: TaskSource, arm: ArmSettings) -> Around:
    engine, how = work.rewarder.engine, work.settings.protocol
    anchors = anchor_sequences(engine, [task.text for task in source.dev()[: how.gate.anchors]])
    texts = base_texts(work, how.own_texts) if arm.rehearsal or arm.merge == "routed" else []
    rehearsal = [TrainSequence(text.ids, (False, *[True] * (len(text.ids) - 1))) for text in texts]
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
    """One arm's figures over its groups; passages that could not be graded are left out. Intervals: over groups and passages."""
    immediate, retained = [_known(t.immediate) for t in taken], [_known(t.retained) for t in taken]
    decisions = [decision for t in taken for decision in t.decisions]
    verdicts = [str(decision["verdict"]) for decision in decisions]
    pairs = [
        [(a, b) for a, b in zip(t.immediate, t.retained, strict=True) if a is not None and b is not None] for t in taken
    ]
    share = ratio_seeds([[b for _, b in p] for p in pairs], [[a for a, _ in p] for p in pairs]) if all(pairs) else None
    lost = bootstrap_seeds([[b - a for a, b in p] for p in pairs]) if all(pairs) else None
    return {
        "merge": arm.merge,
        "immediate": _mean(immediate),
        "retained": _mean(retained),
        "retained_share": share and _interval(share),
        "backward_transfer": lost and _interval(lost),
        "general_before": _mean([_known(t.general[:1]) for t in taken]),
        "general_after": _mean([_known(t.general[1:]) for t in taken]),
        "intervals": {
            name: _interval(bootstrap_seeds(rows)) if all(rows) else None
            for name, rows in (("immediate", immediate), ("retained", retained))
        },
        "seeds": len(taken),
        "decisions": {
            verdict: verdicts.count(verdict) for verdict in ("accepted", "scaled", "rejected", "invalid", "diverged")
        },
        "matrix": _matrix(taken),
        "steps": decisions,
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
