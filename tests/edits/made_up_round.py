"""A small made-up round in the form that the public SEAL code logs."""

from __future__ import annotations

from typing import Any


def completion(text: str, right: str, before: str = "") -> dict[str, Any]:
    """A self-edit whose evaluations are told by digits: "10 11" is one of two right, then both. ``before`` likewise."""
    questions = [
        {"rep": rep, "question": "Who?", "answer": "Mara", "adapter_answer": "Mara", "adapter_correct": digit == "1"}
        for rep, digits in enumerate(right.split())
        for digit in digits
    ]
    for question, digit in zip(questions, before.replace(" ", ""), strict=False):
        question["baseline_correct"] = digit == "1"
    return {"text": text, "questions": questions}


def mean_only(text: str, mean: float, baseline: float | None = None) -> dict[str, Any]:
    """A self-edit of which only the means are logged."""
    return {"text": text, "questions": [], "stats": {"adapter_mean": mean, "baseline_mean": baseline}}


def made_up_round() -> dict[str, Any]:
    """Two passages: three edits of two evaluations with three questions, and two with one evaluation of two."""
    first = [
        completion("a", "100 110", "100 100"),
        completion("b", "111 000", "100 100"),
        completion("c", "000 100", "100 100"),
    ]
    second = [completion("d", "00", "01"), completion("e\n2", "01", "01")]
    return {
        "overall": {"adapter_mean_accuracy": 0.4},
        "k_completions": 3,
        "articles": [
            {"title": "One", "context": "Mara is here.", "prompt": "List: Mara is here.\n", "completions": first},
            {"title": "Two", "context": "Ørsted.", "prompt": "List: Ørsted.\n", "completions": second},
        ],
    }
