"""Modules that get some of the tokens, such as the experts of a mixture where each is a linear module, can't be adapted.

`AdapterContext` takes a module's rows for the batch's, in consecutive parts per member. Which rows an expert gets, and in which
order, is the model's own affair. (Experts that are one tensor, as in transformers 5, are no linear modules and never targets.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...errors import ModelError
from ...types import TrainSequence
from ..model.body import Body
from ..model.packing import pack
from .lora import Layout
from .targets import linear_modules

_TOKENS = 16  # of each text that the probe sends through the model


class Unfit(NamedTuple):
    """Paths of the linear modules that can't be adapted.

    ``routed`` ones get other rows than the batch's; ``idle`` ones are not called, or return something else than a product.
    """

    routed: frozenset[str]
    idle: frozenset[str]


def unfit_modules(body: Body) -> Unfit:
    """Ask the model: two texts go through it, a row each, once with all states of the second NaN, once of the first.

    What is computed from a NaN is NaN, whatever the dtype and however large the numbers beside it; so each row of each module's
    input tells whose it is. Half of the rows, those behind or those before, have to be the NaN text's.
    """
    modules, n = linear_modules(body.model), min(_TOKENS, body.window)
    texts = [TrainSequence(tuple((7 * s + 3 * t) % body.vocabulary for t in range(n)), (True,) * n) for s in (1, 2)]
    first, second = (_rows_of_text(body, modules, texts, lost) for lost in (0, 1))
    idle = frozenset(path for path in modules if not first[path] and not second[path])
    fit = (p for p in modules if _in_halves(first[p], 2 * n, True) and _in_halves(second[p], 2 * n, False))
    return Unfit(frozenset(modules) - idle - frozenset(fit), idle)


def refuse_unfit(layout: Layout, unfit: Unfit) -> Layout:
    """The layout, where all of its targets can be adapted.

    Raises:
        ModelError: one can't.
    """
    reasons = (
        "get some of the tokens only (as routed experts do)",
        "are not called when the model reads a text, or do not return a tensor",
    )
    for paths, reason in zip(unfit, reasons, strict=True):
        if found := [target.path for target in layout.targets if target.path in paths]:
            raise ModelError(
                f"{layout.base}: {len(found)} of the targets, such as {found[0]}, {reason}, so they can't be adapted; name other "
                "modules (model.targets, such as 'paper': the attention's q and v)"
            )
    return layout


@torch.no_grad()
def _rows_of_text(
    body: Body, modules: dict[str, nn.Module], texts: Sequence[TrainSequence], lost: int
) -> dict[str, list[Tensor]]:
    """For each module and call: which rows of its input (rows) are of the text number ``lost`` of the two."""
    batch = pack([[text] for text in texts], None, body.device)
    seen: dict[str, list[Tensor]] = {path: [] for path in modules}

    def watch(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], out: object) -> None:
            x = next(iter((*args, *kwargs.values())))
            if isinstance(out, Tensor):  # a router that is a kind of linear module may return a choice beside it
                seen[path].append(x.reshape(-1, x.shape[-1]).isnan().any(-1))

        return hook

    def lose(_module: nn.Module, _args: tuple[Tensor, ...], states: Tensor) -> Tensor:
        states = states.clone()
        states[lost] = torch.nan
        return states

    with ExitStack() as hooks:
        hooks.callback(body.model.get_input_embeddings().register_forward_hook(lose).remove)
        for path, module in modules.items():
            hooks.callback(module.register_forward_hook(watch(path), with_kwargs=True).remove)
        body.packed_hidden(batch)
    return seen


def _in_halves(calls: Sequence[Tensor], tokens: int, first: bool) -> bool:
    """Every call has rows for every token, and those marked are the first half, or the second."""
    expected = torch.tensor([first, not first]).repeat_interleave(tokens // 2)
    return all(
        len(rows) >= tokens
        and len(rows) % tokens == 0
        and bool((rows.cpu() == expected.repeat_interleave(len(rows) // tokens)).all())
        for rows in calls
    )
