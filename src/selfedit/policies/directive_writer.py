"""The policy that writes directives: it chooses how a passage is learned, then writes the texts that it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from ..config import sub_seed
from ..edits.directives import Directive, Directives
from ..templates import prompt_for
from ..types import Completion, Edit, Task
from .language_model import LanguageModel


class DirectiveWriter(LanguageModel):
    """A language model that first chooses how a passage is learned (a directive), then writes the texts for it."""

    @cached_property
    def kind(self) -> Directives:
        """What directives may say."""
        return Directives(self.settings, self.engine)

    def propose(self, tasks: Sequence[Task], k: int, seed: int, form: str = "") -> list[Edit]:
        """See `base.Policy`. With a ``form``, text edits as they are written without directives."""
        if form:
            return super().propose(tasks, k, seed, form)
        owners = [(task, index, sub_seed(seed, "directive", task.id, index)) for task in tasks for index in range(k)]
        prompts = [self.kind.prompt(task) for task in tasks for _ in range(k)]
        ids = [self.encode(prompt, answering=self.kind.options.written == "choice") for prompt in prompts]
        written = self._written(ids, [edit_seed for _, _, edit_seed in owners])
        free, options = self.settings.edits, self.kind.options
        temperature, top_p = (options.temperature, 1.0) if options.written == "choice" else (free.temperature, free.top_p)
        edits = []
        for (task, index, edit_seed), prompt, (completion, problem) in zip(owners, prompts, written, strict=True):
            directive, note, misread = (None, "", "") if problem else self.kind.read(completion.text)
            edit = Edit(
                task_id=task.id,
                index=index,
                form="+".join(directive.forms) if directive else "",
                prompt=prompt,
                completion=completion,
                temperature=temperature,
                top_p=top_p,
                seed=edit_seed,
                policy_hash=self.hash,
                problem=problem or misread,
                kind="directives",
                note=note,
            )
            edits.append((edit, directive))
        return self.with_texts(tasks, edits)

    def with_texts(self, tasks: Sequence[Task], edits: Sequence[tuple[Edit, Directive | None]]) -> list[Edit]:
        """The edits with the texts that their directives ask for, written by the policy, all in one batch."""
        by_id = {task.id: task for task in tasks}
        asked: list[tuple[int, list[int], int]] = []  # which edit, the prompt, the seed
        problems = [edit.problem for edit, _ in edits]
        for i, (edit, directive) in enumerate(edits):
            for n, form in enumerate(directive.asked if directive else ()):
                ids = self.encode(prompt_for(by_id[edit.task_id], form, self.settings.templates))
                problems[i] = problems[i] or self.problem(ids)
                asked.append((i, ids, sub_seed(edit.seed, "text", n)))
        able = [(i, ids, text_seed) for i, ids, text_seed in asked if not problems[i]]
        texts: dict[int, list[Completion]] = {}
        for (i, _, _), text in zip(able, self.write([a[1] for a in able], [a[2] for a in able]), strict=True):
            texts.setdefault(i, []).append(text)
        return [replace(edit, problem=problems[i], further=tuple(texts.get(i, ()))) for i, (edit, _) in enumerate(edits)]

    def _written(self, ids: Sequence[list[int]], seeds: Sequence[int]) -> list[tuple[Completion, str]]:
        """Each prompt's directive as it was written, or an empty one and why."""
        choice = self.kind.options.written == "choice"
        encode = self.engine.encode
        room = sum(max(len(encode(text)) for text in texts) for texts in self.kind.choices()) if choice else 1
        problems = [self.problem(some, room) for some in ids]
        able = [i for i, problem in enumerate(problems) if not problem]
        prompts, chosen_seeds = [ids[i] for i in able], [seeds[i] for i in able]
        if choice:
            done = self.choose(prompts, chosen_seeds, self.kind.choices(), self.kind.options.temperature)
        else:
            done = self.write(prompts, chosen_seeds)
        found = dict(zip(able, done, strict=True))
        return [(found.get(i, Completion((), (), (), "", False)), problem) for i, problem in enumerate(problems)]
