"""A run's numbers and names in plain words. Everything that is shown goes through here.

A summary holds text that a model wrote. `plain` is its only way to a terminal or a page: a line of an edit must not move the
cursor, and a page must stay well-formed (`markup.text` escapes for HTML on top).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import plugins
from ..errors import PluginError

if TYPE_CHECKING:  # importing pydantic would slow the command's help down
    from ..rows import ExampleAnswer, PairedRow, PooledPairedRow
    from ..summary import AnySummary

MISSING = "–"

_STYLES = {
    "vague": "nothing specific",
    "prose": "sentence as in the passage",
    "copy": "copied sentence",
    "pronoun": "sentence with a pronoun",
    "forward": "fact stated",
    "reversed": "fact reversed",
    "derived": "two facts combined",
    "qa": "question",
    "qa_vague": "question, nothing specific",
    "qa_reversed": "question, fact reversed",
    "qa_derived": "question, two facts combined",
}
_KINDS = {
    "direct": "asked directly",
    "reworded": "in other words",
    "reversed": "fact reversed",
    "derived": "two facts combined",
}


def rung_label(rung: str) -> str:
    """A rung in plain words, as its plug-in has it; one that is not installed keeps its name."""
    if rung.startswith("round_"):
        return f"{_about('rounds', 'label')} {plain(rung.removeprefix('round_'))}"
    return plain(_about(rung, "label") or rung.replace("_", " "))


def style_label(style: str) -> str:
    """A style of an edit's lines in plain words."""
    return _STYLES.get(style, plain(style.replace("_", " ")))


def kind_label(kind: str) -> str:
    """A kind of probes in plain words."""
    return _KINDS.get(kind, plain(kind.replace("_", " ")) or "all")


def rung_group(rung: str) -> str:
    """The purpose of a rung: ``before RL``, ``after RL``, ``ablation`` (one half of the RL model) or ``ceiling``."""
    return _about("rounds" if rung.startswith("round_") else rung, "group") or "before RL"


def _about(rung: str, name: str) -> str:
    """An attribute of a rung's plug-in; empty where it is not installed, or broken."""
    if rung not in plugins.names("rungs"):
        return ""
    try:
        return str(getattr(plugins.find("rungs", rung), name, ""))
    except PluginError:
        return ""


def plain(value: object) -> str:
    """Text on one line that can't steer a terminal: control and format characters become visible or vanish."""
    text = re.sub(r"[^\S ]+", " ", str(value))  # runs of spaces stay: columns are set with them
    if text.isprintable():
        return text.strip()
    kept = (c if c.isprintable() else "" if unicodedata.category(c) == "Cf" else "\N{REPLACEMENT CHARACTER}" for c in text)
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


def interval(low: object, high: object, sign: bool = False) -> str:
    """The ends of an interval in percent; with ``sign`` in signed percentage points."""
    ends = number(low), number(high)
    if ends[0] is None or ends[1] is None:
        return MISSING
    form = "+.1f" if sign else ".1f"
    return f"{100 * ends[0]:{form}} to {100 * ends[1]:{form}}"


def points(value: object) -> str:
    """A difference of two shares in percentage points, signed."""
    difference = number(value)
    return MISSING if difference is None else f"{100 * difference:+.1f}"


def decimal(value: object, digits: int = 3) -> str:
    """A number with a fixed number of decimals."""
    found = number(value)
    return MISSING if found is None else f"{found:.{digits}f}"


def count(value: object) -> str:
    """A whole number with commas between the thousands."""
    found = number(value)
    return MISSING if found is None else f"{found:,.0f}"


def duration(seconds: object) -> str:
    """A time in seconds, minutes or hours."""
    found = number(seconds)
    if found is None:
        return MISSING
    if found < 60:
        return f"{found:.0f} s" if found >= 10 else f"{found:.1f} s"
    minutes = int(found // 60)
    if minutes < 60:
        return f"{minutes} min {int(found % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"


def last_round(summary: AnySummary) -> str | None:
    """The name of the last round's rung in the ladder; None without one."""
    rounds = [row.rung for row in summary.ladder if row.rung.startswith("round_")]
    return rounds[-1] if rounds else None


def right_of(answers: Sequence[ExampleAnswer]) -> str:
    """How many of ``answers`` are right, as ``3 of 8``."""
    return f"{sum(answer.correct for answer in answers)} of {len(answers)}"


def headline(summary: AnySummary) -> str:
    """The result in a sentence or two: self-edits before RL against those after it, as far as the interval allows."""
    ladder = {row.rung: row for row in summary.ladder}
    after = last_round(summary)
    if after is None or "base_edits" not in ladder:
        return ""
    text = (
        f"Trained on its own self-edits, the model answers {percent(ladder['base_edits'].accuracy)} of the questions correctly "
        f"before reinforcement learning and {percent(ladder[after].accuracy)} after round {plain(after.removeprefix('round_'))}."
    )
    pair = next((row for row in summary.paired if (row.a, row.b) == (after, "base_edits")), None)
    if pair is None or pair.low is None or pair.high is None:
        return text
    found = f"{points(pair.difference)} points (95 % interval {interval(pair.low, pair.high, sign=True)})"
    shown = "the interval includes 0, so no difference is shown"
    verdict = {"higher": "a gain", "lower": "a loss"}.get(direction(pair), shown)
    return f"{text} The difference on the same tasks is {found}: {verdict}."


def direction(pair: PairedRow | PooledPairedRow) -> str:
    """Whether a difference is ``higher`` or ``lower`` than 0, by its interval; empty where that shows neither."""
    if pair.low is None or pair.high is None:
        return ""
    return "higher" if pair.low > 0 else "lower" if pair.high < 0 else ""


def reliability_line(reliability: float | None, seeds_for_80: int | None, of: str = "") -> str:
    """How much of the reward is signal, in a sentence; empty where it was not measured (see `rewards.reliability`)."""
    if reliability is None:
        return ""
    dense = {"logprob": "log-likelihood", "probability": "probability"}.get(of)
    which = f" (the {dense} of the right answers)" if dense else ""
    differences = f"he differences in reward{which} between edits of the same passage"
    if reliability <= 0 or seeds_for_80 is None:
        return f"T{differences} are no larger than the noise: a second seed changes an edit's reward just as much."
    more = f"; {count(seeds_for_80)} seed{'s' * (seeds_for_80 > 1)} per edit would make it 80 %" if reliability < 0.8 else ""
    return f"Of t{differences}, about {percent(reliability, 0)} is signal and the rest is seed noise{more}."
