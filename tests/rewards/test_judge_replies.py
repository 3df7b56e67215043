"""What judges that think, and providers that report their errors with 200 OK, say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from judge_server import completion

from selfedit.rewards.judge_replies import failure_in, read_reply, read_verdict


def reply(content: object, finish: str | None = "stop", **more: object) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(completion(content, finish, **more))
    return made


@pytest.mark.parametrize(
    "content",
    [
        "<think>\nmatches\n</think>\n\nyes",
        "Seven is 7. No doubt.\n</think>\n\nYes.",  # the template has opened the thought
        "<think>no</think><think>or\nyes</think>**Yes**",
        "<seed:think>well</seed:think>yes",
        "[THINK]no?[/THINK]yes",
        "<|channel|>analysis<|message|>no?<|end|><|start|>assistant<|channel|>final<|message|>yes<|return|>",
        "<thinking>no</thinking>\n<answer>yes</answer>",
        [{"type": "text", "text": "yes"}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "no"}]}, {"type": "text", "text": "ye"}, {"text": "s"}],
    ],
)
def test_the_verdict_is_what_follows_a_thought(content: object) -> None:
    assert read_reply(reply(content)).right is True
    assert read_reply(reply(content, reasoning_content="no, or yes")).right is True


@pytest.mark.parametrize("said", ["<think>yes", "yes</think>", "</think>", "<think>yes</think>perhaps", "yes <think>no"])
def test_a_thought_is_no_verdict(said: str) -> None:
    assert read_verdict(said) is None


@pytest.mark.parametrize(
    ("content", "finish", "more"),
    [
        (None, "length", {"reasoning_content": "The reference says 7, and"}),
        ("", "length", {}),
        ("<think>\nThe reference says 7 and the", "length", {}),
        ("<think>\nThe reference says 7 and the", "stop", {}),
        ("Let me think: the reference", "length", {}),
        (None, None, {"reasoning": "Well"}),
        ([{"type": "thinking", "thinking": "Well"}], "length", {}),
    ],
)
def test_a_reply_that_was_cut_while_thinking_says_so(content: object, finish: str | None, more: dict[str, Any]) -> None:
    read = read_reply(reply(content, finish, **more))
    assert (read.right, read.cut) == (None, True)
    assert "cut while thinking" in read.problem
    assert "raise max_tokens in reward.judge.body" in read.problem


def test_a_refusal_is_told_and_is_no_cut() -> None:
    refused = read_reply(reply(None, refusal="I can't help with that."))
    assert (refused.cut, refused.problem) == (False, "the judge refused to answer: I can't help with that.")
    assert "content_filter" in read_reply(reply(None, "content_filter")).problem
    assert "did not say what it was asked for: 'Yes, or no.'" in read_reply(reply("Yes, or no.")).problem


INSIDE = {"code": 502, "message": "Upstream died"}


@pytest.mark.parametrize(
    ("sent", "told", "passing", "refused"),
    [
        ({"error": {"message": "Rate limit exceeded: free-models-per-day", "code": 429}}, "free-models-per-day", True, False),
        ({"choices": None, "error": {"message": "Provider returned error", "code": 502}}, "Provider returned error", True, False),
        ({"choices": [{"finish_reason": "error", "message": {"content": ""}, "error": INSIDE}]}, "Upstream died", True, False),
        ({"choices": [{"finish_reason": "error", "message": {"content": "yes"}}]}, "no reason", True, False),
        (
            {"error": {"message": "x", "code": 429, "metadata": {"raw": "slow down", "provider_name": "X"}}},
            "slow down",
            True,
            False,
        ),
        ({"error": {"message": "Insufficient credits", "code": 402}}, "Insufficient credits", False, False),
        ({"error": {"message": "No auth", "code": "401"}}, "No auth", False, True),
        ({"error": {"message": "Wrong", "code": "invalid_api_key"}}, "Wrong", False, True),
        ({"error": "the model is loading"}, "the model is loading", True, False),
        ({"object": "error", "message": "too long", "code": 400}, "too long", False, False),
        ({"detail": "Not here"}, "not a chat completion: Not here", True, False),
        ({"choices": []}, "not a chat completion", True, False),
        ({"choices": [{"message": None}]}, "not a chat completion", True, False),
        ([], "not a chat completion", True, False),
        (None, "not a chat completion", True, False),
    ],
)
def test_an_error_inside_a_good_reply_is_found_with_its_message(sent: Any, told: str, passing: bool, refused: bool) -> None:
    failed = failure_in(sent)
    assert failed is not None
    assert told in failed.message
    assert (failed.passing, failed.refused) == (passing, refused)
    assert failure_in(reply("yes")) is None
