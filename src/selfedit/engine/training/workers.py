"""Independent pieces of work on several CPU threads.

A cohort's tensors are too small to keep several threads busy inside one operation; whole cohorts at the same time do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from threading import Event
from typing import TypeVar

from ..model.body import Body
from ..model.body_pool import TURNS

Piece = TypeVar("Piece")
Steps = Generator[int, None, None]


def on_workers(
    bodies: Sequence[Body],
    pieces: Sequence[Piece],
    work: Callable[[Body, Piece], Steps],
    on_steps: Callable[[int], None] = lambda n: None,
) -> None:
    """Exhaust ``work(body, piece)`` for every piece, by as many of ``bodies`` as there are pieces; they divide the threads.

    What a piece yields goes to ``on_steps``; between its yields it holds a turn (`ThreadTurns`). An error in one piece, or
    Ctrl-C, stops the others at their next ``yield`` and is raised here.
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
                while not stop.is_set():
                    with TURNS.at(threads):
                        made = next(steps, None)
                    if made is None:
                        break
                    on_steps(made)

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
