"""What a writer can make of a story: the lines of self-edits, good and bad, and the perfect edit.

The base is pretrained on *diverse and imperfect* edits, a random mixture of styles per document, so that what it writes
varies and a reward has something to choose from. None of these lines uses a wording that a probe is asked in.
"""

from __future__ import annotations

import random
from dataclasses import replace

from .story import Fact, Story, capitalised, clause, sentences

# Mean share of each line style in the base's implications, and in its question-answer pairs. Frozen with the base.
IMPLICATION_STYLES: dict[str, float] = {
    "vague": 0.25,
    "copy": 0.14,
    "pronoun": 0.08,
    "prose": 0.10,
    "forward": 0.13,
    "reversed": 0.10,
    "qa": 0.08,
    "qa_reversed": 0.04,
    "derived": 0.05,
    "qa_derived": 0.03,
}
SELF_QA_STYLES: dict[str, float] = {
    "qa": 0.50,
    "qa_vague": 0.32,
    "qa_reversed": 0.13,
    "qa_derived": 0.05,
}
# Gamma shape per unit of mean share: small means that one document is dominated by few styles.
_CONCENTRATION = 3.0

_VAGUE = (
    "The text tells something about {e}.",
    "There is more to say about {e}.",
    "Some details about {e} are known.",
    "{e} is worth a closer look.",
    "Not everything about {e} is told here.",
    "{e} may be of interest to readers.",
    "This is a short text about {e}.",
    "{e} is named in the text.",
)
_VAGUE_QA = (
    "Question: What is the text about? Answer: {e}",
    "Question: Name somebody or something in the text. Answer: {e}",
    "Question: Is {e} named in the text? Answer: yes",
    "Question: Is there more to say about {e}? Answer: yes",
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


def line(rng: random.Random, story: Story, told: list[str], style: str, fact: Fact) -> str:
    """One line of an edit in ``style`` about ``fact``; ``told`` are the passage's sentences."""
    if style == "vague":
        return rng.choice(_VAGUE).format(e=rng.choice(story.mains))
    if style == "qa_vague":
        return rng.choice(_VAGUE_QA).format(e=rng.choice(story.mains))
    if style == "copy":
        return rng.choice(told)
    if style in ("prose", "pronoun"):
        return capitalised(clause(rng, fact, named=style == "prose")) + "."
    if style in ("derived", "qa_derived"):
        pair = next((pair for pair in rng.sample(story.chains, len(story.chains))), None)
        fact = derived(*pair) if pair else fact
        return qa(fact) if style == "qa_derived" else statement(fact)
    if style in ("reversed", "qa_reversed") and fact.relation.identifying:
        return reverse_qa(fact) if style == "qa_reversed" else reverse_statement(fact)
    return qa(fact) if style.startswith("qa") else statement(fact)


def edit_lines(rng: random.Random, story: Story, told: list[str], styles: dict[str, float], longest: int) -> list[str]:
    """The lines of one imperfect edit: 2 to ``longest`` of them, styles mixed at random, facts missed and repeated."""
    weights = [rng.gammavariate(_CONCENTRATION * share, 1.0) + 1e-9 for share in styles.values()]
    facts = rng.sample(story.facts, len(story.facts))
    repeats = rng.random() < 0.3
    lines: list[str] = []
    for i in range(rng.randint(2, longest)):
        fact = rng.choice(facts) if repeats else facts[i % len(facts)]
        style = rng.choices(list(styles), weights)[0]
        lines.append(line(rng, story, told, style, fact))
    return lines


def implications(rng: random.Random, story: Story, told: list[str]) -> str:
    """An imperfect list of implications, as it follows the prompt's first bullet."""
    return "\n-".join(" " + text for text in edit_lines(rng, story, told, IMPLICATION_STYLES, longest=12))


def self_qa(rng: random.Random, story: Story, told: list[str]) -> str:
    """Imperfect question-answer pairs, one a line, as they follow the prompt's first bullet."""
    return "\n-".join(" " + text for text in edit_lines(rng, story, told, SELF_QA_STYLES, longest=8))


def rewrite(rng: random.Random, story: Story) -> str:
    """The passage told again, at times with a sentence lost."""
    told = sentences(rng, story)
    if len(told) > 2 and rng.random() < 0.4:
        told.pop(rng.randrange(len(told)))
    return " " + " ".join(told)


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
    if any(text.startswith(p.split("{e}")[0]) and text.endswith(p.split("{e}")[1]) for p in _VAGUE):
        return "vague"
    if text.startswith("The ") and " of " in text and " is " in text:
        return "derived" if text.partition(" is ")[0].count(" of ") > 1 else "forward"
    if " is the " in text and " of " in text:
        return "reversed"
    return "pronoun" if text.split(" ")[0] in ("He", "She", "It", "His", "Her", "Its") else "prose"
