"""Texts as token ids: where special tokens count, where they are plain text, and how two texts become one.

An answer is encoded together with its prompt, because a tokenizer may see the whole differently from its parts: it may put a
space before every text (a dummy prefix), or merge the prompt's last characters with the answer's first ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from ...errors import ModelError
from ...thoughts import is_thought_tag
from .turns import ChatTemplate

_ANCHORS = ("\n", ".", "a")  # texts that another one is encoded behind, and taken away again


class Pair(NamedTuple):
    """A prompt's token ids and its answer's, which together are the ids of the whole text.

    ``lead``: the end of the prompt that the answer's first token takes in, nearly always empty.
    """

    prompt: list[int]
    answer: list[int]
    lead: str = ""


class Part(NamedTuple):
    """A part of a text; ``special``: the special tokens that it spells out count."""

    text: str
    special: bool = False


class Texts:
    """A model's tokenizer; ``eos_id`` ends a text. A tokenizer keeps the settings of its last call, so threads take turns."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template_arguments: Mapping[str, Any] | None = None) -> None:
        """``template_arguments``: of the chat template, beside `templates.TEMPLATE_ARGUMENTS`."""
        self.tokenizer, self._lock = tokenizer, Lock()
        self.eos_id = cast(int, tokenizer.eos_token_id)
        self._arguments = dict(template_arguments or {})
        self._chat: ChatTemplate | None = None
        self._ids = {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
        special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
        self._special_ids = {*special.values(), *tokenizer.all_special_ids} - {tokenizer.unk_token_id}
        # What a decoded text leaves out: special tokens, but for those that mark thoughts.
        marks = {i for token, i in special.items() if is_thought_tag(token)}
        self._hidden = {*special.values(), *tokenizer.all_special_ids} - marks
        self._before = self._beginning()
        self._has_prefix = self._behind("a") != self._encode("a")
        self._same_behind_special = self._encode(f"{tokenizer.eos_token}a", plain=False)[1:] == self._encode("a")

    def _encode(self, text: str, *, start: bool = False, plain: bool = True) -> list[int]:
        """``start``: with the special tokens around a document; ``plain``: those spelled out in ``text`` are plain text."""
        with self._lock:
            found = self.tokenizer(text, add_special_tokens=start, split_special_tokens=plain, verbose=False)["input_ids"]
        ids = cast(list[int], found)
        token = self._special.search(text) if plain and not start and not self._special_ids.isdisjoint(ids) else None
        if token and len(token[0]) > 1:
            # To Unigram and WordPiece models it is a piece of text like any other: its first character stands alone then.
            middle = token.start() + 1
            ids = self._encode(text[:middle]) + self._behind(text[middle:])
        return ids

    def _beginning(self) -> list[int]:
        """The tokens that the tokenizer puts before a document. What it puts behind one does not belong behind a prompt."""
        bare, whole = self._encode("a"), self._encode("a", start=True)
        at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        return whole[:at]

    def _behind(self, text: str) -> list[int]:
        """Token ids of a text that stands behind another one."""
        for anchor in _ANCHORS:
            head, whole = self._encode(anchor), self._encode(anchor + text)
            if head and whole[: len(head)] == head:
                return whole[len(head) :]
        return self._encode(text)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a text that starts a document (with the special tokens that the tokenizer puts before it)."""
        return self._joined([Part(text)])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that continues one; special tokens spelled out in it are plain text."""
        return self._behind(text) if self._has_prefix else self._encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids as text, special tokens left out, but for those that mark thoughts."""
        shown = [i for i in ids if i not in self._hidden]
        with self._lock:
            return cast(str, self.tokenizer.decode(shown, clean_up_tokenization_spaces=False))

    def encode_chat(self, prompt: str, *, system: str = "", answering: bool = False) -> list[int]:
        """Token ids of a user's turn in the chat template (without one: of a prompt): the template's special tokens count, those
        spelled out in the prompt are plain text.

        ``system``: a message before it (at the beginning of the user's turn, where the template has none). ``answering``: up to
        where a short answer begins, so that a thought is closed before it.

        Raises:
            ModelError: the template can't show a user's turn, or does not show the prompt exactly once.
        """
        return self._joined(self._parts(prompt, chat=True, system=system, answering=answering)[0])

    def encode_pair(self, prompt: str, answer: str, *, chat: bool = False, system: str = "") -> Pair:
        """A prompt and its answer, with what ends an answer behind it: ``prompt + answer`` are the ids of the whole text.

        ``chat``, ``system``: as in `encode_chat`, and the answer begins as the template begins it.
        """
        parts, gap, end = self._parts(prompt, chat=chat, system=system, answering=True)
        asked, whole = self._joined(parts), self._joined([*parts, Part(gap + answer)])
        same = sum(1 for _ in takewhile(lambda ab: ab[0] == ab[1], zip(asked, whole, strict=False)))
        lead = self.decode(asked)[len(self.decode(asked[:same])) :] if same < len(asked) else ""
        return Pair(whole[:same], [*whole[same:], end], lead)

    @property
    def opens_thought(self) -> str:
        """The tag with which the chat template opens a thought in every prompt; empty where it opens none."""
        template = self._template()
        return template.opens_thought if template else ""

    @property
    def turn_end(self) -> tuple[int | None, str]:
        """What ends a turn of the chat template: its token, and its text where it is no token of its own."""
        template = self._template()
        tag = template.end_tag if template else ""
        token = self._ids.get(tag)
        return token, tag if token is None else ""

    def _template(self) -> ChatTemplate | None:
        """The tokenizer's chat template, as it is at the moment."""
        if not self.tokenizer.chat_template:
            return None
        try:
            source = self.tokenizer.get_chat_template()
        except ValueError as error:
            raise ModelError(f"the tokenizer has several chat templates and no default one ({error})") from None
        if self._chat is None or self._chat.source != source:
            self._chat = ChatTemplate(self.tokenizer, source, self._arguments)
        return self._chat

    def _parts(self, prompt: str, *, chat: bool, system: str, answering: bool) -> tuple[list[Part], str, int]:
        """A prompt's parts, the white space that begins its answer, and the token that ends the answer."""
        template = self._template() if chat else None
        if template is None:
            return [Part(prompt)], "", self.eos_id
        turn, gap = template.turn(prompt, system), ""
        if answering:
            turn, gap = template.answering(turn)
        end = self.turn_end[0]
        return [Part(turn.before, True), Part(turn.prompt), Part(turn.after, True)], gap, self.eos_id if end is None else end

    def _joined(self, parts: Sequence[Part]) -> list[int]:
        """Token ids of the parts as one text. With parts in which special tokens count, these say how a document starts."""
        text = "".join(part.text for part in parts)
        if not any(part.special for part in parts):
            return [*self._before, *self._encode(text)]
        own = sum(len(self._special.findall(part.text)) for part in parts if part.special)
        if own == len(self._special.findall(text)):
            return self._encode(text, plain=False)
        # Somebody spelled a special token out: the runs of text between the template's own tokens are encoded one by one.
        ids, run = list[int](), ""
        for part in parts:
            at = 0
            for token in self._special.finditer(part.text) if part.special else ():
                ids += [*self._run(run + part.text[at : token.start()], first=not ids), self._ids[token[0]]]
                at, run = token.end(), ""
            run += part.text[at:]
        return ids + self._run(run, first=not ids)

    def _run(self, text: str, *, first: bool) -> list[int]:
        """Token ids of the text between two special tokens."""
        if not text:
            return []
        return self._encode(text) if first or self._same_behind_special else self._behind(text)

    def save_tokenizer(self, directory: Path) -> None:
        """Write the tokenizer's files."""
        with self._lock:
            self.tokenizer.save_pretrained(directory)
