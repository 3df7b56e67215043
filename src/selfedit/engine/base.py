"""The protocol every engine keeps: a frozen base, adapters applied beside it, nothing left behind.

Shape letters: ``_K`` bank members, ``_S`` sequences, ``_T`` tokens, ``_D`` width, ``_R`` rank. Adapters and banks are
handed back to the kind of engine they came from; it refuses others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import SettingsError
from ..templates import Templates
from ..types import Completion, TrainSequence, Update

if TYPE_CHECKING:
    from torch import Tensor

Ids = Sequence[int]


class Adapter(Protocol):
    """One LoRA, detached from any bank: what a policy is, what is exported."""

    @property
    def sha256(self) -> str:
        """Hash of its tensors, names, rank and alpha."""
        ...

    def save(self, directory: Path) -> None:
        """Write a PEFT adapter directory that ``PeftModel.from_pretrained`` loads."""
        ...


class AdapterBank(Protocol):
    """K adapters on one base. ``failed`` says why a member was stopped (diverged), by its index; its adapter is zero.

    ``trained_tokens[k]``: tokens that went through the model, padding not counted. ``losses[k]``: one a step. ``shift[k]``,
    after `Engine.fit` only: the largest change of a target's log-probability (nats) that the member makes to a sequence it
    was trained on; 0.0 means that it failed or does not reach the outputs.
    """

    failed: dict[int, str]
    trained_tokens: list[int]
    losses: list[list[float]]
    shift: list[float]

    def __len__(self) -> int: ...

    def adapter(self, member: int) -> Adapter:
        """A copy of one member."""
        ...

    def parameters(self) -> list[Tensor]:
        """The members' weights as leaves of autograd, for an optimiser; `Engine.states` are differentiable in them."""
        ...


class Training(Protocol):
    """Updates on their way: to be paused, looked at (``bank``) and gone on with, some of them dropped."""

    @property
    def bank(self) -> AdapterBank:
        """Every member's weights of where it stands."""
        ...

    def run(self, until: int | None = None, members: Collection[int] | None = None) -> AdapterBank:
        """Train ``members`` (None: all) up to step ``until`` (None: to their ends); a pause changes nothing for a member.

        Where memory runs out, half as many train at once from then on (`Engine.limit_members`), and all that this training was
        asked for so far is trained again.
        """
        ...


class Scored(Protocol):
    """A completion under teacher forcing."""

    @property
    def logprobs(self) -> Sequence[float]:
        """Log p of each completion token, in nats."""
        ...

    @property
    def greedy(self) -> bool:
        """Every token is the arg-max: greedy decoding would have written exactly this."""
        ...


class States(Protocol):
    """M target tokens under teacher forcing, by member and sequence. Losses on them train a bank's `parameters`."""

    @property
    def hidden(self) -> Tensor:
        """The states (M, D) that predict the targets, such as for a value head."""
        ...

    def logprobs(self, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
        """Log p of each target (M, nats), as it is sampled from."""
        ...

    def entropies(self, temperature: float = 1.0) -> Tensor:
        """Entropy of the distribution that each target comes from (M, nats)."""
        ...

    def split(self, values: Tensor) -> list[list[Tensor]]:
        """Something a token, (M, ...), as ``[k][s]``: a tensor for each sequence of each member."""
        ...


def encode_asked(engine: Engine, templates: Templates, prompt: str) -> list[int]:
    """Token ids of a prompt made from these templates: a turn in the model's chat template where they are for turns."""
    return engine.encode_chat(prompt) if templates.chat else engine.encode_prompt(prompt)


def check_chat(engine: Engine, templates: Templates, path: str) -> None:
    """Refuse templates for turns on a model that knows none.

    Raises:
        SettingsError: the tokenizer has no chat template.
    """
    if templates.chat and engine.encode_chat("a") == engine.encode_prompt("a"):
        raise SettingsError(
            f"{path}: its tokenizer has no chat template; take its templates = 'general', or an instruct model"
        )


class Engine(Protocol):
    """Samples, trains K updates at once, and answers with K members; the base's tensors never change."""

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

    def mount(self, adapter: Adapter | None) -> None:
        """Put one adapter beside the base for everything that follows (None: the bare base). Banks come on top."""
        ...

    def load_adapter(self, directory: Path) -> Adapter:
        """An adapter that was saved, checked against this base."""
        ...

    def merge(self, adapter: Adapter, directory: Path) -> None:
        """Write base and adapter (not the mounted one) as a new base, a Hugging Face directory with its parents' hashes."""
        ...

    def combine(
        self, adapters: Sequence[Adapter], weights: Sequence[float] | None = None, *, keep: float | None = None
    ) -> Adapter:
        """One adapter that changes the base by the weighted sum of what ``adapters`` do (weights: 1 each), exactly.

        ``keep``: by TIES instead, of each adapter the ``keep`` largest share of its entries.
        """
        ...

    def apart(self, adapter: Adapter, others: Sequence[Adapter]) -> Adapter:
        """The adapter without what it reads of the inputs that ``others`` read (orthogonal subspaces)."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a text that starts a document (with the tokenizer's own special tokens)."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that continues one; special tokens spelled out in it are plain text."""
        ...

    def encode_chat(self, prompt: str) -> list[int]:
        """Token ids of a user's turn in the model's chat template; without a template, those of `encode_prompt`."""
        ...

    def sample(
        self, prompts: Sequence[Ids], seeds: Sequence[int], *, max_new_tokens: int, temperature: float, top_p: float
    ) -> list[Completion]:
        """One completion a prompt; a row's text depends on its prompt and seed alone, not on its neighbours."""
        ...

    def check(self, update: Update, init: Adapter | None = None, *, targets: str | None = None) -> str | None:
        """Why `fit` would refuse this update ("field: reason"), or None: lets a caller mark it invalid instead."""
        ...

    def fit(
        self,
        updates: Sequence[Update],
        init: Adapter | None = None,
        *,
        targets: str | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> AdapterBank:
        """Train every update from its own seed's initial adapter (or ``init``); members never see each other.

        ``targets``: the modules to adapt, where they are not the engine's own.
        """
        ...

    def training(
        self, updates: Sequence[Update], init: Adapter | None = None, *, targets: str | None = None
    ) -> Training:
        """The updates of a `fit`, not begun yet, for a caller that wants to stop on the way."""
        ...

    def limit_members(self, members: int, tell: Callable[[int, str], None] | None = None) -> None:
        """Train at most so many members at once from now on.

        Where memory runs out in `fit` or a `Training`, the engine halves their number for good, calls ``tell(members, reason)``
        and trains all updates of that call again; its numbers are those of one number of members, whatever happened before.
        Single members that trained beside each other, on threads of their own, train one after another first (told as 1).
        """
        ...

    def initial_adapter(self, *, rank: int, alpha: float, seed: int, targets: str | None = None) -> Adapter:
        """Where training starts from: A random, B zero, so that it changes nothing yet."""
        ...

    def bank(self, adapters: Sequence[Adapter], *, targets: str | None = None) -> AdapterBank:
        """Adapters kept elsewhere, as a bank to ask or to train further; ``targets`` as in `fit`."""
        ...

    def states(self, bank: AdapterBank | None, sequences: Sequence[Sequence[TrainSequence]]) -> States:
        """One forward of ``sequences[k]`` under member k: log-probabilities with gradients, for losses of any kind."""
        ...

    def answer(
        self, bank: AdapterBank | None, prompts: Sequence[Sequence[Ids]], *, max_new_tokens: int
    ) -> list[list[str]]:
        """Greedy answers: ``prompts[k]`` to member k of the bank (without a bank: every row to the mounted model)."""
        ...

    def score(self, bank: AdapterBank | None, pairs: Sequence[Sequence[tuple[Ids, Ids]]]) -> Sequence[Sequence[Scored]]:
        """Log-probabilities of completions: ``pairs[k]`` are (prompt ids, completion ids) for member k."""
        ...

    def sequence_loss(self, sequences: Sequence[TrainSequence]) -> list[float]:
        """Mean loss per target token of each sequence under the mounted model (perplexity is exp of it)."""
        ...

    def token_kl(self, sequences: Sequence[TrainSequence]) -> float:
        """Mean KL(mounted model || bare base) per target token, in nats: how far a policy moved on these texts."""
        ...

    def norm_ratio(self, adapter: Adapter) -> float:
        """The largest ``||dW||_F / ||W||_F`` over the adapter's modules: how far it moves the base."""
        ...

    def base_sha256(self) -> str:
        """Hash of the base's live tensors."""
        ...
