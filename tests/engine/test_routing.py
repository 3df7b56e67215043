"""Routed experts get some of the tokens, in an order of their own: members train and answer one after another, as exactly."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_updates import mixed_updates, prompts, strong, update
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, MixtralConfig, PreTrainedModel

from benchmarks.peft_reference import distance, peft_fit
from conftest import FAMILIES, byte_tokenizer, tiny_model
from selfedit.config import AtOnce
from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.engine.training.cohort import Cohort

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
NEW = 12


class Experts(nn.Module):
    """A feed-forward layer of experts; each token goes to the ``top`` that its gate likes best."""

    def __init__(self, width: int, experts: int, top: int) -> None:
        super().__init__()
        self.top = top
        self.gate = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width)) for _ in range(experts)
        )
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


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return mixture()


@pytest.fixture(scope="module")
def engine(model: PreTrainedModel) -> TorchEngine:
    with pytest.warns(UserWarning, match=r"32 of the targets, such as .*experts\.0\.0.* one after another") as warned:
        engine = TorchEngine(model, byte_tokenizer(), at_once=AtOnce(members=4))
    assert len(warned) == 1
    return engine


def written(engine: TorchEngine, model: Any, prompt: list[int]) -> str:
    """What transformers' own greedy decoding writes after one prompt."""
    out = model.generate(
        input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW, pad_token_id=0, eos_token_id=2
    )
    tokens = out[0, len(prompt) :].tolist()
    return engine.decode(tokens[:-1] if tokens[-1] == 2 else tokens)


def test_members_train_what_peft_trains_one_by_one(engine: TorchEngine, model: PreTrainedModel) -> None:
    # Short steps, so that in each some experts see no token at all; clipped, so that AdamW follows gradients, not their noise.
    short = update(5, batch_size=1, steps=8, max_grad_norm=1e-6)
    updates, before = [*mixed_updates()[1:3], short], engine.base_sha256()
    bank = engine.apply(updates, on=None)
    for k, one in enumerate(updates):
        start = initial_adapter(engine.layout, one.rank, one.alpha, one.seed)
        reference, losses = peft_fit(model, one, start)
        assert distance(bank.adapter(k), reference) <= 1e-4
        assert bank.losses[k] == pytest.approx(losses, rel=1e-5)
    assert all(shift > 0 for shift in bank.shift)
    assert engine.base_sha256() == before


def test_members_answer_and_score_as_their_exports_do_in_peft(engine: TorchEngine, tmp_path: Path) -> None:
    adapters = [strong(initial_adapter(engine.layout, rank, 4.0, rank), seed=rank) for rank in (2, 5, 3)]
    asked = [prompts(k, (2, 30, 9)[: k + 1]) for k in range(3)]
    bank = engine.bank(adapters)
    answers = engine.answer(asked, on=None, members=bank, max_new_tokens=NEW)
    scores = engine.score([[(prompt[:1], prompt[1:]) for prompt in row] for row in asked], on=None, members=bank)
    for k, adapter in enumerate(adapters):
        adapter.save(tmp_path / str(k))
        base = mixture()
        base.load_state_dict(engine.model.state_dict())
        theirs = PeftModel.from_pretrained(base, tmp_path / str(k)).eval()
        assert answers[k] == [written(engine, theirs, prompt) for prompt in asked[k]]
        for prompt, scored in zip(asked[k], scores[k], strict=True):
            with torch.no_grad():
                logits = theirs(input_ids=torch.tensor([prompt])).logits[0, :-1]
            expected = torch.log_softmax(logits, -1)[range(len(prompt) - 1), prompt[1:]]
            assert scored.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_policy_on_the_experts_serves_all_rows_together(engine: TorchEngine, tmp_path: Path) -> None:
    policy = strong(initial_adapter(engine.layout, 4, 6.0, 1))
    policy.save(tmp_path)
    base = mixture()
    base.load_state_dict(engine.model.state_dict())
    theirs = PeftModel.from_pretrained(base, tmp_path).eval()
    asked = prompts(1, (9, 3, 20))
    assert engine.answer([asked], on=policy, max_new_tokens=NEW)[0] == [written(engine, theirs, p) for p in asked]


def test_modules_beside_the_experts_are_adapted_many_at_once(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine = TorchEngine(model, byte_tokenizer(), targets="q_proj,gate", at_once=AtOnce(members=4))
    step, sizes = Cohort.step, []
    monkeypatch.setattr(Cohort, "step", lambda self, place: sizes.append(self.active) or step(self, place))
    updates = mixed_updates()[:2]
    engine.apply(updates, on=None)
    assert max(sizes) == 2
    sizes.clear()
    with pytest.warns(UserWarning, match="one after another"):
        engine.apply([replace(one, targets="all-linear") for one in updates], on=None)
    assert max(sizes) == 1


def routed(model: PreTrainedModel) -> set[str]:
    """The modules of layer 0 that are found to be routed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = TorchEngine(model, byte_tokenizer()).experts.paths
    return {path.removeprefix("model.layers.0.") for path in found if "layers.0." in path}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("experts", "top"), [(8, 2), (4, 1), (2, 2), (2, 1)])
def test_experts_are_found_and_nothing_else(experts: int, top: int, dtype: torch.dtype) -> None:
    assert routed(mixture(experts, top).to(dtype)) == {f"mlp.experts.{n}.{i}" for n in range(experts) for i in (0, 2)}


def test_a_module_that_is_not_called_counts_as_routed() -> None:
    model = tiny_model("llama")
    model.model.layers[0].spare = nn.Linear(32, 32)
    assert routed(model) == {"spare"}


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
    assert not engines[family].experts.paths
    assert not any(module._forward_pre_hooks for module in engines[family].model.modules())


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
