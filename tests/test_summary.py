"""A summary is typed: what is written is what was measured, older files are still read, and anything else is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from sample_summary import full, full_summary, minimal_summary

from selfedit.config import make_settings
from selfedit.errors import RunError
from selfedit.evaluation.experiment import run_experiment
from selfedit.rows import Interval, RoundRow, RungRow
from selfedit.summary import (
    SCHEMA_VERSION,
    PooledSummary,
    Summary,
    new_summary,
    read_run,
    read_summary,
    row_of,
)
from tools import summary_schema

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
RUNS = ("single", "cpt", "cpt200", "continual", "stream")
POOLED = ("main", "main_rest_em", "main_reinforce")
BENCHMARKS = ("algorithms", "directives", "inner_loop", "logged_edits", "real", "recipes", "selection")


def digits(value: Any) -> str:
    """A value as JSON with sorted keys: equal texts are equal digit for digit (0 is not 0.0)."""
    return json.dumps(value, sort_keys=True)


def published(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def valid(data: Any) -> bool:
    return Draft202012Validator(json.loads(summary_schema.FILE.read_text(encoding="utf-8"))).is_valid(data)


@pytest.fixture(scope="module", params=["single", "continual"])
def fresh(request: pytest.FixtureRequest, fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a short run."""
    arms = {"plain": {}, "gated": {"gate": True, "rehearsal": 1.0}, "routed": {"merge": "routed"}}
    protocol = {"name": request.param, "passages": 2, "groups": 2, "general": 4, "own_texts": 2, "arms": arms}
    directory = tmp_path_factory.mktemp("fresh") / request.param
    run_experiment(make_settings({**fields, "protocol": protocol}), directory)
    return directory


def test_every_published_summary_has_an_expected_kind() -> None:
    assert {path.stem for path in RESULTS.glob("*.json")} == {*RUNS, *POOLED, *BENCHMARKS}


@pytest.mark.parametrize("name", [*RUNS, *POOLED])
def test_a_summary_of_the_first_edition_is_read_and_written_digit_for_digit(name: str) -> None:
    summary = read_summary(RESULTS / f"{name}.json")
    assert isinstance(summary, PooledSummary if name in POOLED else Summary)
    assert summary.schema_version == 1
    assert digits(json.loads(summary.to_json())) == digits(published(name))


def test_what_an_older_file_lacks_has_its_default() -> None:
    pooled = read_summary(RESULTS / "main_rest_em.json")
    assert isinstance(pooled, PooledSummary)
    assert pooled.seeds[0].ladder[0].lines_held_out == 0
    assert "lines_held_out" not in published("main_rest_em")["seeds"][0]["ladder"][0]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_result_of_a_benchmark_is_no_summary(name: str) -> None:
    with pytest.raises(RunError, match=rf"{name}\.json: not a summary \(.*give a run's summary\.json"):
        read_summary(RESULTS / f"{name}.json")


def test_a_newer_file_is_refused_with_what_to_do() -> None:
    with pytest.raises(RunError, match=rf"schema_version {SCHEMA_VERSION + 1}.*update selfedit"):
        read_summary(minimal_summary() | {"schema_version": SCHEMA_VERSION + 1})


def test_unknown_fields_are_ignored_in_an_older_file_and_refused_in_a_file_of_today() -> None:
    data = minimal_summary()
    data["ladder"][0]["colour"] = data["mood"] = "grey"
    with pytest.raises(RunError, match=r"ladder\.0\.colour"):
        read_summary(data)
    del data["schema_version"]
    read = read_summary(data)
    assert "mood" not in read.to_dict()
    assert "colour" not in read.to_dict()["ladder"][0]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"verbatim_share": float("nan")}, "not JSON compliant"),
        ({"verbatim_share": "0.5"}, "verbatim_share"),
        ({"seed": 1.0}, "seed"),
        ({"seed": None}, "seed"),
        ({"arms": {"plain": {}}}, r"arms\.plain\.merge"),
        ({"invented": 1}, "invented"),
        ({"schema_version": "2"}, "schema_version"),
    ],
)
def test_a_result_of_another_shape_is_not_written_and_the_field_is_named(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(RunError, match=named):
        new_summary(minimal_summary() | changed)


def test_names_that_plug_ins_bring_are_kept() -> None:
    data = full_summary()
    data["ladder"][1]["rung"] = "a_rung_of_a_plug_in"
    guards = data["rounds"][1]["guards"]
    guards["entropy"], guards["limits"]["min_entropy"] = 0.25, 0.1
    data["rounds"][1]["algorithm"] = {"learned_from": 3, "temperature": 0.5}
    assert digits(new_summary(data).to_dict()) == digits(data)
    assert digits(read_summary(data).to_dict()) == digits(data)


def test_a_row_is_made_of_finite_numbers() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Interval(mean=float("nan"), low=0.0, high=1.0)


def test_a_summary_can_not_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        full().ladder[0].accuracy = 1.0  # type: ignore[misc]


def test_a_setting_is_looked_up_by_its_path() -> None:
    summary = full()
    assert summary.setting("protocol.name") == "single"
    assert summary.setting("seed") == 3
    assert summary.setting("seed.of") is summary.setting("no.such") is None


def test_a_part_of_an_event_is_a_row_or_nothing() -> None:
    row = row_of(RungRow, {**full_summary()["ladder"][0], "more": float("nan")})
    assert row is not None
    assert row.rung == "no_edit"
    assert row_of(RungRow, {"rung": "no_edit"}) is None
    assert row_of(RoundRow, {"round": object()}) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "isn't finished"), ("{", "damaged"), ("[]", "no JSON object"), ('{"ladder": []}', "not a summary")],
)
def test_a_run_without_a_summary_says_so(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(RunError, match=said):
        read_run(tmp_path)
    with pytest.raises(RunError, match="no such directory"):
        read_run(tmp_path / "absent")


def test_a_pooled_result_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text((RESULTS / "main.json").read_text())
    with pytest.raises(RunError, match="a pooled result"):
        read_run(tmp_path)


def test_the_published_schema_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert summary_schema.main(["--check"]) == 0, capsys.readouterr().out


def test_every_field_of_the_schema_is_described() -> None:
    for name, kind in summary_schema.schema()["$defs"].items():
        assert kind.get("description"), name
        for field, what in kind["properties"].items():
            assert what.get("description"), f"{name}.{field}"


@pytest.mark.parametrize("name", [*RUNS, *POOLED])
def test_a_published_summary_matches_the_schema(name: str) -> None:
    assert valid(published(name))


def test_the_schema_refuses_what_is_no_summary() -> None:
    assert valid(full_summary())
    assert not valid(full_summary() | {"seed": "3"})
    assert not valid({name: value for name, value in full_summary().items() if name != "ladder"})
    assert not any(valid(published(name)) for name in BENCHMARKS)


def test_a_fresh_summary_matches_the_schema_and_is_read_as_it_was_written(fresh: Path) -> None:
    data = json.loads((fresh / "summary.json").read_text())
    assert data["schema_version"] == SCHEMA_VERSION
    assert valid(data)
    assert digits(read_run(fresh).to_dict()) == digits(data)


def test_a_finished_run_of_the_first_edition_is_looked_up_again(fresh: Path) -> None:
    data = json.loads((fresh / "summary.json").read_text())
    del data["schema_version"]
    (fresh / "summary.json").write_text(json.dumps(data))
    assert digits(run_experiment(make_settings(data["settings"]), fresh)) == digits(data)
