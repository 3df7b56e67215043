"""`selfedit evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from ..config import Settings

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
    """Test what a policy's self-edits are worth: one passage at a time, many at once, or a stream of them.

    single     one passage, one edit, revert: the ladder
    cpt        all passages of a group in one adapter
    continual  passages one after another, merged after each, all so far asked
    stream     the same with many passages, in several ways side by side

    The policy comes from a finished run (or an adapter's directory); without
    --policy the settings' rounds are trained first. Stopped, the same command
    goes on where it was.

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
        In place of the file's protocol.name.
    policy
        Directory of a finished run whose policies write the edits, or of one
        adapter; in place of the file's protocol.policy, and of its rounds. The
        file's [model] and [edits] should be that run's.
    split
        Which held-out tasks: dev, or test (every look at test is written down
        in test-ledger.jsonl).
    seed
        Root of every random number, in place of the file's.
    out
        Directory of the evaluation (default: runs/NAME-PROTOCOL, after the file,
        with -seed-N if --seed is given).
    dry_run
        Print what would be done, and stop.
    json_file
        Also write the summary to this file, as JSON.
    json_lines
        Print JSON, one object a line, instead of the live view.
    """
    from ..config import load_settings
    from ..run import write_atomically
    from .running import choose_view, execute

    settings = load_settings(config, **_overrides(protocol, policy, split, seed))
    if dry_run:
        from ..evaluation.experiment import dry_run as rehearse

        with choose_view(json_lines) as view:
            view("plan", rehearse(settings))
        return
    name = _name(config, settings) + ("" if seed is None else f"-seed-{seed}")
    directory = out or Path("runs") / name
    summary = execute(settings, directory, json_lines)
    if json_file is not None:
        write_atomically(json_file, json.dumps(summary, indent=1, allow_nan=False) + "\n")


def _overrides(
    protocol: Protocol | None, policy: Path | None, split: str | None, seed: int | None
) -> dict[str, object]:
    """The command line's words as settings; what was not said is left out."""
    fields: dict[str, object] = {}
    if protocol is not None:
        fields["protocol"] = {"name": protocol}
    if policy is not None:
        fields["protocol"] = {**fields.get("protocol", {}), "policy": str(policy)}  # type: ignore[dict-item]
        fields["rounds"] = 0
    if split is not None:
        fields["tasks"] = {"split": split}
    if seed is not None:
        fields["seed"] = seed
    return fields


def _name(config: Path, settings: Settings) -> str:
    name = settings.protocol.name
    return config.stem if config.stem.endswith(name) else f"{config.stem}-{name}"
