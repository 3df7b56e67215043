"""Consolidation: majorities, lessons that say where they come from, and a stream that keeps more for it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from journals import journal_of
from selfedit.config import make_settings
from selfedit.evaluation.experiment import run_experiment
from selfedit.store.consolidation import VOTES, majority
from selfedit.tasks.sources.base import open_source

N = 2


@given(st.lists(st.sampled_from(["Oslo", "oslo.", " the  Oslo ", "Rome", "rome!", "", "..."]), max_size=12))
def test_a_majority_is_the_answer_most_samples_give_in_whatever_spelling(answers):
    votes = max(1, len(answers))
    answer, share = majority(answers, votes)
    places = Counter("oslo" if "oslo" in a.lower() else "rome" for a in answers if a.strip(". "))
    if not places:
        assert (answer, share) == ("", 0.0)
    else:
        assert share == places.most_common(1)[0][1] / votes
        assert places[answer.lower().strip(".! ").removeprefix("the ").strip()] == max(places.values())


def test_votes_that_were_never_given_count_against_an_answer():
    assert majority(["Oslo", "Oslo"], 8) == ("Oslo", 0.25)


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    torch.set_num_threads(1)
    settings = make_settings(
        {
            "seed": 7,
            "rounds": 0,
            "model": {"dtype": "fp32", "members_at_once": 4},
            "tasks": {"dev": 2},
            "ladder": {"rungs": ["no_edit"]},
            "protocol": {
                "name": "stream",
                "passages": N,
                "general": 4,
                "own_texts": 8,
                "arms": {"plain": {}, "consolidated": {"consolidate": N}, "routed": {"merge": "routed"}},
            },
        }
    )
    directory = tmp_path_factory.mktemp("consolidated") / "run"
    return settings, directory, run_experiment(settings, directory)["arms"]


def test_lessons_say_where_they_come_from(streams):
    settings, directory, arms = streams
    rows = [json.loads(line) for line in (directory / "lessons" / "stream-0-consolidated.jsonl").read_text().splitlines()]
    tasks = {task.id: task for task in open_source(settings).evaluation()}
    adapters = [step["adapter_sha256"] for step in arms["consolidated"]["steps"]]
    assert len(rows) > N
    for row in rows:
        place = list(tasks).index(row["task_id"])
        assert row["context_sha256"] == hashlib.sha256(tasks[row["task_id"]].text.encode()).hexdigest()
        assert (row["adapter_sha256"], row["edit_id"]) == (adapters[place], f"{row['task_id']}#0")
        assert 0.6 <= row["vote_share"] <= 1
        assert row["votes"] == VOTES
        assert row["question"]
        assert row["answer"]
    assert len({(row["task_id"], row["question"]) for row in rows}) == len(rows)


def test_a_consolidated_stream_keeps_more_than_edits_on_top_of_each_other(streams):
    _, directory, arms = streams
    assert arms["consolidated"]["retained"] > arms["plain"]["retained"]
    steps = {key: json.loads(data) for key, _, _, data in journal_of(directory)}
    tokens = steps[f"stream-0/consolidated/{N - 1}/consolidate"]["trained_tokens"]
    assert tokens > N * settings_tokens(steps)


def test_adapters_kept_apart_forget_nothing_and_figures_are_those_of_the_matrix(streams):
    *_, arms = streams
    assert arms["routed"]["immediate"] > 0.3
    assert arms["routed"]["retained"] == arms["routed"]["immediate"]
    assert arms["routed"]["backward_transfer"]["mean"] == 0
    for arm in arms.values():
        matrix = arm["matrix"]
        assert arm["immediate"] == pytest.approx(sum(matrix[str(n)][n - 1] for n in range(1, N + 1)) / N)
        assert arm["retained"] == pytest.approx(sum(matrix[str(N)]) / N)
    lost = [arms["plain"]["matrix"][str(N)][i] - arms["plain"]["matrix"][str(i + 1)][i] for i in range(N - 1)]
    assert arms["plain"]["backward_transfer"]["mean"] == pytest.approx(sum(lost) / len(lost))


def settings_tokens(steps: dict) -> int:
    """What one edit of the plain stream trains on, at least."""
    return min(steps[f"stream-0/plain/{t}/learn"]["trained_tokens"] for t in range(N)) // 2
