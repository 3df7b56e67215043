"""Independent pieces of work on several CPU threads, and how many members train at once; fewer, for good, where memory runs out.

A cohort's tensors are too small to keep several threads busy inside one operation; whole cohorts at the same time do.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from threading import Event
from typing import TypeVar

import torch

from ...errors import OutOfMemoryError, SettingsError
from ..model.body import Body
from ..model.body_pool import TURNS

Piece = TypeVar("Piece")
Steps = Generator[None, None, None]
OnLower = Callable[[int, str], None]


def on_workers(bodies: Sequence[Body], pieces: Sequence[Piece], work: Callable[[Body, Piece], Steps]) -> None:
    """Exhaust ``work(body, piece)`` for every piece, by as many of ``bodies`` as there are pieces; they divide the threads.

    Between its yields a piece holds a turn (`ThreadTurns`). An error in one piece, or Ctrl-C, stops the others at their next
    ``yield`` and is raised here.
    """
    workers = min(len(bodies), len(pieces))
    stop, queue = Event(), deque(pieces)

    def serve(body: Body, threads: int = 0) -> None:
        while not stop.is_set():
            try:
                piece = queue.popleft()
            except IndexError:
                return
            with closing(work(body, piece)) as steps:
                going = True
                while going and not stop.is_set():
                    with TURNS.at(threads):
                        going = next(steps, stop) is None  # `stop` itself where there are no more steps
            give_memory_back()

    if workers == 1:
        serve(bodies[0])
        return
    with TURNS.divided(workers) as threads, ThreadPoolExecutor(workers, thread_name_prefix="worker") as pool:
        try:
            served = [pool.submit(serve, body, threads) for body in bodies[:workers]]
            done, _ = wait(served, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
    for one in done:
        one.result()


def give_memory_back() -> None:
    """Return freed memory to the system, where the allocator would keep it (glibc).

    Tensors of ever other sizes leave holes in the heaps of several threads: without this a run of hours had three times the
    memory that it used at any moment.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class MemberLimit:
    """The most ``members`` of a cohort, and how many cohorts may train at the same time on threads of their own.

    ``tokens``: the most in one of their forwards, unless a single sequence has more.
    """

    def __init__(self, members: int, tokens: int) -> None:
        self.members = self._planned = members
        self.tokens = tokens
        self._alone = False
        self._on_lower: OnLower | None = None

    def set(self, members: int, on_lower: OnLower | None) -> None:
        """From now on at most so many per cohort; ``on_lower(members, reason)`` is called when it becomes fewer.

        Raises:
            SettingsError: ``members`` is less than 1.
        """
        if members < 1:
            raise SettingsError(f"members_at_once is {members}; it must be at least 1")
        self.members, self._alone, self._on_lower = members, False, on_lower

    def workers(self, updates: int) -> int:
        """Cohorts at the same time: as many as before a halving, or more of them would take what fewer members freed."""
        return 1 if self._alone else max(1, -(-updates // self._planned))

    def lower(self, members: int, beside: int, reason: str) -> None:
        """Memory ran out with so many members in the largest of ``beside`` cohorts: half as many from now on, and of single
        members one after another. The memory of what was begun is given back.

        Raises:
            OutOfMemoryError: it was one member alone.
        """
        if members > 1:
            self.members = min(self.members, members // 2)
        elif beside > 1:
            self.members, self._alone = 1, True
        else:
            raise OutOfMemoryError(
                f"one member alone needs more memory than there is ({reason}); train on smaller batches or shorter sequences "
                "(inner.batch_size, algorithm.batch_size, edits.max_new_tokens), at a lower rank, or with model.dtype = 'bf16'"
            )
        gc.collect()  # the workers' errors and frames hold each other, and the tensors of their cohorts
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._on_lower is not None:
            self._on_lower(self.members, reason)
