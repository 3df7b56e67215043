"""Weights that can't be what a checkpoint's author meant: without data, not finite, or all zero."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from ...errors import ModelError
from .language import backbone

_NUMBERS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)  # what the others mean, only their kernels know


def refuse_meta(model: PreTrainedModel, name: str) -> None:
    """Refuse a model some of whose tensors were never loaded.

    Raises:
        ModelError: a parameter or buffer is on the meta device.
    """
    empty = [n for n, t in [*model.named_parameters(), *model.named_buffers()] if t.is_meta]
    if empty:
        raise ModelError(
            f"{name}: {len(empty)} tensors hold no data (meta device), such as {empty[0]}; load the whole checkpoint into "
            "memory, without offloading or init_empty_weights"
        )


def refuse_unsound(model: PreTrainedModel, name: str) -> None:
    """Refuse a model with weights that are missing or damaged; reads each of them once.

    Raises:
        ModelError: as of `refuse_meta`; a weight is NaN or infinite; or a matrix of the language model or its head holds zeros
            only (as where a part of a file was never filled).
    """
    refuse_meta(model, name)
    head = model.get_output_embeddings()
    read = {id(weight) for part in (backbone(model), head) if part is not None for weight in part.parameters()}
    infinite, zero = [], []
    for path, weight in model.named_parameters():
        if weight.dtype not in _NUMBERS or not weight.numel():
            continue
        least, most = weight.detach().aminmax()  # NaN where any number is; nothing is copied
        if not (least.isfinite() and most.isfinite()):
            infinite.append(path)
        elif least == most == 0 and weight.dim() > 1 and id(weight) in read and not path.endswith("bias"):
            zero.append(path)
    for paths, what in ((infinite, "NaN or infinite"), (zero, "all zero")):
        if paths:
            many = "1 weight is" if len(paths) == 1 else f"{len(paths)} weights are"
            raise ModelError(f"{name}: {many} {what}, such as {paths[0]}; the checkpoint is damaged: copy it again")
