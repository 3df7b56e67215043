"""Calls from several threads at once: each borrows modules of its own over the same tensors; they divide the CPU threads.

`AdapterContext` and `Upper` replace what modules compute while a call runs, so no two calls may use the same modules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Lock

import torch
from torch import Tensor, nn

from .body import Body


def replace_forward(module: nn.Module, forward: Callable[..., Tensor]) -> Callable[[], None]:
    """Let a module compute something else; returns what undoes it, and gives back a ``forward`` that others had set."""
    before = vars(module).get("forward")
    module.forward = forward

    def undo() -> None:
        del module.forward
        if before is not None:
            module.forward = before

    return undo


class BodyPool:
    """A body and as many replicas of it as calls have needed at the same time, plus one (a few MB of modules each)."""

    def __init__(self, body: Body) -> None:
        self._bodies, self._lent, self._lock = [body], set[int](), Lock()

    def workers(self, wanted: int) -> int:
        """How many bodies may train at the same time: on CPUs at most one per thread, elsewhere one."""
        return min(wanted, torch.get_num_threads()) if self._bodies[0].device.type == "cpu" else 1

    @contextmanager
    def lend(self, n: int = 1) -> Iterator[list[Body]]:
        """``n`` bodies for this block alone."""
        with self._lock:
            free = [i for i in range(len(self._bodies)) if i not in self._lent]
            while len(free) <= n:  # one always stays: replicas can't be made from modules that are in use
                free.append(len(self._bodies))
                self._bodies.append(self._bodies[free[0]].replica())
            numbers = free[:n]
            self._lent.update(numbers)
        try:
            yield [self._bodies[i] for i in numbers]
        finally:
            with self._lock:
                self._lent.difference_update(numbers)


class ThreadTurns:
    """torch has one number of threads for the whole process. Calls that need the same number run at once, others in turns.

    So a call computes with the same number of threads, and gets the same bits, whatever else is under way.
    """

    def __init__(self) -> None:
        self._changed, self._waiting = Condition(), deque[object]()
        self._inside = self._number = 0
        self._divided, self._usual = 0, 1  # how many calls divide the threads now, and torch's number without them

    @contextmanager
    def divided(self, parts: int) -> Iterator[int]:
        """While the block runs, ``parts`` workers share the threads; it gets the number of each (for `at`)."""
        with self._changed:
            if not self._divided:
                self._usual = torch.get_num_threads()
            self._divided += 1
        try:
            yield max(1, self._usual // parts)
        finally:
            with self.at(self._usual):
                torch.set_num_threads(self._usual)
            with self._changed:
                self._divided -= 1

    @contextmanager
    def at(self, number: int = 0) -> Iterator[None]:
        """A turn with this number of threads; 0: as many as torch has where nobody divides them."""
        ticket = object()
        with self._changed:
            wanted = number or (self._usual if self._divided else torch.get_num_threads())
            self._waiting.append(ticket)
            try:
                # First come, first served: neither training nor reading can be kept waiting for long.
                self._changed.wait_for(lambda: self._waiting[0] is ticket and (not self._inside or self._number == wanted))
                self._inside, self._number = self._inside + 1, wanted
                if self._divided:
                    torch.set_num_threads(wanted)  # also of this thread, which may have a number of its own
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()


TURNS = ThreadTurns()  # one for the process, like the number that it guards
