"""K inner loops at once on one frozen base (SEAL, arXiv 2506.10943, section 3: there one self-edit after another).

A member's loss in a step is the sum of the cross-entropy over the target tokens of its minibatch, divided by their
number. The members' losses are added, so a member's gradient is the one it has alone; clip and AdamW are per member.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from threading import Lock

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UpdateError
from ..types import TrainSequence, Update
from .beside import Beside, Views
from .body import Body
from .lora import Bank, Layout, LoraAdapter, initial_adapter
from .packing import Packed, pack
from .workers import Steps, on_workers

OnStep = Callable[[int, int], None]


def check(update: Update, body: Body, layout: Layout, init: LoraAdapter | None = None) -> str | None:
    """Why this update can't be trained on ("field: reason"), or None. Looks at everything before anything trains."""
    narrowest = min(t.d_in for t in layout.targets)

    def positive(name: str) -> bool:
        return math.isfinite(getattr(update, name)) and getattr(update, name) > 0

    rules = (
        ("sequences", bool(update.sequences), "there are none"),
        ("steps", update.steps >= 1, "less than 1"),
        ("batch_size", update.batch_size >= 1, "less than 1"),
        ("rank", 1 <= update.rank <= narrowest, f"not in 1..{narrowest} (the model's width)"),
        ("lr", positive("lr"), "not a finite number above 0"),
        ("alpha", positive("alpha"), "not a finite number above 0"),
        ("max_grad_norm", positive("max_grad_norm"), "not a finite number above 0"),
        ("weight_decay", math.isfinite(update.weight_decay) and update.weight_decay >= 0, "not a finite number >= 0"),
        ("schedule", update.schedule in ("linear", "constant"), "neither linear nor constant"),
        ("seed", 0 <= update.seed < 1 << 63, "not in 0..2**63-1"),
        ("rank", init is None or init.rank == update.rank, "not the initial adapter's rank"),
        ("alpha", init is None or init.alpha == update.alpha, "not the initial adapter's alpha"),
    )
    for name, fine, reason in rules:
        if not fine:
            return f"{name}: {reason}" if name == "sequences" else f"{name}: {getattr(update, name)!r} is {reason}"
    return check_sequences(update.sequences, body)


def check_sequences(sequences: Sequence[TrainSequence], body: Body) -> str | None:
    """Why one of these sequences can't be used, or None."""
    for i, sequence in enumerate(sequences):
        ids = sequence.ids
        rules = (
            (bool(ids), "it is empty"),
            (len(ids) == len(sequence.mask), f"{len(ids)} ids but {len(sequence.mask)} mask entries"),
            (len(ids) <= body.window, f"{len(ids)} tokens are more than the model's window of {body.window}"),
            (all(0 <= t < body.vocabulary for t in ids), f"an id is outside the vocabulary of {body.vocabulary}"),
            (sequence.n_targets > 0, "no target tokens (the first token is never predicted)"),
        )
        reason = next((reason for fine, reason in rules if not fine), None)
        if reason:
            return f"sequences[{i}]: {reason}"
    return None


def minibatches(update: Update) -> list[list[int]]:
    """The sequences of each step: epochs of a shuffle seeded by the update alone, in pieces of ``batch_size``."""
    rng = random.Random(f"order/{update.seed}")
    out: list[list[int]] = []
    while len(out) < update.steps:
        order = list(range(len(update.sequences)))
        rng.shuffle(order)
        out += [order[i : i + update.batch_size] for i in range(0, len(order), update.batch_size)]
    return out[: update.steps]


def tokens_per_step(update: Update) -> float:
    """Tokens of an average minibatch."""
    mean = sum(len(s.ids) for s in update.sequences) / len(update.sequences)
    return mean * min(update.batch_size, len(update.sequences))


def lr_at(update: Update, step: int) -> float:
    """The learning rate of a step (from 0): constant, or falling linearly to 0 after the last."""
    return update.lr * (1.0 if update.schedule == "constant" else (update.steps - step) / update.steps)


def fit(
    bodies: Sequence[Body],
    shared: Views,
    layout: Layout,
    updates: Sequence[Update],
    *,
    init: LoraAdapter | None,
    members_at_once: int,
    on_step: OnStep | None,
) -> Bank:
    """Train every update, in cohorts of ``members_at_once`` of about the same size; ``bodies`` (replicas of one model) take
    one cohort after another. Which members share a cohort, and so every number, depends on the updates alone.

    Raises:
        UpdateError: an update can't be trained on, or there are none; nothing was trained then.
    """
    if not updates:
        raise UpdateError("no updates to train on; give at least one")
    reasons = [f"member {k}: {r}" for k, u in enumerate(updates) if (r := check(u, bodies[0], layout, init))]
    if reasons:
        raise UpdateError("; ".join(reasons) + " (engine.check(update) tells beforehand)")
    layout = layout.with_rank(max(u.rank for u in updates))
    flat = torch.zeros(len(updates), layout.width, device=bodies[0].device)
    bank = Bank(layout, flat, [u.rank for u in updates], [u.alpha for u in updates])
    bank.trained_tokens, bank.losses = [0] * len(updates), [[] for _ in updates]
    progress = _Progress(sum(u.steps for u in updates), on_step)

    def train(body: Body, members: Sequence[int]) -> Steps:
        cohort = Cohort(body, bank, members, updates, init)
        with Beside(body.model, shared, [t.path for t in layout.targets]) as place:
            for step in range(updates[members[0]].steps):
                progress.add(cohort.step(step, place))
                yield
        cohort.finish()

    # Most steps first: the members still training are then always the first rows, and nothing needs to move. Then by size:
    # every member of a cohort gets the rows that its largest one needs, the rest is padding.
    order = sorted(range(len(updates)), key=lambda k: (-updates[k].steps, -tokens_per_step(updates[k])))
    on_workers(bodies, [order[i : i + members_at_once] for i in range(0, len(order), members_at_once)], train)
    return bank


class _Progress:
    """Optimiser steps counted over all cohorts."""

    def __init__(self, total: int, on_step: OnStep | None) -> None:
        self._total, self._on_step, self._done, self._lock = total, on_step, 0, Lock()

    def add(self, steps: int) -> None:
        with self._lock:
            self._done += steps
            if self._on_step is not None:
                self._on_step(self._done, self._total)


class Cohort:
    """The members that train together. ``rows`` (K, width) are their fp32 weights, ``grads`` the gradients beside them.

    The modules see views of the rows in the base's dtype; these are autograd's leaves, and their gradients are copied
    into ``grads``. A member that diverged stays in the batch as a zero row: the others' shapes, and so their bits,
    don't depend on it.
    """

    def __init__(
        self, body: Body, bank: Bank, members: Sequence[int], updates: Sequence[Update], init: LoraAdapter | None
    ) -> None:
        self._body, self._bank, self._members = body, bank, members
        self._updates = [updates[k] for k in members]
        self._orders = [minibatches(u) for u in self._updates]
        layout = bank.layout
        starts = [init or initial_adapter(layout, u.rank, u.alpha, u.seed) for u in self._updates]
        self.rows = torch.stack([layout.row(start) for start in starts]).to(body.device)
        self.grads = torch.zeros_like(self.rows)
        self._work = self.rows if body.dtype == torch.float32 else self.rows.to(body.dtype)
        self._leaves: Views = {}
        self._scale = bank.scale[torch.tensor(members, device=body.device)]
        parameters = [row.detach().requires_grad_() for row in self.rows]
        for parameter, grad in zip(parameters, self.grads, strict=True):
            parameter.grad = grad
        groups = [
            {"params": [p], "weight_decay": u.weight_decay} for p, u in zip(parameters, self._updates, strict=True)
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, fused=True)
        self._groups = list(self._optimizer.param_groups)
        self._bound = 0

    def step(self, step: int, place: Beside) -> int:
        """One optimiser step of every member that has one left; returns how many had."""
        active = sum(u.steps > step for u in self._updates)
        if active != self._bound:
            self._bind(active, place)
        batches = [
            [u.sequences[i] for i in order[step]]
            for u, order in zip(self._updates[:active], self._orders[:active], strict=True)
        ]
        packed = pack(batches, self._body.half_cost, self._body.device)
        grads = self.grads[:active]
        losses = self._backward(packed, grads)
        norms = torch.linalg.vector_norm(grads, dim=1)
        self._settle(step, losses, norms.tolist(), batches)
        limits = torch.tensor([u.max_grad_norm for u in self._updates[:active]], device=norms.device)
        # torch.nn.utils.clip_grad_norm_'s arithmetic, a row each.
        grads.mul_((limits / (norms + 1e-6)).clamp(max=1.0)[:, None])
        self._optimise(step, active)
        return active

    def finish(self) -> None:
        """Put the trained rows into the bank; one whose weights overflowed counts as diverged."""
        sizes = torch.linalg.vector_norm(self.rows, dim=1).tolist()
        for row, (member, size) in enumerate(zip(self._members, sizes, strict=True)):
            if not math.isfinite(size):
                self._stop(row, f"weights not finite after step {self._updates[row].steps}")
            self._bank.flat[member] = self.rows[row]

    def _bind(self, active: int, place: Beside) -> None:
        self._bound = active
        self._leaves = {
            path: (a.detach().requires_grad_(), b.detach().requires_grad_())
            for path, (a, b) in self._bank.layout.views(self._work[:active]).items()
        }
        place.bind(self._leaves, self._scale[:active])

    def _backward(self, packed: Packed, grads: Tensor) -> list[float]:
        """Each member's loss; the gradients are in ``grads`` (active, width) afterwards."""
        logits = self._body.logits(self._body.packed_hidden(packed))
        each = F.cross_entropy(logits, packed.targets, reduction="none")
        # Split, not a weighted product: 0 * NaN would carry a member's NaN to the others.
        losses = torch.stack([part.mean() for part in torch.split(each, packed.member_counts)])
        losses.sum().backward()  # type: ignore[no-untyped-call]
        for path, into in self._bank.layout.views(grads).items():
            for leaf, place in zip(self._leaves[path], into, strict=True):
                if leaf.grad is None:
                    place.zero_()  # a module that this model's forward does not use
                else:
                    place.copy_(leaf.grad)
                    leaf.grad = None
        return losses.tolist()  # type: ignore[no-any-return]

    def _settle(self, step: int, losses: list[float], norms: list[float], batches: list[list[TrainSequence]]) -> None:
        """Write down the step; stop the members whose loss or gradient is not finite."""
        for row, (loss, norm, batch) in enumerate(zip(losses, norms, batches, strict=True)):
            member = self._members[row]
            if member in self._bank.failed:
                continue
            self._bank.losses[member].append(loss)
            self._bank.trained_tokens[member] += sum(len(s.ids) for s in batch)
            if not math.isfinite(loss) or not math.isfinite(norm):
                self._stop(row, f"{'gradient' if math.isfinite(loss) else 'loss'} not finite at step {step + 1}")

    def _stop(self, row: int, reason: str) -> None:
        self._bank.failed[self._members[row]] = reason
        for tensor in (self.rows, self._work):
            tensor[row] = 0.0

    def _optimise(self, step: int, active: int) -> None:
        alive = [r for r in range(active) if self._members[r] not in self._bank.failed]
        for row in alive:
            self._groups[row]["lr"] = lr_at(self._updates[row], step)
        self._optimizer.param_groups = [self._groups[row] for row in alive]
        self._optimizer.step()
        if self._work is not self.rows:
            self._work[:active] = self.rows[:active]
