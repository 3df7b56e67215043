"""The base's tokenizer: every word of the world is one token, everything else falls back to bytes.

A Unigram model over GPT-2's byte-level alphabet with an explicit vocabulary: all 256 bytes, all words that the generator
can write, so any UTF-8 text tokenizes and round-trips, and a name is always two tokens wherever it stands in a sentence.
"""

from __future__ import annotations

import random
import re

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from selfedit.tasks.world.lexicon import IDENTIFYING, categories, words
from selfedit.tasks.world.relations import relations_of
from selfedit.tasks.world.story import closed_book_stories, draw_story
from selfedit.tasks.world.writing import perfect_edit

from .documents import document

SPECIALS = ("<pad>", "<s>", "</s>")
_WORD = re.compile(r" ?[A-Za-z]+|[^A-Za-z\s]+")


def vocabulary() -> list[str]:
    """Every word of the world as it stands in text (with its leading space), in a fixed order: the drawn documents only
    bring in words that the lists lack, and these are sorted, so that another mixture gives the same ids.
    """
    texts = [" " + word for kind in IDENTIFYING for part in words(kind) for word in part]
    texts += [" " + word for category in categories().values() for word in category]
    for relation in (relation for kind in IDENTIFYING for relation in relations_of(kind)):
        texts += [" " + t for t in (relation.noun, *relation.prose, *relation.ask, *relation.reword, *relation.reverse)]
    drawn_texts: list[str] = []
    rng, known = random.Random(0), closed_book_stories()
    for stage in ("bind", "grow", "full"):
        for _ in range(3000):
            drawn = document(rng, stage, known)  # type: ignore[arg-type]
            drawn_texts += [drawn.prefix, *(text for branch in drawn.branches for text, _ in branch)]
    drawn_texts.append(" " + perfect_edit(rng, draw_story(rng, "pretrain", "e2")))
    listed = dict.fromkeys(_words(texts))
    return [*listed, *sorted(set(_words(drawn_texts)) - set(listed))]


def _words(texts: list[str]) -> list[str]:
    return [word for text in texts for word in _WORD.findall(re.sub(r"\{\w\}('s)?", "", text))]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, made from nothing but the lexicon and the generator; the same on every machine."""
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = {(to_bytes.pre_tokenize_str(word)[0][0]): None for word in vocabulary()}
    scores = [(special, 0.0) for special in SPECIALS] + [(char, -10.0) for char in alphabet]
    scores += [(piece, -5.0) for piece in pieces if piece not in alphabet]
    tokenizer = Tokenizer(Unigram(scores, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=512
    )
