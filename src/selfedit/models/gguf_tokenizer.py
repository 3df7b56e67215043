"""The tokenizer of a GGUF file: transformers' own, with what it leaves out put right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .gguf_header import Header

# Names for how a byte-level vocabulary divides a text before merging (llama.cpp's).
_DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"})
_LLAMA3 = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"})
_QWEN = frozenset({"qwen2", "deepseek-r1-qwen"})
_WHOLE_WORDS = _LLAMA3 | {"tekken"}  # a word that is a token is that token, whatever the merges say
_KNOWN = _DIGITS_APART | _WHOLE_WORDS | _QWEN | {"gpt-2", "smaug-bpe", "dbrx", "gpt-4o", "llama4", "kanana2", "megrez"}
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endofturn|>")


def save_tokenizer(header: Header, directory: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Write the file's tokenizer and chat template; its special ids: ``bos_token_id``, ``pad_token_id`` and ``eos_token_id``, a
    list of all tokens that end a text or a turn.

    Raises:
        ModelError: the file holds no tokenizer, or one that transformers can't make.
    """
    from transformers import PreTrainedTokenizerFast

    kind, path = header.metadata.get("tokenizer.ggml.model"), header.path
    if kind not in ("gpt2", "llama"):
        raise ModelError(f"{path}: a tokenizer of the kind {kind!r} can't be converted; take the model's original checkpoint")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(path.parent), gguf_file=path.name)
    except Exception as error:  # any of the library's parsers
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{path}: its tokenizer can't be converted ({type(error).__name__}: {reason}); take another file"
        ) from error
    if kind == "gpt2":
        _mend_byte_level(header, tokenizer, tell)
    elif header.metadata.get("tokenizer.ggml.add_space_prefix") is False:
        _without_prefix(tokenizer)
    tokenizer.clean_up_tokenization_spaces = False
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{path}: it names no end-of-text token; take another file of this model")
    if n := header.get("context_length"):
        tokenizer.model_max_length = int(n)
    tokenizer.save_pretrained(directory)
    _plain_config(directory / "tokenizer_config.json")
    return _special(header, tokenizer)


def _mend_byte_level(header: Header, tokenizer: Any, tell: Callable[[str], None]) -> None:
    """Divide a text as the vocabulary's merges were learned: what transformers does not take from the file."""
    from tokenizers import normalizers, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    pre = header.metadata.get("tokenizer.ggml.pre")
    if pre in _DIGITS_APART:
        digits, level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, level])
    if pre in _QWEN:
        backend.normalizer = normalizers.NFC()
    if pre in _WHOLE_WORDS:
        backend.model.ignore_merges = True
        if "tokenizer.ggml.add_bos_token" not in header.metadata and tokenizer.bos_token is not None:
            tokenizer.add_bos_token = True
    if pre not in _KNOWN:
        tell(
            f"how its tokenizer divides a text is not known ({pre or 'the file does not say'}): GPT-2's way is taken, so some "
            "texts may get other tokens than from the original model"
        )


def _without_prefix(tokenizer: Any) -> None:
    """No space before the first word (the file says so; transformers always puts one)."""
    from tokenizers import decoders, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    if isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=False)
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def _plain_config(file: Path) -> None:
    """The tokenizer's settings without how they were loaded, and with a class that transformers 4 knows, too."""
    fields = json.loads(file.read_text(encoding="utf-8"))
    for name in ("backend", "is_local", "local_files_only", "gguf_file", "name_or_path"):
        fields.pop(name, None)
    fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _special(header: Header, tokenizer: Any) -> dict[str, Any]:
    """The ids of special tokens; what ends a turn is named by the file, or stands in the chat template."""
    template, vocabulary = tokenizer.chat_template or "", tokenizer.get_vocab()
    ends = [tokenizer.eos_token_id]
    ends += [header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom")]
    ends += [vocabulary[token] for token in _TURN_ENDS if token in template and token in vocabulary]
    ids = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return {**ids, "eos_token_id": list(dict.fromkeys(end for end in ends if end is not None))}
