"""What the comparison of directives says about several seeds, and the random search that it compares with."""

from __future__ import annotations

import random
from typing import cast

import pytest

from benchmarks import directives, tables
from selfedit.config import Settings
from selfedit.edits.directives import Directives
from selfedit.parts import Parts

ACCURACY = {"default": (0.5, 0.7), "default_self_qa": (0.6, 0.6), "random": (0.1, 0.3), "best_fixed": (0.8, 0.8)}


def seed_of(n: int) -> dict[str, object]:
    """A seed's result: two passages, of which the trained policy learns one wholly and the other as in ``ACCURACY``."""
    by_task = {name: {"a": values[n], "b": values[n]} for name, values in ACCURACY.items()}
    arms = {name: {"by_task": found, "tokens": 1000.0} for name, found in by_task.items()}
    arms["trained"] = {"by_task": {"a": 1.0, "b": 0.8}, "tokens": 700.0}
    return {"seed": n, "arms": arms, "inner_loops": {"trained": 48, "best_fixed": 48}}


def test_arms_are_pooled_over_seeds_and_compared_on_the_same_passages() -> None:
    made = directives.pooled([seed_of(0), seed_of(1)])
    assert made["arms"]["trained"]["accuracy"] == pytest.approx(0.9)
    assert made["arms"]["default"]["seeds"] == pytest.approx([0.5, 0.7])
    less = {(row["a"], row["b"]): row["difference"] for row in made["paired"]}
    assert less["trained", "default"] == pytest.approx(0.3)
    assert less["trained", "best_fixed"] == pytest.approx(0.1)
    assert less["best_fixed", "default"] == pytest.approx(0.2)
    assert made["inner_loops"] == {"best_fixed": 96, "trained": 96}
    rows = {row[0]: row for row in tables.directives(made)}
    assert rows["chosen by the trained policy"][2:] == ("90.0, 90.0", "700", "")
    assert rows["random"][4].startswith("+70.0 [")


class _Characters:
    """A model's tokens, as far as directives ask for them."""

    window = 10_000

    def encode(self, text: str) -> list[int]:
        return list(map(ord, text))


def test_a_random_directive_is_any_of_those_that_the_policy_may_choose() -> None:
    settings: Settings = directives.settings_for(1, 1, 2, 2, {})
    kind = Directives(settings, _Characters())
    chooser, rng = directives.Chooser(cast(Parts, None), kind), random.Random(0)  # nothing is written here
    drawn = [chooser.drawn(rng) for _ in range(1000)]
    assert {one.steps for one in drawn} == {3, 6, 12}
    assert len(set(drawn)) == 2 * 3 * 3 * 2 * 2
