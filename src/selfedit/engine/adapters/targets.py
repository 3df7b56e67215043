"""Which modules of a model adapters change."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ...errors import ModelError
from ..model.language import backbone, is_composite
from .lora import Layout, Target, widths

# PEFT loads no adapter of these modules in models of these kinds: fused kernels take the module's weight without calling it.
_FUSED = ("out_proj", frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}))
_UNREACHED = 0.1  # share of the layers' weights that adapters may not reach without a warning (convolutions, routers)
_SYNTAX = "a range is two layer numbers as in Python slices, such as @4:, @2:6, @-2: or @50%:"


def computes_plainly(module: nn.Module) -> bool:
    """The module is a product with its weight, plus a bias; a quantised one, say, is not, nor one that somebody hooked."""
    return "forward" not in module.__dict__ and type(module).forward in (nn.Linear.forward, Conv1D.forward)


def linear_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """What adapters can change, by path: every linear module but the output head; in a model that also sees or hears, those
    of its language model.

    Raises:
        ModelError: there is none.
    """
    head, kind = model.get_output_embeddings(), model.config.get_text_config().model_type
    parts = {id(m) for m in (backbone(model) if is_composite(model) else model).modules()}
    found = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head and id(m) in parts}
    if kind in _FUSED[1]:
        found = {n: m for n, m in found.items() if n.rpartition(".")[2] != _FUSED[0]}
    if not found:
        raise ModelError(
            f"{model.name_or_path or kind} ({type(model).__name__}): no linear module (nn.Linear or Conv1D) beside the output "
            "head, so adapters can change nothing; use a checkpoint without quantised kernels of its own"
        )
    return found


def warn_of_unreached(model: PreTrainedModel, base: str) -> None:
    """Warn where adapters reach none of a good part of the layers' weights, such as the experts of a mixture."""
    weights = [cast(Tensor, module.weight) for module in linear_modules(model).values()]
    reached = {id(weight): weight.numel() for weight in weights}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    left = {
        path: weight.numel()
        for path, weight in backbone(model).named_parameters()
        if weight.dim() > 1 and id(weight) not in reached and id(weight) not in tables
    }
    total = sum(reached.values()) + sum(left.values())
    if sum(left.values()) > _UNREACHED * total:
        largest = max(left, key=lambda path: left[path])
        warnings.warn(
            f"{base} ({type(model).__name__}): all-linear reaches {sum(reached.values()) / total:.0%} of the weights of its "
            f"layers; {len(left)} others, such as {largest}, are out of reach (experts, say, are no linear modules), so "
            "neither edits nor the policy change them",
            stacklevel=3,
        )


def warn_of_strange(model: PreTrainedModel, layout: Layout) -> None:
    """Warn where adapted modules compute in a way of their own; `AdapterContext` adds to what they return."""
    strange = {type(m).__name__ for t in layout.targets if not computes_plainly(m := model.get_submodule(t.path))}
    if strange:
        warnings.warn(
            f"{layout.base} ({type(model).__name__}): {', '.join(sorted(strange))} computes in a way of its own, so adapters "
            "are added to what it returns: as exact, but slower (more passes over memory), and such a module can't be merged",
            stacklevel=3,
        )


def find_layout(model: PreTrainedModel, targets: str | Sequence[str], base: str, idle: frozenset[str] = frozenset()) -> Layout:
    """The modules meant by ``targets``, in the model's order.

    "all-linear" is every linear module but the output head, "paper" the attention's q and v, and anything else
    comma-separated module names or their endings. ``@`` and a Python slice keep only those in some of the decoder layers,
    counted from 0: "all-linear@4:" is all but the first four, "gate_proj,up_proj@2:6" four layers, "paper@-2:" the last two,
    "all-linear@50%:" the upper half. ``idle``: paths of modules that no text reaches, which "all-linear" leaves out.

    Raises:
        ModelError: a name or the range matches nothing, the model has no linear module, or "paper" is asked of one that keeps
            q, k and v in one matrix.
    """
    linear = linear_modules(model)
    written = targets if isinstance(targets, str) else ",".join(targets)
    names, at, layers = written.partition("@")
    within = _in_layers(model, list(linear), layers) if at else list(linear)
    paths = [n for n in _named(names.strip(), within, written) if n not in idle or names.strip() != "all-linear"]
    found = tuple(Target(n, *widths(linear[n])) for n in paths)
    conv = any(isinstance(linear[n], Conv1D) for n in paths)
    return Layout(found, 1, _selecting_names(model, paths), conv, base)


def _named(names: str, linear: Sequence[str], targets: str) -> list[str]:
    """Those of the linear modules that are meant, each name matching at least one."""
    if names == "all-linear":
        return list(linear)
    suffixes = [s.strip() for s in ("q_proj,v_proj" if names == "paper" else names).split(",")]
    matches = {s: {n for n in linear if n == s or n.endswith("." + s)} for s in suffixes}
    missing = [s for s, found in matches.items() if not found]
    if missing:
        known = ", ".join(sorted({n.rpartition(".")[2] for n in linear}))
        fused = " ('paper' means q_proj and v_proj; a fused matrix, as GPT-2's c_attn, cannot be split)"
        raise ModelError(
            f"no linear module matches {missing[0]!r} of targets={targets!r}{fused if names == 'paper' else ''}; "
            f"there are: {known}, or use all-linear"
        )
    return [n for n in linear if any(n in found for found in matches.values())]


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList | None]:
    """The path and the list of the decoder layers ("" and None where there is no such list)."""
    n, parts = _layers(model), {id(m) for m in backbone(model).modules()}
    # Lists inside the layers (of experts, say) can be as long; the outermost comes first.
    lists = ((path, m) for path, m in model.named_modules() if isinstance(m, nn.ModuleList) and id(m) in parts)
    stacks = ((path, m) for path, m in lists if len(m) == n)
    return next(stacks, ("", None))


def _in_layers(model: PreTrainedModel, linear: Sequence[str], layers: str) -> list[str]:
    """Those of the linear modules that lie in the decoder layers of a slice such as "2:6"."""
    n, (stack, found_layers) = _layers(model), decoder_layers(model)
    if found_layers is None:
        raise ModelError(f"{type(model).__name__} has no list of {n} decoder layers; leave @{layers} out of the targets")
    first, colon, last = layers.partition(":")
    try:
        chosen = range(n)[slice(*(_layer(bound.strip(), n) for bound in (first, last)))]
    except ValueError:
        colon = ""
    if not colon:
        raise ModelError(f"@{layers} is no range of layers; {_SYNTAX}")
    within = tuple(f"{stack}.{i}." for i in chosen)
    found = [name for name in linear if name.startswith(within)]
    if not found:
        raise ModelError(f"@{layers} holds none of the layers 0 to {n - 1}; {_SYNTAX}")
    return found


def _layers(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().num_hidden_layers)


def _layer(bound: str, n: int) -> int | None:
    """A bound of a range of ``n`` layers: a number, or a percentage of them (rounded down)."""
    if bound.endswith("%"):
        return n * int(bound[:-1]) // 100
    return int(bound) if bound else None


def _selecting_names(model: nn.Module, paths: Sequence[str]) -> tuple[str, ...]:
    """The shortest names that select exactly ``paths`` by suffix, as PEFT matches them; else the paths themselves."""
    last = {path.rpartition(".")[2] for path in paths}
    matched = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in last}
    return tuple(sorted(last)) if matched == set(paths) else tuple(paths)
