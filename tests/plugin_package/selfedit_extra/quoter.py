"""The policy `quoter`."""

from __future__ import annotations

from collections.abc import Sequence

from selfedit.config import Settings, sub_seed
from selfedit.engine.base import Adapter, Engine
from selfedit.types import Completion, Edit, Task


class Quoter:
    """Writes the passage's own sentences, from a place that the seed chooses; it is no language model."""

    def __init__(self, engine: Engine, adapter: Adapter | None, settings: Settings) -> None:
        self.hash = "quoter" if adapter is None else f"quoter-{adapter.sha256}"

    def propose(self, tasks: Sequence[Task], k: int, seed: int, form: str = "") -> list[Edit]:
        edits = []
        for task in tasks:
            sentences = [f"{sentence.strip()}." for sentence in task.text.split(".") if sentence.strip()]
            for index in range(k):
                own = sub_seed(seed, task.id, index)
                said = "\n".join(sentences[own % len(sentences) :])
                edits.append(
                    Edit(
                        task_id=task.id,
                        index=index,
                        form=form,
                        prompt="",
                        completion=Completion((), (), (), said, True),
                        temperature=1.0,
                        top_p=1.0,
                        seed=own,
                        policy_hash=self.hash,
                        kind="sentences",
                    )
                )
        return edits
