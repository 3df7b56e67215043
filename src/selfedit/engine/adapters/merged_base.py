"""A base and an adapter as one new base, in a directory of its own."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from ...disk import os_errors_from_safetensors
from ...errors import ModelError
from ..model.body import Body
from ..model.texts import Texts
from .adapter_context import shared_views
from .both_transformers import make_readable
from .lora import LoraAdapter
from .targets import computes_plainly

RECORD_FILE = "merge.json"


def merge(body: Body, texts: Texts, adapter: LoraAdapter, directory: Path) -> None:
    """Write ``W + scale B A`` for every adapted module, and all else of the base, as a Hugging Face directory.

    Weights (safetensors), config, generation config and tokenizer. The live base is only read; the merged weights are one more
    copy of the adapted modules. A crash leaves no directory, or a hidden sibling. Raises as `base.Engine.merge`: also where a
    changed weight is used twice, or not as a plain product (a quantised one).
    """
    if os.path.lexists(directory):
        raise ModelError(f"{directory}: exists already, and a merge replaces nothing; name a new directory")
    state = _merged_state(body, adapter)
    record: dict[str, object] = {"base": body.name, "base_sha256": body.sha256(), "adapter_sha256": adapter.sha256}
    directory.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as beside:
        fresh = Path(beside) / directory.name
        with os_errors_from_safetensors(directory):
            body.model.save_pretrained(fresh, state_dict=state)
        texts.save_tokenizer(fresh)
        record["transformers"] = make_readable(fresh)
        (fresh / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        fresh.rename(directory)


@torch.no_grad()
def _merged_state(body: Body, adapter: LoraAdapter) -> dict[str, Tensor]:
    """The base's tensors by name, those of adapted modules replaced; summed in fp32 and rounded once."""
    model = body.model
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    state = model.state_dict()
    for path, (a, b) in shared_views(adapter, model, body.device, torch.float32).items():
        module, name = model.get_submodule(path), f"{path}.weight"
        if uses[id(module.weight)] > 1:
            raise ModelError(f"{name} is tied to another weight, which a merge would change too; leave it unadapted")
        if not computes_plainly(module):
            raise ModelError(f"{path} ({type(module).__name__}) computes in a way of its own; merge into a plain checkpoint")
        delta = b @ a
        state[name] = (state[name].float() + (delta.T if isinstance(module, Conv1D) else delta)).to(state[name].dtype)
    return state
