"""Sides that take turns in one process, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import median
from typing import Any


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


Raw = dict[str, list[float]]


def take_turns(
    runs: Mapping[str, Callable[[], float]], repeats: int, once: Collection[str] = (), keep: Callable[[Raw], None] | None = None
) -> Raw:
    """What every run returned (seconds) in each repetition, forwards and backwards in turn; those in ``once`` run once.

    ``keep`` is given what there is so far after each run.
    """
    raw: Raw = {name: [] for name in runs}
    for repetition in range(repeats):
        for name in list(runs)[:: 1 if repetition % 2 == 0 else -1]:
            if name not in once or repetition == 0:
                raw[name].append(runs[name]())
                if keep is not None:
                    keep(raw)
        latest = ", ".join(f"{name} {seconds[-1]:.3g} s" for name, seconds in raw.items())
        say(f"repetition {repetition + 1} of {repeats}: {latest}")
    return raw


def quotients(raw: Mapping[str, list[float]], ks: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """Medians, and each of ``names`` over the engine at its best K: the median of the repetitions' own ratios.

    ``raw`` has the engine's seconds as "engine K". A name that was not run has no ratio; one that ran less often is compared
    in the repetitions that it has.
    """
    medians = {name: median(seconds) for name, seconds in raw.items()}
    best = min(ks, key=lambda k: medians[f"engine {k}"])
    engine = raw[f"engine {best}"]
    ratios = {n: median(a / b for a, b in zip(raw[n], engine, strict=False)) if n in raw else None for n in names}
    seconds: dict[str, Any] = {name: medians.get(name) for name in names}
    seconds["engine"] = {str(k): medians[f"engine {k}"] for k in ks}
    return {"seconds_per_edit": seconds, "best_k": best, "ratios": ratios}
