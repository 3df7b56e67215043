"""Texts as words for the offline grader: folded, stemmed, numbers read, sentences told apart. Plain Python, bounded."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_TOKEN = re.compile(r"(\d+(?:[.,]\d+)*)(?:st|nd|rd|th|s)?(?![^\W\d_])|\d+|[^\W\d_]+(?:['’](?!s\b)[^\W\d_]+)*|[.!?;\n]")
_STOP = frozenset(
    "a an the of in on at to for from by with as and or is are was were be been being it its this that these those there "
    "which who whom whose what when where why how did do does done has have had will would can could may might about "
    "into than then they their them he his him she her i we our you your s also such not no".split()
)
_UNITS = {
    word: n
    for n, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen".split()
    )
}
_ORDINALS = {
    word: n
    for n, word in enumerate(
        "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth".split()
    )
}
_TENS = {
    word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
_MORE = {"once": 1, "single": 1, "twice": 2, "both": 2, "double": 2, "half": 0.5, "quarter": 0.25, "dozen": 12}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_LARGE = 1e12  # a number that no scale word enlarges further: "million million million" stays finite
_SUFFIXES = (
    "isations izations isation ization ations ation ements ement ments ment ances ance ences ence nesses ness ities ity "
    "ically ical ists ist isms ism ings ing ives ive ables able ibles ible ions ion ians ian ied ies ers er ors or als "
    "al ous ise ize ful ly ed es s e y i o a"
).split()


@dataclass(frozen=True)
class Word:
    """A word of a text: as written, folded, its stem, its value where it is a number, and where it stands."""

    text: str
    folded: str
    stem: str
    number: float | None
    sentence: int

    @property
    def capital(self) -> bool:
        """Whether it begins with a capital letter."""
        return self.text[:1].isupper()

    @property
    def content(self) -> bool:
        """Whether it says something: no article, preposition, pronoun or auxiliary."""
        return self.folded not in _STOP


def fold(text: str) -> str:
    """``text`` without case and accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


@lru_cache(maxsize=1 << 14)
def stem(folded: str) -> str:
    """``folded`` without its ending; at least four letters stay, so that short words keep theirs apart."""
    for suffix in _SUFFIXES:
        if folded.endswith(suffix) and len(folded) - len(suffix) >= 4:
            return folded[: -len(suffix)]
    return folded[:-1] if len(folded) > 3 and folded.endswith("s") and not folded.endswith("ss") else folded


def read(text: str) -> list[Word]:
    """The words of ``text``; "ten million" and "twenty-one" are one word each, with their value."""
    words: list[Word] = []
    sentence = 0
    for match in _TOKEN.finditer(text):
        written = match[0]
        if written in ".!?;\n":
            # The dot of "J. Smith" or "U.S." ends no sentence.
            initial = written == "." and words and len(words[-1].text) == 1 and words[-1].capital
            sentence += bool(words) and not initial and words[-1].sentence == sentence
            continue
        folded = fold(written)
        number = _number(match[1] or written) if written[0].isdigit() else _spelled(folded)
        before = words[-1] if words and words[-1].sentence == sentence else None
        if folded in _SCALES:
            if before and before.number is not None and before.number < _LARGE:
                words[-1] = _word(f"{before.text} {written}", before.number * _SCALES[folded], sentence)
                continue
            number = _SCALES[folded]
        elif before and before.folded in _TENS and number is not None and 0 < number < 10:
            words[-1] = _word(f"{before.text} {written}", _TENS[before.folded] + number, sentence)
            continue
        words.append(_word(written, number, sentence))
    return words


def _word(written: str, number: float | None, sentence: int) -> Word:
    folded = fold(written)
    return Word(written, folded, stem(folded) if number is None else str(number), number, sentence)


def _number(digits: str) -> float | None:
    """The value of digits with separators: 1,000 and 4.5; None where there are too many to be a number."""
    if len(digits) > 24:
        return None
    plain = digits.replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", digits) else digits.replace(",", ".")
    try:
        return float(plain)
    except ValueError:  # several dots: a date or a version, kept apart by its text
        return None


def _spelled(folded: str) -> float | None:
    for table in (_UNITS, _TENS, _ORDINALS, _MORE):
        if folded in table:
            return float(table[folded])
    return None


@lru_cache(maxsize=1 << 14)
def _bigrams(text: str) -> frozenset[str]:
    padded = f"^{text}$"
    return frozenset(padded[i : i + 2] for i in range(len(padded) - 1))


def likeness(a: Word, b: Word) -> float:
    """How much two words are one, 0..1: numbers by value, others by stem, else by Dice's coefficient of bigrams."""
    if a.number is not None or b.number is not None:
        return float(a.number == b.number)
    if a.stem == b.stem:
        return 1.0
    if min(len(a.folded), len(b.folded)) < 4:
        return 0.0
    one, other = _bigrams(a.folded), _bigrams(b.folded)
    return 2 * len(one & other) / (len(one) + len(other))


def longest_run(wanted: Sequence[str], given: Sequence[str]) -> int:
    """The length of the longest run of ``wanted`` that stands in ``given`` without a gap."""
    best = 0
    before = [0] * (len(given) + 1)
    for a in wanted:
        now = [0] * (len(given) + 1)
        for j, b in enumerate(given):
            if a == b:
                now[j + 1] = before[j] + 1
                best = max(best, now[j + 1])
        before = now
    return best
