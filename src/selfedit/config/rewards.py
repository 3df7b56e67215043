"""Sections of a run's settings: rewards, and the judge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .sections import Section

# Fields of `JudgeSettings` that say how to reach a judge, not what it is asked: a run may go on with others.
REACHING_FIELDS = ("url", "key_variable", "timeout_s", "retries", "at_once", "budget", "cache")


class JudgeSettings(Section):
    """A language model that judges answers, behind any endpoint of the OpenAI kind (reward.metric = "judge")."""

    model: str = Field("", description="name of the model at the endpoint, such as 'gpt-4.1' or 'qwen2.5:7b'")
    url: str = Field("", description="the endpoint, such as http://localhost:11434/v1; empty: OpenAI's")
    key_variable: str = Field(
        "", description="environment variable with the key; empty: OPENAI_API_KEY where url is empty, no key elsewhere"
    )
    body: dict[str, str | int | float | bool] = Field(
        {},
        description="further fields of every request, beside temperature = 0 and max_tokens = 16; an empty text leaves one of "
        "these away, such as {max_tokens = '', max_completion_tokens = 500}",
    )
    timeout_s: float = Field(
        30.0, gt=0, description="seconds before a request counts as failed (a reply in drips: with its retries)"
    )
    retries: int = Field(
        4, ge=0, description="after timeouts, lost connections, HTTP 408, 409, 429 and 5xx, with growing pauses"
    )
    at_once: int = Field(16, ge=1, description="requests under way at the same time")
    budget: int = Field(
        20_000,
        ge=0,
        description="questions that a run may ask (retries apart); it stops where they are spent, and goes on with more",
    )
    cache: str = Field(
        "",
        description="file of the verdicts had so far, which are not asked for again; empty: in the user's cache directory",
    )


Metric = Literal["exact", "exact_match", "token_f1", "offline", "judge", "grid", "logprob", "perplexity"]
Term = Literal[Metric, "custom", "tokens"]


class RewardSettings(Section):
    """What an outcome is worth."""

    metric: Metric = Field(
        "exact",
        description="exact: greedy text equals the gold (one teacher-forced pass). On decoded text: exact_match and token_f1, "
        "SQuAD's; offline, the offline grader (docs/grader.md); judge, the language model of [reward.judge]; grid, rows of "
        "numbers that are all equal. logprob: gold log-likelihood per token; perplexity: minus log-perplexity of a text",
    )
    weights: dict[Term, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        {},
        description="the reward as a weighted sum, such as {exact_match = 1.0, logprob = 0.1, tokens = -1e-5}; also custom, and "
        "tokens: how many the inner loop trained on. metric then only says when an answer counts as right. Empty: metric alone",
    )
    max_answer_tokens: int = Field(16, ge=1)
    pilot: int = Field(
        4,
        ge=0,
        description="edits of each round that get a second seed where inner.seeds is 1 or auto: they show how much of the reward "
        "is noise; 0: none",
    )
    margin: float = Field(
        1.0,
        ge=0,
        description="inner.seeds auto: a kept edit and another of its context get more seeds while they differ by at most this "
        "many standard errors",
    )
    proxy: Literal["none", "in_context", "rubric"] = Field(
        "none",
        description="a cheap reward, without an inner loop, that ranks a context's edits first; the best of them are then tried. "
        "in_context: log-likelihood of the gold answers with the edit in view; rubric: the judge's marks for the edit",
    )
    proxy_keep: int = Field(3, ge=1, description="edits of a context that the proxy leaves to be tried")
    validation_text: str = Field("", description="file whose perplexity is the reward")
    custom: str = Field("", description="'module:function' of the user's own: (task, answers) -> float")
    judge: JudgeSettings = JudgeSettings()

    @property
    def terms(self) -> dict[Term, float]:
        """What the reward is the weighted sum of."""
        return self.weights or {"custom" if self.custom else self.metric: 1.0}
