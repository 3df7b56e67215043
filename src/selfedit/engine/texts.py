"""Texts as token ids: where special tokens count, and where they are plain text."""

from __future__ import annotations

import hashlib
from typing import cast

from transformers import PreTrainedTokenizerBase

from ..errors import ModelError


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, start: bool, plain: bool = True) -> list[int]:
    """``start``: with the special tokens that begin a document; ``plain``: those spelled out in ``text`` are plain text."""
    ids = tokenizer(text, add_special_tokens=start, split_special_tokens=plain, verbose=False)["input_ids"]
    return cast(list[int], ids)


def chat(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The prompt in the chat template (unchanged without one)."""
    if not tokenizer.chat_template:
        return prompt
    turn = [{"role": "user", "content": prompt}]
    return cast(str, tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def encode_chat(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Token ids of `chat`: the template's special tokens count, those spelled out in the prompt are plain text.

    Raises:
        ModelError: the template does not show the prompt exactly once.
    """
    if not tokenizer.chat_template:
        return encode(tokenizer, prompt, start=True)
    # A stand-in that no prompt contains and no tokenizer treats specially shows where the prompt goes.
    marker = "qz" + hashlib.sha256(prompt.encode()).hexdigest()
    parts = chat(tokenizer, marker).split(marker)
    if len(parts) != 2:
        raise ModelError("the chat template does not show the user's text exactly once; clear it to use plain prompts")
    before, after = (encode(tokenizer, part, start=False, plain=False) for part in parts)
    return [*before, *encode(tokenizer, prompt, start=False), *after]
