"""When two texts are the same although their characters differ: invisible characters, compatibility forms, minus signs."""

from __future__ import annotations

import re
import unicodedata

# Shown as nothing, but not of the category Cf: combining grapheme joiner, some of Khmer and Mongolian, variation selectors.
_IGNORED = re.compile("[\u034f\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# Spaces that typography puts between groups of three digits; an ordinary space may stand between two numbers.
_IN_NUMBER = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")
_ALIKE = str.maketrans({"\u2212": "-", "\u2044": "/"})  # the minus sign, and the stroke of a fraction


def unified(text: str) -> str:
    """``text`` in NFKC, without invisible characters, with one minus sign, and with decimal digits of any script as 0 to 9.

    ASCII stays as it is. Case, accents, punctuation and ordinary spaces are kept.
    """
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", _IN_NUMBER.sub("", _IGNORED.sub("", text))).translate(_ALIKE)
    return "".join(_digit(char) for char in text if char.isascii() or unicodedata.category(char) != "Cf")


def passage_key(text: str) -> str:
    """What two copies of a passage have in common: ``text`` `unified`, without case and runs of white space."""
    return " ".join(unified(text).casefold().split())


def _digit(char: str) -> str:
    return str(unicodedata.decimal(char)) if char.isdecimal() else char
