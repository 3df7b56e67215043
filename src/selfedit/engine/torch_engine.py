"""The engine: one frozen model in this process. What it reads is in `inference.reader`, how it trains in `training.fit`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..config import AtOnce
from ..errors import ModelError, SettingsError, UpdateError
from ..types import Adapter, TrainSequence, Update
from .adapters.adapter_context import refuse_transposed, shared_views
from .adapters.arithmetic import combined
from .adapters.lora import Bank, LoraAdapter, initial_adapter
from .adapters.merged_base import merge
from .base import AdapterBank
from .inference.reader import USUAL, Reader, as_lora
from .model.loading import Dtype, choose_device, load_model
from .training.fit import Training, check
from .training.states import TokenStates, token_states
from .training.workers import OnLower


class TorchEngine(Reader):
    """`base.LocalEngine` on torch and transformers. The base's tensors never change; between calls it carries no hooks."""

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
        template_arguments: Mapping[str, Any] | None = None,
    ) -> TorchEngine:
        """Load a directory in the HF format, or a hub id. ``dtype``: of base and computation; adapters stay fp32.

        ``template_arguments``: of the tokenizer's chat template, beside `templates.TEMPLATE_ARGUMENTS`.

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
        return cls(model, tokenizer, name=source, at_once=at_once, targets=targets, template_arguments=template_arguments)

    def load_adapter(self, directory: Path) -> LoraAdapter:
        """An adapter that was saved (a PEFT directory), checked against this base."""
        adapter = LoraAdapter.load(directory)
        try:
            shared_views(adapter, self.model, torch.device("cpu"), torch.float32)
            refuse_transposed(adapter, self.model)
        except ModelError as error:
            raise ModelError(f"{directory}: {error}") from error
        return adapter

    def merge(self, adapter: Adapter, directory: Path) -> None:
        """Write base and adapter as a new base (`base.Engine.merge`)."""
        with self._pool.lend() as (body,):
            merge(body, self, as_lora(adapter), directory)

    def combine(self, adapters: Sequence[Adapter], weights: Sequence[float] | None = None) -> LoraAdapter:
        """One adapter that does what the weighted sum of ``adapters`` does (`arithmetic.combined`)."""
        return combined(list(map(as_lora, adapters)), [1.0] * len(adapters) if weights is None else weights)

    def norm_ratio(self, adapter: Adapter) -> float:
        """The largest ``||dW||_F / ||W||_F`` over the adapter's modules: how far it moves the base."""
        return as_lora(adapter).norm_ratio(self.model)

    def check(self, update: Update, init: Adapter | None = None) -> str | None:
        """Why `apply` would refuse this update ("field: reason"), or None."""
        try:
            layout = self._layout_of(update.targets)
        except ModelError as error:
            return f"targets: {error}"
        return check(update, self.body, layout, None if init is None else as_lora(init))

    def training(self, updates: Sequence[Update], *, on: Adapter | None, init: Adapter | None = None) -> Training:
        """The updates of an `apply`, not begun yet (`base.LocalEngine.training`)."""
        layout, start = self._layout_of(_targets_of(updates)), None if init is None else as_lora(init)
        return Training(self.body, self._pool, self._views(on), layout, updates, init=start, limit=self.limit)

    def apply(self, changes: Sequence[Update | Adapter], *, on: Adapter | None, init: Adapter | None = None) -> Bank:
        """Train the updates, or take the adapters as they are (`base.Engine.apply`)."""
        updates = [change for change in changes if isinstance(change, Update)]
        ready = [as_lora(change) for change in changes if not isinstance(change, Update)]
        if ready:
            if updates:
                raise UpdateError("updates and ready adapters are applied by calls of their own; divide the changes")
            layout = self._layout_of(sorted({path for a in ready for path in a.tensors}))
            return Bank.stack(layout, ready, self.body.device)
        training = self.training(updates, on=on, init=init)
        bank = training.run()
        bank.shift = training.shifts(self._at_once.tokens)
        return bank

    def limit_members(self, members: int, on_lower: OnLower | None = None) -> None:
        """Train at most so many members at once from now on (`base.Engine.limit_members`)."""
        self.limit.set(members, on_lower)

    def initial_adapter(self, *, rank: int, alpha: float, seed: int, targets: str | Sequence[str] | None = None) -> LoraAdapter:
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
        return Bank.stack(self._layout_of(targets), list(map(as_lora, adapters)), self.body.device)

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
            SettingsError: there are several groups without members.
        """
        bank = self._members(members, len(sequences_K))
        if bank is None and len(sequences_K) != 1:
            raise SettingsError(f"{len(sequences_K)} groups without members; give all sequences as one group")
        for k, some in enumerate(sequences_K):
            if reason := self.body.refuses(some) if some else "it has no sequences":
                raise UpdateError(f"member {k}: {reason}")
        with self._reading(on, bank) as (body, place):
            return token_states(body, place, bank, sequences_K)


def _targets_of(updates: Sequence[Update]) -> str:
    """The targets that all updates name; an UpdateError where they differ."""
    names = sorted({update.targets for update in updates})
    if len(names) > 1:
        raise UpdateError(f"updates of one call adapt the same targets, these name {names}; group them by their targets")
    return names[0] if names else ""
