"""The texts that models are prompted and trained with."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .errors import SettingsError
from .types import Probe, Task

ASSETS = Path(__file__).resolve().parent / "assets"
# Fields that a text must have, and those that it may have; a prompt for edits, of whatever name, is the first row's.
_PROMPT = ("context",), ("title",)
_OTHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "answer": (("question",), ("title",)),
    "open_book": (("context", "question"), ("title",)),
    "line": (("line",), ("title",)),
    "directives": (("context",), ("title", "options")),
    "system": ((), ()),
}
# What a chat template is given where the settings don't say: no thinking, by each name that templates have for it, and a date
# (`today` is for the function strftime_now), so that a run gives the same numbers on whatever day it goes on.
TEMPLATE_ARGUMENTS: Mapping[str, Any] = {
    "enable_thinking": False,
    "thinking": False,
    "reasoning": False,
    "thinking_budget": 0,
    "today": "2026-01-01",
}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")
_FILLED = re.compile(r"\{(context|title|question|line|answer|options)\}")
_TITLE_LINE = re.compile(r"^\{title\}\n", re.MULTILINE)
LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")  # tokenizers refuse them


class Templates(BaseModel):
    """The texts a model is prompted and trained with. ``{context}``, ``{title}``, ``{question}``, ``{line}`` are filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: dict[str, str] = Field(description="for each form of self-edits, the prompt that asks for one")
    answer: str = Field(description="how a probe is asked without the passage")
    open_book: str = Field(description="how a probe is asked with the passage in view")
    line: str = Field(description="how one line of an edit becomes a training sequence")
    directives: str = Field(description="how a directive is asked for; ``{options}`` lists what it may choose")
    system: str = Field("", description="the system message before every turn; empty: what the chat template has of its own")
    chat: bool = Field(False, description="prompts are a user's turn in the model's chat template (lines are plain text)")

    def with_own(self, own: Mapping[str, str]) -> Templates:
        """These with a user's own texts: ``answer``, ``open_book``, ``line``, ``directives``, ``system``, or a form's prompt."""
        prompts = {name: text for name, text in own.items() if name not in _OTHERS}
        others = {name: text for name, text in own.items() if name in _OTHERS}
        return self.model_copy(update={"prompts": {**self.prompts, **prompts}, **others})


def problem_of(name: str, text: str) -> str:
    """What is wrong with a user's own text of that name, or nothing. Braces around anything but a name are plain text."""
    if not _NAME.fullmatch(name):
        return f"{name!r} is no name for a template: take small letters, digits and _, a letter first"
    needed, allowed = _OTHERS.get(name, _PROMPT)
    fields = _FIELD.findall(text)
    known = ", ".join(f"{{{field}}}" for field in (*needed, *allowed)) or "none"
    for field in fields:
        if field not in (*needed, *allowed):
            return f"{name} asks for {{{field}}}, which it can't have; there are {known} (a space inside braces: plain text)"
    missing = [field for field in needed if field not in fields]
    return f"{name} lacks {{{missing[0]}}}: it has to show it to the model" if missing else ""


@cache
def built_in_templates() -> dict[str, Templates]:
    """The texts that come with the package, by their name in ``model.templates``."""
    with (ASSETS / "templates.toml").open("rb") as stream:
        return {name: Templates(**texts) for name, texts in tomllib.load(stream).items()}


def fill(template: str, **values: str) -> str:
    """``template`` with its known fields replaced in one pass, so that braces in a value stay what they are.

    Known are ``{context}``, ``{title}``, ``{question}``, ``{line}`` and ``{answer}``; other braces are plain text. An
    empty title takes its line with it, where it has one to itself. Lone surrogates, which tokenizers refuse, become
    U+FFFD. `problem_of` sees to it that a template asks for no field that has no value.
    """
    if not values.get("title", "").strip():
        template = _TITLE_LINE.sub("", template)
    return LONE_SURROGATE.sub("\ufffd", _FILLED.sub(lambda match: values[match[1]], template))


def prompt_for(task: Task, form: str, templates: Templates) -> str:
    """The prompt that asks a policy for an edit of the ``form`` named, such as ``implications``.

    Raises:
        SettingsError: there is no such form.
    """
    if form not in templates.prompts:
        raise SettingsError(f"there is no edit form {form!r}; choose one of {', '.join(templates.prompts)}")
    return fill(templates.prompts[form], title=task.title, context=task.text)


def answer_prompt(task: Task, probe: Probe, templates: Templates, open_book: bool = False) -> str:
    """The prompt that asks a probe: without the passage, or with it in view (``open_book``)."""
    if open_book:
        return fill(templates.open_book, title=task.title, context=task.text, question=probe.question)
    return fill(templates.answer, title=task.title, question=probe.question)


def gold_text(probe: Probe, templates: Templates) -> str:
    """The gold answer as it follows the answer prompt: after a space, unless white space begins it anyway.

    In a turn it begins as the model's chat template begins answers (`Engine.encode_pair`).
    """
    gap = "" if templates.chat or templates.answer[-1:].isspace() else " "
    return gap + LONE_SURROGATE.sub("\ufffd", probe.answer)


def answer_in(said: str, probe: Probe, templates: Templates) -> str:
    """What of a text that a model wrote is its answer: a base model goes on with lines of its own, such as more questions, so it
    ends with the first line, unless a gold answer has several; of a model that answers in turns it is all of it.
    """
    said = said.strip()
    if templates.chat or any("\n" in gold.strip() for gold in probe.golds):
        return said
    return said.split("\n", 1)[0].rstrip()
