"""What the offline grader looks at: one number a feature, of a question, its gold answer and an answer.

"New" words are those that the question does not hold; "its sentence" is the sentence of the answer that holds most of the gold;
"by rarity" weighs a word by how few questions of the calibration speak of it. The features were chosen by
cross-validation within the calibration titles (docs/grader.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .graders import normalise
from .reading import Word, fold, likeness, longest_run, read
from .thesaurus import senses

NEAR = 0.7  # likeness from which a word counts as found, "or nearly"
_SYNONYM = 0.9  # likeness of a word to its synonym
# A question and a gold are cut here, and an answer, whose verdict lies in its beginning.
MAX_LETTERS, MAX_ANSWER = 400, 2000
_PART = re.compile(r",(?!\d)| and | or |[;()/]")
_ROUGH = frozenset(
    "about around approximately nearly almost roughly over under more less than least most up between estimated some".split()
)


@dataclass(frozen=True)
class Rarity:
    """How rare a stem is: log of ``n`` questions over those whose texts hold it (inverse document frequency)."""

    n: int
    counts: Mapping[str, int]

    def __call__(self, word: Word) -> float:
        """The weight of ``word``, in nats: about 0 for a word of every question, log(n + 1) for one of none."""
        return math.log((self.n + 1) / (self.counts.get(word.stem, 0) + 1)) if word.content else 0.1


@dataclass(frozen=True)
class Case:
    """A question, its gold answer and an answer, read; ``rarity`` weighs the words. Made by :func:`case_of`."""

    question: str
    gold: str
    answer: str
    rarity: Rarity

    @cached_property
    def asked(self) -> list[Word]:
        """The question's words."""
        return read(self.question)

    @cached_property
    def known(self) -> frozenset[str]:
        """The stems of the question."""
        return frozenset(word.stem for word in self.asked)

    @cached_property
    def wanted(self) -> list[Word]:
        """The gold's words that say something; all of its words if none does."""
        words = read(self.gold)
        # The H. of "Arthur H. Compton" is written out, or left out, as one likes.
        return [w for w in words if w.content and (len(w.text) > 1 or w.number is not None)] or words

    @cached_property
    def new(self) -> list[bool]:
        """Which wanted words the question does not hold; all of them where it holds all."""
        new = [word.stem not in self.known for word in self.wanted]
        return new if any(new) else [True] * len(new)

    @cached_property
    def given(self) -> list[Word]:
        """The answer's words."""
        return read(self.answer)

    @cached_property
    def likes(self) -> list[float]:
        """For each wanted word, its likeness to the nearest given one."""
        given = {word.folded: word for word in self.given}.values()
        return [max((likeness(wanted, word) for word in given), default=0.0) for wanted in self.wanted]

    @cached_property
    def meant(self) -> list[float]:
        """As `likes`, but a word whose synonym is given counts as nearly found."""
        given = senses(self.given)
        return [
            max(like, _SYNONYM if senses([word]) & given else 0.0)
            for word, like in zip(self.wanted, self.likes, strict=True)
        ]

    @cached_property
    def sentence(self) -> list[Word]:
        """The sentence of the answer that holds most of the wanted words, by rarity; of equals the first."""
        weights = {word.stem: self.rarity(word) for word in self.wanted}
        sentences: dict[int, list[Word]] = {}
        for word in self.given:
            sentences.setdefault(word.sentence, []).append(word)
        return max(
            sentences.values(), key=lambda words: sum(weights.get(s, 0.0) for s in sorted(_stems(words))), default=[]
        )

    @cached_property
    def span(self) -> tuple[int, int]:
        """Where in the sentence the first and the last new wanted word stand; (-1, -1) where none does."""
        new = {word.stem for word, is_new in zip(self.wanted, self.new, strict=True) if is_new}
        at = [i for i, word in enumerate(self.sentence) if word.stem in new]
        return (at[0], at[-1]) if at else (-1, -1)


def case_of(question: str, gold: str, answer: str, rarity: Rarity) -> Case:
    """A case of texts of any length: each is stripped and cut, which bounds the time."""
    return Case(question.strip()[:MAX_LETTERS], gold.strip()[:MAX_LETTERS], answer.strip()[:MAX_ANSWER], rarity)


def features(case: Case) -> dict[str, float]:
    """Every feature of ``case`` by its name; finite, and the same names in the same order for every case."""
    groups = (_found, _letters, _missing, _numbers, _news, _place, _echo, _meaning)
    # Rounded, so that the last digits of a machine's logarithm can't move a value over a threshold.
    return {name: round(float(value), 6) for group in groups for name, value in group(case).items()}


def _share(part: float, whole: float, empty: float = 0.0) -> float:
    return part / whole if whole else empty


def _stems(words: Iterable[Word]) -> set[str]:
    """The stems of words that say something."""
    return {word.stem for word in words if word.content or word.number is not None}


def _weighted(case: Case, keep: Sequence[bool], least: float) -> float:
    """The share, by rarity, of the kept wanted words that are found with at least this likeness."""
    weights = [case.rarity(word) if kept else 0.0 for word, kept in zip(case.wanted, keep, strict=True)]
    return _share(sum(w for w, like in zip(weights, case.likes, strict=True) if like >= least), sum(weights))


def _found(case: Case) -> dict[str, float]:
    """How much of the gold stands in the answer, by words."""
    wanted, every = {word.stem for word in case.wanted}, [True] * len(case.wanted)
    first = _stems(word for word in case.given if word.sentence == 0)
    likes = {word.stem: like for word, like in zip(case.wanted, case.likes, strict=True)}
    # A gold that is a list, or says something twice ("Baltic Sea (Ostsee)"): the share found of each part.
    parts = ([likes[w.stem] >= NEAR for w in read(p) if w.stem in likes] for p in _PART.split(case.gold))
    names = [like for w, like in zip(case.wanted, case.likes, strict=True) if w.capital and w.number is None]
    return {
        "gold words found or nearly, by rarity": _weighted(case, every, NEAR),
        "new gold words found, by rarity": _weighted(case, case.new, 1.0),
        "new gold words found or nearly, by rarity": _weighted(case, case.new, NEAR),
        "mean likeness of gold words": _share(sum(case.likes), len(case.likes)),
        "least likeness of a gold word": min(case.likes, default=0.0),
        "likeness of the first new gold word": next((x for x, n in zip(case.likes, case.new, strict=True) if n), 0.0),
        "gold words found in the first sentence": _share(len(wanted & first), len(wanted)),
        "part of the gold found least": min((sum(part) / len(part) for part in parts if part), default=-1.0),
        "gold names found or nearly": _share(sum(like >= NEAR for like in names), len(names), -1.0),
    }


def _meaning(case: Case) -> dict[str, float]:
    """How much of the gold is said in its own words or in others that say about the same."""
    rare = [case.rarity(word) for word in case.wanted]
    rare_new = [weight if new else 0.0 for weight, new in zip(rare, case.new, strict=True)]
    found = [like >= NEAR for like in case.meant]
    asked, gold, stems = senses(case.asked), senses(case.wanted), _stems(case.wanted)
    here = [word for word in case.sentence if word.content and word.stem not in case.known]
    new = [new and not senses([word]) & asked for word, new in zip(case.wanted, case.new, strict=True)]
    return {
        "gold words meant, by rarity": _share(sum(w for w, ok in zip(rare, found, strict=True) if ok), sum(rare)),
        "new gold words meant, by rarity": _share(
            sum(w for w, ok in zip(rare_new, found, strict=True) if ok), sum(rare_new)
        ),
        "mean likeness of gold words, by meaning": _share(sum(case.meant), len(case.meant)),
        "least likeness of a gold word, by meaning": min(case.meant, default=0.0),
        "rarest gold word not meant": max((w for w, ok in zip(rare, found, strict=True) if not ok), default=0.0),
        "gold words not meant": found.count(False),
        "gold words said by a synonym": sum(ok and like < NEAR for ok, like in zip(found, case.likes, strict=True)),
        "share of gold words new in meaning": _share(sum(new), len(new)),
        "share of its sentence's new words that mean gold": _share(
            sum(word.stem in stems or bool(senses([word]) & gold) for word in here), len(here)
        ),
    }


def _letters(case: Case) -> dict[str, float]:
    """How much of the gold stands in the answer, by letters: other endings and spellings, words written as one."""
    gold, answer = (fold(normalise(text)) for text in (case.gold, case.answer))
    solid = gold.replace(" ", "")
    run = longest_run(solid[:MAX_LETTERS], answer.replace(" ", "")[:MAX_LETTERS])
    wanted, given = _trigrams(gold), _trigrams(answer)
    known = _trigrams(fold(normalise(case.question)))
    shared, news = len(wanted & given), len(given - (known - wanted))
    return {
        "longest run of gold letters": _share(run, len(solid)),
        "gold trigrams found": _share(shared, len(wanted)),
        "new gold trigrams found": _share(len(wanted & given - known), len(wanted - known)),
        "likeness of gold and answer by trigrams": _share(2 * shared, len(wanted) + len(given)),
        "likeness of gold and news by trigrams": _share(2 * shared, len(wanted) + news),
    }


def _trigrams(text: str) -> set[str]:
    padded = f"  {text} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)}


def _missing(case: Case) -> dict[str, float]:
    """What of the gold the answer lacks, and how much it matters."""
    rows = [(w, new, case.rarity(w)) for w, new in zip(case.wanted, case.new, strict=True)]
    lacking = [row for row, like in zip(rows, case.likes, strict=True) if like < NEAR]
    found = [rare for (_, new, rare), like in zip(rows, case.likes, strict=True) if new and like >= NEAR]
    plain = [new for word, new, _ in lacking if word.number is None and not word.capital]
    rarest_missing, rarest_found = max((rare for *_, rare in lacking), default=0.0), max(found, default=0.0)
    return {
        "rarest gold word missing": rarest_missing,
        "rarest new gold word found": rarest_found,
        "rarest found over rarest missing": rarest_found - rarest_missing,
        "gold numbers missing": sum(word.number is not None for word, *_ in lacking),
        "plain gold words missing": len(plain),
        "new plain gold words missing": sum(plain),
    }


def _numbers(case: Case) -> dict[str, float]:
    wanted = [word.number for word in case.wanted if word.number is not None]
    given = [word.number for word in case.given if word.number is not None]
    gaps = [min((abs(n - g) / max(abs(n), abs(g), 1e-9) for g in given), default=1.0) for n in wanted]
    held = case.known | {word.stem for word in case.wanted}
    return {
        "distance to the gold number": max(gaps, default=-1.0),
        "other numbers in its sentence": sum(w.number is not None and w.stem not in held for w in case.sentence),
        "rough words": sum(word.folded in _ROUGH for word in case.given),
    }


def _news(case: Case) -> dict[str, float]:
    """What the answer says beyond the question, and how much of it is the gold."""
    wanted = {word.stem for word in case.wanted}

    def said(words: Sequence[Word]) -> dict[str, float]:
        return {word.stem: case.rarity(word) for word in words if word.content and word.stem not in case.known}

    def gold(news: Mapping[str, float]) -> float:
        return _share(sum(rare for stem, rare in news.items() if stem in wanted), sum(news.values()))

    every, here = said(case.given), said(case.sentence)
    news = _stems(case.given) - case.known
    return {
        "new words": len(every),
        "new words that are not gold": len(news - wanted),
        "share of new words that are gold": _share(len(news & wanted), len(news)),
        "share of new words that are gold, by rarity": gold(every),
        "share of its sentence's new words that are gold, by rarity": gold(here),
        "rarest new word of its sentence that is not gold": max(
            (rare for stem, rare in here.items() if stem not in wanted), default=0.0
        ),
    }


def _place(case: Case) -> dict[str, float]:
    """Where in the answer the gold stands, and what stands around it."""
    first, last = case.span
    sentence = case.sentence
    start = case.given.index(sentence[0]) if sentence else 0

    def new(words: Sequence[Word]) -> int:
        return len({word.stem for word in words if word.content and word.stem not in case.known})

    echoes = [i for i, word in enumerate(sentence) if word.content and word.stem in case.known]
    return {
        "new words before the match": new(case.given[: start + first] if first >= 0 else case.given),
        "new words before the match in its sentence": new(sentence[:first] if first >= 0 else sentence),
        "new words after the match in its sentence": new(sentence[last + 1 :]),
        "question words after the match": sum(i > last for i in echoes),
        "words from the match's beginning to its end": last - first,
    }


def _echo(case: Case) -> dict[str, float]:
    """Whether the answer speaks of what was asked."""
    weights = {w.stem: case.rarity(w) for w in case.asked if w.content or w.number is not None}
    names = [word for i, word in enumerate(case.asked) if word.number is not None or (i and word.capital)]
    given = {word.stem for word in case.given}
    first = [word for word in case.given if word.sentence == 0]

    def echoed(words: Sequence[Word]) -> float:
        stems = {word.stem for word in words}
        return _share(sum(weight for stem, weight in weights.items() if stem in stems), sum(weights.values()))

    return {
        "question words in the answer, by rarity": echoed(case.given),
        "question words in the first sentence, by rarity": echoed(first),
        "question words in its sentence, by rarity": echoed(case.sentence),
        "question's names and numbers in the answer": _share(sum(w.stem in given for w in names), len(names), -1.0),
        "share of the answer's words from the question": _share(
            sum(word.content and word.stem in case.known for word in case.given), len(case.given)
        ),
        "words of the first sentence": len(first),
    }
