"""`selfedit` in a process of its own that need not import torch first: it is forked from a server that has done so once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from selfedit.cli.main import main

_IMPORTED = ["selfedit.cli.run_file", "selfedit.cli.evaluate", "selfedit.evaluation.experiment"]
_IMPORTED += ["transformers.models.llama.modeling_llama", "transformers.generation.utils", "selfedit.report.html"]


def _process(arguments: Sequence[str], directory: Path, errors: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background of a script ignores it
    os.chdir(directory)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.exit(main(arguments))


class Command:
    """``selfedit`` with some arguments, running in ``directory``. Leaving the context waits for its end."""

    def __init__(self, arguments: Sequence[str], directory: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED)
        self._errors = directory / "stderr.txt"
        self._child = context.Process(target=_process, args=(list(arguments), directory, self._errors))
        self._child.start()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._child.kill()
        self._child.join()

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self._child.pid or 0, number)

    def ended(self) -> bool:
        """Whether it has ended."""
        return not self._child.is_alive()

    def wait(self, timeout: float) -> int:
        """Its exit code (of a signal: its negative number)."""
        self._child.join(timeout)
        if self._child.exitcode is None:
            raise TimeoutError(f"not finished after {timeout} s: {self.errors}")
        return self._child.exitcode

    @property
    def errors(self) -> str:
        """What it has written to stderr."""
        return self._errors.read_text() if self._errors.exists() else ""
