"""The nouns every room shares (frozen; no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

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
    """What a model sampled after a prompt. ``logprobs`` are those of the sampling distribution, one a token.

    ``finished`` is False where the token limit cut the text off; ``token_ids`` ends with EOS when it is True.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finished: bool


@dataclass(frozen=True)
class Edit:
    """A self-edit: what the policy generated for a task, and how. ``problem`` says why nothing could be generated.

    ``further`` are more samples: the edit is all of them (`EditSettings.samples`). Where they answer prompts of several forms,
    ``form`` names each form once ("implications+self_qa") and ``prompt`` is the first sample's; each sample has its own ids.
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

    @property
    def completions(self) -> tuple[Completion, ...]:
        """All samples."""
        return (self.completion, *self.further)

    @property
    def finished(self) -> bool:
        """No sample was cut off at the token limit."""
        return all(completion.finished for completion in self.completions)

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

    The last ``padding`` tokens are seen by no token, themselves included: padding, which may count in the loss all the same.
    ``distilled``: where above 0, what counts is not cross-entropy but this times KL(bare base || model) at each target.
    """

    ids: tuple[int, ...]
    mask: tuple[bool, ...]
    padding: int = 0
    distilled: float = 0.0

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


Status = Literal["ok", "invalid", "diverged", "ungraded"]


@dataclass(frozen=True)
class Answer:
    """One probe answered by one model. ``logprob`` is the gold answer's mean log-likelihood per token (nats).

    Where ``problem`` is not empty it says why the answer could not be graded, and ``correct`` means nothing.
    """

    question: str
    gold: str
    text: str
    correct: bool
    logprob: float
    kind: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Outcome:
    """One (edit, seed): the answers of the edited model, the gain over the un-edited one, and what it cost.

    ``reward`` and ``gain`` are None where the status is not ``ok``: a failure is not a zero.
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
