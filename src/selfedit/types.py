"""The nouns every room shares (frozen; no torch)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

OWN = "own"


@dataclass(frozen=True)
class Probe:
    """One question with its gold answer, asked WITHOUT the task's context.

    ``kind`` groups probes in reports (the world has direct, reworded, reversed and derived ones). Probes of the kind ``own``
    were written by the model: what an edit says of them word for word is not trained on. ``also`` holds further answers that
    count as right.
    """

    question: str
    answer: str
    kind: str = ""
    also: tuple[str, ...] = ()

    @property
    def golds(self) -> tuple[str, ...]:
        """Every answer that counts as right, the main one first."""
        return (self.answer, *self.also)


@dataclass(frozen=True)
class Task:
    """A context and how to test that it was learned (SEAL's (C, tau)).

    ``context`` is a tuple of parts, text for now. ``gold_edit`` is a known-good self-edit where the source has one (the
    world's templates, edits written by another model); it feeds the rung ``perfect_edits``.
    """

    id: str
    title: str
    context: tuple[str, ...]
    probes: tuple[Probe, ...]
    gold_edit: str = ""
    family: str = ""

    @property
    def held_out(self) -> tuple[str, ...]:
        """Questions that no edit may teach: those that the model wrote itself."""
        return tuple(probe.question for probe in self.probes if probe.kind == OWN)

    @property
    def text(self) -> str:
        """The context's parts, joined by blank lines."""
        return "\n\n".join(self.context)


@dataclass(frozen=True)
class Completion:
    """What a model sampled after a prompt. ``logprobs`` are those of the sampling distribution, one per token.

    ``finished`` is False where the token limit cut the text off; a free text's ``token_ids`` then end without EOS.
    ``allowed``: of a constrained choice, the tokens that each token was chosen from (a forced one from itself alone);
    empty for a free text, each token of which comes from the whole vocabulary.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finished: bool
    allowed: tuple[tuple[int, ...], ...] = ()

    @property
    def chosen(self) -> tuple[bool, ...]:
        """For each token, whether there was a choice: what a policy learns from."""
        return tuple(len(some) > 1 for some in self.allowed) or (True,) * len(self.token_ids)


@dataclass(frozen=True)
class Scored:
    """A completion under teacher forcing: log p of each token (nats), and whether each is the arg-max, so that greedy decoding
    would have written exactly this.
    """

    logprobs: tuple[float, ...]
    greedy: bool


@dataclass(frozen=True)
class Edit:
    """A self-edit: what the policy generated for a task, and how. ``problem`` says why nothing could be generated.

    ``kind`` is the plug-in that wrote it and says what it does to weights. ``completion`` is what a policy gradient learns
    from; ``further`` are more samples: the edit is all of them (of the kind `text`, `EditSettings.samples`; of the kind
    `directives`, the texts that the directive asks for). Where they answer prompts of several forms, ``form`` names each form
    once ("implications+self_qa") and ``prompt`` is the first sample's; each sample has its own ids. ``note`` says what was
    changed to keep the run's limits.
    """

    task_id: str
    index: int
    form: str  # name of the prompt template
    prompt: str
    completion: Completion
    temperature: float
    top_p: float
    seed: int
    policy_hash: str
    problem: str = ""
    further: tuple[Completion, ...] = ()
    kind: str = "text"
    note: str = ""

    @property
    def completions(self) -> tuple[Completion, ...]:
        """All samples."""
        return (self.completion, *self.further)

    @property
    def id(self) -> str:
        """Unique within a round."""
        return f"{self.task_id}#{self.index}"

    @property
    def text(self) -> str:
        """The edit as text."""
        return "\n".join(completion.text for completion in self.completions)


@dataclass(frozen=True)
class TrainSequence:
    """One training sequence: ``ids`` (T) and, for each token, whether predicting it counts in the loss.

    The last ``padding`` tokens are seen by no token, themselves included: padding, which may still count in the loss.
    ``distilled``: where above 0, what counts is not cross-entropy but this times KL(bare base || model) at each target.
    ``allowed``: for each token the tokens that it was chosen from, where it was a constrained choice; empty: the vocabulary.
    """

    ids: tuple[int, ...]
    mask: tuple[bool, ...]
    padding: int = 0
    distilled: float = 0.0
    allowed: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def whole(cls, ids: Sequence[int]) -> TrainSequence:
        """A text of at least one token, every token of which but the first is predicted."""
        return cls(tuple(ids), (False,) + (True,) * (len(ids) - 1))

    @property
    def n_targets(self) -> int:
        """Tokens that count in the loss (the first token is never predicted)."""
        return sum(self.mask[1:])

    @property
    def unpadded(self) -> TrainSequence:
        """The sequence without its padding."""
        n = len(self.ids) - self.padding
        return replace(self, ids=self.ids[:n], mask=self.mask[:n], padding=0) if self.padding else self


@dataclass(frozen=True)
class Update:
    """What the inner loop trains one member on. ``steps`` optimiser steps, each on ``batch_size`` sequences.

    Sequences are visited in epochs, each a seeded shuffle; a step whose epoch has fewer left takes what is left, as a
    DataLoader does. AdamW (0.9, 0.999, eps 1e-8), gradients clipped at ``max_grad_norm``, lr constant or decaying linearly to 0.
    ``targets``: the modules to adapt, as in ``model.targets``; empty: the engine's own.
    """

    sequences: tuple[TrainSequence, ...]
    steps: int
    batch_size: int
    lr: float
    rank: int
    alpha: float
    seed: int
    schedule: Literal["linear", "constant"] = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    targets: str = ""


class Adapter(Protocol):
    """One LoRA, detached from any bank: what a policy is, what is exported, what an edit may bring."""

    @property
    def sha256(self) -> str:
        """Hash of its tensors, names, rank and alpha."""
        ...

    def save(self, directory: Path) -> None:
        """Write a PEFT adapter directory that ``PeftModel.from_pretrained`` loads.

        Raises:
            ModelError: a model lies there.
        """
        ...


@dataclass(frozen=True)
class Recipe:
    """How an update trains: the run's default (`InnerSettings.recipe`), or an edit's own, clamped to the run's limits.

    ``epochs`` (where above 0) count passes over the sequences, in place of ``steps``. ``targets``: the modules to adapt; empty
    for the engine's own.
    """

    steps: int
    epochs: int
    batch_size: int
    lr: float
    rank: int
    alpha: float
    schedule: Literal["linear", "constant"] = "linear"
    targets: str = ""

    def steps_for(self, n_sequences: int) -> int:
        """Optimiser steps on so many training sequences."""
        return self.epochs * -(-n_sequences // self.batch_size) if self.epochs else self.steps

    def update(self, sequences: Sequence[TrainSequence], seed: int = 0) -> Update:
        """The update that trains on these sequences."""
        return Update(
            sequences=tuple(sequences),
            steps=self.steps_for(len(sequences)),
            batch_size=self.batch_size,
            lr=self.lr,
            rank=self.rank,
            alpha=self.alpha,
            seed=seed,
            schedule=self.schedule,
            targets=self.targets,
        )


@dataclass(frozen=True)
class Change:
    """What an edit does to weights: an update to train, an adapter to take, or neither, and why: it is ``invalid``.

    ``lines`` is what the edit says, line by line; ``held_out`` counts lines that were left out as they say one of the task's
    own probes. An update's seed is set where it is tried.
    """

    what: Update | Adapter | None
    invalid: str = ""
    lines: tuple[str, ...] = ()
    held_out: int = 0

    @property
    def update(self) -> Update | None:
        """The update, where there is one to train."""
        return self.what if isinstance(self.what, Update) else None

    @property
    def sequences(self) -> tuple[TrainSequence, ...]:
        """The sequences of its update; none where there is none."""
        return self.update.sequences if self.update else ()

    def seeded(self, seed: int) -> Update | Adapter | None:
        """What it does, with the update's seed set."""
        return replace(self.what, seed=seed) if isinstance(self.what, Update) else self.what


Status = Literal["ok", "invalid", "diverged", "ungraded"]


@dataclass(frozen=True)
class Answer:
    """One probe answered by one model. ``logprob`` is the gold answer's mean log-likelihood per token (nats), ``probability``
    its exponential.

    Where ``problem`` is not empty it says why the answer could not be graded, and ``correct`` means nothing.
    """

    question: str
    gold: str
    text: str
    correct: bool
    logprob: float
    kind: str = ""
    problem: str = ""

    @property
    def probability(self) -> float:
        """The geometric mean of the gold answer's token probabilities (0..1)."""
        return math.exp(self.logprob)


@dataclass(frozen=True)
class Outcome:
    """One (edit, seed): the answers of the edited model, the gain over the un-edited one, and what it cost.

    ``reward`` and ``gain`` are None where the status is not ``ok``: a failure is not a zero. ``logprob`` and ``probability``
    are gains, too, of the gold answers' log-likelihood (nats per token) and probability (per token, 0..1).
    """

    edit_id: str
    seed: int
    status: Status
    reason: str
    answers: tuple[Answer, ...]
    reward: float | None
    gain: float | None
    logprob: float | None
    trained_tokens: int
    adapter_sha256: str
    probability: float | None = None
