"""Routed experts get some of the tokens, in an order of their own: as targets they are refused."""

from __future__ import annotations

import pytest
import torch
from made_updates import mixed_updates, update
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, MixtralConfig, PreTrainedModel

from conftest import FAMILIES, byte_tokenizer, tiny_model
from selfedit.engine.adapters.expert_routing import unfit_modules
from selfedit.engine.model.body import Body
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError


class Experts(nn.Module):
    """A feed-forward layer of experts; each token goes to the ``top`` that its gate likes best."""

    def __init__(self, width: int, experts: int, top: int) -> None:
        super().__init__()
        self.top = top
        self.gate = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width)) for _ in range(experts))
        for weights in self.parameters():
            nn.init.normal_(weights, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        weights, chosen = self.gate(rows).softmax(-1).topk(self.top)
        out = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            place, token = torch.where(number == chosen.T)  # best choices first, as in Mixtral's first code
            if len(token):
                out.index_add_(0, token, expert(rows[token]) * weights[token, place, None])
        return out.view(x.shape)


def mixture(experts: int = 8, top: int = 2) -> PreTrainedModel:
    """A tiny llama with such layers."""
    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.mlp = Experts(32, experts, top)
    return model


def test_experts_are_refused_as_targets_and_what_is_beside_them_is_adapted() -> None:
    model = mixture()
    with pytest.raises(ModelError, match=r"32 of the targets, such as .*experts\.0\.0.*model\.targets"):
        TorchEngine(model, byte_tokenizer())
    engine = TorchEngine(model, byte_tokenizer(), targets="q_proj,gate")
    assert not engine.apply(mixed_updates()[:2], on=None).failed
    experts = update(1, targets="all-linear")
    assert "some of the tokens only" in str(engine.check(experts))
    with pytest.raises(ModelError, match="some of the tokens only"):
        engine.apply([experts], on=None)


def routed(model: PreTrainedModel) -> set[str]:
    """The modules of layer 0 that are found to be routed."""
    found = unfit_modules(Body(model, "tiny")).routed
    return {path.removeprefix("model.layers.0.") for path in found if "layers.0." in path}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("experts", "top"), [(8, 2), (4, 1), (2, 2), (2, 1)])
def test_experts_are_found_and_nothing_else(experts: int, top: int, dtype: torch.dtype) -> None:
    assert routed(mixture(experts, top).to(dtype)) == {f"mlp.experts.{n}.{i}" for n in range(experts) for i in (0, 2)}


class Choosing(nn.Linear):
    """A linear module that returns a choice beside its product, as some routers do."""

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        out = super().forward(input)
        return out, out.argmax(-1)


def test_a_module_that_is_not_called_or_returns_no_tensor_is_left_out_of_all_linear_and_refused_by_name() -> None:
    class Beside(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.router = inner, Choosing(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + 0.1 * self.router(x)[0]

    model = tiny_model("llama")
    model.model.layers[0].spare = nn.Linear(32, 32)
    model.model.layers[1].mlp = Beside(model.model.layers[1].mlp)
    engine = TorchEngine(model, byte_tokenizer())
    assert not {"spare", "router"} & {target.path.rpartition(".")[2] for target in engine.layout.targets}
    assert not engine.apply(mixed_updates()[:2], on=None).failed
    for name in ("spare", "router"):
        with pytest.raises(ModelError, match=rf"{name}, are not called when the model reads a text, or do not return a tensor"):
            TorchEngine(model, byte_tokenizer(), targets=name)


def test_a_module_that_gets_equally_many_tokens_of_every_text_by_chance_is_found() -> None:
    class Half(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.extra = inner, nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            out = self.inner(x).clone()
            out[:, ::2] += self.extra(x[:, ::2])
            return out

    model = tiny_model("llama")
    model.model.layers[0].mlp = Half(model.model.layers[0].mlp)
    assert routed(model) == {"mlp.extra"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_module_with_a_few_very_large_inputs_is_no_expert(dtype: torch.dtype) -> None:
    class Loud(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.extra = inner, nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            loud = torch.ones_like(x)
            loud.view(-1)[0] = 1e5
            return self.inner(x) + self.extra(x * loud) * 1e-6

    model = tiny_model("llama")
    model.model.layers[0].mlp = Loud(model.model.layers[0].mlp)
    assert not routed(model.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_very_large_input_does_not_hide_experts(dtype: torch.dtype) -> None:
    """Whose row it is counts, not by how much it changes: one row of the second text is a million times larger."""

    class Loud(Experts):
        def forward(self, x: Tensor) -> Tensor:
            loud = torch.ones_like(x)
            loud.view(-1, x.shape[-1])[-1] = 1e6
            return super().forward(x * loud) / loud

    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.mlp = Loud(32, 2, 2)
    assert routed(model.to(dtype)) == {f"mlp.experts.{n}.{i}" for n in range(2) for i in (0, 2)}


def test_a_module_whose_rows_have_nothing_to_do_with_the_batch_counts_as_routed() -> None:
    class Biased(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.table = inner, nn.Linear(8, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + self.table(torch.ones(32, 8)).mean(0)

    model = tiny_model("llama")
    model.model.layers[0].mlp = Biased(model.model.layers[0].mlp)
    assert routed(model) == {"mlp.table"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_usual_families_route_nothing(family: str, engines: dict[str, TorchEngine]) -> None:
    assert unfit_modules(engines[family].body) == (frozenset(), frozenset())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in engines[family].model.modules())


def test_experts_that_are_no_linear_modules_do_not_keep_the_others_apart() -> None:
    config = MixtralConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    assert routed(AutoModelForCausalLM.from_config(config)) == set()
