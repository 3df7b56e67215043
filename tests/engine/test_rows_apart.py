"""Models that count positions by themselves (ALiBi) train, score and decode exactly, one sequence a row, with a warning."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from made_updates import mixed_updates, prompts, sequence
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.peft_reference import peft_fit
from conftest import byte_tokenizer
from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.model.packing import pack
from selfedit.engine.torch_engine import TorchEngine
from selfedit.evaluation.peft_parity import distance

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": ("falcon", {**_SIZES, "alibi": True, "multi_query": True, "ffn_hidden_size": 48}),
}


@pytest.fixture(scope="module", params=MODELS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, settings = MODELS[request.param]
    torch.manual_seed(5)
    config = AutoConfig.for_model(
        kind, vocab_size=260, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.15, **settings
    )
    directory = tmp_path_factory.mktemp(kind)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> TorchEngine:
    with pytest.warns(UserWarning, match="as exact, but slower") as warned:
        engine = TorchEngine.load(str(checkpoint), device="cpu")
    said = [str(w.message) for w in warned]
    assert sum("ForCausalLM) cannot keep several sequences of a row apart" in text for text in said) == 1
    assert len(said) == (2 if "falcon" in str(checkpoint) else 1)  # FalconLinear has a forward of its own
    return engine


def test_every_sequence_has_its_row(engine: TorchEngine) -> None:
    one = mixed_updates()[0]
    packed = pack([one.sequences[:3], one.sequences[3:5]], engine.body.half_cost, engine.body.device)
    assert len(packed.ids) == 6
    assert packed.positions.tolist() == [list(range(packed.ids.shape[1]))] * 6


def test_members_train_what_peft_trains_one_by_one_and_answer_the_same(engine: TorchEngine, checkpoint: Path) -> None:
    updates, before = mixed_updates(), engine.base_sha256()
    bank = engine.apply(updates, on=None)
    references = []
    for k, one in enumerate(updates):
        start = initial_adapter(engine.layout, one.rank, one.alpha, one.seed)
        reference, losses = peft_fit(checkpoint, one, start)
        references.append(reference)
        assert distance(bank.adapter(k), reference) <= 1e-4
        assert bank.losses[k] == pytest.approx(losses, rel=1e-5)
    asked = [prompts(k, (3, 30)) for k in range(len(updates))]
    theirs = engine.answer(asked, on=None, members=engine.bank(references), max_new_tokens=8)
    assert engine.answer(asked, on=None, members=bank, max_new_tokens=8) == theirs
    assert engine.base_sha256() == before


def test_answers_and_scores_are_the_models_own(engine: TorchEngine, checkpoint: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    asked = prompts(3, (2, 40, 7, 19))
    (ours,) = engine.answer([asked], on=None, max_new_tokens=12)
    for prompt, answer in zip(asked, ours, strict=True):
        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, pad_token_id=0
        )
        assert answer == engine.decode(out[0, len(prompt) :].tolist())
    texts = [sequence(random.Random(s), 5 + 9 * s) for s in range(4)]
    for text, loss in zip(texts, engine.sequence_loss(texts, on=None), strict=True):
        ids = torch.tensor([text.ids])
        assert loss == pytest.approx(model(input_ids=ids, labels=ids).loss.item(), rel=1e-4)
