"""K inner loops at once on one frozen base (SEAL, arXiv 2506.10943, section 3: there one self-edit after another)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence, Sized
from dataclasses import replace
from typing import TypeVar

import torch

from ...errors import OutOfMemoryError, UpdateError
from ...types import Update
from ..adapters.adapter_context import AdapterContext, Views
from ..adapters.lora import Bank, Layout, LoraAdapter
from ..inference.score import token_logprobs
from ..model.body import Body
from ..model.body_pool import TURNS, BodyPool
from ..planning.memory import GIB, ran_out
from .cohort import Cohort, Member, pieces_of
from .upper import first_adapted
from .workers import MemberLimit, Steps, on_workers

Result = TypeVar("Result")
Piece = TypeVar("Piece", bound=Sized)


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
    return body.refuses(update.sequences)


def tokens_per_step(update: Update) -> float:
    """Tokens of an average minibatch."""
    return sum(len(s.ids) for s in update.sequences) / pieces_of(update)


class Training:
    """Updates that train step by step, in cohorts of as many members as ``limit`` allows (`base.Engine.limit_members`). They can
    pause, be looked at (``bank`` has their current weights) and go on, and some of them be dropped.
    """

    def __init__(
        self,
        body: Body,
        pool: BodyPool,
        shared: Views,
        layout: Layout,
        updates: Sequence[Update],
        *,
        init: LoraAdapter | None,
        limit: MemberLimit,
    ) -> None:
        """Nothing is trained yet. ``shared`` stays fixed under all members.

        Raises:
            UpdateError: an update can't be trained on, or there are none.
            OutOfMemoryError: there is no room for the adapters of all updates.
        """
        if not updates:
            raise UpdateError("no updates to train on; give at least one")
        reasons = [f"member {k}: {r}" for k, u in enumerate(updates) if (r := check(u, body, layout, init))]
        if reasons:
            raise UpdateError("; ".join(reasons) + " (engine.check(update) says so beforehand)")
        self._pool, self._shared, self._init, self._limit = pool, shared, init, limit
        self._updates = updates
        layout = replace(layout, rank=max(u.rank for u in updates))
        self.bank = _empty_bank(layout, updates, body.device)
        with pool.lend() as (own,), TURNS.at():
            self._first_layer = first_adapted(own, layout)
        self._calls: list[tuple[int | None, tuple[int, ...]]] = []  # until, members
        self._broken = False
        self._begin()

    def _begin(self) -> None:
        """Nobody has made a step yet. Callers may hold the bank, so it stays; its rows are written anew as members train."""
        self._members = [Member(k, update, 0) for k, update in enumerate(self._updates)]
        self._workers = self._pool.workers(self._limit.workers(len(self._updates)))
        self._members_at_once, self._calls_made = self._limit.members, 0
        self._together = self._beside = 1  # members in the largest cohort, and cohorts at a time, of the work under way
        self.bank.failed.clear()
        self.bank.trained_tokens, self.bank.losses = [0] * len(self._members), [[] for _ in self._members]

    def run(self, until: int | None = None, members: Collection[int] | None = None) -> Bank:
        """Train ``members`` (None: all) up to step ``until`` (None: to their ends), and return the bank.

        A member that pauses gets what it would have got without the pause. Which members share a cohort, and so every
        number, depends on the updates, the calls and the limit alone.

        Raises:
            UpdateError: an earlier call was interrupted, or failed.
            OutOfMemoryError: a single member does not fit.
        """
        chosen = tuple(range(len(self._members)) if members is None else sorted(members))
        self._calls.append((until, chosen))
        self._within_memory(self._catch_up)
        return self.bank

    def shifts(self, tokens_at_once: int) -> list[float]:
        """Does a member reach the outputs? Its largest absolute change of a target's log-probability (nats), over its shortest
        training sequence; a number, as a flag could be set by the very code that forgot to. Raises as `run`.

        With and without the members, beside the policy; both batches have the same shapes, so what changes nothing gives exactly
        0.0. Costs two forwards of one short sequence a member, through the code by which members answer.
        """
        return self._within_memory(lambda: self._shifts(tokens_at_once))

    def _shifts(self, tokens_at_once: int) -> list[float]:
        self._catch_up()
        # Without its padding, unless nothing else is predicted: that may be most of it.
        texts = [[s.unpadded if s.unpadded.n_targets else s for s in update.sequences] for update in self._updates]
        shortest = [min(sequences, key=lambda s: len(s.ids)) for sequences in texts]
        found = [0.0] * len(self.bank)

        def probe(body: Body, members: range) -> Steps:
            sequences = [[s] if k in members and k not in self.bank.failed else [] for k, s in enumerate(shortest)]
            with self._beside_policy(body) as place:
                without = token_logprobs(body, place, None, sequences, tokens_at_once)  # first: the members stay bound
                beside = token_logprobs(body, place, self.bank, sequences, tokens_at_once)
            for k in members:
                for ours, bare in zip(beside[k], without[k], strict=True):
                    found[k] = float((torch.tensor(ours.logprobs) - torch.tensor(bare.logprobs)).abs().max())
            yield

        # On the workers, as whole products on one thread each: these are too small to share one between threads.
        n, size = len(self.bank), self._members_at_once
        self._on_workers([range(n)[at : at + size] for at in range(0, n, size)], probe)
        return found

    def _beside_policy(self, body: Body) -> AdapterContext:
        return AdapterContext(body.model, self._shared, [target.path for target in self.bank.layout.targets])

    def _on_workers(self, pieces: Sequence[Piece], work: Callable[[Body, Piece], Steps]) -> None:
        """``work(body, piece)`` for every piece, which is a cohort, on as many threads as there may be."""
        self._together, self._beside = max(map(len, pieces)), min(self._workers, len(pieces))
        with self._pool.lend(self._beside) as bodies:
            on_workers(bodies, pieces, work)

    def _within_memory(self, work: Callable[[], Result]) -> Result:
        """``work()``, with fewer members at once and everything from the start where memory runs out."""
        if self._broken:
            raise UpdateError("an earlier call of this training was interrupted or failed; begin a new one")
        self._broken = True  # until all have stopped where they should, their weights are in the cohorts
        while True:
            try:
                done = work()
                self._broken = False
                return done
            except RuntimeError as error:
                if not ran_out(error):
                    raise
                reason = " ".join(str(error).split())[:200]
            # Outside of the handler: the error held the frames, and they all that had been allocated.
            self._limit.lower(self._together, self._beside, reason)
            self._begin()

    def _catch_up(self) -> None:
        """Train what the calls asked for and is not there yet: the last call's part, or, after a new beginning, everything."""
        for until, members in self._calls[self._calls_made :]:
            self._train(until, [self._members[k] for k in members])
            self._calls_made += 1

    def _train(self, until: int | None, chosen: Sequence[Member]) -> None:
        """Up to step ``until``, from where each of them is."""
        for member in chosen:
            steps = member.update.steps
            member.stop = max(member.step, steps if until is None else min(steps, until))
        # Failed ones too, as zero rows: the others' shapes, and so their bits, must not depend on them.
        moving = [member for member in chosen if member.left]

        def train(body: Body, chains: Sequence[Sequence[Member]]) -> Steps:
            cohort = Cohort(body, self.bank, chains, self._init, self._first_layer, self._limit.tokens)
            with self._beside_policy(body) as place:
                while cohort.active:
                    cohort.step(place)
                    yield

        if moving:
            self._on_workers(even_cohorts(moving, self._members_at_once), train)


def _empty_bank(layout: Layout, updates: Sequence[Update], device: torch.device) -> Bank:
    """All adapters of a training, zero."""
    try:
        flat = torch.zeros(len(updates), layout.width, device=device)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise OutOfMemoryError(
            f"the adapters of {len(updates)} updates take {len(updates) * layout.width * 4 / GIB:.1f} GiB, more than there is; "
            "train fewer of them in one call (in a run: lower model.members_at_once), or at a lower rank"
        ) from None
    return Bank(layout, flat, [u.rank for u in updates], [u.alpha for u in updates])


def even_cohorts(members: Sequence[Member], members_at_once: int) -> list[list[list[Member]]]:
    """`cohorts` of about the same number of slots, and an even number of them where there is more than one: threads share
    them, and the last one to end is waited for. How many threads there are must change no number, so it is not asked.
    """
    fewest = cohorts(members, members_at_once)
    if len(fewest) == 1:
        return fewest
    n = len(fewest) + len(fewest) % 2
    return cohorts(members, -(-sum(map(len, fewest)) // n))


def cohorts(members: Sequence[Member], members_at_once: int) -> list[list[list[Member]]]:
    """Who trains together: cohorts of at most ``members_at_once`` slots, each slot a chain of members that refill it.

    Most steps first: a cohort lasts as long as its first slot, and short members follow each other in the slots beside it.
    Then by size: every slot gets the rows that the largest one needs, the rest is padding.
    """
    waiting = sorted(members, key=lambda m: (-m.left, -tokens_per_step(m.update)))
    out: list[list[list[Member]]] = []
    while waiting:
        length = waiting[0].left
        chains: list[list[Member]] = []
        room: list[int] = []
        later: list[Member] = []
        for member in waiting:
            at = next((c for c, free in enumerate(room) if free >= member.left), None)
            if at is None and len(chains) == members_at_once:
                later.append(member)
                continue
            if at is None:
                at = len(chains)
                chains.append([])
                room.append(length)
            chains[at].append(member)
            room[at] -= member.left
        out.append(sorted(chains, key=lambda chain: -sum(m.left for m in chain)))
        waiting = later
    return out
