from __future__ import annotations

import math
import random
from collections.abc import Collection
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.race import EditRunner, RacePlan, race
from selfedit.config import make_settings
from selfedit.edits.text import text_change
from selfedit.engine.adapters.adapter_context import AdapterContext
from selfedit.engine.training.cohort import Cohort
from selfedit.errors import SettingsError
from selfedit.evaluation.machine import load_engine
from selfedit.inner import Trial
from selfedit.rewards.examiner import Examiner
from selfedit.tasks.sources.world import draw_tasks
from selfedit.types import Change, Update


class Simulated:
    """Candidates of known quality; what is seen of it is noisy, less so the longer they train."""

    def __init__(self, quality: list[float], early: float, noise: float, seed: int = 0) -> None:
        self.quality, self.early, self.noise, self.rng = quality, early, noise, random.Random(seed)
        self.advanced: list[tuple[float, list[int]]] = []
        self.repeated: list[list[int]] = []

    def advance(self, fraction: float, candidates: Collection[int]) -> dict[int, float]:
        self.advanced.append((fraction, sorted(candidates)))
        spread = self.noise + self.early * (1 - fraction)
        return {c: self.quality[c] + self.rng.gauss(0, spread) for c in candidates}

    def repeat(self, candidates: Collection[int], seed: int) -> dict[int, float]:
        self.repeated.append(sorted(candidates))
        return {c: self.quality[c] + self.rng.gauss(0, self.noise) for c in candidates}


def groups_of(sizes: list[int]) -> list[list[int]]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [list(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=12),
    st.integers(0, 999),
    st.sampled_from([(), (0.5,), (0.25, 0.5)]),
)
def test_without_noise_the_best_wins_and_no_more_is_trained_than_in_full(
    sizes: list[int], seed: int, marks: tuple[float, ...]
) -> None:
    groups, rng = groups_of(sizes), random.Random(seed)
    quality = [rng.random() for _ in range(sum(sizes))]
    runner = Simulated(quality, early=0.0, noise=0.0)
    found = race(groups, runner, RacePlan(marks=marks))
    assert found.best == [max(group, key=lambda c: quality[c]) for group in groups]
    assert found.trained <= 3 * sum(sizes)
    assert all(len(values) <= 3 for values in found.values.values())
    assert [mark for mark, _ in runner.advanced] == [*marks, 1.0]


def test_only_close_candidates_get_more_seeds() -> None:
    # The pilot's tasks show that a seed moves a value by .1; then .05 apart is close, 5 apart is not.
    quality = [0.0, 0.05] * 8 + [0.0, 5.0] + [0.0, 0.05]
    runner = Simulated(quality, early=0.0, noise=0.1)
    found = race(groups_of([2] * 10), runner, RacePlan(marks=(), pilot=8, margin=3.0))
    assert runner.repeated[0] == list(range(16))
    assert not {16, 17} & {c for repeated in runner.repeated for c in repeated}
    assert {18, 19} <= set(runner.repeated[1])
    assert found.noise == pytest.approx(0.1, rel=0.5)
    assert found.trained == 20 + sum(map(len, runner.repeated))


def test_it_finds_nearly_as_good_edits_as_all_seeds_would_for_a_third_of_the_work() -> None:
    rng = random.Random(7)
    quality = [rng.gauss(0, 0.1) for _ in range(5 * 200)]
    groups = groups_of([5] * 200)
    raced = race(groups, Simulated(quality, early=0.1, noise=0.05), RacePlan())
    full = race(groups, Simulated(quality, early=0.0, noise=0.05, seed=1), RacePlan(marks=(), margin=math.inf))
    assert full.trained == 3000
    assert raced.trained < 0.45 * full.trained
    lost = sum(quality[f] - quality[r] for f, r in zip(full.best, raced.best, strict=True)) / 200
    assert lost < 0.03  # of a spread of .1; the best of 5 lies .116 above the mean


def test_a_candidate_that_diverged_never_wins() -> None:
    class Diverging(Simulated):
        def advance(self, fraction: float, candidates: Collection[int]) -> dict[int, float]:
            return {c: v if c else math.nan for c, v in super().advance(fraction, candidates).items()}

    found = race([[0, 1], [2]], Diverging([9.0, 0.1, 0.0], 0.0, 0.0), RacePlan(marks=(0.5,), keep=1.0))
    assert found.best == [1, 2]


@pytest.mark.parametrize("wrong", [{"marks": (0.5, 0.25)}, {"marks": (1.0,)}, {"keep": 0.0}, {"seeds": 0}, {"margin": -1}])
def test_a_plan_that_cannot_be_raced_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        RacePlan(**wrong)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def examiner() -> Examiner:
    settings = make_settings({"inner": {"steps": 8}})
    return Examiner(load_engine(settings), settings)


@pytest.fixture(scope="module")
def trials(examiner: Examiner) -> list[Trial]:
    """Two tasks' edits, three of each, the first of them the gold one."""
    tasks = draw_tasks("dev", ("e1",), 2, seed=5)
    texts = [[task.gold_edit, "There is nothing to say.", "Nothing."] for task in tasks]
    return [
        Trial(f"{t}/{i}", task, text_change(examiner.settings, examiner.engine, task, [text]), 10 * t + i)
        for t, (task, row) in enumerate(zip(tasks, texts, strict=True))
        for i, text in enumerate(row)
    ]


def update_of(trial: Trial) -> Update:
    update = trial.change.seeded(trial.seed)
    assert isinstance(update, Update)
    return update


GROUPS, PLAN = [[0, 1, 2], [3, 4, 5]], RacePlan(marks=(0.5,), seeds=2)


def test_edits_race_on_the_engine(examiner: Examiner, trials: list[Trial]) -> None:
    found = race(GROUPS, EditRunner(examiner, trials, on=None), PLAN)
    assert found.best == [0, 3]
    assert all(math.isfinite(v) for values in found.values.values() for v in values)
    whole = examiner.engine.apply([update_of(trial) for trial in trials], on=None)
    likely = examiner.likelihoods(whole, {k: trial.task for k, trial in enumerate(trials)}, on=None)
    assert found.values[0][0] == pytest.approx(likely[0], abs=0.05)


def test_an_edit_that_cannot_be_trained_on_loses_and_the_others_race_as_without_it(
    examiner: Examiner, trials: list[Trial]
) -> None:
    empty = replace(trials[0], change=Change(None, "no usable line"))
    runner = EditRunner(examiner, [empty, *trials], on=None)
    values = runner.advance(0.5, range(7)) | runner.repeat([0], 1)
    assert values[0] == -math.inf
    alone = EditRunner(examiner, trials, on=None).advance(0.5, range(6))
    assert {c - 1: v for c, v in values.items() if c} == alone
    assert race([[0, 1, 2, 3], [4, 5, 6]], EditRunner(examiner, [empty, *trials], on=None), PLAN).best == [1, 4]


def test_a_race_of_nothing_but_unusable_edits_ends(examiner: Examiner, trials: list[Trial]) -> None:
    empty = [replace(trial, change=Change(None, "no usable line")) for trial in trials[:2]]
    found = race([[0], [1]], EditRunner(examiner, empty, on=None), PLAN)
    assert found.best == [0, 1]
    assert found.values[0][0] == -math.inf


def test_whether_an_edit_can_be_trained_on_depends_on_what_is_adapted() -> None:
    settings = make_settings({"inner": {"steps": 2, "rank": 300}, "model": {"targets": "down_proj"}})
    examiner = Examiner(load_engine(settings), settings)
    (task,) = draw_tasks("dev", ("e1",), 1, seed=5)
    trials = [Trial("0/0", task, text_change(settings, examiner.engine, task, [task.gold_edit]), 0)]
    assert math.isfinite(EditRunner(examiner, trials, on=None).advance(1.0, [0])[0])
    update = update_of(trials[0])
    assert examiner.engine.check(replace(update, targets="up_proj"))
    assert not examiner.engine.check(update)


def test_a_race_does_not_go_backwards(examiner: Examiner, trials: list[Trial]) -> None:
    runner = EditRunner(examiner, trials, on=None)
    before = runner.advance(0.5, [0, 1])
    assert runner.advance(0.5, [0, 1]) == before
    with pytest.raises(SettingsError, match=r"reached 0\.5.*back to 0\.25.*new EditRunner"):
        runner.advance(0.25, [0])


def test_a_race_that_runs_out_of_memory_ends_as_one_with_half_as_many_at_once(
    examiner: Examiner, trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    examiner.engine.limit_members(2)
    at_two = race(GROUPS, EditRunner(examiner, trials, on=None), PLAN)
    told: list[int] = []
    step, reached = Cohort.step, [0.0]

    class Watched(EditRunner):
        def advance(self, fraction: float, candidates: Collection[int]) -> dict[int, float]:
            reached.append(fraction)
            return super().advance(fraction, candidates)

    def limited(cohort: Cohort, place: AdapterContext) -> None:
        # There is room for six of them up to the mark, and behind it not even for the four that are left.
        if cohort.active > 2 and reached[-1] > 0.5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(cohort, place)

    monkeypatch.setattr(Cohort, "step", limited)
    examiner.engine.limit_members(8, lambda members, reason: told.append(members))
    try:
        raced = race(GROUPS, Watched(examiner, trials, on=None), PLAN)
    finally:
        examiner.engine.limit_members(8)
    assert told == [2]
    assert raced == at_two
