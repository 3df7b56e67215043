"""Training data as text: the policy writes lines about a passage, and the model is trained on them (SEAL, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..config import Settings
from ..types import Change, Edit, Recipe, Task
from .base import Tokens
from .parsing.lines import PLAIN, SEAL, passage_sequences, sequences_for


class Text:
    """Training data that the policy writes line by line; the model is trained on the lines (SEAL, section 3.1)."""

    policy = "language_model"

    def __init__(self, settings: Settings, tokens: Tokens) -> None:
        """``tokens``: the model that learns."""
        self.settings, self.tokens = settings, tokens

    def change(self, edit: Edit, task: Task) -> Change:
        """See `base.EditKind`."""
        if edit.problem:
            return Change(None, edit.problem)
        return text_change(self.settings, self.tokens, task, [completion.text for completion in edit.completions])

    @staticmethod
    def largest(settings: Settings) -> tuple[Recipe, int]:
        """See `base.EditKind`: the run's recipe, as a text brings none of its own."""
        return settings.inner.recipe, settings.edits.samples


def text_change(
    settings: Settings,
    tokens: Tokens,
    task: Task,
    texts: str | Sequence[str],
    *,
    recipe: Recipe | None = None,
    samples: int | None = None,
) -> Change:
    """The change that trains on an edit's texts, under the run's limits.

    ``recipe``: in place of the run's. ``samples``: how many texts share the limits, where not `EditSettings.samples`.
    """
    edits = settings.edits
    n = samples or edits.samples
    plain = replace(PLAIN, max_tokens=max(4096, 4 * edits.max_new_tokens))
    rules = SEAL if edits.rules == "seal" else plain
    rules = replace(
        rules,
        max_lines=n * edits.max_lines,
        max_tokens=n * rules.max_tokens,
        include_context=edits.include_context,
        distinct=n > 1,  # samples of one prompt say the same things again
    )
    parsed = sequences_for(task, texts, tokens, settings.templates, rules, pad_to=settings.inner.pad_to)
    update = (recipe or settings.inner.recipe).update(parsed.sequences) if not parsed.reason else None
    return Change(update, parsed.reason, parsed.lines, parsed.held_out)


def passage_change(settings: Settings, tokens: Tokens, task: Task, recipe: Recipe | None = None) -> Change:
    """The change that trains on the raw passage alone: a rung of the ladder."""
    sequences = passage_sequences(task, tokens, settings.templates, pad_to=settings.inner.pad_to)
    if not sequences:
        return Change(None, "the passage has fewer than two tokens")
    return Change((recipe or settings.inner.recipe).update(sequences))
