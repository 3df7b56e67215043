"""Small things that decide whether an answer is right: numbers, signs, units, single letters and symbols.

SQuAD's normalisation drops them (15 becomes equal to 1.5, C to C++); the offline grader compares them first, as written.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import NamedTuple

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "grader"
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen",
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth",
)
_TENS = {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
SPELLED = {word: n for words in _ONES for n, word in enumerate(words.split())} | _TENS
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}  # powers of ten
_MINUS = str.maketrans("−–—‐‑", "-----", "*`")  # "**5**" is emphasis
_TOKEN = re.compile(
    # A number: sign, currency, digits with separators, and what is written above the line or means "or more".
    r"(?P<number>(?:(?<![\w)\]%.])[+-]+)?(?:[$€£¥][+-]*)?\.?\d+(?:[.,:/]\d+)*[²³¹⁰⁴-⁹¼½¾⅓⅔+]*)"
    r"|(?P<word>[^\W\d_][^\W_]*(?:['’][^\W\d_]+|/[hs]\b)*(?:[+#]+(?!\w))?)"
    r"|(?P<symbol>°[CF]?|[%+#=<>^~@√∞±×÷|\\]+)"
)


class Mark(NamedTuple):
    """A number with its sign, a single letter or a symbol, as text; a number's unit, empty where none is written."""

    text: str
    unit: str = ""


@lru_cache(maxsize=1)
def units() -> dict[str, str]:
    """The unit that each spelling names; a spelling of three letters or more in lower case."""
    lines = (ASSETS / "units.txt").read_text(encoding="utf-8").splitlines()
    return {_key(word): line.split()[0] for line in lines if not line.startswith("# ") for word in line.split()}


def _key(spelling: str) -> str:
    return spelling if len(spelling) < 3 else spelling.casefold()


@lru_cache(maxsize=4096)
def marks(text: str, given: bool = False) -> frozenset[Mark]:
    """What decides in ``text``. ``given``: read generously, also spelled numbers ("four" gives 4) and initials ("W. Bush")."""
    text = unicodedata.normalize("NFC", text).translate(_MINUS)
    text = re.sub(r"(?i)\b(?:minus|negative)\s+(?=[$€£¥]?\d)", "-", text)
    text = re.sub(r"(?m)^\s*\d{1,2}[.:)]\s+(?=[^\W\d_])", "", text)  # the number of a list's item
    text = re.sub(r"\b([A-Z])\.(?=[A-Z]\b)", r"\1", text)  # U.S. is US
    found, tokens = set(), list(_TOKEN.finditer(text))
    for i, token in enumerate(tokens):
        word, behind = token[0].casefold(), _behind(text, tokens[i : i + 4])
        if token.lastgroup == "number":
            found.add(_number(token[0], behind))
        elif given and word in SPELLED:
            ones = SPELLED.get(behind[0].casefold(), 10) if word in _TENS and behind else 10
            found.add(_number(str(SPELLED[word] + ones % 10), behind[ones < 10 :]))
        elif token.lastgroup == "symbol":
            found |= {Mark(word)} - {Mark(unit) for unit in units()}  # a unit stands with its number
        elif _is_letter(token, text, given) if len(word) == 1 else re.search(r"[\d+#]", word):  # also A4, C++
            found.add(Mark(word))
    return frozenset(found)


def _behind(text: str, tokens: Sequence[re.Match[str]]) -> list[str]:
    """The words and symbols that follow the first token, with nothing but spaces and hyphens between."""
    pairs = takewhile(lambda pair: not text[pair[0].end() : pair[1].start()].strip(" -"), pairwise(tokens))
    return [token[0] for _, token in takewhile(lambda pair: pair[1].lastgroup != "number", pairs)]


def _number(written: str, behind: list[str]) -> Mark:
    """A number as a mark; ``behind`` are the words and symbols that follow it."""
    money = next((sign for sign in "$€£¥" if sign in written), "")
    digits = written.replace(money, "")
    if re.fullmatch(r"[+-]*\d{1,3}(,\d{3})+(\.\d+)?\+?", digits):
        digits = digits.replace(",", "")
    while behind and (power := SCALES.get(behind[0].casefold().removesuffix("s"))):
        if not re.fullmatch(r"[+-]?\.?\d+(\.\d+)?", digits):
            break
        digits = f"{Decimal(digits).scaleb(power).normalize():f}"
        behind = behind[1:]
    return Mark(digits, money or (units().get(_key(behind[0]), "") if behind else ""))


def _is_letter(token: re.Match[str], text: str, given: bool) -> bool:
    """Whether a word of one letter is a name ("vitamin A"): no article, pronoun, plural's ending, or (unless given) initial."""
    letter, before, after = token[0], text[: token.start()], text[token.end() :]
    if letter in "st" and before[-1:].isdigit():
        return False
    if letter == "a" or (letter in "AI" and re.search(r"(^|[.!?:\"“]\s*)$", before)):
        return not re.match(r"\s+[^\W\d_]" if letter == "a" else r"\s+[a-z]", after)
    return given or not re.match(r"\.\s*[A-Z]", after)


def lacking(wanted: Iterable[Mark], given: Iterable[Mark]) -> list[Mark]:
    """The wanted marks that none of the given ones equals, in order; a unit that only one of two gives decides nothing."""
    given = set(given)
    bare, any_unit = {mark.text for mark in given if not mark.unit}, {mark.text for mark in given}
    return sorted(m for m in wanted if m not in given and m.text not in (bare if m.unit else any_unit))
