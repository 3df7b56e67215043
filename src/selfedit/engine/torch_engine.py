"""The engine: one frozen model in this process. What it reads is in `inference.reader`, how it trains in `training.fit`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..config import AtOnce
from ..errors import ModelError, SettingsError, UpdateError
from ..types import Adapter, TrainSequence, Update
from .adapters.adapter_context import shared_views
from .adapters.arithmetic import combined
from .adapters.lora import Bank, Layout, LoraAdapter, initial_adapter
from .adapters.merged_base import merge
from .base import AdapterBank
from .inference.reader import Reader, as_lora
from .model.loading import Dtype, choose_device, load_model
from .training.fit import Training, check
from .training.limit import MemberLimit, OnLower
from .training.states import TokenStates, token_states

USUAL = AtOnce()


class TorchEngine(Reader):
    """`base.LocalEngine` on torch and transformers. The base's tensors never change; between calls it carries no hooks."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "",
        at_once: AtOnce = USUAL,
        targets: str | Sequence[str] = "all-linear",
    ) -> None:
        """Take over a loaded model (it is frozen and put into eval mode). `load` is the usual way in.

        Raises:
            ModelError: no module matches ``targets``, or the architecture is unknown to this engine.
            SettingsError: a number of ``at_once`` is less than 1.
        """
        super().__init__(model, tokenizer, name=name, at_once=at_once, targets=targets)
        self.limit = MemberLimit(at_once.members)

    @classmethod
    def load(
        cls,
        source: str,
        *,
        dtype: Dtype = "fp32",
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        at_once: AtOnce = USUAL,
        device: str = "auto",
        targets: str | Sequence[str] = "all-linear",
    ) -> TorchEngine:
        """Load a directory in the HF format, or a hub id. ``dtype``: of base and computation; adapters stay fp32.

        Raises:
            ModelError: it can't be loaded or used; the message says what to do.
        """
        model, tokenizer = load_model(
            source,
            dtype=dtype,
            device=choose_device(device),
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
        )
        return cls(model, tokenizer, name=source, at_once=at_once, targets=targets)

    def load_adapter(self, directory: Path) -> LoraAdapter:
        """An adapter that was saved (a PEFT directory), checked against this base."""
        adapter = LoraAdapter.load(directory)
        shared_views(adapter, self.model, torch.device("cpu"), torch.float32)
        return adapter

    def merge(self, adapter: Adapter, directory: Path) -> None:
        """Write base and adapter as a new base (`base.Engine.merge`)."""
        with self._pool.lend() as (body,):
            merge(body, self.texts, cast(LoraAdapter, as_lora(adapter)), directory)

    def combine(self, adapters: Sequence[Adapter], weights: Sequence[float] | None = None) -> LoraAdapter:
        """One adapter that does what the weighted sum of ``adapters`` does (`arithmetic.combined`)."""
        loras = [lora for a in adapters if (lora := as_lora(a))]
        return combined(loras, [1.0] * len(loras) if weights is None else weights)

    def norm_ratio(self, adapter: Adapter) -> float:
        """The largest ``||dW||_F / ||W||_F`` over the adapter's modules: how far it moves the base."""
        lora = as_lora(adapter)
        return lora.norm_ratio(self.model) if lora else 0.0

    def check(self, update: Update, init: Adapter | None = None) -> str | None:
        """Why `apply` would refuse this update ("field: reason"), or None."""
        try:
            layout = self._layout_of(update.targets)
        except ModelError as error:
            return f"targets: {error}"
        return check(update, self.body, layout, as_lora(init))

    def training(self, updates: Sequence[Update], *, on: Adapter | None, init: Adapter | None = None) -> Training:
        """The updates of an `apply`, not begun yet (`base.LocalEngine.training`)."""
        layout = self._layout_of(_targets_of(updates))
        if len(updates) > 1 and updates[0].targets:
            self.experts.warn(layout, self.model)
        return Training(
            self.body,
            self._pool,
            self._views(on),
            layout,
            updates,
            init=as_lora(init),
            limit=self.limit,
            routed=self.experts.meets(layout),
        )

    def apply(
        self,
        changes: Sequence[Update | Adapter],
        *,
        on: Adapter | None,
        init: Adapter | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Bank:
        """Train the updates, and take the adapters as they are (`base.Engine.apply`)."""
        updates = [change for change in changes if isinstance(change, Update)]
        ready = {k: cast(LoraAdapter, as_lora(c)) for k, c in enumerate(changes) if not isinstance(c, Update)}
        if ready:  # one that doesn't fit is refused before anything trains
            given = Bank.stack(
                self._layout_with(_targets_of(updates), ready.values()), list(ready.values()), self.body.device
            )
            if not updates:
                given.shift = [math.nan] * len(given)
                return given
        training = self.training(updates, on=on, init=init)
        bank = training.run(on_step=on_step)
        bank.shift = training.shifts(self._at_once.tokens)
        return bank.with_ready(ready, given.layout) if ready else bank

    def _layout_with(self, targets: str, adapters: Collection[LoraAdapter]) -> Layout:
        """The layout of ``targets``, with the modules of adapters that change others."""
        layout = self._layout_of(targets)
        usual, changed = {target.path for target in layout.targets}, {path for a in adapters for path in a.tensors}
        return layout if changed <= usual else self._layout_of(sorted(usual | changed))

    def limit_members(self, members: int, on_lower: OnLower | None = None) -> None:
        """Train at most so many members at once from now on (`base.Engine.limit_members`)."""
        self.limit.set(members, on_lower)

    def initial_adapter(
        self, *, rank: int, alpha: float, seed: int, targets: str | Sequence[str] | None = None
    ) -> LoraAdapter:
        """Where training starts from, as in PEFT: A random, B zero, so that it changes nothing yet."""
        layout = self._layout_of(targets)
        narrowest = min(t.d_in for t in layout.targets)
        if not 1 <= rank <= narrowest or not (math.isfinite(alpha) and alpha > 0):
            raise SettingsError(f"rank {rank} must be in 1..{narrowest} (the model's width), alpha {alpha} above 0")
        return initial_adapter(layout, rank, alpha, seed)

    def bank(self, adapters: Sequence[Adapter], *, targets: str | Sequence[str] | None = None) -> Bank:
        """Adapters kept elsewhere, as a bank to ask or to train further (`Bank.parameters`).

        Raises:
            ModelError: there are none, or one doesn't fit the base and its targets.
        """
        if not adapters:
            raise ModelError("a bank needs at least one adapter")
        loras = [lora for a in adapters if (lora := as_lora(a))]
        return Bank.stack(self._layout_of(targets), loras, self.body.device)

    def states(
        self,
        sequences_K: Sequence[Sequence[TrainSequence]],
        *,
        on: Adapter | None,
        members: AdapterBank | None = None,
    ) -> TokenStates:
        """One forward of ``sequences_K[k]`` under member k, differentiable in the members' `Bank.parameters`
        (`base.LocalEngine.states`).

        Raises:
            UpdateError: a member has no sequences, or a sequence has no targets or doesn't fit the window.
            SettingsError: there are several groups without members, or several members under routed experts.
        """
        bank = self._members(members, len(sequences_K))
        if bank is None and len(sequences_K) != 1:
            raise SettingsError(f"{len(sequences_K)} groups without members; give all sequences as one group")
        for k, some in enumerate(sequences_K):
            if reason := self.body.refuses(some) if some else "it has no sequences":
                raise UpdateError(f"member {k}: {reason}")
        if bank is not None and len(bank) > 1 and self.experts.meets(bank.layout):
            raise SettingsError(
                "some targets get a part of the tokens only (routed experts); give a bank of one member"
            )
        with self._reading(on, bank) as (body, place):
            return token_states(body, place, bank, sequences_K)


def _targets_of(updates: Sequence[Update]) -> str:
    """The targets that all updates name.

    Raises:
        UpdateError: they differ.
    """
    names = sorted({update.targets for update in updates})
    if len(names) > 1:
        raise UpdateError(
            f"updates of one call adapt the same targets, these name {names}; group them by their targets"
        )
    return names[0] if names else ""
