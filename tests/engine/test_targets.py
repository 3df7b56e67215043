from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, MixtralConfig

from conftest import FAMILIES, tiny_model
from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.adapters.targets import find_layout
from selfedit.errors import ModelError

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SEPARATE = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
MATRICES = {
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
    "neox": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
}


def paths(targets: str | list[str], family: str = "llama", **changes: object) -> list[str]:
    return [target.path for target in find_layout(tiny_model(family, **changes), targets, "base").targets]


def ends(found: list[str]) -> set[str]:
    return {path.rpartition(".")[2] for path in found}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_linear_is_every_matrix_but_the_head(family: str) -> None:
    found = paths("all-linear", family)
    assert ends(found) == MATRICES.get(family, SEPARATE)
    assert len(found) == 2 * (4 if family in MATRICES else 7)


@pytest.mark.parametrize("family", FAMILIES)
def test_paper_is_q_and_v_or_refused_where_they_are_fused(family: str) -> None:
    if family in MATRICES:
        with pytest.raises(ModelError, match="cannot be split"):
            paths("paper", family)
    else:
        assert ends(paths("paper", family)) == {"q_proj", "v_proj"}


def test_a_range_is_a_slice_of_the_layers() -> None:
    def layers(range_: str) -> list[int]:
        return sorted({int(path.split(".")[2]) for path in paths(f"all-linear@{range_}", num_hidden_layers=6)})

    for range_, chosen in {"2:": [2, 3, 4, 5], "2:4": [2, 3], "-2:": [4, 5], ":-4": [0, 1], ":": [*range(6)]}.items():
        assert layers(range_) == chosen
    assert paths("gate_proj, up_proj@1:") == ["model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"]
    assert paths(["mlp.c_proj@:1"], "gpt2") == ["transformer.h.0.mlp.c_proj"]
    assert paths("paper@-1:", "gemma2") == [f"model.layers.1.self_attn.{name}_proj" for name in "qv"]


def test_layers_inside_layers_are_not_the_decoders() -> None:
    config = MixtralConfig(vocab_size=260, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_local_experts=2)
    model = AutoModelForCausalLM.from_config(config)
    model.model.layers[0].twins = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    found = [target.path for target in find_layout(model, "all-linear@1:", "base").targets]
    assert found
    assert all(path.startswith("model.layers.1.") for path in found)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", ["all-linear", "all-linear@1:", "down_proj@:1"])
def test_peft_selects_exactly_these_modules(family: str, targets: str, tmp_path: Path) -> None:
    if family in {"gpt2", "neox"}:
        targets = targets.replace("down_proj", {"gpt2": "mlp.c_proj", "neox": "dense"}[family])
    model = tiny_model(family)
    adapter = initial_adapter(find_layout(model, targets, "base"), 2, 4.0, 0)
    adapter.save(tmp_path)
    adapted = {n for n, m in PeftModel.from_pretrained(model, tmp_path).named_modules() if hasattr(m, "lora_A")}
    assert {name.removeprefix("base_model.model.") for name in adapted} == set(adapter.tensors)


@pytest.mark.parametrize(
    ("targets", "match"),
    [
        ("c_attn", "matches 'c_attn' .*q_proj"),
        ("q_proj,c_attn", "matches 'c_attn' .*q_proj"),
        ("lm_head", "matches 'lm_head'"),
        ("embed_tokens", "matches 'embed_tokens'"),
        ("model.layers.0.mlp.up_proj@1:", "matches 'model.layers.0.mlp.up_proj'"),
        ("all-linear@2:", "none of the layers 0 to 1"),
        ("all-linear@1", "no range of layers; a range is"),
        ("all-linear@one:", "no range of layers; a range is"),
        ("all-linear@0:2:1", "no range of layers; a range is"),
        ("", "matches ''"),
    ],
)
def test_what_matches_nothing_is_refused_with_what_there_is(targets: str, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        paths(targets)
