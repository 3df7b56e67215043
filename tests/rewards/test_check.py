"""Before a run: a grader has to know gold answers, and the check costs no more than it may."""

from __future__ import annotations

from pathlib import Path

import pytest
from judge_server import JudgeServer

from selfedit.config import make_settings
from selfedit.errors import GraderError
from selfedit.rewards.check import check_grader
from selfedit.types import Probe, Task

KNOWN = [Task("t", "T", ("c",), tuple(Probe(f"yes {i}?", f"answer {i}", also=("Anna",)) for i in range(4)))]


def test_a_grader_that_knows_gold_answers_passes() -> None:
    (found,) = check_grader(make_settings({"reward": {"metric": "exact_match"}}), KNOWN)
    assert (found.n, found.golds_right, found.others_right, found.ungraded, found.problem) == (4, 4, 0, 0, "")
    weights = {"weights": {"exact": 1.0, "grid": 1.0}}
    exact, grid = check_grader(make_settings({"reward": weights}), KNOWN)
    assert (exact.of, exact.problem) == ("exact", "")
    assert grid.problem == "grid calls only 0 of 4 gold answers right"
    with pytest.raises(GraderError, match="no questions"):
        check_grader(make_settings({}), [])


@pytest.mark.parametrize(
    ("always", "problem"),
    [
        ("yes", "judge calls 4 of 4 answers right that belong to other questions"),
        ("no", "judge calls only 0 of 4 gold answers right"),
        ("prose", "judge calls only 0 of 4 gold answers right"),
    ],
)
def test_a_judge_that_always_says_the_same_fails_the_check(
    always: str, problem: str, server: JudgeServer, tmp_path: Path
) -> None:
    server.always = always
    judge = {"model": "m", "url": server.url, "retries": 0, "cache": str(tmp_path / "judge.db")}
    (found,) = check_grader(make_settings({"reward": {"metric": "judge", "judge": judge}}), KNOWN)
    assert found.problem == problem


@pytest.mark.parametrize(("budget", "probes"), [(3, 1), (12, 2), (17, 2), (100, 4)])
def test_the_check_asks_no_more_than_a_budget_allows(budget: int, probes: int, server: JudgeServer, tmp_path: Path) -> None:
    judge = {"model": "m", "url": server.url, "cache": str(tmp_path / "judge.db"), "budget": budget}
    (found,) = check_grader(make_settings({"reward": {"metric": "judge", "judge": judge}}), KNOWN)
    assert (found.n, server.asked.total()) == (probes, 2 * probes)


def test_a_judge_that_is_asked_again_each_time_is_not_out_of_budget(server: JudgeServer, tmp_path: Path) -> None:
    """At temperature 0 a judge says the same again, so each of four questions is asked once."""
    server.always = "prose"
    judge = {"model": "m", "url": server.url, "cache": str(tmp_path / "judge.db"), "budget": 12}
    (found,) = check_grader(make_settings({"reward": {"metric": "judge", "judge": judge}}), KNOWN)
    assert (found.ungraded, server.asked.total()) == (4, 4)
