"""The sequential baselines compute what the oracle does, and leave the base as they found it."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_updates import prompts, update
from transformers import PreTrainedModel

from benchmarks.peft_baseline import BASELINES, Padding, collate, generated, run_baseline
from benchmarks.peft_reference import load_base, lora_on, peft_fit
from selfedit.engine.adapters.lora import LoraAdapter, initial_adapter
from selfedit.engine.adapters.targets import find_layout
from selfedit.engine.model.body import Body
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import SettingsError
from selfedit.evaluation.peft_parity import distance
from selfedit.types import TrainSequence, Update

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ROTARY = ("llama", "qwen2")  # GPT-2's own dropout is on while the Trainer trains
# Its last minibatch of an epoch is short: six sequences, four a step.
UPDATES = (update(1), update(2, batch_size=4, steps=5, schedule="constant", weight_decay=0.1, max_grad_norm=0.05))
LONGEST = 30


@pytest.fixture(params=ROTARY)
def base(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> PreTrainedModel:
    return load_base(checkpoints[request.param])


def start_of(base: PreTrainedModel, one: Update) -> LoraAdapter:
    return initial_adapter(find_layout(base, "all-linear", ""), one.rank, one.alpha, one.seed)


@pytest.mark.parametrize("one", UPDATES)
@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_gives_the_oracles_adapter(name: str, one: Update, base: PreTrainedModel) -> None:
    start = start_of(base, one)
    expected, _ = peft_fit(base, one, start)
    padding = Padding(LONGEST) if name == "seal" else None
    asked = prompts(3, (4, 9, 1))
    edited = run_baseline(name, base, one, start, asked, max_new_tokens=8, padding=padding)  # type: ignore[arg-type]
    assert distance(edited.adapter, expected) <= 1e-4
    with lora_on(base, expected) as model:
        assert edited.answers == [generated(model, [prompt], 8)[0] for prompt in asked]


def test_padding_in_the_loss_is_trained_on_and_counted(base: PreTrainedModel) -> None:
    one = UPDATES[0]
    start = start_of(base, one)
    wide = run_baseline("seal", base, one, start, [], max_new_tokens=8, padding=Padding(40, in_loss=True))
    masked = run_baseline("seal", base, one, start, [], max_new_tokens=8, padding=Padding(40))
    assert distance(wide.adapter, masked.adapter) > 0.1
    assert wide.positions == masked.positions == one.steps * one.batch_size * 40
    narrow = run_baseline("lean", base, one, start, [], max_new_tokens=8)
    assert narrow.positions < wide.positions
    assert narrow.answers == []


def test_seal_pads_to_the_bases_window_with_the_stop_token_in_the_loss(base: PreTrainedModel) -> None:
    one = update(3, steps=1, batch_size=1)
    edited = run_baseline("seal", base, one, start_of(base, one), [], max_new_tokens=8)
    assert edited.positions == base.config.max_position_embeddings
    batch = collate([TrainSequence((5, 6, 7), (True, False, True))], Padding(5, in_loss=True), pad=2)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 2, 2]]


@pytest.mark.parametrize("name", BASELINES)
def test_the_base_is_bare_and_equal_afterwards(name: str, base: PreTrainedModel) -> None:
    def state() -> list[object]:
        modules = [(path, type(module), module.training) for path, module in base.named_modules()]
        flags = [(path, p.requires_grad, p.grad) for path, p in base.named_parameters()]
        return [modules, flags, hasattr(base, "peft_config"), body.sha256(), sum(map(len, hooks()))]

    def hooks() -> list[dict[int, object]]:
        return [h for m in base.modules() for h in (m._forward_hooks, m._forward_pre_hooks)]  # type: ignore[list-item]

    body = Body(base, "")
    one, asked = update(4), prompts(4, (6, 2))
    bare = state()
    first = run_baseline(name, base, one, start_of(base, one), asked, max_new_tokens=6)  # type: ignore[arg-type]
    assert state() == bare
    again = run_baseline(name, base, one, start_of(base, one), asked, max_new_tokens=6)  # type: ignore[arg-type]
    assert again.adapter.sha256 == first.adapter.sha256
    assert again.answers == first.answers


def test_baselines_answer_as_the_engine_does(base: PreTrainedModel) -> None:
    engine, one, asked = TorchEngine.load(base.name_or_path, device="cpu"), update(5, steps=12), prompts(5, (6, 2, 11))
    edited = run_baseline("lean", base, one, start_of(base, one), asked, max_new_tokens=8)
    (ours,) = engine.answer([asked], on=None, members=engine.apply([one], on=None), max_new_tokens=8)
    assert ours == [engine.decode(ids) for ids in edited.answers]


def test_the_base_is_bare_after_an_error(base: PreTrainedModel) -> None:
    one = update(6)
    with pytest.raises(RuntimeError, match="stop"), lora_on(base, start_of(base, one)):
        raise RuntimeError("stop")
    assert not hasattr(base, "peft_config")
    assert not any("lora" in path for path, _ in base.named_modules())


def test_what_cannot_be_run_is_refused(base: PreTrainedModel) -> None:
    one = update(7)
    start = start_of(base, one)
    with pytest.raises(SettingsError, match="no baseline 'vllm'; there are seal, trainer, lean"):
        run_baseline("vllm", base, one, start, [], max_new_tokens=8)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="window of 29"):
        run_baseline("seal", base, one, start, [], max_new_tokens=8, padding=Padding(LONGEST - 1))
