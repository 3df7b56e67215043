"""Thoughts of reasoning models: where they stand in a text, and the text without them.

A model marks its thoughts in one of many ways: ``<think>...</think>`` and tags of other names, ``[THINK]...[/THINK]``, special
tokens, or a channel of their own before the ``final`` one. The prompt may hold the opening tag, so that only the closing one is
in the text; and a text that was cut off may have the opening one alone.
"""

from __future__ import annotations

import re

_NAME = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|scratchpad|reflection)"
# Special tokens that name a thought, such as <|begin_of_thought|>, <|START_THINKING|> and <|inner_prefix|>.
_THOUGHT = r"\w*th(?:ought|ink)\w*"
_OPENING = re.compile(
    rf"<{_NAME}(?:\s[^<>\n]*)?>|(?-i:\[THINK\])|◁think▷|<\|(?:(?:begin|start)(?:_of)?_{_THOUGHT}|inner_prefix)\|>"
    r"|<\|channel\|>\s*(?:analysis|commentary)[^<\n]*<\|message\|>|<\|channel>\s*thought\b",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    rf"</{_NAME}\s*>|(?-i:\[/THINK\])|◁/think▷|<\|(?:end(?:_of)?_{_THOUGHT}|inner_suffix)\|>"
    r"|<\|channel\|>\s*final[^<\n]*<\|message\|>|<channel\|>",
    re.IGNORECASE,
)
_EITHER = re.compile(f"(?P<opening>{_OPENING.pattern})|{_CLOSING.pattern}", re.IGNORECASE)
# Granite 3.2 has words in place of tags.
_WORDS = re.compile(r"\A\s*here is my thought process:.*?(?:here is my response:|\Z)", re.IGNORECASE | re.DOTALL)
# What some models put around the text that follows a thought.
_AROUND_TEXT = re.compile(
    r"</?(?:response|answer|solution)>|<\|(?:(?:start|end)_response|(?:begin|end)_of_solution|start|end|return)\|>", re.IGNORECASE
)
_CHANNELS = ("<|channel|>", "<|message|>")


def without_thoughts(text: str) -> str:
    """The text without its thoughts; empty where nothing else is in it, as of a text that was cut off while the model thought.

    Everything before a closing tag that has no opening one is a thought, too: the prompt opened it. A text without thoughts is
    returned as it is.
    """
    kept: list[str] = []
    spoken = _WORDS.sub("", text)
    start, inside = 0, False
    for tag in _EITHER.finditer(spoken):
        if tag["opening"]:
            kept += [] if inside else [spoken[start : tag.start()]]
        elif not inside:
            kept.clear()
        inside, start = bool(tag["opening"]), tag.end()
    kept += [] if inside else [spoken[start:]]
    rest = "".join(kept)
    return text if rest == text else _AROUND_TEXT.sub("", rest).strip()


def open_thought(prompt: str) -> str:
    """The opening tag of a thought that the prompt leaves open at its end; empty where there is none."""
    tags = list(_EITHER.finditer(prompt))
    return tags[-1][0] if tags and tags[-1]["opening"] else ""


def closes_thought(text: str) -> bool:
    """Whether a thought ends in the text, and none is open at its end."""
    return bool(_CLOSING.search(text)) and not open_thought(text)


def closed(opening: str) -> str:
    """The tag that closes the thought which ``opening`` opens."""
    if "channel" in opening:
        return "<channel|>" if opening.startswith("<|channel>") else "<|end|><|start|>assistant<|channel|>final<|message|>"
    for begin, end in (("begin", "end"), ("BEGIN", "END"), ("start", "end"), ("START", "END"), ("prefix", "suffix")):
        if opening.startswith("<|") and begin in opening:
            return opening.replace(begin, end, 1)
    name = opening[1:].split()[0].rstrip(">")
    return f"{opening[0]}/{name}" + ("" if opening[-1] in "]▷" else ">")


def is_thought_tag(token: str) -> bool:
    """Whether a token marks a thought, or where one begins or ends: it has to stay visible in a decoded text."""
    return token in _CHANNELS or bool(_EITHER.fullmatch(token)) or token in ("<|channel>", "<channel|>")
