"""A cheap reward, without an inner loop, that ranks a context's edits first; the inner loop then confirms the best.

``in_context`` is how likely the gold answers are with the edit in view; ``rubric`` a judge's marks, as in the paper's proxy
reward (SEAL, arXiv 2506.10943, the appendix on proxies).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from ..config import Settings
from ..types import Edit, Task
from .judge import Judge
from .outcomes import Rewarder

# An edit's value (higher is better), or None and why there is none.
Valued = tuple[float | None, str]
Proxy = Callable[[Sequence[Edit], Mapping[str, Task]], list[Valued]]


def make_proxy(rewarder: Rewarder, settings: Settings, purse: str = "") -> Proxy | None:
    """The proxy that these settings ask for, if any. ``purse``: whose budget a judge spends.

    Raises:
        SettingsError: the judge's client is not installed, or its cache can't be opened.
    """
    if settings.reward.proxy == "none":
        return None
    if settings.reward.proxy == "rubric":
        judge = Judge(settings.reward.judge, purse)

        def rubric(edits: Sequence[Edit], tasks: Mapping[str, Task]) -> list[Valued]:
            replies = judge.mark([(tasks[edit.task_id].text, edit.text) for edit in edits])
            return [(None if reply.value is None else float(reply.value), reply.problem) for reply in replies]

        return rubric

    def in_context(edits: Sequence[Edit], tasks: Mapping[str, Task]) -> list[Valued]:
        values = rewarder.in_view([tasks[edit.task_id] for edit in edits], [edit.text for edit in edits])
        return [(value, "") for value in values]

    return in_context


def to_be_tried(edits: Sequence[Edit], values: Mapping[str, float | None], keep: int) -> list[Edit]:
    """The ``keep`` best edits of each context by ``values`` (by edit; the first of equals), in their order.

    One without a value is tried in any case: that the proxy failed, or was not asked as the edit is unusable, says nothing.
    """
    ranked: dict[str, list[Edit]] = defaultdict(list)
    for edit in edits:
        if values.get(edit.id) is not None:
            ranked[edit.task_id].append(edit)
    best = {
        edit.id
        for group in ranked.values()
        for edit in sorted(group, key=lambda edit: -(values[edit.id] or 0.0))[:keep]
    }
    return [edit for edit in edits if edit.id in best or values.get(edit.id) is None]
