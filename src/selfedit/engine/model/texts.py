"""Texts as token ids: where special tokens count, and where they are plain text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import cast

from transformers import PreTrainedTokenizerBase

from ...errors import ModelError


class Texts:
    """A model's tokenizer; ``eos_id`` ends a text. A tokenizer keeps the settings of its last call, so threads take turns."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self._lock = tokenizer, Lock()
        self.eos_id = cast(int, tokenizer.eos_token_id)

    def _encode(self, text: str, *, start: bool, plain: bool) -> list[int]:
        """``start``: with the special tokens that begin a document; ``plain``: those spelled out in ``text`` are plain text."""
        with self._lock:
            ids = self.tokenizer(text, add_special_tokens=start, split_special_tokens=plain, verbose=False)["input_ids"]
        return cast(list[int], ids)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a text that starts a document (with the tokenizer's own special tokens)."""
        return self._encode(text, start=True, plain=True)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that continues one; special tokens spelled out in it are plain text."""
        return self._encode(text, start=False, plain=True)

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids as text, special tokens left out."""
        with self._lock:
            return cast(str, self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def encode_chat(self, prompt: str) -> list[int]:
        """Token ids of a user's turn in the chat template (without one: of a prompt): the template's special tokens count, those
        spelled out in the prompt are plain text.

        Raises:
            ModelError: the template does not show the prompt exactly once.
        """
        if not self.tokenizer.chat_template:
            return self.encode_prompt(prompt)
        # A stand-in that no prompt contains and no tokenizer treats specially shows where the prompt goes.
        marker = "qz" + hashlib.sha256(prompt.encode()).hexdigest()
        turn = [{"role": "user", "content": marker}]
        shown = cast(str, self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
        parts = shown.split(marker)
        if len(parts) != 2:
            raise ModelError("the chat template does not show the user's text exactly once; clear it to use plain prompts")
        before, after = (self._encode(part, start=False, plain=False) for part in parts)
        return [*before, *self.encode(prompt), *after]

    def save_tokenizer(self, directory: Path) -> None:
        """Write the tokenizer's files."""
        with self._lock:
            self.tokenizer.save_pretrained(directory)
