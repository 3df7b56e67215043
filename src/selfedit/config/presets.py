"""Starting points for settings: fields that differ from the defaults."""

from __future__ import annotations

from typing import Any

# The published recipe (arXiv 2506.10943, section 4.2 and appendix; the inner loop as its public code has it) for a 1-7B model
# on one GPU: q and v adapted, 10 epochs of single sequences, each filled up to 2048 tokens with EOS in the loss, the best of 5.
_PAPER: dict[str, Any] = {
    "rounds": 2,
    "model": {"targets": "paper"},
    "tasks": {"per_round": 50, "evaluation": 200},
    "edits": {
        "per_task": 5,
        "max_new_tokens": 1024,
        "temperature": 1.0,
        "top_p": 0.95,
        "max_lines": 30,
        "rules": "seal",
    },
    "inner": {"epochs": 10, "batch_size": 1, "pad_to": 2048, "lr": 1e-3, "rank": 32, "alpha": 64.0, "seeds": 3},
    "reward": {"metric": "exact_match", "max_answer_tokens": 64},
    "algorithm": {
        "name": "rest_em",
        "rank_by": ["gain"],
        "rest_em": {"keep": 1, "positive_only": False},
        "epochs": 2,
        "batch_size": 10,
        "lr": 3e-4,
        "rank": 64,
        "alpha": 128.0,
    },
}

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {},
    "paper": _PAPER,
    # The same without the padding: one EOS a sequence, and a small part of the computation.
    "clean": {**_PAPER, "inner": {**_PAPER["inner"], "pad_to": 0}},
}
