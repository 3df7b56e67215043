"""The tokenizer, built once."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from tools.base.tokenizer import build_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Built from the lexicon, which takes seconds."""
    return build_tokenizer()
