"""Independent pieces of work on several CPU threads.

A cohort's tensors are too small to keep several threads busy inside one operation; whole cohorts beside each other do. Every
worker has its own modules over the same weights (`Body.replica`), as the hooks of `Beside` hang on modules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from threading import Event
from typing import TypeVar

import torch

from .body import Body

Piece = TypeVar("Piece")
Steps = Generator[None, None, None]


def on_workers(bodies: Sequence[Body], pieces: Sequence[Piece], work: Callable[[Body, Piece], Steps]) -> None:
    """Exhaust ``work(body, piece)`` for every piece, by as many of ``bodies`` as there are pieces; threads are shared out.

    An error in one piece, or Ctrl-C, stops the others at their next ``yield`` and is raised here.
    """
    workers = min(len(bodies), len(pieces))
    threads, stop, queue = torch.get_num_threads(), Event(), deque(pieces)

    def serve(body: Body) -> None:
        torch.set_num_threads(max(1, threads // workers))
        while not stop.is_set():
            try:
                piece = queue.popleft()
            except IndexError:
                return
            with closing(work(body, piece)) as steps:
                for _ in steps:
                    if stop.is_set():
                        return

    if workers == 1:
        serve(bodies[0])
        return
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="worker") as pool:
            try:
                done, _ = wait([pool.submit(serve, body) for body in bodies[:workers]], return_when=FIRST_EXCEPTION)
            finally:
                stop.set()
        for served in done:
            served.result()
    finally:
        torch.set_num_threads(threads)  # the numeric libraries keep one number for the whole process
