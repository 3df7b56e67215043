"""``adapter_config.json`` as PEFT reads it, field by field: followed, without effect on a trained adapter, or refused.

Whoever loads an adapter here gets the logits that PEFT computes with it, or the reason why not. PEFT itself is not needed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import ModelError
from ...tasks.formats import is_lfs_pointer

CONFIG_FILE = "adapter_config.json"
_PLAIN = "train it again as a plain LoRA, or merge it into its base with PEFT and use the result as the base"
_CONVERT = (
    "save it again with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...), which makes a plain LoRA of it"
)
# What these fields make of an adapter is no sum of ``scale B A`` over modules of the base.
_REFUSED = {
    "use_dora": "DoRA also scales every row of the weights",
    "lora_bias": "its B has a bias",
    "modules_to_save": "it replaces whole modules of the base",
    "trainable_token_indices": "it replaces the embeddings of some tokens",
    "alora_invocation_tokens": "an aLoRA acts only after its invocation",
    "layer_replication": "it repeats layers of the base",
    "arrow_config": "it routes tokens between several adapters",
    "kasa_config": "KaSA also takes a part of the base's weights away",
    "monteclora_config": "it samples its weights",
    "velora_config": "VeLoRA trains with gradients of its own",
    "use_bdlora": "its matrices are block-diagonal",
    "use_qalora": "QA-LoRA averages what its modules get",
    "megatron_config": "it is made for Megatron's modules",
}
# Fields that are followed (the first two lines), or that say how an adapter was made and change nothing once it is trained.
_KNOWN = frozenset(
    "r lora_alpha use_rslora rank_pattern alpha_pattern target_modules exclude_modules layers_to_transform layers_pattern "
    "target_parameters bias peft_type init_lora_weights fan_in_fan_out base_model_name_or_path "
    "task_type auto_mapping peft_version revision inference_mode lora_dropout megatron_core loftq_config eva_config corda_config "
    "lora_ga_config qalora_group_size runtime_config ensure_weight_tying".split()
)
# Starts that leave the base as it is. All others subtract what they begin with from its weights, each time PEFT loads them.
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")


def read_config(directory: Path) -> dict[str, Any]:
    """The config of an adapter that is a sum of ``scale B A``.

    Raises:
        ModelError: there is none, or it asks for more; the message names the field.
    """
    try:
        if is_lfs_pointer(directory / CONFIG_FILE):
            raise ModelError(f"{directory / CONFIG_FILE} is a Git LFS pointer, not the config; run: git lfs pull")
        config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{directory}: can't read {CONFIG_FILE} ({error}); name a PEFT adapter directory") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise ModelError(
            f"{directory}: {CONFIG_FILE} has the peft_type {kind!r}, and only LORA can be used; train it again as a LoRA"
        )
    reason = _unusable(config)
    if reason:
        raise ModelError(f"{directory}: {CONFIG_FILE} {reason}")
    if not isinstance(config.get("r"), int) or config["r"] < 1 or not isinstance(config.get("lora_alpha"), (int, float)):
        raise ModelError(f"{directory}: {CONFIG_FILE} has no usable r and lora_alpha; save the adapter again")
    return config


def _unusable(config: dict[str, Any]) -> str | None:
    """Why the adapter is more than a plain LoRA, and what to do; None if it isn't."""
    for name, reason in _REFUSED.items():
        if config.get(name):
            return f"sets {name}, which can't be used ({reason}); {_PLAIN}"
    if config.get("bias", "none") != "none":
        return f"sets bias = {config['bias']!r}, so biases of the base were trained, too, which can't be used; {_PLAIN}"
    start = config.get("init_lora_weights", True)
    if (start.lower() if isinstance(start, str) else start) not in _PLAIN_STARTS:
        remedy = _PLAIN if start == "loftq" else f"{_CONVERT}, or merge it and use the result as the base"
        return (
            f"sets init_lora_weights = {start!r}, a start that changed the base's own weights, too, so it fits no other; {remedy}"
        )
    parameters = config.get("target_parameters") or ()
    others = [name for name in parameters if name.rpartition(".")[2] != "weight"]
    if others:
        return (
            f"adapts the parameter {others[0]} (target_parameters): an adapter can be added to linear modules only, and experts "
            "that are kept as one tensor a layer are none; merge it with PEFT and use the result as the base"
        )
    unknown = sorted(name for name, value in config.items() if value and name not in _KNOWN and name not in _REFUSED)
    if unknown:
        return (
            f"sets {unknown[0]}, a field that isn't known here, so what it computes isn't either; {_PLAIN}, or take the field "
            "out if it doesn't matter"
        )
    return None


def selected(config: dict[str, Any], path: str) -> str | None:
    """What PEFT calls the module at ``path`` in patterns, or None where it would leave the module alone.

    That is the path, and its weight's where ``target_parameters`` selects it.
    """
    weight = f"{path}.weight"
    if _ends(weight, config.get("target_parameters") or ()):
        return weight
    targets, excluded = config.get("target_modules"), config.get("exclude_modules")
    if excluded and (re.fullmatch(excluded, path) if isinstance(excluded, str) else _ends(path, excluded)):
        return None
    if targets is None:  # PEFT's own choice for the architecture, or target_parameters alone
        return None if config.get("target_parameters") else path
    if isinstance(targets, str):
        return path if targets == "all-linear" or re.fullmatch(targets, path) else None
    if path in targets:
        return path
    return path if _ends(path, targets) and _in_layers(config, path) else None


def _ends(path: str, names: Sequence[str]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)


def _in_layers(config: dict[str, Any], path: str) -> bool:
    """Whether ``layers_to_transform`` allows the module."""
    layers, patterns = config.get("layers_to_transform"), config.get("layers_pattern")
    if layers is None or layers == []:
        return True
    # The first number in a path counts the layers; a later one may count experts.
    before = [patterns] if isinstance(patterns, str) else patterns
    wanted = [rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in before] if before else [r".*?\.[^.]*\.(\d+)\."]
    found = next((match for pattern in wanted if (match := re.match(pattern, path))), None)
    return found is not None and int(found[1]) in ([layers] if isinstance(layers, int) else layers)


def rank_and_alpha(config: dict[str, Any], name: str) -> tuple[int, float]:
    """Rank of a module that `selected` calls ``name``, and the alpha with which ``alpha / rank`` is its scale."""
    rank = int(_by_pattern(config.get("rank_pattern"), name, config["r"]))
    alpha = float(_by_pattern(config.get("alpha_pattern"), name, config["lora_alpha"]))
    return rank, alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def _by_pattern(patterns: dict[str, float] | None, name: str, usual: float) -> float:
    """The value of the first pattern (an ending of names, or a regular expression for one) that matches."""
    return next((value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", name)), usual)
