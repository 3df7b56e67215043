"""Modules that get some of the tokens, such as the experts of a mixture where each is a linear module, can't be adapted.

`AdapterContext` takes a module's rows for the batch's, in consecutive parts per member. Which rows an expert gets, and in which
order, is the model's own affair. (Experts that are one tensor, as in transformers 5, are no linear modules and never targets.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from ...errors import ModelError
from ...types import TrainSequence
from ..model.body import Body
from ..model.packing import Packed
from .lora import Layout
from .targets import linear_modules

_TOKENS = 16  # of each text that the probe sends through the model


def routed_modules(body: Body) -> frozenset[str]:
    """The paths of the linear modules whose rows are not the batch's.

    The model is asked: of two texts only the second changes, and then only the second half of every module's rows should. A
    module that is called in neither forward counts as routed.
    """
    modules, n = linear_modules(body.model), min(_TOKENS, body.window)
    texts = [TrainSequence(tuple((7 * s + 3 * t) % body.vocabulary for t in range(n)), (True,) * n) for s in (1, 2, 3)]
    batches = [body.pack([[texts[0]], [second]]) for second in texts[1:]]
    tokens = batches[0].ids.numel()
    one, other = (_rows(body, modules, batch) for batch in batches)
    return frozenset(p for p in modules if not _by_halves(one[p], other[p], tokens))


def refuse_routed(layout: Layout, routed: frozenset[str]) -> Layout:
    """The layout, where none of its targets is routed.

    Raises:
        ModelError: one is.
    """
    paths = [target.path for target in layout.targets if target.path in routed]
    if paths:
        raise ModelError(
            f"{layout.base}: {len(paths)} of the targets, such as {paths[0]}, get some of the tokens only (as routed experts "
            "do), so they can't be adapted; name other modules (model.targets, such as 'paper': the attention's q and v)"
        )
    return layout


@torch.no_grad()
def _rows(body: Body, modules: dict[str, nn.Module], batch: Packed) -> dict[str, list[Tensor]]:
    """What each module gets of a batch, call by call: one number for every row."""
    seen: dict[str, list[Tensor]] = {path: [] for path in modules}

    def watch(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            x = next(iter((*args, *kwargs.values()))).float()
            seen[path].append(x.reshape(-1, x.shape[-1]) @ torch.arange(x.shape[-1], device=x.device).cos())

        return hook

    with ExitStack() as hooks:
        for path, module in modules.items():
            hooks.callback(module.register_forward_pre_hook(watch(path), with_kwargs=True).remove)
        body.packed_hidden(batch)
    return seen


def _by_halves(one: Sequence[Tensor], other: Sequence[Tensor], tokens: int) -> bool:
    """Called alike for both batches, with rows for every token; what changes between them, changes in the second half.

    Changes are compared with each other, not with the rows: some rows may be thousands of times larger than others.
    """
    if not one or list(map(len, one)) != list(map(len, other)) or any(len(rows) < tokens or len(rows) % tokens for rows in one):
        return False
    changes = [(a - b).abs().chunk(2) for a, b in zip(one, other, strict=True)]
    return all(bool(first.sum() < 0.1 * second.sum()) for first, second in changes)
