"""The policy that writes self-edits as text: the base, and an adapter that reinforcement learning trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import EditSettings, sub_seed
from ..edits.text import prompt_for
from ..engine.base import Adapter, Engine
from ..templates import Templates
from ..types import Completion, Edit, Task


@dataclass(frozen=True)
class TextPolicy:
    """A text policy; ``adapter`` None is the bare base. Its hash names what wrote an edit (the on-policy check)."""

    engine: Engine
    adapter: Adapter | None
    templates: Templates
    settings: EditSettings

    @property
    def hash(self) -> str:
        """The adapter's hash, or ``base``."""
        return "base" if self.adapter is None else self.adapter.sha256

    def _problem(self, prompt_ids: Sequence[int]) -> str:
        """Why the policy can't write after this prompt, or nothing."""
        if len(prompt_ids) < self.engine.window:
            return ""
        return f"the prompt with the passage is {len(prompt_ids)} tokens long, over the model's window of {self.engine.window}"

    def propose(self, tasks: Sequence[Task], k: int, seed: int, form: str = "") -> list[Edit]:
        """``k`` self-edits for each task, in the order of the tasks; an edit's seed depends on its task and number alone."""
        form = form or self.settings.form
        owners = [(task, index, sub_seed(seed, "edit", task.id, index)) for task in tasks for index in range(k)]
        samples = range(self.settings.samples)
        prompts = {task.id: prompt_for(task, form, self.templates) for task in tasks}
        ids = {task_id: self.engine.encode_prompt(prompt) for task_id, prompt in prompts.items()}
        problems = {task.id: self._problem(ids[task.id]) for task in tasks}
        able = [
            (ids[task.id], sub_seed(edit_seed, "sample", n) if n else edit_seed)
            for task, _, edit_seed in owners
            if not problems[task.id]
            for n in samples
        ]
        self.engine.mount(self.adapter)
        written = iter(
            self.engine.sample(
                [prompt for prompt, _ in able],
                [edit_seed for _, edit_seed in able],
                max_new_tokens=self.settings.max_new_tokens,
                temperature=self.settings.temperature,
                top_p=self.settings.top_p,
            )
        )
        completions = [
            [Completion((), (), (), "", False)] if problems[task.id] else [next(written) for _ in samples]
            for task, _, _ in owners
        ]
        return [
            Edit(
                task_id=task.id,
                index=index,
                form=form,
                prompt=prompts[task.id],
                completion=completion,
                further=tuple(further),
                temperature=self.settings.temperature,
                top_p=self.settings.top_p,
                seed=edit_seed,
                policy_hash=self.hash,
                problem=problems[task.id],
            )
            for (task, index, edit_seed), (completion, *further) in zip(owners, completions, strict=True)
        ]
