"""Calibration of the offline grader: the same data give the same file; it learns what there is to learn."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfedit.rewards.graded import GradedAnswer, agreement, read_graded, title_hash
from selfedit.rewards.offline_grader import SHIPPED, load_grader

pytest.importorskip("sklearn", reason="calibration needs scikit-learn, of the extra dev")
from tools.calibrate_grader import CUTS, SHARE, cross_validated, main, table_of, title_share

PLACES = "Oskarstad Tarn Velmora Kesh Brindle Lorne Quay Fennick Marsh Ullin Poole Drey".split()


def graded(title: str, question: str, gold: str, prediction: str, correct: bool) -> GradedAnswer:
    return GradedAnswer(title=title, question=question, gold=gold, prediction=prediction, correct=correct)


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
                    rows.append(graded(f"Town {title}", question, gold, text, correct))
    return rows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "graded.jsonl"
    path.write_text("".join(row.model_dump_json() + "\n" for row in made_up()), encoding="utf-8")
    return path


def test_the_same_data_give_the_same_file_that_the_grader_reads(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / "one.json", tmp_path / "deeper" / "two.json"]
    for out in outs:
        main(["--data", str(file), "--out", str(out), "--date", "2026-01-02", "--left-out"])
    assert outs[0].read_bytes() == outs[1].read_bytes()
    said = capsys.readouterr().out
    assert all(f"{name} ({where})" in said for name in ("exact match", "offline grader") for where in ("titles left out",))
    grader = load_grader(outs[0])
    assert grader.report["date"] == "2026-01-02"
    assert grader.titles == {title_hash(row.title) for row in read_graded(file) if title_share(row.title) < SHARE}
    assert set(grader.table) == set(CUTS)


def test_it_learns_what_is_there_to_learn_and_shows_it_on_unseen_titles() -> None:
    found = cross_validated(made_up())
    assert found["offline grader"].agreement > 0.95
    assert found["offline grader"].n == len(made_up())
    assert found["exact match"].agreement < 0.8


def test_verdicts_by_the_toss_of_a_coin_teach_nothing() -> None:
    rng = random.Random(1)
    words = [" ".join(rng.sample(PLACES, 4)) for _ in range(2000)]
    rows = [
        row.model_copy(update={"correct": rng.random() < 0.5, "prediction": word})
        for row, word in zip(made_up(60), words, strict=False)
    ]
    assert abs(cross_validated(rows)["offline grader"].kappa) < 0.2


def test_verdicts_that_are_all_alike_are_refused(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row.model_copy(update={"correct": True}) for row in made_up()]
    file.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["--data", str(file)])
    assert "give right and wrong ones" in capsys.readouterr().err


def test_the_shipped_table_comes_from_these_data_and_this_code(shared_data: Callable[[str], Path]) -> None:
    rows = [row for row in read_graded(shared_data("seal/graded_answers.jsonl")) if title_share(row.title) < SHARE]
    shipped: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    made = json.loads(json.dumps(table_of(rows)))
    assert (made["n"], made["titles"], made["base"]) == (
        shipped["n"],
        shipped["titles"],
        pytest.approx(shipped["base"], abs=0.02),
    )
    assert list(made["table"]) == list(shipped["table"])
    for name, row in made["table"].items():
        assert row["cuts"] == shipped["table"][name]["cuts"]
        assert row["points"] == pytest.approx(shipped["table"][name]["points"], abs=0.02)  # it has two decimals
    assert shipped["figures"]["agreement"] > 0.8969  # within .01 of the first edition's 800 trees


def test_agreement_kappa_and_interval_are_what_their_names_say() -> None:
    rows = [graded(f"t{i // 4}", "q", "g", "p", i % 2 == 0) for i in range(80)]
    same = agreement(rows, [row.correct for row in rows])
    assert (same.agreement, same.kappa, same.low, same.high, same.n, same.titles) == (1, 1, 1, 1, 80, 20)
    coin = agreement(rows, [i % 4 < 2 for i in range(80)])
    assert (coin.agreement, coin.kappa) == (0.5, 0)
    assert coin.low == coin.high == 0.5  # each title has half of its answers right: resampling titles changes nothing
    halves = agreement(rows, [row.correct == (int(row.title[1:]) < 10) for row in rows])
    assert halves.low < 0.35  # whole titles right or wrong: few independent looks
    assert halves.high > 0.65
    assert agreement(rows[:1], [True]).kappa == 1
    with pytest.raises(ValueError, match="one verdict for each"):
        agreement(rows, [True])
    with pytest.raises(ValueError, match="give one verdict"):
        agreement([], [])
