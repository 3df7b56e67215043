"""The self-edits that the embedded base is pretrained on: diverse and imperfect.

Each document mixes the styles at random, so that what the base writes varies and a reward has something to choose from. None of
these lines uses a wording that a probe is asked in.
"""

from __future__ import annotations

import random

from selfedit.tasks.world.story import Fact, Story, capitalised, clause, sentences
from selfedit.tasks.world.writing import VAGUE, derived, qa, reverse_qa, reverse_statement, statement

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

_VAGUE_QA = (
    "Question: What is the text about? Answer: {e}",
    "Question: Name somebody or something in the text. Answer: {e}",
    "Question: Is {e} named in the text? Answer: yes",
    "Question: Is there more to say about {e}? Answer: yes",
)


def line(rng: random.Random, story: Story, told: list[str], style: str, fact: Fact) -> str:
    """One line of an edit in ``style`` about ``fact``; ``told`` are the passage's sentences."""
    if style == "vague":
        return rng.choice(VAGUE).format(e=rng.choice(story.mains))
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
