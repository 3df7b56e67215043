"""Is an answer right? Exact match and token F1 with SQuAD's normalisation (Rajpurkar et al. 2016, arXiv 1606.05250); grids."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

_ARTICLES = frozenset({"a", "an", "the"})


def _is_punctuation(char: str) -> bool:
    # SQuAD's script knows ASCII only; its set holds symbols ("$", "+") that Unicode does not call punctuation.
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def normalise(text: str) -> str:
    """``text`` without case, punctuation, English articles and runs of white space (Rajpurkar et al. 2016, section 6).

    On printable ASCII this is what SQuAD's own script does. Beyond it: case folding instead of lower case, NFC (so that
    a composed and a decomposed accent are equal), and every Unicode punctuation mark goes, as in MLQA (Lewis et al.
    2020, arXiv 1910.07475). Letters and digits of any script stay; a text of punctuation and articles alone becomes
    empty.
    """
    folded = unicodedata.normalize("NFC", text.casefold())
    words = "".join(char for char in folded if not _is_punctuation(char)).split()
    return " ".join(word for word in words if word not in _ARTICLES)


def checked_golds(golds: Sequence[str]) -> Sequence[str]:
    """``golds`` where it is a sequence of at least one answer; else ValueError, or TypeError for a lone text."""
    if isinstance(golds, str):
        raise TypeError(f"golds is one text, {golds!r}; pass a sequence of answers, such as probe.golds")
    if not golds:
        raise ValueError("there is no gold answer to compare with; pass at least one, such as probe.golds")
    return golds


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


def exact_match(prediction: str, golds: Sequence[str]) -> bool:
    """Whether ``prediction`` equals one of ``golds`` after :func:`normalise` (Rajpurkar et al. 2016, "exact match").

    A gold that normalises to nothing is matched only by the same text, white space around it aside.

    Raises:
        ValueError: ``golds`` is empty (no answer to compare with is a failure, not a wrong answer).
        TypeError: ``golds`` is one string instead of a sequence of strings.
    """
    return any(_same(prediction, gold) for gold in checked_golds(golds))


def token_f1(prediction: str, golds: Sequence[str]) -> float:
    """The best F1 (0..1) between the words of ``prediction`` and of one of ``golds`` (Rajpurkar et al. 2016, "F1").

    Words are what white space separates after :func:`normalise`, counted with repetition; in scripts written without
    spaces a text is one word, and F1 is exact match. A gold without words scores 1 for the same text, else 0.

    Raises:
        ValueError: ``golds`` is empty.
        TypeError: ``golds`` is one string instead of a sequence of strings.
    """
    return max(_f1(prediction, gold) for gold in checked_golds(golds))


def grid_match(prediction: str, golds: Sequence[str]) -> bool:
    """Whether ``prediction`` is the grid of numbers of one of ``golds``: a row a line, or lists as in ARC's files.

    Spaces, commas and brackets between the numbers do not matter; the numbers of each row do. A text without numbers, or with
    anything else beside them, is no grid.

    Raises:
        ValueError: ``golds`` is empty, or one of them is no grid.
        TypeError: ``golds`` is one string instead of a sequence of strings.
    """
    wanted = [_grid(gold) for gold in checked_golds(golds)]
    if None in wanted:
        raise ValueError(f"the gold answer {golds[wanted.index(None)][:40]!r} is no grid; give rows of numbers")
    return _grid(prediction) in wanted


def _grid(text: str) -> tuple[tuple[str, ...], ...] | None:
    """Rows of numbers as written; None for anything else."""
    rows = re.split(r"[\n\]]", text)
    grid = tuple(tuple(re.split(r"[\s,\[]+", row.strip(" \t\r,["))) for row in rows if row.strip(" \t\r,[]"))
    return grid if grid and all(re.fullmatch(r"\d{1,9}", cell) for row in grid for cell in row) else None
