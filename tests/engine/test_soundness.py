"""Weights that can't be what was meant are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import zoo
from torch import nn
from transformers import PreTrainedModel

from conftest import byte_tokenizer, tiny_model
from selfedit.engine.model.body import Body
from selfedit.engine.planning.memory import Costs
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError


def damaged(model: PreTrainedModel, path: str, value: float, places: slice = slice(3, 4)) -> PreTrainedModel:
    with torch.no_grad():
        model.get_parameter(path).view(-1)[places] = value
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("path", ["model.layers.0.self_attn.q_proj.weight", "model.norm.weight", "lm_head.weight"])
def test_a_weight_that_is_not_finite_is_named(path: str, value: float, dtype: torch.dtype) -> None:
    with pytest.raises(ModelError, match=rf"1 weight is NaN or infinite, such as {path}; the checkpoint is damaged"):
        Body(damaged(tiny_model("qwen2").to(dtype), path, value), "tiny")


def test_it_is_named_in_a_part_that_reads_no_text_too() -> None:
    path = "model.vision_tower.encoder.layers.0.mlp.fc1.weight"
    with pytest.raises(ModelError, match=f"such as {path}"):
        Body(damaged(zoo.build("gemma3"), path, torch.nan), "tiny")


def test_a_matrix_of_zeros_is_named_and_biases_of_zeros_are_usual() -> None:
    path = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(ModelError, match=f"1 weight is all zero, such as {path}"):
        Body(damaged(tiny_model("qwen2"), path, 0.0, slice(None)), "tiny")
    empty = tiny_model("qwen2")
    for weight in empty.parameters():
        weight.data.zero_()
    with pytest.raises(ModelError, match=r"weights are all zero, such as model\.embed_tokens\.weight"):
        Body(empty, "tiny")
    assert Body(damaged(tiny_model("qwen2"), "model.layers.0.self_attn.q_proj.bias", 0.0, slice(None)), "tiny").window == 96


def test_a_checkpoint_on_disk_is_checked(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    damaged(tiny_model("llama"), "model.norm.weight", torch.inf).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=rf"{tmp_path}: 1 weight is NaN or infinite, such as model\.norm\.weight"):
        TorchEngine.load(str(tmp_path), device="cpu")


class Kernel(nn.Module):
    """A product that is no `nn.Linear`, as of a quantised kernel."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight)


@pytest.mark.parametrize("targets", ["all-linear", "paper", "q_proj@1:"])
def test_a_model_without_linear_modules_is_refused(targets: str) -> None:
    model = tiny_model("llama")
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and path != "lm_head":
            model.set_submodule(path, Kernel(module))
    with pytest.raises(ModelError, match=r"no linear module .* so adapters can change nothing"):
        TorchEngine(model, byte_tokenizer(), targets=targets)
    with pytest.raises(ModelError, match="no linear module"):  # a plan asks before any weights are loaded
        Costs.of(model, torch.float32, torch.device("cpu"))
