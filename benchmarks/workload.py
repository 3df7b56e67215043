"""What is measured: models, two inner loops, and edits: of the embedded world, or passages that no pretrained model can know."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from selfedit.cli.demo import of_pretrained
from selfedit.config import Settings, make_settings
from selfedit.edits.text import text_change
from selfedit.engine.adapters.lora import Target
from selfedit.engine.adapters.targets import decoder_layers, find_layout
from selfedit.engine.base import encode_answered
from selfedit.engine.torch_engine import TorchEngine
from selfedit.engine.training.cohort import minibatches
from selfedit.evaluation.machine import EMBEDDED, model_path
from selfedit.tasks.files import read_tasks
from selfedit.tasks.sources.passages import PASSAGES
from selfedit.tasks.sources.world import draw_tasks
from selfedit.templates import answer_prompt, gold_text
from selfedit.types import Task, TrainSequence, Update

MODELS, LOOPS = ("embedded", "25m", "tiny"), ("paper", "default")
PAPER_EPOCHS, PAPER_SEQUENCES, PAPER_PROBES = 10, 8, 5
MAX_NEW_TOKENS = 16
# Llamas of random weights with the embedded base's vocabulary and window.
_SIZES: dict[str, dict[str, int]] = {
    "25m": {"hidden_size": 512, "intermediate_size": 1280, "num_hidden_layers": 8, "num_attention_heads": 8},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
}


@dataclass(frozen=True)
class Case:
    """One edit: what is trained, and the prompts of its probes."""

    update: Update
    prompts: list[list[int]]

    @property
    def sequences(self) -> list[TrainSequence]:
        """Every sequence that goes through the model in training, as often as it does."""
        return [self.update.sequences[i] for batch in minibatches(self.update) for i in batch]

    @property
    def tokens(self) -> int:
        """Tokens that go through the model in training."""
        return sum(len(sequence.ids) for sequence in self.sequences)

    @property
    def distinct_tokens(self) -> int:
        """Tokens of the sequences that training visits, each counted once."""
        visited = {i for batch in minibatches(self.update) for i in batch}
        return sum(len(self.update.sequences[i].ids) for i in visited)


def checkpoint(model: str, directory: Path) -> Path:
    """Where ``model`` lies: one of `MODELS`, the name of a model that was fetched, or a directory. One of random weights is made
    in ``directory``.
    """
    if model == "embedded" or model not in MODELS:
        return Path(model_path(model))
    config = AutoConfig.from_pretrained(EMBEDDED)
    size = _SIZES[model]
    heads = size["num_attention_heads"]
    for name, value in {**size, "num_key_value_heads": heads, "head_dim": size["hidden_size"] // heads}.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    where = directory / model
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(where)
    AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(where)
    return where


def settings_for(model: str) -> Settings:
    """How a model is prompted and learns by default: as in the demo."""
    return make_settings({} if model in MODELS else of_pretrained(model), "demo")


def targets_of(model: str, loop: str) -> str:
    """The modules that the loop adapts: all linear ones, or those of the demo."""
    return "all-linear" if loop == "paper" else settings_for(model).targets


def draw_cases(engine: TorchEngine, model: str, loop: str, n: int, max_steps: int | None = None) -> list[Case]:
    """``n`` edits, the most typical first: closest to the mean in tokens.

    The paper's loop trains on the first lines of each and its passage, in 10 epochs of single sequences; the default loop on
    all of them, as the demo does. ``max_steps`` cuts the training short.
    """
    settings = settings_for(model)
    cases = []
    for k, (task, text) in enumerate(edits_of(model, n)):
        update = update_for(engine, model, loop, task, text, seed=k)
        update = replace(update, steps=min(update.steps, max_steps or update.steps))
        prompts = [_prompt(engine, settings, task, k) for k in range(len(task.probes))]
        cases.append(Case(update, prompts[:PAPER_PROBES] if loop == "paper" else prompts))
    mean = sum(case.tokens for case in cases) / n
    return sorted(cases, key=lambda case: abs(case.tokens - mean))


def edits_of(model: str, n: int) -> list[tuple[Task, str]]:
    """``n`` tasks with an edit: perfect ones of the world's development split, or our own passages, a line a sentence."""
    if model in MODELS:
        return [(task, task.gold_edit) for task in draw_tasks("dev", ("e1",), n, seed=2)]
    tasks = list(read_tasks(PASSAGES))[:n]
    return [(task, "\n".join(re.split(r"(?<=[.!?]) ", task.text))) for task in tasks]


def _prompt(engine: TorchEngine, settings: Settings, task: Task, k: int) -> list[int]:
    probe, templates = task.probes[k], settings.templates
    pair = encode_answered(engine, templates, answer_prompt(task, probe, templates), gold_text(probe, templates))
    return pair.prompt


def update_for(engine: TorchEngine, model: str, loop: str, task: Task, text: str, *, seed: int) -> Update:
    """What the loop trains on an edit."""
    settings = settings_for(model)
    sequences = text_change(settings, engine, task, [text]).sequences
    if loop == "paper":
        sequences = (*sequences[: PAPER_SEQUENCES - 1], sequences[-1])  # the passage is the last
        settings = make_settings({"preset": "paper"})
    return settings.inner.recipe.update(sequences, seed)


def useful_flops(model: Any, targets: str, case: Case) -> float:
    """Matrix products that an edit cannot do without, in FLOPs; padding, attention's own products and decoding left out.

    A frozen weight is used forward and backward (once each: activations only), an adapter's in three products, the head
    for target tokens; prompts go forward only. Below the lowest adapted layer nothing is ever learned: each sequence passes
    there once, forward. That layer itself counts in full, though those of its products that feed no adapter could be left out.
    """
    below, above = _widths_around(model, targets)
    adapters = sum(case.update.rank * (t.d_in + t.d_out) for t in find_layout(model, targets, "").targets)
    head = int(model.config.vocab_size * model.config.hidden_size)
    predicted = sum(sequence.n_targets for sequence in case.sequences)
    training = case.tokens * (2 * above + 3 * adapters) + case.distinct_tokens * below + predicted * 2 * head
    probing = sum(map(len, case.prompts)) * (below + above + adapters)
    return 2.0 * (training + probing)


def _widths_around(model: Any, targets: str) -> tuple[int, int]:
    """Weights of the linear modules below the lowest adapted layer, and of all the others but the head."""
    path, _ = decoder_layers(model)

    def layer(target: Target) -> int:
        number = target.path.removeprefix(f"{path}.").split(".")[0]
        return int(number) if number.isdigit() else 0  # outside of the layers: below all of them, to be safe

    first = min(layer(target) for target in find_layout(model, targets, "").targets)
    linear = find_layout(model, "all-linear", "").targets
    below = sum(t.d_in * t.d_out for t in linear if layer(t) < first)
    return below, sum(t.d_in * t.d_out for t in linear) - below
