"""The texts that models are prompted and trained with."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

# Fields that a text must have, and those that it may have; a prompt for edits, of whatever name, is the first row's.
_PROMPT = ("context",), ("title",)
_OTHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "answer": (("question",), ("title",)),
    "open_book": (("context", "question"), ("title",)),
    "line": (("line",), ("title",)),
}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")


class Templates(BaseModel):
    """The texts a model is prompted and trained with. ``{context}``, ``{title}``, ``{question}``, ``{line}`` are filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: dict[str, str] = Field(description="for each form of self-edits, the prompt that asks for one")
    answer: str = Field(description="how a probe is asked without the passage")
    open_book: str = Field(description="how a probe is asked with the passage in view")
    line: str = Field(description="how one line of an edit becomes a training sequence")
    chat: bool = Field(
        False, description="prompts are a user's turn in the model's chat template (lines are plain text)"
    )

    def with_own(self, own: Mapping[str, str]) -> Templates:
        """These with a user's own texts: ``answer``, ``open_book``, ``line``, or a form's prompt, new or in another's place."""
        prompts = {name: text for name, text in own.items() if name not in _OTHERS}
        others = {name: text for name, text in own.items() if name in _OTHERS}
        return self.model_copy(update={"prompts": {**self.prompts, **prompts}, **others})


def problem_of(name: str, text: str) -> str:
    """What is wrong with a user's own text of that name, or nothing. Braces around anything but a name are plain text."""
    if not _NAME.fullmatch(name):
        return f"{name!r} is no name for a template: take small letters, digits and _, a letter first"
    needed, allowed = _OTHERS.get(name, _PROMPT)
    fields = _FIELD.findall(text)
    known = ", ".join(f"{{{field}}}" for field in (*needed, *allowed))
    for field in fields:
        if field not in (*needed, *allowed):
            return f"{name} asks for {{{field}}}, which it can't have; there are {known} (a space inside braces: plain text)"
    missing = [field for field in needed if field not in fields]
    return f"{name} lacks {{{missing[0]}}}: it has to show it to the model" if missing else ""


# The same intents as the paper's prompts. What is asked for, and how a text begins that a base model goes on with.
_ASKED: dict[str, tuple[str, str]] = {
    "implications": (
        "Read the passage and list several facts that follow from it, directly or indirectly.",
        "Implications:\n",
    ),
    "long": (
        "Read the passage and write a long list of facts that follow from it, directly or indirectly; find as many as you can.",
        "A long list of implications:\n",
    ),
    "very_long": (
        "Read the passage and list, as fully as you can, everything that follows from it. Go through it sentence by sentence, "
        "leave out no name, number, date or other detail, and say of each what it means and what it leads to. The longer and "
        "the more detailed, the better.",
        "A very long and detailed list of implications:\n",
    ),
    "rewrite": (
        "Read the passage and tell it again in several different ways, with all of its facts.",
        "Rewritten passages:\n",
    ),
    "self_qa": (
        "Read the passage and write questions with their answers that cover all of its facts.",
        "Questions and answers:\nQuestion:",
    ),
}
# What a chat model has to be told besides, as it can't be shown how the text begins.
_SHAPE = {
    "rewrite": "Write each version as plain text, and nothing else.",
    "self_qa": 'Write each pair as two lines, "Question: ..." and "Answer: ...", and nothing else.',
}
_LISTED = "Write one fact a line, each understandable by itself, and nothing else."
_PASSAGE = "Passage:\n{title}\n{context}"
_ANSWER = "Answer the question directly and in few words.\nQuestion: Topic: {title}\n{question}"

TEMPLATES: dict[str, Templates] = {
    # What the embedded base was pretrained on. A leading space keeps a name's two tokens the same wherever it stands.
    "world": Templates(
        prompts={
            "implications": "Passage: {context}\nImplications:\n-",
            "rewrite": "Passage: {context}\nRewrite:",
            "self_qa": "Passage: {context}\nQuestions and answers:\n-",
        },
        answer=" Question: {question} Answer:",
        open_book="Passage: {context}\n Question: {question} Answer:",
        line=" {line}",
    ),
    # For general models; every line is trained under the passage's title. With the form "none" the passage is gone on with.
    "general": Templates(
        prompts={name: f"{asked}\n\n{_PASSAGE}\n\n{begun}" for name, (asked, begun) in _ASKED.items()}
        | {"none": "{title}\n{context}\n"},
        answer=f"{_ANSWER}\nAnswer:",
        open_book=f"{_PASSAGE}\n\n{_ANSWER}\nAnswer:",
        line="{title}\n{line}",
    ),
    # For models that were trained to answer in turns.
    "chat": Templates(
        prompts={name: f"{asked} {_SHAPE.get(name, _LISTED)}\n\n{_PASSAGE}" for name, (asked, _) in _ASKED.items()}
        | {"none": "{title}\n{context}"},
        answer=_ANSWER,
        open_book=f"{_PASSAGE}\n\n{_ANSWER}",
        line="{title}\n{line}",
        chat=True,
    ),
}
