"""The words of the embedded world: regular two-word names, closed categories, and the split of every name by hash.

A name is two words that are one token each (`tools/base/tokenizer.py`), so that copying a name is learnable by a
model of a few million parameters. An *identifying* kind (person, town, company, ship) has over 20 000 names; a
*category* kind is a short list of common nouns. The words are in ``assets/world/lexicon.toml``.
"""

from __future__ import annotations

import random
import tomllib
import zlib
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

Split = Literal["pretrain", "train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
IDENTIFYING: tuple[str, ...] = ("person", "town", "company", "ship")

# Share of a kind's names in each split, in twentieths, in the order of SPLITS.
_TWENTIETHS = (12, 3, 2, 3)
_ASSETS = Path(__file__).resolve().parents[2] / "assets" / "world"


@cache
def read_asset(name: str) -> dict[str, Any]:
    """The TOML file ``name`` of the world's data; its order is kept. Not to be changed: every caller gets the same object."""
    return tomllib.loads((_ASSETS / name).read_text(encoding="utf-8"))


@cache
def categories() -> dict[str, tuple[str, ...]]:
    """The nouns of every category."""
    return {name: tuple(text.split()) for name, text in read_asset("lexicon.toml")["categories"].items()}


@cache
def words(kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The two word lists whose product is every name of an identifying ``kind``."""
    lexicon = read_asset("lexicon.toml")
    lists = {name: text.split() for name, text in lexicon["names"][kind].items()}
    if kind == "person":
        lists["first"] = lists["female"] + lists["male"]

    def of(place: str) -> tuple[str, ...]:
        if place in lists:
            return tuple(lists[place])
        return tuple(a + b for a, b in product(lexicon["onsets"].split(), lists[f"{place}_endings"]))

    return of("first"), of("second")


def split_of(name: str) -> Split:
    """The one split a name belongs to: a hash of its letters, so no list of names has to be kept."""
    bucket = zlib.crc32(name.encode()) % 20
    for split, share in zip(SPLITS, _TWENTIETHS, strict=True):
        if bucket < share:
            return split
        bucket -= share
    raise AssertionError("the shares of the splits sum to 20")


def draw_name(rng: random.Random, kind: str, split: Split) -> str:
    """A uniformly drawn name of an identifying ``kind`` that belongs to ``split``."""
    first, second = words(kind)
    while True:
        name = f"{rng.choice(first)} {rng.choice(second)}"
        if split_of(name) == split:
            return name


def pronouns(kind: str, name: str) -> tuple[str, str, str]:
    """Subject, object and possessive pronoun of a name."""
    if kind != "person":
        return "it", "it", "its"
    female = read_asset("lexicon.toml")["names"]["person"]["female"].split()
    return ("she", "her", "her") if name.split()[0] in female else ("he", "him", "his")
