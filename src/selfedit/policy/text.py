"""The policy that writes self-edits as text: the base, and an adapter that reinforcement learning trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import EditSettings, sub_seed
from ..edits.text import prompt_for
from ..engine.base import Adapter, Engine, encode_asked
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

    def _forms(self, index: int, form: str) -> list[str]:
        """The form of each sample of a task's edit number ``index``: ``form``, or those of the settings in turn."""
        forms, n = (form,) if form else self.settings.forms, self.settings.samples
        return [forms[(number if n > 1 else index) % len(forms)] for number in range(n)]

    def propose(self, tasks: Sequence[Task], k: int, seed: int, form: str = "") -> list[Edit]:
        """``k`` self-edits for each task, in the order of the tasks; an edit's seed depends on its task and number alone.

        ``form``: for all of them, in place of the settings' form or mixture.
        """
        forms = [self._forms(index, form) for index in range(k)]
        owners = [(task, index, sub_seed(seed, "edit", task.id, index)) for task in tasks for index in range(k)]
        asked = {
            (task.id, name): prompt_for(task, name, self.templates) for task in tasks for row in forms for name in row
        }
        ids = {key: encode_asked(self.engine, self.templates, prompt) for key, prompt in asked.items()}
        found = {key: self._problem(prompt_ids) for key, prompt_ids in ids.items()}
        problems = [next((p for name in forms[i] if (p := found[task.id, name])), "") for task, i, _ in owners]
        able = [
            (ids[task.id, name], sub_seed(edit_seed, "sample", n) if n else edit_seed)
            for (task, index, edit_seed), problem in zip(owners, problems, strict=True)
            if not problem
            for n, name in enumerate(forms[index])
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
            [Completion((), (), (), "", False)] if problem else [next(written) for _ in forms[index]]
            for (_, index, _), problem in zip(owners, problems, strict=True)
        ]
        return [
            Edit(
                task_id=task.id,
                index=index,
                form="+".join(dict.fromkeys(forms[index])),
                prompt=asked[task.id, forms[index][0]],
                completion=completion,
                further=tuple(further),
                temperature=self.settings.temperature,
                top_p=self.settings.top_p,
                seed=edit_seed,
                policy_hash=self.hash,
                problem=problem,
            )
            for (task, index, edit_seed), problem, (completion, *further) in zip(
                owners, problems, completions, strict=True
            )
        ]
