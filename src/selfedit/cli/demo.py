"""`selfedit demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

EMBEDDED = "embedded"
# A model of 135 million parameters follows a short, usual request; asked for implications it repeats itself.
_OWN_WORDS = """\
Rewrite this text in your own words. Keep every name, number and date.

{title}
{context}"""


def demo(
    *,
    model: str = EMBEDDED,
    out: Path | None = None,
    seed: int = 0,
    rounds: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    json_lines: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Watch a model teach itself, on this machine. The tiny one that comes with the package needs no download.

    It reads passages about made-up people, towns, companies and ships, and
    writes its own training notes. It is trained on them, tested without the
    passage, and reset. Reinforcement learning then rewards the notes that
    helped. At the end, a ladder compares what the model learns before and
    after, and report.html shows it.

    With --model a pretrained model does the same on passages of our own about
    things that no model can know.

    If it was stopped, run the same command again: it continues where it stopped.

    For example:
      selfedit demo
      selfedit demo --seed 1 --rounds 3 --out runs/longer
      selfedit model get smollm2-135m-instruct
      selfedit demo --model smollm2-135m-instruct
      selfedit demo --json-lines > events.jsonl

    Parameters
    ----------
    model
        A pretrained model: a name of `selfedit model list`, a directory in the
        Hugging Face format, or a hub id (default: the tiny one). One of 135
        million parameters takes about 12 minutes on two cores.
    out
        Directory of the run (default: runs/demo-seed-N; with a pretrained
        model, runs/demo-MODEL-seed-N).
    seed
        Seed of every random number. Another seed draws other passages.
    rounds
        Rounds of reinforcement learning (default: 3; of a pretrained model 1).
    json_lines
        Print one JSON object per line instead of the live view.
    """
    from ..config import make_settings
    from .paths import check_directory
    from .running import execute

    fields: dict[str, Any] = {"seed": seed}
    name = "demo"
    if model != EMBEDDED:
        fields |= of_pretrained(model)
        name = f"demo-{Path(model).name}"
    if rounds is not None:
        fields["rounds"] = rounds
    directory = out or Path("runs") / f"{name}-seed-{seed}"
    check_directory(directory)
    execute(make_settings(fields, "demo"), directory, json_lines)


def of_pretrained(model: str) -> dict[str, Any]:
    """What the demo of a pretrained model sets: passages that it can't know, and no more work than two cores do in minutes.

    Everything was chosen on training passages, with SmolLM2-135M-Instruct.
    """
    from ..engine.model.loading import has_chat_template
    from ..evaluation.machine import model_path

    upper_third = "all-linear@66%:"  # what is below is computed once per passage, not once per step
    return {
        "rounds": 1,
        "model": {
            "path": model,
            "templates": "chat" if has_chat_template(model_path(model)) else "general",
            "targets": upper_third,
        },
        "tasks": {"source": "passages", "per_round": 4, "dev": 2, "evaluation": 8},
        "edits": {
            "form": "own_words",
            "templates": {"own_words": _OWN_WORDS},
            "per_task": 3,
            "max_new_tokens": 120,
            "temperature": 0.7,
        },
        "inner": {"steps": 6, "batch_size": 4, "lr": 4e-3, "rank": 16, "alpha": 32.0},
        # Models of this size answer in sentences.
        "reward": {"metric": "offline", "max_answer_tokens": 24, "pilot": 1},
        "algorithm": {
            "name": "rest_em",
            "rest_em": {"keep": 1},
            "lr": 3e-4,
            "rank": 16,
            "alpha": 32.0,
            "targets": upper_third,
        },
        "guards": {"anchors": 8},
        "ladder": {
            "rungs": ("no_edit", "passage_only", "base_edits", "rounds", "in_context"),
            "passage_lr_factors": (1.0,),
        },
    }
