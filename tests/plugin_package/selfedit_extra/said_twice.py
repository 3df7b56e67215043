"""The rung `said_twice`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from selfedit.edits.text import text_change
from selfedit.evaluation.ladder import Ladder, Rung


class SaidTwiceSettings(BaseModel):
    """The table ``[ladder.said_twice]``."""

    times: int = 2


class SaidTwice(Rung):
    """Trained on the passage said more than once."""

    Settings: ClassVar = SaidTwiceSettings
    label = "passage, said twice"
    pairs = (("said_twice", "no_edit"),)

    def climb(self, ladder: Ladder) -> None:
        times = ladder.settings.ladder.own("said_twice", SaidTwiceSettings).times
        texts = ["\n".join([task.text] * times) for task in ladder.tasks]
        how = ladder.inner.settings, ladder.inner.engine
        changes = [text_change(*how, task, [text]) for task, text in zip(ladder.tasks, texts, strict=True)]
        ladder.stage("said_twice", f"Training on the passage, said {times} times", len(ladder.tasks))
        ladder.add(ladder.tried("said_twice", None, ladder.tasks, changes, texts))
