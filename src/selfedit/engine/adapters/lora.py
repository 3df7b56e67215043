"""One LoRA as tensors, on disk as PEFT writes it, and K of them stacked into one matrix.

A LoRA adds ``scale * B A`` to a frozen weight, ``scale = alpha / rank`` (arXiv 2106.09685). Shape letters: ``_K``
members, ``_R`` rank, ``D_in`` and ``D_out`` a module's input and output widths.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...disk import os_errors_from_safetensors
from ...errors import ModelError
from ...tasks.formats import is_lfs_pointer
from ..model.whereabouts import may_be_at_hub
from .peft_config import CONFIG_FILE, rank_and_alpha, read_config, selected

WEIGHTS_FILE = "adapter_model.safetensors"
_CARD = Path(__file__).resolve().parents[2] / "assets" / "adapter_card.md"
_PREFIX = "base_model.model."
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what its --max-lora-rank accepts
# Tensors in an adapter's file that are no A or B of a linear module, and whose they are.
_STRANGERS = {
    "lora_embedding_": "an adapter of the embeddings",
    "lora_magnitude_vector": "DoRA's magnitudes",
    "lora_B.bias": "a bias of B",
    "base_layer": "the base's own weights (as save_embedding_layers adds them), or adapters of its experts",
    "embed_tokens": "whole embeddings, as after a change of the vocabulary",
}


def widths(module: nn.Module) -> tuple[int, int]:
    """``(D_in, D_out)`` of a linear module; a transformers ``Conv1D`` (GPT-2) keeps its weight transposed."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features  # a quantised weight has another shape
    d_in, d_out = module.weight.shape  # type: ignore[union-attr,misc]
    return int(d_in), int(d_out)


@dataclass(frozen=True)
class LoraAdapter:
    """One LoRA on the CPU in fp32, detached from any bank. Treat its tensors as read-only: the hash is computed once.

    ``tensors`` maps a module's path in the base to A (R, D_in) and B (D_out, R). ``target_modules`` are the names that
    select exactly these modules (what PEFT and vLLM read); ``fan_in_fan_out`` says the base keeps weights transposed.
    """

    tensors: dict[str, tuple[Tensor, Tensor]]
    rank: int
    alpha: float
    target_modules: tuple[str, ...] = ()
    fan_in_fan_out: bool = False
    base: str = ""

    @property
    def scale(self) -> float:
        """What ``B A`` is multiplied with."""
        return self.alpha / self.rank

    @cached_property
    def sha256(self) -> str:
        """Hash of the tensors, their names, rank and alpha."""
        digest = hashlib.sha256(f"{self.rank} {float(self.alpha)!r}\n".encode())
        for path in sorted(self.tensors):
            for name, tensor in zip("AB", self.tensors[path], strict=True):
                digest.update(f"{path} {name} {tuple(tensor.shape)}\n".encode())
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, directory: Path) -> None:
        """Write a PEFT adapter directory (made if missing) that ``PeftModel.from_pretrained`` and vLLM load, and its card.

        Raises:
            ModelError: a model lies there. Whoever loaded it would get the adapter inside it, without a word.
            OSError: it can't be written, such as on a full disk.
        """
        if (directory / "config.json").exists():
            raise ModelError(f"{directory}: a model's directory, which an adapter would change; name a directory of its own")
        directory.mkdir(parents=True, exist_ok=True)
        state = {}
        for path, (a, b) in self.tensors.items():
            state[f"{_PREFIX}{path}.lora_A.weight"] = a.contiguous()
            state[f"{_PREFIX}{path}.lora_B.weight"] = b.contiguous()
        with os_errors_from_safetensors(directory / WEIGHTS_FILE):
            save_file(state, directory / WEIGHTS_FILE, metadata={"format": "pt"})
        targets = list(self.target_modules or self.tensors)
        config = {
            "base_model_name_or_path": self.base,
            "bias": "none",
            "fan_in_fan_out": self.fan_in_fan_out,
            "inference_mode": True,
            "lora_alpha": int(self.alpha) if float(self.alpha).is_integer() else self.alpha,
            "lora_dropout": 0.0,
            "peft_type": "LORA",
            "r": self.rank,
            "target_modules": targets,
            "task_type": "CAUSAL_LM",
        }
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (directory / "README.md").write_text(self._card(targets), encoding="utf-8")

    def _card(self, targets: Sequence[str]) -> str:
        """What the adapter is and how to load it, as Markdown with the header that the model hub reads.

        The header names a base on the hub; a local directory, which is no id there, stands in the text alone.
        """
        on_hub = may_be_at_hub(self.base)
        return Template(_CARD.read_text(encoding="utf-8")).substitute(
            header=f"base_model: {self.base}" if on_hub else "# base_model: not on the hub, see below",
            base=self.base or "not recorded",
            rank=self.rank,
            alpha=f"{self.alpha:g}",
            serving=_serving(self.rank, self.base if on_hub else "the/base"),
            targets=", ".join(f"`{name}`" for name in targets),
            sha256=self.sha256,
            source=repr(self.base if on_hub else "the/base"),
        )

    @classmethod
    def load(cls, directory: Path) -> LoraAdapter:
        """Read a PEFT adapter directory: what PEFT would compute with it, or a refusal.

        Modules with ranks or scales of their own (rank_pattern, alpha_pattern) become one rank, filled up with zeros, and one
        scale, the rest of it multiplied into B; rsLoRA's scale becomes an alpha.

        Raises:
            ModelError: a file is missing or damaged, the weights are pickled, or the adapter is no plain LoRA.
        """
        config, pairs = read_config(directory), _read_pairs(directory)
        try:
            names = {path: selected(config, path) for path in pairs}
            sizes = {path: rank_and_alpha(config, name) for path, name in names.items() if name is not None}
        except (re.error, TypeError, ValueError) as error:
            raise ModelError(f"{directory}: {CONFIG_FILE} has a pattern that can't be read ({error}); correct it") from error
        ignored = sorted(set(pairs) - set(sizes))
        if ignored:
            raise ModelError(
                f"{directory}: {CONFIG_FILE} doesn't select {ignored[0]}, which {WEIGHTS_FILE} changes, so PEFT would leave that "
                "out; save both anew"
            )
        for path, (a, b) in pairs.items():
            rank = sizes[path][0]
            if rank < 1 or a.dim() != 2 or b.dim() != 2 or a.shape[0] != rank or b.shape[1] != rank:
                raise ModelError(
                    f"{directory}: {path} has A {tuple(a.shape)} and B {tuple(b.shape)} where {CONFIG_FILE} says rank {rank}; "
                    "a parameter of experts can't be adapted, and any other adapter has to be saved again"
                )
        rank, alpha = max(sizes.values())
        if len(set(sizes.values())) > 1:
            alpha = float(rank)
            pairs = {path: padded(a, b * (sizes[path][1] / sizes[path][0]), rank) for path, (a, b) in pairs.items()}
        return cls(
            tensors=pairs,
            rank=rank,
            alpha=alpha,
            target_modules=_names(config, pairs),
            fan_in_fan_out=bool(config.get("fan_in_fan_out")),
            base=str(config.get("base_model_name_or_path") or ""),
        )

    def norm_ratio(self, model: nn.Module) -> float:
        """The largest ``||scale B A||_F / ||W||_F`` over the modules: how far the adapter moves the base."""
        largest = 0.0
        for path, (a, b) in self.tensors.items():
            a64, b64 = a.double(), b.double()
            # ||BA||_F^2 = <B^T B, A A^T>: R x R products instead of D_out x D_in.
            squared = float(((b64.T @ b64) * (a64 @ a64.T)).sum())
            weight = float(torch.linalg.vector_norm(model.get_submodule(path).weight.detach().double()))  # type: ignore[union-attr,operator]
            largest = max(largest, self.scale * math.sqrt(max(squared, 0.0)) / max(weight, 1e-30))
        return largest


def _serving(rank: int, base: str) -> str:
    """The command with which vLLM serves an adapter of this rank, as a sentence."""
    fits = next((allowed for allowed in _VLLM_RANKS if allowed >= rank), None)
    if fits is None:
        return f"vLLM serves ranks up to {_VLLM_RANKS[-1]}; merge the adapter into its base instead."
    return (
        f"vLLM serves ranks up to 16 by default; rank {rank} needs `--max-lora-rank {fits}`:\n\n"
        f"```bash\nvllm serve {base} --enable-lora --max-lora-rank {fits} --lora-modules edited=this/directory\n```"
    )


def _read_pairs(directory: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every module by its path, in fp32."""
    file = directory / WEIGHTS_FILE
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        if is_lfs_pointer(file):
            raise ModelError(f"{file} is a Git LFS pointer, not the weights; run: git lfs pull") from error
        raise ModelError(
            f"{directory}: can't read {WEIGHTS_FILE} ({error}); pickled adapters (adapter_model.bin) are never "
            "loaded: save the adapter again with PEFT's safe_serialization=True"
        ) from error
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for key in [key for key in state if key.startswith(_PREFIX) and key.endswith(".lora_A.weight") and ".base_layer." not in key]:
        twin = key.replace(".lora_A.", ".lora_B.")
        if twin not in state:
            raise ModelError(f"{directory}: {key} has no {twin}; the adapter is incomplete, save it again")
        pairs[key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")] = (state.pop(key).float(), state.pop(twin).float())
    if state or not pairs:
        whose = next((what for part, what in _STRANGERS.items() for key in state if part in key), "names that PEFT doesn't use")
        raise ModelError(
            f"{directory}: {WEIGHTS_FILE} is no plain LoRA of linear modules; it has {whose}, such as "
            f"{min(state, default='no A and B at all')}, which can't be used; train the adapter again without them"
        )
    return pairs


def _names(config: dict[str, Any], pairs: Iterable[str]) -> tuple[str, ...]:
    """Names that select exactly these modules: the config's own list where nothing else narrows it, else the paths."""
    names = config.get("target_modules")
    narrowed = any(config.get(field) for field in ("exclude_modules", "target_parameters"))
    if isinstance(names, list) and not narrowed and config.get("layers_to_transform") in (None, []):
        return tuple(sorted(names))
    return tuple(pairs)


def padded(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (R, D_in) and B (D_out, R) filled up with zeros to a higher rank: the same product."""
    lacks = rank - a.shape[0]
    if not lacks:
        return a.contiguous(), b.contiguous()
    return torch.cat([a, a.new_zeros(lacks, a.shape[1])]), torch.cat([b, b.new_zeros(b.shape[0], lacks)], dim=1)


@dataclass(frozen=True)
class Target:
    """One adapted module of the base."""

    path: str
    d_in: int
    d_out: int


@dataclass(frozen=True)
class Layout:
    """Where each target's A and B lie in one row of a bank's matrix: A (R x D_in), then B (D_out x R), by target.

    A member in one row is what makes its gradient norm a row norm and its optimiser one call.
    """

    targets: tuple[Target, ...]
    rank: int
    names: tuple[str, ...] = ()
    fan_in_fan_out: bool = False
    base: str = ""

    @cached_property
    def width(self) -> int:
        """Numbers in one row."""
        return sum(self.rank * (t.d_in + t.d_out) for t in self.targets)

    def views(self, flat: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """``flat`` (K, width) -> for each target's path views A (K, R, D_in) and B (K, D_out, R)."""
        out, at = {}, 0
        for target in self.targets:
            mid = at + self.rank * target.d_in
            end = mid + self.rank * target.d_out
            a = flat[:, at:mid].view(-1, self.rank, target.d_in)
            out[target.path] = (a, flat[:, mid:end].view(-1, target.d_out, self.rank))
            at = end
        return out

    def row(self, adapter: LoraAdapter) -> Tensor:
        """The adapter as one row (width); a lower rank leaves zero rows in A and zero columns in B.

        Raises:
            ModelError: it adapts other modules than this layout, or they have other widths.
        """
        flat = torch.zeros(1, self.width)
        views = self.views(flat)
        strange = sorted(set(adapter.tensors) - set(views))
        if strange:
            raise ModelError(f"the adapter changes {strange[0]}, which is no target here; load the engine with its targets")
        for path, (a, b) in adapter.tensors.items():
            to_a, to_b = views[path]
            if a.shape[1] != to_a.shape[2] or b.shape[0] != to_b.shape[1] or adapter.rank > self.rank:
                raise ModelError(f"the adapter's {path} has other widths than the base's; use the base it was trained on")
            to_a[0, : adapter.rank] = a
            to_b[0, :, : adapter.rank] = b
        return flat[0]

    def adapter(self, row: Tensor, rank: int, alpha: float) -> LoraAdapter:
        """One row (width) as an adapter of ``rank``; copies."""
        tensors = {
            path: (a[0, :rank].detach().cpu().clone(), b[0, :, :rank].detach().cpu().clone())
            for path, (a, b) in self.views(row[None]).items()
        }
        return LoraAdapter(tensors, rank, alpha, self.names, self.fan_in_fan_out, self.base)


def initial_adapter(layout: Layout, rank: int, alpha: float, seed: int) -> LoraAdapter:
    """PEFT's start: A uniform in +-1/sqrt(D_in) (kaiming with a = sqrt 5), B zero.

    A fresh CPU generator, read in the order of the targets: the same numbers on every device, whatever the neighbours.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for target in layout.targets:
        bound = 1 / math.sqrt(target.d_in)
        a = torch.empty(rank, target.d_in).uniform_(-bound, bound, generator=generator)
        tensors[target.path] = (a, torch.zeros(target.d_out, rank))
    return LoraAdapter(tensors, rank, alpha, layout.names, layout.fan_in_fan_out, layout.base)


@dataclass
class Bank:
    """`base.AdapterBank` as ``flat`` (K, layout.width) in fp32, one member a row, on the engine's device; the row of a member
    that was stopped is zero, so it computes what the base does.
    """

    layout: Layout
    flat: Tensor
    ranks: list[int]
    alphas: list[float]
    failed: dict[int, str] = field(default_factory=dict)
    trained_tokens: list[int] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    shift: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ranks)

    @property
    def scale(self) -> Tensor:
        """``alpha / rank`` of each member (K)."""
        return torch.tensor([a / r for a, r in zip(self.alphas, self.ranks, strict=True)], device=self.flat.device)

    def parameters(self) -> list[Tensor]:
        """``flat``, from now on a leaf that requires gradients: what an optimiser is given."""
        return [self.flat.requires_grad_()]

    def adapter(self, member: int) -> LoraAdapter:
        """A copy of one member, at its own rank."""
        return self.layout.adapter(self.flat[member], self.ranks[member], self.alphas[member])

    @classmethod
    def stack(cls, layout: Layout, adapters: Sequence[LoraAdapter], device: torch.device) -> Bank:
        """Adapters of any rank as one bank.

        Raises:
            ModelError: an adapter doesn't fit the base.
        """
        wide = replace(layout, rank=max(adapter.rank for adapter in adapters))
        flat = torch.stack([wide.row(adapter) for adapter in adapters]).to(device)
        ranks, alphas, n = [a.rank for a in adapters], [a.alpha for a in adapters], len(adapters)
        return cls(wide, flat, ranks, alphas, {}, [0] * n, [[] for _ in adapters], [math.nan] * n)
