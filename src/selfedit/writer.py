"""Self-edits of a run, written and journaled: chunks of them are committed whole, and a run that goes on reads them back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from .config import Form, Settings, sub_seed
from .engine.base import LocalEngine, check_chat
from .plugins import find
from .policies.base import Policy
from .run import Run
from .thoughts import without_thoughts
from .types import Adapter, Edit, Task

_EDITS = TypeAdapter(list[Edit])
EDITS_PER_CHUNK = 128  # decoded in one batch; a step of 128 rows costs 1.5 times what one of 64 does


class Writer:
    """The model that writes, and its policies."""

    def __init__(self, run: Run, engine: LocalEngine) -> None:
        self.run, self.engine = run, engine
        self.settings: Settings = run.settings
        check_chat(engine, self.settings.templates, self.settings.model.path)
        self._policy = find("policies", self.settings.edits.writer)

    def policy(self, adapter: Adapter | None) -> Policy:
        """The policy with these weights."""
        made: Policy = self._policy(self.engine, adapter, self.settings)
        return made

    def write(self, key: str, adapter: Adapter | None, tasks: Sequence[Task], k: int, form: Form | None = None) -> list[Edit]:
        """``k`` edits per task by the policy with these weights. Seeds depend on ``key``'s first part and the task alone.

        ``form``: text edits of this form, whatever the run's kind of self-edits is.
        """
        edits: list[Edit] = []
        seed = sub_seed(self.settings.seed, key.split("/")[0])
        policy = self.policy(adapter)
        contexts = {task.id: hashlib.sha256(task.text.encode()).hexdigest() for task in tasks}
        size = max(1, EDITS_PER_CHUNK // (k * self.settings.edits.samples))
        for start in range(0, len(tasks), size):
            part = tasks[start : start + size]

            def propose(part: Sequence[Task] = part) -> dict[str, Any]:
                written = policy.propose(part, k, seed, form or "")
                rows = _EDITS.dump_python(written, mode="json")
                extra = [{"text": edit.text, "context_sha256": contexts[edit.task_id]} for edit in written]
                return {"edits": [{**row, **more} for row, more in zip(rows, extra, strict=True)]}

            committed = self.run.once(f"{key}/propose/{start}", propose)["edits"]
            edits += _EDITS.validate_python(committed)
            self.run.emit("progress", name=key, done=len(part) * k)
        self._warn_of_thoughts(key, edits)
        return edits

    def _warn_of_thoughts(self, key: str, edits: Sequence[Edit]) -> None:
        """Say how many texts are without their thoughts, and how many were cut off before the thought ended."""
        spoken = [(completion.text, without_thoughts(completion.text)) for edit in edits for completion in edit.completions]
        thought = [rest for text, rest in spoken if rest != text]
        if thought:
            cut = sum(not rest for rest in thought)
            self.run.emit(
                "warning",
                text=f"{key}: in {len(thought)} of {len(spoken)} texts the model thought first. Thoughts are left out; {cut} "
                "texts are nothing else. If that is too many, set model.template_arguments so that the model does not think, "
                "or raise edits.max_new_tokens",
            )
