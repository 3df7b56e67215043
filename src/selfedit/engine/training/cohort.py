"""Members of a bank that train together: one forward, backward and optimiser step for all of them.

A member's loss in a step is the sum of the cross-entropy (of distilled sequences: KL) over the target tokens of its minibatch,
divided by their number. The members' losses are added, so a member's gradient is the one it has alone; clip and AdamW are per
member.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from ...types import TrainSequence, Update
from ..adapters.adapter_context import AdapterContext
from ..adapters.lora import Bank, LoraAdapter, initial_adapter
from ..model.body import Body
from ..model.packing import Packed, parts_of
from .upper import Upper

_SHUFFLES = 8  # packed positions per token on the world's self-edits: 1.23 with one, 1.17 with 8, 1.16 with 32
_BARE_TOKENS = 8192  # through the bare base at once


def minibatches(update: Update) -> list[list[int]]:
    """The sequences of each step: shuffled epochs in as few pieces as ``batch_size`` allows, all of about the same size.

    Members train side by side, and a step costs each of them what the largest minibatch among them costs. So an epoch takes,
    of a few shuffles seeded by the update alone, the one whose largest piece has the fewest tokens.
    """
    rng = random.Random(f"order/{update.seed}")
    n = len(update.sequences)
    cuts = [n * i // pieces_of(update) for i in range(pieces_of(update) + 1)]
    out: list[list[int]] = []
    while len(out) < update.steps:
        shuffles = [rng.sample(range(n), n) for _ in range(_SHUFFLES)]
        epochs = [[order[a:b] for a, b in pairwise(cuts)] for order in shuffles]
        out += min(epochs, key=lambda pieces: max(sum(len(update.sequences[i].ids) for i in p) for p in pieces))
    return out[: update.steps]


def pieces_of(update: Update) -> int:
    """Steps of an epoch."""
    return -(-len(update.sequences) // update.batch_size)


def lr_at(update: Update, step: int) -> float:
    """The learning rate of a step (from 0): constant, or falling linearly to 0 after the last."""
    return update.lr * (1.0 if update.schedule == "constant" else (update.steps - step) / update.steps)


@dataclass
class Member:
    """One update on its way: the steps it has made, the step to stop at, and its row, moments and count where it paused."""

    number: int
    update: Update
    stop: int
    step: int = 0
    paused: tuple[Tensor, ...] = ()

    @property
    def left(self) -> int:
        """Steps to make."""
        return self.stop - self.step

    @cached_property
    def order(self) -> list[list[int]]:
        """Sequences of each step."""
        return minibatches(self.update)


class Cohort:
    """The members that train together. ``rows`` (K, width) are their fp32 weights; ``grads``, ``first`` and ``second`` the
    gradients and AdamW's moments beside them. Each row is a slot that a chain of members refills, the longest chain first.

    The modules see views of the rows in the base's dtype and write their gradients into views of ``grads``. A member that
    diverged stays in the batch as a zero row: the others' shapes, and so their bits, don't depend on it.
    """

    def __init__(
        self,
        body: Body,
        bank: Bank,
        chains: Sequence[Sequence[Member]],
        init: LoraAdapter | None,
        first_layer: int = 0,
        tokens: float = math.inf,
    ) -> None:
        """To be made while nothing is beside the base. ``first_layer``: layers below it are adapted by nobody, and what they
        give is reused (`upper.first_adapted`). ``tokens``: the most in one forward, unless a single sequence has more.
        """
        self._body, self._bank, self._init, self._tokens = body, bank, init, tokens
        self._upper = Upper(body, first_layer) if first_layer else None
        self._lower: dict[int, dict[TrainSequence, Tensor]] = {}
        self._known = references(body, [s for chain in chains for member in chain for s in member.update.sequences])
        self.rows = torch.zeros(len(chains), bank.layout.width, device=body.device)
        self.grads, self.first, self.second = (torch.zeros_like(self.rows) for _ in range(3))
        self._work = self.rows if body.dtype == torch.float32 else self.rows.to(body.dtype)
        self._counts = torch.zeros(len(chains), device=body.device)  # of steps, as AdamW takes them
        self._scale = torch.zeros(len(chains), device=body.device)
        self._following = [deque(chain) for chain in chains]
        self.slots = [self._seat(row) for row in range(len(chains))]
        self._bound = range(0)

    @property
    def active(self) -> int:
        """Slots that still train."""
        return len(self.slots)

    def step(self, place: AdapterContext) -> None:
        """One optimiser step of every slot's member. One that is done goes into the bank."""
        active = len(self.slots)
        batches = [[m.update.sequences[i] for i in m.order[m.step]] for m in self.slots]
        losses = self._backward(batches, place)
        norms = torch.linalg.vector_norm(self.grads[:active], dim=1)
        self._settle(losses, norms.tolist(), batches)
        self._optimise(norms)
        for row, member in enumerate(self.slots):
            member.step += 1
            if not member.left:
                self._finish(row, member)
                if self._following[row]:
                    self.slots[row] = self._seat(row)
        # Chains are in the order of their lengths: those still training are always the first rows.
        self.slots = [member for member in self.slots if member.left]

    def _seat(self, row: int) -> Member:
        """Let the chain's next member begin, or go on, in this row."""
        member = self._following[row].popleft()
        state = [self.rows[row], self.first[row], self.second[row], self._counts[row]]
        if member.paused:
            for tensor, kept in zip(state, member.paused, strict=True):
                tensor.copy_(kept)
            member.paused = ()
        else:
            update = member.update
            start = self._init or initial_adapter(self._bank.layout, update.rank, update.alpha, update.seed)
            for tensor in state:
                tensor.zero_()
            state[0].copy_(self._bank.layout.row(start))
        self._work[row] = self.rows[row]
        self._scale[row] = member.update.alpha / member.update.rank
        self._bound = range(0)  # the scale has changed
        return member

    def _finish(self, row: int, member: Member) -> None:
        """Put a row into the bank, and keep what it needs to go on; one whose weights overflowed counts as diverged."""
        if not math.isfinite(float(torch.linalg.vector_norm(self.rows[row]))):
            self._stop(row, f"weights not finite after step {member.step}")
        self._lower.pop(member.number, None)
        self._bank.flat[member.number] = self.rows[row]
        if member.step < member.update.steps:
            state = (self.rows[row], self.first[row], self.second[row], self._counts[row])
            member.paused = tuple(tensor.clone() for tensor in state)

    def _bind(self, members: range, place: AdapterContext) -> None:
        """The adapters of these slots for the next forwards."""
        if members != self._bound:
            self._bound, views, rows = members, self._bank.layout.views, slice(members.start, members.stop)
            place.bind(views(self._work[rows]), self._scale[rows], views(self.grads[rows]))

    def _hidden(self, packed: Packed, members: range, batches: list[list[TrainSequence]]) -> Tensor:
        """Hidden states (M, D) at the sources of packed sequences of each of these slots."""
        if self._upper is None:
            return self._body.packed_hidden(packed)
        slots = [self.slots[row] for row in members]
        for member in slots:
            if member.number not in self._lower:
                once = list(dict.fromkeys(member.update.sequences))  # replayed ones come several times
                self._lower[member.number] = dict(zip(once, self._upper.lower(once), strict=True))
        lower = [[self._lower[m.number][s] for s in batch] for m, batch in zip(slots, batches, strict=True)]
        return self._upper.hidden(packed, lower)

    def _backward(self, batches: list[list[TrainSequence]], place: AdapterContext) -> list[float]:
        """Each member's loss; the gradients are in ``grads`` afterwards.

        One forward for all of them; several, for some members each or for parts of one member's minibatch, where it would have
        too many tokens.
        """
        found: list[float] = []
        for members in forwards_of([sum(len(s.ids) for s in batch) for batch in batches], self._tokens):
            self._bind(members, place)
            mine = batches[members.start : members.stop]
            n_targets, total = [sum(s.n_targets for s in batch) for batch in mine], [0.0] * len(mine)
            for forward in [[part] for part in parts_of(mine[0], self._tokens)] if len(mine) == 1 else [mine]:
                packed = self._body.pack(forward)
                place.arrange(packed.spans)
                each = self._losses(self._hidden(packed, members, forward), packed, forward)
                # Split, not a weighted product: 0 * NaN would carry a member's NaN to the others.
                sums = zip(torch.split(each, packed.member_counts), n_targets, strict=True)
                losses = torch.stack([part.sum() / n for part, n in sums])
                losses.sum().backward()  # type: ignore[no-untyped-call]
                total = [a + b for a, b in zip(total, losses.tolist(), strict=True)]
            place.settle_gradients()
            found += total
        return found

    def _losses(self, hidden: Tensor, packed: Packed, batches: list[list[TrainSequence]]) -> Tensor:
        """What each target (M) of a packed batch counts in the loss, given the states (M, D) before them."""
        sequences, counts = list(chain(*batches)), list(chain(*packed.counts))
        if not any(sequence.distilled for sequence in sequences):
            return self._body.token_losses(hidden, packed.targets)
        weight = torch.tensor([sequence.distilled for sequence in sequences], device=hidden.device)
        weight = weight.repeat_interleave(torch.tensor(counts, device=hidden.device))
        hard, soft = (weight == 0).nonzero()[:, 0], weight.nonzero()[:, 0]
        theirs = torch.cat([self._known[sequence] for sequence in sequences if sequence.distilled])
        losses = weight[soft] * self._body.token_kl(hidden[soft], theirs)
        if not len(hard):
            return losses
        return (
            torch.zeros_like(weight)
            .index_copy(0, soft, losses)
            .index_copy(0, hard, self._body.token_losses(hidden[hard], packed.targets[hard]))
        )

    def _settle(self, losses: list[float], norms: list[float], batches: list[list[TrainSequence]]) -> None:
        """Write down the step; stop the members whose loss or gradient is not finite."""
        for row, (member, loss, norm, batch) in enumerate(zip(self.slots, losses, norms, batches, strict=True)):
            if member.number in self._bank.failed:
                continue
            self._bank.losses[member.number].append(loss)
            self._bank.trained_tokens[member.number] += sum(len(s.ids) for s in batch)
            if not math.isfinite(loss) or not math.isfinite(norm):
                what = "gradient" if math.isfinite(loss) else "loss"
                self._stop(row, f"{what} not finite at step {member.step + 1}")

    def _stop(self, row: int, reason: str) -> None:
        self._bank.failed[self.slots[row].number] = reason
        for tensor in (self.rows, self._work):
            tensor[row] = 0.0

    @torch.no_grad()
    def _optimise(self, norms: Tensor) -> None:
        """Clip and AdamW, in one pass over each row that is alive."""
        for row, member in enumerate(self.slots):
            if member.number in self._bank.failed:
                continue
            rows, grads, first, second, counts = (
                [tensor[row]] for tensor in (self.rows, self.grads, self.first, self.second, self._counts)
            )
            adamw(
                rows,
                grads,
                first,
                second,
                [],
                counts,
                fused=True,
                # Gradients are divided by this: torch.nn.utils.clip_grad_norm_'s arithmetic.
                grad_scale=((norms[row] + 1e-6) / member.update.max_grad_norm).clamp(min=1.0),
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=lr_at(member.update, member.step),
                weight_decay=member.update.weight_decay,
                eps=1e-8,
                maximize=False,
            )
        if self._work is not self.rows:
            self._work[: len(self.slots)] = self.rows[: len(self.slots)]


def forwards_of(tokens: Sequence[int], most: float) -> list[range]:
    """Which members, in their order, go through the model together: as many as have at most ``most`` tokens, or one."""
    found: list[range] = []
    begun = held = 0
    for row, n in enumerate(tokens):
        if row > begun and held + n > most:
            found.append(range(begun, row))
            begun, held = row, 0
        held += n
    return [*found, range(begun, len(tokens))]


@torch.no_grad()
def references(body: Body, sequences: Sequence[TrainSequence]) -> dict[TrainSequence, Tensor]:
    """The bare base's hidden states (M, D) before the M targets of each distilled sequence; nothing may be beside the base. What
    it says after each token is what they are trained towards, not the token that comes.

    States, as logits of every token would be as many numbers as the vocabulary has.
    """
    found: dict[TrainSequence, Tensor] = {}
    for part in parts_of(list(dict.fromkeys(s for s in sequences if s.distilled)), _BARE_TOKENS):
        packed = body.pack([part])
        found |= zip(part, torch.split(body.packed_hidden(packed), packed.counts[0]), strict=True)
    return found
