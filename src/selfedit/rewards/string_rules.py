"""Exact match and token F1 with SQuAD's normalisation (Rajpurkar et al. 2016, arXiv 1606.05250)."""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from ..characters import unified

_ARTICLES = frozenset({"a", "an", "the"})


def normalise(text: str) -> str:
    """``text`` without case, punctuation, English articles and runs of white space (Rajpurkar et al. 2016, section 6).

    On printable ASCII this is what SQuAD's own script does. Beyond it: case folding instead of lower case, one form of each
    character (`characters.unified`: NFKC, nothing invisible, one minus sign, digits of any script as 0 to 9), and every
    Unicode punctuation mark goes, as in MLQA (Lewis et al. 2020, arXiv 1910.07475). Letters of any script stay.
    """
    folded = unicodedata.normalize("NFKC", unified(text).casefold())
    words = "".join(char for char in folded if not _is_punctuation(char)).split()
    return " ".join(word for word in words if word not in _ARTICLES)


def exact_match(prediction: str, golds: Sequence[str]) -> bool:
    """Whether ``prediction`` equals one of ``golds`` after :func:`normalise`.

    A gold that normalises to nothing is matched only by the same text, white space around it aside.

    Raises:
        ValueError: ``golds`` is empty: no answer to compare with is a failure, not a wrong answer.
        TypeError: ``golds`` is one string instead of a sequence of strings.
    """
    return any(_same(prediction, gold) for gold in checked_golds(golds))


def token_f1(prediction: str, golds: Sequence[str]) -> float:
    """The best F1 (0..1) between the words of ``prediction`` and of one of ``golds``; errors as :func:`exact_match`.

    Words are what white space separates after :func:`normalise`, counted with repetition. A gold without words scores 1 for
    the same text, else 0.
    """
    return max(_f1(prediction, gold) for gold in checked_golds(golds))


def checked_golds(golds: Sequence[str]) -> Sequence[str]:
    """``golds`` where it is a sequence of at least one answer; else ValueError, or TypeError for a lone text."""
    if isinstance(golds, str):
        raise TypeError(f"golds is one text, {golds!r}; pass a sequence of answers, such as probe.golds")
    if not golds:
        raise ValueError("there is no gold answer to compare with; pass at least one, such as probe.golds")
    return golds


def _is_punctuation(char: str) -> bool:
    # SQuAD's script knows ASCII only; its set holds symbols ("$", "+") that Unicode does not call punctuation.
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def _same(prediction: str, gold: str) -> bool:
    wanted = normalise(gold)
    # A gold such as "?" or "The" normalises to nothing, and so does an empty prediction: compare those as written.
    return normalise(prediction) == wanted if wanted else prediction.strip() == gold.strip()


def _f1(prediction: str, gold: str) -> float:
    wanted = normalise(gold).split()
    if not wanted:
        return float(_same(prediction, gold))
    given = normalise(prediction).split()
    shared = (Counter(given) & Counter(wanted)).total()
    # 2PR / (P + R), with P = shared / given and R = shared / wanted
    return 2 * shared / (len(given) + len(wanted))
