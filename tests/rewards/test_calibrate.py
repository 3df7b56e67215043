"""Calibration: the same data give the same file; it learns what is there to learn; bad data are refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from selfedit.rewards.boosting import BoostingPlan, boost
from selfedit.rewards.calibrate import SHARE, calibrate, main
from selfedit.rewards.graded import GradedAnswer, agreement, read_graded, title_hash, title_share
from selfedit.rewards.offline import SHIPPED, load_grader

SMALL = BoostingPlan(trees=40, rate=0.2, least_rows=5, ridge=1.0)
PLACES = "Oskarstad Tarn Velmora Kesh Brindle Lorne Quay Fennick Marsh Ullin Poole Drey".split()


def made_up(n_titles: int = 20) -> list[GradedAnswer]:
    """Where somebody was born, answered rightly and wrongly, in several words."""
    rng = random.Random(0)
    rows = []
    for title in range(n_titles):
        for name in ("Mara", "Ivo", "Lin"):
            gold, other = rng.sample(PLACES, 2)
            question = f"Where was {name} number {title} born?"
            for said, correct in ((gold, True), (other, False)):
                for text in (said, f"{name} was born in {said}.", f"In {said}, as far as I know."):
                    rows.append(GradedAnswer(f"Town {title}", question, gold, text, correct))
    return rows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "graded.jsonl"
    path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in made_up()), encoding="utf-8")
    return path


def test_the_same_data_give_the_same_file_that_the_grader_reads(file: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "one.json", tmp_path / "deeper" / "two.json"]
    for out in outs:
        main(["--data", str(file), "--out", str(out), "--date", "2026-01-02", "--held-out"])
    assert outs[0].read_bytes() == outs[1].read_bytes()
    grader = load_grader(outs[0])
    assert grader.report["date"] == "2026-01-02"
    assert set(grader.report["figures"]) == {"cross_validated", "held_out"}
    assert grader.titles == {title_hash(row.title) for row in read_graded(file) if title_share(row.title) < SHARE}


def test_it_learns_what_is_there_to_learn_and_tells_it_of_unseen_titles() -> None:
    figures = calibrate(made_up(), SMALL, held_out=True)["figures"]
    assert figures["cross_validated"]["agreement"] > 0.95
    assert figures["held_out"]["agreement"] > 0.95
    assert figures["cross_validated"]["n"] + figures["held_out"]["n"] == len(made_up())


def test_verdicts_by_the_toss_of_a_coin_teach_nothing() -> None:
    rng = random.Random(1)
    rows = [replace(row, correct=rng.random() < 0.5, prediction=f"x{rng.random()} {row.gold}") for row in made_up(60)]
    assert calibrate(rows, SMALL)["figures"]["cross_validated"]["kappa"] < 0.25


def test_another_seed_gives_other_trees() -> None:
    trees = [calibrate(made_up(), replace(SMALL, trees=3, seed=seed))["trees"] for seed in (0, 0, 1)]
    assert trees[0] == trees[1] != trees[2]


def test_the_shipped_table_comes_from_these_data_and_this_code(shared_data: Callable[[str], Path]) -> None:
    rows = read_graded(shared_data("seal/graded_answers.jsonl"))
    shipped = json.loads(SHIPPED.read_text(encoding="utf-8"))
    assert shipped["plan"] == asdict(BoostingPlan())
    assert set(shipped["titles"]) == {title_hash(row.title) for row in rows if title_share(row.title) < SHARE}
    few = json.loads(
        json.dumps(calibrate(rows, BoostingPlan(trees=2)))
    )  # trees come one after another: the first are the same
    for entry in ("features", "base", "n", "titles", "rarity"):
        assert few[entry] == shipped[entry]
    for ours, theirs in zip(few["trees"], shipped["trees"][:2], strict=True):
        assert [node[1:] for node in ours] == [node[1:] for node in theirs]  # features, thresholds and children
        # A leaf has four decimals; processors may round an exponential, and so the last of them, otherwise.
        assert [node[0] for node in ours] == pytest.approx([node[0] for node in theirs], abs=1.5e-4)


def test_boosting_finds_an_interaction_that_no_single_feature_shows() -> None:
    x = np.random.default_rng(0).random((800, 3))
    y = ((x[:, 0] > 0.5) ^ (x[:, 1] > 0.3)).astype(float)
    model = boost(x, y, BoostingPlan(trees=80, rate=0.2, least_rows=5, ridge=1.0, features=1.0))
    assert ((model.log_odds(x) > 0) == y).mean() > 0.97


def test_agreement_kappa_and_interval_are_what_their_names_say() -> None:
    rows = [GradedAnswer(f"t{i // 4}", "q", "g", "p", i % 2 == 0) for i in range(80)]
    same = agreement(rows, [row.correct for row in rows])
    assert (same.agreement, same.kappa, same.low, same.high, same.n, same.titles) == (1, 1, 1, 1, 80, 20)
    coin = agreement(rows, [i % 4 < 2 for i in range(80)])
    assert (coin.agreement, coin.kappa) == (0.5, 0)
    assert coin.low == coin.high == 0.5  # each title has half of its answers right: resampling titles changes nothing
    apart = agreement(rows, [row.correct == (int(row.title[1:]) < 10) for row in rows])
    assert apart.low < 0.35  # whole titles right or wrong: few independent looks
    assert apart.high > 0.65
    assert agreement(rows[:1], [True]).kappa == 1
    with pytest.raises(ValueError, match="one verdict for each"):
        agreement(rows, [True])
    with pytest.raises(ValueError, match="give one verdict"):
        agreement([], [])
