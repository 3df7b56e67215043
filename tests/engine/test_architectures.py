"""Every family trains, decodes and scores exactly, on sequences longer than its attention's window."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from made_updates import mixed_updates, prompts, sequence, strong
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, MambaConfig, PreTrainedModel

from benchmarks.peft_reference import peft_fit
from conftest import FAMILIES, WINDOW, byte_tokenizer, tiny_model
from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.model.body import Body
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError
from selfedit.evaluation.peft_parity import distance
from selfedit.types import Update

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

# No shrinking: the examples are small, and each costs a training run of PEFT.
few = settings(derandomize=True, deadline=None, max_examples=4, database=None, phases=(Phase.generate,))
LONG, STOPS = 5 * WINDOW, [*range(0, 260, 5)]
LENGTHS = st.lists(st.integers(1, LONG), min_size=1, max_size=5).map(lambda lengths: (LONG, *lengths))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(family: str, engines: dict[str, TorchEngine]) -> Iterator[TorchEngine]:
    """The family's engine, whose base none of the tests may change."""
    engine = engines[family]
    before = engine.base_sha256()
    yield engine
    assert engine.base_sha256() == before
    assert not any(module._forward_hooks for module in engine.model.modules())


@st.composite
def one_update(draw: st.DrawFn) -> Update:
    rng = random.Random(draw(st.integers(0, 999)))
    lengths = [draw(st.integers(WINDOW + 2, LONG)), *draw(st.lists(st.integers(2, 12), max_size=4))]
    return Update(
        tuple(sequence(rng, length, masked=draw(st.integers(0, length - 1))) for length in lengths),
        steps=draw(st.integers(1, 4)),
        batch_size=draw(st.integers(1, 4)),
        lr=draw(st.sampled_from([1e-4, 5e-4, 1e-3])),
        rank=draw(st.integers(1, 8)),
        alpha=draw(st.sampled_from([2.0, 8.0, 16.0])),
        seed=draw(st.integers(0, 99)),
        schedule=draw(st.sampled_from(["linear", "constant"])),
        weight_decay=draw(st.sampled_from([0.0, 0.1])),
        # Below AdamW's eps its steps follow the gradients; above, it also scales up the rounding of those that are nought.
        max_grad_norm=draw(st.sampled_from([1e-7, 1e-6])),
    )


@given(updates=st.lists(one_update(), min_size=2, max_size=3), data=st.data())
@few
def test_a_bank_trains_what_peft_trains_one_by_one(
    updates: list[Update], data: st.DataObject, family: str, engine: TorchEngine, checkpoints: dict[str, Path]
) -> None:
    bank = engine.apply(updates, on=None)
    references = []
    for k, one in enumerate(updates):
        start = initial_adapter(engine.layout, one.rank, one.alpha, one.seed)
        reference, losses = peft_fit(checkpoints[family], one, start)
        references.append(reference)
        assert distance(bank.adapter(k), reference, start) <= 1e-5
        assert bank.losses[k] == pytest.approx(losses, rel=1e-5)
    asked = [prompts(k, (3, LONG)) for k in range(len(updates))]
    theirs = engine.answer(asked, on=None, members=engine.bank(references), max_new_tokens=6)
    assert engine.answer(asked, on=None, members=bank, max_new_tokens=6) == theirs

    order = data.draw(st.sampled_from(list(permutations(range(len(updates))))))
    shuffled = engine.apply([updates[k] for k in order], on=None)
    for i, k in enumerate(order):
        assert distance(shuffled.adapter(i), bank.adapter(k)) <= 1e-5


def test_usual_updates_train_what_peft_trains(family: str, engine: TorchEngine, checkpoints: dict[str, Path]) -> None:
    updates = mixed_updates()[:2]
    bank = engine.apply(updates, on=None)
    for k, one in enumerate(updates):
        start = initial_adapter(engine.layout, one.rank, one.alpha, one.seed)
        reference, losses = peft_fit(checkpoints[family], one, start)
        assert distance(bank.adapter(k), reference) <= 1e-4
        assert bank.losses[k] == pytest.approx(losses, rel=1e-5)


def test_a_nan_neighbour_changes_no_bit_of_the_others(engine: TorchEngine) -> None:
    rng = random.Random(3)
    healthy = [Update((sequence(rng, LONG), sequence(rng, 4), sequence(rng, 5)), 4, 3, 1e-3, 4, 8.0, seed) for seed in range(3)]
    well, ill = (
        engine.apply(healthy, on=None),
        engine.apply([healthy[0], replace(healthy[1], lr=1e30), healthy[2]], on=None),
    )
    assert list(ill.failed) == [1]
    for k in (0, 2):
        assert torch.equal(ill.flat[k], well.flat[k])
        assert ill.losses[k] == well.losses[k]


@contextmanager
def many_stops(engine: TorchEngine) -> Iterator[None]:
    """Every fifth token ends a text, so that rows leave the batch at many places."""
    stops, engine.stops = engine.stops, frozenset(STOPS)
    try:
        yield
    finally:
        engine.stops = stops


def written(engine: TorchEngine, model: PreTrainedModel, prompt: list[int]) -> str:
    """What transformers' own greedy decoding writes after one prompt."""
    ids = torch.tensor([prompt])
    out = model.generate(input_ids=ids, do_sample=False, max_new_tokens=12, pad_token_id=0, eos_token_id=STOPS)
    tokens = [int(t) for t in out[0, len(prompt) :]]
    return engine.decode(tokens[:-1] if tokens[-1] in STOPS else tokens)


@given(lengths=LENGTHS)
@few
def test_greedy_equals_generate_whatever_the_neighbours(engine: TorchEngine, lengths: tuple[int, ...]) -> None:
    asked = prompts(sum(lengths), lengths)
    with many_stops(engine):
        (ours,) = engine.answer([asked], on=None, max_new_tokens=12)
    assert ours == [written(engine, engine.model, prompt) for prompt in asked]


def test_members_answer_as_their_exports_do_in_peft(
    family: str, engine: TorchEngine, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    adapters = [strong(initial_adapter(engine.layout, rank, 4.0, rank), seed=rank) for rank in (2, 5)]
    asked = [prompts(k, (2, LONG, 2 * WINDOW)) for k in range(2)]
    with many_stops(engine):
        ours = engine.answer(asked, on=None, members=engine.bank(adapters), max_new_tokens=12)
    for k, adapter in enumerate(adapters):
        adapter.save(tmp_path / str(k))
        base = AutoModelForCausalLM.from_pretrained(checkpoints[family])
        model = PeftModel.from_pretrained(base, tmp_path / str(k))
        assert ours[k] == [written(engine, model, prompt) for prompt in asked[k]]


@given(lengths=LENGTHS)
@few
def test_scores_are_the_models_own_log_probabilities(engine: TorchEngine, lengths: tuple[int, ...]) -> None:
    pairs = [(p[:1], p[1:]) for p in prompts(sum(lengths), tuple(n + 1 for n in lengths))]
    (scored,) = engine.score([pairs], on=None)
    for (prompt, completion), one in zip(pairs, scored, strict=True):
        with torch.no_grad():
            logits = engine.model(input_ids=torch.tensor([prompt + completion])).logits[0, :-1]
        expected = torch.log_softmax(logits, -1)[range(len(completion)), completion]
        assert one.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_fused_attention_computes_the_same(family: str, engine: TorchEngine, checkpoints: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoints[family])
    assert model.config._attn_implementation == ("eager" if family == "gemma2" else "sdpa")
    fused = TorchEngine(model, byte_tokenizer())
    asked = prompts(3, (LONG, 4, 1, 2 * WINDOW))
    assert fused.answer([asked], on=None, max_new_tokens=12) == engine.answer([asked], on=None, max_new_tokens=12)
    rng = random.Random(4)
    texts = [sequence(rng, length) for length in (LONG, 5, 2 * WINDOW, 8)]
    assert fused.sequence_loss(texts, on=None) == pytest.approx(engine.sequence_loss(texts, on=None), rel=1e-5)


ONE_ROPE = {kind: {"rope_type": "default", "rope_theta": 10.0} for kind in ("sliding_attention", "full_attention")}


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("mistral", {"sliding_window": None}),
        ("phi3", {"sliding_window": None}),
        ("qwen2-sliding", {"layer_types": ["full_attention"] * 2}),
        ("gemma2", {"layer_types": ["full_attention"] * 2}),
        ("gemma2", {"attn_logit_softcapping": None}),
        ("gemma2", {"final_logit_softcapping": None}),
        ("gemma3", {"layer_types": ["full_attention"] * 2}),
        ("gemma3", {"rope_parameters": ONE_ROPE}),
        ("neox", {"use_parallel_residual": False}),
    ],
)
def test_what_is_particular_to_a_family_shows_in_its_logits(family: str, change: dict[str, object]) -> None:
    model, plain = tiny_model(family), tiny_model(family, **change)
    plain.load_state_dict(model.state_dict())
    ids = torch.tensor(prompts(1, (LONG,)))
    with torch.no_grad():
        assert float((model.eval()(input_ids=ids).logits - plain.eval()(input_ids=ids).logits).abs().max()) > 0.3


def test_the_window_is_what_the_positions_allow(engine: TorchEngine) -> None:
    assert engine.window == 96
    assert getattr(engine.model.config, "sliding_window", None) in (None, WINDOW)


def test_a_model_whose_angles_depend_on_the_batchs_longest_sequence_stops_before_they_do() -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 10000.0}
    model = tiny_model("phi3", rope_parameters=rope, original_max_position_embeddings=24)
    assert Body(model, "phi3").window == 24


def test_a_model_without_data_is_refused() -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp.up_proj.to("meta")
    with pytest.raises(ModelError, match=r"1 tensors .* such as model\.layers\.1\.mlp\.up_proj\.weight"):
        Body(model, "llama")


def test_a_model_whose_layers_know_no_masks_is_refused() -> None:
    config = MambaConfig(vocab_size=260, hidden_size=32, num_hidden_layers=2, state_size=4)
    with pytest.raises(ModelError, match="mamba"):
        Body(AutoModelForCausalLM.from_config(config), "mamba")


class Leaking(nn.Module):
    """A feed-forward layer that adds up all that came before in the row, whatever the mask and the positions say."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + x.cumsum(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("factor", "largest"), [(1.0, 0.0), (1.0, 1e6), (1e-4, 0.0)])
def test_logits_are_compared_each_with_its_own_size(factor: float, largest: float, dtype: torch.dtype) -> None:
    """One huge logit, or small ones throughout, hide no difference between texts in one row and each alone."""
    model = tiny_model("llama", tie_word_embeddings=False)
    for layer in model.model.layers:
        layer.mlp = Leaking(layer.mlp)
    head = nn.Linear(32, 260)
    with torch.no_grad():
        head.weight.copy_(model.lm_head.weight * factor)
        head.bias.zero_()[200] = largest
    model.lm_head = head
    with pytest.raises(ModelError, match="ignores attention masks"):
        Body(model.to(dtype), "leaking")


def test_a_model_with_infinite_logits_is_refused_by_that_reason() -> None:
    model = tiny_model("qwen2")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight *= 1e30
        model.model.layers[0].mlp.down_proj.weight *= 1e30
    with pytest.raises(ModelError, match=r"its logits are infinite or NaN in torch\.float32"):
        Body(model, "qwen2")
