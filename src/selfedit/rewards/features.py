"""What the offline grader measures of a question, its gold answer and an answer: one number per feature.

Words are compared without case, accents and endings; articles, prepositions and auxiliaries are left out. A "new" word is one
that the question does not contain. A gold word counts as found where the answer has it or a word spelled much like it.
"""

from __future__ import annotations

import re
import unicodedata
from difflib import SequenceMatcher
from functools import lru_cache

from ..characters import unified
from .decisive import SCALES, SPELLED, units

MAX_CHARS, MAX_ANSWER_CHARS = 400, 2000  # of a question or a gold, and of an answer: bounds the time
_NEAR = 0.7  # similarity from which a word counts as found
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*")
_STOP = frozenset(
    "a an the of in on at to for from by with as and or is are was were be been being it its this that these those there "
    "which who whom whose what when where why how did do does done has have had will would can could may might about "
    "into than then they their them he his him she her i we our you your s also such".split()
)


def stems(text: str) -> list[str]:
    """The words of ``text`` that carry meaning, each cut to its first letters; numbers in digits, % as a word."""
    text = unified(text)
    text = re.sub(r"(?<=\d)(?:st|nd|rd|th|s)\b", "", text.replace("%", " percent "))
    return [_stem(word) for word in map(_folded, _WORD.findall(text)) if word not in _STOP]


@lru_cache(maxsize=1)
def number_words() -> frozenset[str]:
    """The stems of words that belong to a number: units, scales and signs."""
    return frozenset(stems(" ".join((*units(), *SCALES, "minus", "negative"))))


def features(question: str, gold: str, answer: str) -> dict[str, float]:
    """Every feature by its name; finite, with the same names in the same order for every input."""
    # Cut before, and cut after: one character may stand for eighteen.
    cuts = (question, MAX_CHARS), (gold, MAX_CHARS), (answer, MAX_ANSWER_CHARS)
    question, gold, answer = (unified(text.strip()[:most])[:most] for text, most in cuts)
    asked, wanted, given = (list(dict.fromkeys(stems(text))) for text in (question, gold, answer))
    wanted = wanted or [_folded(gold)]
    new = [word for word in wanted if word not in asked] or wanted
    found = [word for word in new if any(_similarity(word, other) >= _NEAR for other in given)]
    missing = [word for word in new if word not in found]
    names = {_stem(_folded(word)) for word in _WORD.findall(gold) if word[:1].isupper()}
    plain = [word for word in missing if word not in names and not word[:1].isdigit()]
    added = [word for word in given if word not in asked]
    first = set(stems(re.split(r"(?<=[.!?])\s", answer)[0]))
    wanted_3, given_3, asked_3 = (_trigrams(text) for text in (gold, answer, question))
    values = {
        "new gold words found": _share(len(found), len(new)),
        "new gold words found in the first sentence": _share(sum(word in first for word in new), len(new)),
        "new gold names and numbers missing": len(missing) - len(plain),
        "other new gold words missing": len(plain),
        "new gold words": len(new),
        "longest run of gold letters": _longest_run(gold, answer),
        "new gold trigrams found": _share(len(wanted_3 & given_3 - asked_3), len(wanted_3 - asked_3)),
        "new words of the answer that are gold": _share(sum(word in wanted for word in added), len(added)),
        "question words in the answer": _share(sum(word in given for word in asked), len(asked)),
    }
    return {name: round(float(value), 4) for name, value in values.items()}


def _folded(text: str) -> str:
    """``text`` without case and accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


@lru_cache(maxsize=1 << 14)
def _stem(word: str) -> str:
    if word in SPELLED:
        return str(SPELLED[word])
    return word.replace(",", "") if word[:1].isdigit() else word[:6]


def _similarity(one: str, other: str) -> float:
    """How alike two stems are, 0..1: Dice's coefficient of their pairs of letters; numbers and short words are equal or not."""
    if one == other or min(len(one), len(other)) < 4 or one[:1].isdigit():
        return float(one == other)
    a, b = _pairs(one), _pairs(other)
    return 2 * len(a & b) / (len(a) + len(b))


@lru_cache(maxsize=1 << 14)
def _pairs(word: str) -> frozenset[str]:
    return frozenset(map("".join, zip(f"^{word}", f"{word}$", strict=True)))


def _trigrams(text: str) -> set[str]:
    padded = f"  {_folded(text)} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)}


def _longest_run(gold: str, answer: str) -> float:
    """The share of the gold's letters in the longest part of it that the answer has as it stands."""
    wanted, given = (re.sub(r"\W", "", _folded(text))[:MAX_CHARS] for text in (gold, answer))
    return _share(SequenceMatcher(None, wanted, given, autojunk=False).find_longest_match().size, len(wanted))


def _share(part: float, whole: float, empty: float = 0.0) -> float:
    return part / whole if whole else empty
