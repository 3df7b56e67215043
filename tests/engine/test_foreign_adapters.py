"""Adapters as PEFT and others write them: here they compute what they compute with PEFT, or are refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from made_updates import beside, prompts
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from conftest import byte_tokenizer, tiny_model
from selfedit.engine.adapters.lora import LoraAdapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError

# PEFT 0.21 reads a property that transformers 5.23 renamed; it also says what it changes about some configs.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)
IDS = torch.tensor(prompts(1, (20,)))
Made = Callable[..., Path]


@cache
def loaded(base: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(base)


def saved(base: Path, directory: Path, config: PeftConfig) -> Path:
    """An adapter that PEFT made on ``base``, its numbers random, in ``directory``."""
    torch.manual_seed(1)
    model = get_peft_model(deepcopy(loaded(base)), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    return directory


@pytest.fixture
def made(checkpoints: dict[str, Path], tmp_path: Path) -> Made:
    """A LoRA of qwen2's q and v, or of what is asked for."""

    def make(family: str = "qwen2", **changes: Any) -> Path:
        settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **changes}
        return saved(checkpoints[family], tmp_path / "theirs", LoraConfig(**settings))

    return make


def theirs(base: Path, adapter: Path) -> Tensor:
    torch.manual_seed(2)
    model = PeftModel.from_pretrained(deepcopy(loaded(base)), adapter).eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def ours(engine: TorchEngine, adapter: LoraAdapter) -> Tensor:
    with torch.no_grad(), beside(engine, adapter):
        return engine.model(input_ids=IDS).logits


def edited(directory: Path, **changes: object) -> Path:
    """The adapter with other entries in its config."""
    file = directory / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return directory


SAME: dict[str, dict[str, Any]] = {
    "rsLoRA": {"use_rslora": True},
    "smaller ranks": {"rank_pattern": {"q_proj": 2}},
    "alphas": {"alpha_pattern": {"v_proj": 40}},
    "both, by regular expressions": {
        "rank_pattern": {"layers.0.self_attn.q_proj": 7, r".*v_proj": 3},
        "alpha_pattern": {r"^model\.layers\.1.*": 32},
    },
    "patterns of rsLoRA": {"use_rslora": True, "rank_pattern": {"q_proj": 9}, "alpha_pattern": {"q_proj": 3}},
    "a regular expression": {"target_modules": r".*layers\.1\..*q_proj"},
    "all-linear": {"target_modules": "all-linear"},
    "some layers": {"layers_to_transform": [1]},
    "a layer of a named list": {"layers_to_transform": 0, "layers_pattern": "layers"},
    "modules left out": {"exclude_modules": ["model.layers.0.self_attn.q_proj"]},
    "modules left out by a regular expression": {"exclude_modules": r".*\.0\..*q_proj"},
    "parameters of linear modules": {"target_modules": [], "target_parameters": ["0.mlp.gate_proj.weight"]},
    "parameters beside modules": {"target_parameters": ["mlp.gate_proj.weight"], "alpha_pattern": {"gate_proj.weight": 3}},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "mica": {"init_lora_weights": "mica"},
    "eva": {"init_lora_weights": "eva"},
    "dropout": {"lora_dropout": 0.3},
    "transposed by mistake": {"fan_in_fan_out": True},
    "GPT-2": {"family": "gpt2", "target_modules": r".*c_(attn|fc)", "alpha_pattern": {"c_fc": 3}},
}


@pytest.mark.parametrize("kind", SAME)
def test_an_adapter_of_peft_computes_the_same_here_and_saved_again(
    kind: str, made: Made, engines: dict[str, TorchEngine], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    family = SAME[kind].get("family", "qwen2")
    engine, directory = engines[family], made(**SAME[kind])
    adapter, want = engine.load_adapter(directory), theirs(checkpoints[family], directory)
    with torch.no_grad():
        assert float((engine.model(input_ids=IDS).logits - want).abs().max()) > 0.1
    adapter.save(tmp_path / "again")
    engine.combine([adapter, adapter], [0.25, 0.75]).save(tmp_path / "sum")
    for got in (
        ours(engine, adapter),
        theirs(checkpoints[family], tmp_path / "again"),
        theirs(checkpoints[family], tmp_path / "sum"),
        ours(engine, engine.bank([adapter]).adapter(0)),
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


REFUSED: dict[str, dict[str, Any]] = {
    "init_lora_weights = 'pissa'": {"init_lora_weights": "pissa"},
    "init_lora_weights = 'pissa_niter_4'": {"init_lora_weights": "pissa_niter_4"},
    "init_lora_weights = 'olora'": {"init_lora_weights": "olora"},
    "use_dora": {"use_dora": True},
    "lora_bias": {"lora_bias": True},
    "bias = 'lora_only'": {"bias": "lora_only"},
    "alora_invocation_tokens": {"alora_invocation_tokens": [1, 5]},
    "trainable_token_indices": {"trainable_token_indices": [3]},
    "modules_to_save": {"modules_to_save": ["norm"]},
    "an adapter of the embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "the base's own weights": {"target_modules": ["lm_head", "q_proj"]},
    r"model\.embed_tokens \(Embedding\)": {"target_modules": [], "target_parameters": ["embed_tokens.weight"]},
    "c_proj keeps its weight transposed": {
        "family": "gpt2",
        "target_modules": [],
        "target_parameters": ["0.attn.c_proj.weight"],  # square, so its widths fit
    },
}


@pytest.mark.parametrize("reason", REFUSED)
def test_an_adapter_that_is_more_than_a_lora_is_refused(reason: str, made: Made, engines: dict[str, TorchEngine]) -> None:
    engine, directory = engines[REFUSED[reason].get("family", "qwen2")], made(**REFUSED[reason])
    with pytest.raises(ModelError, match=reason) as raised:
        engine.load_adapter(directory)
    assert str(directory) in str(raised.value)


@pytest.mark.parametrize("start", ["corda", "lora_ga", "loftq", "PiSSA", "a start of next year"])
def test_starts_that_change_the_base_are_refused(start: str, made: Made) -> None:
    with pytest.raises(ModelError, match=f"init_lora_weights = '{start}'"):
        LoraAdapter.load(edited(made(), init_lora_weights=start))


def test_a_pissa_adapter_that_peft_converted_is_a_plain_one(
    checkpoints: dict[str, Path], engines: dict[str, TorchEngine], tmp_path: Path
) -> None:
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    base = AutoModelForCausalLM.from_pretrained(checkpoints["qwen2"])
    model = get_peft_model(base, LoraConfig(**settings, init_lora_weights="pissa"))
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5)
        want = model(input_ids=IDS).logits
    model.save_pretrained(tmp_path / "trained", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    engine = engines["qwen2"]
    torch.testing.assert_close(ours(engine, engine.load_adapter(tmp_path / "trained")), want, rtol=1e-4, atol=1e-4)


# What is followed (above), and what says how an adapter was made and no more.
FOLLOWED = {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "bias"}
FOLLOWED |= {"layers_to_transform", "layers_pattern", "target_parameters", "peft_type", "init_lora_weights"}
NO_MATTER = {"task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"}
NO_MATTER |= {"lora_dropout", "fan_in_fan_out", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config"}
NO_MATTER |= {"qalora_group_size", "runtime_config", "ensure_weight_tying"}


def test_every_field_of_peft_is_followed_or_does_not_matter_or_is_refused(made: Made) -> None:
    directory = made()
    original = (directory / "adapter_config.json").read_text()
    plain = LoraAdapter.load(directory).sha256
    names = {field.name for field in fields(LoraConfig)}
    assert {"use_dora", "kasa_config", "layer_replication"} < names - FOLLOWED - NO_MATTER
    for name in [*sorted(names - FOLLOWED - NO_MATTER), "enable_lora", "a_field_of_next_year"]:
        (directory / "adapter_config.json").write_text(original)
        LoraAdapter.load(edited(directory, **{name: None}))
        with pytest.raises(ModelError, match=f"sets {name}"):
            LoraAdapter.load(edited(directory, **{name: [1]}))
    for name in NO_MATTER:
        (directory / "adapter_config.json").write_text(original)
        assert LoraAdapter.load(edited(directory, **{name: 1})).sha256 == plain


@pytest.mark.parametrize(
    "config", [IA3Config(task_type="CAUSAL_LM"), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)]
)
def test_adapters_of_other_kinds_are_refused_by_name(config: PeftConfig, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    kind = json.loads((saved(checkpoints["qwen2"], tmp_path, config) / "adapter_config.json").read_text())["peft_type"]
    with pytest.raises(ModelError, match=f"peft_type '{kind}'"):
        LoraAdapter.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target_modules": ["q_proj"]}, r"doesn't select model\.layers\.0\.self_attn\.v_proj"),
        ({"exclude_modules": "*"}, "a pattern that can't be read"),
        ({"layers_to_transform": [1]}, r"doesn't select model\.layers\.0"),
        ({"rank_pattern": {"q_proj": 3}}, "where adapter_config.json says rank 3"),
        ({"lora_alpha": None}, "no usable r and lora_alpha"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused(changes: dict[str, object], reason: str, made: Made) -> None:
    with pytest.raises(ModelError, match=reason):
        LoraAdapter.load(edited(made(), **changes))


def test_weights_under_other_names_are_refused(made: Made) -> None:
    file = made() / "adapter_model.safetensors"
    save_file({key.replace("base_model.model.", "unet."): tensor for key, tensor in load_file(file).items()}, file)
    with pytest.raises(ModelError, match=r"names that PEFT doesn't use, such as unet\."):
        LoraAdapter.load(file.parent)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_git_lfs_pointer_is_called_that(made: Made, file: str) -> None:
    directory = made()
    (directory / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        LoraAdapter.load(directory)


def test_adapters_of_experts_are_refused_as_such(llama: TorchEngine, made: Made, tmp_path: Path) -> None:
    """As transformers 5 keeps experts (parameters), and as transformers 4 did (a module each, with a router)."""
    config = {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 1,
        "hidden_size": 32,
        "intermediate_size": 48,
    }
    mixture = AutoConfig.for_model("mixtral", vocab_size=260, num_attention_heads=4, num_key_value_heads=2, **config)
    AutoModelForCausalLM.from_config(mixture).save_pretrained(tmp_path / "base")
    parameters = LoraConfig(r=2, target_modules=[], target_parameters=["mlp.experts.gate_up_proj"], task_type="CAUSAL_LM")
    with pytest.raises(ModelError, match=r"parameter mlp\.experts\.gate_up_proj .*experts that are kept as one tensor"):
        LoraAdapter.load(saved(tmp_path / "base", tmp_path / "experts", parameters))
    directory = made()
    for module in ("experts.0.w1", "gate"):
        path = f"base_model.model.model.layers.0.block_sparse_moe.{module}"
        pair = {f"{path}.lora_A.weight": torch.ones(4, 32), f"{path}.lora_B.weight": torch.ones(48, 4)}
        save_file(pair, directory / "adapter_model.safetensors")
        with pytest.raises(ModelError, match="keeps a layer's experts, and what chooses among them, as tensors"):
            llama.load_adapter(edited(directory, target_modules=[module.rpartition(".")[2]]))


def test_an_adapter_in_its_models_own_directory_loads(tmp_path: Path) -> None:
    base, mixed = tmp_path / "base", tmp_path / "mixed"
    for directory in (base, mixed):
        tiny_model("qwen2").save_pretrained(directory)
        byte_tokenizer().save_pretrained(directory)
    saved(mixed, mixed, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    engine = TorchEngine.load(str(base), device="cpu")
    torch.testing.assert_close(ours(engine, engine.load_adapter(mixed)), theirs(base, mixed), rtol=1e-4, atol=1e-4)


def test_an_adapter_is_not_saved_beside_a_model(checkpoints: dict[str, Path], made: Made, tmp_path: Path) -> None:
    adapter = LoraAdapter.load(made())
    (tmp_path / "config.json").write_text("{}")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ModelError, match="a model's directory"):
        adapter.save(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
