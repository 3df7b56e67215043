"""Settings of the outer loop: what an outcome is worth, and how the policy learns from a round."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .. import plugins
from .plugged import PathText, PluggedSection, plugged

TermName = Annotated[str, plugged("metrics", "rewards")]
# Fields of `[reward.judge]` that say how to reach a judge, not what it is asked: a run may go on with others.
REACHING_FIELDS = ("url", "key_variable", "timeout_s", "retries", "at_once", "budget", "cache")


class RewardSettings(PluggedSection):
    """When an answer is right, and what an edit is rewarded for."""

    groups: ClassVar[tuple[str, ...]] = ("metrics", "rewards")
    metric: TermName = Field(
        "exact",
        description="when an answer is right. exact: the greedy text equals the gold answer (one teacher-forced pass). On "
        "decoded text: exact_match and token_f1 (SQuAD's rules), offline (the offline grader, docs/grader.md), judge (the "
        "language model of [reward.judge]), grid (all rows of numbers are equal). As a reward only: logprob and probability, the "
        "gold answers' log-likelihood and probability per token; perplexity, minus the log-perplexity of validation_text. Or the "
        "name of a plug-in",
    )
    weights: dict[TermName, Annotated[float, Field(allow_inf_nan=False)]] = Field(
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
    validation_text: PathText = Field(
        "",
        description="text file that nothing is trained on. Its perplexity can be the reward; and cpt and streams report how "
        "likely it is before and after, which says what learning does to the model's general ability",
    )
    custom: str = Field("", description="'module:function' of your own: (task, answers) -> float")

    def named(self) -> list[tuple[str, str]]:
        """The terms of the reward; a term is a metric or a reward."""
        return [(self.group_of(name), name) for name in dict.fromkeys((self.metric, *self.terms))]

    @staticmethod
    def group_of(name: str) -> str:
        """``metrics`` for the name of a metric, else ``rewards``."""
        return "metrics" if name in plugins.names("metrics") else "rewards"

    @property
    def terms(self) -> dict[str, float]:
        """What the reward is the weighted sum of."""
        return self.weights or {"custom" if self.custom else self.metric: 1.0}


class AlgorithmSettings(PluggedSection):
    """How the policy learns from a round. An algorithm's own settings are the table of its name."""

    groups: ClassVar[tuple[str, ...]] = ("algorithms",)
    name: Annotated[str, plugged("algorithms")] = Field(
        "reinforce",
        description="rest_em: fine-tuning on the best edits (SEAL, section 3.1). reinforce, grpo, ppo: policy gradients. Or "
        "the name of a plug-in. Default: reinforce; rest_em if there is a proxy or edits have several samples, because no "
        "policy gradient learns from those",
    )
    rank_by: tuple[Literal["gain", "reward", "logprob", "probability"], ...] = Field(
        ("logprob",),
        min_length=1,
        description="how a task's edits are ordered; a later entry decides between equals. gain: the gain in reward; reward: "
        "its level; logprob, probability: the gain in the gold answers' log-likelihood, or probability, per token; both have "
        "fewer ties and less noise than the accuracy on a few probes. Policy gradients use the first entry as the reward. "
        "Default: logprob for the embedded model, probability for others (docs/real-models.md says why); gain if "
        "reward.weights, reward.custom, a judge or a perplexity is set",
    )
    epochs: int = Field(
        1,
        ge=1,
        description="passes over a round's edits (rest_em: over the best edits). Default: 4 for rest_em, 2 for grpo and ppo, "
        "else 1",
    )
    batch_size: int = Field(8, ge=1, description="texts per forward pass (rest_em: also per optimiser step)")
    lr: float = Field(2e-3, gt=0, description="learning rate of the policy's adapter")
    rank: int = Field(32, ge=1, description="rank of the policy's adapter")
    alpha: float = Field(64.0, gt=0, description="alpha of the policy's adapter; its change is scaled by alpha / rank")
    targets: str = Field(
        "all-linear",
        description="modules that the policy's adapter changes, written as in model.targets (which is for the inner loop)",
    )

    def named(self) -> list[tuple[str, str]]:
        """The algorithm."""
        return [("algorithms", self.name)]
