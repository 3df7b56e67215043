"""The gate: the largest scale that passes, rejection where none does, and reasons for either."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfedit.config import GateSettings
from selfedit.store.gate import Cost, decide, lower_bound, over_limits

GOOD = Cost(norm_ratio=0.1, kl=0.1, drop=0.0, bits=-0.1, gains=(1.0, 1.2, 0.9))
LIMITS = GateSettings()


@given(limit=st.floats(0.01, 2.0), bisections=st.integers(0, 6))
def test_the_scale_is_the_largest_tried_that_passes_and_costs_grow_with_it(limit, bisections):
    limits = LIMITS.model_copy(update={"bisections": bisections})
    asked: list[float] = []

    def cost_at(scale: float) -> Cost:
        asked.append(scale)
        return replace(GOOD, kl=scale / limit * LIMITS.max_kl)

    decision = decide(cost_at, limits)
    assert len(asked) == len(decision.tried) == (1 if limit >= 1 else 1 + bisections)
    passes = [scale for scale in asked if scale <= limit]
    assert decision.scale == max(passes, default=0.0)
    assert decision.verdict == ("accepted" if limit >= 1 else "scaled" if passes else "rejected")
    assert bool(decision.reasons) == (limit < 1)
    if limit < 1:  # within the last step of the bisection
        assert limit - decision.scale <= 2.0**-bisections


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"norm_ratio": 1.5}, "norm ratio"),
        ({"kl": 1.5}, "KL to the base"),
        ({"drop": 0.1}, "earlier edits' questions"),
        ({"bits": 0.6}, "bits per token"),
        ({"gains": (0.1, -0.1, 0.0)}, "not above 0"),
        ({"gains": ()}, "not above 0"),
        ({"kl": math.nan}, "KL to the base"),
        ({"norm_ratio": math.inf}, "norm ratio"),
        ({"gains": (math.nan, 1.0)}, "not above 0"),
        ({"bits": math.nan}, "bits per token"),
    ],
)
def test_each_limit_alone_rejects_and_says_so(change, reason):
    cost = replace(GOOD, **change)
    (said,) = over_limits(cost, LIMITS)
    assert reason in said
    decision = decide(lambda scale: cost, LIMITS)
    json.dumps(decision.row(), allow_nan=False)  # the journal has no NaN
    assert (decision.verdict, decision.scale, decision.reasons) == ("rejected", 0.0, (said,))


def test_earlier_edits_that_tell_nothing_break_no_limit():
    assert over_limits(replace(GOOD, drop=None, bits=None), LIMITS) == []


def test_a_gain_counts_less_the_less_sure_it_is():
    assert lower_bound((1.0, 1.0, 1.0), 2.0) == 1.0
    assert lower_bound((3.0, -1.0), 1.0) == pytest.approx(1.0 - 2.0)
    assert lower_bound((0.5,), 2.0) == 0.5
