"""The texts that models are prompted and trained with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Templates(BaseModel):
    """The texts a model is prompted and trained with. ``{context}``, ``{title}``, ``{question}``, ``{line}`` are filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    implications: str = Field(description="prompt for a list of implications of the passage")
    rewrite: str = Field(description="prompt for the passage in other words")
    self_qa: str = Field(description="prompt for question-answer pairs about the passage")
    answer: str = Field(description="how a probe is asked without the passage")
    open_book: str = Field(description="how a probe is asked with the passage in view")
    line: str = Field(description="how one line of an edit becomes a training sequence")


TEMPLATES: dict[str, Templates] = {
    # What the embedded base was pretrained on. A leading space keeps a name's two tokens the same wherever it stands.
    "world": Templates(
        implications="Passage: {context}\nImplications:\n-",
        rewrite="Passage: {context}\nRewrite:",
        self_qa="Passage: {context}\nQuestions and answers:\n-",
        answer=" Question: {question} Answer:",
        open_book="Passage: {context}\n Question: {question} Answer:",
        line=" {line}",
    ),
    # The same intents as the paper's prompts, for general models; every line is trained under the passage's title.
    "general": Templates(
        implications="Read the passage and list several facts that follow from it, directly or indirectly.\n\n"
        "Passage:\n{title}\n{context}\n\nImplications:\n",
        rewrite="Read the passage and tell it again in several different ways, with all of its facts.\n\n"
        "Passage:\n{title}\n{context}\n\nRewritten passages:\n",
        self_qa="Read the passage and write questions with their answers that cover all of its facts.\n\n"
        "Passage:\n{title}\n{context}\n\nQuestions and answers:\nQuestion:",
        answer="Answer the question directly and in few words.\nQuestion: Topic: {title}\n{question}\nAnswer:",
        open_book="Passage:\n{title}\n{context}\n\nAnswer the question directly and in few words.\n"
        "Question: Topic: {title}\n{question}\nAnswer:",
        line="{title}\n{line}",
    ),
}
