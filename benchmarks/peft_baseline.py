"""What the engine is measured against: one edit after another on PEFT, as public code does it.

- ``seal``: Hugging Face's `Trainer`, every sequence padded to a window and the padding in the loss, as in SEAL's public
  code (there 2 048 tokens; the pads are EOS);
- ``trainer``: the same, padded to the longest of a minibatch, with the padding masked;
- ``lean``: a hand-written loop without the Trainer.

All train from the same start, in the engine's order of sequences, and answer their probes in one batch of `generate`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from selfedit.engine.adapters.lora import LoraAdapter
from selfedit.engine.base import Ids
from selfedit.engine.training.cohort import minibatches
from selfedit.errors import SettingsError
from selfedit.types import TrainSequence, Update

from .peft_reference import Targets, lora_on, summed_loss, train, trained_adapter

Baseline = Literal["seal", "trainer", "lean"]
BASELINES: tuple[Baseline, ...] = Baseline.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Edited:
    """What an inner loop made of one edit.

    ``answers``: the token ids of each prompt's greedy answer, without the stop. ``positions``: tokens that went through
    the model in training, padding counted.
    """

    adapter: LoraAdapter
    answers: list[list[int]]
    positions: int


@dataclass(frozen=True)
class Padding:
    """How a minibatch becomes a rectangle: up to ``window`` tokens (0: its longest sequence), counted in the loss or not."""

    window: int = 0
    in_loss: bool = False


def run_baseline(
    name: Baseline,
    base: PreTrainedModel,
    update: Update,
    start: LoraAdapter,
    prompts: Sequence[Ids],
    *,
    max_new_tokens: int,
    padding: Padding | None = None,
    targets: Targets | None = None,
) -> Edited:
    """Train one update on a base of `load_base` and answer its probes; the base is bare and equal afterwards.

    ``padding``: where not the baseline's own (``seal``: the base's window, in the loss). ``targets``: where not the names
    that ``start`` brings. A base with dropout trains with it under the Trainer.

    Raises:
        SettingsError: there is no such baseline, or a sequence is longer than the window.
    """
    if name not in BASELINES:
        raise SettingsError(f"no baseline {name!r}; there are {', '.join(BASELINES)}")
    if padding is None:
        padding = Padding(int(base.config.max_position_embeddings), in_loss=True) if name == "seal" else Padding()
    batches = [[update.sequences[i] for i in batch] for batch in minibatches(update)]
    with lora_on(base, start, targets or start.target_modules) as model:
        if name == "lean":
            _lean_loop(model, update, padding)
        else:
            _trainer_loop(model, update, batches, padding)
        answers = generated(model, prompts, max_new_tokens)
        positions = sum(len(batch) * _width(batch, padding) for batch in batches)
        return Edited(trained_adapter(model, start), answers, positions)


def collate(sequences: Sequence[TrainSequence], padding: Padding, pad: int) -> dict[str, Tensor]:
    """A minibatch as the model's arguments (N, T): ``input_ids``, ``attention_mask``, ``labels`` (-100: not predicted)."""
    width = _width(sequences, padding)
    ids = torch.full((len(sequences), width), pad)
    mask = torch.zeros(len(sequences), width, dtype=torch.long)
    labels = torch.full((len(sequences), width), pad if padding.in_loss else -100)
    for row, sequence in enumerate(sequences):
        n = len(sequence.ids)
        ids[row, :n] = torch.tensor(sequence.ids)
        mask[row, : n - sequence.padding] = 1
        labels[row, :n] = torch.where(torch.tensor(sequence.mask), ids[row, :n], -100)
    labels[:, 0] = -100  # the first token is never predicted
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _width(sequences: Sequence[TrainSequence], padding: Padding) -> int:
    """Tokens of a minibatch's rows."""
    longest = max(len(sequence.ids) for sequence in sequences)
    if padding.window and longest > padding.window:
        raise SettingsError(f"a sequence of {longest} tokens does not fit a window of {padding.window}; widen it")
    return padding.window or longest


def _lean_loop(model: Any, update: Update, padding: Padding) -> None:
    pad = _stops(model)[0]

    def backward(sequences: Sequence[TrainSequence]) -> float:
        batch = collate(sequences, padding, pad)
        ids, labels = (batch[name].to(model.device) for name in ("input_ids", "labels"))
        # Padding lies behind the text: causal attention hides it without a mask, which is the faster kernel.
        loss = summed_loss(model(input_ids=ids).logits, labels) / int((labels != -100).sum())
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    train(model, update, backward, fused=True)


def _trainer_loop(model: Any, update: Update, batches: list[list[TrainSequence]], padding: Padding) -> None:
    """Hugging Face's `Trainer`, with nothing logged or saved. One of its examples is a whole minibatch, so that it keeps the
    update's order and its short minibatches at an epoch's end.
    """
    from transformers import PrinterCallback, Trainer, TrainingArguments

    pad = _stops(model)[0]

    def collated(examples: list[list[TrainSequence]]) -> dict[str, Tensor]:
        return collate(examples[0], padding, pad)

    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            output_dir=directory,
            per_device_train_batch_size=1,
            max_steps=update.steps,
            train_sampling_strategy="sequential",
            learning_rate=update.lr,
            lr_scheduler_type=update.schedule,
            weight_decay=update.weight_decay,
            max_grad_norm=update.max_grad_norm,
            adam_epsilon=1e-8,
            use_cpu=model.device.type == "cpu",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=batches, data_collator=collated)  # type: ignore[arg-type]
        trainer.remove_callback(PrinterCallback)
        trainer.train()


@torch.no_grad()
def generated(model: Any, prompts: Sequence[Ids], max_new_tokens: int) -> list[list[int]]:
    """Greedy answers by `generate`, all prompts in one left-padded batch: token ids up to the stop."""
    if not prompts:
        return []
    model.eval()
    stops = _stops(model)
    width = max(map(len, prompts))
    ids = torch.tensor([[stops[0]] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    seen = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    out = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=seen.to(model.device),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=stops[0],
    )
    rows = out[:, width:].tolist()
    return [row[: next((t for t, token in enumerate(row) if token in stops), len(row))] for row in rows]


def _stops(model: Any) -> list[int]:
    """The tokens that end a text; the first of them pads, as in SEAL's code."""
    ends = model.generation_config.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends)
