"""Adapters on the upper layers only: what the layers below compute of a sequence never changes, so it is computed once.

With targets such as ``all-linear@4:`` a step then costs a forward and a backward of the upper layers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...types import TrainSequence
from ..adapters.lora import Layout
from ..adapters.targets import decoder_layers
from ..model.body import Body
from ..model.body_pool import replace_forward
from ..model.packing import Packed, parts_of

_TOKENS = 8192  # through the lower layers at once


def first_adapted(body: Body, layout: Layout) -> int:
    """The lowest layer that ``layout`` adapts; 0, for no reuse, where the model can't be cut in two below it."""
    path, layers = decoder_layers(body.model)
    numbers = [target.path.removeprefix(f"{path}.").split(".")[0] for target in layout.targets]
    if layers is None or not all(number.isdigit() for number in numbers):
        return 0
    first = min(map(int, numbers))
    return first if first and Upper(body, first).proves() else 0


class Upper:
    """A model cut in two below layer ``first``."""

    def __init__(self, body: Body, first: int) -> None:
        layers = decoder_layers(body.model)[1]
        assert layers is not None
        self._body, self._layers, self._first = body, list(layers), first

    @torch.no_grad()
    def lower(self, sequences: Sequence[TrainSequence]) -> list[Tensor]:
        """What layer ``first`` reads of each sequence: (T, D) each."""
        return [states for part in parts_of(sequences, _TOKENS) for states in self._lower(part)]

    def _lower(self, sequences: Sequence[TrainSequence]) -> list[Tensor]:
        packed = self._body.pack([sequences])
        seen: list[Tensor] = []
        with self._handing_on(self._layers[self._first :], seen.append):
            self._body.packed_hidden(packed)
        flat = seen[0].reshape(-1, seen[0].shape[-1])
        return [flat[at : at + len(s.ids)] for at, s in zip(packed.starts[0], sequences, strict=True)]

    def hidden(self, packed: Packed, lower_K: Sequence[Sequence[Tensor]]) -> Tensor:
        """As `Body.packed_hidden`, from what ``lower`` gave for each member's sequences."""
        n, length = packed.ids.shape
        first = lower_K[0][0]
        given = first.new_zeros(n * length, first.shape[-1])
        for starts, lower in zip(packed.starts, lower_K, strict=True):
            for at, part in zip(starts, lower, strict=True):
                given[at : at + len(part)] = part
        with self._handing_on(self._layers[: self._first], None), self._entering(given.view(n, length, -1)):
            return self._body.packed_hidden(packed)

    def proves(self) -> bool:
        """Cut in two, the model gives what it gives whole."""
        sequences = [TrainSequence((1, 2, 3, 1), (True,) * 4), TrainSequence((3, 2, 1), (True,) * 3)]
        packed = self._body.pack([sequences])
        with torch.no_grad():
            try:
                ours = self.hidden(packed, [self.lower(sequences)])
            except Exception:  # layers of another make can raise anything here
                return False
            return torch.allclose(ours, self._body.packed_hidden(packed), rtol=1e-3, atol=1e-3)

    @contextmanager
    def _handing_on(self, layers: Sequence[nn.Module], see: Callable[[Tensor], None] | None) -> Any:
        """These layers return the hidden states that they are given; ``see`` gets the first one's."""

        def forward(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
            if see is not None:
                see(hidden_states)
            return hidden_states

        with ExitStack() as undo:
            for layer in layers:
                undo.callback(replace_forward(layer, forward))
            yield

    @contextmanager
    def _entering(self, given: Tensor) -> Any:
        """Layer ``first`` reads ``given`` instead of what comes from below."""

        def replace(_layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (given, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": given}

        handle = self._layers[self._first].register_forward_pre_hook(replace, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
