"""What a policy is tested by: one passage at a time (the ladder), many at once, or a stream of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from ..config import MACHINE_FIELDS, ArmSettings, Settings, differing_fields, sub_seed
from ..errors import RunError, SettingsError
from ..guards.base import anchor_sequences
from ..loop import Trained, counted, train
from ..parts import Parts
from ..rewards.terms.perplexity import read_validation_text
from ..stats import as_row, bootstrap_seeds, ratio_seeds
from ..summary import read_run
from ..tasks.sources.base import TaskSource
from ..types import Adapter, Task, TrainSequence
from .ladder import Ladder
from .rungs.base import Result
from .stream import Stream, StreamContext, Taken
from .together import Together

_VERDICTS = ("accepted", "scaled", "rejected", "invalid", "diverged")
_LOOKS = 10  # times that all passages so far of a long stream are asked


def check_policy(settings: Settings) -> str:
    """What is there under ``protocol.policy``, before anything else is done. Returns a caveat, or nothing.

    Raises:
        SettingsError: it is no finished run and no adapter, or the run was trained on tasks that would be tested here; or
            ``reward.validation_text`` can't be read.
    """
    if settings.reward.validation_text:
        read_validation_text(settings.reward.validation_text)
    if not settings.protocol.policy:
        return ""
    directory = Path(settings.protocol.policy)
    if (directory / "adapter_config.json").exists():
        return ""
    try:
        trained = read_run(directory).settings
    except RunError as error:
        raise SettingsError(
            f"{directory}: neither a finished run nor an adapter; name one for protocol.policy ({error})"
        ) from None
    ours, theirs = settings.fields(), {"split_by": "passage"} | trained.get("tasks", {})
    if ours["tasks"]["source"] == theirs.get("source") != "world":
        held = ("evaluation", "dev", "passage_chars", "split_by")
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


def trained_policies(parts: Parts, source: TaskSource) -> Trained:
    """The policies to test: of the run or the adapter that the settings name, or trained here, by the settings' rounds.

    Raises:
        SettingsError: the named run has another base, never changed its policy, or is not as it was when this began.
    """
    named = parts.settings.protocol.policy
    if not named:
        return train(parts, source) if parts.settings.rounds else Trained([None], [])
    directory, run = Path(named), parts.run
    policies: list[Adapter | None] = [None]
    if (directory / "adapter_config.json").exists():
        policies.append(parts.writer.engine.load_adapter(directory))
    else:
        summary = read_run(directory)
        if summary.base_sha256_before != parts.writer.engine.base_sha256():
            raise SettingsError(f"{directory}: its policies are of another base than {parts.settings.model.path}")
        rounds = [directory / "policy" / f"round-{n}" for n in range(1, len(summary.rounds))]
        policies += [parts.writer.engine.load_adapter(path) if path.exists() else None for path in rounds]
    hashes = [policy and policy.sha256 for policy in policies]
    if not any(hashes):
        raise SettingsError(f"{directory}: no round of this run has changed its policy; name another run, or an adapter")
    if run.once("policies", lambda: {"sha256": hashes})["sha256"] != hashes:
        raise SettingsError(f"{directory}: its policies are not those that this evaluation started with")
    return Trained(policies, [])


def tested(parts: Parts, trained: Trained, tasks: list[Task], source: TaskSource) -> tuple[dict[str, Result], dict[str, Any]]:
    """The results of the settings' protocol: the rungs, and what a stream adds to the summary.

    ``single``: one passage, one edit, revert. ``cpt``: all passages of a group in one adapter. Else: passages one after another.
    """
    name = parts.settings.protocol.name
    if name in ("continual", "stream"):
        return _streams(parts, trained, tasks, source)
    return (Together if name == "cpt" else Ladder)(parts, trained, tasks, source.dev()).climb(), {}


def _streams(parts: Parts, trained: Trained, tasks: list[Task], source: TaskSource) -> tuple[dict[str, Result], dict[str, Any]]:
    """Passages one after another, in each of the settings' ways; beside them the same passages by themselves."""
    protocol = parts.settings.protocol
    groups = groups_of(parts, tasks)
    last = "rounds" if len(trained.policies) > 1 else "base_edits"
    all_tasks = list(chain(*groups))
    rungs = Ladder(parts, trained, all_tasks, source.dev()).climb(("no_edit", last, "in_context"))
    every = 1 if protocol.name == "continual" else max(1, protocol.passages // _LOOKS)
    arms: dict[str, list[Taken]] = {}
    for name, arm in protocol.arms.items():
        own = groups[: arm.groups or None]
        total = sum(map(len, own)) * (2 if arm.learns == "edits" else 1)  # written, and learned
        text = f"Learning a stream of passages, one after another ({name})"
        parts.run.emit("stage", name="stream-", text=text, total=total)
        context = context_of(parts, None if arm.untrained else trained.policies[-1], source, arm)
        arms[name] = [Stream(parts, context, group, arm, f"stream-{g}/{name}").take_in(every) for g, group in enumerate(own)]
    # What a stream is compared with; ``single`` is each passage's edit learned alone, by the last policy.
    alone = next((name for name in reversed(rungs) if name not in ("no_edit", "in_context")), "")
    compared = {"no_update": "no_edit", "in_context": "in_context", "single": alone}

    def beside(tasks: Sequence[Task]) -> dict[str, float | None]:
        return {key: accuracy_of(rungs.get(rung), tasks) for key, rung in compared.items()}

    found, first = {}, next(iter(arms))
    for name, taken in arms.items():
        arm = protocol.arms[name]
        found[name] = {**arm_row(taken, arm), **beside(list(chain(*groups[: len(taken)])))}
        if arm.learns != "edits" or (arm.untrained and last == "rounds"):
            del found[name]["single"]  # another model's, or of other edits
        if name != first:
            found[name]["against"] = {"arm": first, **(_against(taken, arms[first]) or {})}
    return rungs, {"arms": found, **beside(all_tasks)}


def groups_of(parts: Parts, tasks: Sequence[Task]) -> list[list[Task]]:
    """Groups of as many passages each; the passages that are left over are not used, with a warning.

    Raises:
        SettingsError: there are too few for one group.
    """
    size = parts.settings.protocol.passages
    whole = len(tasks) // size
    if not whole:
        raise SettingsError(
            f"lower protocol.passages: a group has {size}, and only {counted(len(tasks), 'passage')} can be tested"
        )
    if len(tasks) < parts.settings.protocol.n_tasks:
        groups = f"{counted(whole, 'group')} of {counted(size, 'passage')}"
        text = f"this run has {groups}, not {parts.settings.protocol.groups}: there are no more passages to test on"
        parts.run.emit("warning", text=text)
    return [list(tasks[g * size : (g + 1) * size]) for g in range(whole)]


def accuracy_of(rung: Result | None, tasks: Sequence[Task]) -> float | None:
    """A rung's mean accuracy on those of the tasks that it could grade; None where there are none, or no rung."""
    by_task = rung.by_task if rung else {}
    return _mean([by_task[task.id] for task in tasks if task.id in by_task])


def context_of(parts: Parts, policy: Adapter | None, source: TaskSource, arm: ArmSettings) -> StreamContext:
    """What a stream in this way has besides its passages."""
    engine, how = parts.inner.engine, parts.settings.protocol
    anchors = anchor_sequences(engine, [task.text for task in source.dev()[: parts.settings.guards.anchors]])
    texts = base_texts(parts, how.own_texts) if arm.rehearsal or arm.merge == "routed" else []
    rehearsal = [replace(TrainSequence.whole(ids), distilled=arm.distill) for ids, _ in texts]
    return StreamContext(policy, source.known(how.general), anchors, rehearsal, [text for _, text in texts])


def base_texts(parts: Parts, n: int) -> list[tuple[list[int], str]]:
    """``n`` texts that the bare base of the learner writes by itself, where a document begins, with their token ids; fewer, if
    some are empty.
    """
    engine, edits = parts.inner.engine, parts.settings.edits

    def compute() -> dict[str, Any]:
        seeds = [sub_seed(parts.settings.seed, "rehearsal", i) for i in range(n)]
        start = engine.encode_prompt("") or [engine.eos_id]
        written = engine.sample([start] * n, seeds, on=None, max_new_tokens=edits.max_new_tokens, temperature=1.0, top_p=1.0)
        return {"texts": [[[*text.prompt_ids, *text.token_ids], text.text] for text in written]}

    return [(ids, text) for ids, text in parts.run.once("rehearsal/texts", compute)["texts"] if len(ids) > 1]


def arm_row(taken: Sequence[Taken], arm: ArmSettings) -> dict[str, Any]:
    """One arm's figures over its groups (``seeds``), as `rows.ArmRow` describes them; passages that could not be graded are left
    out, and counted.

    Intervals are over groups and passages (of one group: over its passages, so they say nothing of other streams).
    """
    figures = {"immediate": [_known(t.immediate) for t in taken], "retained": [_known(t.retained) for t in taken]}
    steps = [step for t in taken for step in t.decisions]
    fits = [*steps, *(step[again] for again in ("consolidated", "refreshed") for step in steps if again in step)]
    verdicts = [str(step["verdict"]) for step in steps]
    pairs = [_graded_twice(t.immediate, t.retained) for t in taken]
    share = ratio_seeds([[b for _, b in p] for p in pairs], [[a for a, _ in p] for p in pairs]) if all(pairs) else None
    lost = [[b - a for a, b in _graded_twice(t.immediate[:-1], t.retained[:-1])] for t in taken]
    last = taken[0].looks
    return {
        "merge": arm.merge,
        **{name: _mean_of_means(rows) for name, rows in figures.items()},
        "retained_share": share and as_row(share),
        "backward_transfer": _interval(lost),
        "general_before": _mean_of_means([_known(t.general[:1]) for t in taken]),
        "general_after": _mean_of_means([_known(t.general[1:]) for t in taken]),
        "text_logprob_before": _mean(_known([t.text[0] for t in taken if t.text])),
        "text_logprob_after": _mean(_known([t.text[-1] for t in taken if t.text])),
        "intervals": {name: _interval(rows) for name, rows in figures.items()},
        "seeds": len(taken),
        "ungraded": sum(value is None for t in taken for value in t.retained),
        "optimiser_steps": sum(fit.get("steps", 0) for fit in fits) / len(steps),
        "trained_tokens": sum(fit.get("trained_tokens", 0) for fit in fits) / len(steps),
        "lessons": sum(len(t.lessons) for t in taken),
        "decisions": {name: verdicts.count(name) for name in _VERDICTS},
        # By the number of edits so far, the mean accuracy on each passage so far, over the groups.
        "matrix": {str(n): [_mean(_known([t.looks[n][i] for t in taken])) for i in range(n)] for n in sorted(last)},
        "steps": steps,
    }


def _against(ours: Sequence[Taken], theirs: Sequence[Taken]) -> dict[str, Any] | None:
    """Accuracy at the end of the stream less the other way's, on the passages of the groups that both took in."""
    pairs = [_graded_twice(a.retained, b.retained) for a, b in zip(ours, theirs, strict=False)]
    return _interval([[a - b for a, b in row] for row in pairs])


def _graded_twice(a: Sequence[float | None], b: Sequence[float | None]) -> list[tuple[float, float]]:
    """The pairs of values of which both are known."""
    return [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _mean_of_means(rows: Sequence[Sequence[float]]) -> float | None:
    return _mean([fmean(row) for row in rows if row])


def _interval(rows: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """The mean over groups and passages with its interval; None where a group has no value."""
    return as_row(bootstrap_seeds(rows)) if all(rows) else None
