"""Checkpoints of every sort: adapters trained at once are PEFT's, answers are `generate`'s, or the load says why not."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
import torch
import zoo
from made_updates import beside, prompts, sequence, strong
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel, T5Config, T5ForConditionalGeneration

from benchmarks.peft_reference import peft_fit
from conftest import byte_tokenizer, tiny_model
from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError
from selfedit.evaluation.peft_parity import distance
from selfedit.types import Update

# PEFT 0.21 reads a property that transformers 5.23 renamed; what the engine says of a kind has tests of its own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*cannot keep several sequences:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*all-linear reaches:UserWarning"),
]


MISREAD = "PEFT 0.21 takes a shared expert's modules for the parameters of the experts beside it"


def saved(model: PreTrainedModel, directory: Path) -> Path:
    model.save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module", params=zoo.ALL)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(zoo.build(request.param), tmp_path_factory.mktemp(request.param) / request.param)


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> TorchEngine:
    return TorchEngine.load(str(checkpoint), device="cpu")


def updates() -> list[Update]:
    rng = random.Random(7)
    texts = [tuple(sequence(rng, n) for n in lengths) for lengths in ((12, 4), (3, 9, 5))]
    return [
        Update(some, steps=2, batch_size=2, lr=1e-3, rank=rank, alpha=8.0, seed=rank, max_grad_norm=1e-6)
        for some, rank in zip(texts, (2, 3), strict=True)
    ]


def loaded_bare(checkpoint: Path) -> PreTrainedModel:
    """The model as transformers loads it."""
    try:
        model = AutoModelForCausalLM.from_pretrained(checkpoint)
    except ValueError:  # no class of its own for texts alone
        model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    return model.requires_grad_(False).eval()


def test_adapters_trained_at_once_are_what_peft_trains_one_by_one(engine: TorchEngine, checkpoint: Path) -> None:
    bank, base = engine.apply(updates(), on=None), loaded_bare(checkpoint)
    if base.config.model_type == "qwen3_next":  # MISREAD
        base.config.model_type = "another"
    for k, one in enumerate(updates()):
        start = initial_adapter(engine.layout, one.rank, one.alpha, one.seed)
        reference, losses = peft_fit(base, one, start, [*start.tensors])
        assert distance(bank.adapter(k), reference) <= 2e-4
        assert bank.losses[k] == pytest.approx(losses, rel=1e-5)


def test_an_exported_adapter_gives_peft_the_same_logits(engine: TorchEngine, checkpoint: Path, tmp_path: Path) -> None:
    base = loaded_bare(checkpoint)
    if base.config.model_type == "qwen3_next":
        pytest.skip(MISREAD)
    adapter = strong(engine.initial_adapter(rank=3, alpha=6.0, seed=1))
    adapter.save(tmp_path)
    ids = torch.tensor(prompts(3, (9,)))
    with torch.no_grad():
        with beside(engine, adapter):
            ours = engine.model(input_ids=ids).logits
        theirs = PeftModel.from_pretrained(base, tmp_path).eval()(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alike", [False, True])
def test_answers_are_what_generate_writes(engine: TorchEngine, alike: bool) -> None:
    asked = prompts(3, (35, 4, 1))
    if alike:  # their common beginning is read once where the model allows it
        asked = [asked[0][:20] + end for end in prompts(4, (3, 6, 1))]
    (ours,) = engine.answer([asked], on=None, max_new_tokens=8)
    for prompt, text in zip(asked, ours, strict=True):
        ids = torch.tensor([prompt])
        out = engine.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=8,
            pad_token_id=0,
            eos_token_id=[*engine.stops],
        )
        tokens = out[0, len(prompt) :].tolist()
        assert text == engine.decode(tokens[:-1] if tokens[-1] in engine.stops else tokens)


def test_samples_of_one_prompt_are_what_each_gives_alone(engine: TorchEngine) -> None:
    """Rows that share a prompt share its cache, and those that end leave it."""
    first, second = prompts(5, (9, 4))
    asked, seeds = [first, first, second, first], [1, 2, 3, 4]

    def written(some: list[list[int]], of: list[int]) -> list[tuple[int, ...]]:
        return [c.token_ids for c in engine.sample(some, of, on=None, max_new_tokens=24, temperature=1.0, top_p=0.9)]

    alone = [written([prompt], [seed])[0] for prompt, seed in zip(asked, seeds, strict=True)]
    assert written(asked, seeds) == alone


def test_no_target_lies_outside_the_language_model(engine: TorchEngine) -> None:
    assert not [t.path for t in engine.layout.targets if "vision" in t.path or "visual" in t.path or "projector" in t.path]
    assert engine.window == 96


@pytest.mark.parametrize("kind", zoo.REFUSED)
def test_a_kind_whose_texts_cannot_be_kept_apart_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ignores attention masks or positions.*use a Llama-"):
        TorchEngine.load(str(saved(zoo.build(kind), tmp_path)), device="cpu")


def test_a_model_that_is_no_language_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    config = T5Config(vocab_size=260, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    with pytest.raises(ModelError, match="a model of the kind 't5' is no causal language model") as refused:
        TorchEngine.load(str(saved(T5ForConditionalGeneration(config), tmp_path)), device="cpu")
    assert len(str(refused.value).removeprefix(str(tmp_path))) < 250


MASSIVE = [*range(7, 260, 7), 1]  # the tokens that the engine's probes begin with, among others


def with_massive_activations() -> PreTrainedModel:
    """A llama where three features before each `down_proj` are thousands of times larger in some tokens, as in real models."""
    model = tiny_model("llama", tie_word_embeddings=False)
    with torch.no_grad():
        embedded = model.model.embed_tokens.weight
        embedded[:, 0] = 0
        embedded[MASSIVE, 0] = 8 * embedded.std()
        for layer in model.model.layers:
            for module in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.mlp.gate_proj, layer.mlp.up_proj):
                module.weight[:, 0] = 0
            for module in (layer.mlp.gate_proj, layer.mlp.up_proj):
                module.weight[:3, 0] = 60
            layer.mlp.down_proj.weight[:, :3] *= 1e-5
            layer.mlp.down_proj.weight[0] = 0
            layer.self_attn.o_proj.weight[0] = 0
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_massive_activations_are_taken_for_no_routing(dtype: torch.dtype) -> None:
    model = with_massive_activations().to(dtype)
    seen: list[Tensor] = []
    handle = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _module, args: seen.append(args[0][0].float()))
    with torch.no_grad():
        model(input_ids=torch.tensor([[7, *range(50, 64)]]))
    handle.remove()
    assert float(seen[0].norm(dim=-1)[0] / seen[0].norm(dim=-1).median()) > 1000
    engine = TorchEngine(model, byte_tokenizer())
    assert len(engine.layout.targets) == 14
    rng = random.Random(2)
    pair = [Update((sequence(rng, 9), sequence(rng, 5)), 2, 2, 1e-3, 2, 4.0, seed, max_grad_norm=1e-6) for seed in (1, 2)]
    together = engine.apply(pair, on=None)
    for k, one in enumerate(pair):
        start = initial_adapter(engine.layout, one.rank, one.alpha, one.seed)
        assert distance(together.adapter(k), engine.apply([one], on=None).adapter(0), start) <= (
            1e-4 if dtype == torch.float32 else 0.1
        )


def said(model: PreTrainedModel, targets: str = "all-linear") -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TorchEngine(model, byte_tokenizer(), name="tiny", targets=targets)
    return " ".join(str(w.message) for w in caught)


def test_experts_out_of_reach_are_told_with_the_share_that_is_reached() -> None:
    model = zoo.build("mixtral")
    layers = model.model.layers
    attention = sum(w.numel() for layer in layers for w in layer.self_attn.parameters())
    everything = sum(w.numel() for w in layers.parameters() if w.dim() > 1)
    text = said(model)
    assert f"all-linear reaches {attention / everything:.0%} of the weights" in text
    assert "experts.gate_up_proj" in text or "experts.down_proj" in text
    assert "reaches" not in said(model, "q_proj")
    assert "reaches" not in said(zoo.build("olmo2"))
