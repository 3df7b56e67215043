"""The engine: one frozen model in this process, a mounted policy and banks of adapters beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..config import AtOnce
from ..errors import ModelError, SettingsError, UpdateError
from ..types import Completion, TrainSequence, Update
from . import texts
from .arithmetic import apart, combined
from .base import Adapter, AdapterBank, Ids
from .beside import Beside, Views, shared_views
from .body import Body
from .decode import Choose, Row, decode, greedy, make_row, sampler
from .fit import Training, check, check_sequences
from .limit import MemberLimit, Tell
from .loading import Dtype, choose_device, load_model
from .lora import Bank, Layout, LoraAdapter, initial_adapter
from .merging import merge
from .routing import Routing
from .score import ScoredTokens, mean_kl, token_logprobs
from .states import TokenStates, token_states
from .targets import find_layout, warn_of_strange


class TorchEngine:
    """`base.Engine` on torch and transformers. The base's tensors never change; between calls it carries no hooks."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "",
        members_at_once: int = AtOnce().members,
        rows_at_once: int = AtOnce().rows,
        tokens_at_once: int = AtOnce().tokens,
        targets: str | Sequence[str] = "all-linear",
    ) -> None:
        """Take over a loaded model (it is frozen and put into eval mode). `load` is the usual way in.

        Raises:
            ModelError: no module matches ``targets``, or the architecture is unknown to this engine.
            SettingsError: ``members_at_once``, ``rows_at_once`` or ``tokens_at_once`` is less than 1.
        """
        if min(members_at_once, rows_at_once, tokens_at_once) < 1:
            raise SettingsError("members_at_once, rows_at_once and tokens_at_once must be at least 1")
        self._body = Body(model, name)
        self._bodies = [self._body]
        self._tokenizer = tokenizer
        self._layout = find_layout(model, targets, name)
        warn_of_strange(model, self._layout)
        self._routing = Routing.of(self._body)
        self._routing.warn(self._layout, model)
        self._limit = MemberLimit(members_at_once)
        self._rows_at_once, self._tokens_at_once = rows_at_once, tokens_at_once
        self._mounted: LoraAdapter | None = None
        self._shared: Views = {}
        ends = getattr(model.generation_config, "eos_token_id", None) or []
        self._stops = frozenset([self.eos_id, *([ends] if isinstance(ends, int) else ends)])

    @classmethod
    def load(
        cls,
        source: str,
        *,
        dtype: Dtype = "fp32",
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        members_at_once: int = AtOnce().members,
        rows_at_once: int = AtOnce().rows,
        tokens_at_once: int = AtOnce().tokens,
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
        return cls(
            model,
            tokenizer,
            name=source,
            members_at_once=members_at_once,
            rows_at_once=rows_at_once,
            tokens_at_once=tokens_at_once,
            targets=targets,
        )

    @property
    def model(self) -> PreTrainedModel:
        """The frozen base; to look at (`LoraAdapter.norm_ratio`), not to change."""
        return self._body.model

    @property
    def dtype(self) -> str:
        """What the base computes in, such as ``bfloat16``."""
        return str(self._body.dtype).removeprefix("torch.")

    @property
    def window(self) -> int:
        """Longest sequence in tokens."""
        return self._body.window

    @property
    def eos_id(self) -> int:
        """The token that ends a text."""
        return cast(int, self._tokenizer.eos_token_id)

    @property
    def mounted(self) -> LoraAdapter | None:
        """The adapter beside the base, if any."""
        return self._mounted

    def mount(self, adapter: Adapter | None) -> None:
        """Put one adapter beside the base for everything that follows (None: the bare base). Banks come on top of it.

        Raises:
            ModelError: it belongs to another base; what was mounted stays.
        """
        body, lora = self._body, _as_lora(adapter)
        self._shared = {} if lora is None else shared_views(lora, body.model, body.device, body.dtype)
        self._mounted = lora

    def load_adapter(self, directory: Path) -> LoraAdapter:
        """An adapter that was saved, checked against this base.

        Raises:
            ModelError: it can't be read, or belongs to another base.
        """
        adapter = LoraAdapter.load(directory)
        shared_views(adapter, self._body.model, torch.device("cpu"), torch.float32)
        return adapter

    def merge(self, adapter: Adapter, directory: Path) -> None:
        """Write base and adapter (not the mounted one) as a new base: a Hugging Face directory, in the dtype loaded.

        Its ``merge.json`` names the base, the base's hash (of the tensors as loaded here) and the adapter's.

        Raises:
            ModelError: the directory exists, or the adapter can't be merged into this base.
            OSError: it can't be written; no directory is left then.
        """
        merge(self._body, self._tokenizer, cast(LoraAdapter, _as_lora(adapter)), directory)

    def combine(
        self, adapters: Sequence[Adapter], weights: Sequence[float] | None = None, *, keep: float | None = None
    ) -> LoraAdapter:
        """One adapter that changes the base by the weighted sum of what ``adapters`` do; see `arithmetic.combined`.

        Raises:
            SettingsError: there are no adapters, or as many weights are not given.
            ModelError: they are not of one base.
        """
        loras = [lora for a in adapters if (lora := _as_lora(a))]
        return combined(loras, [1.0] * len(loras) if weights is None else weights, keep)

    def apart(self, adapter: Adapter, others: Sequence[Adapter]) -> LoraAdapter:
        """The adapter without what it reads of the inputs that ``others`` read; see `arithmetic.apart`."""
        return apart(cast(LoraAdapter, _as_lora(adapter)), [lora for a in others if (lora := _as_lora(a))])

    def norm_ratio(self, adapter: Adapter) -> float:
        """The largest ``||dW||_F / ||W||_F`` over the adapter's modules: how far it moves the base."""
        lora = _as_lora(adapter)
        return lora.norm_ratio(self._body.model) if lora else 0.0

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a text that starts a document (with the tokenizer's own special tokens)."""
        return texts.encode(self._tokenizer, text, start=True)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that continues one; special tokens spelled out in it are plain text."""
        return texts.encode(self._tokenizer, text, start=False)

    def decode(self, ids: Ids) -> str:
        """Token ids as text, special tokens left out."""
        return cast(str, self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def chat(self, prompt: str) -> str:
        """The prompt in the model's chat template, to read (unchanged without one); feed the model `encode_chat`."""
        return texts.chat(self._tokenizer, prompt)

    def encode_chat(self, prompt: str) -> list[int]:
        """Token ids of `chat`: the template's special tokens count, those spelled out in the prompt are plain text."""
        return texts.encode_chat(self._tokenizer, prompt)

    def sample(
        self, prompts: Sequence[Ids], seeds: Sequence[int], *, max_new_tokens: int, temperature: float, top_p: float
    ) -> list[Completion]:
        """One completion a prompt; a row's text depends on its prompt and seed alone, not on its neighbours.

        Raises:
            ModelError: a prompt is empty or too long for the window.
            SettingsError: a sampling setting is out of range.
        """
        if len(prompts) != len(seeds):
            raise SettingsError(f"{len(prompts)} prompts but {len(seeds)} seeds; give one seed a prompt")
        choose = sampler(temperature, top_p)
        rows = [make_row(self._body, 0, p, max_new_tokens, s) for p, s in zip(prompts, seeds, strict=True)]
        self._decode(None, [rows], choose)
        return [
            Completion(row.prompt, tuple(row.tokens), tuple(row.logprobs), self._text(row), row.finished)
            for row in rows
        ]

    def answer(
        self, bank: AdapterBank | None, prompts: Sequence[Sequence[Ids]], *, max_new_tokens: int
    ) -> list[list[str]]:
        """Greedy answers: ``prompts[k]`` to member k of the bank (without a bank: every row to the mounted model).

        Raises:
            ModelError: a prompt is empty or too long for the window.
        """
        mine = self._members(bank, len(prompts))
        rows = [[make_row(self._body, k, p, max_new_tokens) for p in asked] for k, asked in enumerate(prompts)]
        self._decode(mine, rows, greedy)
        return [[self._text(row) for row in group] for group in rows]

    def _decode(self, bank: Bank | None, groups: Sequence[Sequence[Row]], choose: Choose) -> None:
        with self._beside(self._paths(bank)) as place:
            for together in self._routing.forwards(bank, groups):
                decode(
                    self._body,
                    place,
                    bank,
                    [row for group in together for row in group],
                    choose=choose,
                    stops=self._stops,
                    rows_at_once=self._rows_at_once,
                )

    def _text(self, row: Row) -> str:
        return self.decode(row.tokens[:-1] if row.finished else row.tokens)

    def check(self, update: Update, init: Adapter | None = None, *, targets: str | None = None) -> str | None:
        """Why `fit` would refuse this update ("field: reason"), or None.

        Raises:
            ModelError: no module matches ``targets``.
        """
        return check(update, self._body, self._layout_of(targets), _as_lora(init))

    def training(
        self, updates: Sequence[Update], init: Adapter | None = None, *, targets: str | None = None
    ) -> Training:
        """Updates to be trained step by step: what `fit` does at once, to be paused, looked at and gone on with.

        The mounted adapter stays fixed underneath. ``targets``: the modules to adapt, where they are not the engine's own.

        Raises:
            UpdateError: an update can't be trained on.
            ModelError: no module matches ``targets``.
        """
        layout = self._layout_of(targets)
        if targets is not None and len(updates) > 1:
            self._routing.warn(layout, self.model)
        return Training(
            self._replicas(self._limit.workers(len(updates))),
            self._shared,
            layout,
            updates,
            init=_as_lora(init),
            limit=self._limit,
            routed=self._routing.meets(layout),
        )

    def fit(
        self,
        updates: Sequence[Update],
        init: Adapter | None = None,
        *,
        targets: str | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Bank:
        """Train every update from its own seed's initial adapter (or ``init``); members never see each other.

        ``on_step(done, total)`` counts the members' optimiser steps. Afterwards ``bank.shift`` says what reached the outputs;
        otherwise as `training`.

        Raises:
            UpdateError: an update can't be trained on; nothing was trained then.
            OutOfMemoryError: a single member does not fit.
        """
        training = self.training(updates, init, targets=targets)
        bank = training.run(on_step=on_step)
        bank.shift = training.shifts(self._tokens_at_once)
        return bank

    def limit_members(self, members: int, tell: Tell | None = None) -> None:
        """Train at most so many members at once from now on; ``tell(members, reason)`` hears of fewer, if memory runs out.

        Raises:
            SettingsError: ``members`` is less than 1.
        """
        self._limit.set(members, tell)

    def initial_adapter(
        self, *, rank: int, alpha: float, seed: int, targets: str | Sequence[str] | None = None
    ) -> LoraAdapter:
        """Where training starts from, as in PEFT: A random, B zero, so that it changes nothing yet.

        Raises:
            SettingsError: ``rank`` or ``alpha`` is out of range.
            ModelError: no module matches ``targets``.
        """
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
        loras = [lora for a in adapters if (lora := _as_lora(a))]
        return Bank.stack(self._layout_of(targets), loras, self._body.device)

    def states(self, bank: AdapterBank | None, sequences: Sequence[Sequence[TrainSequence]]) -> TokenStates:
        """One forward of ``sequences[k]`` under member k, on top of the mounted adapter; differentiable in the bank's
        `Bank.parameters`, so that any loss on log-probabilities, entropies or hidden states trains them.

        All of it is one batch in memory; cut it where that is too much, and let gradients add up.

        Raises:
            UpdateError: a member has no sequences, or a sequence has no targets or doesn't fit the window.
        """
        mine = self._members(bank, len(sequences))
        if bank is None and len(sequences) != 1:
            raise SettingsError(f"{len(sequences)} groups without a bank; give all sequences as one group")
        for k, some in enumerate(sequences):
            if reason := check_sequences(some, self._body) if some else "it has no sequences":
                raise UpdateError(f"member {k}: {reason}")
        if mine is not None and len(mine) > 1 and self._routing.meets(mine.layout):
            raise SettingsError(
                "some targets get a part of the tokens only (routed experts); give a bank of one member"
            )
        with self._beside(self._paths(mine)) as place:
            return token_states(self._body, place, mine, sequences)

    def score(self, bank: AdapterBank | None, pairs: Sequence[Sequence[tuple[Ids, Ids]]]) -> list[list[ScoredTokens]]:
        """Log-probabilities of completions: ``pairs[k]`` are (prompt ids, completion ids) for member k.

        Raises:
            UpdateError: a prompt or completion is empty, or they don't fit the window.
        """
        mine = self._members(bank, len(pairs))
        sequences = []
        for row in pairs:
            if any(not prompt or not completion for prompt, completion in row):
                raise UpdateError("a pair to score has an empty prompt or completion; leave it out")
            sequences.append([TrainSequence((*p, *c), (False,) * len(p) + (True,) * len(c)) for p, c in row])
        self._check([sequence for row in sequences for sequence in row])
        with self._beside(self._paths(mine)) as place:
            parts = [
                token_logprobs(self._body, place, mine, together, self._tokens_at_once)
                for together in self._routing.forwards(mine, sequences)
            ]
        return [[one for part in parts for one in part[k]] for k in range(len(sequences))]

    def sequence_loss(self, sequences: Sequence[TrainSequence]) -> list[float]:
        """Mean loss per target token of each sequence under the mounted model (perplexity is exp of it).

        Raises:
            UpdateError: a sequence has no targets or doesn't fit the window.
        """
        self._check(sequences)
        with self._beside([]) as place:
            (scored,) = token_logprobs(self._body, place, None, [sequences], self._tokens_at_once)
        return [-sum(s.logprobs) / len(s.logprobs) for s in scored]

    def token_kl(self, sequences: Sequence[TrainSequence]) -> float:
        """Mean KL(mounted model || bare base) per target token, in nats: how far a policy moved on these texts.

        Raises:
            UpdateError: there are no sequences, or one has no targets or doesn't fit the window.
        """
        if not sequences:
            raise UpdateError("no sequences to measure KL on; give at least one")
        self._check(sequences)
        return mean_kl(self._body, self._beside([]), sequences, self._tokens_at_once)

    def base_sha256(self) -> str:
        """Hash of the base's live tensors."""
        return self._body.sha256()

    def _replicas(self, n: int) -> list[Body]:
        """The body and, on CPUs, replicas of it: ``n`` in all, at most one for each thread."""
        if self._body.device.type != "cpu":
            return [self._body]
        n = min(n, torch.get_num_threads())
        self._bodies += [self._body.replica() for _ in range(n - len(self._bodies))]
        return self._bodies[:n]

    def _beside(self, paths: Sequence[str]) -> Beside:
        return Beside(self._body.model, self._shared, paths)

    def _layout_of(self, targets: str | Sequence[str] | None) -> Layout:
        return self._layout if targets is None else find_layout(self._body.model, targets, self._body.name)

    def _paths(self, bank: Bank | None) -> list[str]:
        return [] if bank is None else [target.path for target in bank.layout.targets]

    def _members(self, bank: AdapterBank | None, groups: int) -> Bank | None:
        if bank is None:
            return None
        if not isinstance(bank, Bank):
            raise TypeError(f"{type(bank).__name__} is no bank of this engine; use what fit or bank returned")
        if groups != len(bank):
            raise SettingsError(f"{groups} groups for a bank of {len(bank)} members; give one group a member")
        return bank

    def _check(self, sequences: Sequence[TrainSequence]) -> None:
        reason = check_sequences(sequences, self._body)
        if reason:
            raise UpdateError(f"{reason}; leave it out or shorten it")


def _as_lora(adapter: Adapter | None) -> LoraAdapter | None:
    """The adapter, refused where it is another engine's."""
    if adapter is not None and not isinstance(adapter, LoraAdapter):
        raise TypeError(f"{type(adapter).__name__} is no adapter of this engine; save it and load_adapter it here")
    return adapter
