"""A cheap reward, without an inner loop, that ranks a context's edits first; the inner loop then confirms the best.

``in_context`` is how likely the gold answers are with the edit in view, in the passage's place (`Examiner.in_view`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..types import Edit


def to_be_tried(edits: Sequence[Edit], values: Mapping[str, float | None], keep: int) -> list[Edit]:
    """The ``keep`` best edits of each context by ``values`` (by edit; the first of equals), in their order.

    An edit without a value is tried in any case: the proxy failed, or the edit is unusable and was not ranked.
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
