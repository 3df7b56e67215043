"""The parts of a run's summary, and of the pooled result of several runs: what one row of each of their lists holds.

Names that plug-ins bring (of rungs, arms, styles, an algorithm's figures, a guard's figures and limits) are open strings.
Accuracies are shares from 0 to 1; ``low`` and ``high`` are the ends of a 95 % bootstrap interval.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Number = int | float  # a whole number stays whole
Accuracies = tuple[float | None, ...]  # null where nothing could be graded


class Row(BaseModel):
    """Base of every part of a summary: frozen, with exact types, and without NaN."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object: what was measured or read, without the defaults of what was not."""
        return self.model_dump(mode="json", exclude_unset=True)


class Interval(Row):
    """A mean with its 95 % interval."""

    mean: float = Field(description="the mean")
    low: float = Field(description="lower end of the 95 % interval")
    high: float = Field(description="upper end of the 95 % interval")


class LadderRow(Row):
    """What the rungs of one run and of several runs have in common."""

    rung: str = Field(description="name of the rung: how the model was prepared")
    accuracy: float | None = Field(description="mean over tasks of their share of right answers; null if ungraded")
    low: float | None = Field(description="lower end of the accuracy's 95 % interval")
    high: float | None = Field(description="upper end of the accuracy's 95 % interval")
    n_tasks: int = Field(description="held-out tasks that could be graded")
    n_probes: int = Field(description="probes of these tasks")
    steps: int = Field(description="optimiser steps per task; a mean where the inner loop counts epochs")
    trained_tokens: int = Field(description="mean number of tokens trained on per task")
    failed_edits: int = Field(description="edits that could not be trained on; their tasks keep the untrained accuracy")
    ungraded_tasks: int = Field(description="tasks left out because their answers could not be graded")


class RungRow(LadderRow):
    """One rung of a run's ladder."""

    lines_held_out: int = Field(0, description="lines of edits not trained on because they repeat a probe's question")
    reward: float | None = Field(description="mean reward of the graded tasks; null where none could be graded")
    logprob: float | None = Field(
        None, description="the right answers' log-likelihood in nats per token, mean over graded tasks; null without any"
    )
    text_logprob: float | None = Field(
        None,
        description="cpt: log-likelihood of reward.validation_text in nats per token, mean over the groups' adapters; null "
        "without one",
    )


class PooledRungRow(LadderRow):
    """One rung over several runs; counts are sums over the runs."""

    n_seeds: int = Field(description="runs in which at least one task of this rung could be graded")


class Pair(Row):
    """Rung ``a`` minus rung ``b`` on the tasks that both have."""

    a: str = Field(description="name of the first rung")
    b: str = Field(description="name of the rung that is subtracted")


class PairedRow(Pair):
    """A difference between two rungs of one run."""

    difference: float = Field(description="mean difference in accuracy")
    low: float = Field(description="lower end of the difference's 95 % interval")
    high: float = Field(description="upper end of the difference's 95 % interval")


class PooledPairedRow(Pair):
    """A difference between two rungs over several runs, on the tasks that both have in each run."""

    difference: float | None = Field(description="mean difference in accuracy; null where no run has tasks of both")
    low: float | None = Field(description="lower end of the difference's 95 % interval")
    high: float | None = Field(description="upper end of the difference's 95 % interval")
    by_seed: Accuracies = Field(description="the mean difference of each run; null where it has no tasks")


class ReliabilityRow(Row):
    """How much of the differences between the edits of one task is signal, and how much is noise of the seeds."""

    of: str = Field(description="the quantity measured: reward, gain, logprob or probability")
    reliability: float | None = Field(description="share of signal in the edits' means; null if it can't be measured")
    low: float | None = Field(description="lower end of the reliability's 95 % interval")
    high: float | None = Field(description="upper end of the reliability's 95 % interval")
    var_within: float | None = Field(description="variance between the seeds of one edit")
    var_observed: float | None = Field(description="variance between the means of a task's edits")
    var_between: float | None = Field(description="the observed variance without the noise of the seeds")
    seeds_for_80: int | None = Field(description="seeds per edit for a reliability of 0.8; null if none is enough")
    seeds_low: int | None = Field(description="lower end of the 95 % interval of that number")
    seeds_high: int | None = Field(description="upper end of the interval; null where no number is surely enough")
    n_edits: int = Field(description="edits that can be compared")
    n_tasks: int = Field(description="tasks with at least two such edits")


class GuardRow(Row):
    """What the guards measured of a round's policy; guards of plug-ins add figures under names of their own."""

    model_config = ConfigDict(extra="allow")

    kl: float | None = Field(None, description="KL divergence from the base on anchor texts, nats per token")
    retention: float | None = Field(None, description="closed-book accuracy on what the base knows")
    norm_ratio: float | None = Field(None, description="largest relative change of a weight matrix")
    dev_accuracy: float | None = Field(None, description="accuracy on the graded development tasks; null without any")
    dev_tasks: int | None = Field(None, description="development tasks that could be graded")
    limits: dict[str, Number] = Field({}, description="limits that the round was held against; empty for the base")


class RoundRow(Row):
    """One round of reinforcement learning; round 0 is the base, which has only guards, styles and the verdict 'base'."""

    round: int = Field(description="number of the round")
    verdict: str = Field(description="base, accepted, unchanged or rolled_back")
    reasons: tuple[str, ...] = Field((), description="why the round was rolled back")
    guards: GuardRow = Field(description="what the guards measured")
    style_shares: dict[str, float] = Field(description="share of each style of line, on development tasks")
    mean_reward: float | None = Field(None, description="mean reward of the valid edits; null without any")
    mean_gain: float | None = Field(None, description="mean gain over the unedited learner; null without any")
    n_edits: int | None = Field(None, description="edits that were tried and graded; shares are shares of these")
    valid_share: float | None = Field(None, description="share of edits that could be trained on")
    selected_share: float | None = Field(None, description="share of edits that the policy learned from")
    n_screened: int = Field(0, description="edits not tried because a proxy reward ranked them too low")
    n_ungraded: int = Field(0, description="edits that were tried and could not be graded")
    failures: tuple[str, ...] = Field((), description="up to five different reasons why edits failed")
    algorithm: dict[str, Number] = Field({}, description="figures of the algorithm, such as learned_from and loss")
    reliability: ReliabilityRow | None = Field(None, description="how much of the round's reward is signal")
    lines_held_out: int = Field(0, description="lines of edits not trained on because they repeat a probe's question")


class KindRow(Row):
    """The accuracy of one rung on one kind of probe, over probes."""

    rung: str = Field(description="name of the rung")
    kind: str = Field(description="kind of the probes; 'all' where they have none")
    accuracy: float = Field(description="share of the probes answered right")
    n: int = Field(description="number of probes")


class ExampleLine(Row):
    """One line of an edit."""

    text: str = Field(description="the line, as the model wrote it")
    style: str = Field(description="its style")


class ExampleAnswer(Row):
    """A probe and what a model answered without the passage."""

    question: str = Field(description="the question")
    gold: str = Field(description="the right answer")
    text: str = Field(description="the model's answer")
    correct: bool = Field(description="whether the answer is right")
    kind: str = Field("", description="kind of the probe")


class ExampleStage(Row):
    """An example task at one rung: the edit, and the answers of the model that was trained on it."""

    rung: str = Field(description="name of the rung")
    edit: str = Field(description="the edit as the model wrote it; empty where the rung has none")
    lines: tuple[ExampleLine, ...] = Field(description="the edit's lines")
    answers: tuple[ExampleAnswer, ...] = Field(description="the probes with their answers")


class Example(Row):
    """One task followed through: what was written before and after, and what was answered."""

    task_id: str = Field(description="the task")
    family: str = Field(description="the task's family; empty where its source has none")
    context: str = Field(description="the passage")
    stages: tuple[ExampleStage, ...] = Field(description="the rungs, in order")


class MergeCost(Row):
    """What the gate measured of a merge at one scale; null where a number was not finite or could not be measured."""

    norm_ratio: float | None = Field(description="largest relative change of a weight matrix")
    kl: float | None = Field(description="KL divergence from the base on anchor texts, nats per token")
    drop: float | None = Field(description="accuracy lost on earlier edits' questions")
    bits: float | None = Field(description="bits per token that earlier edits' text costs more")
    gains: float | None = Field(description="mean gain in the log-likelihood of the edit's own text, nats per token")


class EditRow(Row):
    """What happened to one edit of a stream, or to an adapter that learned earlier edits again."""

    verdict: str = Field(description="accepted, scaled, rejected, invalid or diverged")
    reasons: tuple[str, ...] = Field(description="why it was not merged, or not at full scale")
    scale: float = Field(description="scale of the merge; 0 where it was not merged")
    steps: int | None = Field(None, description="optimiser steps; null where it was not trained")
    trained_tokens: int | None = Field(None, description="tokens trained on; null where it was not trained")
    adapter_sha256: str | None = Field(None, description="hash of the merged adapter; null where nothing was merged")
    tried: dict[str, MergeCost] = Field({}, description="what the gate measured, by the scale that it tried")
    consolidated: EditRow | None = Field(None, description="the adapter that replaced all edits after this one")
    refreshed: EditRow | None = Field(None, description="the adapter that learned all edits again after this one")


class ArmIntervals(Row):
    """The accuracies of an arm with their 95 % intervals over streams and passages."""

    immediate: Interval | None = Field(description="of `immediate`; null where a stream has no graded passage")
    retained: Interval | None = Field(description="of `retained`; null where a stream has no graded passage")


class Against(Row):
    """An arm's accuracy at the end minus that of the first arm, on the passages of the streams that both have."""

    arm: str = Field(description="name of the first arm")
    mean: float | None = Field(None, description="mean difference; null where a stream has no graded passage")
    low: float | None = Field(None, description="lower end of the difference's 95 % interval")
    high: float | None = Field(None, description="upper end of the difference's 95 % interval")


class ArmRow(Row):
    """One arm: one way of learning a stream of passages."""

    merge: str = Field(description="how edits are merged; 'routed' keeps them separate")
    immediate: float | None = Field(description="accuracy on each passage right after its own edit")
    retained: float | None = Field(description="accuracy on all passages at the end of the stream")
    retained_share: Interval | None = Field(description="retained over immediate; null where immediate may be 0")
    backward_transfer: Interval | None = Field(description="retained minus immediate, without each last passage")
    general_before: float | None = Field(description="closed-book accuracy on what the base knows, before the stream")
    general_after: float | None = Field(description="the same accuracy after the stream")
    text_logprob_before: float | None = Field(
        None, description="log-likelihood of reward.validation_text in nats per token, before the stream; null without one"
    )
    text_logprob_after: float | None = Field(None, description="the same log-likelihood after the stream")
    intervals: ArmIntervals = Field(description="immediate and retained with their intervals")
    seeds: int = Field(description="number of streams, each of other passages")
    ungraded: int = Field(description="passages that could not be graded at the end")
    optimiser_steps: float = Field(description="mean optimiser steps per passage, with what is learned again")
    trained_tokens: float = Field(description="mean tokens trained on per passage, with what is learned again")
    lessons: int = Field(description="answers that edited models gave consistently, kept for consolidation")
    decisions: dict[str, int] = Field(description="number of edits by verdict")
    matrix: dict[str, Accuracies] = Field(description="by the number of edits so far: accuracy on each passage so far")
    steps: tuple[EditRow, ...] = Field(description="what happened to each edit, stream after stream")
    no_update: float | None = Field(None, description="accuracy on the same passages without any edit")
    in_context: float | None = Field(None, description="accuracy on the same passages with the passage in the prompt")
    single: float | None = Field(None, description="accuracy on the same passages where each edit is learned alone")
    against: Against | None = Field(None, description="this arm minus the first arm; null for the first arm")


class Timing(Row):
    """Wall clock. Nothing else in a summary depends on it."""

    total_seconds: float = Field(description="seconds of all stages")
    stages: dict[str, float] = Field(description="seconds by stage")
    dtype: str = Field(description="the dtype of the computation, and why it was chosen")


class RunFigures(Row):
    """What a run's own summary and a pooled result of several runs both say about the run."""

    seed: int = Field(description="root of every random number")
    ladder: tuple[RungRow, ...] = Field(description="the rungs: ways of preparing the model, on the same tasks")
    paired: tuple[PairedRow, ...] = Field(description="differences between two rungs on the same tasks")
    by_kind: tuple[KindRow, ...] = Field(description="accuracy by rung and kind of probe")
    rounds: tuple[RoundRow, ...] = Field(description="the rounds of reinforcement learning; empty where it had none")
    verbatim_share: float = Field(description="share of held-out probes whose question stands word for word in an edit")
    settings_sha256: str = Field(description="hash of the settings")
    timing: Timing = Field(description="wall clock")
