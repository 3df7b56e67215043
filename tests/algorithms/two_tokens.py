"""A policy with as many parameters as actions: a completion of one token, its logits the adapter's own numbers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfedit.algorithms.base import RatedEdit
from selfedit.engine.model.nucleus import fixed_point, keep_nucleus
from selfedit.types import Completion, Edit, TrainSequence

PROMPT = (7,)


@dataclass(frozen=True)
class Logits:
    """An "adapter": the logits of the actions, whatever the prompt."""

    values: tuple[float, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(repr(self.values).encode()).hexdigest()

    def save(self, directory: Path) -> None:
        raise NotImplementedError


class Bank:
    def __init__(self, logits: Logits) -> None:
        self.flat = torch.tensor([logits.values])

    def parameters(self) -> list[Tensor]:
        return [self.flat.requires_grad_()]

    def adapter(self, member: int) -> Logits:
        return Logits(tuple(self.flat[member].tolist()))


class States:
    """``hidden`` (M, 2) is constant."""

    def __init__(self, rows: Tensor, targets: list[int], counts: list[int]) -> None:
        self.rows, self.targets, self.counts = rows, torch.tensor(targets), counts
        self.hidden = torch.ones(len(targets), 2)

    def logprobs(self, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
        logits = self.rows / temperature
        if top_p < 1:
            weights = fixed_point(self.rows.detach(), temperature)
            keep_nucleus(weights, top_p)
            logits = logits.masked_fill((weights == 0).scatter(-1, self.targets[:, None], False), -torch.inf)
        return torch.log_softmax(logits, -1).gather(-1, self.targets[:, None])[:, 0]

    def entropies(self, temperature: float = 1.0) -> Tensor:
        logp = torch.log_softmax(self.rows / temperature, -1)
        return -(logp.exp() * logp).sum(-1)

    def split(self, values: Tensor) -> list[list[Tensor]]:
        return [list(torch.split(values, self.counts))]


class ActionEngine:
    """As much of an engine as an algorithm uses. ``base``: the logits without an adapter."""

    tokens_at_once = 8192

    def __init__(self, base: Sequence[float]) -> None:
        self.base = Logits(tuple(base))
        self.forwards = 0

    def initial_adapter(self, **_: object) -> Logits:
        return self.base

    def bank(self, adapters: Sequence[Any], **_: object) -> Bank:
        return Bank(adapters[0])

    def states(self, sequences: Sequence[Sequence[TrainSequence]], *, on: object, members: Any = None) -> States:
        assert on is None
        self.forwards += 1
        (some,) = sequences
        targets = [t for s in some for t, wanted in zip(s.ids, s.mask, strict=True) if wanted]
        flat = torch.tensor([self.base.values]) if members is None else members.flat
        return States(flat.expand(len(targets), -1), targets, [s.n_targets for s in some])


def action(
    policy: Logits | None,
    engine: ActionEngine,
    token: int | Sequence[int],
    reward: float | None,
    task: str = "t",
    index: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    **more: Any,
) -> RatedEdit:
    """One rated edit: the action taken, with the log-probabilities that it was sampled with."""
    tokens = (token,) if isinstance(token, int) else tuple(token)
    rows = torch.tensor([(policy or engine.base).values]).expand(len(tokens), -1)
    logprobs = States(rows, list(tokens), [len(tokens)]).logprobs(temperature, top_p)
    edit = Edit(
        task_id=task,
        index=index,
        form="implications",
        prompt="",
        completion=Completion(PROMPT, tokens, tuple(logprobs.tolist()), "", True),
        temperature=temperature,
        top_p=top_p,
        seed=0,
        policy_hash="base" if policy is None else policy.sha256,
    )
    return RatedEdit(edit, reward, reward, reward, **more)


def play(
    policy: Logits | None, engine: ActionEngine, worth: Sequence[float], rng: random.Random, tasks: int, k: int
) -> list[RatedEdit]:
    """A round on a bandit: k actions for each task, sampled from the policy; each is worth its arm's mean and some noise."""
    p = torch.softmax(torch.tensor((policy or engine.base).values), -1).tolist()
    return [
        action(policy, engine, (arm := rng.choices(range(len(p)), p)[0]), rng.gauss(worth[arm], 0.3), f"t{t}", i)
        for t in range(tasks)
        for i in range(k)
    ]
