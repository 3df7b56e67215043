"""Tiny tokenizers of the kinds that checkpoints come with, built here. No downloads."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<unk>")
BOS, EOS, TURN_END = 1, 2, 4
WORDS = ("Paris", "The", "town", "has", "Answer", "Question", "Who", "user", "assistant")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def finished(tokenizer: Tokenizer, single: str = "<s> $A", **names: object) -> PreTrainedTokenizerFast:
    """A transformers tokenizer with the special tokens, its post-processor and (unless ``names`` say otherwise) all roles."""
    tokenizer.add_special_tokens(list(SPECIALS))
    if single:
        marks = [(token, SPECIALS.index(token)) for token in SPECIALS if token in single]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=marks)
    roles = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", **names}
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{role: name for role, name in roles.items() if name is not None})
    made.chat_template = CHATML
    return made


def vocabulary(pieces: list[str]) -> dict[str, int]:
    """Special tokens, then the pieces, each once."""
    return {piece: i for i, piece in enumerate(dict.fromkeys([*SPECIALS, *pieces]))}


def byte_level(single: str = "<s> $A", merges: tuple[tuple[str, str], ...] = (), **names: object) -> PreTrainedTokenizerFast:
    """GPT-2's kind. With ``merges``, texts are not cut into words first, so that tokens may join what words keep apart."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = vocabulary([*alphabet, *(a + b for a, b in merges)])
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not merges)
    tokenizer.decoder = decoders.ByteLevel()
    return finished(tokenizer, single, **names)


def _sentencepiece_bpe() -> models.BPE:
    vocab = vocabulary([*(f"<0x{b:02X}>" for b in range(256)), "▁", *map(chr, range(33, 127))])
    merges: list[tuple[str, str]] = []
    for word in [*WORDS, *(f"▁{word}" for word in WORDS)]:
        pieces = ["▁", word[1:]] if word[0] == "▁" else list(word)
        while len(pieces) > 1:
            joined = pieces[0] + pieces[1]
            if joined not in vocab:
                vocab[joined] = len(vocab)
                merges.append((pieces[0], pieces[1]))
            pieces = [joined, *pieces[2:]]
    return models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)


def prepended() -> PreTrainedTokenizerFast:
    """Llama 2's kind: SentencePiece BPE with a normalizer that puts a space before every text."""
    tokenizer = Tokenizer(_sentencepiece_bpe())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    space, strip = decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([space, decoders.ByteFallback(), decoders.Fuse(), strip])
    return finished(tokenizer)


def metaspace(scheme: str) -> PreTrainedTokenizerFast:
    """SentencePiece BPE as it is saved today: a pre-tokenizer puts the space before the ``first`` piece or ``always``."""
    tokenizer = Tokenizer(_sentencepiece_bpe())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    space, strip = decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([space, decoders.ByteFallback(), decoders.Fuse(), strip])
    return finished(tokenizer)


def unigram() -> PreTrainedTokenizerFast:
    """T5's and XLNet's kind, with a dummy prefix and the clean-up of spaces that its configuration asks for."""
    letters = [(letter, -8.0) for letter in ["▁", *map(chr, range(33, 127)), "\n"]]
    words = [(piece, -3.0) for word in WORDS for piece in (word, f"▁{word}")]
    tokenizer = Tokenizer(models.Unigram([*((token, 0.0) for token in SPECIALS), *letters, *words], unk_id=5))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return finished(tokenizer, clean_up_tokenization_spaces=True)


def words() -> PreTrainedTokenizerFast:
    """WordPiece between marks, as BERT has it, with the clean-up of spaces."""
    known = [*WORDS, *map(chr, range(33, 127)), *(f"##{chr(i)}" for i in range(33, 127))]
    tokenizer = Tokenizer(models.WordPiece(vocabulary(known), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return finished(tokenizer, "<s> $A </s>", clean_up_tokenization_spaces=True)


ZOO: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level": byte_level,
    "no BOS, no PAD": lambda: byte_level("", bos_token=None, pad_token=None),
    "adds EOS": lambda: byte_level("<s> $A </s>"),
    "adds EOS alone": lambda: byte_level("$A </s>"),
    "adds another end": lambda: byte_level("<s> $A <|im_end|>"),
    "merges across the seam": lambda: byte_level(merges=(("Ġ", "P"), (":", "ĠP"), ("Ċ", "P"), ("r", ":"))),
    "clean-up on": lambda: byte_level(clean_up_tokenization_spaces=True),
    "prefix by a normalizer": prepended,
    "prefix first": lambda: metaspace("first"),
    "prefix always": lambda: metaspace("always"),
    "Unigram": unigram,
    "WordPiece": words,
}
