"""The same update with PEFT, one sequence at a time: the oracle of the tests; it shares no tensor code with `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Update
from .cohort import minibatches
from .lora import LoraAdapter


def peft_model(source: str | Path, rank: int, alpha: float, targets: str | Sequence[str], start: LoraAdapter) -> Any:
    """A fresh fp32 model with a PEFT LoRA on ``targets`` that holds the tensors of ``start``."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    conv = any(isinstance(module, Conv1D) for module in base.modules())
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=targets if isinstance(targets, str) else list(targets),
        lora_dropout=0.0,
        fan_in_fan_out=conv,
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


def peft_fit(
    source: str | Path, update: Update, start: LoraAdapter, targets: str | Sequence[str] = "all-linear"
) -> tuple[LoraAdapter, list[float]]:
    """Train one update from ``start`` with PEFT, torch's AdamW and clipping; the adapter and the loss of each step.

    A step's loss is the minibatch's cross-entropy over its target tokens, divided by their number, gathered sequence by
    sequence. ``targets``: "all-linear" or PEFT's ``target_modules``.
    """
    model = peft_model(source, update.rank, update.alpha, targets, start)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=update.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=update.weight_decay, foreach=False
    )
    falling = update.schedule == "linear"
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 - t / update.steps if falling else 1.0)
    losses = []
    for batch in minibatches(update):
        sequences = [update.sequences[i] for i in batch]
        n_targets = sum(s.n_targets for s in sequences)
        optimizer.zero_grad()
        total = 0.0
        for sequence in sequences:
            ids = torch.tensor([sequence.ids])
            labels = torch.where(torch.tensor([sequence.mask]), ids, -100)
            loss = _summed_loss(model(input_ids=ids).logits, labels) / n_targets
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(parameters, update.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(total)
    return _extract(model, start), losses


def _summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each next token, added up; logits (1, T, V), labels (1, T)."""
    return F.cross_entropy(logits[0, :-1].float(), labels[0, 1:], ignore_index=-100, reduction="sum")


def _extract(model: Any, like: LoraAdapter) -> LoraAdapter:
    """The PEFT model's tensors as an adapter."""
    tensors = {}
    for path in like.tensors:
        module = model.base_model.model.get_submodule(path)
        a, b = (part["default"].weight.detach().clone() for part in (module.lora_A, module.lora_B))
        tensors[path] = (a, b)
    return LoraAdapter(tensors, like.rank, like.alpha, like.target_modules, like.fan_in_fan_out, like.base)
