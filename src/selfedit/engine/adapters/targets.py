"""Which modules of a model adapters change."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ...errors import ModelError
from .lora import Layout, Target, widths

_SYNTAX = "a range is two layer numbers as in Python slices, such as @4:, @2:6, @-2: or @50%:"


def computes_plainly(module: nn.Module) -> bool:
    """The module is a product with its weight, plus a bias; a quantised one, say, is not, nor one that somebody hooked."""
    return "forward" not in module.__dict__ and type(module).forward in (nn.Linear.forward, Conv1D.forward)


def linear_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """What adapters can change, by path: every linear module but the output head."""
    head = model.get_output_embeddings()
    return {n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head}


def warn_of_strange(model: PreTrainedModel, layout: Layout) -> None:
    """Warn where adapted modules compute in a way of their own; `AdapterContext` adds to what they return."""
    strange = {type(m).__name__ for t in layout.targets if not computes_plainly(m := model.get_submodule(t.path))}
    if strange:
        warnings.warn(
            f"{layout.base} ({type(model).__name__}): {', '.join(sorted(strange))} computes in a way of its own, so adapters "
            "are added to what it returns: as exact, but slower (more passes over memory), and such a module can't be merged",
            stacklevel=3,
        )


def find_layout(model: PreTrainedModel, targets: str | Sequence[str], base: str) -> Layout:
    """The modules meant by ``targets``, in the model's order.

    "all-linear" is every linear module but the output head, "paper" the attention's q and v, and anything else
    comma-separated module names or their endings. ``@`` and a Python slice keep only those in some of the decoder layers,
    counted from 0: "all-linear@4:" is all but the first four, "gate_proj,up_proj@2:6" four layers, "paper@-2:" the last two,
    "all-linear@50%:" the upper half.

    Raises:
        ModelError: a name or the range matches nothing, or "paper" is asked of a model that keeps q, k and v in one matrix.
    """
    linear = linear_modules(model)
    written = targets if isinstance(targets, str) else ",".join(targets)
    names, at, layers = written.partition("@")
    within = _in_layers(model, list(linear), layers) if at else list(linear)
    paths = _named(names.strip(), within, written)
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
    n = int(model.config.num_hidden_layers)
    # Lists inside the layers (of experts, say) can be as long; the outermost comes first.
    stacks = ((path, m) for path, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == n)
    return next(stacks, ("", None))


def _in_layers(model: PreTrainedModel, linear: Sequence[str], layers: str) -> list[str]:
    """Those of the linear modules that lie in the decoder layers of a slice such as "2:6"."""
    n, (stack, found_layers) = int(model.config.num_hidden_layers), decoder_layers(model)
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
