"""How a run's numbers and names are put in plain words. Everything that is shown goes through here.

A summary holds text that a model wrote, so `plain` is the one door to a terminal or a page for it: a line of an edit
must not move the cursor, and a page must stay well-formed (escaping for HTML comes on top, in `html.py`).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

Summary = Mapping[str, Any]  # a run's summary.json
Row = Mapping[str, Any]  # one row of one of its lists

MISSING = "–"

_RUNGS = {
    "no_edit": "nothing learned",
    "passage_only": "trained on the bare passage",
    "base_edits": "own notes, before RL",
    "base_self_qa": "own questions, before RL",
    "best_of_k": "best of k notes in hindsight",
    "perfect_edits": "perfect notes, not its own",
    "rl_edits_base_learner": "notes after RL, base learns",
    "passage_only_rl_learner": "bare passage, RL model learns",
    "in_context": "passage in view (open book)",
}
_STYLES = {
    "vague": "says nothing",
    "prose": "sentence as in the passage",
    "copy": "sentence copied",
    "pronoun": "sentence with he, she, it",
    "forward": "fact stated",
    "reversed": "fact turned around",
    "derived": "two facts combined",
    "qa": "question",
    "qa_vague": "question, empty",
    "qa_reversed": "question turned around",
    "qa_derived": "question, two facts",
}
_KINDS = {
    "direct": "asked directly",
    "reworded": "in other words",
    "reversed": "asked backwards",
    "derived": "two facts combined",
}
_CEILINGS = ("best_of_k", "perfect_edits", "in_context")


def rung_label(rung: str) -> str:
    """A rung in plain words; an unknown one keeps its name."""
    if rung.startswith("round_"):
        return f"own notes, after RL round {plain(rung.removeprefix('round_'))}"
    return _RUNGS.get(rung, plain(rung.replace("_", " ")))


def style_label(style: str) -> str:
    """A style of an edit's lines in plain words."""
    return _STYLES.get(style, plain(style.replace("_", " ")))


def kind_label(kind: str) -> str:
    """A kind of probes in plain words."""
    return _KINDS.get(kind, plain(kind.replace("_", " ")) or "all")


def rung_group(rung: str) -> str:
    """What a rung is there for: ``before RL``, ``after RL``, ``taken apart`` (half of the RL model) or ``ceiling``."""
    if rung.startswith("round_"):
        return "after RL"
    if "rl_" in rung:
        return "taken apart"
    return "ceiling" if rung in _CEILINGS else "before RL"


def plain(value: object) -> str:
    """Text on one line that can't steer a terminal: control and format characters become visible or vanish."""
    text = re.sub(r"[^\S ]+", " ", str(value))  # runs of spaces stay: columns are set with them
    if text.isprintable():
        return text.strip()
    kept = (
        c if c.isprintable() else "" if unicodedata.category(c) == "Cf" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return "".join(kept).strip()


def number(value: object) -> float | None:
    """``value`` as a finite number, or None: a missing or failed measurement is shown as missing, never as 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def percent(value: object, digits: int = 1) -> str:
    """A share 0..1 in percent."""
    share = number(value)
    return MISSING if share is None else f"{100 * share:.{digits}f} %"


def interval(row: Row, sign: bool = False) -> str:
    """A row's 95 % interval in percent (points, with its sign, where ``sign``)."""
    low, high = number(row.get("low")), number(row.get("high"))
    if low is None or high is None:
        return MISSING
    form = "+.1f" if sign else ".1f"
    return f"{100 * low:{form}} to {100 * high:{form}}"


def points(value: object) -> str:
    """A difference of two shares in percentage points, signed."""
    difference = number(value)
    return MISSING if difference is None else f"{100 * difference:+.1f}"


def decimal(value: object, digits: int = 3) -> str:
    """A number with a fixed number of decimals."""
    found = number(value)
    return MISSING if found is None else f"{found:.{digits}f}"


def count(value: object) -> str:
    """A whole number with thousands set apart."""
    found = number(value)
    return MISSING if found is None else f"{found:,.0f}"


def duration(seconds: object) -> str:
    """Seconds as a person says them."""
    found = number(seconds)
    if found is None:
        return MISSING
    if found < 60:
        return f"{found:.0f} s" if found >= 10 else f"{found:.1f} s"
    minutes = int(found // 60)
    if minutes < 60:
        return f"{minutes} min {int(found % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"


def rows(summary: Summary, key: str) -> list[Row]:
    """The list under ``key``; empty where it is absent."""
    return [row for row in summary.get(key) or [] if isinstance(row, Mapping)]


def last_round(summary: Summary) -> str | None:
    """The name of the last round's rung in the ladder."""
    names = [str(row.get("rung", "")) for row in rows(summary, "ladder")]
    rounds = [name for name in names if name.startswith("round_")]
    return max(rounds, key=_round_number) if rounds else None


def _round_number(rung: str) -> int:
    digits = rung.removeprefix("round_")
    return int(digits) if digits.isdigit() else -1


def line_text(line: object) -> str:
    """The text of an edit's line, given as a string or as ``{text, style}``."""
    return plain(line.get("text", "") if isinstance(line, Mapping) else line)


def line_style(line: object) -> str:
    """The style of an edit's line, empty where it isn't told."""
    return plain(line.get("style", "")) if isinstance(line, Mapping) else ""


def right_of(answers: Sequence[Row]) -> str:
    """How many of ``answers`` are right, as ``3 of 8``."""
    return f"{sum(bool(a.get('correct')) for a in answers)} of {len(answers)}"


def headline(summary: Summary) -> str:
    """The outcome in a sentence or two: notes before RL against notes after, as far as the interval allows to say."""
    ladder = {str(row.get("rung")): row for row in rows(summary, "ladder")}
    after = last_round(summary)
    if after is None or "base_edits" not in ladder:
        return ""
    before, now = ladder["base_edits"], ladder[after]
    n_rounds = after.removeprefix("round_")
    text = (
        f"Trained on its own notes, the model answers {percent(before.get('accuracy'))} of the questions before "
        f"reinforcement learning and {percent(now.get('accuracy'))} after round {plain(n_rounds)}."
    )
    pair = next((p for p in rows(summary, "paired") if p.get("a") == after and p.get("b") == "base_edits"), None)
    low, high = (number(pair.get("low")), number(pair.get("high"))) if pair else (None, None)
    if pair is None or low is None or high is None:
        return text
    verdict = "a gain" if low > 0 else "a loss" if high < 0 else "the interval includes 0, so no difference is shown"
    difference = f"{points(pair.get('difference'))} points ({interval(pair, sign=True)})"
    return f"{text} Paired over the same tasks: {difference}, {verdict}."


def reliability_line(row: Row) -> str:
    """How much of the reward is signal, in a sentence; empty where it was not measured.

    ``row``: ``reliability``, ``seeds_for_80`` and, for the log-likelihood, ``of`` (see `rewards.reliability`).
    """
    share, seeds = number(row.get("reliability")), number(row.get("seeds_for_80"))
    if share is None:
        return ""
    which = " (log-likelihood of the right answers)" if row.get("of") == "logprob" else ""
    differences = f"he differences in reward{which} between edits of one passage"
    if share <= 0 or seeds is None:
        return f"T{differences} can't be told from noise: another seed of the same edit moves it as much."
    more = f"; {count(seeds)} seed{'s' * (seeds > 1)} an edit would make it 80 %" if share < 0.8 else ""
    return f"Of t{differences} about {percent(share, 0)} are real{more}."
