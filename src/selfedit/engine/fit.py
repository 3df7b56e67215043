"""K inner loops at once on one frozen base (SEAL, arXiv 2506.10943, section 3: there one self-edit after another).

A member's loss in a step is the sum of the cross-entropy over the target tokens of its minibatch, divided by their
number. The members' losses are added, so a member's gradient is the one it has alone; clip and AdamW are per member.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adamw import adamw

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

    def train(body: Body, chains: Sequence[Sequence[int]]) -> Steps:
        cohort = Cohort(body, bank, chains, updates, init)
        with Beside(body.model, shared, [t.path for t in layout.targets]) as place:
            while cohort.active:
                progress.add(cohort.step(place))
                yield

    on_workers(bodies, cohorts(updates, members_at_once), train)
    return bank


def cohorts(updates: Sequence[Update], members_at_once: int) -> list[list[list[int]]]:
    """Which updates train together: cohorts of at most ``members_at_once`` slots, each slot a chain of updates that refill it.

    Most steps first: a cohort lasts as long as its first slot, and short updates follow each other in the slots beside it.
    Then by size: every slot gets the rows that the largest one needs, the rest is padding.
    """
    left = sorted(range(len(updates)), key=lambda k: (-updates[k].steps, -tokens_per_step(updates[k])))
    out: list[list[list[int]]] = []
    while left:
        length = updates[left[0]].steps
        chains: list[list[int]] = []
        room: list[int] = []
        later: list[int] = []
        for k in left:
            at = next((c for c, free in enumerate(room) if free >= updates[k].steps), None)
            if at is None and len(chains) == members_at_once:
                later.append(k)
                continue
            if at is None:
                at = len(chains)
                chains.append([])
                room.append(length)
            chains[at].append(k)
            room[at] -= updates[k].steps
        out.append(sorted(chains, key=lambda chain: -sum(updates[k].steps for k in chain)))
        left = later
    return out


class _Progress:
    """Optimiser steps counted over all cohorts."""

    def __init__(self, total: int, on_step: OnStep | None) -> None:
        self._total, self._on_step, self._done, self._lock = total, on_step, 0, Lock()

    def add(self, steps: int) -> None:
        with self._lock:
            self._done += steps
            if self._on_step is not None:
                self._on_step(self._done, self._total)


@dataclass
class _Slot:
    """One row of a cohort: the update that trains in it, its next step, and those that will follow."""

    member: int
    update: Update
    order: list[list[int]]
    following: deque[int]
    step: int = 0


class Cohort:
    """The members that train together. ``rows`` (K, width) are their fp32 weights; ``grads``, ``first`` and ``second`` the
    gradients and AdamW's moments beside them.

    The modules see views of the rows in the base's dtype and write their gradients into views of ``grads``. A member that
    diverged stays in the batch as a zero row: the others' shapes, and so their bits, don't depend on it.
    """

    def __init__(
        self,
        body: Body,
        bank: Bank,
        chains: Sequence[Sequence[int]],
        updates: Sequence[Update],
        init: LoraAdapter | None,
    ) -> None:
        self._body, self._bank, self._updates, self._init = body, bank, updates, init
        self.rows = torch.zeros(len(chains), bank.layout.width, device=body.device)
        self.grads, self.first, self.second = (torch.zeros_like(self.rows) for _ in range(3))
        self._work = self.rows if body.dtype == torch.float32 else self.rows.to(body.dtype)
        self._counts = [torch.zeros((), device=body.device) for _ in chains]
        self._scale = torch.zeros(len(chains), device=body.device)
        self._slots = [self._seat(row, deque(chain)) for row, chain in enumerate(chains)]
        self._bound = 0

    @property
    def active(self) -> int:
        """Slots that still train."""
        return len(self._slots)

    def step(self, place: Beside) -> int:
        """One optimiser step of every slot's member; returns how many there were. A finished one goes into the bank."""
        active = len(self._slots)
        if active != self._bound:
            self._bind(active, place)
        batches = [[slot.update.sequences[i] for i in slot.order[slot.step]] for slot in self._slots]
        losses = self._backward(pack(batches, self._body.half_cost, self._body.device), place)
        norms = torch.linalg.vector_norm(self.grads[:active], dim=1)
        self._settle(losses, norms.tolist(), batches)
        self._optimise(norms)
        for row, slot in enumerate(self._slots):
            slot.step += 1
            if slot.step == slot.update.steps:
                self._finish(row, slot)
                if slot.following:
                    self._slots[row] = self._seat(row, slot.following)
        # Chains are in the order of their lengths: those still training are always the first rows.
        self._slots = [slot for slot in self._slots if slot.step < slot.update.steps]
        return active

    def _seat(self, row: int, chain: deque[int]) -> _Slot:
        """Let the chain's next update begin in this row."""
        member = chain.popleft()
        update = self._updates[member]
        start = self._init or initial_adapter(self._bank.layout, update.rank, update.alpha, update.seed)
        self.rows[row] = self._bank.layout.row(start).to(self.rows.device)
        self._work[row] = self.rows[row]
        for tensor in (self.first[row], self.second[row], self._counts[row]):
            tensor.zero_()
        self._scale[row] = update.alpha / update.rank
        self._bound = 0  # the scale has changed
        return _Slot(member, update, minibatches(update), chain)

    def _finish(self, row: int, slot: _Slot) -> None:
        """Put a trained row into the bank; one whose weights overflowed counts as diverged."""
        if not math.isfinite(float(torch.linalg.vector_norm(self.rows[row]))):
            self._stop(row, f"weights not finite after step {slot.step}")
        self._bank.flat[slot.member] = self.rows[row]

    def _bind(self, active: int, place: Beside) -> None:
        self._bound = active
        views = self._bank.layout.views
        place.bind(views(self._work[:active]), self._scale[:active], views(self.grads[:active]))

    def _backward(self, packed: Packed, place: Beside) -> list[float]:
        """Each member's loss; the gradients are in ``grads`` afterwards."""
        logits = self._body.logits(self._body.packed_hidden(packed))
        each = F.cross_entropy(logits, packed.targets, reduction="none")
        # Split, not a weighted product: 0 * NaN would carry a member's NaN to the others.
        losses = torch.stack([part.mean() for part in torch.split(each, packed.member_counts)])
        losses.sum().backward()  # type: ignore[no-untyped-call]
        place.settle_gradients()
        return losses.tolist()  # type: ignore[no-any-return]

    def _settle(self, losses: list[float], norms: list[float], batches: list[list[TrainSequence]]) -> None:
        """Write down the step; stop the members whose loss or gradient is not finite."""
        for row, (slot, loss, norm, batch) in enumerate(zip(self._slots, losses, norms, batches, strict=True)):
            if slot.member in self._bank.failed:
                continue
            self._bank.losses[slot.member].append(loss)
            self._bank.trained_tokens[slot.member] += sum(len(s.ids) for s in batch)
            if not math.isfinite(loss) or not math.isfinite(norm):
                what = "gradient" if math.isfinite(loss) else "loss"
                self._stop(row, f"{what} not finite at step {slot.step + 1}")

    def _stop(self, row: int, reason: str) -> None:
        self._bank.failed[self._slots[row].member] = reason
        for tensor in (self.rows, self._work):
            tensor[row] = 0.0

    @torch.no_grad()
    def _optimise(self, norms: Tensor) -> None:
        """Clip and AdamW, in one pass over each row that is alive."""
        for row, slot in enumerate(self._slots):
            if slot.member in self._bank.failed:
                continue
            adamw(
                [self.rows[row]],
                [self.grads[row]],
                [self.first[row]],
                [self.second[row]],
                [],
                [self._counts[row]],
                fused=True,
                # Gradients are divided by this: torch.nn.utils.clip_grad_norm_'s arithmetic.
                grad_scale=((norms[row] + 1e-6) / slot.update.max_grad_norm).clamp(min=1.0),
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=lr_at(slot.update, slot.step),
                weight_decay=slot.update.weight_decay,
                eps=1e-8,
                maximize=False,
            )
        if self._work is not self.rows:
            self._work[: len(self._slots)] = self.rows[: len(self._slots)]
