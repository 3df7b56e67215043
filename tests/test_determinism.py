"""A whole run with `model.deterministic`: the same journal twice, and no operation that the mode forbids on CUDA."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from selfedit.config import Settings, make_settings
from selfedit.evaluation.experiment import dry_run, run_experiment

# Operations for which torch.use_deterministic_algorithms names no deterministic algorithm on CUDA, as far as a language model
# could use them.
FORBIDDEN = (
    "put_",
    "histc",
    "bincount",
    "median.dim",
    "nanmedian.dim",
    "nll_loss2d_forward",
    "ctc_loss",
    "_ctc_loss",
    "_embedding_bag",
    "scatter_reduce",
    "grid_sampler",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "upsample",
)


class Watch(TorchDispatchMode):
    """Names of the operations inside, with the dtypes of their results where they are cumulated sums."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func).removeprefix("aten.")
        self.seen.add(f"{name} {result.dtype}" if name.startswith("cumsum") else name)
        return result


@pytest.fixture(scope="module")
def settings(fields: dict[str, Any]) -> Settings:
    return make_settings(fields | {"model": fields["model"] | {"deterministic": True}})


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A dispatch mode sees its own thread alone, and the mode promises the same bits for one number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def watched(one_thread: None, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A run's directory, and the operations it used."""
    directory = tmp_path_factory.mktemp("deterministic") / "run"
    with Watch() as watch:
        run_experiment(settings, directory)
    return directory, watch.seen


def journal_of(directory: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(directory / "journal.db") as db:
        return db.execute("select key, stage, round, data from chunks order by key").fetchall()


def summary_of(directory: Path) -> dict[str, Any]:
    summary = json.loads((directory / "summary.json").read_text())
    assert summary.pop("timing")
    return summary


def modes(into: list[bool]) -> Callable[[str, dict[str, Any]], None]:
    """A view that notes whether the mode is on."""
    return lambda kind, data: into.append(torch.are_deterministic_algorithms_enabled())


def test_a_deterministic_run_is_the_same_twice_and_the_mode_ends_with_it(
    watched: tuple[Path, set[str]], settings: Settings, tmp_path: Path
) -> None:
    inside: list[bool] = []
    run_experiment(settings, tmp_path / "again", modes(inside))
    assert len(inside) > 10
    assert all(inside)
    assert not torch.are_deterministic_algorithms_enabled()
    assert journal_of(tmp_path / "again") == journal_of(watched[0])
    assert summary_of(tmp_path / "again") == summary_of(watched[0])


def test_no_operation_of_a_run_is_one_that_the_mode_forbids_on_cuda(watched: tuple[Path, set[str]]) -> None:
    seen = watched[1]
    assert "mm.default" in seen
    assert "_fused_adamw_.default" in seen
    assert {name for name in seen if name.startswith(FORBIDDEN)} == set()
    assert {name.split()[1] for name in seen if name.startswith("cumsum")} == {"torch.int64"}


def test_the_mode_ends_with_a_run_that_is_stopped_and_is_off_where_it_is_not_asked_for(
    settings: Settings, fields: dict[str, Any], tmp_path: Path
) -> None:
    inside: list[bool] = []

    def stop(kind: str, data: dict[str, Any]) -> None:
        modes(inside)(kind, data)
        if kind == "passage":
            raise KeyboardInterrupt

    for asked, directory in ((settings, "on"), (make_settings(fields), "off")):
        with pytest.raises(KeyboardInterrupt):
            run_experiment(asked, tmp_path / directory, stop)
        assert not torch.are_deterministic_algorithms_enabled()
    assert inside == [True, True, False, False]


def test_the_plan_is_measured_in_the_mode(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[bool] = []

    def measured(*_: object) -> float:
        modes(inside)("", {})
        return 1.0

    monkeypatch.setattr("selfedit.evaluation.experiment.measured_seconds", measured)
    assert dry_run(settings)["estimated_seconds"] == 1.0
    assert inside == [True]
