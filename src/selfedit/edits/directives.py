"""Update directives: the policy chooses how a passage is learned, in JSON, as in SEAL's ARC experiments (section 3.2 there).

A directive says which texts to write about the passage and how to train on them::

    {"forms": ["self_qa"], "samples": 2, "lr": 0.02, "steps": 12, "rank": 16, "layers": "upper"}

The texts are then written by the same policy. A policy gradient learns from the directive; ReST-EM clones its texts, too. It is
written in one of two ways:
as a constrained choice (each field sampled from the model's own probabilities over the listed options, with the exact
log-probability of that choice; any model can do it), or as free text that is parsed strictly. What a directive asks for is data,
not an order: unknown fields and names make it invalid, numbers are clamped to the range of the options.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from .. import config
from ..config import Section
from ..templates import fill
from ..thoughts import without_thoughts
from ..types import Change, Edit, Recipe, Task
from .base import Tokens
from .text import text_change

MAX_CHARS = 400  # of a free directive
_UPPER = "@50%:"  # the upper half of the layers, after the names of modules


class DirectiveSettings(Section):
    """What a directive may choose from: the table ``[edits.directives]``."""

    written: Literal["choice", "text"] = Field(
        "choice",
        description="choice: each field is sampled from the model's own probabilities over the options; text: the model writes "
        "the JSON freely, and it is parsed strictly",
    )
    temperature: float = Field(
        1.0,
        gt=0,
        description="sampling temperature of a choice (the texts have edits.temperature). A model that hardly knows its options "
        "apart, such as the embedded base and numbers, can learn to choose only at a low one",
    )
    forms: tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...] = Field(
        (("implications",), ("self_qa",), ("implications", "self_qa")),
        min_length=1,
        description="which prompts ask for the texts: each option is a list of forms, as in edits.form",
    )
    samples: tuple[int, ...] = Field((1, 2, 4), min_length=1, description="texts per form")
    lr_factors: tuple[float, ...] = Field(
        (0.25, 0.5, 1.0, 2.0), min_length=1, description="learning rates, as multiples of inner.lr"
    )
    steps: tuple[int, ...] = Field((3, 6, 12, 24), min_length=1, description="optimiser steps")
    rank: tuple[int, ...] = Field(
        (4, 16, 32), min_length=1, description="ranks of the adapter; alpha / rank stays that of [inner]"
    )
    layers: tuple[Literal["upper", "all"], ...] = Field(
        ("upper", "all"),
        min_length=1,
        description="which layers are adapted: the upper half, or all. The modules are those of model.targets",
    )

    @field_validator("samples", "steps", "rank", "lr_factors")
    @classmethod
    def _above_zero(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(not (math.isfinite(value) and value > 0) for value in values):
            raise ValueError("every option has to be a number above 0")
        return values


@dataclass(frozen=True)
class Directive:
    """How one passage is learned. ``steps`` optimiser steps at learning rate ``lr``; ``samples`` texts per form."""

    forms: tuple[str, ...]
    samples: int
    lr: float
    steps: int
    rank: int
    layers: str

    @property
    def text(self) -> str:
        """The directive as JSON."""
        return json.dumps({**vars(self), "forms": list(self.forms)})

    @property
    def asked(self) -> list[str]:
        """The form of each text that it asks for."""
        return [form for form in self.forms for _ in range(self.samples)]


class Directives:
    """Update directives: the policy chooses the texts, learning rate, steps, rank and layers of each passage (SEAL, ARC part)."""

    Settings = DirectiveSettings
    policy = "directive_writer"

    def __init__(self, settings: config.Settings, tokens: Tokens) -> None:
        """``tokens``: the model that learns."""
        self.settings, self.tokens = settings, tokens
        self.options: DirectiveSettings = settings.edits.own("directives", DirectiveSettings)
        lr = settings.inner.lr
        self._lrs = [float(f"{factor * lr:.3g}") for factor in self.options.lr_factors]
        self._base_targets = settings.targets.partition("@")[0]

    def prompt(self, task: Task) -> str:
        """The prompt that asks for a directive."""
        return fill(self.settings.templates.directives, title=task.title, context=task.text, options=self.described())

    def described(self) -> str:
        """The options, for a model that reads."""
        o = self.options
        forms = " or ".join(json.dumps(list(forms)) for forms in o.forms)
        rows = (("samples", o.samples), ("lr", self._lrs), ("steps", o.steps), ("rank", o.rank), ("layers", o.layers))
        return "\n".join([f'"forms": {forms}', *(f'"{name}": {" or ".join(map(json.dumps, some))}' for name, some in rows)])

    def choices(self) -> list[list[str]]:
        """The directive as a constrained choice: forced texts (lists of one) and options. No option begins with another one:
        each ends with what follows it in the JSON.
        """
        o = self.options
        fields: list[tuple[str, list[Any]]] = [
            ("forms", [list(forms) for forms in o.forms]),
            ("samples", list(o.samples)),
            ("lr", list(self._lrs)),
            ("steps", list(o.steps)),
            ("rank", list(o.rank)),
            ("layers", list(o.layers)),
        ]
        out = [['{"' + fields[0][0] + '": ']]
        for (_, values), (following, _) in zip(fields, [*fields[1:], ("", [])], strict=True):
            tail = f', "{following}": ' if following else "}"
            out.append([text + tail for text in dict.fromkeys(map(json.dumps, values))])
        return out

    def read(self, text: str) -> tuple[Directive | None, str, str]:
        """The directive in a text, what was clamped, and why there is none. Strict: one JSON object, all fields, known names."""
        text = without_thoughts(text)
        start, end = text.find("{"), text.find("}")
        if not 0 <= start < end or end > MAX_CHARS:
            return None, "", f"the directive is not a JSON object of at most {MAX_CHARS} characters"
        try:
            fields = json.loads(text[start : end + 1], object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            return None, "", f"the directive is not JSON ({' '.join(str(error).split())[:100]})"
        expected = list(Directive.__dataclass_fields__)
        if sorted(fields) != sorted(expected):
            return None, "", f"the directive has the fields {sorted(fields)}; it needs {expected}"[:300]
        return self._checked(fields)

    def _checked(self, fields: dict[str, Any]) -> tuple[Directive | None, str, str]:
        o, notes = self.options, []
        forms = fields["forms"]
        known = {form for option in o.forms for form in option}
        if not (isinstance(forms, list) and forms and all(isinstance(form, str) for form in forms)):
            return None, "", "the directive's forms are not a list of names"
        if unknown := [form for form in forms if form not in known]:
            return None, "", f"the directive asks for the form {unknown[0]!r:.60}; there are {', '.join(sorted(known))}"
        if len(forms) > (most := max(map(len, o.forms))):
            return None, "", f"the directive asks for {len(forms)} forms; it may ask for {most} at most"
        if fields["layers"] not in o.layers:
            return None, "", f"the directive's layers are {fields['layers']!r:.60}; there are {', '.join(o.layers)}"
        numbers: dict[str, float] = {}
        for name, options in (("samples", o.samples), ("lr", self._lrs), ("steps", o.steps), ("rank", o.rank)):
            value = fields[name]
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole or (name == "lr" and isinstance(value, float) and math.isfinite(value))):
                return (
                    None,
                    "",
                    f"the directive's {name} is {value!r:.60}, not a {'number' if name == 'lr' else 'whole number'}",
                )
            numbers[name] = min(max(value, min(options)), max(options))
            if numbers[name] != value:
                notes.append(f"{name} {value!r:.20} clamped to {numbers[name]:g}")
        directive = Directive(
            tuple(dict.fromkeys(forms)),
            int(numbers["samples"]),
            numbers["lr"],
            int(numbers["steps"]),
            int(numbers["rank"]),
            fields["layers"],
        )
        return directive, "; ".join(notes), ""

    def recipe(self, directive: Directive) -> Recipe:
        """How a directive's update trains; what it does not choose is the run's."""
        inner = self.settings.inner
        upper = directive.layers == "upper"
        return replace(
            inner.recipe,
            steps=directive.steps,
            epochs=0,
            lr=directive.lr,
            rank=directive.rank,
            alpha=directive.rank * inner.alpha / inner.rank,
            targets=self._base_targets + (_UPPER if upper else ""),
        )

    def change(self, edit: Edit, task: Task) -> Change:
        """See `base.EditKind`: the texts' lines, trained on as the directive says."""
        if edit.problem:
            return Change(None, edit.problem)
        directive, _, problem = self.read(edit.completion.text)
        if directive is None:
            return Change(None, problem)
        texts = [text.text for text in edit.further]
        return text_change(self.settings, self.tokens, task, texts, recipe=self.recipe(directive), samples=max(1, len(texts)))

    @staticmethod
    def largest(settings: config.Settings) -> tuple[Recipe, int]:
        """See `base.EditKind`."""
        o, base = settings.edits.own("directives", DirectiveSettings), settings.inner.recipe
        rank, texts = max(*o.rank, base.rank), max(map(len, o.forms)) * max(o.samples)  # rungs train with the run's
        targets = settings.targets.partition("@")[0] + ("" if "all" in o.layers else _UPPER)
        alpha = rank * base.alpha / base.rank
        return replace(base, steps=max(*o.steps, base.steps), epochs=0, rank=rank, alpha=alpha, targets=targets), texts


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's fields; a field that comes twice is refused."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field comes twice")
    return fields
