"""A model that is nowhere is refused before a run; what can't be known offline is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import huggingface_hub
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

from selfedit.cli.main import main
from selfedit.config import make_settings
from selfedit.engine.model.whereabouts import is_here
from selfedit.errors import ModelError
from selfedit.evaluation.machine import at_hand

Hub = Any


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """``hub(error)``: what the hub says of every model; without an error, that it has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def answers(error: Exception | None = None) -> None:
        def model_info(*_: Any, **__: Any) -> None:
            if error is not None:
                raise error

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)

    answers(AssertionError("it is not to be asked"))
    return answers


NONE = RepositoryNotFoundError("404", response=Mock())


@pytest.mark.parametrize("path", ["no/such/dir", "/no/such", "./none", "none/", "$HOME/models/x", "a b", "models/typo", ""])
def test_a_path_that_leads_nowhere_is_refused_without_asking(path: str, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "models" / "x").mkdir(parents=True)
    if path:
        with pytest.raises(ModelError, match="no such directory; name one"):
            is_here(path)
    assert is_here("models/x")
    assert at_hand(make_settings({"model": {"path": "~/models/x"}}))


def test_a_hub_id_is_looked_up_where_it_is_not_here(hub: Hub) -> None:
    hub()
    assert not is_here("some/model-name")
    hub(NONE)
    with pytest.raises(ModelError, match="the hub has no model of that name"):
        is_here("some/model-name")
    hub(OfflineModeIsEnabled("offline"))
    with pytest.raises(ModelError, match=r"is not known, as it can't be asked \(OfflineModeIsEnabled: offline\)"):
        is_here("some/model-name")


def test_a_model_in_the_cache_is_here(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("selfedit.engine.model.whereabouts.try_to_load_from_cache", lambda *_: str(tmp_path / "config.json"))
    hub()
    assert not is_here("some/model-name")  # of its weights nothing is there
    (tmp_path / "model.safetensors").write_text("")
    hub(AssertionError("it is not to be asked"))
    assert is_here("some/model-name")


@pytest.mark.parametrize("section", ["model", "learner"])
def test_a_dry_run_refuses_a_model_that_is_nowhere(
    section: str, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub(NONE)
    for path in ("~/models/x", "/no/such/dir", "models/typo"):
        (tmp_path / "my.toml").write_text(f'rounds = 0\n[{section}]\npath = "{path}"\n')
        assert main(["run", "my.toml", "--dry-run"]) == 2
        assert path.replace("~", str(tmp_path)) in capsys.readouterr().err
