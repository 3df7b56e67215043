"""A checkpoint as transformers 5 writes it, made readable by transformers 4.57, too.

Transformers 5 moved the rotary embedding's settings into ``rope_parameters``, which version 4 skips without a word: it would
compute with its defaults. The old fields are written beside the new ones; both versions then read the same numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Architectures that version 4.57 was seen to compute alike, from the same parameters under the same names.
_ALIKE = frozenset(
    "arcee bitnet bloom codegen cohere cohere2 diffllama ernie4_5 exaone4 falcon_h1 gemma gemma2 gemma3_text glm glm4 "
    "glm4_moe gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss gptj granite granitemoe helium lfm2 llama mistral mixtral mpt nemotron "
    "olmo olmo2 olmo3 olmoe opt persimmon phi phi3 qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next seed_oss smollm3 stablelm "
    "starcoder2 vaultgemma".split()
)
_IN_4 = {"TokenizersBackend": "PreTrainedTokenizerFast"}


def make_readable(directory: Path) -> list[str]:
    """Add the old fields to ``config.json`` and ``tokenizer_config.json``; the versions known to compute what it does."""
    file = directory / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    old = _old_fields(config)
    _write(file, config | (old or {}))
    file = directory / "tokenizer_config.json"
    if file.exists():
        _write(file, _old_tokenizer(json.loads(file.read_text(encoding="utf-8"))))
    return ["5"] if old is None or config["model_type"] not in _ALIKE else ["4.57", "5"]


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _old_fields(config: dict[str, Any]) -> dict[str, Any] | None:
    """What version 4 reads in place of ``dtype`` and ``rope_parameters``; None where it has none for them."""
    fields = {"torch_dtype": config["dtype"]} if config.get("dtype") else {}
    if config["model_type"] == "qwen3_moe":
        fields["num_experts"] = config["num_local_experts"]
    rope = config.get("rope_parameters") or {}
    if isinstance(rope.get("full_attention"), dict):
        rope, local = rope["full_attention"], rope.get("sliding_attention") or rope["full_attention"]
        if config["model_type"].startswith("gemma3"):
            fields["rope_local_base_freq"] = local["rope_theta"]
        elif local["rope_theta"] != rope["rope_theta"]:
            return None
        if local.get("rope_type", "default") != "default":
            return None
    elif any(isinstance(value, dict) for value in rope.values()):
        return None
    if not rope:
        return fields
    neox = config["model_type"].startswith("gpt_neox")
    renamed = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"} if neox else {}
    for name in ("rope_theta", "partial_rotary_factor"):
        if name in rope:
            fields[renamed.get(name, name)] = rope[name]
    rest = {name: value for name, value in rope.items() if name not in ("rope_theta", "partial_rotary_factor")}
    if rest.get("rope_type", "default") == "default":
        return fields | {"rope_scaling": None}
    if config["model_type"] == "phi3":  # it takes these three fields and no other
        rest = {"type": rest["rope_type"], "short_factor": rest["short_factor"], "long_factor": rest["long_factor"]}
    return fields | {"rope_scaling": rest}


def _old_tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer's settings under names that both versions know."""
    config = {name: value for name, value in config.items() if name not in ("backend", "is_local", "local_files_only")}
    special = config.get("extra_special_tokens")
    if isinstance(special, list):  # version 4 expects names for these, and has another field for tokens without
        del config["extra_special_tokens"]
        config["additional_special_tokens"] = special
    written = config.get("tokenizer_class")
    return config | {"tokenizer_class": _IN_4.get(written, written)} if written else config
