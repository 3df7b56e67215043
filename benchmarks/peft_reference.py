"""The same update with PEFT, one sequence at a time: the oracle of the tests; it shares no tensor code with the engine.

Its pieces (PEFT on a base for a while, the training loop) also carry the sequential baselines of `peft_baseline.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from selfedit.engine.adapters.lora import LoraAdapter
from selfedit.engine.training.cohort import minibatches
from selfedit.types import TrainSequence, Update

Targets = str | Sequence[str]
# A minibatch -> its loss, with the gradients added to the model's parameters.
Backward = Callable[[Sequence[TrainSequence]], float]


def load_base(source: str | Path, dtype: torch.dtype = torch.float32, attention: str | None = None) -> PreTrainedModel:
    """A frozen model as `transformers` loads it; ``attention``: its implementation, where not the library's choice."""
    from transformers import AutoModelForCausalLM

    how = {} if attention is None else {"attn_implementation": attention}
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **how)
    return model.requires_grad_(False).eval()


def add_lora(base: PreTrainedModel, start: LoraAdapter, targets: Targets = "all-linear") -> Any:
    """A PEFT model: LoRA on ``targets`` of ``base`` ("all-linear" or PEFT's names), which holds the tensors of ``start``."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    config = LoraConfig(
        r=start.rank,
        lora_alpha=start.alpha,  # type: ignore[arg-type]
        target_modules=targets if isinstance(targets, str) else list(targets),
        lora_dropout=0.0,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in base.modules()),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config).eval()
    modules = {n: m for n, m in model.base_model.model.named_modules() if hasattr(m, "lora_A")}
    assert set(modules) == set(start.tensors), "PEFT adapts other modules than the engine"
    with torch.no_grad():
        for path, module in modules.items():
            module.lora_A["default"].weight.copy_(start.tensors[path][0])
            module.lora_B["default"].weight.copy_(start.tensors[path][1])
    return model


@contextmanager
def lora_on(base: PreTrainedModel, start: LoraAdapter, targets: Targets = "all-linear") -> Iterator[Any]:
    """`add_lora` for a while: afterwards the base is bare, frozen and in eval mode again."""
    model = add_lora(base, start, targets)
    try:
        yield model
    finally:
        model.unload()
        base.requires_grad_(False).eval()


def peft_fit(
    source: str | Path | PreTrainedModel, update: Update, start: LoraAdapter, targets: Targets = "all-linear"
) -> tuple[LoraAdapter, list[float]]:
    """Train one update from ``start`` with PEFT, torch's AdamW and clipping; the adapter and the loss of each step.

    A step's loss is the minibatch's cross-entropy over its target tokens (of distilled sequences: KL), divided by their number,
    gathered sequence by sequence. ``source``: a checkpoint (computed in fp32), or a base of `load_base`, bare again afterwards.
    """
    base = source if isinstance(source, PreTrainedModel) else load_base(source)
    with lora_on(base, start, targets) as model:

        def one_by_one(sequences: Sequence[TrainSequence]) -> float:
            n_targets, total = sum(s.n_targets for s in sequences), 0.0
            for sequence in sequences:
                ids = torch.tensor([sequence.ids])
                labels = torch.where(torch.tensor([sequence.mask]), ids, -100)
                seen = (torch.arange(ids.shape[1]) < ids.shape[1] - sequence.padding).long()[None]
                logits = model(input_ids=ids, attention_mask=seen).logits
                if sequence.distilled:
                    with torch.no_grad(), model.disable_adapter():
                        base = model(input_ids=ids, attention_mask=seen).logits
                    loss = sequence.distilled * summed_kl(logits, base, labels) / n_targets
                else:
                    loss = summed_loss(logits, labels) / n_targets
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
            return total

        losses = train(model, update, one_by_one)
        return trained_adapter(model, start), losses


def train(model: Any, update: Update, backward: Backward, *, fused: bool = False) -> list[float]:
    """The inner loop on a PEFT model: AdamW, clipping, the update's schedule; the loss of each step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=update.lr,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=update.weight_decay,
        foreach=False,
        fused=fused,
    )
    falling = update.schedule == "linear"
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 - t / update.steps if falling else 1.0)
    losses = []
    for batch in minibatches(update):
        optimizer.zero_grad()
        losses.append(backward([update.sequences[i] for i in batch]))
        torch.nn.utils.clip_grad_norm_(parameters, update.max_grad_norm)
        optimizer.step()
        schedule.step()
    return losses


def summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each next token in fp32, added up; logits (N, T, V), labels (N, T), -100 where nothing is predicted."""
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    return F.cross_entropy(flat, labels[:, 1:].reshape(-1), ignore_index=-100, reduction="sum")


def summed_kl(logits: Tensor, reference: Tensor, labels: Tensor) -> Tensor:
    """As `summed_loss`: KL(reference || ours) where something is predicted, added up."""
    ours, theirs = (F.log_softmax(some[:, :-1].float(), -1) for some in (logits, reference))
    each = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
    return each[labels[:, 1:] != -100].sum()


def trained_adapter(model: Any, like: LoraAdapter) -> LoraAdapter:
    """The PEFT model's tensors as an adapter; copies, on the CPU."""
    tensors = {}
    for path in like.tensors:
        module = model.base_model.model.get_submodule(path)
        a, b = (part["default"].weight.detach().float().cpu().clone() for part in (module.lora_A, module.lora_B))
        tensors[path] = (a, b)
    return LoraAdapter(tensors, like.rank, like.alpha, like.target_modules, like.fan_in_fan_out, like.base)
