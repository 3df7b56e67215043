"""The section of a run's settings that says what an outcome is worth."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from .. import plugins
from .plugged import PluggedSection

# Fields of `[reward.judge]` that say how to reach a judge, not what it is asked: a run may go on with others.
REACHING_FIELDS = ("url", "key_variable", "timeout_s", "retries", "at_once", "budget", "cache")


class RewardSettings(PluggedSection):
    """When an answer is right, and what an edit is rewarded for."""

    groups: ClassVar[tuple[str, ...]] = ("metrics", "rewards")
    metric: str = Field(
        "exact",
        description="when an answer is right. exact: the greedy text equals the gold answer (one teacher-forced pass). On "
        "decoded text: exact_match and token_f1 (SQuAD's rules), offline (the offline grader, docs/grader.md), judge (the "
        "language model of [reward.judge]), grid (all rows of numbers are equal). As a reward only: logprob, the gold answers' "
        "log-likelihood per token; perplexity, minus the log-perplexity of validation_text. Or the name of a plug-in",
    )
    weights: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        {},
        description="the reward as a weighted sum, such as {exact_match = 1.0, logprob = 0.1, tokens = -1e-5}. Beside the "
        "metrics there are custom, and tokens: how many tokens the inner loop trained on. metric then only says when an answer "
        "counts as right. Empty: the reward is metric",
    )
    max_answer_tokens: int = Field(16, ge=1, description="longest answer that the model writes, in tokens")
    pilot: int = Field(
        4,
        ge=0,
        description="edits per round that are trained with a second seed, if inner.seeds is 1 or auto: they measure how much "
        "of the reward is noise; 0: none",
    )
    margin: float = Field(
        1.0,
        ge=0,
        description="inner.seeds = auto: a selected edit and another one of its task get more seeds while they differ by at "
        "most this many standard errors",
    )
    proxy: Literal["none", "in_context"] = Field(
        "none",
        description="a cheap reward without an inner loop that ranks a task's edits first; only the best of them are "
        "trained. in_context: log-likelihood of the gold answers with the edit in the prompt",
    )
    proxy_keep: int = Field(3, ge=1, description="edits per task that are trained after the proxy has ranked them")
    validation_text: str = Field("", description="text file whose perplexity is the reward")
    custom: str = Field("", description="'module:function' of your own: (task, answers) -> float")

    def named(self) -> list[tuple[str, str]]:
        """The terms of the reward; a term is a metric or a reward."""
        return [(self.group_of(name), name) for name in dict.fromkeys((self.metric, *self.terms))]

    @staticmethod
    def group_of(name: str) -> str:
        """``metrics`` for the name of a metric, else ``rewards``."""
        return "metrics" if name in plugins.names("metrics") else "rewards"

    @field_validator("metric")
    @classmethod
    def _is_plugged(cls, name: str) -> str:
        return _term(name)

    @field_validator("weights")
    @classmethod
    def _are_plugged(cls, weights: dict[str, float]) -> dict[str, float]:
        return {_term(name): weight for name, weight in weights.items()}

    @property
    def terms(self) -> dict[str, float]:
        """What the reward is the weighted sum of."""
        return self.weights or {"custom" if self.custom else self.metric: 1.0}


def _term(name: str) -> str:
    known = [*plugins.names("metrics"), *plugins.names("rewards")]
    if name not in known:
        raise ValueError(f"there is no {name!r} among the metrics and rewards; take one of {', '.join(known)}")
    return name
