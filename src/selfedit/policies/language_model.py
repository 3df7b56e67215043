"""The policy that is a language model: the base, and an adapter that reinforcement learning trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..config import Settings, sub_seed
from ..engine.base import Engine, encode_asked
from ..templates import prompt_for
from ..types import Adapter, Completion, Edit, Task


@dataclass(frozen=True)
class LanguageModel:
    """A language model that is prompted for text edits: the base, and an adapter that is trained (None: the bare base).

    Its hash names what wrote an edit: whether an edit is on-policy is decided by it.
    """

    engine: Engine
    adapter: Adapter | None
    settings: Settings

    @property
    def hash(self) -> str:
        """The adapter's hash, or ``base``."""
        return "base" if self.adapter is None else self.adapter.sha256

    def encode(self, prompt: str, *, answering: bool = False) -> list[int]:
        """Token ids of a prompt; a turn in the model's chat template where the templates are for turns.

        ``answering``: up to where a short answer begins (`Engine.encode_chat`).
        """
        return encode_asked(self.engine, self.settings.templates, prompt, answering=answering)

    def problem(self, prompt_ids: Sequence[int], room: int = 1) -> str:
        """Why the policy can't write ``room`` tokens after this prompt; empty where it can."""
        if len(prompt_ids) + room <= self.engine.window:
            return ""
        more = f" and needs {room} more" if room > 1 else ""
        window = self.engine.window
        return f"the prompt with the passage is {len(prompt_ids)} tokens long{more}, over the model's window of {window}"

    def propose(self, tasks: Sequence[Task], k: int, seed: int, form: str = "") -> list[Edit]:
        """See `base.Policy`."""
        how, templates = self.settings.edits, self.settings.templates
        forms = [self._forms(index, form) for index in range(k)]
        owners = [(task, index, sub_seed(seed, "edit", task.id, index)) for task in tasks for index in range(k)]
        asked = {(task.id, name): prompt_for(task, name, templates) for task in tasks for row in forms for name in row}
        ids = {key: self.encode(prompt) for key, prompt in asked.items()}
        found = {key: self.problem(prompt_ids) for key, prompt_ids in ids.items()}
        problems = [next((p for name in forms[i] if (p := found[task.id, name])), "") for task, i, _ in owners]
        able = [
            (ids[task.id, name], sub_seed(edit_seed, "sample", n) if n else edit_seed)
            for (task, index, edit_seed), problem in zip(owners, problems, strict=True)
            if not problem
            for n, name in enumerate(forms[index])
        ]
        written = iter(self.write([prompt for prompt, _ in able], [edit_seed for _, edit_seed in able]))
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
                temperature=how.temperature,
                top_p=how.top_p,
                seed=edit_seed,
                policy_hash=self.hash,
                problem=problem,
                kind="text" if form else how.kind,
            )
            for (task, index, edit_seed), problem, (completion, *further) in zip(owners, problems, completions, strict=True)
        ]

    def _forms(self, index: int, form: str) -> list[str]:
        """The form of each sample of a task's edit number ``index``: ``form``, or those of the settings in turn."""
        how = self.settings.edits
        forms, n = (form,) if form else how.forms, how.samples
        return [forms[(number if n > 1 else index) % len(forms)] for number in range(n)]

    def write(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Completion]:
        """One free text per prompt. A thought that the prompt opens begins with its tag, as one that the model opens does."""
        how = self.settings.edits
        written = self.engine.sample(
            prompts,
            seeds,
            on=self.adapter,
            max_new_tokens=how.max_new_tokens,
            temperature=how.temperature,
            top_p=how.top_p,
        )
        opened = self.engine.opens_thought if self.settings.templates.chat else ""
        return [replace(one, text=f"{opened}\n{one.text}") for one in written] if opened else written

    def choose(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        choices: Sequence[Sequence[str]],
        temperature: float,
    ) -> list[Completion]:
        """One constrained text per prompt: of each of ``choices`` one of its texts (see `Engine.choose`)."""
        return self.engine.choose(prompts, seeds, choices, on=self.adapter, temperature=temperature)
