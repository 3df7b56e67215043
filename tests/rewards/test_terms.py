"""Rewards as weighted sums, and the grids that count as equal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.config import make_settings
from selfedit.engine.base import Engine
from selfedit.errors import SettingsError
from selfedit.evaluation.experiment import run_experiment
from selfedit.rewards.examiner import Examiner
from selfedit.rewards.metrics.base import Case, make_metric
from selfedit.rewards.metrics.grid import grid_match
from selfedit.rewards.string_rules import exact_match, token_f1
from selfedit.types import Answer, Probe, Task

TASK = Task("t", "T", ("c",), (Probe("Where?", "the Red House"), Probe("Who?", "Ann", also=("Anna",))))
NO_ENGINE = cast(Engine, None)


def answers(first: str, second: str, right: tuple[bool, bool] = (False, True)) -> list[Answer]:
    return [
        Answer("Where?", "the Red House", first, right[0], -2.0),
        Answer("Who?", "Ann", second, right[1], -1.0),
    ]


def worth(said: list[Answer], *edited: Any, **fields: Any) -> tuple[float | None, str]:
    found = Examiner(NO_ENGINE, make_settings({"reward": fields})).worth(TASK, said, None, *edited)
    return found.reward, found.problem


@settings(deadline=None)  # the first example imports the terms
@given(
    st.dictionaries(
        st.sampled_from(["exact", "exact_match", "token_f1", "logprob", "probability", "tokens"]), st.floats(-2, 2), min_size=1
    )
)
def test_a_reward_is_the_weighted_sum_of_its_terms(weights: dict[str, float]) -> None:
    said = answers("red house", "Anna")
    bank: Any = SimpleNamespace(trained_tokens=[7, 40])
    terms = {
        "exact": 0.5,  # as the grader of the run said
        "exact_match": (exact_match("red house", ["the Red House"]) + exact_match("Anna", ["Ann", "Anna"])) / 2,
        "token_f1": (token_f1("red house", ["the Red House"]) + 1) / 2,
        "logprob": -1.5,
        "probability": (math.exp(-2.0) + math.exp(-1.0)) / 2,
        "tokens": 40.0,
    }
    value, problem = worth(said, bank, 1, weights=weights)
    assert problem == ""
    assert value == pytest.approx(sum(weight * terms[term] for term, weight in weights.items()))


def test_without_weights_it_is_the_metric_alone_and_an_unedited_model_costs_no_tokens() -> None:
    said = answers("red house", "Ann")
    assert worth(said, metric="logprob") == (-1.5, "")
    assert worth(said, weights={"tokens": -1.0}) == (0.0, "")


def test_a_term_that_fails_fails_the_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_terms.py").write_text("def bad(task, answers):\n    raise ValueError('no')\n")
    monkeypatch.chdir(tmp_path)
    failing = {"exact_match": 1.0, "custom": 0.1}
    found = worth(answers("a", "b"), weights=failing, custom="own_terms:bad")
    assert found == (None, "reward.custom raised ValueError: no")


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"weights": {"judge": 1.0}, "judge": {"model": "m"}}, r"reward\.metric = 'judge'"),
        ({"weights": {"custom": 1.0}}, r"needs reward\.custom"),
        ({"weights": {"perplexity": 1.0}}, r"reward\.validation_text"),
        ({"metric": "perplexity"}, r"reward\.validation_text"),
        ({"weights": {"bleu": 1.0}}, r"weights"),
        ({"weights": {"exact": "much"}}, r"weights"),
        ({"weights": {"exact": float("nan")}}, r"weights"),
        ({"weights": {"exact": float("inf")}}, r"weights"),
        ({"weights": {"exact": 1.0}, "custom": "m:f"}, r"reward\.custom is not used"),
    ],
)
def test_terms_that_cannot_be_had_are_settings_errors(fields: dict[str, Any], wanted: str) -> None:
    with pytest.raises(SettingsError, match=wanted):
        make_settings({"reward": fields})


@pytest.mark.parametrize(
    ("fields", "ranked_by"),
    [
        ({}, "logprob"),
        ({"reward": {"metric": "exact_match"}}, "logprob"),
        ({"reward": {"weights": {"tokens": -1.0}}}, "gain"),
        ({"reward": {"custom": "m:f"}}, "gain"),
        ({"reward": {"metric": "judge", "judge": {"model": "m"}}}, "gain"),
        ({"reward": {"metric": "perplexity", "validation_text": "v.txt"}}, "gain"),
        ({"reward": {"custom": "m:f"}, "algorithm": {"name": "grpo"}}, "gain"),
        ({"reward": {"custom": "m:f"}, "algorithm": {"rank_by": ["logprob"]}}, "logprob"),
        ({"model": {"path": "some/model"}}, "probability"),
        ({"model": {"path": "some/model"}, "learner": {}}, "logprob"),  # the learner's answers are what counts
        ({"learner": {"path": "some/model"}}, "probability"),
        ({"model": {"path": "some/model"}, "reward": {"weights": {"tokens": -1.0}}}, "gain"),
        ({"model": {"path": "some/model"}, "preset": "paper"}, "gain"),
        ({"model": {"path": "some/model"}, "algorithm": {"rank_by": ["logprob"]}}, "logprob"),
    ],
)
def test_what_edits_are_ranked_by_follows_from_the_reward_and_the_learner(fields: dict[str, Any], ranked_by: str) -> None:
    settings = make_settings(fields)
    assert settings.algorithm.rank_by == (ranked_by,)
    assert make_settings(settings.model_dump(mode="json")) == settings


def test_the_ladder_tells_accuracies_whatever_is_rewarded(fields: dict[str, Any], tmp_path: Path) -> None:
    rungs = {"rungs": ["no_edit", "passage_only", "base_edits", "best_of_k"]}
    how = {"reward": {"weights": {"logprob": 1.0, "tokens": -1.0}}, "ladder": fields["ladder"] | rungs}
    summary = run_experiment(
        make_settings(fields | how | {"algorithm": fields["algorithm"] | {"rank_by": ["reward"]}}), tmp_path / "run"
    )
    unedited, *trained = summary["ladder"]
    assert unedited["reward"] > -100
    for row in trained:
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert row["reward"] < unedited["reward"] - row["trained_tokens"] / 2  # each trained token costs 1
    assert 0 <= summary["rounds"][0]["guards"]["dev_accuracy"] <= 1
    assert summary["reliability"]["of"] == "reward"


GRIDS = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=5), min_size=1, max_size=5)


@given(GRIDS, GRIDS)
def test_a_grid_is_its_rows_of_numbers_however_it_is_written(one: list[list[int]], other: list[list[int]]) -> None:
    ways = [
        json.dumps(one),
        json.dumps(one, indent=1).replace("\n  ", " "),
        "\n".join(" ".join(map(str, row)) for row in one),
        "\n".join(", ".join(map(str, row)) for row in one) + "\n",
        "[" + ",\n".join(json.dumps(row) for row in one) + "]",
    ]
    for way in ways:
        assert grid_match(way, [json.dumps(one)])
        assert grid_match(way, [json.dumps(other), ways[2]])
        assert grid_match(way, [json.dumps(other)]) is (one == other)


@pytest.mark.parametrize(
    "said", ["", "[]", "one two", "1 2\n3 x", "The grid is 1 2", "1.5", "-1", "1 2;3 4", "[[1, 2], [3, 4]] done"]
)
def test_what_is_no_grid_matches_nothing(said: str) -> None:
    assert not grid_match(said, ["1 2\n3 4"])


def test_a_gold_that_is_no_grid_cannot_be_graded() -> None:
    assert worth(answers("1", "2"), weights={"grid": 1.0}) == (
        None,
        "the gold answer 'the Red House' is no grid; give rows of numbers",
    )
    (verdict,) = make_metric("grid", make_settings({"reward": {"metric": "grid"}}).reward).grade([Case("?", ("Ann",), "1 2")])
    assert (verdict.right, verdict.problem) == (None, "the gold answer 'Ann' is no grid; give rows of numbers")
    with pytest.raises(ValueError, match="'Paris' is no grid"):
        grid_match("1 2", ["Paris"])
    with pytest.raises(ValueError, match="no gold"):
        grid_match("1 2", [])
