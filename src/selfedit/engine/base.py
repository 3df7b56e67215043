"""The protocols that engines keep: a frozen base, adapters beside it that every call names, nothing left behind.

`Engine` is the core: plain data in and out, which a remote server can keep as well. `LocalEngine` adds what needs gradients.

Shape letters: ``_K`` bank members, ``_S`` sequences, ``_T`` tokens, ``_D`` width, ``_R`` rank. Adapters and banks are handed
back to the kind of engine that made them; it refuses others with a TypeError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import SettingsError
from ..templates import Templates
from ..types import Adapter, Completion, Scored, TrainSequence, Update

if TYPE_CHECKING:
    from .adapters.lora import Bank
    from .model.texts import Pair
    from .training.fit import Training
    from .training.states import TokenStates

Ids = Sequence[int]


class AdapterBank(Protocol):
    """K adapters on one base. ``failed`` says why a member was stopped (it diverged), by its index; its adapter is zero.

    ``trained_tokens[k]``: tokens that went through the model, padding not counted. ``losses[k]``: one per step. ``shift[k]``,
    after `Engine.apply` only: the largest change of a target's log-probability (nats) that the member makes to a sequence it
    was trained on; 0.0 means that it failed or does not reach the outputs, nan that it was not trained by that call.
    """

    failed: dict[int, str]
    trained_tokens: list[int]
    losses: list[list[float]]
    shift: list[float]

    def __len__(self) -> int: ...

    def adapter(self, member: int) -> Adapter:
        """A copy of one member."""
        ...


class Engine(Protocol):
    """Samples, trains K updates at once, and answers with K members; the base's tensors never change.

    Every call names the adapter that it runs under (``on``; None: the bare base), and a bank's ``members`` come on top of it.
    Calls that only read (`sample`, `choose`, `answer`, `score`, `sequence_loss`, `token_kl`, `encode` and its kind) may run in
    several threads at once, under different adapters and while `apply` trains: each gives what it gives alone, bit for bit.

    Raises:
        ModelError: an adapter belongs to another base; a prompt is empty, too long for the window, or has unknown ids.
        SettingsError: a setting of a call is out of range, or lists that belong together have different lengths.
        UpdateError: a sequence to train on or to score is empty, has no targets, or doesn't fit the window.
    """

    @property
    def dtype(self) -> str:
        """What the base computes in, such as ``bfloat16``."""
        ...

    @property
    def window(self) -> int:
        """Longest sequence in tokens."""
        ...

    @property
    def eos_id(self) -> int:
        """The token that ends a text."""
        ...

    def base_sha256(self) -> str:
        """Hash of the base's live tensors."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a text that starts a document (with the tokenizer's own special tokens)."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that continues one; special tokens spelled out in it are plain text."""
        ...

    def encode_chat(self, prompt: str, *, system: str = "", answering: bool = False) -> list[int]:
        """Token ids of a user's turn in the model's chat template; without a template, those of `encode_prompt`.

        ``system``: the message before it. ``answering``: up to where a short answer begins, with any thought closed.
        """
        ...

    def encode_pair(self, prompt: str, answer: str, *, chat: bool = False, system: str = "") -> Pair:
        """A prompt (``chat``: a turn) and its answer with the token that ends it, encoded as one text."""
        ...

    @property
    def opens_thought(self) -> str:
        """The tag with which the model's chat template opens a thought in every prompt; empty where it opens none."""
        ...

    def load_adapter(self, directory: Path) -> Adapter:
        """An adapter that was saved (a PEFT directory), checked against this base."""
        ...

    def merge(self, adapter: Adapter, directory: Path) -> None:
        """Write base and adapter as a new base: a Hugging Face directory, in the dtype loaded, that must not exist yet.

        Its ``merge.json`` names the base, the base's hash (of the tensors as loaded here), the adapter's, and the versions of
        transformers that are known to compute the same logits.

        Raises:
            ModelError: the directory exists, or the adapter can't be merged into this base.
            OSError: it can't be written; no directory is left then.
        """
        ...

    def combine(self, adapters: Sequence[Adapter], weights: Sequence[float] | None = None) -> Adapter:
        """One adapter that changes the base by the weighted sum of what ``adapters`` do (weights: 1 each), exactly."""
        ...

    def norm_ratio(self, adapter: Adapter) -> float:
        """The largest ``||dW||_F / ||W||_F`` over the adapter's modules: how far it moves the base."""
        ...

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
        """One completion per prompt; a row's text depends on its prompt and seed alone, not on its neighbours."""
        ...

    def choose(
        self,
        prompts: Sequence[Ids],
        seeds: Sequence[int],
        choices: Sequence[Sequence[str]],
        *,
        on: Adapter | None,
        temperature: float,
    ) -> list[Completion]:
        """One constrained text per prompt: for each of ``choices`` one of its texts, sampled from the model's own probabilities
        over them, with the exact log-probabilities. No text of a choice may begin with another one.
        """
        ...

    def answer(
        self,
        prompts_K: Sequence[Sequence[Ids]],
        *,
        on: Adapter | None,
        members: AdapterBank | None = None,
        max_new_tokens: int,
    ) -> list[list[str]]:
        """Greedy answers: ``prompts_K[k]`` by member k, on top of ``on`` (without members: every row by ``on`` alone)."""
        ...

    def score(
        self,
        pairs_K: Sequence[Sequence[tuple[Ids, Ids]]],
        *,
        on: Adapter | None,
        members: AdapterBank | None = None,
    ) -> Sequence[Sequence[Scored]]:
        """Log-probabilities of completions: ``pairs_K[k]`` are (prompt ids, completion ids) for member k, on top of ``on``."""
        ...

    def sequence_loss(self, sequences: Sequence[TrainSequence], *, on: Adapter | None) -> list[float]:
        """Mean loss per target token of each sequence under ``on`` (perplexity is exp of it)."""
        ...

    def token_kl(self, sequences: Sequence[TrainSequence], *, on: Adapter | None) -> float:
        """Mean KL(``on`` || bare base) per target token, in nats: how far a policy moved on these texts."""
        ...

    def check(self, update: Update, init: Adapter | None = None) -> str | None:
        """Why `apply` would refuse this update ("field: reason"), or None: lets a caller mark it invalid instead."""
        ...

    def apply(self, changes: Sequence[Update | Adapter], *, on: Adapter | None, init: Adapter | None = None) -> AdapterBank:
        """Train every update from its own seed's initial adapter (or ``init``); members never see each other.

        ``on`` stays fixed underneath. The updates of one call adapt the same ``targets``. Changes that are adapters already
        become members as they are, in a call of their own: nothing is trained, so their ``shift`` is nan.

        Raises:
            UpdateError: an update can't be trained on, there are no changes or both kinds; nothing was trained then.
            ModelError: an adapter does not fit the base and the targets.
            OutOfMemoryError: a single member does not fit.
        """
        ...

    def limit_members(self, members: int, on_lower: Callable[[int, str], None] | None = None) -> None:
        """Train at most so many members at once from now on.

        Where memory runs out in `apply` or a `Training`, the engine halves their number for good, calls
        ``on_lower(members, reason)`` and trains all updates of that call again; its numbers are those of one number of members,
        whatever happened before. Single members that trained at the same time on threads of their own first train one after
        another (reported as 1).
        """
        ...


class LocalEngine(Engine, Protocol):
    """An engine in this process, whose adapters algorithms can train with losses of their own."""

    @property
    def tokens_at_once(self) -> int:
        """Tokens that `states` should get at most in one call with gradients; a single longer sequence is fine."""
        ...

    def training(self, updates: Sequence[Update], *, on: Adapter | None, init: Adapter | None = None) -> Training:
        """The updates of an `apply`, not begun yet, for a caller that wants to pause on the way."""
        ...

    def initial_adapter(self, *, rank: int, alpha: float, seed: int, targets: str | None = None) -> Adapter:
        """Where training starts from, as in PEFT: A random, B zero, so that it changes nothing yet."""
        ...

    def bank(self, adapters: Sequence[Adapter], *, targets: str | None = None) -> Bank:
        """Adapters kept elsewhere, as a bank to train further (`Bank.parameters`); ``targets`` as in `Update`."""
        ...

    def states(
        self,
        sequences_K: Sequence[Sequence[TrainSequence]],
        *,
        on: Adapter | None,
        members: AdapterBank | None = None,
    ) -> TokenStates:
        """One forward of ``sequences_K[k]`` under member k: log-probabilities with gradients, for losses of any kind.

        All of it is one batch in memory; cut it where it has more than `tokens_at_once`, and let gradients add up.
        """
        ...


def encode_asked(engine: Engine, templates: Templates, prompt: str, *, answering: bool = False) -> list[int]:
    """Token ids of a prompt made from these templates: a turn in the model's chat template where they are for turns.

    ``answering``: up to where a short answer begins (`Engine.encode_chat`).
    """
    if templates.chat:
        return engine.encode_chat(prompt, system=templates.system, answering=answering)
    return engine.encode_prompt(prompt)


def encode_answered(engine: Engine, templates: Templates, prompt: str, answer: str) -> Pair:
    """A prompt made from these templates and its answer (`templates.gold_text`), encoded as one text."""
    return engine.encode_pair(prompt, answer, chat=templates.chat, system=templates.system)


def check_chat(engine: Engine, templates: Templates, path: str) -> None:
    """Refuse templates for turns on a model that knows none.

    Raises:
        SettingsError: the tokenizer has no chat template.
    """
    if templates.chat and engine.encode_chat("a") == engine.encode_prompt("a"):
        raise SettingsError(f"{path}: its tokenizer has no chat template; take its templates = 'general', or an instruct model")
