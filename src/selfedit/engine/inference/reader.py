"""The reading half of the engine: a frozen model that writes and scores texts under the adapters that each call names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...config import AtOnce
from ...errors import ModelError, SettingsError, UpdateError
from ...types import Adapter, Completion, Scored, TrainSequence
from ..adapters.adapter_context import AdapterContext, Views, shared_views
from ..adapters.expert_routing import refuse_unfit, unfit_modules
from ..adapters.lora import Bank, Layout, LoraAdapter
from ..adapters.targets import find_layout, warn_of_strange, warn_of_unreached
from ..base import AdapterBank, Ids
from ..model.body import Body
from ..model.body_pool import TURNS, BodyPool
from ..model.texts import Texts
from ..training.workers import MemberLimit
from .choices import Guide, choose_within
from .decode import Choose, Row, decode, greedy, make_row, sampler
from .score import Pair, completion_logprobs, mean_kl, token_logprobs

USUAL = AtOnce()


class Reader(Texts):
    """The calls of `base.Engine` that only read; any number of threads may be in them at once.

    To be looked at: the frozen ``model`` (and ``body``), what it computes in (``dtype``), its longest sequence in tokens
    (``window``), the ``layout`` of its usual adapters, and the tokens at which it ``stops``.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "",
        at_once: AtOnce = USUAL,
        targets: str | Sequence[str] = "all-linear",
        template_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Take over a loaded model (it is frozen and put into eval mode). `TorchEngine.load` is the usual way in.

        Raises:
            ModelError: no module matches ``targets``, one gets some of the tokens only (`refuse_unfit`), or the architecture
                is unknown to this engine.
            SettingsError: a number of ``at_once`` is less than 1.
        """
        if min(at_once) < 1:
            raise SettingsError(f"{at_once}: each must be at least 1 (model.members_at_once and its kind)")
        super().__init__(tokenizer, template_arguments)
        self.model, self.body = model, Body(model, name)
        self.window, self.dtype = self.body.window, str(self.body.dtype).removeprefix("torch.")
        self._unfit = unfit_modules(self.body)
        self.layout = self._layout_of(targets)
        warn_of_strange(model, self.layout)
        if isinstance(targets, str) and targets.strip().startswith("all-linear"):
            warn_of_unreached(model, name)
        ends = getattr(model.generation_config, "eos_token_id", None) or []
        turn_end, self._turn_end = self.turn_end
        self.stops = frozenset(
            [self.eos_id, *([ends] if isinstance(ends, int) else ends), *([] if turn_end is None else [turn_end])]
        )
        self._pool, self._at_once = BodyPool(self.body), at_once
        self.limit = MemberLimit(at_once.members, at_once.tokens)

    @property
    def tokens_at_once(self) -> int:
        """Tokens of one forward with gradients (`base.LocalEngine.tokens_at_once`)."""
        return self._at_once.tokens

    def base_sha256(self) -> str:
        """Hash of the base's live tensors."""
        return self.body.sha256()

    def sample(
        self,
        prompts: Sequence[Ids],
        seeds: Sequence[int],
        *,
        on: Adapter | None,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
    ) -> list[Completion]:
        """One completion per prompt (`base.Engine.sample`)."""
        choose = sampler(temperature, top_p)
        rows = [make_row(self.body, 0, p, max_new_tokens, s) for p, s in _paired(prompts, seeds)]
        self._decode(on, None, rows, choose)
        return [Completion(row.prompt, tuple(row.tokens), tuple(row.logprobs), self._text(row), row.finished) for row in rows]

    def choose(
        self,
        prompts: Sequence[Ids],
        seeds: Sequence[int],
        choices: Sequence[Sequence[str]],
        *,
        on: Adapter | None,
        temperature: float,
    ) -> list[Completion]:
        """One constrained text per prompt (`base.Engine.choose`)."""
        if not temperature > 0:
            raise SettingsError(f"temperature {temperature} must be above 0")
        guide = Guide.of([[self.encode(text) for text in choice] for choice in choices])
        rows = [make_row(self.body, 0, p, guide.longest, s) for p, s in _paired(prompts, seeds)]
        for row in rows:
            if row.limit < guide.longest:
                raise ModelError(f"a prompt of {len(row.prompt)} tokens leaves no room for {guide.longest} more; shorten it")
            row.guide = guide
        self._decode(on, None, rows, partial(choose_within, temperature=temperature))
        return [
            Completion(
                row.prompt,
                tuple(row.tokens),
                tuple(row.logprobs),
                "".join(choice[i] for choice, i in zip(choices, guide.chosen(row.tokens), strict=True)),
                True,
                tuple(guide.allowed(row.tokens[:i]) for i in range(len(row.tokens))),
            )
            for row in rows
        ]

    def answer(
        self,
        prompts_K: Sequence[Sequence[Ids]],
        *,
        on: Adapter | None,
        members: AdapterBank | None = None,
        max_new_tokens: int,
    ) -> list[list[str]]:
        """Greedy answers of each member (`base.Engine.answer`)."""
        bank = self._members(members, len(prompts_K))
        rows = [[make_row(self.body, k, p, max_new_tokens) for p in asked] for k, asked in enumerate(prompts_K)]
        self._decode(on, bank, list(chain(*rows)), greedy)
        return [[self._text(row) for row in group] for group in rows]

    def score(
        self,
        pairs_K: Sequence[Sequence[tuple[Ids, Ids]]],
        *,
        on: Adapter | None,
        members: AdapterBank | None = None,
    ) -> list[list[Scored]]:
        """Log-probabilities of completions (`base.Engine.score`)."""
        bank = self._members(members, len(pairs_K))
        pairs = [Pair(k, i, tuple(p), tuple(c)) for k, row in enumerate(pairs_K) for i, (p, c) in enumerate(row)]
        if any(not pair.prompt or not pair.completion for pair in pairs):
            raise UpdateError("a pair to score has an empty prompt or completion; leave it out")
        self._check([pair.sequence for pair in pairs])
        with self._reading(on, bank) as (body, place):
            scored = completion_logprobs(body, place, bank, pairs, self._at_once.tokens, self._at_once.rows)
        return [[scored[k, i] for i in range(len(row))] for k, row in enumerate(pairs_K)]

    def sequence_loss(self, sequences: Sequence[TrainSequence], *, on: Adapter | None) -> list[float]:
        """Mean loss per target token of each sequence (`base.Engine.sequence_loss`)."""
        self._check(sequences)
        with self._reading(on) as (body, place):
            (scored,) = token_logprobs(body, place, None, [sequences], self._at_once.tokens)
        return [-sum(s.logprobs) / len(s.logprobs) for s in scored]

    def token_kl(self, sequences: Sequence[TrainSequence], *, on: Adapter | None) -> float:
        """Mean KL(``on`` || bare base) per target token (`base.Engine.token_kl`)."""
        if not sequences:
            raise UpdateError("no sequences to measure KL on; give at least one")
        self._check(sequences)
        views = self._views(on)
        with self._pool.lend() as (body,), TURNS.at():
            return mean_kl(body, views, sequences, self._at_once.tokens)

    @contextmanager
    def _reading(self, on: Adapter | None, bank: Bank | None = None) -> Iterator[tuple[Body, AdapterContext]]:
        """A body of this call's own, under these adapters."""
        paths, views = [] if bank is None else [target.path for target in bank.layout.targets], self._views(on)
        with self._pool.lend() as (body,), TURNS.at(), AdapterContext(body.model, views, paths) as place:
            yield body, place

    def _decode(self, on: Adapter | None, bank: Bank | None, rows: Sequence[Row], choose: Choose) -> None:
        with self._reading(on, bank) as (body, place):
            decode(body, place, bank, rows, choose=choose, stops=self.stops, rows_at_once=self._at_once.rows)

    def _text(self, row: Row) -> str:
        text = self.decode(row.tokens[:-1] if row.finished else row.tokens)
        return text.partition(self._turn_end)[0] if self._turn_end else text

    def _views(self, adapter: Adapter | None) -> Views:
        """An adapter's tensors where the base is; refused where it belongs to another base."""
        return {} if adapter is None else shared_views(as_lora(adapter), self.model, self.body.device, self.body.dtype)

    def _members(self, bank: AdapterBank | None, groups: int) -> Bank | None:
        if bank is None:
            return None
        if not isinstance(bank, Bank):
            raise TypeError(f"{type(bank).__name__} is no bank of this engine; use what apply or bank returned")
        if groups != len(bank):
            raise SettingsError(f"{groups} groups for a bank of {len(bank)} members; give one group per member")
        return bank

    def _check(self, sequences: Sequence[TrainSequence]) -> None:
        if reason := self.body.refuses(sequences):
            raise UpdateError(f"{reason}; leave it out or shorten it")

    def _layout_of(self, targets: str | Sequence[str] | None) -> Layout:
        """The engine's own targets where none are given."""
        if not targets:
            return self.layout
        return refuse_unfit(find_layout(self.model, targets, self.body.name, self._unfit.idle), self._unfit)


def as_lora(adapter: Adapter) -> LoraAdapter:
    """The adapter; a TypeError where it is another engine's."""
    if not isinstance(adapter, LoraAdapter):
        raise TypeError(f"{type(adapter).__name__} is no adapter of this engine; save it and load_adapter it here")
    return adapter


def _paired(prompts: Sequence[Ids], seeds: Sequence[int]) -> Iterator[tuple[Ids, int]]:
    if len(prompts) != len(seeds):
        raise SettingsError(f"{len(prompts)} prompts but {len(seeds)} seeds; give one seed per prompt")
    return zip(prompts, seeds, strict=True)
