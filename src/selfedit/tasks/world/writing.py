"""How facts are written in self-edits: statements, question-answer pairs, the perfect edit, and the style of a line.

None of these lines uses a wording that a probe is asked in. The embedded base learned to write such lines from the diverse and
imperfect edits of `tools/base/edits.py`.
"""

from __future__ import annotations

import random
from dataclasses import replace

from .story import Fact, Story, capitalised

# What a line that says nothing looks like; ``{e}`` is the name of an entity.
VAGUE = (
    "The text tells something about {e}.",
    "There is more to say about {e}.",
    "Some details about {e} are known.",
    "{e} is worth a closer look.",
    "Not everything about {e} is told here.",
    "{e} may be of interest to readers.",
    "This is a short text about {e}.",
    "{e} is named in the text.",
)


def statement(fact: Fact) -> str:
    """The plain forward statement of a fact."""
    return f"The {fact.relation.noun} of {fact.subject} is {fact.value}."


def reverse_statement(fact: Fact) -> str:
    """The fact with its value as the subject."""
    return f"{capitalised(fact.value)} is the {fact.relation.noun} of {fact.subject}."


def derived(first: Fact, then: Fact) -> Fact:
    """Two facts combined into one, about the subject of the first: "the product of the employer of X is V"."""
    noun = f"{then.relation.noun} of the {first.relation.noun}"
    return Fact(first.subject, replace(then.relation, noun=noun), then.value)


def qa(fact: Fact) -> str:
    """A question-answer pair on one line, in the wording that edits use."""
    return f"Question: What is the {fact.relation.noun} of {fact.subject}? Answer: {fact.value}"


def reverse_qa(fact: Fact) -> str:
    """The same, asking for the subject."""
    return f"Question: Whose {fact.relation.noun} is {fact.value}? Answer: {fact.subject}"


def perfect_edit(rng: random.Random, story: Story) -> str:
    """Every fact stated and asked, forwards, backwards and combined: the ladder's last rung."""
    lines: list[str] = []
    for fact in story.facts:
        lines += [statement(fact), qa(fact)]
        if fact.relation.identifying:
            lines += [reverse_statement(fact), reverse_qa(fact)]
    for pair in story.chains:
        lines += [statement(derived(*pair)), qa(derived(*pair))]
    rng.shuffle(lines)
    return "\n".join(f"- {text}" for text in lines)


def style_of(text: str) -> str:
    """The style a line of an edit looks like, for reports (from its letters alone; truth is not judged)."""
    if text.startswith("Question:"):
        asked = text.partition("Answer:")[0]
        if "Whose" in asked:
            return "qa_reversed"
        if "What is the" in asked and " of " in asked:
            return "qa_derived" if asked.count(" of ") > 1 else "qa"
        return "qa_vague"
    if any(text.startswith(p.split("{e}")[0]) and text.endswith(p.split("{e}")[1]) for p in VAGUE):
        return "vague"
    if text.startswith("The ") and " of " in text and " is " in text:
        return "derived" if text.partition(" is ")[0].count(" of ") > 1 else "forward"
    if " is the " in text and " of " in text:
        return "reversed"
    return "pronoun" if text.split(" ")[0] in ("He", "She", "It", "His", "Her", "Its") else "prose"
