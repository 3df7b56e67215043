"""The same update and the same adapter by PEFT, for a check of a model.

PEFT is imported where it is used: it is no dependency.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..engine.adapters.lora import LoraAdapter
from ..types import Update


def peft_trained(base: PreTrainedModel, update: Update, start: LoraAdapter) -> LoraAdapter:
    """Train ``update`` from ``start`` with PEFT and torch's AdamW, all of its sequences in every step, one after another."""
    with _peft(base, start) as (model, modules):
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=update.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=update.weight_decay)
        total = sum(sequence.n_targets for sequence in update.sequences)
        for step in range(update.steps):
            for group in optimizer.param_groups:
                group["lr"] = update.lr * (1 - step / update.steps if update.schedule == "linear" else 1.0)
            optimizer.zero_grad()
            for sequence in update.sequences:
                (-_logprobs(model, sequence.ids).sum() / total).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, update.max_grad_norm)
            optimizer.step()
        tensors = {path: (_weight(m.lora_A), _weight(m.lora_B)) for path, m in modules.items()}
    return LoraAdapter(tensors, start.rank, start.alpha)


@torch.no_grad()
def peft_logprobs(base: PreTrainedModel, adapter: LoraAdapter, texts: Sequence[Sequence[int]]) -> list[list[float]]:
    """Log-probabilities (nats) of all tokens but the first of each text, by PEFT with this adapter."""
    with _peft(base, adapter) as (model, _):
        return [_logprobs(model, ids).tolist() for ids in texts]


def distance(ours: LoraAdapter, theirs: LoraAdapter, start: LoraAdapter | None = None) -> float:
    """How far two trained updates lie apart: ``||dW - dW_ref|| / ||dW_ref||`` over the products ``scale B A`` of all modules.

    ``theirs`` is the reference; ``start`` (where not zero) is taken off both.
    """
    off = size = 0.0
    for path, (a, b) in theirs.tensors.items():
        begun = torch.zeros(1) if start is None else start.scale * start.tensors[path][1] @ start.tensors[path][0]
        reference = theirs.scale * b @ a - begun
        mine = ours.scale * ours.tensors[path][1] @ ours.tensors[path][0] - begun
        off += float((mine - reference).double().square().sum())
        size += float(reference.double().square().sum())
    return (off / max(size, 1e-300)) ** 0.5


@contextmanager
def _peft(base: PreTrainedModel, adapter: LoraAdapter) -> Iterator[tuple[Any, dict[str, Any]]]:
    """``base`` with the adapter by PEFT, and the adapted modules by path; afterwards the base is bare again."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]
        target_modules=list(adapter.tensors),
        lora_dropout=0.0,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in base.modules()),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config).eval()
    try:
        modules = {path: model.base_model.model.get_submodule(path) for path in adapter.tensors}
        with torch.no_grad():
            for path, module in modules.items():
                module.lora_A["default"].weight.copy_(adapter.tensors[path][0])
                module.lora_B["default"].weight.copy_(adapter.tensors[path][1])
        yield model, modules
    finally:
        model.unload()
        base.requires_grad_(False).eval()


def _weight(part: Any) -> torch.Tensor:
    return part["default"].weight.detach().float().cpu().clone()  # type: ignore[no-any-return]


def _logprobs(model: Any, ids: Sequence[int]) -> torch.Tensor:
    tokens = torch.tensor([list(ids)], device=model.device)
    logits = model(input_ids=tokens).logits[0, :-1].float()
    return -F.cross_entropy(logits, tokens[0, 1:], reduction="none")
