"""`selfedit evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

Protocol = Literal["single", "cpt", "continual", "stream"]


def evaluate(
    config: Path,
    /,
    *,
    protocol: Protocol | None = None,
    policy: Path | None = None,
    split: Literal["dev", "test"] | None = None,
    seed: int | None = None,
    out: Path | None = None,
    dry_run: Annotated[bool, Parameter(show_default=False)] = False,
    json_file: Annotated[Path | None, Parameter(name="--json", show_default=False)] = None,
    json_lines: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Test a policy's self-edits: on one passage at a time, on many at once, or on a stream of passages.

    single     one passage and one edit, then reset: the ladder
    cpt        all passages of a group in one adapter
    continual  one passage after another, each merged; all so far are asked about
    stream     the same with many passages, several ways of learning side by side

    The policy comes from a finished run or from an adapter's directory. Without
    a policy, the rounds in the settings are trained first. If the evaluation was
    stopped, the same command continues it.

    For example:
      selfedit run examples/pairs.toml
      selfedit evaluate examples/cpt.toml --policy runs/pairs --json cpt.json
      selfedit evaluate examples/stream.toml --policy runs/pairs --dry-run
      selfedit evaluate my.toml --protocol continual --split test

    Parameters
    ----------
    config
        TOML file of settings.
    protocol
        Replaces protocol.name of the file.
    policy
        Directory of a finished run, or of one adapter, whose policy writes the
        edits. It replaces protocol.policy of the file, and no rounds are trained.
        The file's [model] and [edits] should be those of that run.
    split
        The held-out tasks: dev or test. Every use of test tasks is recorded in
        test-ledger.jsonl.
    seed
        Seed of every random number. It replaces the file's seed.
    out
        Directory of the evaluation (default: runs/NAME-PROTOCOL, where NAME is
        the file's name, with -seed-N if --seed is given).
    dry_run
        Print what would be done, and stop.
    json_file
        File to which the summary is also written, as JSON.
    json_lines
        Print one JSON object per line instead of the live view.
    """
    from ..config import load_settings
    from ..run import write_atomically
    from .paths import check_directory, check_file
    from .running import execute, show_plans

    check_file(json_file, "--json")
    settings = load_settings(config, **_overrides(protocol, policy, split, seed))
    if dry_run:
        show_plans([settings], json_lines)
        return
    name, tested = config.stem, settings.protocol.name
    name += ("" if name.endswith(tested) else f"-{tested}") + ("" if seed is None else f"-seed-{seed}")
    directory = out or Path("runs") / name
    check_directory(directory)
    summary = execute(settings, directory, json_lines)
    if json_file is not None:
        write_atomically(json_file, json.dumps(summary, indent=1, allow_nan=False) + "\n")


def _overrides(protocol: Protocol | None, policy: Path | None, split: str | None, seed: int | None) -> dict[str, object]:
    """The options of the command line as settings; an option that was not given is left out."""
    own = {"name": protocol, "policy": policy and str(policy)}
    fields: dict[str, object] = {
        "protocol": {key: value for key, value in own.items() if value is not None} or None,
        "rounds": policy and 0,
        "tasks": split and {"split": split},
        "seed": seed,
    }
    return {name: value for name, value in fields.items() if value is not None}
