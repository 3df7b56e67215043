"""The inner loop: what a change comes to, each by itself, and nothing of it stays; journaled, it parses an edit once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from selfedit.config import Settings, make_settings
from selfedit.edits.text import Text, text_change
from selfedit.engine.torch_engine import TorchEngine
from selfedit.evaluation.machine import load_engine
from selfedit.inner import InnerLoop, Trial, try_changes
from selfedit.rewards.examiner import Examiner, Worth
from selfedit.run import open_run
from selfedit.tasks.sources.base import open_source
from selfedit.types import Change, Completion, Edit, Outcome, Task, Update


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def settings(fields: dict[str, Any]) -> Settings:
    inner = fields["inner"] | {"lr": 0.05}  # enough to change a random model's answers
    return make_settings(fields | {"inner": inner, "reward": {"metric": "token_f1", "max_answer_tokens": 8}})


@pytest.fixture(scope="module")
def engine(settings: Settings) -> TorchEngine:
    found = load_engine(settings)
    assert isinstance(found, TorchEngine)
    return found


@pytest.fixture(scope="module")
def examiner(engine: TorchEngine, settings: Settings) -> Examiner:
    return Examiner(engine, settings)


@pytest.fixture(scope="module")
def tasks(settings: Settings) -> list[Task]:
    return open_source(settings).evaluation()


@pytest.fixture(scope="module")
def trials(engine: TorchEngine, settings: Settings, tasks: list[Task]) -> list[Trial]:
    """Usable updates of three lengths, the last of other modules; one that diverges; one that is invalid."""
    changes = [text_change(settings, engine, task, [task.gold_edit]) for task in tasks]
    first = changes[0].update
    assert first is not None
    broken = replace(first, lr=1e30)
    elsewhere = replace(first, targets="down_proj")
    made = [*changes, Change(broken), Change(None, "it says nothing"), Change(elsewhere)]
    of = [*tasks, tasks[0], tasks[0], tasks[0]]
    return [Trial(f"{i}", task, change, 100 + i) for i, (task, change) in enumerate(zip(of, made, strict=True))]


@pytest.fixture(scope="module")
def before(examiner: Examiner, trials: list[Trial]) -> list[Worth]:
    return examiner.before([trial.task for trial in trials], on=None)


@pytest.fixture(scope="module")
def together(engine: TorchEngine, examiner: Examiner, trials: list[Trial], before: list[Worth]) -> list[Outcome]:
    return try_changes(engine, examiner, trials, before, on=None)


DIVERGED, INVALID, ELSEWHERE = -3, -2, -1


def test_a_change_of_weights_is_tried_and_its_outcome_says_what_it_gained(
    together: list[Outcome], trials: list[Trial], before: list[Worth]
) -> None:
    for outcome, trial, worth in zip(together, trials, before, strict=True):
        assert (outcome.edit_id, outcome.seed) == (trial.edit_id, trial.seed)
        if outcome.status == "ok":
            assert outcome.reward is not None
            assert outcome.gain == outcome.reward - (worth.reward or 0.0)
            assert [answer.question for answer in outcome.answers] == [probe.question for probe in trial.task.probes]
            assert outcome.trained_tokens > 0
    assert [outcome.status for outcome in together] == ["ok"] * 3 + ["diverged", "invalid", "ok"]
    changed = [outcome for outcome in together if outcome.status == "ok" and outcome.logprob]
    assert len({outcome.adapter_sha256 for outcome in changed}) == 4


def test_an_invalid_change_keeps_its_reason_and_is_no_zero(together: list[Outcome]) -> None:
    found = together[INVALID]
    assert (found.reason, found.answers, found.trained_tokens) == ("it says nothing", (), 0)
    assert (found.reward, found.gain, found.logprob, found.adapter_sha256) == (None, None, None, "")


def test_a_member_that_diverged_is_asked_nothing_and_is_no_zero(together: list[Outcome]) -> None:
    found = together[DIVERGED]
    assert "not finite" in found.reason
    assert (found.reward, found.gain, found.answers) == (None, None, ())
    assert found.trained_tokens > 0


def test_what_the_engine_cannot_train_on_is_invalid_with_its_reason(
    engine: TorchEngine, examiner: Examiner, trials: list[Trial], before: list[Worth]
) -> None:
    assert isinstance(trials[0].change.what, Update)
    large = replace(trials[0], change=Change(replace(trials[0].change.what, rank=10**6)))
    found = try_changes(engine, examiner, [large, trials[1]], before[:2], on=None)
    assert [outcome.status for outcome in found] == ["invalid", "ok"]
    assert "rank" in found[0].reason


def test_a_change_that_is_a_ready_adapter_is_taken_as_it_is(
    engine: TorchEngine, examiner: Examiner, trials: list[Trial], before: list[Worth]
) -> None:
    update = trials[0].change.seeded(trials[0].seed)
    assert isinstance(update, Update)
    (trained,) = try_changes(engine, examiner, trials[:1], before[:1], on=None)
    ready = replace(trials[0], change=Change(engine.apply([update], on=None).adapter(0)))
    (found,) = try_changes(engine, examiner, [ready], before[:1], on=None)
    assert found == replace(trained, trained_tokens=0)
    beside_another = try_changes(engine, examiner, [trials[1], ready], [before[1], before[0]], on=None)
    assert [outcome.status for outcome in beside_another] == ["ok", "ok"]
    assert beside_another[1].adapter_sha256 == found.adapter_sha256


def test_one_at_a_time_comes_to_the_same_as_all_at_once(
    engine: TorchEngine, examiner: Examiner, trials: list[Trial], before: list[Worth]
) -> None:
    """Where one member trains at a time its weights are the same bit for bit; beside others they are within rounding."""
    gentle = [
        replace(trial, change=Change(replace(trial.change.update, lr=1e-3)))
        for trial in trials
        if trial.change.update and trial.change.update.lr < 1
    ]
    worths = {trial.edit_id: worth for trial, worth in zip(trials, before, strict=True)}

    def tried(some: Sequence[Trial]) -> list[Outcome]:
        return try_changes(engine, examiner, some, [worths[trial.edit_id] for trial in some], on=None)

    together = tried(gentle)
    alone = [tried([trial])[0] for trial in gentle]
    engine.limit_members(1)
    try:
        one_by_one = tried(gentle)
    finally:
        engine.limit_members(4)
    assert [found.adapter_sha256 for found in one_by_one] == [found.adapter_sha256 for found in alone]
    for some in (together, one_by_one):
        for found, expected in zip(some, alone, strict=True):
            assert [answer.text for answer in found.answers] == [answer.text for answer in expected.answers]
            assert [a.logprob for a in found.answers] == pytest.approx([a.logprob for a in expected.answers], abs=1e-4)
            assert found.trained_tokens == expected.trained_tokens


def test_the_same_trials_come_to_the_same_bit_for_bit_and_a_broken_neighbour_changes_no_bit(
    engine: TorchEngine, examiner: Examiner, trials: list[Trial], before: list[Worth], together: list[Outcome]
) -> None:
    assert try_changes(engine, examiner, trials, before, on=None) == together
    healthy = [*trials]
    healthy[DIVERGED] = replace(trials[DIVERGED], change=trials[0].change)
    found = try_changes(engine, examiner, healthy, before, on=None)
    assert found[DIVERGED].status == "ok"
    others = [i for i in range(len(trials)) if i != len(trials) + DIVERGED]
    assert [found[i].adapter_sha256 for i in others] == [together[i].adapter_sha256 for i in others]


def test_nothing_of_a_change_stays(
    engine: TorchEngine, examiner: Examiner, trials: list[Trial], before: list[Worth], tasks: list[Task]
) -> None:
    sha256, answers = engine.base_sha256(), examiner.answers(tasks, on=None)
    try_changes(engine, examiner, trials, before, on=None)
    assert engine.base_sha256() == sha256
    assert examiner.answers(tasks, on=None) == answers


def test_a_change_is_learned_on_top_of_the_adapter_that_is_named(
    engine: TorchEngine, examiner: Examiner, trials: list[Trial], together: list[Outcome]
) -> None:
    update = trials[1].change.seeded(5)
    assert isinstance(update, Update)
    policy = engine.apply([update], on=None).adapter(0)
    worth = examiner.before([trials[0].task], on=policy)
    (found,) = try_changes(engine, examiner, trials[:1], worth, on=policy)
    assert found.status == "ok"
    assert found.adapter_sha256 != together[0].adapter_sha256
    assert found.gain == (found.reward or 0.0) - (worth[0].reward or 0.0)


def test_a_task_that_could_not_be_graded_without_the_edit_is_ungraded_with_it(
    engine: TorchEngine, examiner: Examiner, trials: list[Trial]
) -> None:
    (found,) = try_changes(engine, examiner, trials[:1], [Worth(None, -1.0, problem="no judge")], on=None)
    assert (found.status, found.reason) == ("ungraded", "without the edit: no judge")
    assert found.reward is None


# In a run


def written(tasks: Sequence[Task], texts: Sequence[str]) -> list[Edit]:
    return [
        Edit(task.id, i, "implications", "", Completion((), (), (), text, True), 1.0, 1.0, 0, "base")
        for task in tasks
        for i, text in enumerate((task.gold_edit, *texts))
    ]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The edits that become changes, in order, each as often as it does."""
    seen: list[str] = []
    change = Text.change

    def watched(self: Text, edit: Edit, task: Task) -> Change:
        seen.append(edit.id)
        return change(self, edit, task)

    monkeypatch.setattr(Text, "change", watched)
    return seen


@pytest.mark.parametrize("more", [{}, {"proxy": "in_context", "proxy_keep": 2}])
def test_an_edit_is_parsed_once_and_not_once_per_seed(
    more: dict[str, Any], fields: dict[str, Any], parsed: list[str], engine: TorchEngine, tmp_path: Path
) -> None:
    how = {"inner": fields["inner"] | {"seeds": 3}, "reward": {"metric": "logprob", **more}}
    with open_run(tmp_path / "run", make_settings(fields | how)) as run:
        inner, tasks = InnerLoop(run, engine), open_source(run.settings).draw(1)
        edits = written(tasks, ["Something.", "---"])
        tried = inner.try_edits("round-1", edits, tasks, on=None)
    assert parsed == [edit.id for edit in edits]
    ok = [outcome for outcome in tried.outcomes if outcome.status == "ok"]
    assert len(ok) == 3 * 2 * len(tasks)
    assert len({outcome.adapter_sha256 for outcome in ok}) == len(ok)
    # Edits of one task are compared from the same seeds.
    seeds = {(o.edit_id.split("#")[0], o.seed) for o in ok}
    assert len(seeds) == 3 * len(tasks)


def test_committed_outcomes_are_read_and_not_computed_again(
    fields: dict[str, Any], engine: TorchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(fields)

    def outcomes() -> list[Outcome]:
        with open_run(tmp_path / "run", settings) as run:
            tasks = open_source(settings).draw(1)
            return InnerLoop(run, engine).try_edits("round-1", written(tasks, ["Something."]), tasks, on=None).outcomes

    first = outcomes()
    monkeypatch.setattr(TorchEngine, "apply", None)
    assert outcomes() == first
