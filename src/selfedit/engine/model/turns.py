"""A model's chat template: how it shows a user's turn, where the answer begins and ends, and where the model would think."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import date
from functools import cached_property
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from ...errors import ModelError
from ...templates import TEMPLATE_ARGUMENTS
from ...thoughts import closed, closes_thought, open_thought

_DIRECTIVES = ("%-d", "%-m", *(f"%{letter}" for letter in "aAbBdejmyYHIMSpFDxXcT"))
# What ends a turn, where it is no token of its own: a tag such as <|im_end|> or [END].
_TAG = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")


class Turn(NamedTuple):
    """A user's turn as the template shows it: the ``prompt`` in the middle of the template's own text."""

    before: str
    prompt: str
    after: str


class ChatTemplate:
    """A tokenizer's chat template with its ``arguments``; those that are not given have `TEMPLATE_ARGUMENTS`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str, arguments: Mapping[str, Any]) -> None:
        """``source``: the template's text."""
        self.source, self._tokenizer = source, tokenizer
        self._arguments = {**TEMPLATE_ARGUMENTS, **arguments}
        self._dated = with_date(source, date.fromisoformat(self._arguments.pop("today")))

    def turn(self, prompt: str, system: str = "") -> Turn:
        """A user's turn after the system message, up to where the model writes.

        Raises:
            ModelError: the template can't show a turn, or does not show the prompt exactly once.
        """
        # A stand-in that no prompt contains and no tokenizer treats specially shows where the prompt goes.
        marker = _marker(prompt)
        parts = self._shown(self._asked(marker, system)).split(marker)
        if len(parts) != 2:
            raise ModelError("the chat template does not show the user's text exactly once; clear it to use plain prompts")
        before, after = parts
        shown = self._shown(self._asked(prompt, system))
        if shown.startswith(before) and shown.endswith(after) and len(shown) >= len(before) + len(after):
            prompt = shown[len(before) : len(shown) - len(after)]  # many templates strip white space
        return Turn(before, prompt, after)

    def answering(self, turn: Turn) -> tuple[Turn, str]:
        """The turn up to where its answer begins, with any thought closed, and the white space that begins an answer."""
        after = turn.after
        if tag := open_thought(after):
            return turn._replace(after=f"{after}{'' if after.endswith(chr(10)) else chr(10)}\n{closed(tag)}\n\n"), ""
        if self._gap.strip():
            return turn._replace(after=after + self._gap), ""
        return turn, self._gap

    @cached_property
    def opens_thought(self) -> str:
        """The tag with which the template opens a thought in every prompt; empty where it opens none."""
        return open_thought(self.turn("").after)

    @cached_property
    def end(self) -> str:
        """The template's own text behind an answer; empty where it shows no answers."""
        return self._answered[1]

    @property
    def end_tag(self) -> str:
        """The token or tag with which that text begins; empty where it begins with something else."""
        end = self.end.lstrip()
        added = [token.content for token in self._tokenizer.added_tokens_decoder.values() if token.content.strip()]
        tag = _TAG.match(end)
        return max((token for token in added if end.startswith(token)), key=len, default=tag[0] if tag else "")

    @property
    def _gap(self) -> str:
        return self._answered[0]

    @cached_property
    def _answered(self) -> tuple[str, str]:
        """What the template writes between the place where the model begins and an answer's text, and behind the text.

        The first only where it is white space, or closes a thought (or names the channel of answers).
        """
        question, answer = _marker("question"), _marker("answer")
        try:
            asked = self._shown(self._asked(question, ""))
            messages = [*self._asked(question, ""), {"role": "assistant", "content": answer}]
            parts = self._shown(messages, ask=False).split(answer)
        except ModelError:  # it shows no answers
            return "", ""
        if len(parts) != 2:
            return "", ""
        gap = parts[0].removeprefix(asked) if parts[0].startswith(asked) else ""
        return gap if not gap.strip() or closes_thought(gap) else "", parts[1]

    def _asked(self, prompt: str, system: str) -> list[dict[str, str]]:
        if not system:
            return [{"role": "user", "content": prompt}]
        if self._has_system_role:
            return [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        return [{"role": "user", "content": f"{system}\n\n{prompt}"}]

    @cached_property
    def _has_system_role(self) -> bool:
        """Whether the template shows a system message; some refuse one, and some leave it out."""
        marker = _marker("system")
        try:
            shown = self._shown([{"role": "system", "content": marker}, {"role": "user", "content": "a"}])
        except ModelError:
            return False
        return marker in shown

    def _shown(self, messages: list[dict[str, str]], *, ask: bool = True) -> str:
        try:
            shown = self._tokenizer.apply_chat_template(
                messages, chat_template=self._dated, tokenize=False, add_generation_prompt=ask, **self._arguments
            )
        except Exception as error:  # the template is a program that came with the checkpoint
            raise ModelError(
                f"the chat template can't show a user's turn ({' '.join(str(error).split())[:200]}); "
                "set model.template_arguments, or take model.templates = 'general'"
            ) from error
        return cast(str, shown)


def with_date(source: str, today: date) -> str:
    """A chat template in which ``strftime_now`` gives a fixed date, at midnight, on whatever day it is used."""
    if "strftime_now" not in source:
        return source
    chain = "".join(f" | replace({json.dumps(d)}, {json.dumps(today.strftime(d))})" for d in _DIRECTIVES)
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{chain} }}}}{{%- endmacro %}}\n{source}"


def _marker(text: str) -> str:
    return "qz" + hashlib.sha256(text.encode()).hexdigest()
