"""Run directories of the first edition: never gone on with, never misread; their summaries are read.

`old_run/` is one that the first edition wrote: a round on two passages of the embedded world.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from selfedit.cli.main import main
from selfedit.config import make_settings
from selfedit.errors import RunError, SelfEditError
from selfedit.evaluation.experiment import run_experiment
from selfedit.evaluation.protocols import check_policy
from selfedit.summary import read_run

OLD = Path(__file__).resolve().parent / "old_run"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def contents(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in ("config.toml", "summary.json") if (directory / name).exists()}


@pytest.mark.parametrize("finished", [True, False])
def test_an_old_run_is_not_gone_on_with_and_stays_as_it_is(finished: bool, old: Path) -> None:
    if not finished:
        (old / "summary.json").unlink()
    before = contents(old)
    with pytest.raises(RunError, match=r"config\.toml: .*of another version; move the directory away to start"):
        run_experiment(make_settings({}), old)
    assert contents(old) == before


def test_the_command_refuses_it_with_one_sentence(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.toml").write_text("rounds = 1\n")
    assert main(["run", str(tmp_path / "own.toml"), "--out", str(old)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("selfedit: ")
    assert "of another version; move the directory away" in said
    assert "Traceback" not in said


def test_its_summary_is_read_and_its_report_written(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = read_run(old)
    assert [row.rung for row in summary.ladder] == ["no_edit", "base_edits", "round_1"]
    assert (summary.rounds[1].verdict, summary.seed) == ("accepted", 0)
    assert main(["report", str(old)]) == 0
    assert "round 1" in capsys.readouterr().out
    assert (old / "report.html").exists()


def test_a_policy_that_it_trained_is_tested_with_a_word_on_what_was_other_then(old: Path) -> None:
    settings = make_settings({"rounds": 0, "protocol": {"name": "stream", "policy": str(old)}})
    assert "was trained with other settings (" in check_policy(settings)
    assert "edits.max_new_tokens" in check_policy(settings)
    (old / "summary.json").write_text("{}")
    with pytest.raises(SelfEditError, match=f"{old}: neither a finished run nor an adapter"):
        check_policy(settings)


def test_settings_that_moved_are_named_with_their_new_place(tmp_path: Path) -> None:
    with pytest.raises(SelfEditError, match=r"it is a setting of rest_em: write rest_em\.keep"):
        make_settings({"algorithm": {"keep": 1}})
