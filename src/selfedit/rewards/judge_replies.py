"""What a judge's reply says: a verdict, a reason why there is none, or a provider's error that came with 200 OK."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..thoughts import open_thought, without_thoughts

NO_COMPLETION = "the judge's reply is not a chat completion"  # such as a maintenance page sent with 200 OK
MORE_TOKENS = (
    "raise max_tokens in reward.judge.body (such as body = {max_tokens = 2000}), or turn thinking off there, in the way that "
    "the endpoint has for it"
)
_PASSING = (408, 409, 425, 429)  # HTTP's numbers of what may be gone a moment later; 5xx, too
_AROUND_AN_ANSWER = re.compile(r"</?(?:answer|response|output)>|<\|[^|<>]*\|>", re.IGNORECASE)
_SHOWN, _ERROR_SHOWN = 60, 300  # characters of a reply, and of a provider's message


@dataclass(frozen=True)
class Failure:
    """An error that came with 200 OK. ``passing``: it may be gone a moment later; ``refused``: the key is the reason."""

    message: str
    passing: bool
    refused: bool = False


@dataclass(frozen=True)
class Reading:
    """A judge's verdict (None: it gave none), the reason where there is none, and whether more tokens may bring one."""

    right: bool | None
    problem: str = ""
    cut: bool = False


def failure_in(reply: object) -> Failure | None:
    """What went wrong, where ``reply`` (JSON as it arrived) is no chat completion with a message; else None."""
    if not isinstance(reply, Mapping):
        return Failure(NO_COMPLETION, passing=True)
    choice = _first_choice(reply)
    error = reply.get("error") or choice.get("error")
    if not error and reply.get("object") == "error":
        error = reply
    if not error and choice.get("finish_reason") == "error":
        error = "the provider gives no reason"
    if error:
        return _told(error)
    if isinstance(choice.get("message"), Mapping):
        return None
    said = reply.get("detail") or reply.get("message") or ""
    return Failure(NO_COMPLETION + (f": {_in_short(str(said))}" if said else ""), passing=True)


def read_reply(reply: Mapping[str, Any]) -> Reading:
    """The verdict in a chat completion: what follows the thought, if there is one, is the word yes or no."""
    choice = _first_choice(reply)
    message, finish = choice["message"], choice.get("finish_reason")
    content = message.get("content")
    text, thought = _text_of(content), message.get("reasoning_content") or message.get("reasoning")
    right = read_verdict(text)
    if right is not None:
        return Reading(right)
    visible = without_thoughts(text).strip()
    at_limit = str(finish).casefold() in ("length", "max_tokens")
    if at_limit or open_thought(text) or (thought and not visible and finish is None):
        return Reading(None, f"the judge was cut while thinking, before its verdict; {MORE_TOKENS}", cut=True)
    if finish == "content_filter" or message.get("refusal"):
        why = f": {_in_short(str(message['refusal']))}" if message.get("refusal") else " (content_filter)"
        return Reading(None, f"the judge refused to answer{why}")
    said = visible if isinstance(content, str) or visible else str(content)
    return Reading(None, f"the judge did not say what it was asked for: {said[:_SHOWN]!r}")


def read_verdict(said: object) -> bool | None:
    """True for yes and False for no, where ``said`` is that one word (a thought before it, case, quotes and a full stop
    aside); else None.
    """
    if not isinstance(said, str) or open_thought(said):  # cut while thinking
        return None
    word = _AROUND_AN_ANSWER.sub("", without_thoughts(said))
    return {"yes": True, "no": False}.get(word.strip().strip("\"'*`.!").casefold())


def _text_of(content: object) -> str:
    """A message's text, of one piece or of parts; parts that are thoughts are left out."""
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if part.get("type", "text") in ("text", "output_text")]
    return "".join(text for text in texts if isinstance(text, str))


def _first_choice(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) else {}


def _told(error: object) -> Failure:
    """A provider's error: an object with message and code, of whatever depth, or a text."""
    if not isinstance(error, Mapping):
        return Failure(f"its provider says: {_in_short(str(error))}", passing=True)
    metadata = error.get("metadata")
    more = metadata if isinstance(metadata, Mapping) else {}
    raw = more.get("raw") or ""
    parts = [error.get("message"), raw if isinstance(raw, str) else json.dumps(raw), more.get("provider_name")]
    said = "; ".join(str(part) for part in parts if part) or json.dumps(error, default=str)
    code = error.get("code") or error.get("status") or error.get("type") or ""
    number = int(code) if str(code).isdigit() else 0
    named = f"{code} {said}".casefold()
    passing = not number or number in _PASSING or number >= 500 or "rate limit" in named or "rate_limit" in named
    refused = number in (401, 403) or (not number and "api_key" in str(code))
    return Failure(f"its provider says: {_in_short(said)}{f' ({code})' if code else ''}", passing and not refused, refused)


def _in_short(text: str) -> str:
    return " ".join(text.split())[:_ERROR_SHOWN]
