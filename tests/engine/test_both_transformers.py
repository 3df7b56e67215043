"""A merged checkpoint gives the same logits and tokens in transformers 4.57 and 5."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from made_updates import prompts, strong
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from conftest import FAMILIES, byte_tokenizer, tiny_model
from selfedit.engine.adapters.both_transformers import make_readable
from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.torch_engine import TorchEngine

OLD = os.environ.get("SELFEDIT_TRANSFORMERS_4", "")
PLAIN = {"rope_type": "default", "rope_theta": 5e5}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3["original_max_position_embeddings"] = 64
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
LONG = {"short_factor": [1.5] * 4, "long_factor": [3.0] * 4}
LINEAR = {"rope_type": "linear", "factor": 4.0}
LOCAL = {"rope_type": "default", "rope_theta": 10.0}
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}

# A model type, its rope_parameters, other settings, and what version 4 has to find.
FORMS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "qwen2": ("qwen2", PLAIN, {}, {"rope_theta": 5e5, "rope_scaling": None}),
    "llama 3": ("llama", PLAIN | LLAMA3, {}, {"rope_theta": 5e5, "rope_scaling": LLAMA3}),
    "yarn": ("qwen2", PLAIN | YARN, {}, {"rope_theta": 5e5, "rope_scaling": YARN}),
    "linear": ("llama", PLAIN | LINEAR, {}, {"rope_theta": 5e5, "rope_scaling": LINEAR}),
    "mixtral": ("mixtral", PLAIN, {}, {"rope_theta": 5e5, "rope_scaling": None}),
    "a part of each head": (
        "stablelm",
        PLAIN | {"partial_rotary_factor": 0.5},
        {},
        {"rope_theta": 5e5, "partial_rotary_factor": 0.5, "rope_scaling": None},
    ),
    "GPT-NeoX": (
        "gpt_neox",
        PLAIN | {"partial_rotary_factor": 0.5},
        {},
        {"rotary_emb_base": 5e5, "rotary_pct": 0.5, "rope_scaling": None},
    ),
    "Gemma 3": (
        "gemma3_text",
        {"sliding_attention": LOCAL, "full_attention": PLAIN | LINEAR},
        {"layer_types": ["sliding_attention", "full_attention"]},
        {"rope_theta": 5e5, "rope_local_base_freq": 10.0, "rope_scaling": LINEAR},
    ),
    "Phi 3, long": (
        "phi3",
        PLAIN | LONG | {"rope_type": "longrope", "partial_rotary_factor": 1.0},
        {"original_max_position_embeddings": 64},
        {"rope_theta": 5e5, "rope_scaling": LONG | {"type": "longrope"}, "original_max_position_embeddings": 64},
    ),
    "Qwen 3, mixture": ("qwen3_moe", PLAIN, {"num_experts": 4}, {"num_experts": 4, "rope_theta": 5e5}),
    "GPT-2": ("gpt2", {}, {}, {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_config_has_the_fields_of_both_versions(form: str, tmp_path: Path) -> None:
    kind, rope, more, wanted = FORMS[form]
    settings = {**SIZES, "pad_token_id": 0, **more, **({"rope_parameters": rope} if rope else {})}
    config = AutoConfig.for_model(kind, **settings)
    config.dtype = torch.bfloat16
    config.save_pretrained(tmp_path)
    before = AutoConfig.from_pretrained(tmp_path).to_dict()
    assert make_readable(tmp_path) == ["4.57", "5"]
    written = json.loads((tmp_path / "config.json").read_text())
    assert wanted | {"dtype": "bfloat16", "torch_dtype": "bfloat16"} == {
        name: written[name] for name in [*wanted, "dtype", "torch_dtype"]
    }
    after = AutoConfig.from_pretrained(tmp_path)
    if form == "Phi 3, long":
        assert after.rope_parameters.pop("type") == after.rope_parameters["rope_type"]  # as in its published checkpoints
    assert {name: after.to_dict()[name] for name in before} == before
    assert after.dtype == torch.bfloat16


def test_what_version_4_cannot_compute_alike_is_for_version_5(tmp_path: Path) -> None:
    """Two bases of positions where version 4 has one; an architecture that nobody compared."""
    two = {"sliding_attention": LOCAL, "full_attention": PLAIN}
    layers = {"layer_types": ["sliding_attention", "full_attention"]}
    for kind, more in (("olmo3", {"rope_parameters": two, **layers}), ("apertus", {"rope_parameters": PLAIN})):
        AutoConfig.for_model(kind, **SIZES, pad_token_id=0, **more).save_pretrained(tmp_path)
        assert make_readable(tmp_path) == ["5"]


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_a_tokenizer_has_a_class_and_fields_of_both_versions(family: str, tmp_path: Path) -> None:
    tiny_model(family).save_pretrained(tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    tokenizer.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    before = AutoTokenizer.from_pretrained(tmp_path)
    make_readable(tmp_path)
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] in ("PreTrainedTokenizerFast", "Qwen2Tokenizer")
    assert written["additional_special_tokens"] == ["<|user|>"]
    assert not {"extra_special_tokens", "backend", "is_local"} & set(written)
    after = AutoTokenizer.from_pretrained(tmp_path)
    assert type(after) is type(before)
    assert after.all_special_tokens == before.all_special_tokens
    assert after("<|user|>Who?")["input_ids"] == before("<|user|>Who?")["input_ids"]


CODE = """
import json, sys
from pathlib import Path
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
assert transformers.__version__.startswith("4.57"), transformers.__version__
for place in map(Path, sys.argv[1:]):
    asked = json.loads((place / "asked.json").read_text())
    assert AutoTokenizer.from_pretrained(place)(asked["text"])["input_ids"] == asked["tokens"], place
    model = AutoModelForCausalLM.from_pretrained(place, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(asked["ids"])).logits
    torch.testing.assert_close(logits, torch.tensor(asked["logits"]), rtol=1e-4, atol=1e-4)
"""
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "rope": ("qwen2", {"rope_parameters": PLAIN}),
    "tied": ("qwen2", {"rope_parameters": PLAIN, "tie_word_embeddings": True}),
    "llama 3": ("llama", {"rope_parameters": PLAIN | LLAMA3}),
    "yarn": ("qwen2", {"rope_parameters": PLAIN | YARN}),
    "neox, half": ("neox", {"rope_parameters": PLAIN | {"partial_rotary_factor": 0.5}}),
    "phi3, half": ("phi3", {"rope_parameters": PLAIN | {"partial_rotary_factor": 0.5}}),
}


@pytest.mark.skipif(not OLD, reason="SELFEDIT_TRANSFORMERS_4 names no folder with transformers 4.57 (CONTRIBUTING.md)")
def test_transformers_4_gives_the_same_logits_and_tokens(tmp_path: Path) -> None:
    for kind, (family, settings) in KINDS.items():
        place = tmp_path / kind / "base"
        tiny_model(family, **settings).save_pretrained(place)
        byte_tokenizer().save_pretrained(place)
        engine = TorchEngine.load(str(place), device="cpu")
        engine.merge(strong(initial_adapter(engine.layout, 4, 6.0, 1)), tmp_path / kind / "merged")
        ids, text = prompts(1, (50,)), "Who is it?</s>"
        model = AutoModelForCausalLM.from_pretrained(tmp_path / kind / "merged").eval()
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(ids)).logits.tolist()
        asked = {"ids": ids, "logits": logits, "text": text, "tokens": engine.tokenizer(text)["input_ids"]}
        (tmp_path / kind / "merged" / "asked.json").write_text(json.dumps(asked))
    command = [sys.executable, "-c", CODE, *(str(tmp_path / kind / "merged") for kind in KINDS)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": OLD}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
