"""Small things that decide whether an answer is right: numbers, signs, units, single letters and symbols.

SQuAD's normalisation drops them (15 becomes equal to 1.5, C to C++); the offline grader compares them first, as written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import NamedTuple

from ..characters import unified

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "grader"
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen",
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth",
)
_TENS = {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
SPELLED = {word: n for words in _ONES for n, word in enumerate(words.split())} | _TENS
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}  # powers of ten
_HYPHENS = str.maketrans({**dict.fromkeys("–—‐", "-"), **dict.fromkeys("*`"), "≥": ">=", "≤": "<="})  # "**5**" is emphasis
_MONEY = "$€£¥₹₽₩₺₫₪₱₦₴₿¢"
_TOKEN = re.compile(
    # A number: sign, currency, digits with separators, and what makes a decade of it or means "or more".
    rf"(?P<number>(?:(?<![\w)\]%.])[+-]+)?(?:[{_MONEY}][+-]*)?\.?\d+(?:[.,:/]\d+)*(?:(?<=\d\d\d0)['’]?s\b|\++)?)"
    # A word, also C++ and A- (blood groups, grades).
    r"|(?P<word>[^\W\d_][^\W_]*(?:['’][^\W\d_]+|/[hs]\b)*(?:[+#]+(?!\w)|(?:(?<=\b[A-FO])|(?<=\bAB))-(?![\w-]))?)"
    r"|(?P<symbol>°[CF]?|[%+#=<>^@√∞±×÷|≠\\]+)"
)
_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"(?i)\b(?:minus|negative)\s+(?=[{_MONEY}]?\d|(?:{'|'.join(SPELLED)})\b)", "-"),
        (r"\b(AB|[A-FO])[ -](?:negative|minus)\b", r"\1-"),
        (r"\b(AB|[A-FO])[ -](?:positive|plus)\b", r"\1+"),
        (r"(?m)^\s*\d{1,2}[.:)]\s+(?=[^\W\d_])", ""),  # the number of a list's item
        (r"\b([A-Z])\.(?=[A-Z]\b)", r"\1"),  # U.S. is US
        (r"(?i)\b([ap])\.\s?m\b\.?", r"\1m"),
        (r"\b([A-Z]{1,3})-(?=\d)", r"\1"),  # B-52 is B52
        (r"(?<!\w)#(?=\d)", ""),  # #1 is number 1
        (r"(?<![\d.,])(\d{1,3}) (\d{3})(?: (\d{3}))?(?![\d.,]?\d)", r"\1\2\3"),  # 10 000
    )
)
_MIXED = re.compile(r"(?<![\d.,:/-])(\d{1,3})[ -](\d{1,2}/\d{1,2})(?![\d/])")
_PAIR = re.compile(r"(?<![\w.,:/-])(\d+) ?(?:-|to) ?(\d+)(?![\w-])")


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
    text = _spelled_alike(text)
    found, tokens = set(), list(_TOKEN.finditer(text))
    for i, token in enumerate(tokens):
        word, behind = token[0].casefold(), _behind(text, tokens[i : i + 4])
        if token.lastgroup == "number":
            found.add(_number(token[0], behind))
        elif given and word in SPELLED:
            ones = SPELLED.get(behind[0].casefold(), 10) if word in _TENS and behind else 10
            sign = "-" if re.search(r"(?<!\w)-$", text[max(0, token.start() - 2) : token.start()]) else ""
            found.add(_number(f"{sign}{SPELLED[word] + ones % 10}", behind[ones < 10 :]))
        elif token.lastgroup == "symbol":
            found |= {Mark(word)} - {Mark(unit) for unit in units()}  # a unit stands with its number
        elif _is_letter(token, text, given) if len(word) == 1 else re.search(r"[\d+#-]", word):  # also A4, C++, A-
            found.add(Mark(re.sub(r"(?<=\d)s$", "", word)))
    return frozenset(found)


def _spelled_alike(text: str) -> str:
    """``text`` in one spelling of what decides: 10² as 10^2, 1½ as 1.5, -40 with a hyphen, 10 000 without the space."""
    text = re.sub(r"(?<=\d)(?=[⁺⁻]?[⁰¹²³⁴-⁹])", "^", text)  # before NFKC makes 102 of it
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
    text = re.sub(r"(?<=\w)—", " — ", text)  # a dash behind a letter is no A-
    text = unified(text).translate(_HYPHENS)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return _MIXED.sub(lambda m: f"{int(m[1]) + Decimal(part)}" if (part := _decimal(m[2])) else m[0], text)


def _decimal(fraction: str) -> str:
    """A proper fraction in lowest terms that ends soon (1/2, 3/4, not 2/4: that may be a measure) as a decimal; else empty."""
    above, below = map(int, fraction.split("/"))
    ends = 0 < above < below and math.gcd(above, below) == 1 and 1000 % below == 0
    return f"{(Decimal(above) / below).normalize():f}" if ends else ""


def turned_round(gold: str, answer: str) -> str:
    """A pair of numbers (a score, a range) of ``gold`` that ``answer`` gives the other way round only; empty where none."""
    wanted, given = ({(m[1], m[2]) for m in _PAIR.finditer(_spelled_alike(text))} for text in (gold, answer))
    return next((f"{b}-{a}" for a, b in sorted(wanted - given) if (b, a) in given - wanted), "")


def _behind(text: str, tokens: Sequence[re.Match[str]]) -> list[str]:
    """The words and symbols that follow the first token, with nothing but spaces and hyphens between."""
    pairs = takewhile(lambda pair: not text[pair[0].end() : pair[1].start()].strip(" -"), pairwise(tokens))
    return [token[0] for _, token in takewhile(lambda pair: pair[1].lastgroup != "number", pairs)]


def _number(written: str, behind: list[str]) -> Mark:
    """A number as a mark; ``behind`` are the words and symbols that follow it."""
    money = next((sign for sign in _MONEY if sign in written), "")
    sign, digits = re.fullmatch(r"([+-]*)(.*)", written.replace(money, "").replace("'", "").replace("’", "")).groups()  # type: ignore[union-attr]
    digits = sign + _value(digits)
    while behind and (power := SCALES.get(behind[0].casefold().removesuffix("s"))):
        if not re.fullmatch(r"[+-]?\.?\d+(\.\d+)?", digits):
            break
        digits = f"{Decimal(digits).scaleb(power).normalize():f}"
        behind = behind[1:]
    return Mark(digits, money or (units().get(_key(behind[0]), "") if behind else ""))


def _value(digits: str) -> str:
    """An unsigned number in one spelling of its value. What is a number to one and a version to another (3.1, 3.10) stays."""
    if re.fullmatch(r"\d{1,3}(,\d{2,3})*,\d{3}(\.\d+)?\+?", digits):  # thousands, also as in 1,00,000
        digits = digits.replace(",", "")
    elif re.fullmatch(r"\d{1,3}(\.\d{3})+,\d+|\d{1,3}(\.\d{3}){2,}", digits):  # 1.234,5
        digits = digits.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d+,\d+", digits):  # 1,5
        digits = digits.replace(",", ".")
    elif re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", digits):  # a time, which some write with a point
        digits = digits.replace(":", ".")
    elif re.fullmatch(r"\d{1,2}/\d{1,4}", digits):
        digits = _decimal(digits) or digits
    digits = f"0{digits}" if digits.startswith(".") else digits
    if re.fullmatch(r"0\.\d+", digits):
        digits = digits.rstrip("0")
    return re.sub(r"^(\d+)\.0*$", r"\1", digits)


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
