"""The parts of an experiment that the loop and the evaluations share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .config import Settings
from .edits.parsing.lines import edit_lines
from .engine.base import Engine, LocalEngine
from .inner import InnerLoop
from .run import Run
from .types import Adapter
from .writer import Writer


@dataclass(frozen=True)
class Parts:
    """A run, the model that writes its edits, and the inner loop that tries them: on the same model, or on another one.

    ``style_of``: the style that a line of an edit looks like, for reports.
    """

    run: Run
    writer: Writer
    inner: InnerLoop
    style_of: Callable[[str], str]

    @classmethod
    def of(cls, run: Run, writer: LocalEngine, learner: Engine, style_of: Callable[[str], str]) -> Parts:
        """The parts of a run on these engines, which may be the same one."""
        return cls(run, Writer(run, writer), InnerLoop(run, learner), style_of)

    @property
    def settings(self) -> Settings:
        """The run's settings."""
        return self.run.settings

    def learns_on(self, policy: Adapter | None) -> Adapter | None:
        """The adapter that edits are learned on top of: the policy where the model edits itself, none on another model."""
        return policy if self.inner.engine is self.writer.engine else None

    def style_shares(self, texts: Iterable[str]) -> dict[str, float]:
        """Share of each line style over all lines of ``texts``."""
        counts = Counter(self.style_of(line) for text in texts for line in edit_lines(text))
        total = sum(counts.values())
        return {style: n / total for style, n in sorted(counts.items())}
