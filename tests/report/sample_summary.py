"""Hand-made summaries, as the files hold them: a full one with hostile text in it, and the smallest; and both as types."""

from __future__ import annotations

from typing import Any

from selfedit.config import make_settings
from selfedit.summary import SCHEMA_VERSION, Summary, new_summary

HOSTILE = "<script>alert(1)</script>"


def _rung(rung: str, accuracy: float, steps: int = 16, tokens: int = 48_512, n_tasks: int = 60) -> dict[str, Any]:
    return {
        "rung": rung,
        "accuracy": accuracy,
        "low": max(0.0, accuracy - 0.06),
        "high": min(1.0, accuracy + 0.06),
        "n_tasks": n_tasks,
        "n_probes": n_tasks * 8,
        "steps": steps,
        "trained_tokens": tokens,
        "failed_edits": 0,
        "ungraded_tasks": 0,
        "lines_held_out": 0,
        "reward": accuracy,
        "logprob": 2 * accuracy - 4.25,
    }


def _answers(right: set[int]) -> list[dict[str, Any]]:
    asked = [
        ("Where was Mara Velkin born?", "Oskarstad", "direct"),
        ("In what place did Mara Velkin come into the world?", "Oskarstad", "reworded"),
        ("Who was born in Oskarstad?", "Mara Velkin", "reversed"),
        ("What does the company that pays the wages of Mara Velkin make?", "lanterns", "derived"),
    ]
    return [
        {
            "question": q,
            "gold": gold,
            "text": gold if i in right else f"Torven {HOSTILE}",
            "correct": i in right,
            "kind": kind,
        }
        for i, (q, gold, kind) in enumerate(asked)
    ]


def _example(i: int, family: str) -> dict[str, Any]:
    base = [
        ("The text tells something about Mara Velkin.", "vague"),
        (f"She has a house in {HOSTILE}.", "pronoun"),
        ("The childhood of Mara Velkin began in Oskarstad.", "prose"),
    ]
    later = [
        ("Question: What is the birthplace of Mara Velkin? Answer: Oskarstad", "qa"),
        ("Question: Whose birthplace is Oskarstad? Answer: Mara Velkin", "qa_reversed"),
        ("The birthplace of Mara Velkin is Oskarstad.", "forward"),
        ("Question: What is the product of the employer of Mara Velkin? Answer: lanterns", "qa_derived"),
    ]

    def stage(rung: str, lines: list[tuple[str, str]], right: set[int]) -> dict[str, Any]:
        return {
            "rung": rung,
            "edit": "\n".join(f"- {text}" for text, _ in lines),
            "lines": [{"text": text, "style": style} for text, style in lines],
            "answers": _answers(right),
        }

    return {
        "task_id": f"dev-{i}",
        "family": family,
        "context": "The childhood of Mara Velkin began in Oskarstad. She found work at Brightwell & Sons. "
        f"Brightwell & Sons is known for lanterns. {HOSTILE}",
        "stages": [stage("no_edit", [], set()), stage("base_edits", base, {0}), stage("round_2", later, {0, 1, 2})],
    }


def round_row(n: int) -> dict[str, Any]:
    """A row of ``rounds``; round 0 is the base and has no guards, round 3 was rolled back."""
    shares = {"vague": 0.3 - 0.1 * n, "prose": 0.25 - 0.05 * n, "pronoun": 0.1, "forward": 0.1, "qa": 0.15 + 0.1 * n}
    shares |= {"qa_reversed": 0.05 + 0.05 * n, "derived": 0.05}
    row: dict[str, Any] = {
        "round": n,
        "verdict": "base",
        "guards": {},
        "mean_reward": 0.21 + 0.08 * n,
        "valid_share": 0.97,
        "selected_share": 0.2,
        "n_edits": 120,
        "style_shares": shares,
    }
    if n:
        limits = {"max_kl": 0.5, "max_retention_drop": 0.1, "max_norm_ratio": 1.0, "max_dev_drop": 0.1}
        guards = {
            "kl": 0.11 * n,
            "retention": 0.96,
            "dev_accuracy": 0.22 + 0.07 * n,
            "norm_ratio": 0.31,
            "limits": limits,
        }
        rolled_back = n == 3
        row |= {"guards": guards, "verdict": "rolled_back" if rolled_back else "accepted"}
        row["reasons"] = ["KL to the base 0.61 is over its limit 0.5"] if rolled_back else []
    return row


def full_summary() -> dict[str, Any]:
    """Every key of a single run, with eleven rungs, four rounds and three examples."""
    settings = make_settings({"seed": 3, "rounds": 3})
    ladder = [
        _rung("no_edit", 0.021, 0, 0),
        _rung("passage_only", 0.164),
        _rung("base_edits", 0.231),
        _rung("base_self_qa", 0.262),
        _rung("round_1", 0.318, n_tasks=24),
        _rung("round_2", 0.402),
        _rung("best_of_k", 0.487, n_tasks=24),
        _rung("perfect_edits", 0.731, tokens=1_248_512),
        _rung("rl_edits_base_learner", 0.379),
        _rung("passage_only_rl_learner", 0.171),
        _rung("in_context", 0.953, 0, 0),
    ]
    kinds = {"direct": 0.2, "reworded": 0.1, "reversed": 0.0, "derived": -0.1}
    return {
        "schema_version": SCHEMA_VERSION,
        "ladder": ladder,
        "paired": [
            {"a": "round_2", "b": "base_edits", "difference": 0.171, "low": 0.092, "high": 0.251},
            {"a": "round_2", "b": "passage_only", "difference": 0.238, "low": 0.151, "high": 0.319},
            {"a": "passage_only_rl_learner", "b": "passage_only", "difference": 0.007, "low": -0.031, "high": 0.045},
        ],
        "rounds": [round_row(n) for n in range(4)],
        "reliability": reliability_row(of="logprob", reliability=0.62, low=0.5, high=0.7, seeds_for_80=3),
        "by_kind": [
            {"rung": row["rung"], "kind": kind, "accuracy": min(1.0, max(0.0, row["accuracy"] + more)), "n": 120}
            for row in ladder
            for kind, more in kinds.items()
        ],
        "per_task": {row["rung"]: {f"t{i}": row["accuracy"] for i in range(3)} for row in ladder},
        "style_shares": {"base_edits": {"vague": 1.0}},
        "examples": [_example(0, "e1"), _example(1, "e2"), _example(2, "e3")],
        "notes": [f"random weights: accuracy is meaningless {HOSTILE}"],
        "verbatim_share": 0.0,
        "base_sha256_before": "ab" * 32,
        "base_sha256_after": "ab" * 32,
        "seed": 3,
        "settings_sha256": settings.sha256(),
        "settings": settings.fields(),
        "selfedit_version": "0.1.0",
        "policies": [None, "cd" * 32, "ef" * 32, "ef" * 32],
        "dtype": "fp32",
        "timing": {
            "total_seconds": 431.5,
            "stages": {"ladder": 200.1, "round 1": 115.0, "round 2": 116.4},
            "dtype": "fp32: as set",
        },
    }


def minimal_summary() -> dict[str, Any]:
    """The smallest result: one rung."""
    empty: dict[str, Any] = {name: [] for name in ("paired", "rounds", "by_kind", "examples", "notes", "policies")}
    kept = ("base_sha256_before", "base_sha256_after", "dtype", "seed", "settings_sha256", "selfedit_version")
    return {
        "schema_version": SCHEMA_VERSION,
        "ladder": [_rung("no_edit", 0.0)],
        **empty,
        "reliability": reliability_row(),
        "per_task": {"no_edit": {"t0": 0.0}},
        "style_shares": {},
        "verbatim_share": 0.0,
        "settings": {},
        "timing": {"total_seconds": 0.1, "stages": {}, "dtype": "fp32: as set"},
        **{name: value for name, value in full_summary().items() if name in kept},
    }


def full(**changed: Any) -> Summary:
    """The full summary as a type, with other fields where they are named."""
    return new_summary(full_summary() | changed)


def minimal(**changed: Any) -> Summary:
    """The smallest summary as a type, with other fields where they are named."""
    return new_summary(minimal_summary() | changed)


def arm(merge: str, immediate: float, retained: float | None, n: int = 3, **more: Any) -> dict[str, Any]:
    """An arm of a stream of ``n`` passages."""
    return {
        "merge": merge,
        "immediate": immediate,
        "retained": retained,
        "retained_share": {"mean": 0.5, "low": 0.4, "high": 0.6},
        "backward_transfer": {"mean": -0.123, "low": -0.2, "high": -0.1},
        "general_before": 0.98,
        "general_after": 0.42,
        "intervals": {"immediate": None, "retained": None},
        "seeds": 1,
        "ungraded": 0,
        "optimiser_steps": 12.0,
        "trained_tokens": 480.0,
        "lessons": 0,
        "decisions": {"accepted": 2, "scaled": 1, "rejected": 0},
        "matrix": {str(k): [0.25] * k for k in range(1, n + 1)},
        "steps": [],
        **more,
    }


def reliability_row(**measured: Any) -> dict[str, Any]:
    """A row of `rewards.reliability`, in which only what is named was measured."""
    names = ("reliability", "low", "high", "var_within", "var_observed", "var_between")
    unknown = dict.fromkeys((*names, "seeds_for_80", "seeds_low", "seeds_high"))
    return {"of": "gain", **unknown, "n_edits": 0, "n_tasks": 0, **measured}
