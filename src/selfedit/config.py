"""A run's settings. Torch-free; a field's description is its help, written once."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of every settings section: unknown fields are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Templates(Section):
    """The texts a model is prompted and trained with. ``{context}``, ``{title}``, ``{question}``, ``{line}`` are filled in."""

    implications: str = Field(description="prompt for a list of implications of the passage")
    rewrite: str = Field(description="prompt for the passage in other words")
    self_qa: str = Field(description="prompt for question-answer pairs about the passage")
    answer: str = Field(description="how a probe is asked without the passage")
    open_book: str = Field(description="how a probe is asked with the passage in view")
    line: str = Field(description="how one line of an edit becomes a training sequence")


TEMPLATES: dict[str, Templates] = {
    "world": Templates(
        implications="Passage: {context}\nImplications:\n-",
        rewrite="Passage: {context}\nRewrite:",
        self_qa="Passage: {context}\nQuestions and answers:\n-",
        answer=" Question: {question} Answer:",
        open_book="Passage: {context}\n Question: {question} Answer:",
        line=" {line}",
    ),
}
