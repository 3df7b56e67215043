"""Modules that get some of the tokens, such as the experts of a mixture: there, members can't share a forward.

`AdapterContext` takes a module's rows for the batch's, in equal, consecutive parts per member. With one member at a time all rows
are its own, whatever their order and number.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ...types import TrainSequence
from ..model.body import Body
from ..model.packing import Packed
from .lora import Bank, Layout
from .targets import linear_modules

_TOKENS = 16  # of each text that the probe sends through the model
Of = TypeVar("Of")


@dataclass(frozen=True)
class ExpertRouting:
    """The linear modules of a model whose rows are not the batch's, by ``paths``."""

    paths: frozenset[str]

    @classmethod
    def of(cls, body: Body) -> ExpertRouting:
        """Ask the model: of two texts only the second changes, and then only the second half of every module's rows should.

        A module that is called in neither forward counts as routed.
        """
        modules, n = linear_modules(body.model), min(_TOKENS, body.window)
        texts = [
            TrainSequence(tuple((7 * s + 3 * t) % body.vocabulary for t in range(n)), (True,) * n) for s in (1, 2, 3)
        ]
        batches = [body.pack([[texts[0]], [second]]) for second in texts[1:]]
        tokens = batches[0].ids.numel()
        one, other = (_rows(body, modules, batch) for batch in batches)
        slack = 1e-3 if body.dtype == torch.float32 else 0.1
        return cls(frozenset(p for p in modules if not _by_halves(one[p], other[p], tokens, slack)))

    def meets(self, layout: Layout) -> bool:
        """One of the targets is routed, so that members can't share a forward."""
        return any(target.path in self.paths for target in layout.targets)

    def warn(self, layout: Layout, model: nn.Module) -> None:
        """Warn where it `meets` these targets."""
        if self.meets(layout):
            paths = [target.path for target in layout.targets if target.path in self.paths]
            warnings.warn(
                f"{layout.base} ({type(model).__name__}): {len(paths)} of the targets, such as {paths[0]}, get some of the "
                "tokens only (as routed experts do), so adapters are trained and asked one after another: as exact, but slower; "
                "to have many at once, adapt other modules (model.targets, such as 'paper': the attention's q and v)",
                stacklevel=3,
            )

    def forwards(self, bank: Bank | None, groups: Sequence[Sequence[Of]]) -> Iterator[list[Sequence[Of]]]:
        """Which of ``groups`` (the k-th is member k's; without a bank nobody's) go through the model together: all, or, where
        members can't share a forward, one after another beside empty ones.
        """
        if bank is None or not self.meets(bank.layout):
            yield list(groups)
            return
        for member, group in enumerate(groups):
            yield [group if k == member else () for k in range(len(groups))]


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


def _by_halves(one: Sequence[Tensor], other: Sequence[Tensor], tokens: int, slack: float) -> bool:
    """Called alike for both batches, with rows for every token: the first half of them the same, the second not."""
    if (
        not one
        or list(map(len, one)) != list(map(len, other))
        or any(len(rows) < tokens or len(rows) % tokens for rows in one)
    ):
        return False
    same = [(a - b).abs() <= slack * a.abs().max() for a, b in zip(one, other, strict=True)]
    return all(bool(first.all()) and not bool(second.all()) for first, second in (rows.chunk(2) for rows in same))
